//! Levelling over a set of machines: the result fits each, nothing that fits each is missing, and the order decides nothing.

use super::super::report::{LeftOut, Subject, Why};
use super::super::set::{Bit, by_bit, by_name};
use super::super::{FeatureSet, level_all};
use super::*;
use crate::component::ComponentIndex;
use proptest::prelude::*;

/// What a policy says but for whose names it bears.
fn substance(policy: &CpuPolicy) -> impl PartialEq + core::fmt::Debug + use<> {
    let mut vendorless = policy.features;
    // AMD's copies of leaf 1 are no features; what is left of the word is.
    let word = vendorless.word(Word::E1Edx);
    vendorless.set_word(Word::E1Edx, word);
    (
        vendorless,
        policy.xstate,
        policy.geometry.clone(),
        policy.physical_address_bits(),
        policy.raw(1, 0).ebx,
        [policy.raw(0x1d, 1), policy.raw(0x1e, 0)],
    )
}

/// The features and components that come with `wanted` if it is added to what
/// a policy has: all that it needs, all that holds its state.
fn with_ground(policy: &CpuPolicy, wanted: Subject) -> (FeatureSet, ComponentSet) {
    let mut features = policy.features;
    let mut mask = policy.xstate.mask;
    let mut todo = vec![];
    match wanted {
        Subject::Feature(feature) => todo.push(feature),
        Subject::Component(component) => {
            mask.insert(ComponentSet::only(component));
            let holds = super::super::features::TABLE.iter();
            todo.extend(holds.filter(|f| f.components.has(component)).take(1));
        }
        Subject::Bit(_) => unreachable!("a host's default has no feature without a name"),
    }
    while let Some(feature) = todo.pop() {
        if !features.has(feature.bit()) {
            features = features.with(feature.bit());
        }
        mask.insert(feature.components);
        let needs = feature.needs.iter().map(|name| by_name(name).unwrap());
        todo.extend(needs.filter(|need| !features.has(need.bit())));
    }
    (features, mask)
}

/// Whether a host offers all of these, at the places that the first host has.
fn could(host: &CpuPolicy, first: &CpuPolicy, features: &FeatureSet, mask: ComponentSet) -> bool {
    let lost = features.first_beyond(&host.features);
    let inverse = lost
        .is_some_and(|bit| ["fdp-excp-only", "no-fpu-sel"].contains(&by_bit(bit).unwrap().name));
    let tiles = |policy: &CpuPolicy| (policy.raw(0x1d, 1), policy.raw(0x1e, 0));
    let amx = features.has(const { Bit::of("amx-tile") });
    (lost.is_none() || inverse)
        && host.xstate.mask.contains(mask)
        && host
            .geometry
            .first_difference(&first.geometry, mask)
            .is_none()
        && (!amx || tiles(host) == tiles(first))
}

/// Checks a level: it fits every host; each thing that is left out, added with
/// its ground, would not; and folding or turning the list changes nothing.
fn check(hosts: &[&CpuPolicy]) -> CpuPolicy {
    let levelled = level_all(hosts).unwrap();
    let policy = &levelled.policy;
    assert_closed(policy);
    for host in hosts {
        assert_eq!(policy.fits(host), Ok(()));
    }
    let offered = hosts
        .iter()
        .fold(FeatureSet::EMPTY, |all, host| all.union(&host.features));
    let listed = hosts
        .iter()
        .fold(ComponentSet::EMPTY, |all, host| all.union(host.xstate.mask));
    let features = offered
        .iter()
        .filter(|bit| !policy.has(*bit))
        .map(Subject::of);
    let components = listed
        .difference(policy.xstate.mask)
        .iter()
        .map(Subject::Component);
    let gone: Vec<Subject> = features.chain(components).collect();
    for subject in &gone {
        let (features, mask) = with_ground(policy, *subject);
        let taken = hosts
            .iter()
            .all(|host| could(host, hosts[0], &features, mask));
        // MPX and APX exclude each other, whoever has both.
        assert!(
            !taken || mask != mask.whole_groups(),
            "{subject} fits every host"
        );
    }
    // Each is in the report, and the report has nothing else.
    for subject in &gone {
        assert!(
            levelled.left_out.iter().any(|out| out.subject == *subject),
            "{subject}"
        );
    }
    for out in &levelled.left_out {
        assert!(gone.contains(&out.subject), "{out}");
        assert!(!out.to_string().is_empty());
    }

    // In words, each host's default becomes it.
    for host in hosts {
        let beyond = policy.features.first_beyond(&host.features).is_some();
        let Some(config) = host.config_for(policy) else {
            // Words take away; what takes something away cannot be added.
            assert!(beyond);
            continue;
        };
        assert!(!beyond);
        let became = host.with_config(&config).unwrap();
        assert_eq!(became.features, policy.features, "{config}");
        assert_eq!(became.xstate, policy.xstate, "{config}");
    }

    let folded = hosts[1..]
        .iter()
        .fold(hosts[0].clone(), |level, host| level.level(host));
    assert_eq!(folded, *policy);
    let turned: Vec<&CpuPolicy> = hosts.iter().rev().copied().collect();
    let turned = level_all(&turned).unwrap().policy;
    assert_eq!(substance(&turned), substance(policy));
    levelled.policy
}

