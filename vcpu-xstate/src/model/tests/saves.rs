//! What each save writes, byte by byte, and what it leaves (Vol. 1, 13.7 to 13.11).

use super::*;

const C: u64 = 1 << 63;
/// What memory holds before.
const OLD: u8 = 0xcc;

fn blank() -> Vec<u8> {
    vec![OLD; 12 * 1024]
}

/// The ranges that differ from what was there before.
fn written(area: &[u8]) -> Vec<(usize, usize)> {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for (i, _) in area.iter().enumerate().filter(|(_, byte)| **byte != OLD) {
        match ranges.last_mut() {
            Some((_, end)) if *end == i => *end = i + 1,
            _ => ranges.push((i, i + 1)),
        }
    }
    ranges
}

/// 13.7: x87, XMM, MXCSR with its mask for SSE or AVX, XSTATE_BV alone of the
/// header; INIT components too. 13.4.1: bytes 511:416 are not used.
#[test]
fn xsave_writes_what_rfbm_has() {
    // Contents without the byte of the old memory, so that ranges are exact.
    let mut cpu = cpu();
    let table: [(u64, &[(usize, usize)]); 6] = [
        (0, &[(512, 520)]),
        (1, &[(0, 24), (32, 160), (512, 520)]),
        (2, &[(24, 32), (160, 416), (512, 520)]),
        (4, &[(24, 32), (512, 520), (576, 832)]),
        (0x200, &[(512, 520), (2688, 2692)]),
        (
            u64::MAX,
            &[
                (0, 416),
                (512, 520),
                (576, 832),
                (960, 1040),
                (1088, 2692),
                (2752, 11008 - TILES_CUT),
                (11136, 11160),
                (11200, 11328),
            ],
        ),
    ];
    for (rfbm, ranges) in table {
        let mut area = blank();
        put(&mut area, 512, &0_u64.to_le_bytes());
        cpu.xsave(AT, &mut area, rfbm).unwrap();
        assert_eq!(written(&area), ranges, "{rfbm:#x}");
        assert_eq!(word(&area, 512), 0, "all INIT");
    }
    // MXCSR_MASK is the machine's, and FXSAVE's.
    let mut area = blank();
    cpu.xsave(AT, &mut area, 4).unwrap();
    assert_eq!(word(&area, 24), 0xffff_0000_1f80);
    assert_eq!(cpu.fxsave_mxcsr_mask(), 0xffff);
}

/// 13.7: XSTATE_BV\[i\] is XINUSE\[i\] where RFBM has it, else what it was, bit
/// 63 included; XCOMP_BV is not written.
#[test]
fn xsave_keeps_the_rest_of_the_header() {
    let mut cpu = busy(9);
    let mut area = blank();
    put(&mut area, 512, &(C | 0x200 | 4).to_le_bytes());
    cpu.registers_mut().set_init(component(2));
    cpu.xsave(AT, &mut area, 7).unwrap();
    assert_eq!(word(&area, 512), C | 0x200 | 3);
    assert!(area[520..576].iter().all(|byte| *byte == OLD));
}

/// 13.7: XINUSE\[1\] is about XMM alone, so MXCSR can be there with XSTATE_BV\[1\]
/// clear; 13.10: not in a compacted area.
#[test]
fn mxcsr_and_xstate_bv() {
    let mut cpu = cpu();
    cpu.ldmxcsr(0x1fa5).unwrap();
    let mut area = blank();
    put(&mut area, 512, &[0; 8]);
    cpu.xsave(AT, &mut area, 3).unwrap();
    assert_eq!((word(&area, 512), word(&area, 24) as u32), (0, 0x1fa5));
    for save in [Cpu::xsavec, Cpu::xsaves] {
        let mut area = blank();
        save(&mut cpu, AT, &mut area, 7).unwrap();
        assert_eq!((word(&area, 512), word(&area, 520)), (2, C | 7));
        assert_eq!(written(&area), [(24, 32), (160, 416), (512, 528)]);
        // For AVX alone MXCSR is not saved.
        let mut area = blank();
        save(&mut cpu, AT, &mut area, 4).unwrap();
        assert_eq!(written(&area), [(512, 528)]);
    }
}

/// 13.9, 13.10: the init optimization, which never applies to MXCSR in the
/// standard form.
#[test]
fn init_components_are_not_written() {
    let mut cpu = cpu();
    cpu.put_pattern(component(9), 1);
    let mut area = blank();
    put(&mut area, 512, &[0; 8]);
    cpu.xsaveopt(AT, &mut area, u64::MAX).unwrap();
    assert_eq!(word(&area, 512), 0x200);
    assert_eq!(written(&area), [(24, 32), (512, 520), (2688, 2692)]);
    let mut area = blank();
    cpu.xsavec(AT, &mut area, 0x204).unwrap();
    assert_eq!(word(&area, 512), 0x200);
    // 13.4.3: behind AVX, which has its room.
    assert_eq!(written(&area), [(512, 528), (832, 836)]);
}

