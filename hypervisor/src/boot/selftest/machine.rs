//! What must work before a guest can: clock, timer interrupt, fixups, heap and
//! frame accounting.

use crate::cpu::{apic, interrupts, msr, percpu, tsc};
use crate::mm::frames::{self, OwnedFrames, Owner};
use crate::mm::heap;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use log::info;

/// How far off the timer is set.
const DELAY_NS: u64 = 5_000_000;
/// After this it counts as lost. An emulator's host may be busy: how late it
/// came is printed, not judged.
const LOST_NS: u64 = 5_000_000_000;

/// An x2APIC register, which faults while the APIC is in xAPIC mode (SDM Vol. 3,
/// 12.12.1): present or absent by mode alone, so no emulator answers by default.
const X2APIC_ID: u32 = 0x802;

/// What did not hold.
pub(super) struct Failure {
    what: &'static str,
    seen: u64,
    wanted: u64,
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{}: {} seen, {} wanted",
            self.what, self.seen, self.wanted
        )
    }
}

/// Checks all of it; stops at the first failure.
pub(super) fn check() -> Result<(), Failure> {
    timer_interrupt()?;
    expected_fault()?;
    heap_gives_and_takes()?;
    frames_are_counted()
}

static FIRED_AT_NS: AtomicU64 = AtomicU64::new(0);

fn timer_interrupt() -> Result<(), Failure> {
    let registered = interrupts::register(interrupts::TIMER, || {
        FIRED_AT_NS.store(tsc::uptime_ns(), Ordering::Relaxed);
    });
    expect(
        "timer handlers registered",
        u64::from(registered.is_ok()),
        1,
    )?;
    let start = tsc::uptime_ns();
    apic::arm_timer_ns(DELAY_NS);
    interrupts::enable();
    while FIRED_AT_NS.load(Ordering::Relaxed) == 0 && tsc::uptime_ns() < start + LOST_NS {
        core::hint::spin_loop();
    }
    interrupts::disable();
    let cpu = percpu::current();
    expect("timer interrupts", cpu.interrupts.get(), 1)?;
    expect("unclaimed interrupts", cpu.unclaimed_interrupts.get(), 0)?;
    let took = FIRED_AT_NS.load(Ordering::Relaxed).saturating_sub(start);
    // Two measurements against the same PIT agree to a percent or better.
    if took < DELAY_NS - DELAY_NS / 50 {
        return Err(Failure {
            what: "timer early, ns",
            seen: took,
            wanted: DELAY_NS,
        });
    }
    info!("timer: {DELAY_NS} ns asked, {took} ns taken");
    Ok(())
}

fn expected_fault() -> Result<(), Failure> {
    expect(
        "x2APIC registers in xAPIC mode",
        u64::from(msr::read(X2APIC_ID).is_some()),
        0,
    )?;
    expect(
        "IA32_APIC_BASE readable",
        u64::from(msr::read(x86::msr::IA32_APIC_BASE).is_some()),
        1,
    )?;
    info!("fixup: an expected fault was survived");
    Ok(())
}

fn heap_gives_and_takes() -> Result<(), Failure> {
    let before = heap::usage();
    let mut bytes: Vec<u8> = Vec::new();
    let too_much = bytes.try_reserve_exact(before.size_bytes + 1).is_ok();
    expect("allocations larger than the heap", u64::from(too_much), 0)?;
    let enough = bytes.try_reserve_exact(before.size_bytes / 2).is_ok();
    expect("allocations of half the heap", u64::from(enough), 1)?;
    bytes.resize(bytes.capacity(), 0xa5);
    drop(bytes);
    expect(
        "bytes of heap in use",
        heap::usage().used_bytes as u64,
        before.used_bytes as u64,
    )?;
    info!(
        "heap: {} bytes, {} in use",
        before.size_bytes, before.used_bytes
    );
    Ok(())
}

fn frames_are_counted() -> Result<(), Failure> {
    let before = frames::counts().free;
    let held = frames::held_by(Owner::VIRTUALIZATION);
    let taken = OwnedFrames::allocate(Owner::VIRTUALIZATION, 3, 2);
    let aligned = taken
        .as_ref()
        .is_ok_and(|frames| frames.start().is_aligned_to(0x2000));
    expect("aligned frames", u64::from(aligned), 1)?;
    expect(
        "frames held",
        frames::held_by(Owner::VIRTUALIZATION) as u64,
        held as u64 + 3,
    )?;
    drop(taken);
    expect(
        "frames free again",
        frames::counts().free as u64,
        before as u64,
    )?;
    let missing = frames::allocate_contiguous(Owner::VIRTUALIZATION, before + 1, 1);
    expect("more frames than there are", u64::from(missing.is_ok()), 0)
}

fn expect(what: &'static str, seen: u64, wanted: u64) -> Result<(), Failure> {
    if seen == wanted {
        Ok(())
    } else {
        Err(Failure { what, seen, wanted })
    }
}