/// CLFLUSH flushes as many bytes as its line has: a guest that counts in longer
/// ones than a host flushes leaves some out.
#[test]
fn a_level_has_the_shortest_line() {
    let mut short = sapphire_rapids();
    let leaf = short.cpuid(1, 0);
    assert_eq!(leaf.ebx & 0xff00, 0x800);
    let ebx = leaf.ebx & !0xff00 | 0x400;
    short.put(1, 0, [leaf.eax, ebx, leaf.ecx, leaf.edx]);
    let (short, long) = (short.policy(), sapphire_rapids().policy());
    for (one, other) in [(&short, &long), (&long, &short)] {
        let line = one.level(other).cpuid(1, 0, &Dynamic::default()).ebx;
        assert_eq!(line & 0xff00, 0x400);
    }
}

#[test]
fn levels_take_the_narrower_number_and_either_deferral() {
    let mut narrow = sapphire_rapids();
    narrow.put(0x8000_0008, 0, [0x3024, 0, 0, 0]);
    narrow.put(0x1d, 1, [0x0400_2000, 0x0008_0040, 0x20, 0]);
    let narrow = narrow.policy();
    let wide = sapphire_rapids().policy();
    for (one, other) in [(&narrow, &wide), (&wide, &narrow)] {
        let level = one.level(other);
        assert_eq!(level.physical_address_bits(), 36);
        assert_eq!(level.xstate().mask.bits(), 0x2e7);
        assert_eq!(level.fits(one), Ok(()));
        assert_eq!(level.fits(other), Ok(()));
    }
    let deferring = wide.with_config("host:defer-avx=1").unwrap();
    assert!(
        wide.level(&deferring)
            .deferred()
            .contains(ComponentSet::only(ComponentIndex::AVX))
    );
    assert_eq!(wide.level(&wide), wide);
}

#[test]
fn nobody_levels_nothing() {
    assert_eq!(level_all(&[]), None);
    let one = zen3().policy();
    let levelled = level_all(&[&one]).unwrap();
    assert_eq!((levelled.policy, levelled.left_out), (one, vec![]));
}

/// The report names what, why, and which of the machines.
#[test]
fn each_reason_is_given_with_its_machine() {
    let skylake = skylake().policy();
    let mut amd = zen3();
    amd.word(Word::L7Ebx, 0xf1bf_97a9);
    amd.put(0xd, 0, [0x2e7, 0, 0, 0]);
    for (component, size, offset) in [(5, 64, 832), (6, 512, 896), (7, 1024, 1408)] {
        amd.put(0xd, component, [size, offset, 0, 0]);
    }
    let zen4 = amd.policy();
    let rome = epyc_rome().policy();
    let levelled = level_all(&[&skylake, &zen4, &rome]).unwrap();
    assert_eq!(levelled.policy.xstate.mask.bits(), 0x7);
    let why = |name: &str| -> Vec<(String, Option<usize>)> {
        let of = |out: &&LeftOut| out.subject.to_string().starts_with(name);
        let out = levelled.left_out.iter().filter(of);
        out.map(|out| (out.why.to_string(), out.machine)).collect()
    };
    assert_eq!(
        why("mpx "),
        [
            ("not offered".into(), Some(1)),
            ("not offered".into(), Some(2))
        ]
    );
    assert_eq!(why("avx512f "), [("not offered".into(), Some(2))]);
    assert_eq!(why("sha "), [("not offered".into(), Some(0))]);

    // Without the third, the places decide.
    let levelled = level_all(&[&skylake, &zen4]).unwrap();
    let text: Vec<String> = levelled.left_out.iter().map(LeftOut::to_string).collect();
    for line in [
        "opmask (CPUID 0xD.5): opmask at 832 there, 1088 here",
        "pkru (CPUID 0xD.9): pkru at 2432 there, 2688 here",
        "avx512f (CPUID 7.0:EBX[16]): needs the component opmask",
        "avx512bw (CPUID 7.0:EBX[30]): needs avx512f (CPUID 7.0:EBX[16])",
        "pku (CPUID 7.0:ECX[3]): needs the component pkru",
    ] {
        assert!(text.iter().any(|t| t == line), "{line} not in {text:#?}");
    }
    let layout = levelled.left_out.iter().find_map(|out| match out.why {
        Why::Layout(difference) => Some(difference),
        _ => None,
    });
    let words = layout.unwrap().between("on zen4", "on skylake").to_string();
    assert_eq!(words, "opmask at 832 on zen4, 1088 on skylake");
}

