//! Every machine of a table: sizes as its leaf 0xD records them, and every subset of its components through the library and a CPU in software.
//!
//! `XFERRY_CPUID_CSV` names the table. Without it, the test has a handful of
//! machines of its own. The CPU in software uses nothing of `layout`.

mod builtin;
mod conversions;
mod layouts;
mod table;

use std::collections::BTreeMap;
use std::io::Write;

use vcpu_xstate::HostXstate;
use vcpu_xstate::model::Machine;

use conversions::Bench;
use table::Dump;

/// The largest table of MXCSR bits: AMD's.
const MXCSR_MASK: u32 = 0x2_ffff;

#[test]
fn cpus() {
    let mut out = std::io::stdout().lock();
    let machines = table::load().unwrap_or_else(|| {
        let why = "XFERRY_CPUID_CSV names no table; the machines of the test instead";
        writeln!(out, "skipped: {why}").expect("standard output");
        builtin::machines()
    });

    // Why, and which machines.
    let mut skipped = BTreeMap::<String, Vec<&str>>::new();
    let mut unchecked = BTreeMap::<String, Vec<&str>>::new();
    let mut layouts = BTreeMap::<Vec<[u32; 4]>, (&str, &Dump)>::new();
    for (name, dump) in &machines {
        let cpuid = |leaf, subleaf| dump.cpuid(leaf, subleaf);
        let host = match HostXstate::read(&cpuid, MXCSR_MASK) {
            Ok(host) => host,
            Err(error) => {
                skipped
                    .entry(error.rule().to_owned())
                    .or_default()
                    .push(name);
                continue;
            }
        };
        let machine = Machine::read(&cpuid, MXCSR_MASK);
        for what in layouts::recorded(name, dump, host.geometry(), &machine) {
            unchecked.entry(what).or_default().push(name);
        }
        layouts.entry(dump.layout()).or_insert((name, dump));
    }

    let all: Vec<_> = layouts.values().collect();
    let (mut subsets, mut round_trips) = (0, 0);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2)
            .map(|worker| {
                let part = all.iter().skip(worker).step_by(2);
                scope.spawn(move || {
                    part.map(|(name, dump)| check(name, dump))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        for worker in workers {
            for (these, those) in worker.join().expect("a layout failed") {
                subsets += these;
                round_trips += those;
            }
        }
    });

    let mut say = |line: String| writeln!(out, "{line}").expect("standard output");
    for (why, names) in &unchecked {
        say(format!("not in the dump: {why}: {}", names.join(", ")));
    }
    let mut count = 0;
    for (why, names) in &skipped {
        count += names.len();
        say(format!(
            "skipped, no usable XSAVE ({why}): {}",
            names.join(", ")
        ));
    }
    say(format!(
        "{subsets} subsets laid out, {round_trips} there and back"
    ));
    say(format!(
        "cpus: {} machines, {} layouts checked, {count} skipped",
        machines.len(),
        layouts.len()
    ));
}

/// All of one layout: how many subsets, how many round trips.
fn check(name: &str, dump: &Dump) -> (usize, usize) {
    let cpuid = |leaf, subleaf| dump.cpuid(leaf, subleaf);
    let host = HostXstate::read(&cpuid, MXCSR_MASK).expect("read before");
    let machine = Machine::read(&cpuid, MXCSR_MASK);
    let geometry = host.geometry();
    let subsets = layouts::agree(name, geometry, &machine);
    let mut bench = Bench::new(name, dump, geometry, host.leaks_fp_pointers());
    (subsets, bench.every_subset())
}
