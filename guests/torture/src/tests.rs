//! On the host: the patterns as such, and the instructions of state.S against
//! the processor that the tests run on, which may have AVX-512 and AMX where
//! no emulator does.
#![allow(unsafe_code)] // executes the routines of state.S

use crate::check;
use crate::direct::{self, Environment};
use crate::groups::GROUPS;
use crate::image::{ALL, Image};
use crate::machine::Machine;
use crate::pattern::{self, Fill};
use crate::registers::{Component, ComponentSet, Registers};
use crate::verdict::Verdict;
use std::arch::is_x86_feature_detected;
use zerocopy::IntoBytes;

/// XCR0 with everything that there are patterns for.
const EVERYTHING: u64 = 0x602ff;

fn pattern(machine: &Machine, count: u64, fill: Fill) -> Registers {
    let mut registers = Registers::ZERO;
    pattern::write(&mut registers, 7, count, fill, machine);
    registers
}

#[test]
fn a_pattern_depends_on_seed_and_count_and_nothing_else() {
    let machine = Machine::pretend(EVERYTHING);
    let one = pattern(&machine, 1, Fill::Image);
    assert_eq!(one.as_bytes(), pattern(&machine, 1, Fill::Image).as_bytes());
    let other = pattern(&machine, 2, Fill::Image);
    for group in GROUPS.iter().filter(|g| g.component != Component::Control) {
        // CR8 has one bit to vary, RSP none: a whole group must differ.
        let all = group.place(0).start..group.place(group.count - 1).end;
        assert_ne!(
            one.as_bytes().get(all.clone()),
            other.as_bytes().get(all),
            "{}",
            group.register(0)
        );
    }
}

#[test]
fn patterns_are_legal() {
    let machine = Machine::pretend(EVERYTHING);
    for count in 0..2000 {
        let p = pattern(&machine, count, Fill::Image);
        assert_ne!(p.mxcsr, 0x1f80);
        assert_eq!(p.mxcsr & !machine.mxcsr_mask, 0);
        assert_eq!(p.fsw >> 7 & 1, p.fsw >> 15, "ES and B");
        assert_eq!(
            p.fsw & !p.fcw & 0x3f != 0,
            p.fsw & 0x80 != 0,
            "ES says pending"
        );
        assert_ne!(p.fcw & 0x300, 0x100, "precision 01");
        assert_eq!(p.bndcfgu & 0xffc, 0);
        assert_eq!(p.tilecfg[0], 1);
        assert!(p.tilecfg[48..56].iter().all(|rows| (1..=16).contains(rows)));
        let columns = p.tilecfg[16..32].chunks(2);
        assert!(
            columns
                .into_iter()
                .all(|c| (4..=60).contains(&c[0]) && c[1] == 0)
        );
        assert!(pattern::stay_ns(7, count) >= 2_000_000);
        assert!(pattern::stay_ns(7, count) < 20_000_000);
    }
}

#[test]
fn an_image_gives_back_what_was_put_in() {
    let machine = Machine::pretend(EVERYTHING);
    let expected = pattern(&machine, 5, Fill::Image);
    let mut image = Image::ZERO;
    image.encode(&expected, &machine, ALL);
    assert_eq!(image.xstate_bv(), EVERYTHING);
    assert!(image.untouched(&machine));
    let mut seen = Registers::ZERO;
    image.decode(&mut seen, &machine, ALL);
    let state = machine.components
        & !(Component::Gpr.bit()
            | Component::Debug.bit()
            | Component::System.bit()
            | Component::Control.bit());
    let mut verdict = Verdict::default();
    let lost = check::compare(
        &expected,
        &seen,
        state,
        &machine,
        &mut verdict,
        (5, "image"),
    );
    assert_eq!((verdict.failures(), lost), (0, [false; 3]));

    // A component whose XSTATE_BV bit is clear is INIT, whatever its bytes.
    let avx = Component::Avx.bit();
    image.flip(512, 2);
    image.decode(&mut seen, &machine, avx);
    check::compare(&expected, &seen, avx, &machine, &mut verdict, (5, "image"));
    assert!(verdict.failures() > 200);
}

