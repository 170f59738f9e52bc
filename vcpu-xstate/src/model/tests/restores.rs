//! What each restore loads, makes INIT and leaves (Vol. 1, 13.8, 13.12).

use super::*;

const C: u64 = 1 << 63;

/// Saved by each instruction and restored by each that takes the area: what
/// RFBM has is as it was, the rest is untouched.
#[test]
fn what_is_saved_comes_back() {
    type Save = fn(&mut Cpu, u64, &mut [u8], u64) -> Result<(), Fault>;
    type Restore = fn(&mut Cpu, u64, &[u8], u64) -> Result<(), Fault>;
    let ways: [(Save, Restore); 5] = [
        (Cpu::xsave, Cpu::xrstor),
        (Cpu::xsaveopt, Cpu::xrstor),
        (Cpu::xsavec, Cpu::xrstor),
        (Cpu::xsavec, Cpu::xrstors),
        (Cpu::xsaves, Cpu::xrstors),
    ];
    for (i, (save, restore)) in ways.into_iter().enumerate() {
        for rfbm in [
            u64::MAX,
            1,
            2,
            4,
            0x207,
            0x6_0000,
            0xff00_0000_0000_0000,
            0x1800,
        ] {
            let (mut from, mut to) = (busy(3), busy(200));
            let mut area = area(0, 0);
            save(&mut from, AT, &mut area, rfbm).unwrap();
            let before = to.registers().clone();
            restore(&mut to, AT, &area, rfbm).unwrap();
            let saved = rfbm & (to.xcr0() | if i == 4 { to.xss() } else { 0 });
            let asked = rfbm & (to.xcr0() | if i >= 3 { to.xss() } else { 0 });
            let differ = |other: &Registers| to.registers().differences(other, u64::MAX);
            assert_eq!(differ(from.registers()) & saved, 0, "way {i}, {rfbm:#x}");
            // The standard form loads MXCSR for AVX too.
            let mxcsr = if i < 2 && rfbm & 6 == 4 { 2 } else { 0 };
            assert_eq!(differ(&before) & !asked, mxcsr, "way {i}, {rfbm:#x}");
        }
    }
}

/// 13.8, 13.12: RFBM without XSTATE_BV gives the initial configuration, even
/// where XCOMP_BV has no room for it.
#[test]
fn what_the_area_has_not_becomes_init() {
    for (xcomp_bv, restore) in [(0, 0), (C, 0), (C | 7, 0), (C, 1), (C | 0x1800, 1)] {
        let mut cpu = busy(5);
        let mut area = area(0, xcomp_bv);
        area[576..].fill(0xee);
        if restore == 0 {
            cpu.xrstor(AT, &area, u64::MAX).unwrap();
        } else {
            cpu.xrstors(AT, &area, u64::MAX).unwrap();
        }
        let rfbm = cpu.xcr0() | if restore == 0 { 0 } else { cpu.xss() };
        let init = Registers::init(cpu.machine());
        assert_eq!(cpu.registers().differences(&init, rfbm), 0, "{xcomp_bv:#x}");
        assert_eq!(cpu.xgetbv(1).unwrap(), 0);
        let rest = cpu.xss() & !rfbm;
        assert_eq!(cpu.registers().init_among(rest), 0, "untouched");
    }
}

/// 13.8.1 and 13.8.2: where MXCSR comes from, form by form.
#[test]
fn mxcsr_comes_from_where_the_form_says() {
    const MEMORY: u32 = 0x1fa5;
    const LIVE: u32 = 0x1f83;
    for (xstate_bv, xcomp_bv, rfbm, expected) in [
        (2, 0, 2, MEMORY),
        (0, 0, 2, MEMORY),
        (0, 0, 4, MEMORY),
        (0, 0, 1, LIVE),
        (2, C | 2, 2, MEMORY),
        (0, C | 2, 2, 0x1f80),
        (6, C | 6, 4, LIVE),
        (4, C | 6, 6, 0x1f80),
        (2, C | 2, 1, LIVE),
    ] {
        let mut cpu = cpu();
        cpu.ldmxcsr(LIVE).unwrap();
        let mut area = area(xstate_bv, xcomp_bv);
        put(&mut area, 24, &MEMORY.to_le_bytes());
        cpu.xrstor(AT, &area, rfbm).unwrap();
        assert_eq!(
            cpu.stmxcsr(),
            Ok(expected),
            "{xstate_bv} {xcomp_bv:x} {rfbm}"
        );
    }
}

