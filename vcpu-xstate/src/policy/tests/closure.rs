//! The feature table and what a host's default follows from.

use super::super::features::{Rule, TABLE};
use super::super::place::Word;
use super::super::set::{Bit, by_name, settle};
use super::super::{CpuPolicy, FeatureSet, MAX_LEAVES};
use super::*;
use crate::component::ComponentIndex;
use proptest::prelude::*;

#[test]
fn names_and_bits_stand_once_and_needs_are_acyclic() {
    for (i, feature) in TABLE.iter().enumerate() {
        for other in &TABLE[..i] {
            assert_ne!(feature.name, other.name);
            assert_ne!(feature.bit(), other.bit(), "{}", feature.name);
        }
        let mut reached: Vec<&str> = feature.needs.to_vec();
        let mut at = 0;
        while let Some(name) = reached.get(at) {
            assert_ne!(*name, feature.name, "{} needs itself", feature.name);
            let need = by_name(name).unwrap();
            // What is offered is built on nothing that is not.
            if feature.rule == Rule::Offered {
                assert!(matches!(need.rule, Rule::Offered | Rule::Required));
            }
            let more = need.needs.iter().filter(|n| !reached.contains(n));
            let more: Vec<_> = more.copied().collect();
            reached.extend(more);
            at += 1;
        }
    }
}

#[test]
fn places_print_as_the_manuals_write_them() {
    let table = [
        ("pku", "pku (CPUID 7.0:ECX[3])"),
        ("avx", "avx (CPUID 1:ECX[28])"),
        ("xsavec", "xsavec (CPUID 0xD.1:EAX[1])"),
        ("page1gb", "page1gb (CPUID 0x80000001:EDX[26])"),
        ("avx-ifma", "avx-ifma (CPUID 7.1:EAX[23])"),
    ];
    for (name, text) in table {
        assert_eq!(by_name(name).unwrap().to_string(), text);
    }
}

/// (machine, mask of its default policy)
#[test]
fn default_masks_of_known_machines() {
    let masks = [
        ("skylake", 0x2ff),
        ("zen3", 0x207),
        // A PKRU component without the PKU feature bit.
        ("zen2", 0x7),
        // LWP is never offered, and its bit is above 31.
        ("family_15h", 0x7),
        ("sapphire_rapids", 0x6_02e7),
        ("apx", 0x6_02e7),
        ("qemu_max", 0x21f),
        ("epyc_rome", 0x7),
        ("atom", 0x3),
    ];
    for ((name, machine), (expected_name, mask)) in machines().iter().zip(masks) {
        assert_eq!(*name, expected_name);
        let policy = machine.policy();
        assert_eq!(policy.xstate().mask.bits(), mask, "{name}");
        assert!(policy.xstate().xsave, "{name}");
        assert_closed(&policy);
    }
}

#[test]
fn default_deny() {
    // A host that claims every bit of every word.
    let mut all = sapphire_rapids();
    for word in Word::ALL {
        all.word(word, u32::MAX);
    }
    let policy = all.policy();
    for word in Word::ALL {
        for bit in 0..32 {
            let bit = Bit::at(word, bit);
            let rule = super::super::set::by_bit(bit).map(|f| f.rule);
            let expected = match rule {
                Some(Rule::Required | Rule::Inverse) => true,
                // This machine has no MPX components.
                Some(Rule::Offered) => {
                    bit != const { Bit::of("mpx") } && bit != const { Bit::of("misalignsse") }
                }
                Some(Rule::Granted | Rule::Never | Rule::Live) | None => false,
            };
            assert_eq!(policy.has(bit), expected, "{}", bit.location());
        }
    }
    for name in [
        "apic", "x2apic", "mtrr", "vmx", "svm", "arch-lbr", "ibrsb", "pcid",
    ] {
        assert_eq!(by_name(name).unwrap().rule, Rule::Never);
    }
}

