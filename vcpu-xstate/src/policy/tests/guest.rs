//! What CPUID answers to a guest.

use super::super::guest::HYPERVISOR_LAST;
use super::*;

/// XCR0, 0xD.0:EBX, 0xD.1:EBX; the compacted sizes are those of leaf 0xD of
/// the machines themselves.
#[test]
fn leaf_d_follows_xcr0() {
    let skylake = skylake().policy();
    let rapids = sapphire_rapids().policy();
    let table = [
        (&skylake, 0x1, 576, 576),
        (&skylake, 0x3, 576, 576),
        (&skylake, 0x7, 832, 832),
        (&skylake, 0x1f, 1088, 960),
        (&skylake, 0x2ff, 0xa88, 0xa08),
        (&skylake, 0x203, 0xa88, 584),
        (&rapids, 0x2e7, 0xa88, 0x988),
        (&rapids, 0x6_02e7, 0x2b00, 0x2a00),
    ];
    for (policy, xcr0, standard, compacted) in table {
        let vcpu = Dynamic {
            xcr0,
            ..Dynamic::default()
        };
        assert_eq!(policy.cpuid(0xd, 0, &vcpu).ebx, standard, "{xcr0:#x}");
        assert_eq!(policy.cpuid(0xd, 1, &vcpu).ebx, compacted, "{xcr0:#x}");
    }
    assert_eq!(skylake.cpuid(0xd, 0, &Dynamic::default()).ecx, 0xa88);
    assert_eq!(rapids.cpuid(0xd, 0, &Dynamic::default()).ecx, 0x2b00);
}

/// Xen c3bd0b83ea: 0xD.1:EBX = 0 with XSAVEC but no XSAVES upsets Linux.
#[test]
fn compacted_size_with_xsavec_alone() {
    let host = skylake().policy();
    let vcpu = Dynamic {
        xcr0: 7,
        ..Dynamic::default()
    };
    let ebx = |config| {
        let policy = host.with_config(config).unwrap();
        policy.cpuid(0xd, 1, &vcpu).ebx
    };
    assert_eq!(ebx("host"), 832);
    assert_eq!(ebx("host:xsaves=0"), 832);
    assert_eq!(ebx("host:xsavec=0"), 0);
    assert_eq!(qemu_max().policy().cpuid(0xd, 1, &vcpu).ebx, 0);
}

/// LWP and APX sit out of order: a size is the largest offset + size.
#[test]
fn largest_end_not_topmost_bit() {
    let policy = zen3().policy();
    let vcpu = all_enabled(&policy);
    assert_eq!(policy.cpuid(0xd, 0, &vcpu).ebx, 2440);
    let host = apx();
    let mut policy = host.policy();
    assert_eq!(policy.cpuid(0xd, 19, &vcpu), CpuidResult::default());
    policy = policy
        .with_config("host:amx-tile=0,avx512f=0,pku=0")
        .unwrap();
    assert_eq!(policy.cpuid(0xd, 0, &vcpu).ecx, 832);
}

/// Firecracker, QEMU: components that the policy lacks are not described.
#[test]
fn only_the_policys_components_are_described() {
    for (name, machine) in machines() {
        let policy = machine.policy();
        let vcpu = all_enabled(&policy);
        let d0 = policy.cpuid(0xd, 0, &vcpu);
        let mask = u64::from(d0.edx) << 32 | u64::from(d0.eax);
        assert_eq!(mask, vcpu.xcr0, "{name}");
        for component in 2..64 {
            let described = policy.cpuid(0xd, component, &vcpu) != CpuidResult::default();
            let has = policy.xstate().mask.bits() >> component & 1 != 0;
            assert_eq!(described, has, "{name} component {component}");
        }
        assert_eq!(policy.cpuid(0xd, 64, &vcpu), CpuidResult::default());
        assert_eq!(policy.cpuid(0xd, u32::MAX, &vcpu), CpuidResult::default());
    }
}

