//! Components without a name: denied by default, carried where the host permits it, all bytes of them.

use super::super::report::LeftOut;
use super::super::{LeavesError, level_all};
use super::*;
use crate::component::ComponentIndex;
use crate::convert::{Target, canonicalise, transfer};
use crate::header::{COMPACTED, XsaveHeader};
use crate::hw::Modelled;
use crate::image::Image;
use crate::layout::Form;
use crate::legacy::LegacyRegion;
use crate::model::InitTracking;
use crate::validate::{Claims, validate};
use crate::withheld::Withheld;
use crate::{CpuId, PcpuXstate, VcpuXstate};
use proptest::prelude::*;
use zerocopy::IntoBytes;

/// A user component of an odd size behind PKRU, and a supervisor one.
const USER: ComponentIndex = ComponentIndex::new(23).unwrap();
const SUPERVISOR: ComponentIndex = ComponentIndex::new(41).unwrap();
const BOTH: u64 = 1 << 23 | 1 << 41;

/// A Zen 3 of the future.
fn future() -> Machine {
    let mut m = zen3();
    m.put(0xd, 0, [1 << 23 | 0x207, 0, 0, 0]);
    m.put(0xd, 1, [0xf, 0, 0x1800, 1 << 9]);
    m.put(0xd, 23, [75, 2496, 2, 0]);
    m.put(0xd, 41, [33, 0, 1, 0]);
    m
}

fn permitting(machine: &Machine) -> (HostXstate, CpuPolicy) {
    let mut host = machine.host();
    host.permit(ComponentSet::from_bits_retain(BOTH));
    let policy = CpuPolicy::host_default(&|l, s| machine.cpuid(l, s), &host);
    (host, policy)
}

#[test]
fn denied_by_default_and_the_reason_is_given() {
    let machine = future();
    let host = machine.host();
    assert_eq!(host.withheld(USER), Some(Withheld::Permission));
    assert_eq!(machine.policy(), zen3().policy());
    let cpuid = |l, s| machine.cpuid(l, s);
    let report = CpuPolicy::explain_host(&cpuid, &host, &super::super::FeatureSet::EMPTY);
    let lines: Vec<String> = report.iter().map(LeftOut::to_string).collect();
    for line in [
        "component 23 (CPUID 0xD.23): not permitted on this host",
        "component 41 (CPUID 0xD.41): not permitted on this host",
    ] {
        assert!(lines.iter().any(|l| l == line), "{lines:#?}");
    }
    // Permission makes nothing whole that does not add up.
    let mut odd = future();
    odd.put(0xd, 23, [0x1_0001, 2496, 2, 0]);
    let (host, policy) = permitting(&odd);
    assert!(matches!(host.withheld(USER), Some(Withheld::Layout(_))));
    assert_eq!(policy.xstate().mask.bits(), 1 << 41 | 0x207);
}

#[test]
fn a_policy_that_carries() {
    let (host, policy) = permitting(&future());
    assert_eq!(
        (host.withheld(USER), host.withheld(SUPERVISOR)),
        (None, None)
    );
    assert_eq!(policy.xstate().mask.bits(), BOTH | 0x207);
    assert_closed(&policy);
    // Room from the start: what moves it without XCR0 is not known.
    let start = policy
        .xstate()
        .initial_accum(policy.geometry().supervisor());
    assert_eq!(start.bits(), BOTH | 0x203);

    let vcpu = all_enabled(&policy);
    assert_eq!(policy.cpuid(0xd, 0, &vcpu).ebx, 2496 + 75);
    assert_eq!(policy.cpuid(0xd, 0, &vcpu).ecx, 2496 + 75);
    // AVX, PKRU, to 64, 75 bytes, 33 bytes.
    assert_eq!(policy.cpuid(0xd, 1, &vcpu).ebx, 896 + 75 + 33);
    assert_eq!(policy.cpuid(0xd, 1, &vcpu).edx, 1 << 9);
    assert_eq!(policy.cpuid(0xd, 23, &vcpu), future().cpuid(0xd, 23));
    assert_eq!(policy.cpuid(0xd, 41, &vcpu), future().cpuid(0xd, 41));

    assert_eq!(
        policy.fits(&future().policy()).unwrap_err().to_string(),
        "component 23 (CPUID 0xD.23) not offered here"
    );
    assert_eq!(zen3().policy().fits(&policy), Ok(()));
    let error = CpuPolicy::from_leaves(policy.leaves(), policy.xstate().mask).unwrap_err();
    assert_eq!(error, LeavesError::Deferred(BOTH | 0x207, 0x4));
}

