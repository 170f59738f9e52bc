//! Model-specific registers that may not be there: asked for without a crash.
#![allow(unsafe_code)] // RDMSR and WRMSR, with a fixup for the fault

use core::arch::asm;

/// Reads an MSR; `None` if the processor does not have it (#GP).
///
/// An emulator may answer for MSRs that it lacks (QEMU reads an absent XFD as
/// 0): CPUID says what is there, this only keeps a wrong answer from being
/// fatal.
pub fn read(msr: u32) -> Option<u64> {
    let (low, high, fault): (u32, u32, u32);
    // SAFETY: at CPL 0; reading an MSR writes no memory, and the fault that it
    // may cause goes on at 3, by the fixup, with `fault` still 1.
    unsafe {
        asm!(
            "mov {fault:e}, 1",
            "2: rdmsr",
            "xor {fault:e}, {fault:e}",
            "3:",
            ".pushsection .fixups, \"a\"",
            ".long 2b - .",
            ".long 3b - .",
            ".popsection",
            fault = out(reg) fault,
            in("ecx") msr,
            out("eax") low,
            out("edx") high,
            options(nostack, nomem),
        );
    }
    (fault == 0).then_some(u64::from(high) << 32 | u64::from(low))
}

/// The processor refused a write (#GP): no such MSR, or no such value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused;

/// Writes an MSR, unless the processor refuses.
///
/// # Safety
/// What the MSR controls must be the caller's to change, and the value one that
/// keeps the hypervisor's memory and control flow intact.
pub unsafe fn write(msr: u32, value: u64) -> Result<(), Refused> {
    let fault: u32;
    // SAFETY: the effect is the caller's by contract; a fault goes on at 3, by
    // the fixup, with `fault` still 1.
    unsafe {
        asm!(
            "mov {fault:e}, 1",
            "2: wrmsr",
            "xor {fault:e}, {fault:e}",
            "3:",
            ".pushsection .fixups, \"a\"",
            ".long 2b - .",
            ".long 3b - .",
            ".popsection",
            fault = out(reg) fault,
            in("ecx") msr,
            in("eax") value as u32,
            in("edx") (value >> 32) as u32,
            options(nostack),
        );
    }
    if fault == 0 { Ok(()) } else { Err(Refused) }
}
