//! The steps that cargo does: format, clippy, unit and property tests.

use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

use super::Tally;
use crate::workspace::{BARE_TARGET, Workspace};

/// Packages that are compiled for bare metal.
const BARE_PACKAGES: &[&str] = &[
    "xferry",
    "guest-rt",
    "torture",
    "toolstack",
    "xstate-bench-kernel",
];

/// Lines of a failed command's output that are shown.
const TAIL: usize = 80;

/// The format is rustfmt's.
pub fn format(workspace: &Workspace) -> Result<Tally> {
    quiet(workspace.cargo().args(["fmt", "--all", "--check"]))?;
    Ok(Tally::PASS)
}

/// Clippy finds nothing in anything that runs here.
pub fn clippy_host(workspace: &Workspace) -> Result<Tally> {
    quiet(workspace.cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))?;
    Ok(Tally::PASS)
}

/// Clippy finds nothing in anything that runs without an operating system, in
/// either variant.
pub fn clippy_bare(workspace: &Workspace) -> Result<Tally> {
    for features in [&[][..], &["--features", "xferry/import-fault"]] {
        let mut command = workspace.cargo();
        command.args(["clippy", "--target", BARE_TARGET]);
        for package in BARE_PACKAGES {
            command.args(["--package", package]);
        }
        quiet(command.args(features).args(["--", "-D", "warnings"]))?;
    }
    Ok(Tally::PASS.and(Tally::PASS))
}

/// All unit, property and documentation tests.
pub fn test(workspace: &Workspace) -> Result<Tally> {
    let output = output(
        workspace
            .cargo()
            .args(["test", "--workspace", "--no-fail-fast"]),
    )?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut tally = count(&text);
    if !output.status.success() {
        eprintln!("{}\n{}", failures(&text), tail(&output.stderr));
        // A crate that does not compile has no results to count.
        if tally.failed == 0 {
            tally = tally.and(Tally::FAIL);
        }
    } else if tally == Tally::default() {
        bail!("cargo test ran no test at all");
    } else {
        said(&text).for_each(|line| eprintln!("       {line}"));
    }
    Ok(tally)
}

/// Adds up the result lines that each test program prints. A test that could
/// not run says `skipped: why` on a line of its own; to its program it passed.
pub(super) fn count(text: &str) -> Tally {
    let said = said(text).filter(|line| line.starts_with(SKIPPED)).count();
    let tally = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("test result: "))
        .fold(Tally::default(), |tally, line| {
            let number = |what: &str| {
                line.split([';', '.'])
                    .find_map(|part| part.trim().strip_suffix(what)?.trim().parse().ok())
                    .unwrap_or(0)
            };
            tally.and(Tally {
                passed: number("passed"),
                failed: number("failed"),
                skipped: number("ignored"),
            })
        });
    Tally {
        passed: tally.passed.saturating_sub(said),
        skipped: tally.skipped + said,
        ..tally
    }
}

/// How a test begins that says why it did not run.
const SKIPPED: &str = "skipped: ";

/// What the tests themselves said: figures that they close with, and why they
/// did not run. The rest is their programs' own.
pub(super) fn said(text: &str) -> impl Iterator<Item = &str> {
    let own = [
        "running ",
        "test ",
        "test result: ",
        "Running ",
        "Doc-tests ",
    ];
    text.lines()
        .map(|line| {
            // One test at a time, its name has no line end before what it says.
            let behind = line
                .strip_prefix("test ")
                .and_then(|l| l.split_once(" ... "));
            behind.map_or(line.trim(), |(_, said)| said.trim())
        })
        .filter(move |line| {
            let verdict = ["ok", "FAILED", "ignored", "."].contains(line);
            !line.is_empty() && !verdict && !own.iter().any(|own| line.starts_with(own))
        })
}

/// What failed tests said, without the lines of those that passed.
fn failures(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !(line.starts_with("test ") && line.ends_with(" ok")))
        .filter(|line| !line.is_empty())
        .collect();
    lines[lines.len().saturating_sub(3 * TAIL)..].join("\n")
}

fn quiet(command: &mut Command) -> Result<()> {
    let output = output(command)?;
    if output.status.success() {
        return Ok(());
    }
    bail!("{}\n{}", tail(&output.stdout), tail(&output.stderr))
}

/// Runs a command to its end; something moves on the screen meanwhile.
fn output(command: &mut Command) -> Result<Output> {
    let spinner = ProgressBar::new_spinner().with_style(ProgressStyle::with_template(
        "{spinner} [{elapsed_precise}]",
    )?);
    spinner.enable_steady_tick(Duration::from_millis(200));
    let output = command.output().context("cargo could not be started");
    spinner.finish_and_clear();
    output
}

fn tail(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_all_programs_are_added_up() {
        let text = "running 2 tests\ntest a ... ok\n\
            test result: ok. 26 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.03s\n\
            test result: FAILED. 3 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
        assert_eq!(
            count(text),
            Tally {
                passed: 29,
                failed: 2,
                skipped: 1
            }
        );
        assert_eq!(count("nothing"), Tally::default());
    }

    #[test]
    fn a_test_that_did_not_run_is_no_test_that_passed() {
        let text = "running 3 tests\n\
            skipped: no such device opens here\n\
            test kvm ... ok\n\
            test images ... images: 84 pairs checked, 0 skipped\nok\n\
            test pkru ... skipped: CR4.PKE is clear\nok\n\
            test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.03s\n";
        assert_eq!(
            count(text),
            Tally {
                passed: 1,
                failed: 0,
                skipped: 2
            }
        );
        let said: Vec<&str> = said(text).collect();
        assert_eq!(
            said,
            [
                "skipped: no such device opens here",
                "images: 84 pairs checked, 0 skipped",
                "skipped: CR4.PKE is clear"
            ]
        );
    }

    #[test]
    fn passed_tests_are_not_shown_among_failures() {
        assert_eq!(
            failures("test a ... ok\n\ntest b ... FAILED\npanicked\n"),
            "test b ... FAILED\npanicked"
        );
    }
}
