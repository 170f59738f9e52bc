//! Whether a domain's vCPUs may run, and why not: read without a lock before
//! every time slice.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use xferry_abi::info::state;

/// Why a domain was stopped, with one detail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// One of [`xferry_abi::info::state`].
    pub state: u32,
    /// A crash's or shutdown's cause.
    pub cause: u32,
    /// Address or vector, where the cause has one.
    pub detail: u64,
}

impl Stop {
    /// Stopped for what it did: one of [`xferry_abi::info::crash`].
    #[must_use]
    pub const fn crash(cause: u32, detail: u64) -> Self {
        Self {
            state: state::CRASHED,
            cause,
            detail,
        }
    }
}

/// A domain's state.
#[derive(Debug)]
pub struct Status {
    paused: AtomicBool,
    /// The right to run is on this host.
    may_run: AtomicBool,
    /// A migration speaks for its content: nothing may alter it.
    frozen: AtomicBool,
    stopped: AtomicU32,
    cause: AtomicU32,
    detail: AtomicU64,
}

impl Status {
    /// Paused, never stopped.
    #[must_use]
    pub const fn paused(may_run: bool) -> Self {
        Self {
            paused: AtomicBool::new(true),
            may_run: AtomicBool::new(may_run),
            frozen: AtomicBool::new(false),
            stopped: AtomicU32::new(state::RUNNING),
            cause: AtomicU32::new(0),
            detail: AtomicU64::new(0),
        }
    }

    /// Whether its vCPUs may run.
    #[must_use]
    pub fn runnable(&self) -> bool {
        !self.paused.load(Ordering::Acquire)
            && self.may_run.load(Ordering::Acquire)
            && self.stopped.load(Ordering::Acquire) == state::RUNNING
    }

    /// Whether no vCPU of it can start to run.
    #[must_use]
    pub fn stands_still(&self) -> bool {
        !self.runnable()
    }

    /// Paused by the toolstack.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Acquire)
    }

    /// Pauses it or lets it run.
    pub fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Ordering::Release);
    }

    /// Gives or takes the right to run here.
    pub fn set_may_run(&self, may_run: bool) {
        self.may_run.store(may_run, Ordering::Release);
    }

    /// Whether it has shut down or crashed: it never runs again.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(
            self.stopped.load(Ordering::Acquire),
            state::SHUT_DOWN | state::CRASHED
        )
    }

    /// Whether a migration forbids to alter it.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.frozen.load(Ordering::Acquire)
    }

    /// Forbids or allows to alter it.
    pub fn set_frozen(&self, frozen: bool) {
        self.frozen.store(frozen, Ordering::Release);
    }

    /// Stops it, unless it has stopped already: the first cause counts.
    pub fn stop(&self, stop: Stop) {
        let first = self
            .stopped
            .compare_exchange(
                state::RUNNING,
                stop.state,
                Ordering::AcqRel,
                Ordering::Acquire,
            )
            .is_ok();
        if first {
            self.cause.store(stop.cause, Ordering::Release);
            self.detail.store(stop.detail, Ordering::Release);
        }
    }

    /// Memory was given: a domain that stopped for want of it runs on.
    pub fn memory_given(&self) {
        let _ = self.stopped.compare_exchange(
            state::NEEDS_MEMORY,
            state::RUNNING,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
    }

    /// What is told to the toolstack: state, cause, detail.
    #[must_use]
    pub fn told(&self) -> Stop {
        let stopped = self.stopped.load(Ordering::Acquire);
        let paused = self.is_paused() || !self.may_run.load(Ordering::Acquire);
        Stop {
            state: match stopped {
                state::RUNNING if paused => state::PAUSED,
                other => other,
            },
            cause: self.cause.load(Ordering::Acquire),
            detail: self.detail.load(Ordering::Acquire),
        }
    }
}

/// A stop in words, for the log.
#[must_use]
pub fn words(stop: Stop) -> impl core::fmt::Display {
    core::fmt::from_fn(move |f| match stop.state {
        state::SHUT_DOWN => write!(f, "it shut down, reason {}", stop.cause),
        state::CRASHED => {
            let name = xferry_abi::info::crash::name(stop.cause);
            write!(f, "{name} ({:#x})", stop.detail)
        }
        state::NEEDS_MEMORY => {
            write!(f, "its extended state needs {} more bytes", stop.detail)
        }
        state::PAUSED => f.write_str("paused"),
        _ => f.write_str("running"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use xferry_abi::info::crash;

    #[test]
    fn it_runs_only_unpaused_with_the_right_and_not_stopped() {
        let status = Status::paused(true);
        assert!(!status.runnable());
        status.set_paused(false);
        assert!(status.runnable());
        status.set_may_run(false);
        assert!(!status.runnable());
        assert_eq!(status.told().state, state::PAUSED);
        status.set_may_run(true);
        status.stop(Stop::crash(crash::TRIPLE_FAULT, 0));
        assert!(!status.runnable());
    }

    #[test]
    fn the_first_cause_of_a_stop_counts_and_only_want_of_memory_ends() {
        let status = Status::paused(true);
        status.set_paused(false);
        status.stop(Stop {
            state: state::NEEDS_MEMORY,
            cause: 0,
            detail: 0,
        });
        assert!(!status.runnable());
        status.memory_given();
        assert!(status.runnable());
        status.stop(Stop::crash(crash::NESTED_FAULT, 0xdead));
        status.stop(Stop::crash(crash::TRIPLE_FAULT, 1));
        status.memory_given();
        assert_eq!(status.told(), Stop::crash(crash::NESTED_FAULT, 0xdead));
        assert!(!status.runnable());
    }
}
