//! `cargo xtask test`: every test there is, one step after the other.

mod boot;
mod cargo;
mod faults;
mod hostile;
mod kaitai;
mod proof;

use std::time::Instant;

use anyhow::{Result, bail};

use crate::build::{self, Variant};
use crate::migrate::{self, report::Verdict};
use crate::qemu::MachineSpec;
use crate::workspace::Workspace;
use crate::{bench, image, tidy};

/// How many tests of a step ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Passed.
    pub passed: usize,
    /// Failed.
    pub failed: usize,
    /// Not run.
    pub skipped: usize,
}

impl Tally {
    /// One test that passed.
    pub const PASS: Self = Self {
        passed: 1,
        failed: 0,
        skipped: 0,
    };
    /// One test that failed.
    pub const FAIL: Self = Self {
        passed: 0,
        failed: 1,
        skipped: 0,
    };
    /// One test that could not run.
    pub const SKIP: Self = Self {
        passed: 0,
        failed: 0,
        skipped: 1,
    };

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

type Step = fn(&Workspace) -> Result<Tally>;

const STEPS: &[(&str, Step)] = &[
    ("format", cargo::format),
    ("clippy, this machine", cargo::clippy_host),
    ("clippy, bare metal", cargo::clippy_bare),
    ("build", build_all),
    ("tidy", tidy_all),
    ("unit and property tests", cargo::test),
    ("kaitai", kaitai::play),
    ("bench smoke", bench::smoke),
    ("miri", proof::miri),
    ("fuzz", proof::fuzz),
    ("machine self-tests", boot::machine),
    ("boot to the shell", boot::shell),
    ("hostile guests", hostile::play),
    ("faults in the import", faults::play),
    ("migrate-test", migrate_test),
];

/// Runs the steps whose names contain one of `only` (all of them, where it is
/// empty), whatever the earlier ones said. The last line printed is
/// `N passed, N failed, N skipped`.
/// Gives whether all passed.
pub fn run(workspace: &Workspace, only: &[String]) -> Result<bool> {
    let chosen =
        |name: &str| only.is_empty() || only.iter().any(|part| name.contains(part.as_str()));
    if !STEPS.iter().any(|(name, _)| chosen(name)) {
        let names: Vec<&str> = STEPS.iter().map(|(name, _)| *name).collect();
        bail!(
            "no step is called {only:?}; there are: {}",
            names.join("; ")
        );
    }
    let mut all = Tally::default();
    let mut lines = Vec::new();
    for (name, step) in STEPS.iter().filter(|(name, _)| chosen(name)) {
        let start = Instant::now();
        eprintln!("     {name} …");
        let tally = match step(workspace) {
            Ok(tally) => tally,
            Err(error) => {
                eprintln!("{name}: {error:#}");
                Tally::FAIL
            }
        };
        let mark = if tally.failed == 0 { "ok  " } else { "FAIL" };
        let line = format!(
            "{mark} {name:<26} {:>6.1} s  {tally}",
            start.elapsed().as_secs_f32()
        );
        eprintln!("{line}");
        lines.push(line);
        all = all.and(tally);
    }
    eprintln!("\n{}", lines.join("\n"));
    println!("{all}");
    Ok(all.failed == 0 && all.passed > 0)
}

fn build_all(workspace: &Workspace) -> Result<Tally> {
    build::binaries(workspace, Variant::Plain)?;
    build::binaries(workspace, Variant::ImportFault)?;
    Ok(Tally::PASS.and(Tally::PASS))
}

fn tidy_all(workspace: &Workspace) -> Result<Tally> {
    tidy::tidy(workspace, &build::binaries(workspace, Variant::Plain)?)?;
    Ok(Tally::PASS)
}

fn migrate_test(workspace: &Workspace) -> Result<Tally> {
    let image = image::build(workspace, &build::binaries(workspace, Variant::Plain)?, "")?;
    let options = migrate::Options {
        from: MachineSpec::default(),
        to: None,
        scenarios: Vec::new(),
        keep_logs: false,
    };
    let outcomes = migrate::play(workspace, &image, &options)?;
    eprint!("{}", migrate::report::table(&outcomes));
    let tally = outcomes.iter().fold(Tally::default(), |tally, outcome| {
        tally.and(match outcome.verdict {
            Verdict::Pass => Tally::PASS,
            Verdict::Skip if migrate::acceptable(outcome) => Tally::SKIP,
            Verdict::Skip | Verdict::Fail => Tally::FAIL,
        })
    });
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line() {
        let tally = Tally {
            passed: 3,
            ..Tally::FAIL
        }
        .and(Tally::PASS);
        assert_eq!(tally.to_string(), "4 passed, 1 failed, 0 skipped");
    }
}
