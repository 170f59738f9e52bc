//! Machines of the field, where a table of their CPUID leaves is at hand.
//!
//! `XFERRY_CPUID_CSV` names a file of lines `cpu,vendor,model,leaf,subleaf,
//! eax,ebx,ecx,edx`. Dumps are incomplete and odd: that is their use.

use std::collections::BTreeMap;

use super::super::set::first_gap;
use super::*;
use crate::cpuid::CpuidError;

fn number(text: &str) -> u32 {
    match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).unwrap(),
        None => text.parse().unwrap(),
    }
}

/// The machines of the table, where there is one.
pub fn load() -> Option<BTreeMap<String, Machine>> {
    let path = std::env::var_os("XFERRY_CPUID_CSV")?;
    Some(corpus(&std::fs::read_to_string(path).unwrap()))
}

fn corpus(csv: &str) -> BTreeMap<String, Machine> {
    let mut machines = BTreeMap::<String, Machine>::new();
    for line in csv.lines().skip(1) {
        // The model may hold commas; the numbers are the last six.
        let fields: Vec<&str> = line.rsplitn(7, ',').collect();
        let [edx, ecx, ebx, eax, subleaf, leaf, rest] = fields[..] else {
            panic!("{line}");
        };
        let name = rest.split(',').next().unwrap();
        let machine = machines.entry(name.to_owned()).or_default();
        machine.mxcsr_mask = 0x2_ffff;
        machine.put(
            number(leaf),
            number(subleaf),
            [eax, ebx, ecx, edx].map(number),
        );
    }
    machines
}

#[test]
fn every_machine_of_the_corpus() {
    let Some(corpus) = load() else {
        println!("skipped: XFERRY_CPUID_CSV is not set");
        return;
    };
    assert!(corpus.len() > 100, "only {} machines", corpus.len());
    let mut without = 0;
    let mut policies = 0;
    for (name, machine) in &corpus {
        let cpuid = |l, s| machine.cpuid(l, s);
        match HostXstate::read(&cpuid, machine.mxcsr_mask) {
            Ok(host) => {
                let policy = CpuPolicy::host_default(&cpuid, &host);
                check(name, machine, &host, &policy);
                policies += 1;
            }
            Err(CpuidError::NoXsave(_) | CpuidError::NoLeafD(_) | CpuidError::NoLegacy(_)) => {
                without += 1;
            }
        }
    }
    println!("{policies} policies; {without} machines without XSAVE");
    assert!(policies > 200);
}

fn check(name: &str, machine: &Machine, host: &HostXstate, policy: &CpuPolicy) {
    assert_closed(policy);
    assert_eq!(
        first_gap(
            policy.features(),
            policy.xstate().mask,
            policy.geometry().supervisor()
        ),
        None,
        "{name}"
    );
    assert!(host.offered().contains(policy.xstate().mask), "{name}");
    let vcpu = all_enabled(policy);

    // Each component is described as the machine describes it.
    let raw = machine.cpuid(0xd, 0);
    let answer = policy.cpuid(0xd, 0, &vcpu);
    assert_eq!(answer.eax & !raw.eax, 0, "{name}");
    assert_eq!(answer.edx & !raw.edx, 0, "{name}");
    let mut end = 576;
    for component in 2..63 {
        if vcpu.xcr0 >> component & 1 != 0 {
            let here = machine.cpuid(0xd, component);
            let there = policy.cpuid(0xd, component, &vcpu);
            assert_eq!(
                (there.eax, there.ebx),
                (here.eax, here.ebx),
                "{name} {component}"
            );
            end = end.max(here.eax + here.ebx);
        }
    }
    assert_eq!((answer.ebx, answer.ecx), (end, end), "{name}");

    // A machine's own sizes, under its own masks, come out of the same rule.
    let user = u64::from(raw.edx) << 32 | u64::from(raw.eax);
    let complete = (2..63).all(|c| user >> c & 1 == 0 || machine.cpuid(0xd, c).eax != 0);
    if complete && vcpu.xcr0 == user {
        assert_eq!(answer.ecx, raw.ecx, "{name}");
        // EBX is the size of what was enabled when the dump was taken.
        if raw.ebx == raw.ecx {
            assert_eq!(answer.ebx, raw.ebx, "{name}");
        }
    }
    // No feature that the machine lacks, but for those in every policy.
    let told = policy.cpuid(1, 0, &vcpu);
    let real = machine.cpuid(1, 0);
    assert_eq!(told.ecx & !real.ecx & !(1 << 31 | 1 << 27), 0, "{name}");
    let told = policy.cpuid(7, 0, &vcpu);
    let real = machine.cpuid(7, 0);
    assert_eq!(told.ebx & !real.ebx & !(1 << 6 | 1 << 13), 0, "{name}");
    assert_eq!(told.ecx & !real.ecx & !(1 << 4), 0, "{name}");
    assert_eq!(told.edx & !real.edx, 0, "{name}");
}
