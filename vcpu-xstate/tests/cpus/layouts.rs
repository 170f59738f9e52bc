//! Offsets and sizes of every subset of a machine's components, and the sizes that its leaf 0xD records.

use vcpu_xstate::layout::{Form, Geometry};
use vcpu_xstate::model::{Cpu, InitTracking, Machine};
use vcpu_xstate::{ComponentIndex, ComponentSet};

use super::table::Dump;

/// The subset of `components` that has number `index`.
pub fn subset(components: &[ComponentIndex], index: usize) -> u64 {
    components
        .iter()
        .enumerate()
        .filter(|(i, _)| index & 1 << i != 0)
        .fold(0, |set, (_, component)| set | component.bit())
}

/// The components of the extended region in a bitmap.
pub fn extended(mask: u64) -> Vec<ComponentIndex> {
    ComponentSet::from_bits_retain(mask & !3).iter().collect()
}

/// The library and the model agree on where each component of each subset
/// lies, in both forms, and on the image's size. How many subsets.
pub fn agree(name: &str, geometry: &Geometry, machine: &Machine) -> usize {
    let (user, supervisor) = (machine.user(), machine.supervisor());
    assert_eq!(geometry.known().bits(), user | supervisor | 3, "{name}");
    assert_eq!(geometry.supervisor().bits(), supervisor, "{name}");
    let all = extended(user | supervisor);
    for index in 0..1 << all.len() {
        let mask = subset(&all, index);
        let set = ComponentSet::from_bits_retain(mask);
        let mut next = all.iter().filter(|component| set.has(**component));
        for place in geometry.placements(Form::Compacted, set) {
            assert_eq!(Some(&place.component), next.next(), "{name}: {set}");
            let there = machine.compacted_offset(place.component, mask);
            assert_eq!(there, Some(place.offset_bytes as u64), "{name}: {set}");
            let size = machine.size(place.component);
            assert_eq!(size, Some(place.size_bytes as u32), "{name}: {set}");
        }
        assert_eq!(next.next(), None, "{name}: {set}");
        for place in geometry.placements(Form::Standard, set) {
            let there = machine.standard_offset(place.component);
            assert_eq!(there, Some(place.offset_bytes as u64), "{name}: {set}");
        }
        for (form, there) in [
            (Form::Standard, machine.standard_bytes(mask)),
            (Form::Compacted, machine.compacted_bytes(mask)),
        ] {
            let here = geometry.image_size(form, set) as u64;
            assert_eq!(here, there, "{name}: {set}, {form:?}");
        }
    }
    1 << all.len()
}

/// The sizes that the machine's leaf 0xD recorded when it was read: that of
/// everything (CPUID.(0xD,0):ECX), that of XCR0 then (EBX), that of XCR0 |
/// IA32_XSS then (CPUID.(0xD,1):EBX). The registers are not in a dump, but some
/// legal value must explain the sizes. What cannot be checked, and why.
pub fn recorded(name: &str, dump: &Dump, geometry: &Geometry, machine: &Machine) -> Vec<String> {
    let (d0, d1) = (dump.cpuid(0xd, 0), dump.cpuid(0xd, 1));
    let undescribed = ComponentSet::from_bits_retain(dump.undescribed());
    let (user, _) = dump.listed();
    let size = |form, mask: u64| {
        let set = ComponentSet::from_bits_retain(mask);
        geometry.image_size(form, set) as u32
    };
    let mut unchecked = Vec::new();
    let mut check = |what: &str, recorded: u32, explained: bool, needs: u64| {
        let missing = undescribed.intersection(ComponentSet::from_bits_retain(needs));
        if explained {
            return;
        }
        assert!(
            !missing.is_empty(),
            "{name}: no {what} explains {recorded} bytes"
        );
        unchecked.push(format!("{what} of {recorded} bytes needs {missing}"));
    };

    let all = size(Form::Standard, user);
    check("maximum", d0.ecx, all == d0.ecx, user);

    // Every XCR0 that the machine takes and that gives the size of then.
    let mut cpu = Cpu::new(machine.clone(), InitTracking::ByContent);
    let components: Vec<ComponentIndex> = ComponentSet::from_bits_retain(machine.user())
        .iter()
        .collect();
    let then: Vec<u64> = (0..1 << components.len())
        .map(|index| subset(&components, index))
        .filter(|xcr0| cpu.xsetbv(0, *xcr0).is_ok())
        .filter(|xcr0| size(Form::Standard, *xcr0) == d0.ebx)
        .collect();
    check("XCR0", d0.ebx, !then.is_empty(), user);

    // The same with an IA32_XSS beside it. Some machines leave the field 0.
    if d1.eax & 0xa != 0 && d1.ebx != 0 {
        let supervisor = extended(machine.supervisor());
        let explained = then.iter().any(|xcr0| {
            (0..1 << supervisor.len())
                .any(|i| size(Form::Compacted, xcr0 | subset(&supervisor, i)) == d1.ebx)
        });
        let (user, supervisor) = dump.listed();
        check("XCR0 | IA32_XSS", d1.ebx, explained, user | supervisor);
    }
    unchecked
}
