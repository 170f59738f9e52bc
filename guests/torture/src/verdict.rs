//! What the guest says on its console: failures, notes, and the line about
//! every 250 ms.

use core::fmt::Display;
#[cfg(target_os = "none")]
use guest_rt::println;

/// Failures that are printed for one pattern; the others are counted.
const PRINTED_PER_PATTERN: u64 = 6;
/// Failures that are printed at all.
const PRINTED: u64 = 200;

/// One thing that is not as it must be.
pub struct Failure<'a> {
    /// Component, or what else is checked.
    pub component: &'a str,
    /// Which register of it.
    pub register: &'a dyn Display,
    /// Which byte of the register.
    pub byte: usize,
    /// What must be there.
    pub expected: u64,
    /// What is there.
    pub seen: u64,
    /// Number of the pattern.
    pub count: u64,
    /// How it was seen.
    pub via: &'a str,
}

/// The guest's verdict on its machine.
#[derive(Default)]
pub struct Verdict {
    failures: u64,
    printed: u64,
    count: u64,
    printed_for_count: u64,
}

impl Verdict {
    /// Reports a failure. Nothing takes it back.
    pub fn fail(&mut self, failure: &Failure<'_>) {
        self.failures += 1;
        if failure.count != self.count {
            self.count = failure.count;
            self.printed_for_count = 0;
        }
        if self.printed >= PRINTED || self.printed_for_count >= PRINTED_PER_PATTERN {
            return;
        }
        self.printed += 1;
        self.printed_for_count += 1;
        println!(
            "torture FAIL component={} register={} byte={} expected={:#04x} seen={:#04x} iteration={} via={}",
            failure.component,
            failure.register,
            failure.byte,
            failure.expected,
            failure.seen,
            failure.count,
            failure.via
        );
    }

    /// How many failures there were.
    #[must_use]
    pub const fn failures(&self) -> u64 {
        self.failures
    }

    /// The word for it.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        if self.failures == 0 { "ok" } else { "FAILED" }
    }
}