/// Size, place, alignment and XFD bit: each alone is a reason.
#[test]
fn every_fact_of_a_component_must_agree() {
    let base = sapphire_rapids().policy();
    for (row, words) in [
        (
            [8256, 2816, 6, 0],
            "tiledata 8256 bytes there, 8192 bytes here",
        ),
        ([8192, 2880, 6, 0], "tiledata at 2880 there, 2816 here"),
        ([8192, 2816, 4, 0], "tiledata not aligned to 64 there, here"),
        ([8192, 2816, 2, 0], "tiledata not under xfd there, here"),
    ] {
        let mut other = sapphire_rapids();
        other.put(0xd, 18, row);
        let levelled = level_all(&[&base, &other.policy()]).unwrap();
        let tiles = Subject::Component(ComponentIndex::TILEDATA);
        let out = levelled
            .left_out
            .iter()
            .find(|out| out.subject == tiles)
            .unwrap();
        assert_eq!(
            (out.why.to_string().as_str(), out.machine),
            (words, Some(1))
        );
        assert_eq!(levelled.policy.xstate.mask.bits(), 0x2e7);
    }
}

/// FDP_EXCPTN_ONLY and ZERO_FCS_FDS: set anywhere, set in the level.
#[test]
fn inverse_features_are_united() {
    let promised = |bits: u32| {
        let host = skylake().policy();
        let mut leaves = host.leaves().to_vec();
        let row = leaves.iter_mut().find(|row| row.leaf == 7).unwrap();
        row.ebx = row.ebx & !(1 << 6 | 1 << 13) | bits;
        CpuPolicy::from_leaves(&leaves, host.deferred()).unwrap()
    };
    let all = [promised(0), promised(1 << 6), promised(1 << 13)];
    let level = |picks: &[usize]| {
        let hosts: Vec<&CpuPolicy> = picks.iter().map(|pick| &all[*pick]).collect();
        check(&hosts).features.word(Word::L7Ebx) & (1 << 6 | 1 << 13)
    };
    assert_eq!(level(&[0]), 0);
    assert_eq!(level(&[0, 1]), 1 << 6);
    assert_eq!(level(&[2, 0]), 1 << 13);
    assert_eq!(level(&[1, 0, 2]), 1 << 6 | 1 << 13);
}

proptest! {
    /// Any machines, with any of their features and components missing or moved.
    #[test]
    fn a_level_is_the_greatest_that_fits(
        hosts in proptest::collection::vec(
            (0usize..9, proptest::array::uniform13(any::<u32>()), any::<bool>(), 0u32..40), 1..6),
    ) {
        let hosts: Vec<CpuPolicy> = hosts.into_iter().map(|(pick, words, moved, shift)| {
            let mut machine = machines()[pick].1.clone();
            for (word, keep) in Word::ALL.into_iter().zip(words) {
                let (leaf, subleaf, place) = word.place();
                let mut answer = machine.cpuid(leaf, subleaf);
                let value = *register(&mut answer, place);
                // Mostly there: what many machines have must be able to stay.
                machine.word(word, value & (keep | keep.rotate_left(11) | keep.rotate_right(7)));
            }
            let one = machine.cpuid(1, 0);
            machine.word(Word::L1Ecx, one.ecx | 1 << 26);
            if moved {
                let mut row = machine.cpuid(0xd, 2 + shift % 18);
                row.ebx += 64 * (shift / 18);
                if row.eax != 0 {
                    machine.put(0xd, 2 + shift % 18, [row.eax, row.ebx, row.ecx, row.edx]);
                }
            }
            machine.put(0x8000_0008, 0, [0x3000 | (30 + shift % 12), 0, 0, 0]);
            machine.policy()
        }).collect();
        check(&hosts.iter().collect::<Vec<_>>());
    }
}

/// Sets of any size from the machines of the field, and all of them at once.
#[test]
fn over_the_machines_of_the_field() {
    let Some(corpus) = corpus::load() else {
        println!("skipped: XFERRY_CPUID_CSV is not set");
        return;
    };
    let usable = |machine: &Machine| {
        let cpuid = |l, s| machine.cpuid(l, s);
        let host = HostXstate::read(&cpuid, machine.mxcsr_mask).ok()?;
        Some(CpuPolicy::host_default(&cpuid, &host))
    };
    let policies: Vec<CpuPolicy> = corpus.values().filter_map(usable).collect();
    let all: Vec<&CpuPolicy> = policies.iter().collect();
    assert!(check(&all).xstate.mask.contains(ComponentSet::LEGACY));
    // Every stride through the table is another set.
    for stride in [2, 3, 5, 7, 11, 13, 29, 61, 97] {
        for start in 0..stride.min(12) {
            let some: Vec<&CpuPolicy> = all.iter().copied().skip(start).step_by(stride).collect();
            check(&some);
        }
    }
}

#[test]
fn the_words_of_a_level_are_short() {
    let (skylake, zen3) = (skylake().policy(), zen3().policy());
    let level = skylake.level(&zen3);
    assert_eq!(
        skylake.config_for(&level).unwrap(),
        "host:mpx=0,avx512f=0,pku=0"
    );
    assert_eq!(skylake.config_for(&skylake).as_deref(), Some("host"));
    let deferring = skylake.with_config("host:defer-avx=1,mpx=0").unwrap();
    let config = skylake.config_for(&deferring).unwrap();
    assert_eq!(config, "host:mpx=0,defer-avx=1");
    // No words add what a host lacks.
    assert_eq!(zen3.config_for(&skylake), None);
}
