//! `selftest=` on the command line: does on purpose what the page tables
//! forbid, so that a test can see the machine stop for it.
//!
//! Each of these ends in a register dump and a failed exit. To come back from
//! one is the error.
#![allow(unsafe_code)] // the point is to do what must not be done

use super::info::BootInfo;
use crate::cpu::power;
use core::hint::black_box;
use log::{error, info};

/// Does what `selftest=` names: nothing, if it is not there.
pub fn run(boot: &BootInfo) {
    let Some(name) = boot.option("selftest") else {
        return;
    };
    info!("selftest={name}");
    match name {
        "null" => read_null(),
        "write-text" => write_text(),
        "write-rodata" => write_rodata(),
        "execute-data" => execute_data(),
        "guard" => {
            overflow(0);
        }
        _ => {
            error!(
                "selftest={name}: null, write-text, write-rodata, execute-data and guard are there"
            );
            power::stop_failed()
        }
    }
    error!("selftest={name} came back: the page tables allow what they must not");
    power::stop_failed()
}

fn read_null() {
    let null: *const u8 = black_box(core::ptr::null());
    // SAFETY: none: it faults, or the test fails.
    unsafe {
        core::arch::asm!("mov {0}, byte ptr [{1}]", out(reg_byte) _, in(reg) null, options(nostack));
    }
}

fn write_text() {
    write_to(run as *const u8);
}

fn write_rodata() {
    static CONSTANT: [u8; 1] = [0];
    write_to(black_box(CONSTANT.as_ptr()));
}

fn write_to(address: *const u8) {
    // SAFETY: none: it faults, or the test fails.
    unsafe {
        core::arch::asm!("mov byte ptr [{0}], 0xc3", in(reg) address, options(nostack));
    }
}

fn execute_data() {
    // RET, on the stack.
    let code = black_box([0xc3u8; 16]);
    // SAFETY: none: it faults, or the test fails; if it does not fault, it
    // returns, having changed nothing.
    unsafe {
        core::arch::asm!("call {0}", in(reg) code.as_ptr());
    }
}

#[expect(unconditional_recursion, reason = "until the guard page is met")]
fn overflow(depth: u64) -> u64 {
    let pad = black_box([depth; 64]);
    overflow(depth + 1) + pad[0]
}