/// 13.8.1: only bytes 23:8 of the header must be zero in the standard form;
/// MXCSR_MASK and reserved bytes are ignored.
#[test]
fn what_a_restore_does_not_look_at() {
    let mut cpu = cpu();
    let mut area = area(0x203, 0);
    area[536..576].fill(0xff);
    area[28..32].fill(0xff);
    area[416..512].fill(0xff);
    area[5] = 0xff;
    area[42..48].fill(0xff);
    area[2692..2696].fill(0xff);
    cpu.xrstor(AT, &area, u64::MAX).unwrap();
    assert_eq!(cpu.rdpkru(0), Ok(0));
    assert_eq!(cpu.registers().x87.st, [[0; 10]; 8]);
}

/// Components that are not asked for are not read: no fault of theirs.
#[test]
fn rfbm_limits_what_can_fault() {
    let mut cpu = cpu();
    let mut area = area(0x1802, C | 0x1802);
    put(&mut area, 24, &u32::MAX.to_le_bytes());
    put(&mut area, 576, &(1u64 << 47).to_le_bytes());
    put(&mut area, 592, &(1u64 << 47).to_le_bytes());
    assert!(cpu.xrstors(AT, &area, 2).is_err());
    assert!(cpu.xrstors(AT, &area, 0x800).is_err());
    assert!(cpu.xrstors(AT, &area, 0x1000).is_err());
    cpu.xrstors(AT, &area, 1).unwrap();
    // XFD likewise: XSTATE_BV outside RFBM, and RFBM outside XSTATE_BV.
    cpu.wrmsr(0x1c4, 1 << 18).unwrap();
    let tiles = super::area(1 << 18, 0);
    assert!(cpu.xrstor(AT, &tiles, 1 << 18).is_err());
    cpu.xrstor(AT, &tiles, 1).unwrap();
    cpu.xrstor(AT, &super::area(0, 0), u64::MAX).unwrap();
}

/// 13.12: a fault on a value comes when lower components are loaded already.
#[test]
fn a_fault_on_a_value_leaves_the_registers_half_loaded() {
    let mut from = busy(3);
    let mut cpu = busy(77);
    let before = cpu.registers().clone();
    let mut area = area(0, 0);
    from.xsaves(AT, &mut area, 0x1a07).unwrap();
    let at = from
        .machine()
        .compacted_offset(component(11), 0x1a07)
        .unwrap() as usize;
    put(&mut area, at + 8, &1u64.to_le_bytes());
    let fault = cpu.xrstors(AT, &area, u64::MAX).unwrap_err();
    assert_eq!(fault.reason, Reason::ReservedValue(component(11), 1));
    let now = cpu.registers();
    assert_eq!(now.differences(from.registers(), 0x207), 0, "loaded");
    assert_eq!(now.differences(&before, 0x1800), 0, "not loaded");
    // A bad header or MXCSR changes nothing.
    put(&mut area, 24, &u32::MAX.to_le_bytes());
    let before = now.clone();
    assert!(cpu.xrstors(AT, &area, u64::MAX).is_err());
    assert_eq!(cpu.registers(), &before);
}

