//! A domain's system time as a line over the host's TSC, and the page that
//! tells it to the guest.
//!
//! The hypervisor and the guest compute the time by the same numbers, so that
//! no two readings, whoever made them, are out of order by a rounding.

use crate::domain::memory::GuestMemory;
use crate::mm::addr::{GuestPhys, PAGE_BYTES};
use xferry_abi::clock::{ClockPage, scale};
use zerocopy::IntoBytes;

/// A line: `time(tsc) = base_ns + scale(tsc - base_tsc)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DomainClock {
    /// `tsc_timestamp` is in host ticks here.
    line: ClockPage,
}

impl DomainClock {
    /// The time is `now_ns` at the host's TSC `host_tsc`, which runs at
    /// `tsc_khz` kHz.
    #[must_use]
    pub fn new(now_ns: u64, host_tsc: u64, tsc_khz: u32) -> Self {
        let (tsc_to_system_mul, tsc_shift) = scale(tsc_khz.max(1)).unwrap_or((u32::MAX, 0));
        Self {
            line: ClockPage {
                tsc_timestamp: host_tsc,
                system_time_ns: now_ns,
                tsc_to_system_mul,
                tsc_shift,
                ..ClockPage::default()
            },
        }
    }

    /// System time at the host's TSC `host_tsc`, ns.
    #[must_use]
    pub const fn now_ns(&self, host_tsc: u64) -> u64 {
        self.line.time_ns(host_tsc)
    }

    /// What the guest's page says: the same line over the guest's TSC.
    #[must_use]
    pub fn page(&self, version: u32, tsc_offset: u64) -> ClockPage {
        ClockPage {
            version,
            tsc_timestamp: self.line.tsc_timestamp.wrapping_add(tsc_offset),
            ..self.line
        }
    }
}

/// Whether a clock page may lie at `at`: 8-byte aligned, inside one page, so that
/// the version is written in one piece.
#[must_use]
pub const fn placed(at: GuestPhys) -> bool {
    at.is_aligned_to(8) && at.page_offset() <= PAGE_BYTES - size_of::<ClockPage>() as u64
}

/// Writes the page at `at`, which was checked when the guest named it, with the
/// next even version. Returns that version.
///
/// The vCPU does not run meanwhile, so it sees either page whole; another vCPU
/// that reads this one's page sees an odd version first.
pub fn publish(
    memory: &GuestMemory,
    at: GuestPhys,
    clock: &DomainClock,
    tsc_offset: u64,
    version: u32,
) -> u32 {
    let odd = version.wrapping_add(1) | 1;
    let even = odd.wrapping_add(1);
    let page = clock.page(odd, tsc_offset);
    // The range lies in memory that the domain keeps for as long as it lives.
    let _ = memory.write(at, page.as_bytes());
    core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
    let _ = memory.write(at, &even.to_le_bytes());
    even
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::memory::tests::memory;
    use zerocopy::FromBytes;

    #[test]
    fn guest_and_hypervisor_read_the_same_time() {
        let memory = memory(2);
        let at = GuestPhys::new(0x1010);
        let clock = DomainClock::new(5_000_000_000, 777, 2_399_987);
        let offset = 0u64.wrapping_sub(700);
        let version = publish(&memory, at, &clock, offset, 0);
        assert_eq!(version, 2);
        let mut bytes = [0; 32];
        memory.read(at, &mut bytes).unwrap();
        let page = ClockPage::read_from_bytes(&bytes).unwrap();
        assert_eq!(page.version, 2);
        for ticks in [0u64, 1, 999, 1 << 33, 1 << 50] {
            let host_tsc = 777 + ticks;
            let guest_tsc = host_tsc.wrapping_add(offset);
            assert_eq!(page.time_ns(guest_tsc), clock.now_ns(host_tsc));
        }
        assert_eq!(publish(&memory, at, &clock, offset, version), 4);
        assert_eq!(publish(&memory, at, &clock, offset, u32::MAX - 1), 0);
    }

    #[test]
    fn a_clock_that_moves_to_another_frequency_goes_on_where_it_was() {
        let source = DomainClock::new(0, 1000, 2_000_000);
        let left = source.now_ns(1000 + 4_000_000);
        let target = DomainClock::new(left, 90, 3_100_000);
        assert_eq!(target.now_ns(90), left);
        assert!(target.now_ns(91) >= left);
    }
}