#[test]
fn configured_by_number() {
    let (_, policy) = permitting(&future());
    let mask = |config| policy.with_config(config).unwrap().xstate().mask.bits();
    assert_eq!(mask("host:carry-23=0"), 1 << 41 | 0x207);
    assert_eq!(mask("host:carry-23=1,carry-41=0"), 1 << 23 | 0x207);
    assert_eq!(mask("host:carry-24=0"), BOTH | 0x207);
    // XSAVES moves supervisor state, and without XSAVE nothing does.
    assert_eq!(mask("host:xsaves=0"), 1 << 23 | 0x207);
    assert_eq!(mask("host:xsave=0"), 0x3);
    let report = policy.explain_config("host:carry-41=0,xsave=0").unwrap();
    let lines: Vec<String> = report.iter().map(LeftOut::to_string).collect();
    assert!(lines.contains(&"component 41 (CPUID 0xD.41): =0 by configuration".to_owned()));
    let line = "component 23 (CPUID 0xD.23): no feature of the policy stands for it";
    assert!(lines.contains(&line.to_owned()), "{lines:?}");

    let refused = |config| {
        let error = policy.with_config(config).unwrap_err();
        (error.broken().rule, error.position_bytes)
    };
    for number in ["9", "19", "62", "63", "-1", "", "x", "023", "+23", "300"] {
        let config = format!("host:avx=1,carry-{number}=1");
        let error = policy.with_config(&config).unwrap_err();
        assert_eq!(error.broken().rule, "config-unknown-carriage", "{config}");
        assert_eq!(error.position_bytes, 11);
    }
    assert_eq!(refused("host:carry-24=1"), ("config-not-carried", 5));
    assert_eq!(
        refused("host:xsaves=0,carry-41=1"),
        ("config-not-carried", 14)
    );
    assert_eq!(refused("host:carry-23=0,carry-23=0"), ("config-twice", 16));
    assert_eq!(
        zen3()
            .policy()
            .with_config("host:carry-23=1")
            .unwrap_err()
            .to_string(),
        "\"carry-23=1\" at byte 5: this host does not carry component 23"
    );
}

#[test]
fn levelled_by_its_facts() {
    let (_, one) = permitting(&future());
    assert_eq!(level_all(&[&one, &one]).unwrap().policy, one);
    let mut moved = future();
    moved.put(0xd, 23, [75, 2560, 2, 0]);
    moved.put(0xd, 41, [34, 0, 1, 0]);
    let (_, other) = permitting(&moved);
    let levelled = level_all(&[&one, &other]).unwrap();
    assert_eq!(levelled.policy.xstate().mask.bits(), 0x207);
    let lines: Vec<String> = levelled.left_out.iter().map(LeftOut::to_string).collect();
    assert_eq!(
        lines,
        [
            "component 23 (CPUID 0xD.23): component 23 at 2560 there, 2496 here",
            "component 41 (CPUID 0xD.41): component 41 34 bytes there, 33 bytes here",
        ]
    );
}

/// The largest policy there can be: every number is a component.
#[test]
fn every_number_in_one_policy() {
    let mut machine = sapphire_rapids();
    machine.put(0xd, 0, [0xfff6_02e7, 0, 0, 0xffff]);
    machine.put(0xd, 1, [0x1f, 0, 0xdd00, 0x3fff_0000]);
    for number in (20..62).filter(|n| *n < 48) {
        machine.put(0xd, number, [8, 11008 + 8 * number, 0, 0]);
    }
    for number in 48..62 {
        machine.put(0xd, number, [8, 0, 1, 0]);
    }
    for subleaf in 0..4 {
        machine.put(4, subleaf, [0x121, 0x01c0_003f, 0x3f, 0]);
    }
    let mut host = machine.host();
    host.permit(ComponentSet::ALL);
    let policy = CpuPolicy::host_default(&|l, s| machine.cpuid(l, s), &host);
    assert_eq!(
        policy.xstate().mask.bits(),
        u64::MAX >> 2 & !0xf_ffff | 0x6_02e7
    );
    assert!(policy.leaves().len() < super::super::MAX_LEAVES);
    assert_closed(&policy);
}