/// 13.5.11: UINV must be 0 where UINTR state is loaded; making it INIT is
/// allowed, and clears it.
#[test]
fn uinv_is_cleared_by_init() {
    let mut cpu = cpu();
    let live = [&[0; 20][..], &[0xec]].concat();
    cpu.put(component(14), &live);
    assert!(
        cpu.xrstors(AT, &area(1 << 14, C | 1 << 14), u64::MAX)
            .is_err()
    );
    cpu.xrstors(AT, &area(0, C | 1 << 14), u64::MAX).unwrap();
    assert!(cpu.registers().is_init(component(14)));
    cpu.xrstors(AT, &area(1 << 14, C | 1 << 14), u64::MAX)
        .unwrap();
}

/// Vol. 2, LDTILECFG: what it refuses, XRSTOR makes INIT.
#[test]
fn a_bad_tile_configuration_becomes_init() {
    let mut good = [0; 64];
    good[0] = 1;
    good[1] = 3;
    good[16..18].copy_from_slice(&64_u16.to_le_bytes());
    good[48] = 16;
    let load = |edits: &[(usize, u8)]| {
        let mut cpu = busy(1);
        let mut area = area(1 << 17, 0);
        put(&mut area, 2752, &good);
        edits.iter().for_each(|(at, byte)| area[2752 + at] = *byte);
        cpu.xrstor(AT, &area, 1 << 17).unwrap();
        cpu.registers().component(component(17)).to_vec()
    };
    assert_eq!(load(&[]), good);
    for edits in [
        &[(0, 2)][..],
        &[(0, 0)],
        &[(2, 1)],
        &[(15, 1)],
        &[(16, 65)],
        &[(17, 1)],
        &[(48, 17)],
        &[(48, 0)],
        &[(16, 0)],
        &[(32, 4), (56, 1)],
        &[(63, 1)],
    ] {
        assert_eq!(load(edits), [0; 64], "{edits:?}");
    }
}

/// Vol. 3, Last Branch Records: IA32_LBR_DEPTH is saved and never restored.
#[test]
fn the_depth_of_the_branch_records_is_not_restored() {
    let mut cpu = busy(1);
    let mut area = area(1 << 15, C | 1 << 15);
    put(&mut area, 576 + 8, &8u64.to_le_bytes());
    put(&mut area, 576 + 16, &0x1000u64.to_le_bytes());
    cpu.xrstors(AT, &area, u64::MAX).unwrap();
    let lbr = cpu.registers().component(component(15));
    assert_eq!((word(lbr, 8), word(lbr, 16)), (32, 0x1000));
}

/// 13.5.12: with the depth that the register has, the area's first D triples are
/// loaded and the others left; with another depth CTL and LER are, all 32 triples
/// become zero, and XINUSE\[15\] is not modified.
#[test]
fn another_depth_clears_the_records() {
    let lbr = component(15);
    let words = |value: u64, count| value.to_le_bytes().repeat(count);
    let restored = |live: u64, depth: u64| {
        let mut cpu = cpu();
        let mut registers = words(0x1000, 101);
        put(&mut registers, 8, &live.to_le_bytes());
        let there = cpu.registers_mut().component_mut(lbr);
        there.copy_from_slice(&registers);
        let mut area = area(lbr.bit(), C | lbr.bit());
        put(&mut area, 576, &words(0x2000, 101));
        put(&mut area, 576, &9_u64.to_le_bytes());
        put(&mut area, 584, &depth.to_le_bytes());
        cpu.xrstors(AT, &area, u64::MAX).unwrap();
        let held = cpu.registers().component(lbr);
        assert_eq!((word(held, 0), word(held, 8)), (9, live), "{live} {depth}");
        assert_eq!(held[16..40], words(0x2000, 3), "LER");
        held[40..].to_vec()
    };
    for live in [8, 16, 32] {
        let loaded = 3 * live as usize;
        let expected = [words(0x2000, loaded), words(0x1000, 96 - loaded)];
        assert_eq!(restored(live, live), expected.concat(), "{live}");
        for other in [8, 16, 32, 64].into_iter().filter(|depth| *depth != live) {
            assert_eq!(restored(live, other), [0; 768], "{live} {other}");
        }
    }
    // A triple that is not loaded cannot fault either.
    let mut cpu = cpu();
    let mut area = area(lbr.bit(), C | lbr.bit());
    area[584] = 8;
    put(&mut area, 616, &(1_u64 << 47).to_le_bytes());
    cpu.xrstors(AT, &area, u64::MAX).unwrap();
    area[584] = 32;
    assert!(cpu.xrstors(AT, &area, u64::MAX).is_err());
    // XINUSE, where restores decide it.
    for (depth, in_use) in [(8, 0), (32, lbr.bit())] {
        let mut cpu = Cpu::new(Machine::read(&everything, 0), InitTracking::AsRestored);
        cpu.wrmsr(0xda0, lbr.bit()).unwrap();
        let mut area = super::area(lbr.bit(), C | lbr.bit());
        area[584] = depth;
        cpu.xrstors(AT, &area, u64::MAX).unwrap();
        assert_eq!(cpu.xinuse() & lbr.bit(), in_use, "{depth}");
    }
}

