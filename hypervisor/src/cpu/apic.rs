//! The local APIC: a one-shot timer in nanoseconds, and acknowledgement.
//!
//! xAPIC mode, through its registers in memory, because every machine that we
//! run on has that (x2APIC is missing on QEMU's EPYC-Rome and Bochs' ryzen).
#![allow(unsafe_code)] // device registers in memory, IA32_APIC_BASE

use super::{interrupts, percpu, pit, tsc};
use crate::mm::addr::{HostPhys, PAGE_BYTES, PhysRange};
use crate::mm::frames::OutOfFrames;
use crate::mm::paging;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use spin::Once;
use x86::msr::{IA32_APIC_BASE, rdmsr, wrmsr};

const BASE_ENABLE: u64 = 1 << 11;
const BASE_X2APIC: u64 = 1 << 10;
const BASE_ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Registers by their offset (SDM Vol. 3, Table 12-1).
#[derive(Clone, Copy)]
#[repr(usize)]
enum Register {
    Id = 0x20,
    TaskPriority = 0x80,
    EndOfInterrupt = 0xb0,
    Spurious = 0xf0,
    ErrorStatus = 0x280,
    LvtTimer = 0x320,
    LvtThermal = 0x330,
    LvtPerformance = 0x340,
    LvtLint0 = 0x350,
    LvtLint1 = 0x360,
    LvtError = 0x370,
    InitialCount = 0x380,
    CurrentCount = 0x390,
    Divide = 0x3e0,
    Version = 0x30,
}

const SOFTWARE_ENABLE: u32 = 1 << 8;
const MASKED: u32 = 1 << 16;
const DELIVER_NMI: u32 = 4 << 8;
/// Divides the bus clock by 16: with QEMU's 1 GHz that counts 16 ns and reaches
/// 68 s.
const DIVIDE_BY_16: u32 = 0b0011;

/// Why there is no timer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ApicError {
    /// No frames to map the registers.
    OutOfFrames(OutOfFrames),
    /// Nothing to measure against.
    NoPit,
    /// A counter stands.
    NoRate {
        /// The time-stamp counter's rate.
        tsc_khz: u64,
        /// The APIC timer's rate.
        timer_khz: u64,
    },
}

impl fmt::Display for ApicError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfFrames(error) => write!(out, "local APIC registers: {error}"),
            Self::NoPit => write!(out, "local APIC timer: {}", pit::NoPit),
            Self::NoRate { tsc_khz, timer_khz } => {
                write!(
                    out,
                    "a counter stands: TSC {tsc_khz} kHz, APIC timer {timer_khz} kHz"
                )
            }
        }
    }
}

impl From<OutOfFrames> for ApicError {
    fn from(error: OutOfFrames) -> Self {
        Self::OutOfFrames(error)
    }
}

impl From<pit::NoPit> for ApicError {
    fn from(_: pit::NoPit) -> Self {
        Self::NoPit
    }
}

/// Where the registers are, identity-mapped; the same for all processors, each
/// of which sees its own there.
static BASE: Once<HostPhys> = Once::new();

/// The timer's rate after division, in kHz; 0 before it was measured.
static TIMER_KHZ: AtomicU64 = AtomicU64::new(0);

/// Turns this processor's local APIC on, with its timer masked; on the first
/// processor also maps the registers and measures timer and TSC.
///
/// # Safety
/// With interrupts off, after `paging::activate`, `idt::load` and
/// `percpu::install` on this processor.
pub unsafe fn init() -> Result<(), ApicError> {
    // SAFETY: at CPL 0, and the processor has a local APIC (features::enable).
    let base = unsafe { rdmsr(IA32_APIC_BASE) };
    let address = HostPhys::new(base & BASE_ADDRESS);
    // SAFETY: as above. From x2APIC there is only the way through "disabled"
    // (SDM Vol. 3, 12.12.5 x2APIC State Transitions). The address stays.
    unsafe {
        if base & BASE_X2APIC != 0 {
            wrmsr(IA32_APIC_BASE, base & !(BASE_X2APIC | BASE_ENABLE));
        }
        wrmsr(IA32_APIC_BASE, base & !BASE_X2APIC | BASE_ENABLE);
    }
    if BASE.get().is_none() {
        paging::map_device(PhysRange::between(
            address,
            HostPhys::new(address.as_u64() + PAGE_BYTES),
        ))?;
        BASE.call_once(|| address);
    }

    write(
        Register::Spurious,
        SOFTWARE_ENABLE | u32::from(interrupts::SPURIOUS),
    );
    write(Register::TaskPriority, 0);
    write(Register::LvtTimer, MASKED | u32::from(interrupts::TIMER));
    write(Register::LvtLint0, MASKED);
    write(Register::LvtLint1, DELIVER_NMI);
    write(Register::LvtError, u32::from(interrupts::APIC_ERROR));
    // The highest entry of the local vector table says which others there are.
    let highest_entry = read(Register::Version) >> 16 & 0xff;
    if highest_entry >= 4 {
        write(Register::LvtPerformance, MASKED);
    }
    if highest_entry >= 5 {
        write(Register::LvtThermal, MASKED);
    }
    // Two writes: the first makes the register show what happened so far.
    write(Register::ErrorStatus, 0);
    write(Register::ErrorStatus, 0);
    write(Register::Divide, DIVIDE_BY_16);
    acknowledge();
    percpu::current().set_apic_id(read(Register::Id) >> 24);

    if TIMER_KHZ.load(Ordering::Relaxed) == 0 {
        calibrate()?;
    }
    Ok(())
}

