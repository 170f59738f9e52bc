//! The clock: an operation and its limit in turns, in the same run, by medians.
//!
//! A machine that others work on too can only make things slower, and slower
//! for a while. So a *round* times a few hundred batches of the operation and of
//! its limit alternately, and takes the median of each; of several rounds, the
//! best median of each counts. More rounds bring both nearer to what they are on
//! a quiet machine: a row that seems slower than it was gets them before it is
//! judged.

use std::time::Instant;

use crate::kernel::{Operation, Scene};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Rounds, of which the best counts.
    pub rounds: usize,
    /// Batches in a round, of which the median counts.
    pub batches: usize,
    /// Calls in a batch: some ten microseconds.
    pub calls: u32,
    /// How often a row that would be a regression is measured again, when all
    /// others have been: what disturbed it for a while may be over by then.
    pub again: usize,
}

impl Effort {
    /// For figures.
    pub const FULL: Self = Self {
        rounds: 15,
        batches: 101,
        calls: 256,
        again: 4,
    };
    /// To see that everything runs.
    pub const SMOKE: Self = Self {
        rounds: 1,
        batches: 5,
        calls: 16,
        again: 0,
    };
}

/// What an operation takes, and what its limit takes.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// The operation, in nanoseconds.
    pub ns: f64,
    /// The plain copy, in nanoseconds.
    pub limit_ns: f64,
}

impl Times {
    /// The best of each, of all rounds of both.
    #[must_use]
    pub fn best(self, other: Self) -> Self {
        Self {
            ns: self.ns.min(other.ns),
            limit_ns: self.limit_ns.min(other.limit_ns),
        }
    }

    /// How many times as long as the limit.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.ns / self.limit_ns
    }
}

/// Times `operation` in `scene`; `None` if it fails there.
pub fn measure(scene: &mut Scene, operation: Operation, effort: Effort) -> Option<Times> {
    let call = |scene: &mut Scene| scene.run(operation);
    in_turns(scene, effort, call, |scene| scene.run_limit(operation))
}

/// Times `call` and `limit` in turns; `None` if `call` gives 0.
pub fn in_turns<S>(
    scene: &mut S,
    effort: Effort,
    call: impl Fn(&mut S) -> usize,
    limit: impl Fn(&mut S) -> usize,
) -> Option<Times> {
    if call(scene) == 0 {
        return None;
    }
    let mut best = Times {
        ns: f64::INFINITY,
        limit_ns: f64::INFINITY,
    };
    for _ in 0..effort.rounds {
        let (mut ns, mut limit_ns) = (Vec::new(), Vec::new());
        for _ in 0..effort.batches {
            ns.push(batch(effort.calls, || call(scene)));
            limit_ns.push(batch(effort.calls, || limit(scene)));
        }
        best = best.best(Times {
            ns: median(&mut ns),
            limit_ns: median(&mut limit_ns),
        });
    }
    Some(best)
}

/// Nanoseconds of one call, in a batch.
fn batch(calls: u32, mut call: impl FnMut() -> usize) -> f64 {
    let start = Instant::now();
    for _ in 0..calls {
        std::hint::black_box(call());
    }
    start.elapsed().as_secs_f64() * 1e9 / f64::from(calls)
}

fn median(of: &mut [f64]) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or(f64::INFINITY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_one() {
        assert_eq!(median(&mut [3.0, 1.0, 9.0]), 3.0);
        assert_eq!(median(&mut []), f64::INFINITY);
    }
}
