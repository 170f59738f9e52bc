//! What this machine does with state that the manuals let it lose, and the
//! checker's own test.
#![allow(unsafe_code)] // changes registers

use crate::direct;
use crate::groups::GROUPS;
use crate::image::{ALL, Image};
use crate::machine::Machine;
use crate::registers::{Component, Registers};
use guest_rt::{cpu, println};

const POINTER_NAMES: [&str; 3] = ["FOP", "FIP", "FDP"];

/// Whether FOP, FIP and FDP come back after a restore and a save with no x87
/// exception pending. Older AMD processors do not keep them, and QEMU's writes
/// zero. Changes the x87 unit and SSE: only between patterns.
pub fn keeps_pointers(machine: &Machine, scratch: &mut Image) -> [bool; 3] {
    let mut registers = Registers::ZERO;
    registers.set_init();
    (registers.fop, registers.fip, registers.fdp) = (0x5a5, 0x1234_5678_9abc, 0x7edc_ba98_7654);
    let legacy = Component::X87.bit() | Component::Mxcsr.bit() | Component::Sse.bit();
    let mut seen = Registers::ZERO;
    scratch.encode(&registers, machine, legacy);
    // SAFETY: the image is legal, and no pattern is in the registers.
    unsafe {
        scratch.fxrstor();
        scratch.clear();
        scratch.fxsave();
    }
    scratch.decode(&mut seen, machine, legacy);
    scratch.clear();
    [
        seen.fop == registers.fop,
        seen.fip == registers.fip,
        seen.fdp == registers.fdp,
    ]
}

/// Says which pointers the machine does not keep, if any.
pub fn note_pointers(keeps: [bool; 3]) {
    if keeps == [true; 3] {
        return;
    }
    // In the order in which they are spoken of.
    let lost = |index: usize| {
        let kept = keeps.get(index).copied().unwrap_or(true);
        if kept {
            ""
        } else {
            POINTER_NAMES.get(index).copied().unwrap_or("")
        }
    };
    let [fop, fip, fdp] = [0, 1, 2].map(lost);
    let space = |after: &str| if after.is_empty() { "" } else { " " };
    println!(
        "torture note: machine loses x87 pointers ({fip}{}{fdp}{}{fop} read 0)",
        space(fip),
        space(fdp)
    );
}

/// Flips one bit of one register of `component`, in the register itself: what
/// the check must find. The general-purpose registers are done by the spin.
pub fn flip(component: Component, machine: &Machine, scratch: &mut Image) {
    match component {
        Component::Gpr | Component::Control => {}
        Component::Debug => {
            // SAFETY: an address without a breakpoint.
            unsafe {
                core::arch::asm!("mov {t}, dr2", "btc {t}, 5", "mov dr2, {t}", t = out(reg) _);
            }
        }
        // SAFETY: nothing uses SYSCALL.
        Component::System => unsafe {
            const LSTAR: u32 = 0xc000_0082;
            cpu::wrmsr(LSTAR, cpu::rdmsr(LSTAR) ^ 0x20);
        },
        // Without XSAVE, PKRU is in no image.
        Component::Pkru if !machine.xsave() => direct::flip_pkru(machine),
        other => flip_in_image(other, machine, scratch),
    }
}

fn flip_in_image(component: Component, machine: &Machine, scratch: &mut Image) {
    // The last group that is not a pointer: ST rather than FCW.
    let group = GROUPS
        .iter()
        .rev()
        .find(|g| g.component == component && !g.pointer);
    let (Some(group), Some(base)) = (group, machine.image_base(component)) else {
        return;
    };
    let Some(place) = group.image_place(base, 3.min(group.count - 1)) else {
        return;
    };
    // Bits that leave the register's content legal.
    let (byte, bit) = match component {
        Component::TileCfg => (16, 2),
        Component::TileData => (0, 3),
        Component::Mxcsr => (0, 0),
        _ => (5.min(group.bytes - 1), 4),
    };
    // SAFETY: the image was saved by this machine and is legal with that bit.
    unsafe {
        scratch.clear();
        scratch.save(machine, ALL);
        scratch.flip(place.start + byte, bit);
        scratch.restore(machine, ALL);
    }
    scratch.clear();
}
