//! `cargo xtask miri`: the libraries' tests under Miri, which sees undefined behaviour.
//!
//! What it cannot run (instructions of the XSAVE family) and what is too slow
//! for it (searches of safe code) leaves itself out with `cfg(miri)`.

mod long;

use std::process::{Command, Output};
use std::thread;

use anyhow::{Context, Result, ensure};

use self::long::LONG;
use crate::nightly::{NONE, Nightly};
use crate::workspace::Workspace;

/// What is run.
#[derive(clap::Args)]
pub struct Args {
    /// All tests: also those that take minutes each, hours together.
    #[arg(long)]
    all: bool,
}

/// A part of the tests, which has a process of its own.
struct Part {
    package: &'static str,
    /// Which of its programs: cargo's arguments.
    programs: &'static [&'static str],
    /// Which of them a short run has.
    short_programs: &'static [&'static str],
    /// Which of their tests, all together: the programs' arguments.
    tests: &'static [&'static str],
    /// Which of them a short run has, besides what [`LONG`] leaves out.
    short: &'static [&'static str],
}

/// All tests, in parts that take about as long as each other.
const PARTS: &[Part] = &[
    Part {
        package: "vcpu-xstate",
        programs: &["--lib"],
        short_programs: &["--lib"],
        tests: &["owner::", "hw::"],
        // A vCPU's whole way takes minutes; these go through the register file.
        short: &["hw::", "owner::tests::areas_are_sized_by_policy"],
    },
    Part {
        package: "vcpu-xstate",
        programs: &["--lib"],
        short_programs: &["--lib"],
        tests: &["--skip", "owner::", "--skip", "hw::"],
        short: &["--skip", "owner::", "--skip", "hw::"],
    },
    Part {
        package: "migration-abi",
        programs: &["--tests"],
        short_programs: &["--lib", "--test", "blob", "--test", "registers"],
        tests: &[],
        short: &[],
    },
];

/// Cases of each property test: Miri is a few hundred times slower.
const CASES: &str = "1";

/// The command. Gives whether all passed.
///
/// # Errors
/// No toolchain.
pub fn run(workspace: &Workspace, args: &Args) -> Result<bool> {
    let nightly = Nightly::find().context(NONE)?;
    eprintln!("building the libraries' tests for Miri, and running them …");
    let text = play(workspace, &nightly, args.all)?;
    print!("{text}");
    Ok(true)
}

/// For `cargo xtask test`: what the test programs said, or why nothing ran.
///
/// # Errors
/// A test failed, or Miri found something.
pub fn smoke(workspace: &Workspace) -> Result<Result<String, &'static str>> {
    match Nightly::find() {
        Some(nightly) => play(workspace, &nightly, false).map(Ok),
        None => Ok(Err(NONE)),
    }
}

fn play(workspace: &Workspace, nightly: &Nightly, all: bool) -> Result<String> {
    nightly.components(workspace, &["miri", "rust-src"])?;
    for part in PARTS {
        let output = test(workspace, nightly, part, all)
            .arg("--no-run")
            .output()
            .context("cargo miri could not be started")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}:\n{said}", part.package);
    }
    let outputs: Vec<(&str, Result<Output>)> = thread::scope(|scope| {
        let running: Vec<_> = PARTS
            .iter()
            .map(|part| {
                let mut command = test(workspace, nightly, part, all);
                command.arg("--");
                if all {
                    command.args(part.tests);
                } else {
                    command.args(part.short);
                    LONG.iter().for_each(|test| {
                        command.args(["--skip", test]);
                    });
                }
                let output = move || command.output().context("cargo miri could not be started");
                (part.package, scope.spawn(output))
            })
            .collect();
        running
            .into_iter()
            .map(|(package, thread)| match thread.join() {
                Ok(output) => (package, output),
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect()
    });
    let mut text = String::new();
    for (package, output) in outputs {
        let output = output?;
        let (said, also) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        ensure!(output.status.success(), "{package}:\n{said}\n{also}");
        text += &said;
    }
    Ok(text)
}

/// `cargo miri test` of a part, as far as its programs.
fn test(workspace: &Workspace, nightly: &Nightly, part: &Part, all: bool) -> Command {
    let mut command = nightly.cargo(workspace.root());
    command
        .args(["miri", "test", "--package", part.package, "--target-dir"])
        .arg(workspace.target().join("xferry-miri"))
        .args(if all {
            part.programs
        } else {
            part.short_programs
        })
        // Seeds of property tests are files.
        .env("MIRIFLAGS", "-Zmiri-disable-isolation")
        .env("PROPTEST_CASES", CASES);
    command
}
