//! `cargo xtask bench`: what the libraries' code takes, as the hypervisor links it, against a plain copy.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::test::Tally;
use crate::tidy::vector;
use crate::workspace::Workspace;

/// The package that measures.
const PACKAGE: &str = "xstate-bench";

/// Options of `bench`.
#[derive(Args)]
pub struct Options {
    /// Print the rows as JSON on standard output, and the table on standard error.
    #[arg(long)]
    json: bool,
    /// Fail where a row takes longer than is asked, and not only where it also
    /// takes longer than it did.
    #[arg(long)]
    strict: bool,
}

/// Prints the table. False where a row got slower than it was and than is asked.
pub fn run(workspace: &Workspace, options: &Options) -> Result<bool> {
    eprintln!("building {PACKAGE}, as the hypervisor is …");
    check_instructions(workspace)?;
    let options = [(options.json, "--json"), (options.strict, "--strict")];
    let given: Vec<&str> = options.iter().filter(|o| o.0).map(|o| o.1).collect();
    let status = measure(workspace, &given).status();
    Ok(status.context("cargo could not be started")?.success())
}

/// Everything that is measured runs, once; nothing is asked of the figures,
/// which depend on what else this machine does.
pub fn smoke(workspace: &Workspace) -> Result<Tally> {
    check_instructions(workspace)?;
    quietly(&mut measure(workspace, &["--smoke"]))?;
    let mut criterion = workspace.cargo();
    criterion.args(["bench", "--quiet", "--package", PACKAGE, "--", "--test"]);
    quietly(&mut criterion)?;
    quietly(&mut checksums(workspace, &["--test"]))?;
    Ok(Tally::PASS.and(Tally::PASS).and(Tally::PASS))
}

/// What is measured has no vector registers: figures of code that has would
/// say nothing of the hypervisor.
fn check_instructions(workspace: &Workspace) -> Result<()> {
    let output = measure(workspace, &["--program"])
        .output()
        .context("cargo could not be started")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    let path = String::from_utf8(output.stdout)?;
    let findings = vector::check(Path::new(path.trim()))?;
    for finding in &findings {
        eprintln!("{finding}");
    }
    if !findings.is_empty() {
        bail!("the measured code uses vector registers");
    }
    eprintln!("the measured code uses no vector register");
    Ok(())
}

fn measure(workspace: &Workspace, arguments: &[&str]) -> Command {
    let mut command = workspace.cargo();
    command
        .args(["run", "--release", "--quiet", "--package", PACKAGE, "--"])
        .args(arguments);
    command
}

/// The rate of the checksum at several lengths.
fn checksums(workspace: &Workspace, arguments: &[&str]) -> Command {
    let mut command = workspace.cargo();
    command
        .args(["bench", "--quiet", "--package", "xferry-crc32c", "--"])
        .args(arguments);
    command
}

fn quietly(command: &mut Command) -> Result<()> {
    let output = command.output().context("cargo could not be started")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
