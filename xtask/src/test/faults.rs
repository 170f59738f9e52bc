//! The tests' own ability to fail: with a receiver whose import drops one
//! component, the guest must say that this component's registers are wrong.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::Tally;
use crate::build::{self, Variant};
use crate::image;
use crate::migrate::Side;
use crate::migrate::rig::{Guest, Rig};
use crate::qemu::MachineSpec;
use crate::workspace::Workspace;

/// The components of QEMU's `max`, and MXCSR, which SSE and AVX share: what each
/// drop must be noticed in.
const COMPONENTS: &[&str] = &["x87", "sse", "mxcsr", "avx", "bndregs", "bndcsr", "pkru"];

const LIMIT: Duration = Duration::from_secs(20);

/// One pair of machines for each component.
pub fn play(workspace: &Workspace) -> Result<Tally> {
    let plain = image::build(workspace, &build::binaries(workspace, Variant::Plain)?, "")?;
    let faulty = build::binaries(workspace, Variant::ImportFault)?;
    let mut tally = Tally::default();
    for component in COMPONENTS {
        let dropping = image::build(workspace, &faulty, &format!("import-fault={component}"))?;
        let logs = workspace
            .logs()
            .join(format!("import-fault-{}", std::process::id()))
            .join(component);
        let machine = MachineSpec::default();
        let mut rig = Rig::boot([&machine, &machine], [&plain, &dropping], &logs)?;
        match noticed(&mut rig, component) {
            Ok(()) => {
                tally = tally.and(Tally::PASS);
                drop(rig);
                std::fs::remove_dir_all(&logs)?;
                if let Some(run) = logs.parent() {
                    let _ = std::fs::remove_dir(run);
                }
            }
            Err(error) => {
                tally = tally.and(Tally::FAIL);
                eprintln!(
                    "import-fault={component}: {error:#}\n{}",
                    rig.last_words(25)
                );
                eprintln!("--- logs: {}", workspace.short(&logs));
            }
        }
    }
    Ok(tally)
}

fn noticed(rig: &mut Rig, component: &str) -> Result<()> {
    let mut guest = rig.create(Side::A, 29, "")?;
    rig.progress(&mut guest, 2)?;
    // Dropping what is INIT is no loss; that happens between two patterns.
    rig.stop_with_all_in_use(&mut guest)?;
    rig.send(&mut guest)?;
    rig.unpause(&guest)?;
    let deadline = Instant::now() + LIMIT;
    while Instant::now() < deadline {
        for line in wrong_lines(rig, &guest)? {
            let named = line
                .split_whitespace()
                .find_map(|word| word.strip_prefix("component="));
            if named == Some(component) {
                ensure!(
                    line.contains("register="),
                    "the guest names no register: {line}"
                );
                return Ok(());
            }
            // MXCSR goes with SSE (SDM Vol. 1, 13.5.2), and is a line of its own.
            ensure!(
                component == "sse" && named == Some("mxcsr"),
                "{component} was dropped, and the guest says: {line}"
            );
        }
    }
    bail!("{component} was dropped, and the guest did not notice in {LIMIT:?}")
}

/// Lines in which the guest says that something is wrong: at least one.
fn wrong_lines(rig: &Rig, guest: &Guest) -> Result<Vec<String>> {
    let deadline = Instant::now() + LIMIT;
    while Instant::now() < deadline {
        let lines = rig.shell(guest.at).run(&format!("console {}", guest.id))?;
        let wrong: Vec<String> = lines
            .into_iter()
            .filter(|line| line.contains("FAIL "))
            .collect();
        if !wrong.is_empty() {
            return Ok(wrong);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    bail!("a component was dropped, and the guest noticed nothing in {LIMIT:?}")
}
