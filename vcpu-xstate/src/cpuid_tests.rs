//! Tests of reading a machine: measured ones, odd ones, and those that cannot be used.

use super::*;
use crate::testing::{Machine, bochs_sapphire_rapids, geometry, qemu_max, supervisor, user};

#[test]
fn qemu_max_offers_what_it_has_in_the_standard_form() {
    let machine = Machine {
        geometry: qemu_max(),
        instructions: 0x5,
    };
    let host = HostXstate::read(&|l, s| machine.cpuid(l, s), 0).unwrap();
    assert_eq!(host.user().bits(), 0x21f);
    assert!(host.supervisor().is_empty());
    assert_eq!(host.save_instruction(), SaveInstruction::Xsaveopt);
    assert_eq!(host.format(), Form::Standard);
    assert_eq!(host.geometry(), &machine.geometry);
    assert_eq!(host.mxcsr_mask(), 0xffbf);
}

#[test]
fn uintr_waits_for_permission() {
    let machine = Machine {
        geometry: bochs_sapphire_rapids(),
        instructions: 0xf,
    };
    let mut host = HostXstate::read(&|l, s| machine.cpuid(l, s), 0xffff).unwrap();
    assert_eq!(host.supervisor().bits(), 0x1800);
    assert_eq!(host.user().bits(), 0x6_02e7);
    assert_eq!(host.save_instruction(), SaveInstruction::Xsaves);
    host.permit(ComponentSet::ALL);
    assert_eq!(host.supervisor().bits(), 0x5800);
}

#[test]
fn what_fails_its_round_trip_takes_its_group_along() {
    let mut host = crate::testing::host(bochs_sapphire_rapids(), 0xf);
    host.restrict(ComponentSet::only(ComponentIndex::TILEDATA));
    assert_eq!(host.user().bits(), 0x2e7);
    host.restrict(ComponentSet::LEGACY);
    assert_eq!(host.user().bits(), 0x2e7);
    host.restrict(ComponentSet::only(ComponentIndex::AVX));
    assert_eq!(host.user().bits(), 0x203);
}

#[test]
fn odd_machines_lose_only_what_is_odd() {
    let machine = Machine {
        geometry: geometry(&[
            (2, user(256, 576)),
            (8, supervisor(128)),
            (9, user(8, 2688)),
            (30, user(64, 4096)),
        ]),
        instructions: 0xb,
    };
    // PKRU listed, PKU not; component 30 unknown; PT never offered;
    // XSAVES without XGETBV1.
    let cpuid = |leaf, subleaf| match (leaf, subleaf) {
        (7, 0) => CpuidResult::default(),
        _ => machine.cpuid(leaf, subleaf),
    };
    let host = HostXstate::read(&cpuid, 0xffff).unwrap();
    assert_eq!(host.offered().bits(), 0x7);
    assert_eq!(host.geometry(), &machine.geometry);
    assert!(!host.instructions().xgetbv1);
    // AVX claims fewer bytes than it has: it is not offered.
    let short = |leaf, subleaf| match (leaf, subleaf) {
        (0xd, 2) => CpuidResult {
            eax: 128,
            ..machine.cpuid(0xd, 2)
        },
        _ => machine.cpuid(leaf, subleaf),
    };
    let host = HostXstate::read(&short, 0xffff).unwrap();
    assert_eq!(host.offered().bits(), 0x203);
}

/// CET components described, but XSS = 0: they cannot be enabled.
#[test]
fn cet_described_without_supervisor_mask() {
    let machine = Machine {
        geometry: bochs_sapphire_rapids(),
        instructions: 0xf,
    };
    let cpuid = |leaf, subleaf| {
        let mut r = machine.cpuid(leaf, subleaf);
        if (leaf, subleaf) == (0xd, 1) {
            (r.ecx, r.edx) = (0, 0);
        }
        r
    };
    let host = HostXstate::read(&cpuid, 0xffff).unwrap();
    assert!(host.supervisor().is_empty());
    assert!(!host.geometry().known().has(ComponentIndex::CET_U));
}

#[test]
fn machines_without_xsave_are_refused_by_name() {
    let machine = Machine {
        geometry: qemu_max(),
        instructions: 0,
    };
    let without = |missing: u32| {
        HostXstate::read(
            &|leaf, subleaf| {
                if leaf == missing {
                    CpuidResult::default()
                } else {
                    machine.cpuid(leaf, subleaf)
                }
            },
            0,
        )
    };
    assert_eq!(without(0), Err(CpuidError::NoLeafD(0)));
    assert_eq!(without(1), Err(CpuidError::NoXsave(0)));
    let error = without(0xd).unwrap_err();
    assert_eq!(error, CpuidError::NoLegacy(0));
    assert_eq!(error.to_string(), "cpuid-legacy: seen 0x0, allowed 0x3");
}

/// XSA-52: the leak is AMD's, and newer ones say that they have it not.
#[test]
fn xsa_52_fip_leak_is_read_from_cpuid() {
    let machine = Machine {
        geometry: qemu_max(),
        instructions: 1,
    };
    let read = |mended: u32| {
        let cpuid = |leaf, subleaf| {
            let mut r = machine.cpuid(leaf, subleaf);
            match leaf {
                0 => r.ebx = u32::from_le_bytes(*b"Auth"),
                0x8000_0008 => r.ebx = mended << 2,
                _ => {}
            }
            r
        };
        HostXstate::read(&cpuid, 0).unwrap().leaks_fp_pointers()
    };
    assert!(read(0));
    assert!(!read(1));
    assert!(!machine.host().leaks_fp_pointers());
}

/// XRSTORS does not load IA32_LBR_DEPTH: without somebody who switches it, the
/// branch records would be lost between guests of two depths.
#[test]
fn lbr_was_offered_though_nobody_switches_its_depth() {
    let machine = Machine {
        geometry: geometry(&[(2, user(256, 576)), (15, supervisor(808))]),
        instructions: 0xf,
    };
    let cpuid = |leaf, subleaf| machine.cpuid(leaf, subleaf);
    let mut host = HostXstate::read(&cpuid, 0xffff).unwrap();
    assert_eq!(host.offered().bits(), 0x7);
    assert_eq!(
        host.withheld(ComponentIndex::LBR),
        Some(Withheld::Permission)
    );
    host.permit(ComponentSet::only(ComponentIndex::LBR));
    assert_eq!(host.offered().bits(), 0x8007);
}

/// MPX is whole here: the report said that a part of it is missing.
#[test]
fn mpx_beside_apx_says_so() {
    let geometry = geometry(&[
        (2, user(256, 576)),
        (3, user(64, 960)),
        (4, user(64, 1024)),
        (19, user(128, 1088)),
    ]);
    let mut host = crate::testing::host(geometry, 0x7);
    let apx = ComponentSet::only(ComponentIndex::APX);
    for component in ComponentSet::MPX {
        let why = host.withheld(component).unwrap();
        assert_eq!(why, Withheld::Beside(ComponentIndex::APX));
        let text = why.to_string();
        assert_eq!(text, "XCR0 cannot hold it beside apx, which is offered");
    }
    host.restrict(ComponentSet::only(ComponentIndex::BNDREGS));
    let bndcsr = host.withheld(ComponentIndex::BNDCSR);
    assert_eq!(bndcsr, Some(Withheld::Group(ComponentSet::MPX)));
    host.restrict(apx);
    assert_eq!(
        host.withheld(ComponentIndex::APX),
        Some(Withheld::RoundTrip)
    );
}