/// 13.4.3: offsets in the compacted format, ascending, aligned where CPUID
/// says so; 13.11: IA32_XSS counts for XSAVES only.
#[test]
fn compacted_offsets() {
    let mut cpu = busy(9);
    let mask = 1 << 9 | 1 << 11 | 1 << 17 | 1 << 40 | 1 << 62;
    let mut area = blank();
    cpu.xsaves(AT, &mut area, mask).unwrap();
    assert_eq!((word(&area, 512), word(&area, 520)), (mask, C | mask));
    let registers = cpu.registers();
    for (index, at) in [(9, 576), (11, 584), (17, 640), (40, 704), (62, 728)] {
        let bytes = registers.component(component(index));
        assert_eq!(&area[at..at + bytes.len()], bytes, "{index}");
        assert_eq!(
            cpu.machine().compacted_offset(component(index), mask),
            Some(at as u64)
        );
    }
    assert_eq!(area[580..584], [OLD; 4], "PKRU has four bytes");
    assert_eq!(cpu.machine().compacted_bytes(mask), 728 + 128);
    let mut area = blank();
    cpu.xsavec(AT, &mut area, mask).unwrap();
    assert_eq!(word(&area, 520), C | mask & !(1 << 11));
    let pkru = cpu.registers().component(component(9));
    assert_eq!(area[576..580], *pkru);
}

/// 13.2: the sizes that CPUID returns.
#[test]
fn sizes() {
    let machine = Machine::read(&everything, 0);
    for (xcr0, bytes) in [
        (1, 576),
        (7, 832),
        (0x207, 2696),
        (1 << 62 | 7, 11328),
        (1 << 40 | 0x207, 11160),
    ] {
        assert_eq!(machine.standard_bytes(xcr0), bytes, "{xcr0:#x}");
    }
    for (mask, bytes) in [
        (3, 576),
        (7, 832),
        (0x20007, 896),
        (0x6_0a07, 9152 - TILES_CUT as u64),
        (0x1207, 864),
    ] {
        assert_eq!(machine.compacted_bytes(mask), bytes, "{mask:#x}");
        assert_eq!(machine.compacted_bytes(C | mask), bytes, "{mask:#x}");
    }
    assert_eq!(machine.standard_offset(component(11)), None);
    assert_eq!(machine.size(component(18)), Some(8192 - TILES_CUT as u32));
}

/// 13.5.6, 13.5.11, 13.5.12: XSAVES ends tracing and recording, and takes UINV.
#[test]
fn xsaves_changes_live_state() {
    let mut cpu = busy(9);
    let mut uintr = cpu.registers().component(component(14)).to_vec();
    uintr[16..24].copy_from_slice(&0x8000_00ec_0000_00ff_u64.to_le_bytes());
    cpu.put(component(14), &uintr);
    cpu.put(component(8), &[9]);
    cpu.put(component(15), &[5]);
    let mut area = blank();
    cpu.xsaves(AT, &mut area, 1 << 8 | 1 << 14 | 1 << 15)
        .unwrap();
    // 9 MSRs of PT in 128 bytes, then UINTR, then LBR.
    assert_eq!((area[576], area[704 + 20], area[752]), (9, 0xec, 5));
    let live = |i| cpu.registers().component(component(i));
    assert_eq!((live(8)[0], live(14)[20], live(15)[0]), (8, 0, 4));
    assert_eq!((live(14)[16], live(14)[23]), (0xff, 0x80));
    // XSAVEC knows nothing of them, and XSAVES of others only.
    let mut cpu = busy(9);
    cpu.put(component(14), &uintr);
    cpu.xsavec(AT, &mut area, u64::MAX).unwrap();
    cpu.xsaves(AT, &mut area, !(1 << 14)).unwrap();
    assert_eq!(cpu.registers().component(component(14)), uintr);
}

/// 13.14: a component under XFD is saved as if INIT: not marked, and XSAVE
/// writes its initial configuration.
#[test]
fn xfd_makes_saves_see_init() {
    let tiles = component(18);
    let mut cpu = busy(9);
    let there = cpu.registers().component(tiles).to_vec();
    cpu.wrmsr(0x1c4, tiles.bit()).unwrap();
    let mut area = blank();
    put(&mut area, 512, &tiles.bit().to_le_bytes());
    cpu.xsave(AT, &mut area, tiles.bit()).unwrap();
    assert_eq!(word(&area, 512), 0);
    assert!(area[2816..11008 - TILES_CUT].iter().all(|byte| *byte == 0));
    for save in [Cpu::xsaveopt, Cpu::xsavec, Cpu::xsaves] {
        let mut area = blank();
        put(&mut area, 512, &[0; 8]);
        save(&mut cpu, AT, &mut area, tiles.bit()).unwrap();
        assert_eq!(word(&area, 512), 0);
        assert!(area[576..].iter().all(|byte| *byte == OLD));
    }
    assert_eq!(cpu.registers().component(tiles), there, "nothing is lost");
    assert_eq!(cpu.xfd_err(), 0);
}

/// APM: CPUID Fn8000_0008_EBX RstrFpErrPtrs clear. FOP, FIP and FDP are written
/// with an exception pending only.
#[test]
fn older_amd_saves_pointers_with_an_exception_pending() {
    let mut cpu = cpu_without(|leaf, _, r| match leaf {
        0 => r.ebx = u32::from_le_bytes(*b"Auth"),
        0x8000_0008 => r.ebx = 0,
        _ => {}
    });
    for (fsw, ranges) in [
        (0, vec![(0, 6), (32, 160)]),
        (0x80, vec![(0, 24), (32, 160)]),
    ] {
        cpu.registers_mut().x87 = X87 {
            fsw,
            fip: 0x1234,
            ..X87::INIT
        };
        let mut area = blank();
        put(&mut area, 512, &[OLD; 8]);
        cpu.xsave(AT, &mut area, 1).unwrap();
        let mut legacy = written(&area[..512]);
        assert_eq!(legacy, ranges);
        legacy.clear();
    }
}
