//! Switching: what of one vCPU another finds, and what the host's own values are meanwhile.

use vcpu_xstate::ComponentIndex as C;
use vcpu_xstate::model::X87;
use vcpu_xstate::{VcpuXstate, XstatePolicy};

use crate::world::{
    AMD, AMX, INTEL, Memory, SSE, YMM, enable, export, in_registers, run, set, vcpu,
};

/// x87 with the pointers of an instruction, and an exception pending or not.
fn x87(pending: bool) -> X87 {
    X87 {
        fsw: if pending { 0x80 } else { 0 },
        fop: 0x123,
        fip: 0x1111_2222,
        fdp: 0x3333_4444,
        ..X87::INIT
    }
}

/// XSA-52: AMD's XRSTOR leaves FIP, FDP and FOP where no exception is pending,
/// and so the next vCPU saw the last one's.
#[test]
fn xsa_52_fip_fdp_leak_on_amd() {
    let mut cpu = AMD.processor(0);
    let (mut one, mut other) = (vcpu(1, 0x207, cpu.host()), vcpu(2, 0x207, cpu.host()));
    run(&mut one, &mut cpu, |cpu| {
        cpu.put(C::X87, &x87(false).to_bytes());
    });
    cpu.save(&mut one);
    run(&mut other, &mut cpu, |cpu| {
        let x87 = cpu.registers().x87;
        assert_eq!((x87.fip, x87.fdp, x87.fop), (0, 0, 0));
    });
}

/// XSA-172, the wrong fix of XSA-52: it looked at the state that came, not at
/// what was there. A vCPU with an exception pending keeps its own pointers, and
/// the one after it gets none of them.
#[test]
fn xsa_172_wrong_fix_of_xsa_52() {
    let mut cpu = AMD.processor(0);
    let (mut one, mut other) = (vcpu(1, 0x207, cpu.host()), vcpu(2, 0x207, cpu.host()));
    run(&mut one, &mut cpu, |cpu| {
        cpu.put(C::X87, &x87(true).to_bytes());
    });
    cpu.save(&mut one);
    run(&mut other, &mut cpu, |cpu| {
        assert_eq!(cpu.registers().x87.fip, 0);
        let busy = X87 {
            ftw: 1,
            ..X87::INIT
        };
        cpu.put(C::X87, &busy.to_bytes());
    });
    cpu.save(&mut other);
    run(&mut one, &mut cpu, |cpu| {
        assert_eq!(cpu.registers().x87, x87(true));
    });
    cpu.save(&mut one);
    run(&mut other, &mut cpu, |cpu| {
        assert_eq!(cpu.registers().x87.fip, 0);
    });
}

/// AMD's save leaves FIP, FDP and FOP unwritten where no exception is pending,
/// and the image kept those of an older exception: the same state was other
/// bytes, and another vendor's machine would have loaded them.
#[test]
fn stale_fp_pointers_in_an_image_on_amd() {
    let mut cpu = AMD.processor(0);
    let mut guest = vcpu(1, 0x207, cpu.host());
    for pending in [true, false] {
        run(&mut guest, &mut cpu, |cpu| {
            let busy = X87 {
                ftw: 1,
                ..x87(pending)
            };
            cpu.put(C::X87, &busy.to_bytes());
        });
        let (_, image) = export(&mut guest, &mut cpu);
        let pointers = [&image[6..8], &image[8..24]].concat();
        assert_eq!(pointers.iter().any(|byte| *byte != 0), pending);
        assert_eq!(image[4], 1);
    }
}

/// XSA-62: what is enabled for the first time holds INIT, not the registers of
/// the vCPU that ran before.
#[test]
fn xsa_62_newly_enabled_state_of_the_previous_owner() {
    let mut cpu = INTEL.processor(0);
    let (mut one, mut other) = (vcpu(1, 0x207, cpu.host()), vcpu(2, 0x207, cpu.host()));
    enable(&mut one, &mut cpu, 7);
    run(&mut one, &mut cpu, |cpu| cpu.put_pattern(YMM, 1));
    cpu.save(&mut one);
    run(&mut other, &mut cpu, |_| {});
    enable(&mut other, &mut cpu, 7);
    run(&mut other, &mut cpu, |cpu| {
        assert!(cpu.registers().is_init(YMM));
    });
}

