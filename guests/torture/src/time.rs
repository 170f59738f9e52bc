//! Timekeeping under test: the clock page must never go back, and the timer
//! event must come, and never before its time.

use crate::pattern::Words;
use crate::verdict::{Failure, Verdict};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use guest_rt::abi::Event;
use guest_rt::interrupts::{self, Frame};
use guest_rt::{clock, cpu, hypercall, timer};

/// A timer event that has not come this many patterns after its time (at
/// least 80 ms of the guest's own running) is lost.
const LOST_AFTER: u64 = 40;

/// How much earlier than its deadline an event may seem: the clock page rounds
/// down, and the hypervisor need not compute time by it.
const ROUNDING_NS: u64 = 1000;

/// Ticks taken.
static TICKS: AtomicU64 = AtomicU64::new(0);
/// When the next one is due; `u64::MAX` where none was asked for.
static DEADLINE: AtomicU64 = AtomicU64::new(u64::MAX);
/// The latest time that anyone has seen.
static LATEST: AtomicU64 = AtomicU64::new(0);
/// A time that was before `LATEST`, by how much; 0 for none.
static BACK_BY: AtomicU64 = AtomicU64::new(0);
/// An event that came before its deadline, by how much; 0 for none.
static EARLY_BY: AtomicU64 = AtomicU64::new(0);
/// A refused request for the next event, its errno; 0 for none.
static REFUSED: AtomicU64 = AtomicU64::new(0);
static SEED: AtomicU64 = AtomicU64::new(0);

/// What the check of the main loop remembers.
pub struct Timekeeper {
    overdue: Overdue,
    tsc: u64,
}

/// Since how many patterns the event with this deadline is overdue.
struct Overdue {
    deadline: u64,
    patterns: u64,
}

impl Timekeeper {
    /// Registers the clock page and starts the ticks, where there is a
    /// hypervisor to serve them.
    pub fn start(seed: u64, verdict: &mut Verdict) -> Self {
        if hypercall::available() {
            SEED.store(seed, Relaxed);
            let started = clock::init().and_then(|()| interrupts::on_event(Event::Timer, on_timer));
            match started {
                Ok(()) => {
                    cpu::without_interrupts(arm);
                    cpu::enable_interrupts();
                }
                Err(failure) => verdict.fail(&Failure {
                    component: "timer",
                    register: &"start",
                    byte: 0,
                    expected: 0,
                    seen: failure.errno as u64,
                    count: 0,
                    via: "hypercall",
                }),
            }
        }
        Self {
            overdue: Overdue {
                deadline: 0,
                patterns: 0,
            },
            tsc: cpu::tsc(),
        }
    }

    /// Looks at what was noticed since the last call.
    pub fn check(&mut self, count: u64, verdict: &mut Verdict) {
        let mut fail = |component, register: &'static str, expected, seen| {
            verdict.fail(&Failure {
                component,
                register: &register,
                byte: 0,
                expected,
                seen,
                count,
                via: "time",
            });
        };
        let now = now();
        let tsc = cpu::tsc();
        if tsc < self.tsc {
            fail("tsc", "tsc", self.tsc, tsc);
        }
        self.tsc = tsc;
        for (event, component, register) in [
            (&BACK_BY, "clock", "went_back_ns"),
            (&EARLY_BY, "timer", "early_ns"),
            (&REFUSED, "timer", "refused_errno"),
        ] {
            match event.swap(0, Relaxed) {
                0 => {}
                value => fail(component, register, 0, value),
            }
        }
        let deadline = DEADLINE.load(Relaxed);
        if now <= deadline || deadline != self.overdue.deadline {
            self.overdue = Overdue {
                deadline,
                patterns: 0,
            };
        } else {
            self.overdue.patterns += 1;
            if self.overdue.patterns == LOST_AFTER {
                fail("timer", "lost_event_ns", deadline, now);
            }
        }
    }
}

/// Ticks taken so far.
#[must_use]
pub fn ticks() -> u64 {
    TICKS.load(Relaxed)
}

/// The time, ns, looked at for whether it went back.
pub fn now() -> u64 {
    cpu::without_interrupts(|| {
        let now = clock::now_ns();
        let latest = LATEST.load(Relaxed);
        if now < latest {
            BACK_BY.store(latest - now, Relaxed);
        }
        LATEST.store(now.max(latest), Relaxed);
        now
    })
}

/// The TSC in `ns` from now, at the rate of the clock page.
#[must_use]
pub fn tsc_in(ns: u64) -> u64 {
    let ticks = match clock::source() {
        clock::Source::ClockPage => {
            let page = clock::page();
            let shifted = (u128::from(ns) << 32) / u128::from(page.tsc_to_system_mul.max(1));
            let ticks = if page.tsc_shift >= 0 {
                shifted >> page.tsc_shift
            } else {
                shifted << page.tsc_shift.unsigned_abs()
            };
            u64::try_from(ticks).unwrap_or(u64::MAX)
        }
        clock::Source::Tsc => ns,
    };
    cpu::tsc().saturating_add(ticks)
}

/// The handler. Soft-float code: no register of the extended state changes.
fn on_timer(_: &mut Frame) {
    let now = now();
    let deadline = DEADLINE.load(Relaxed);
    if now.saturating_add(ROUNDING_NS) < deadline {
        EARLY_BY.store(deadline.saturating_sub(now), Relaxed);
    }
    TICKS.fetch_add(1, Relaxed);
    arm();
}

/// Asks for the next event, 1 to 9 ms from now. Interrupts are off.
fn arm() {
    let wait = 1_000_000 + Words::new(SEED.load(Relaxed), ticks(), u64::MAX - 1).word() % 8_000_000;
    let deadline = now().saturating_add(wait);
    DEADLINE.store(deadline, Relaxed);
    if let Err(failure) = timer::set(deadline) {
        REFUSED.store(failure.errno as u64, Relaxed);
    }
}
