//! What libFuzzer said: figures, and the input that broke something.

use std::fmt::Write;

/// Lines of a failure that are shown.
const TAIL: usize = 40;

/// How one target fared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    target: String,
    ended_well: bool,
    runs: u64,
    runs_per_second: u64,
    /// Inputs in the corpus that each reach something of their own.
    corpus: u64,
    /// Edges of the program that were taken.
    coverage: u64,
    said: String,
}

impl Outcome {
    /// Reads what libFuzzer wrote to standard error.
    pub fn read(target: &str, ended_well: bool, said: &str) -> Self {
        let figure = |name: &str| {
            let line = said.lines().rev().find(|line| line.contains(name))?;
            let after = line.split(name).nth(1)?.trim_start_matches([':', ' ']);
            let digits = after.split(|c: char| !c.is_ascii_digit()).next()?;
            digits.parse().ok()
        };
        let lines: Vec<&str> = said.lines().collect();
        Self {
            target: target.into(),
            ended_well,
            runs: figure("stat::number_of_executed_units").unwrap_or(0),
            runs_per_second: figure("stat::average_exec_per_sec").unwrap_or(0),
            corpus: figure("corp").unwrap_or(0),
            coverage: figure("cov").unwrap_or(0),
            said: lines[lines.len().saturating_sub(TAIL)..].join("\n"),
        }
    }

    /// Whether nothing broke, and something ran.
    pub const fn held(&self) -> bool {
        self.ended_well && self.runs > 0
    }

    /// Shows what libFuzzer said, where something broke.
    pub fn complain(&self) {
        if !self.held() {
            eprintln!("--- {}\n{}", self.target, self.said);
        }
    }
}

/// A line for each target, and their sum.
pub fn table(outcomes: &[Outcome]) -> String {
    let mut text = String::from("fuzz      executions      per s  inputs  edges\n");
    for outcome in outcomes {
        let verdict = if outcome.held() { "" } else { "  BROKEN" };
        let _ = writeln!(
            text,
            "{:<8} {:>11} {:>10} {:>7} {:>6}{verdict}",
            outcome.target, outcome.runs, outcome.runs_per_second, outcome.corpus, outcome.coverage
        );
    }
    let runs: u64 = outcomes.iter().map(|outcome| outcome.runs).sum();
    let held = outcomes.iter().filter(|outcome| outcome.held()).count();
    let _ = write!(
        text,
        "fuzz: {} targets, {held} held, {runs} executions",
        outcomes.len()
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "INFO: seed corpus: files: 21\n\
        #2630924\tDONE   cov: 512 ft: 931 corp: 402/31Kb lim: 8192 exec/s: 202378 rss: 28Mb\n\
        Done 2630924 runs in 13 second(s)\n\
        stat::number_of_executed_units: 2630924\n\
        stat::average_exec_per_sec:     202378\n";

    #[test]
    fn figures_are_libfuzzers() {
        let outcome = Outcome::read("decode", true, SAID);
        assert_eq!(
            (outcome.runs, outcome.runs_per_second),
            (2_630_924, 202_378)
        );
        assert_eq!((outcome.coverage, outcome.corpus), (512, 402));
        assert!(outcome.held());
        let table = table(&[outcome]);
        assert!(
            table.ends_with("1 targets, 1 held, 2630924 executions"),
            "{table}"
        );
    }

    #[test]
    fn what_broke_or_did_not_run_is_a_failure() {
        assert!(!Outcome::read("decode", false, SAID).held());
        assert!(!Outcome::read("decode", true, "").held());
    }
}