/// Firecracker: TILECFG offered without TILEDATA. Here the host itself finds
/// that TILEDATA does not survive its round trip (Bochs).
#[test]
fn component_left_out_by_the_host_takes_its_features() {
    let machine = sapphire_rapids();
    let mut host = machine.host();
    host.restrict(ComponentSet::only(ComponentIndex::TILEDATA));
    let policy = CpuPolicy::host_default(&|l, s| machine.cpuid(l, s), &host);
    assert_eq!(policy.xstate().mask.bits(), 0x2e7);
    for name in ["amx-tile", "amx-bf16", "amx-int8", "xfd"] {
        assert!(
            !policy.features().has(by_name(name).unwrap().bit()),
            "{name}"
        );
    }
    assert_eq!(policy.raw(0x1d, 0), CpuidResult::default());
    assert_closed(&policy);
}

/// MXCSR bit 17 faults on a host whose mask lacks it.
#[test]
fn misaligned_sse_needs_its_mxcsr_bit() {
    let mut machine = zen3();
    assert!(machine.policy().has(const { Bit::of("misalignsse") }));
    machine.mxcsr_mask = 0xffff;
    assert!(!machine.policy().has(const { Bit::of("misalignsse") }));
}

/// Intel answers leaves beyond its maximum with the highest one's registers.
#[test]
fn leaves_beyond_the_maximum_are_not_read() {
    let machine = skylake();
    let garbage = CpuidResult {
        eax: u32::MAX,
        ebx: u32::MAX,
        ecx: u32::MAX,
        edx: u32::MAX,
    };
    let cpuid = |leaf, subleaf| match (leaf, subleaf) {
        (0, 0) => CpuidResult {
            eax: 0xd,
            ..machine.cpuid(0, 0)
        },
        (7, 0) => CpuidResult {
            eax: 0,
            ..machine.cpuid(7, 0)
        },
        (7, _) | (0xe..0x8000_0000, _) => garbage,
        _ => machine.cpuid(leaf, subleaf),
    };
    let policy = CpuPolicy::host_default(&cpuid, &machine.host());
    assert_eq!(policy.features().word(Word::L71Eax), 0);
    assert!(!policy.has(const { Bit::of("amx-tile") }));
}

proptest! {
    /// No feature remains whose component or whose need is gone, whatever is
    /// taken away; and settling again changes nothing.
    #[test]
    fn settled_is_closed(
        words in proptest::array::uniform13(any::<u32>()),
        mask in any::<u64>(),
        supervisor in any::<u64>(),
    ) {
        let mut features = FeatureSet::EMPTY;
        for (word, value) in Word::ALL.into_iter().zip(words) {
            features.set_word(word, value | value << 7);
        }
        let supervisor = ComponentSet::from_bits_retain(supervisor & !0xf_ffff);
        let mut mask = ComponentSet::from_bits_retain(mask | 3).intersection(ComponentSet::ALL);
        settle(&mut features, &mut mask, supervisor, &mut ());
        prop_assert_eq!(super::super::set::first_gap(&features, mask, supervisor), None);
        prop_assert!(mask.contains(ComponentSet::LEGACY));
        let before = (features, mask);
        settle(&mut features, &mut mask, supervisor, &mut ());
        prop_assert_eq!(before, (features, mask));
    }

    /// Whatever a host claims, its default is closed, canonical, fits itself,
    /// and the level of two fits both.
    #[test]
    fn any_hosts_default_is_sound(
        words in proptest::array::uniform13(any::<u32>()),
        pick in 0usize..9,
        other in 0usize..9,
    ) {
        let mut machine = machines()[pick].1.clone();
        let kept = (machine.cpuid(1, 0), machine.cpuid(7, 0));
        for (word, value) in Word::ALL.into_iter().zip(words) {
            machine.word(word, value);
        }
        // XSAVE and its components stay, or there is no host.
        machine.word(Word::L1Ecx, kept.0.ecx & !words[1] | 1 << 26);
        let policy = machine.policy();
        assert_closed(&policy);
        prop_assert!(policy.leaves().len() < MAX_LEAVES);
        let other = machines()[other].1.policy();
        let level = policy.level(&other);
        assert_closed(&level);
        prop_assert_eq!(level.fits(&policy), Ok(()));
        prop_assert_eq!(level.fits(&other), Ok(()));
    }
}
