//! What the test guest says of itself, and what it may never say.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

/// One line of a torture guest that found everything right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Which guest.
    pub seed: u64,
    /// Patterns checked since it was started.
    pub count: u64,
    /// The guest's clock, in nanoseconds.
    pub clock_ns: u64,
}

/// A line of a torture guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// All right so far.
    Fine(Report),
    /// A wrong bit, and where.
    Wrong(String),
    /// Something else: a greeting, a remark, or half a line.
    Other,
}

/// Reads `torture seed=7 ok count=120 hash=… clock_ns=… ticks=…` or `torture FAIL …`.
pub fn parse(line: &str) -> Line {
    let line = line.trim();
    if line.contains("torture") && line.contains("FAIL") || line.starts_with("guest panicked") {
        return Line::Wrong(line.to_owned());
    }
    let fields: BTreeMap<&str, &str> = line
        .split_whitespace()
        .filter_map(|word| word.split_once('='))
        .collect();
    let number = |name: &str| fields.get(name)?.parse::<u64>().ok();
    let report = || {
        line.strip_prefix("torture ")?
            .split_whitespace()
            .any(|word| word == "ok")
            .then_some(())?;
        // These stand last: half a line may end within the clock's digits.
        number("ticks")?;
        Some(Report {
            seed: number("seed")?,
            count: number("count")?,
            clock_ns: number("clock_ns")?,
        })
    };
    report().map_or(Line::Other, Line::Fine)
}

/// What one guest said over its life, on whichever machine.
#[derive(Clone, Debug)]
pub struct Ledger {
    seed: u64,
    last: Option<Report>,
}

impl Ledger {
    /// Of the guest with this seed.
    pub fn new(seed: u64) -> Self {
        Self { seed, last: None }
    }

    /// Patterns checked so far.
    pub fn count(&self) -> u64 {
        self.last.as_ref().map_or(0, |report| report.count)
    }

    /// Takes lines as they came; whatever a sound guest could not have said is
    /// an error.
    pub fn read(&mut self, lines: &[String]) -> Result<()> {
        for line in lines {
            match parse(line) {
                Line::Other => {}
                Line::Wrong(what) => bail!("guest with seed {}: {what}", self.seed),
                Line::Fine(report) => self.add(report).with_context(|| format!("in {line:?}"))?,
            }
        }
        Ok(())
    }

    fn add(&mut self, report: Report) -> Result<()> {
        ensure!(
            report.seed == self.seed,
            "this is the guest with seed {}",
            self.seed
        );
        if let Some(last) = &self.last {
            ensure!(
                report.count >= last.count,
                "the guest's counter went back from {} to {}",
                last.count,
                report.count
            );
            ensure!(
                report.clock_ns >= last.clock_ns,
                "the guest's clock went back from {} to {} ns",
                last.clock_ns,
                report.clock_ns
            );
        }
        self.last = Some(report);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn reports_and_wrong_bits() {
        assert_eq!(
            parse("torture seed=7 ok count=120 hash=00ff clock_ns=5000 ticks=5\r"),
            Line::Fine(Report {
                seed: 7,
                count: 120,
                clock_ns: 5000
            })
        );
        let wrong = "torture FAIL component=avx register=ymm3 offset=16";
        assert_eq!(parse(wrong), Line::Wrong(wrong.into()));
        let panicked = "guest panicked at src/run.rs:1:1:";
        assert_eq!(parse(panicked), Line::Wrong(panicked.into()));
        assert_eq!(parse("torture seed=7 ok cou"), Line::Other);
        assert_eq!(
            parse("torture seed=7 ok count=120 hash=00ff clock_ns=50"),
            Line::Other
        );
        assert_eq!(parse("hello"), Line::Other);
    }

    #[test]
    fn a_ledger_takes_no_steps_back() {
        let good = "torture seed=7 ok count=1 hash=a clock_ns=10 ticks=5\ntorture seed=7 ok count=2 hash=b clock_ns=10 ticks=5\n";
        let mut ledger = Ledger::new(7);
        ledger.read(&lines(good)).unwrap();
        assert_eq!(ledger.count(), 2);
        for bad in [
            "torture seed=7 ok count=1 hash=a clock_ns=11 ticks=5",
            "torture seed=7 ok count=3 hash=a clock_ns=9 ticks=5",
            "torture seed=8 ok count=3 hash=a clock_ns=11 ticks=5",
            "torture FAIL component=x87 register=st0 offset=0",
        ] {
            assert!(ledger.clone().read(&lines(bad)).is_err(), "{bad}");
        }
        ledger
            .read(&lines(
                "torture seed=7 ok count=3 hash=a clock_ns=11 ticks=5",
            ))
            .unwrap();
    }
}