/// 13.6: HDC state is INIT if IA32_PM_CTL1 is 1, HWP state if IA32_HWP_REQUEST
/// is 8000FF01H; neither is at zero.
#[test]
fn hdc_and_hwp_have_init_values() {
    for (index, init) in [(13, 1_u64), (16, 0x8000_ff01)] {
        let component = component(index);
        let bit = component.bit();
        let mut cpu = cpu();
        let value = |cpu: &Cpu| word(cpu.registers().component(component), 0);
        assert_eq!(value(&cpu), init, "after reset");
        assert_eq!(cpu.xinuse() & bit, 0);
        // Zero is state: XSAVES writes it, XRSTORS brings it back.
        cpu.put(component, &[0; 8]);
        assert_eq!(cpu.xinuse() & bit, bit);
        let mut area = area(0, 0);
        cpu.xsaves(AT, &mut area, bit).unwrap();
        assert_eq!((word(&area, 512), word(&area, 576)), (bit, 0));
        // XSTATE_BV clear gives the initial configuration.
        cpu.xrstors(AT, &super::area(0, C), u64::MAX).unwrap();
        assert_eq!((value(&cpu), cpu.xinuse() & bit), (init, 0));
        cpu.xrstors(AT, &area, bit).unwrap();
        assert_eq!((value(&cpu), cpu.xinuse() & bit), (0, bit));
        cpu.put_pattern(component, 7);
        assert!(!cpu.registers().is_init(component));
    }
}

/// 13.5.6: XRSTORS that would restore or initialize PT state while TraceEn is 1
/// is #GP before PT state is modified; and a fault comes before TraceEn is,
/// even if other PT state was loaded.
#[test]
fn trace_enabled_refuses_xrstors() {
    let pt = component(8);
    let mut traced = [0; 72];
    (traced[0], traced[16]) = (9, 0x80);
    for xstate_bv in [0, pt.bit()] {
        let mut cpu = cpu();
        cpu.put(pt, &traced);
        let area = area(xstate_bv, C | pt.bit());
        let fault = cpu.xrstors(AT, &area, u64::MAX).unwrap_err();
        assert_eq!(fault, Reason::TraceEnabled.into());
        assert_eq!(cpu.registers().component(pt), traced);
        // Without PT in RFBM, tracing goes on.
        cpu.xrstors(AT, &area, !pt.bit()).unwrap();
        // XSAVES ends it.
        cpu.xsaves(AT, &mut super::area(0, 0), pt.bit()).unwrap();
        cpu.xrstors(AT, &area, u64::MAX).unwrap();
    }
    // PT loaded, CET_U refused.
    let mut cpu = cpu();
    let mut area = area(0x900, C | 0x900);
    put(&mut area, 576, &traced);
    put(&mut area, 704 + 8, &[1]);
    assert!(cpu.xrstors(AT, &area, u64::MAX).is_err());
    traced[0] = 8;
    assert_eq!(cpu.registers().component(pt), traced);
    cpu.xrstors(AT, &area, pt.bit()).unwrap();
    assert_eq!(cpu.registers().component(pt)[0], 9);
}