fn calibrate() -> Result<(), ApicError> {
    write(Register::InitialCount, u32::MAX);
    let rates = pit::measure(tsc::now, || read(Register::CurrentCount))?;
    write(Register::InitialCount, 0);
    let (tsc_khz, timer_khz) = (rates.up_khz, rates.down_khz);
    if timer_khz == 0 || !tsc::set_rate(tsc_khz) {
        return Err(ApicError::NoRate { tsc_khz, timer_khz });
    }
    TIMER_KHZ.store(timer_khz, Ordering::Relaxed);
    Ok(())
}

/// The timer's rate in kHz; 0 before it was measured.
pub fn timer_khz() -> u64 {
    TIMER_KHZ.load(Ordering::Relaxed)
}

/// Has [`interrupts::TIMER`] come once on this processor, `ns` from now, instead
/// of what was armed before. What is too far away for the counter comes early:
/// who handles it looks at the clock and arms again.
pub fn arm_timer_ns(ns: u64) {
    let count = count_for(ns, timer_khz());
    write(Register::LvtTimer, u32::from(interrupts::TIMER));
    write(Register::InitialCount, count);
}

/// Takes back what was armed. An interrupt that is pending already still comes.
pub fn disarm_timer() {
    write(Register::LvtTimer, MASKED | u32::from(interrupts::TIMER));
    write(Register::InitialCount, 0);
}

/// Ends the interrupt that is being handled.
pub fn acknowledge() {
    write(Register::EndOfInterrupt, 0);
}

/// Timer ticks for `ns`: rounded up, at least one (0 would stop the timer), at
/// most what the counter holds.
const fn count_for(ns: u64, khz: u64) -> u32 {
    let ticks = (ns as u128 * khz as u128).div_ceil(1_000_000);
    if ticks == 0 {
        1
    } else if ticks > u32::MAX as u128 {
        u32::MAX
    } else {
        ticks as u32
    }
}

fn register(which: Register) -> *mut u32 {
    let base = BASE
        .get()
        .expect("apic::init comes before every use of the local APIC");
    base.as_mut_ptr::<u8>().wrapping_add(which as usize).cast()
}

fn read(which: Register) -> u32 {
    // SAFETY: `init` mapped the page, which holds this processor's registers,
    // each 16-byte aligned; none of those read has a side effect.
    unsafe { register(which).read_volatile() }
}

fn write(which: Register, value: u32) {
    // SAFETY: as in `read`. The values written here select vectors that the IDT
    // handles; the registers touch no memory.
    unsafe { register(which).write_volatile(value) }
}

#[cfg(test)]
mod tests {
    use super::count_for;

    #[test]
    fn a_deadline_is_never_early_by_rounding_and_never_zero() {
        assert_eq!(count_for(0, 62_500), 1);
        assert_eq!(count_for(1, 62_500), 1);
        assert_eq!(count_for(16, 62_500), 1);
        assert_eq!(count_for(17, 62_500), 2);
        assert_eq!(count_for(1_000_000_000, 62_500), 62_500_000);
    }

    #[test]
    fn what_is_too_far_away_is_cut_not_wrapped() {
        assert_eq!(count_for(68_719_476_720, 62_500), u32::MAX);
        assert_eq!(count_for(u64::MAX, 62_500), u32::MAX);
        assert_eq!(count_for(u64::MAX, u64::MAX), u32::MAX);
    }
}