#[test]
fn the_full_tag_word_is_that_of_the_contents() {
    let mut registers = Registers::ZERO;
    registers.fsw = 6 << 11;
    // ST0 is R6, ST1 R7, ST2 R0.
    registers.ftw = 0b1100_0001;
    registers.st[0] = [0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0x3f];
    registers.st[1] = [0; 10];
    registers.st[2] = [1, 0, 0, 0, 0, 0, 0, 0, 0xff, 0x3f];
    assert_eq!(direct::full_tag_word(&registers), 0b01_00_11_11_11_11_11_10);
}

/// What the processor under the tests has of EVERYTHING, where the operating
/// system enabled it.
fn silicon() -> ComponentSet {
    let mut xcr0 = 3;
    if is_x86_feature_detected!("avx") {
        xcr0 |= 4;
    }
    if is_x86_feature_detected!("avx512bw") {
        xcr0 |= 0xe0;
    }
    let amx_tile = guest_rt::cpu::cpuid(7, 0).edx & (1 << 24) != 0;
    if amx_tile && permit_tiles() {
        xcr0 |= 0x60000;
    }
    xcr0
}

/// Linux gives a process its tiles only on request.
#[cfg(target_os = "linux")]
fn permit_tiles() -> bool {
    const ARCH_PRCTL: u64 = 158;
    const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
    const TILEDATA: u64 = 18;
    let mut result = ARCH_PRCTL;
    // SAFETY: a system call that takes no memory.
    unsafe {
        core::arch::asm!("syscall", inlateout("rax") result, in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") TILEDATA, lateout("rcx") _, lateout("r11") _);
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn permit_tiles() -> bool {
    false
}

#[test]
fn every_routine_loads_and_stores_what_it_says() {
    let xcr0 = silicon();
    let machine = Machine::pretend(xcr0);
    let expected = pattern(&machine, 9, Fill::Direct);
    let (mut seen, mut image) = (Registers::ZERO, Image::ZERO);
    let environment = Environment::new(&expected);
    let mut saved = Environment::default();
    let default_mxcsr = 0x1f80;
    // SAFETY: what `silicon` found is there. Between load and store nothing is
    // called; then the registers are as the calling convention wants them.
    unsafe {
        if machine.has(Component::Hi16Zmm) {
            direct::torture_load_avx512(&expected.vectors);
            direct::torture_store_avx512(&mut seen.vectors);
            direct::torture_load_opmask64(&expected.opmask);
            direct::torture_store_opmask64(&mut seen.opmask);
            let mut narrow = [!0; 8];
            direct::torture_store_opmask16(&mut narrow);
            assert_eq!(narrow, expected.opmask.map(|k| k & 0xffff));
            direct::torture_load_opmask16(&[0xabcd; 8]);
            let mut wide = [0; 8];
            direct::torture_store_opmask64(&mut wide);
            assert_eq!(wide, [0xabcd; 8]);
        } else if machine.has(Component::Avx) {
            direct::torture_load_avx(&expected.vectors);
            direct::torture_store_avx(&mut seen.vectors);
        } else {
            direct::torture_load_sse(&expected.vectors);
            direct::torture_store_sse(&mut seen.vectors);
        }
        if machine.has(Component::TileData) {
            direct::torture_load_tilecfg(&expected.tilecfg);
            direct::torture_load_tiles(&expected.tiles);
            direct::torture_store_tilecfg(&mut seen.tilecfg);
            direct::torture_store_tiles(&mut seen.tiles);
            core::arch::asm!("tilerelease");
        }
        direct::torture_load_mxcsr(&expected.mxcsr);
        direct::torture_frstor(&environment);
        direct::torture_store_mxcsr(&mut seen.mxcsr);
        image.fxsave();
        direct::torture_fnsave(&mut saved);
        direct::torture_load_mxcsr(&default_mxcsr);
    }
    image.decode(&mut seen, &machine, Component::X87.bit());
    let which = machine.components
        & !(Component::Gpr.bit()
            | Component::Debug.bit()
            | Component::System.bit()
            | Component::Control.bit());
    let mut verdict = Verdict::default();
    check::compare(
        &expected,
        &seen,
        which,
        &machine,
        &mut verdict,
        (9, "silicon"),
    );
    assert_eq!(verdict.failures(), 0);
    assert_eq!(saved.tag_word(), direct::full_tag_word(&expected));
    eprintln!("checked on this processor: XCR0 {xcr0:#x}");
}
