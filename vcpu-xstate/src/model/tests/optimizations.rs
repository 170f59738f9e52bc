//! XINUSE, XMODIFIED and XRSTOR_INFO (Vol. 1, 13.6, 13.8.3, 13.9, 13.11).

use super::*;

const C: u64 = 1 << 63;
const MASK: u64 = 0xa07;

/// A processor that has restored all of `MASK` from `area`, compacted or not.
fn restored(compacted: bool) -> (Cpu, Vec<u8>) {
    let mut cpu = cpu();
    for i in [0, 1, 2, 9, 11] {
        cpu.put_pattern(component(i), 3);
    }
    let mut area = area(0, 0);
    if compacted {
        cpu.xsaves(AT, &mut area, MASK).unwrap();
        cpu.xrstors(AT, &area, MASK).unwrap();
    } else {
        cpu.xsave(AT, &mut area, MASK).unwrap();
        cpu.xrstor(AT, &area, MASK).unwrap();
    }
    (cpu, area)
}

/// Whether a save leaves out AVX, which lies at 576 in either form.
fn leaves_out(cpu: &mut Cpu, compacted: bool, address: u64, rfbm: u64) -> bool {
    let mut area = area(0, 0);
    area[576..832].fill(0xee);
    if compacted {
        cpu.xsaves(address, &mut area, rfbm).unwrap();
    } else {
        cpu.xsaveopt(address, &mut area, rfbm).unwrap();
    }
    // Marked all the same: the bytes of the last restore are there.
    assert_ne!(word(&area, 512) & 4, 0);
    area[576] == 0xee
}

#[test]
fn unmodified_state_is_left_out_only_where_the_last_restore_was() {
    for compacted in [false, true] {
        let asks = |change: fn(&mut Cpu), address, rfbm| {
            let (mut cpu, _) = restored(compacted);
            change(&mut cpu);
            leaves_out(&mut cpu, compacted, address, rfbm)
        };
        assert!(asks(|_| {}, AT, MASK));
        assert!(
            asks(|p| p.put_pattern(component(9), 8), AT, MASK),
            "another one's change"
        );
        assert!(
            !asks(|p| p.put_pattern(component(2), 8), AT, MASK),
            "changed"
        );
        assert!(!asks(|_| {}, AT + 64, MASK), "another address");
        assert!(
            !asks(|p| p.mode.vmx_non_root = true, AT, MASK),
            "another mode"
        );
        assert!(
            !asks(|p| p.modified_optimization = false, AT, MASK),
            "switched off"
        );
        // z: XSAVEOPT needs XCOMP_BV = 0, XSAVES exactly RFBM.
        assert_eq!(asks(|_| {}, AT, MASK & !1), !compacted, "another RFBM");
        // Another restore since, from elsewhere.
        let elsewhere = |p: &mut Cpu| {
            let mut other = area(4, 0);
            other[600] = 1;
            p.xrstor(AT + 4096, &other, MASK).unwrap();
        };
        assert!(!asks(elsewhere, AT, MASK));
    }
}

/// w: the CPL of XSAVEOPT and of the last XRSTOR.
#[test]
fn another_cpl_saves_everything() {
    let (mut cpu, _) = restored(false);
    cpu.mode.cpl = 3;
    assert!(!leaves_out(&mut cpu, false, AT, MASK));
    cpu.mode.cpl = 0;
    assert!(leaves_out(&mut cpu, false, AT, MASK));
}

/// 13.9, 13.11: XRSTOR of a compacted area is nothing to XSAVEOPT, XRSTOR of a
/// standard one nothing to XSAVES.
#[test]
fn the_other_form_saves_everything() {
    let (mut cpu, _) = restored(true);
    assert!(!leaves_out(&mut cpu, false, AT, MASK));
    let (mut cpu, _) = restored(false);
    assert!(!leaves_out(&mut cpu, true, AT, MASK & !0x800));
}

/// 13.8.3: what RFBM of the restore had not is modified.
#[test]
fn components_outside_the_restore_are_modified() {
    let (mut cpu, area) = restored(false);
    cpu.xrstor(AT, &area, MASK & !4).unwrap();
    assert!(!leaves_out(&mut cpu, false, AT, MASK));
}

/// Registers change through XSAVES itself: a second one writes what is left.
#[test]
fn uinv_taken_by_xsaves_is_a_change() {
    let mut cpu = cpu();
    let mask = 1 << 14;
    let mut area = area(mask, C | mask);
    area[576 + 20] = 0xec;
    area[576] = 0x40;
    cpu.xrstors(AT, &area, mask).unwrap();
    cpu.xsaves(AT, &mut area, mask).unwrap();
    assert_eq!(
        (area[596], cpu.registers().component(component(14))[20]),
        (0xec, 0)
    );
    cpu.xsaves(AT, &mut area, mask).unwrap();
    assert_eq!(area[596], 0);
}

/// A failed restore leaves nothing to rely on.
#[test]
fn nothing_is_left_out_after_a_fault_on_a_value() {
    let (mut cpu, mut area) = restored(true);
    let at = cpu.machine().compacted_offset(component(11), MASK).unwrap() as usize;
    area[at] |= 0x40;
    assert!(cpu.xrstors(AT, &area, MASK).is_err());
    assert!(!leaves_out(&mut cpu, true, AT, MASK));
}

/// 13.6: INIT may be tracked as in use, never the other way round; and what was
/// made INIT by a restore that had no bytes of it is written by the next save.
#[test]
fn each_way_of_tracking_init() {
    use InitTracking as T;
    for (tracking, at_reset, restored_with, restored_without, zeroed) in [
        (T::ByContent, 0, 0, 0, 0),
        (T::Never, 0x207, 0x207, 0x207, 0x207),
        (T::ExceptPkru, 0x200, 0x200, 0x200, 0x200),
        (T::AsRestored, 0, 0x207, 0, 0x4),
    ] {
        let mut cpu = Cpu::new(Machine::read(&everything, 0), tracking);
        cpu.xsetbv(0, 0x207).unwrap();
        let seen = |cpu: &Cpu| cpu.xgetbv(1).unwrap();
        assert_eq!(seen(&cpu), at_reset, "{tracking:?}");
        // INIT contents, marked as held.
        let mut full = area(0x207, 0);
        put(&mut full, 0, &0x37f_u16.to_le_bytes());
        cpu.xrstor(AT, &full, u64::MAX).unwrap();
        assert_eq!(seen(&cpu), restored_with, "{tracking:?}");
        cpu.xrstor(AT, &area(0, 0), u64::MAX).unwrap();
        assert_eq!(seen(&cpu), restored_without, "{tracking:?}");
        // To the area of the restore: nothing old may be marked as held.
        let mut area = area(0, 0);
        area[576..].fill(0xee);
        cpu.xsaveopt(AT, &mut area, u64::MAX).unwrap();
        let marked = word(&area, 512);
        assert_eq!(marked, restored_without, "{tracking:?}");
        assert!(
            marked & 4 == 0 || area[576..832] == [0; 256],
            "{tracking:?}"
        );
        assert!(
            marked & 0x200 == 0 || area[2688..2692] == [0; 4],
            "{tracking:?}"
        );
        // Written, then zero again.
        cpu.put_pattern(component(2), 1);
        assert_eq!(seen(&cpu) & 4, 4, "{tracking:?}");
        cpu.put(component(2), &[0; 256]);
        assert_eq!(seen(&cpu), zeroed, "{tracking:?}");
    }
}
