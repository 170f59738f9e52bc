//! `cargo xtask miri`: the libraries' tests under Miri, which sees undefined behaviour.
//!
//! What it cannot run (instructions of the XSAVE family) and what is too slow
//! for it (searches of safe code) leaves itself out with `cfg(miri)`.

use std::process::Output;
use std::thread;

use anyhow::{Context, Result, ensure};

use crate::nightly::{NONE, Nightly};
use crate::workspace::Workspace;

/// The packages, and what of each is run: cargo's arguments.
const RUNS: &[(&str, &[&str])] = &[("vcpu-xstate", &["--lib"]), ("migration-abi", &["--tests"])];

/// Cases of each property test: Miri is a few hundred times slower.
const CASES: &str = "2";

/// The command. Gives whether all passed.
///
/// # Errors
/// No toolchain.
pub fn run(workspace: &Workspace) -> Result<bool> {
    let nightly = Nightly::find().context(NONE)?;
    eprintln!("building the libraries' tests for Miri, and running them …");
    let text = play(workspace, &nightly)?;
    print!("{text}");
    Ok(true)
}

/// For `cargo xtask test`: what the test programs said, or why nothing ran.
///
/// # Errors
/// A test failed, or Miri found something.
pub fn smoke(workspace: &Workspace) -> Result<Result<String, &'static str>> {
    match Nightly::find() {
        Some(nightly) => play(workspace, &nightly).map(Ok),
        None => Ok(Err(NONE)),
    }
}

fn play(workspace: &Workspace, nightly: &Nightly) -> Result<String> {
    nightly.components(workspace, &["miri", "rust-src"])?;
    let outputs: Vec<(&str, Result<Output>)> = thread::scope(|scope| {
        let running: Vec<_> = RUNS
            .iter()
            .map(|(package, what)| {
                (
                    *package,
                    scope.spawn(|| test(workspace, nightly, package, what)),
                )
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

fn test(workspace: &Workspace, nightly: &Nightly, package: &str, what: &[&str]) -> Result<Output> {
    nightly
        .cargo(workspace.root())
        .args(["miri", "test", "--package", package, "--target-dir"])
        // One each: the two would wait for each other.
        .arg(workspace.target().join("xferry-miri").join(package))
        .args(what)
        // Seeds of property tests are files.
        .env("MIRIFLAGS", "-Zmiri-disable-isolation")
        .env("PROPTEST_CASES", CASES)
        .output()
        .context("cargo miri could not be started")
}