/// XSA-165: FNINIT cleared the x87 control words and left ST and XMM for the
/// next vCPU.
#[test]
fn xsa_165_fninit_leaves_st_and_xmm() {
    let mut cpu = AMX.processor(0);
    let everything = cpu.host().offered();
    let mut gone = vcpu(1, everything.bits(), cpu.host());
    enable(&mut gone, &mut cpu, cpu_user());
    run(&mut gone, &mut cpu, |cpu| {
        everything.iter().for_each(|c| cpu.put_pattern(c, 7));
    });
    cpu.discard(gone, &mut Memory);
    assert_eq!(in_registers(&cpu, everything.bits()), set(0));
    assert_eq!(cpu.hardware().cpu.registers().mxcsr, 0x1f80);
}

/// What [`AMX`] has for XCR0.
fn cpu_user() -> u64 {
    AMX.host().user().bits()
}

/// CVE-2018-3665: state was switched at the first use, and until then the last
/// one's was there to be read speculatively.
#[test]
fn cve_2018_3665_lazy_fpu() {
    let mut cpu = INTEL.processor(0);
    let (mut one, mut other) = (vcpu(1, 0x207, cpu.host()), vcpu(2, 0x207, cpu.host()));
    enable(&mut one, &mut cpu, 0x207);
    run(&mut one, &mut cpu, |cpu| {
        for component in [C::X87, SSE, YMM, C::PKRU] {
            cpu.put_pattern(component, 3);
        }
    });
    cpu.switch(&mut one, &mut other).expect("restored");
    assert_eq!(in_registers(&cpu, 0x207), set(0), "before it used anything");
}

/// Xen 0129e1ee0d: saved in full, restored as far as the next one's image goes.
#[test]
fn xen_0129e1ee0d_saved_in_full_restored_in_part() {
    let mut cpu = AMX.processor(0);
    let all = cpu.host().offered();
    let (mut one, mut other) = (vcpu(1, all.bits(), cpu.host()), vcpu(2, 3, cpu.host()));
    enable(&mut one, &mut cpu, cpu_user());
    let _ = one.first_use(set(1 << 18), &mut cpu, &mut Memory);
    run(&mut one, &mut cpu, |cpu| {
        all.iter().for_each(|c| cpu.put_pattern(c, 9));
    });
    cpu.save(&mut one);
    run(&mut other, &mut cpu, |_| {});
    assert_eq!(in_registers(&cpu, all.bits()), set(0));
    cpu.save(&mut other);
    run(&mut one, &mut cpu, |_| {});
    assert_eq!(in_registers(&cpu, all.bits()), all);
}

/// Xen f7f4a52392: a cached XCR0 and IA32_XSS outlived a suspend.
#[test]
fn xen_f7f4a52392_controls_stale_after_suspend() {
    let mut cpu = AMX.processor(0);
    let mut guest = vcpu(1, 0x1a07, cpu.host());
    enable(&mut guest, &mut cpu, 7);
    guest.set_xss(0x800, &mut cpu, &mut Memory).expect("legal");
    run(&mut guest, &mut cpu, |_| {});
    cpu.save(&mut guest);
    // The machine sleeps and wakes: its registers are what reset makes them.
    cpu.hardware_mut().cpu.reset(0);
    cpu.reset();
    run(&mut guest, &mut cpu, |cpu| {
        assert_eq!((cpu.xcr0(), cpu.xss()), (7, 0x800));
    });
}

/// CVE-2024-35801: the same with IA32_XFD after a processor came back, and a
/// restore then took #NM.
#[test]
fn cve_2024_35801_stale_xfd_cache() {
    let mut cpu = AMX.processor(0);
    let mut guest = vcpu(1, 0x6_0207, cpu.host());
    enable(&mut guest, &mut cpu, 0x6_0007);
    guest.set_xfd(1 << 18, cpu.host()).expect("legal");
    run(&mut guest, &mut cpu, |_| {});
    cpu.save(&mut guest);
    // Firmware leaves everything disabled, or nothing.
    for firmware in [0, 1 << 18] {
        cpu.hardware_mut().cpu.reset(firmware);
        cpu.reset();
        run(&mut guest, &mut cpu, |cpu| assert_eq!(cpu.xfd(), 1 << 18));
        cpu.save(&mut guest);
    }
}

