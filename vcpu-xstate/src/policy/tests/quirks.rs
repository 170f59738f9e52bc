//! The guest's leaf 0xD on machines that are odd, each as it was met in the field.

use super::super::Bit;
use super::*;
use proptest::prelude::*;

/// Leaf 0xD of a guest that enabled all it can: the two masks, EBX and ECX of
/// subleaf 0, EBX of subleaf 1.
fn leaf_d(machine: &Machine) -> (u64, u64, u32, u32, u32) {
    let policy = machine.policy();
    assert_closed(&policy);
    let vcpu = all_enabled(&policy);
    let (d0, d1) = (policy.cpuid(0xd, 0, &vcpu), policy.cpuid(0xd, 1, &vcpu));
    let join = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
    (
        join(d0.eax, d0.edx),
        join(d1.ecx, d1.edx),
        d0.ebx,
        d0.ecx,
        d1.ebx,
    )
}

/// XSAVES without XGETBV1: each is offered by its own bit.
#[test]
fn xsaves_without_xgetbv1() {
    let mut machine = skylake();
    machine.put(0xd, 1, [0xb, 0, 0x100, 0]);
    let policy = machine.policy();
    assert!(policy.has(const { Bit::of("xsaves") }));
    assert!(!policy.has(const { Bit::of("xgetbv1") }));
    assert_eq!(leaf_d(&machine).4, 0xa08);
    // XSAVES alone, without the XSAVEC that it includes.
    machine.put(0xd, 1, [0x8, 0, 0x100, 0]);
    assert!(machine.policy().has(const { Bit::of("xsavec") }));
    assert_eq!(leaf_d(&machine), (0x2ff, 0, 0xa88, 0xa88, 0xa08));
}

/// A PKRU component, of 64 bytes at LWP's place, without the feature bit.
#[test]
fn pkru_component_without_feature() {
    assert_eq!(leaf_d(&zen2()), (0x7, 0, 832, 832, 832));
    let mut with = zen2();
    with.word(Word::L7Ecx, 0x40_0004 | 1 << 3);
    assert_eq!(leaf_d(&with), (0x207, 0, 896, 896, 896));
}

/// CET components described, none in the supervisor mask.
#[test]
fn cet_components_with_an_empty_supervisor_mask() {
    let mut machine = zen3();
    machine.put(0xd, 1, [0xf, 0, 0, 0]);
    let granted = super::super::FeatureSet::EMPTY.with(const { Bit::of("cet-ss") });
    let cpuid = |l, s| machine.cpuid(l, s);
    let policy = CpuPolicy::host_granting(&cpuid, &machine.host(), &granted);
    assert!(!policy.has(const { Bit::of("cet-ss") }));
    assert_eq!(leaf_d(&machine), (0x207, 0, 2440, 2440, 840));
}

/// Firecracker: TILECFG listed, TILEDATA not.
#[test]
fn tilecfg_without_tiledata() {
    let mut machine = sapphire_rapids();
    machine.put(0xd, 0, [0x2_02e7, 0, 0, 0]);
    assert_eq!(leaf_d(&machine), (0x2e7, 0, 0xa88, 0xa88, 0x988));
    let policy = machine.policy();
    assert!(!policy.has(const { Bit::of("amx-tile") }));
    assert_eq!(
        policy.cpuid(0xd, 17, &Dynamic::default()),
        CpuidResult::default()
    );
    assert_eq!(
        policy.cpuid(0x1d, 0, &Dynamic::default()),
        CpuidResult::default()
    );
}

/// Parts of AVX-512, parts of MPX: the group goes, its company stays.
#[test]
fn parts_of_groups() {
    for (lost, mask, bytes) in [(5, 0x21f, 0xa88), (6, 0x21f, 0xa88), (3, 0x2e7, 0xa88)] {
        let mut machine = skylake();
        machine.put(0xd, lost, [0; 4]);
        let (user, _, ebx, ecx, _) = leaf_d(&machine);
        assert_eq!((user, ebx, ecx), (mask, bytes, bytes), "{lost}");
    }
}

/// Xen 75f9455e92: a host's maximum offered to all. The size that a guest is
/// told is its policy's.
#[test]
fn a_guests_size_is_its_own() {
    let host = sapphire_rapids().policy();
    for (config, bytes) in [
        ("host", 11008),
        ("host:amx-tile=0", 2696),
        ("host:amx-tile=0,pku=0", 2688),
        ("host:amx-tile=0,pku=0,avx512f=0", 832),
        ("host:amx-tile=0,pku=0,avx=0", 576),
    ] {
        let policy = host.with_config(config).unwrap();
        assert_eq!(
            policy.cpuid(0xd, 0, &Dynamic::default()).ecx,
            bytes,
            "{config}"
        );
    }
}

proptest! {
    /// Whatever a machine says in leaf 0xD, a guest's is sound: sizes are the
    /// largest end and the packed sum of what it describes, EBX never exceeds
    /// ECX, and nothing is described that no mask lists.
    #[test]
    fn any_leaf_d_yields_a_sound_one(
        pick in 0usize..9,
        rows in proptest::collection::vec((2u32..63, 0u32..3000, 0u32..12000, 0u32..8), 0..6),
        masks in any::<[u32; 4]>(),
        xcr0 in any::<u64>(),
        instructions in 0u32..32,
    ) {
        let mut machine = machines()[pick].1.clone();
        for (component, size, offset, flags) in rows {
            machine.put(0xd, component, [size, offset, flags, 0]);
        }
        let d0 = machine.cpuid(0xd, 0);
        machine.put(0xd, 0, [d0.eax | masks[0] & masks[1], 0, 0, masks[2]]);
        machine.put(0xd, 1, [instructions, 0, masks[3] & !d0.eax, 0]);
        let mut host = machine.host();
        host.permit(ComponentSet::ALL);
        let policy = CpuPolicy::host_default(&|l, s| machine.cpuid(l, s), &host);
        assert_closed(&policy);
        let vcpu = Dynamic { xcr0, ..all_enabled(&policy) };
        let at = |subleaf| policy.cpuid(0xd, subleaf, &vcpu);
        let user = u64::from(at(0).edx) << 32 | u64::from(at(0).eax);
        let supervisor = u64::from(at(1).edx) << 32 | u64::from(at(1).ecx);
        prop_assert_eq!(user & supervisor, 0);
        prop_assert_eq!(user & 3, 3);
        let (mut end, mut enabled_end, mut packed) = (576, 576, 576);
        for component in 2..63 {
            let row = at(component);
            let listed = (user | supervisor) >> component & 1 != 0;
            prop_assert_eq!(listed, row != CpuidResult::default());
            if user >> component & 1 != 0 {
                end = end.max(row.eax + row.ebx);
            }
            if (user & xcr0) >> component & 1 != 0 {
                enabled_end = enabled_end.max(row.eax + row.ebx);
            }
            if (user & xcr0 | supervisor) >> component & 1 != 0 {
                let from = if row.ecx & 2 != 0 { (packed + 63) & !63 } else { packed };
                packed = from + row.eax;
            }
        }
        prop_assert_eq!(at(0).ecx, end);
        prop_assert_eq!(at(0).ebx, enabled_end);
        let compacted = at(1).eax & 2 != 0;
        prop_assert_eq!(at(1).ebx, if compacted { packed } else { 0 });
    }
}
