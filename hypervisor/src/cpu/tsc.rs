//! Time by the time-stamp counter: its rate, and the host's time since boot.
#![allow(unsafe_code)] // RDTSC

use core::sync::atomic::{AtomicU64, Ordering};
use spin::Once;
use xferry_abi::clock::{ClockPage, scale};

struct Clock {
    khz: u64,
    /// Host time as a line over the counter, as guests have theirs.
    line: ClockPage,
}

static CLOCK: Once<Clock> = Once::new();

/// The latest time that anybody was told: processors' counters may differ by a
/// little, and time does not go backward.
static LATEST_NS: AtomicU64 = AtomicU64::new(0);

/// The counter.
pub fn now() -> u64 {
    // SAFETY: at CPL 0, and checked to be there (`features::enable`).
    unsafe { x86::time::rdtsc() }
}

/// Makes `khz` the counter's rate and lets time begin now. False if the rate is
/// none, or one that 32 bits do not hold; only the first call counts.
pub(super) fn set_rate(khz: u64) -> bool {
    let rate = u32::try_from(khz).ok().and_then(scale);
    let Some((tsc_to_system_mul, tsc_shift)) = rate else {
        return false;
    };
    CLOCK.call_once(|| Clock {
        khz,
        line: ClockPage {
            tsc_timestamp: now(),
            tsc_to_system_mul,
            tsc_shift,
            ..ClockPage::default()
        },
    });
    true
}

/// The counter's rate in kHz; 0 before it was measured.
pub fn khz() -> u64 {
    CLOCK.get().map_or(0, |clock| clock.khz)
}

/// Nanoseconds since the counter was measured, never less than what any
/// processor was told before; 0 before the measurement.
pub fn uptime_ns() -> u64 {
    let Some(clock) = CLOCK.get() else { return 0 };
    let ns = clock.line.time_ns(now());
    LATEST_NS.fetch_max(ns, Ordering::Relaxed).max(ns)
}
