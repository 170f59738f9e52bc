//! Guest system time, read from the clock page without an exit.
#![allow(unsafe_code)] // memory that the hypervisor writes

use crate::{cpu, hypercall};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering, compiler_fence};
use xferry_abi::{Call, ClockPage, error::Failure};

/// The page that the hypervisor writes. Alone in its cache line, inside a page.
#[repr(C, align(64))]
struct Shared(UnsafeCell<ClockPage>);

// SAFETY: it is read by volatile loads only, under the version's protocol.
unsafe impl Sync for Shared {}

static PAGE: Shared = Shared(UnsafeCell::new(ClockPage {
    version: 0,
    pad0: 0,
    tsc_timestamp: 0,
    system_time_ns: 0,
    tsc_to_system_mul: 0,
    tsc_shift: 0,
    flags: 0,
    pad: [0; 2],
}));
static REGISTERED: AtomicBool = AtomicBool::new(false);

/// Where the time comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The hypervisor's clock page.
    ClockPage,
    /// The TSC taken for 1 GHz, since nothing here says what it is: durations
    /// are wrong by a constant factor, order is right.
    Tsc,
}

/// Tells the hypervisor where the clock page is; until then, and where there is
/// no hypervisor, [`now_ns`] counts the TSC.
///
/// # Errors
/// What the hypervisor answered.
pub fn init() -> Result<(), Failure> {
    // SAFETY: PAGE is static, 64-byte aligned and so inside one page, and read
    // as memory that changes.
    unsafe { hypercall::call(Call::ClockPage as u64, [PAGE.0.get() as u64, 0, 0, 0, 0]) }?;
    REGISTERED.store(true, Ordering::Relaxed);
    Ok(())
}

/// Where [`now_ns`] gets the time from.
#[must_use]
pub fn source() -> Source {
    if REGISTERED.load(Ordering::Relaxed) {
        Source::ClockPage
    } else {
        Source::Tsc
    }
}

/// Guest system time, ns.
#[must_use]
pub fn now_ns() -> u64 {
    match source() {
        Source::ClockPage => read(|| {
            // SAFETY: a plain copy of memory that is always initialised.
            unsafe { PAGE.0.get().read_volatile() }
        }),
        Source::Tsc => cpu::tsc(),
    }
}

/// The page as it stands, torn reads excluded.
#[must_use]
pub fn page() -> ClockPage {
    loop {
        // SAFETY: as in `now_ns`.
        let first = unsafe { PAGE.0.get().read_volatile() };
        compiler_fence(Ordering::Acquire);
        // SAFETY: as in `now_ns`.
        let again = unsafe { PAGE.0.get().read_volatile() }.version;
        if first.version & 1 == 0 && first.version == again {
            return first;
        }
        core::hint::spin_loop();
    }
}

/// The reader's side of the protocol: the TSC is read between two looks at the
/// version, so it belongs to the line that it is put into even where the guest
/// was moved in between.
fn read(page: impl Fn() -> ClockPage) -> u64 {
    loop {
        let line = page();
        compiler_fence(Ordering::Acquire);
        let tsc = cpu::tsc();
        compiler_fence(Ordering::Acquire);
        if line.version & 1 == 0 && page().version == line.version {
            return line.time_ns(tsc);
        }
        core::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::Cell;

    #[test]
    fn a_line_that_changes_while_it_is_read_is_not_used() {
        // Versions as the reader meets them: being written, then changed
        // between its two looks, then at rest.
        let versions = [1, 2, 4, 6, 6];
        let looks = Cell::new(0);
        let time = read(|| {
            let version = versions[looks.get().min(versions.len() - 1)];
            looks.set(looks.get() + 1);
            ClockPage {
                version,
                system_time_ns: u64::from(version) * 1000,
                ..ClockPage::default()
            }
        });
        assert_eq!(time, 6000);
        assert_eq!(looks.get(), 5);
    }
}
