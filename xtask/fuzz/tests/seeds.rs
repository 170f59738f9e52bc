//! The committed seeds are what the generator makes, run on any toolchain, and reach where they should.

use std::collections::BTreeMap;
use std::path::Path;

use xferry_fuzz::{TARGETS, seeds};

fn folder(target: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("seeds")
        .join(target)
}

#[test]
fn the_committed_seeds_are_the_generators() {
    let made = seeds::all();
    for (target, name, bytes) in &made {
        let committed = std::fs::read(folder(target).join(name));
        assert!(
            committed.is_ok_and(|committed| committed == *bytes),
            "{target}/{name}: write the seeds again (see examples/write_seeds.rs)"
        );
    }
    let committed = TARGETS.iter().map(|(target, _)| {
        let files = std::fs::read_dir(folder(target)).expect("a folder of seeds");
        files.count()
    });
    assert_eq!(committed.sum::<usize>(), made.len(), "a seed nobody makes");
}

/// Each seed, whole, cut short at every few bytes, and with a bit flipped here
/// and there: a small fuzzer without instrumentation.
#[test]
fn every_target_holds_near_its_seeds() {
    let runs: BTreeMap<&str, fn(&[u8])> = TARGETS.iter().copied().collect();
    let step = if cfg!(miri) { 997 } else { 37 };
    for (target, _, bytes) in seeds::all() {
        let run = runs[target];
        run(&bytes);
        for at in (0..bytes.len()).step_by(step) {
            run(&bytes[..at]);
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            run(&flipped);
        }
    }
}

/// The seeds of `import` are accepted: without that the target would see
/// refusals alone.
#[test]
fn blobs_of_every_machine_are_accepted() {
    let mut accepted = 0;
    for (target, name, bytes) in seeds::all() {
        if target == "import" {
            let blob = migration_abi::blob::parse(&bytes[2..]).expect("a blob");
            let taken = xferry_fuzz::import::take(&blob, xferry_fuzz::machines::machine(bytes[1]));
            assert!(taken, "{name}");
            accepted += 1;
        }
    }
    assert!(accepted > 10, "{accepted}");
}
