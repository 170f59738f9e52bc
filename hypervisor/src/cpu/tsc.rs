//! Time by the time-stamp counter: its rate, and ticks to nanoseconds.
#![allow(unsafe_code)] // RDTSC

use core::sync::atomic::{AtomicU64, Ordering};
use spin::Once;

/// Ticks to nanoseconds without a division, in Xen's form, which guests read
/// from their clock page: shift left by `shift` (right if negative), multiply,
/// take the upper half of 64.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TscScale {
    /// Nanoseconds per shifted tick, times 2³².
    pub multiplier: u32,
    /// Bits that ticks are shifted left by first.
    pub shift: i8,
}

impl TscScale {
    /// The scale of a counter of `khz`, as exact as 32 bits make it; `None` for
    /// a counter that stands.
    pub const fn from_khz(khz: u64) -> Option<Self> {
        if khz == 0 {
            return None;
        }
        // Brought to [2³¹, 2³²) by the shift, so that no bit of it is wasted:
        // 10⁶ / khz · 2³² · 2^-shift.
        let exact = (1_000_000u128 << 64) / khz as u128;
        let length = 128 - exact.leading_zeros() as i32;
        let shift = length - 64;
        let multiplier = if length >= 32 {
            exact >> (length - 32)
        } else {
            exact << (32 - length)
        };
        Some(Self {
            multiplier: multiplier as u32,
            shift: shift as i8,
        })
    }

    /// Nanoseconds that `ticks` take. Wraps after 2⁶⁴ ns, as the clock does.
    pub const fn nanoseconds(self, ticks: u64) -> u64 {
        let shifted = if self.shift >= 0 {
            (ticks as u128) << self.shift
        } else {
            ticks as u128 >> -self.shift
        };
        // At most 64 + 20 + 32 bits: a counter of 1 kHz shifts by 20.
        ((shifted * self.multiplier as u128) >> 32) as u64
    }
}

struct Clock {
    khz: u64,
    scale: TscScale,
    /// The counter's value when time began.
    origin: u64,
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
/// none; only the first call counts.
pub(super) fn set_rate(khz: u64) -> bool {
    let Some(scale) = TscScale::from_khz(khz) else {
        return false;
    };
    CLOCK.call_once(|| Clock {
        khz,
        scale,
        origin: now(),
    });
    true
}

/// The counter's rate in kHz; 0 before it was measured.
pub fn khz() -> u64 {
    CLOCK.get().map_or(0, |clock| clock.khz)
}

/// The counter's scale.
pub fn scale() -> Option<TscScale> {
    CLOCK.get().map(|clock| clock.scale)
}

/// Nanoseconds since the counter was measured, never less than what any
/// processor was told before; 0 before the measurement.
pub fn uptime_ns() -> u64 {
    let Some(clock) = CLOCK.get() else { return 0 };
    let ns = clock.scale.nanoseconds(now().wrapping_sub(clock.origin));
    LATEST_NS.fetch_max(ns, Ordering::Relaxed).max(ns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn simple_rates_have_simple_scales() {
        assert_eq!(
            TscScale::from_khz(1_000_000),
            Some(TscScale {
                multiplier: 1 << 31,
                shift: 1
            })
        );
        assert_eq!(
            TscScale::from_khz(4_000_000),
            Some(TscScale {
                multiplier: 1 << 31,
                shift: -1
            })
        );
        assert_eq!(TscScale::from_khz(0), None);
    }

    proptest! {
        /// Within one part in 2³¹ and a nanosecond per rounding, for a century.
        #[test]
        fn nanoseconds_are_what_a_division_gives(khz in 1u64..20_000_000, seconds in 0u64..3_000_000_000) {
            let ticks = seconds.saturating_mul(khz).saturating_mul(1000) / 977;
            let exact = u128::from(ticks) * 1_000_000 / u128::from(khz);
            let scaled = u128::from(TscScale::from_khz(khz).unwrap().nanoseconds(ticks));
            let slack = exact / (1 << 31) + 4;
            prop_assert!(scaled <= exact + 1 && exact <= scaled + slack, "{} {}", exact, scaled);
        }
    }
}
