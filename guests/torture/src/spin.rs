//! Waiting with patterns in the general-purpose registers.
#![allow(unsafe_code)] // calls into assembly

core::arch::global_asm!(include_str!("spin.S"));

unsafe extern "C" {
    fn torture_spin(registers: *mut [u64; 16], until_tsc: u64, flip_r13: u64);
}

/// Waits until the TSC reads `until_tsc` with `registers` (all but RSP) in the
/// registers and nowhere else, then takes them out again. `flip_r13` is XORed
/// to R13 at the end: 0, but for the checker's own test.
pub fn spin(registers: &mut [u64; 16], until_tsc: u64, flip_r13: u64) {
    // SAFETY: the function keeps to System V's convention and writes only the
    // array and its own stack.
    unsafe { torture_spin(registers, until_tsc, flip_r13) }
}
