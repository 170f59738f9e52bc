//! What the page tables forbid, done on purpose.
//!
//! None of these comes back if the page tables are right.
#![allow(unsafe_code)] // the point is to do what must not be done

use core::hint::black_box;

pub(super) fn read_null() {
    let null: *const u8 = black_box(core::ptr::null());
    // SAFETY: none: it faults, or the test fails.
    unsafe {
        core::arch::asm!("mov {0}, byte ptr [{1}]", out(reg_byte) _, in(reg) null, options(nostack));
    }
}

pub(super) fn write_text() {
    write_to(write_text as *const u8);
}

pub(super) fn write_rodata() {
    static CONSTANT: [u8; 1] = [0];
    write_to(black_box(CONSTANT.as_ptr()));
}

fn write_to(address: *const u8) {
    // SAFETY: none: it faults, or the test fails.
    unsafe {
        core::arch::asm!("mov byte ptr [{0}], 0xc3", in(reg) address, options(nostack));
    }
}

pub(super) fn execute_data() {
    // RET, on the stack.
    let code = black_box([0xc3u8; 16]);
    // SAFETY: none: it faults, or the test fails; if it does not fault, it
    // returns, having changed nothing.
    unsafe {
        core::arch::asm!("call {0}", in(reg) code.as_ptr());
    }
}

/// Runs into the guard page below the boot stack.
pub(super) fn overflow_stack() {
    overflow(0);
}

#[expect(unconditional_recursion, reason = "until the guard page is met")]
fn overflow(depth: u64) -> u64 {
    let pad = black_box([depth; 64]);
    overflow(depth + 1) + pad[0]
}