/// Linux b45f721775: XSTATE_BV kept a component that IA32_XFD disabled, and
/// restoring it took #NM in the host.
#[test]
fn linux_b45f721775_xstate_bv_with_xfd() {
    let mut cpu = AMX.processor(0);
    let mut guest = vcpu(1, 0x6_0207, cpu.host());
    enable(&mut guest, &mut cpu, 0x6_0007);
    let first_use = guest.first_use(set(1 << 18), &mut cpu, &mut Memory);
    assert!(matches!(first_use, vcpu_xstate::xfd::FirstUse::Grow(_)));
    run(&mut guest, &mut cpu, |cpu| {
        cpu.put_pattern(C::TILECFG, 1);
        cpu.put_pattern(C::TILEDATA, 1);
    });
    // The guest disables tiles with tiles live.
    guest.set_xfd(1 << 18, cpu.host()).expect("legal");
    let (claims, image) = export(&mut guest, &mut cpu);
    assert_eq!(claims.xcomp_bv & 1 << 18, 0);
    assert_eq!(image[512 + 2] & 1 << 2, 0, "XSTATE_BV[18]");
    assert!(!guest.in_use(&mut cpu).has(C::TILEDATA));
    run(&mut guest, &mut cpu, |_| {});
}

/// Linux 1811d979c7: a restore while the guest's XCR0 was live took #GP, and a
/// save lost what the guest had disabled.
#[test]
fn linux_1811d979c7_guest_xcr0_live_while_state_moves() {
    let mut cpu = INTEL.processor(0);
    let (mut one, mut other) = (vcpu(1, 0x207, cpu.host()), vcpu(2, 0x207, cpu.host()));
    enable(&mut one, &mut cpu, 7);
    run(&mut one, &mut cpu, |cpu| cpu.put_pattern(YMM, 5));
    // Disabled, and still live.
    enable(&mut one, &mut cpu, 1);
    run(&mut one, &mut cpu, |cpu| assert_eq!(cpu.xcr0(), 1));
    cpu.switch(&mut one, &mut other).expect("restored");
    cpu.switch(&mut other, &mut one).expect("restored");
    enable(&mut one, &mut cpu, 7);
    run(&mut one, &mut cpu, |cpu| {
        assert!(!cpu.registers().is_init(YMM));
    });
}

/// Linux ad856280dd and 8647c52e95: the host's PKRU came into the image of a
/// guest without PKU, and no machine without PKU took it.
#[test]
fn linux_ad856280dd_host_pkru_in_the_image() {
    let mut cpu = INTEL.processor(0);
    let mut guest = vcpu(1, 7, cpu.host());
    run(&mut guest, &mut cpu, |cpu| {
        cpu.put_pattern(SSE, 1);
        cpu.put_pattern(C::PKRU, 1);
    });
    let (claims, image) = export(&mut guest, &mut cpu);
    assert_eq!((claims.xstate_mask, claims.accum & 0x200), (7, 0));
    assert_eq!(claims.xcomp_bv, 1 << 63 | 2);
    assert_eq!(image.len(), 576);
}

/// Linux a1020a25e6: x87 and SSE were dropped where XSAVE was hidden.
#[test]
fn linux_a1020a25e6_fp_and_sse_without_xsave() {
    let mut cpu = INTEL.processor(0);
    let policy = XstatePolicy::without_xsave();
    let mut guest = VcpuXstate::new(1, &policy, cpu.host(), &mut Memory).expect("memory");
    let mut other = vcpu(2, 0x207, cpu.host());
    run(&mut guest, &mut cpu, |cpu| {
        cpu.put_pattern(C::X87, 1);
        cpu.put_pattern(SSE, 1);
    });
    let before = cpu.hardware().cpu.registers().clone();
    cpu.switch(&mut guest, &mut other).expect("restored");
    cpu.switch(&mut other, &mut guest).expect("restored");
    assert_eq!(cpu.hardware().cpu.registers().differences(&before, 3), 0);
    let (claims, image) = export(&mut guest, &mut cpu);
    assert_eq!((claims.xsave, image.len()), (false, 576));
    assert_eq!(claims.xcomp_bv & 3, 3);
}

/// ACRN 4430: wrong values after reset.
#[test]
fn acrn_4430_values_after_reset() {
    let mut cpu = AMX.processor(0);
    let all = cpu.host().offered().bits();
    let mut guest = vcpu(1, all, cpu.host());
    assert_eq!((guest.xcr0(), guest.xss()), (1, 0));
    assert_eq!((guest.xfd(), guest.xfd_err()), (0, 0));
    run(&mut guest, &mut cpu, |cpu| {
        assert_eq!((cpu.xcr0(), cpu.xss()), (1, 0));
    });
    assert_eq!(in_registers(&cpu, all), set(0));
    assert_eq!(cpu.hardware().cpu.registers().mxcsr, 0x1f80);
}
