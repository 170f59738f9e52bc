//! Why something is not in a policy, in words.

use super::super::features::{Rule, TABLE};
use super::super::report::{LeftOut, Subject};
use super::super::set::by_name;
use super::super::{Bit, FeatureSet};
use super::*;

fn host(machine: &Machine, granted: &[&str]) -> (CpuPolicy, Vec<String>) {
    let granted = granted.iter().fold(FeatureSet::EMPTY, |all, name| {
        all.with(by_name(name).unwrap().bit())
    });
    let (cpuid, host) = (|l, s| machine.cpuid(l, s), machine.host());
    let policy = CpuPolicy::host_granting(&cpuid, &host, &granted);
    let report = CpuPolicy::explain_host(&cpuid, &host, &granted);
    (policy, report.iter().map(LeftOut::to_string).collect())
}

#[track_caller]
fn says(report: &[String], line: &str) {
    assert!(
        report.iter().any(|l| l == line),
        "{line} not in {report:#?}"
    );
}

#[test]
fn what_a_machine_has_and_its_guests_have_not() {
    let (_, report) = host(&zen2(), &[]);
    says(
        &report,
        "pkru (CPUID 0xD.9): listed, but its feature bit is clear",
    );
    let (_, report) = host(&family_15h(), &[]);
    says(&report, "lwp (CPUID 0xD.62): never offered");
    says(&report, "lwp (CPUID 0x80000001:ECX[15]): never offered");
    let (_, report) = host(&skylake(), &[]);
    says(&report, "pt (CPUID 0xD.8): never offered");
    says(&report, "x2apic (CPUID 1:ECX[21]): never offered");
    says(
        &report,
        "unknown feature (CPUID 1:ECX[11]): not known here, so denied",
    );
    let (_, report) = host(&sapphire_rapids(), &[]);
    says(&report, "pasid (CPUID 0xD.10): not permitted on this host");
    says(&report, "uintr (CPUID 0xD.14): not permitted on this host");
    says(
        &report,
        "cet_u (CPUID 0xD.11): no feature of the policy stands for it",
    );
    says(
        &report,
        "cet-ss (CPUID 7.0:ECX[7]): not granted by this hypervisor",
    );
}

#[test]
fn machines_that_do_not_add_up() {
    let mut odd = sapphire_rapids();
    odd.put(0xd, 5, [0; 4]);
    odd.put(0xd, 9, [8, 2688, 1, 0]);
    odd.put(0xd, 12, [24, 0, 0, 0]);
    odd.put(0xd, 17, [64, 600, 2, 0]);
    odd.put(0x1d, 1, [0; 4]);
    odd.mxcsr_mask = 0xffff;
    odd.word(Word::E1Ecx, 1 << 7);
    let (policy, report) = host(&odd, &[]);
    assert_eq!(policy.xstate().mask.bits(), 0x7);
    says(
        &report,
        "opmask (CPUID 0xD.5): listed, but its subleaf is empty",
    );
    says(
        &report,
        "hi16_zmm (CPUID 0xD.7): part of the group sse avx opmask zmm_hi256 hi16_zmm is missing",
    );
    says(
        &report,
        "pkru (CPUID 0xD.9): listed for XCR0, described as supervisor state",
    );
    says(
        &report,
        "cet_s (CPUID 0xD.12): listed for IA32_XSS, described as user state",
    );
    says(
        &report,
        "tilecfg (CPUID 0xD.17): no machine can lay it out so (layout-overlap: tilecfg and avx share bytes of the standard form)",
    );
    says(
        &report,
        "tiledata (CPUID 0xD.18): part of the group tilecfg tiledata is missing",
    );
    says(
        &report,
        "amx-tile (CPUID 7.0:EDX[24]): the machine describes no palette of tiles",
    );
    says(
        &report,
        "misalignsse (CPUID 0x80000001:ECX[7]): MXCSR_MASK is 0xffff",
    );
    says(
        &report,
        "avx512f (CPUID 7.0:EBX[16]): needs the component opmask",
    );
    says(
        &report,
        "avx512-fp16 (CPUID 7.0:EDX[23]): needs avx512bw (CPUID 7.0:EBX[30])",
    );

    let mut small = skylake();
    small.put(0xd, 2, [128, 576, 0, 0]);
    let (_, report) = host(&small, &[]);
    says(
        &report,
        "avx (CPUID 0xD.2): 128 bytes claimed, its registers take 256",
    );
}

