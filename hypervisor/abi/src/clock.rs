//! The clock page: how a guest tells the time without an exit.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Guest system time as a line over the TSC, in the manner of Xen's
/// `vcpu_time_info`; the layout is the same.
///
/// Reader: take `version`; if odd, try again; read the rest; if `version`
/// changed, try again. Then, with `delta = rdtsc - tsc_timestamp` shifted left
/// by `tsc_shift` (right where negative), the time is
/// `system_time_ns + (delta * tsc_to_system_mul >> 32)`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct ClockPage {
    /// Odd while the page is being written.
    pub version: u32,
    /// Zero.
    pub pad0: u32,
    /// Guest TSC at `system_time_ns`.
    pub tsc_timestamp: u64,
    /// Guest system time, ns since the domain was first started.
    pub system_time_ns: u64,
    /// ns per shifted tick, as a 0.32 fixed-point fraction.
    pub tsc_to_system_mul: u32,
    /// Power of two applied to the tick difference first.
    pub tsc_shift: i8,
    /// Zero.
    pub flags: u8,
    /// Zero.
    pub pad: [u8; 2],
}

const _: () = assert!(size_of::<ClockPage>() == 32);

/// The scale that turns ticks of a TSC of `tsc_khz` kHz into ns:
/// `(tsc_to_system_mul, tsc_shift)`. `None` for 0.
#[must_use]
pub const fn scale(tsc_khz: u32) -> Option<(u32, i8)> {
    if tsc_khz == 0 {
        return None;
    }
    // ns per tick as a 64.64 fixed-point number, then shifted until the
    // fraction has 32 significant bits and the whole part is gone.
    let mut ns_per_tick = (1_000_000u128 << 64) / tsc_khz as u128;
    let mut shift: i8 = 0;
    while ns_per_tick >= 1 << 64 {
        ns_per_tick >>= 1;
        shift += 1;
    }
    while ns_per_tick < 1 << 63 && shift > -31 {
        ns_per_tick <<= 1;
        shift -= 1;
    }
    Some(((ns_per_tick >> 32) as u32, shift))
}

impl ClockPage {
    /// The time at guest TSC `tsc`, ns. Saturates rather than going back
    /// where `tsc` lies before the timestamp.
    #[must_use]
    pub const fn time_ns(&self, tsc: u64) -> u64 {
        // A guest's TSC may begin at zero after the line did, so the timestamp
        // wraps: the distance is a signed one.
        let distance = tsc.wrapping_sub(self.tsc_timestamp).cast_signed();
        let delta = if distance < 0 { 0 } else { distance as u128 };
        let shifted = if self.tsc_shift >= 0 {
            delta << self.tsc_shift
        } else {
            delta >> self.tsc_shift.unsigned_abs()
        };
        let ns = (shifted * self.tsc_to_system_mul as u128) >> 32;
        self.system_time_ns.saturating_add(ns as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Within one part in 2³¹ and a nanosecond per rounding, for decades.
        #[test]
        fn nanoseconds_are_what_a_division_gives(khz in 1u32..20_000_000, seconds in 0u64..1_000_000_000) {
            let ticks = seconds.saturating_mul(u64::from(khz)).saturating_mul(1000) / 977;
            // A distance on the counter is a signed number.
            prop_assume!(ticks >> 63 == 0);
            let exact = u128::from(ticks) * 1_000_000 / u128::from(khz);
            let (tsc_to_system_mul, tsc_shift) = scale(khz).unwrap();
            let page = ClockPage { tsc_to_system_mul, tsc_shift, ..ClockPage::default() };
            let scaled = u128::from(page.time_ns(ticks));
            let slack = exact / (1 << 31) + 4;
            prop_assert!(scaled <= exact + 1 && exact <= scaled + slack, "{} {}", exact, scaled);
        }
    }

    #[test]
    fn a_second_of_ticks_is_a_second_at_any_frequency() {
        for khz in [1_000, 999_999, 1_000_000, 1_000_001, 2_399_987, 5_000_000] {
            let (mul, shift) = scale(khz).unwrap();
            let page = ClockPage {
                tsc_to_system_mul: mul,
                tsc_shift: shift,
                ..ClockPage::default()
            };
            let ns = page.time_ns(u64::from(khz) * 1000);
            assert!(ns.abs_diff(1_000_000_000) <= 2, "{khz} kHz: {ns} ns");
            let hour = page.time_ns(u64::from(khz) * 1000 * 3600);
            assert!(hour.abs_diff(3_600_000_000_000) < 2_000, "{khz}: {hour}");
        }
        assert_eq!(scale(0), None);
    }

    #[test]
    fn a_tsc_before_the_timestamp_does_not_turn_time_back() {
        let page = ClockPage {
            tsc_timestamp: 1000,
            system_time_ns: 77,
            tsc_to_system_mul: u32::MAX,
            ..ClockPage::default()
        };
        assert_eq!(page.time_ns(10), 77);
    }

    #[test]
    fn a_timestamp_before_the_guests_tsc_began_still_counts() {
        let page = ClockPage {
            tsc_timestamp: 0u64.wrapping_sub(1 << 32),
            tsc_to_system_mul: 1 << 31,
            ..ClockPage::default()
        };
        assert_eq!(page.time_ns(0), 1 << 31);
    }
}