fn standard_image(host: &HostXstate, contents: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 2496 + 75];
    bytes[..512].copy_from_slice(LegacyRegion::INIT.as_bytes());
    let held = ComponentSet::only(USER);
    bytes[512..576].copy_from_slice(XsaveHeader::standard(held).as_bytes());
    bytes[2496..].copy_from_slice(contents);
    assert!(Image::new(&bytes, host.geometry(), Form::Standard).is_some());
    bytes
}

proptest! {
    /// All of its bytes go from form to form; zero is a value of it.
    #[test]
    fn every_byte_is_carried(
        contents in prop_oneof![Just(vec![0; 75]), proptest::collection::vec(any::<u8>(), 75)],
    ) {
        let (host, policy) = permitting(&future());
        let geometry = host.geometry();
        let standard = standard_image(&host, &contents);
        let image = Image::new(&standard, geometry, Form::Standard).unwrap();
        prop_assert_eq!(image.in_use(), ComponentSet::only(USER));
        let mut out = vec![0xee; 1024];
        let written = canonicalise(&image, ComponentSet::EMPTY, &mut out).unwrap();
        prop_assert_eq!(written.len_bytes, 576 + 75);
        prop_assert_eq!(&out[576..576 + 75], &contents[..]);
        let compacted = Image::new(&out[..651], geometry, Form::Compacted).unwrap();

        let mask = policy.xstate().mask;
        let wide = Target { geometry, form: Form::Compacted, layout: mask };
        let mut relaid = vec![0xee; wide.size_bytes()];
        transfer(&compacted, ComponentSet::ALL, wide, &mut relaid).unwrap();
        prop_assert_eq!(&relaid[896..896 + 75], &contents[..]);
        let relaid = Image::new(&relaid, geometry, Form::Compacted).unwrap();
        let narrow = Target { geometry, form: Form::Standard, layout: ComponentSet::only(USER) };
        let mut back = vec![0; narrow.size_bytes()];
        transfer(&relaid, ComponentSet::ALL, narrow, &mut back).unwrap();
        prop_assert_eq!(&back, &standard);
    }

    /// A vCPU takes it in and gives it out, on a host that permits it; another refuses.
    #[test]
    fn a_vcpu_moves_with_it(contents in proptest::collection::vec(any::<u8>(), 75 + 33)) {
        let mut contents = contents;
        // A processor may call zeros INIT, by its own rules.
        (contents[0], contents[75]) = (contents[0] | 1, contents[75] | 1);
        let (host, policy) = permitting(&future());
        let geometry = host.geometry().clone();
        let held = ComponentSet::from_bits_retain(BOTH);
        let mut image = vec![0; 576];
        image[..512].copy_from_slice(LegacyRegion::INIT.as_bytes());
        image[512..].copy_from_slice(XsaveHeader::compacted(held, held).as_bytes());
        image.extend(&contents);
        let claims = Claims {
            xstate_mask: BOTH | 0x207,
            xcr0: 1 << 23 | 0x207,
            xss: 1 << 41,
            xfd: 0,
            xfd_err: 0,
            accum: BOTH | 0x207,
            xcomp_bv: BOTH | COMPACTED,
            xsave: true,
        };
        let strict = future().host();
        let rule = |host: &HostXstate| {
            validate(&claims, &geometry, &image, host, policy.xstate()).map_err(|e| e.rule())
        };
        prop_assert_eq!(rule(&strict).unwrap_err(), "xstate-mask-host");

        let mut memory = crate::testing::TestMemory::default();
        let machine = future();
        let cpuid = |leaf, subleaf| machine.cpuid(leaf, subleaf);
        let model = Modelled::new(&cpuid, host.clone(), InitTracking::ByContent);
        let mut cpu = PcpuXstate::new(CpuId(0), model, host.clone());
        let mut vcpu = VcpuXstate::new(1, policy.xstate(), &host, &mut memory).unwrap();
        prop_assert!(vcpu.area_mask().contains(held));
        vcpu.import(&rule(&host).unwrap(), &mut cpu, &mut memory).unwrap();
        cpu.load(&mut vcpu).unwrap();
        cpu.enter(&vcpu);
        for (component, bytes) in [(USER, &contents[..75]), (SUPERVISOR, &contents[75..])] {
            prop_assert_eq!(cpu.hardware_mut().cpu.registers().component(component), bytes);
        }
        let mut out = vec![0; vcpu.export_size(&mut cpu)];
        let exported = vcpu.export(&mut cpu, &mut out).unwrap();
        prop_assert_eq!(exported.claims, claims);
        prop_assert_eq!(out, image);
    }
}