#[test]
fn what_a_configuration_takes_along() {
    let policy = sapphire_rapids().policy();
    let report = policy.explain_config("host:avx512f=0,amx-tile=0").unwrap();
    let report: Vec<String> = report.iter().map(LeftOut::to_string).collect();
    says(&report, "avx512f (CPUID 7.0:EBX[16]): =0 by configuration");
    says(
        &report,
        "avx512bw (CPUID 7.0:EBX[30]): needs avx512f (CPUID 7.0:EBX[16])",
    );
    says(
        &report,
        "xfd (CPUID 0xD.1:EAX[4]): needs amx-tile (CPUID 7.0:EDX[24])",
    );
    says(
        &report,
        "tiledata (CPUID 0xD.18): no feature of the policy stands for it",
    );
    assert_eq!(policy.explain_config("host"), Ok(vec![]));
    assert!(policy.explain_config("host:ymm=0").is_err());
}

/// What is missing is explained, once, and nothing else is.
#[test]
fn reports_are_complete() {
    for (name, machine) in machines() {
        let policy = machine.policy();
        for config in [
            "host",
            "host:avx=0",
            "host:xsave=0",
            "host:lm=0",
            "host:xsavec=0",
        ] {
            let changed = policy.with_config(config).unwrap();
            let report = policy.explain_config(config).unwrap();
            let lost = policy.features().iter().filter(|bit| !changed.has(*bit));
            let mut lost: Vec<Subject> = lost.map(Subject::of).collect();
            let components = policy.xstate().mask.difference(changed.xstate().mask);
            lost.extend(components.iter().map(Subject::Component));
            assert_eq!(report.len(), lost.len(), "{name} {config} {report:?}");
            for subject in lost {
                assert!(
                    report.iter().any(|out| out.subject == subject),
                    "{name} {subject}"
                );
            }
        }
        let (cpuid, host) = (|l, s| machine.cpuid(l, s), machine.host());
        let report = CpuPolicy::explain_host(&cpuid, &host, &FeatureSet::EMPTY);
        for (at, out) in report.iter().enumerate() {
            let again = report[at + 1..]
                .iter()
                .any(|other| other.subject == out.subject);
            assert!(!again, "{name}: {out} twice");
        }
        for component in host.geometry().known().difference(policy.xstate().mask) {
            let subject = Subject::Component(component);
            assert!(
                report.iter().any(|out| out.subject == subject),
                "{name}: {subject}"
            );
        }
    }
}

/// CET and APX, for a hypervisor that switches what belongs to them.
#[test]
fn granted_features_come_with_their_components() {
    let (policy, _) = host(&zen3(), &["cet-ss"]);
    assert_eq!(policy.xstate().mask.bits(), 0x1a07);
    assert_ne!(policy.cr4_allowed() & 1 << 23, 0);
    assert_closed(&policy);
    let vcpu = all_enabled(&policy);
    assert_eq!(policy.cpuid(0xd, 1, &vcpu).ecx, 0x1800);
    assert_eq!(policy.cpuid(0xd, 12, &vcpu).ecx, 1);
    assert!(policy.fits(&zen3().policy()).is_err());

    // APX lies where MPX was, below components of lower numbers: the standard
    // size is the largest end, the compacted one the last.
    let (policy, _) = host(&apx(), &["apx-f"]);
    assert_eq!(policy.xstate().mask.bits(), 0xe_02e7);
    assert_closed(&policy);
    let size = |xcr0| {
        let vcpu = Dynamic {
            xcr0,
            ..Dynamic::default()
        };
        (
            policy.cpuid(0xd, 0, &vcpu).ebx,
            policy.cpuid(0xd, 1, &vcpu).ebx,
        )
    };
    assert_eq!(size(0x8_0007), (960 + 128, 832 + 128));
    assert_eq!(size(0x8_0207), (2696, 832 + 8 + 128));
    assert_eq!(size(0xe_02e7), (0x2b00, 0x2a00 + 128));
    // Without a grant nobody has it, whatever the machine says.
    for feature in TABLE.iter().filter(|f| f.rule == Rule::Granted) {
        assert!(!apx().policy().has(feature.bit()), "{feature}");
    }
    assert!(
        policy
            .with_config("host:apx-f=1")
            .unwrap()
            .has(const { Bit::of("apx-f") })
    );
    let error = zen3().policy().with_config("host:apx-f=1").unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("lacks apx-f (CPUID 7.1:EDX[21])"),
        "{error}"
    );
}