#[test]
fn xfd_flag_goes_with_xfd() {
    let host = sapphire_rapids().policy();
    let vcpu = Dynamic::default();
    assert_eq!(host.cpuid(0xd, 18, &vcpu).ecx, 6);
    let policy = host.with_config("host:xfd=0").unwrap();
    assert_eq!((host.xstate().xfd, policy.xstate().xfd), (true, false));
    assert_eq!(policy.cpuid(0xd, 18, &vcpu).ecx, 2);
    assert_eq!(policy.cpuid(0xd, 1, &vcpu).eax, 0xf);
    assert_eq!(policy.fits(&host), Ok(()));
}

#[test]
fn osxsave_ospke_and_apic_id_follow_the_vcpu() {
    let policy = skylake().policy();
    for (osxsave, pke) in [(false, false), (true, false), (false, true), (true, true)] {
        let vcpu = Dynamic {
            cr4_osxsave: osxsave,
            cr4_pke: pke,
            apic_id: 0x105,
            ..Dynamic::default()
        };
        let one = policy.cpuid(1, 0, &vcpu);
        assert_eq!(one.ecx >> 27 & 1 != 0, osxsave);
        assert_eq!(policy.cpuid(7, 0, &vcpu).ecx >> 4 & 1 != 0, pke);
        assert_eq!(one.ebx, 0x0501_0800);
        assert_eq!(policy.cpuid(0xb, 1, &vcpu).edx, 0x105);
        assert_eq!(policy.cpuid(0xb, 5, &vcpu).ecx, 5);
    }
    let without = policy.with_config("host:xsave=0").unwrap();
    let one = without.cpuid(1, 0, &all_enabled(&policy));
    assert_eq!(one.ecx >> 26 & 3, 0);
    assert_eq!(without.cpuid(7, 0, &all_enabled(&policy)).ecx >> 3 & 3, 0);
    for subleaf in 0..64 {
        let answer = without.cpuid(0xd, subleaf, &all_enabled(&policy));
        assert_eq!(answer, CpuidResult::default());
    }
}

#[test]
fn what_is_said_of_the_processor() {
    let policy = zen3().policy();
    let vcpu = Dynamic::default();
    let at = |leaf| policy.cpuid(leaf, 0x77, &vcpu);
    assert_eq!(at(0).eax, 0xd);
    assert_eq!([at(0).ebx, at(0).ecx, at(0).edx], AMD);
    assert_eq!(at(1).eax, 0xa2_0f10);
    assert_eq!(at(0x8000_0000).eax, 0x8000_0008);
    assert_eq!(at(0x8000_0002).eax, 0x6548_2041);
    assert_eq!(at(0x8000_0008).eax, 48 << 8 | 39);
    assert_eq!(sapphire_rapids().policy().cpuid(0, 0, &vcpu).eax, 0x1e);
    // AMD repeats leaf 1; the local APIC is missing from both.
    assert_eq!(at(0x8000_0001).edx & 0x0183_f3ff, at(1).edx & 0x0183_f3ff);
    assert_eq!(at(0x8000_0001).edx & 1 << 9, 0);
    for leaf in [
        2,
        3,
        5,
        6,
        0xa,
        0xf,
        0x14,
        0x15,
        0x1f,
        0x20,
        0x24,
        0x8000_000a,
    ] {
        assert_eq!(at(leaf), CpuidResult::default(), "{leaf:#x}");
    }
}

#[test]
fn hypervisor_leaves() {
    let policy = epyc_rome().policy();
    let vcpu = Dynamic::default();
    let first = policy.cpuid(0x4000_0000, 0, &vcpu);
    assert_eq!(first.eax, HYPERVISOR_LAST);
    let name = [first.ebx, first.ecx, first.edx].map(u32::to_le_bytes);
    assert_eq!(name.as_flattened(), b"XferryXferry");
    assert_eq!(policy.cpuid(0x4000_0001, 0, &vcpu).eax, 0x0001_0000);
    for leaf in [0x4000_0002, 0x4000_0003, 0x4000_0100, 0x3fff_ffff] {
        assert_eq!(policy.cpuid(leaf, 0, &vcpu), CpuidResult::default());
    }
    assert_ne!(policy.cpuid(1, 0, &vcpu).ecx & 1 << 31, 0);
}

