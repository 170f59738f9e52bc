//! Instructions that have no home elsewhere: CPUID, TSC, HLT, ports, MSRs,
//! control registers.
#![allow(unsafe_code)] // privileged instructions

use core::arch::asm;

/// The registers that CPUID returns.
pub use core::arch::x86_64::CpuidResult;

/// CPUID.
#[must_use]
pub fn cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
    core::arch::x86_64::__cpuid_count(leaf, subleaf)
}

/// The TSC, read after all earlier loads.
#[must_use]
pub fn tsc() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reads a counter; CR4.TSD is clear at CPL 0.
    unsafe {
        asm!("lfence", "rdtsc", out("eax") low, out("edx") high, options(nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Lets interrupts in.
pub fn enable_interrupts() {
    // SAFETY: the IDT was loaded before the guest's code runs, and every vector
    // that can arrive has a handler.
    unsafe { asm!("sti", options(nostack)) }
}

/// Keeps interrupts out.
pub fn disable_interrupts() {
    // SAFETY: only delays interrupts.
    unsafe { asm!("cli", options(nostack)) }
}

/// Whether RFLAGS.IF is set.
#[must_use]
pub fn interrupts_enabled() -> bool {
    let flags: u64;
    // SAFETY: copies RFLAGS by way of the stack.
    unsafe { asm!("pushfq", "pop {}", out(reg) flags, options(preserves_flags)) }
    flags & (1 << 9) != 0
}

/// Runs `f` with interrupts off.
pub fn without_interrupts<R>(f: impl FnOnce() -> R) -> R {
    let enabled = interrupts_enabled();
    if enabled {
        disable_interrupts();
    }
    let result = f();
    if enabled {
        enable_interrupts();
    }
    result
}

/// Enables interrupts and halts until one came. An interrupt that came before
/// the call with interrupts off ends the halt at once: nothing is missed
/// between the check of a condition and the wait.
pub fn wait_for_interrupt() {
    // SAFETY: STI holds interrupts back for one instruction, so the pair is
    // atomic; handlers exist (see enable_interrupts).
    unsafe { asm!("sti", "hlt", options(nostack)) }
}

/// Halts for ever.
pub fn stop() -> ! {
    loop {
        // SAFETY: with interrupts off nothing runs again; that is what is asked.
        unsafe { asm!("cli", "hlt", options(nostack, nomem)) }
    }
}

/// Reads a byte from an I/O port.
///
/// # Safety
/// Some ports act when read: it must be one of a device that the caller owns.
#[must_use]
pub unsafe fn inb(port: u16) -> u8 {
    let value;
    // SAFETY: the caller owns the port.
    unsafe {
        asm!("in al, dx", in("dx") port, out("al") value, options(nostack, preserves_flags));
    }
    value
}

/// Writes a byte to an I/O port.
///
/// # Safety
/// The port must be one of a device that the caller owns; what the device does
/// to memory must be known.
pub unsafe fn outb(port: u16, value: u8) {
    // SAFETY: the caller owns the port.
    unsafe {
        asm!("out dx, al", in("dx") port, in("al") value, options(nostack, preserves_flags));
    }
}

/// Reads an MSR.
///
/// # Safety
/// The MSR must exist: #GP ends the guest.
#[must_use]
pub unsafe fn rdmsr(msr: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the caller knows that the MSR exists.
    unsafe {
        asm!("rdmsr", in("ecx") msr, out("eax") low, out("edx") high,
            options(nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Writes an MSR.
///
/// # Safety
/// The MSR must exist, the value be legal, and nothing that Rust relies on
/// hang on it.
pub unsafe fn wrmsr(msr: u32, value: u64) {
    // SAFETY: the caller vouches for MSR and value.
    unsafe {
        asm!("wrmsr", in("ecx") msr, in("eax") value as u32, in("edx") (value >> 32) as u32,
            options(nostack, preserves_flags));
    }
}

/// CR0.
#[must_use]
pub fn cr0() -> u64 {
    let value;
    // SAFETY: reading has no effect.
    unsafe { asm!("mov {}, cr0", out(reg) value, options(nostack, preserves_flags)) }
    value
}

/// CR4.
#[must_use]
pub fn cr4() -> u64 {
    let value;
    // SAFETY: reading has no effect.
    unsafe { asm!("mov {}, cr4", out(reg) value, options(nostack, preserves_flags)) }
    value
}

/// Sets bits of CR4.
///
/// # Safety
/// The processor must have what the bits enable, and they must not change how
/// memory is reached.
pub unsafe fn set_cr4_bits(bits: u64) {
    // SAFETY: the caller vouches for the bits.
    unsafe { asm!("mov cr4, {}", in(reg) cr4() | bits, options(nostack, preserves_flags)) }
}

/// XCR0.
///
/// # Safety
/// CR4.OSXSAVE must be set.
#[must_use]
pub unsafe fn xgetbv0() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the caller set OSXSAVE.
    unsafe {
        asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high,
            options(nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Writes XCR0.
///
/// # Safety
/// CR4.OSXSAVE must be set and the value be legal for this processor.
pub unsafe fn xsetbv0(value: u64) {
    // SAFETY: the caller vouches for both.
    unsafe {
        asm!("xsetbv", in("ecx") 0, in("eax") value as u32, in("edx") (value >> 32) as u32,
            options(nostack, preserves_flags));
    }
}

/// Masks both 8259s of a PC.
pub fn mask_legacy_interrupts() {
    // SAFETY: the mask registers of the two interrupt controllers; where there
    // are none the writes go nowhere.
    unsafe {
        outb(0x21, 0xff);
        outb(0xa1, 0xff);
    }
}