/// 13.5.11: XRSTORS that faults after it has loaded UINTR state clears UINV, and
/// need not clear more.
#[test]
fn uinv_goes_with_a_later_fault() {
    let uintr = component(14);
    let mut cpu = cpu();
    let mut area = area(0xc000, C | 0xc000);
    put(
        &mut area,
        576 + 16,
        &0x8000_00ec_0000_0007_u64.to_le_bytes(),
    );
    put(&mut area, 624, &0x10_u64.to_le_bytes());
    let fault = cpu.xrstors(AT, &area, u64::MAX).unwrap_err();
    assert_eq!(fault.reason, Reason::ReservedValue(component(15), 0x10));
    let misc = word(cpu.registers().component(uintr), 16);
    assert_eq!(misc, 0x8000_0000_0000_0007);
    // The next restore does not find it live.
    put(&mut area, 624, &[0]);
    cpu.xrstors(AT, &area, u64::MAX).unwrap();
    assert_eq!(cpu.registers().component(uintr)[20], 0xec);
    // A fault before UINTR state leaves what was live.
    put(&mut area, 24, &u32::MAX.to_le_bytes());
    put(&mut area, 512, &0xc002_u64.to_le_bytes());
    put(&mut area, 520, &(C | 0xc002).to_le_bytes());
    assert!(cpu.xrstors(AT, &area, u64::MAX).is_err());
    assert_eq!(cpu.registers().component(uintr)[20], 0xec);
}

/// XSA-52: where CPUID Fn8000_0008_EBX RstrFpErrPtrs is clear, FOP, FIP and FDP
/// of the last owner stay unless an exception is pending.
#[test]
fn older_amd_leaves_the_last_owners_pointers() {
    let mut cpu = cpu_without(|leaf, _, r| match leaf {
        0 => r.ebx = u32::from_le_bytes(*b"Auth"),
        0x8000_0008 => r.ebx = 0,
        _ => {}
    });
    let mut load = |xstate_bv, fsw: u8| {
        cpu.registers_mut().x87.fip = 0x1234;
        let mut area = area(xstate_bv, 0);
        area[2] = fsw;
        area[8] = 0x77;
        cpu.xrstor(AT, &area, 1).unwrap();
        cpu.registers().x87.fip
    };
    assert_eq!(
        (load(1, 0), load(1, 0x80), load(0, 0)),
        (0x1234, 0x77, 0x1234)
    );
    let mut cpu = self::cpu();
    cpu.registers_mut().x87.fip = 0x1234;
    cpu.xrstor(AT, &area(0, 0), 1).unwrap();
    assert_eq!(cpu.registers().x87.fip, 0);
}

/// Vol. 1 App. E: BNDCFGU was refused where the processor ignores its reserved
/// bits and the upper ones of its address.
#[test]
fn bndcfgu_never_faults() {
    let bndcsr = component(4);
    for (written, read) in [
        (0x1000 | 3, 0x1000 | 3),
        (0x1000 | 0xfff, 0x1000 | 3),
        (1 << 47, 0xffff_8000_0000_0000),
        (0x7fff_0000_0000_1001, 0x1001),
    ] {
        for supervisor in [false, true] {
            let mut cpu = cpu();
            let mut area = area(16, C | 16);
            area[576..584].copy_from_slice(&u64::to_le_bytes(written));
            area[584..592].copy_from_slice(&u64::MAX.to_le_bytes());
            if supervisor {
                cpu.xrstors(AT, &area, 16).unwrap();
            } else {
                cpu.xrstor(AT, &area, 16).unwrap();
            }
            let held = cpu.registers().component(bndcsr);
            let expected = [u64::to_le_bytes(read), u64::MAX.to_le_bytes()].concat();
            assert_eq!(held, expected, "{written:#x}");
        }
    }
}