#[test]
fn control_bits_follow_features() {
    let host = skylake().policy();
    assert_eq!(host.cr4_allowed(), 0x75_0ebf & !(1 << 11));
    assert_eq!(host.efer_allowed(), 0xd01);
    // (config, CR4 bits gone, EFER bits gone)
    let table = [
        ("host:pku=0", 1 << 22, 0),
        ("host:xsave=0", 1 << 22 | 1 << 18, 0),
        ("host:smap=0,smep=0", 3 << 20, 0),
        ("host:vme=0", 3, 0),
        ("host:nx=0,syscall=0", 0, 0x801),
        ("host:lm=0", 1 << 22 | 1 << 16, 0x500),
    ];
    for (config, cr4, efer) in table {
        let policy = host.with_config(config).unwrap();
        assert_eq!(policy.cr4_allowed(), host.cr4_allowed() & !cr4, "{config}");
        assert_eq!(
            policy.efer_allowed(),
            host.efer_allowed() & !efer,
            "{config}"
        );
    }
    // Machine check, VMX, SMX, PCID, LA57, CET and PCE, whatever the host has.
    let mut all = sapphire_rapids();
    for word in Word::ALL {
        all.word(word, u32::MAX);
    }
    let never = 1 << 6 | 1 << 8 | 1 << 12 | 3 << 13 | 1 << 17 | 1 << 23;
    assert_eq!(all.policy().cr4_allowed() & never, 0);
    assert_eq!(all.policy().efer_allowed(), 0xd01);
}

/// A supervisor component, in a policy from elsewhere: no host here offers one
/// yet, and the sizes are right all the same.
#[test]
fn supervisor_components_count_under_xss() {
    let host = zen3().policy();
    let mut leaves = host.leaves().to_vec();
    for row in &mut leaves {
        match (row.leaf, row.subleaf) {
            (7, 0) => row.ecx |= 1 << 7,
            (0xd, 1) => row.ecx = 0x1800,
            _ => {}
        }
    }
    let at = leaves.iter().position(|row| row.leaf > 0xd).unwrap();
    for (subleaf, size) in [(12, 24), (11, 16)] {
        let facts = CpuidLeaf {
            leaf: 0xd,
            subleaf,
            eax: size,
            ecx: 1,
            ..CpuidLeaf::default()
        };
        leaves.insert(at, facts);
    }
    let policy = CpuPolicy::from_leaves(&leaves, host.deferred()).unwrap();
    assert_closed(&policy);
    assert_eq!(policy.xstate().mask.bits(), 0x1a07);
    // (XCR0, XSS, 0xD.1:EBX)
    let table = [
        (7, 0, 832),
        (7, 0x1800, 872),
        (0x207, 0x1800, 880),
        (7, 0x800, 848),
    ];
    for (xcr0, xss, size) in table {
        let vcpu = Dynamic {
            xcr0,
            xss,
            ..Dynamic::default()
        };
        assert_eq!(policy.cpuid(0xd, 1, &vcpu).ebx, size, "{xcr0:#x} {xss:#x}");
        assert_eq!(policy.cpuid(0xd, 0, &vcpu).ecx, 2440);
    }
    assert_eq!(
        policy.fits(&host).unwrap_err().to_string(),
        "cet_u (CPUID 0xD.11) not offered here"
    );
    // Without XSAVES there is no IA32_XSS for them.
    let without = policy.with_config("host:xsaves=0").unwrap();
    assert_eq!(without.xstate().mask.bits(), 0x207);
}

#[test]
fn caches_are_shared_with_nobody() {
    let mut machine = skylake();
    // Two levels; the second one shared by 64 of 32 cores.
    machine.put(4, 0, [0x1c00_4121, 0x01c0_003f, 0x3f, 0]);
    machine.put(4, 1, [0x7c0f_c163, 0x0280_003f, 0x7fff, 0xffff_fff4]);
    let policy = machine.policy();
    let at = |subleaf| policy.cpuid(4, subleaf, &Dynamic::default());
    assert_eq!(at(0).eax, 0x121);
    assert_eq!((at(1).eax, at(1).ebx), (0x163, 0x0280_003f));
    assert_eq!((at(1).ecx, at(1).edx), (0x7fff, 4));
    assert_eq!(at(2), CpuidResult::default());
    assert_closed(&policy);
}
