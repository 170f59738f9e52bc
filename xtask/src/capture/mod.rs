//! `cargo xtask capture OUT`: this machine's CPUID and images of its extended state, as a table and a corpus.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;

/// The package and the program.
const PROGRAM: &str = "xstate-capture";

/// What to capture, and where to.
#[derive(clap::Args)]
pub struct Args {
    /// The directory for cpuid.csv and images.bin.
    #[arg(required_unless_present = "program_only")]
    out: Option<PathBuf>,

    /// Take a handful of pairs only, for a repository.
    #[arg(long)]
    small: bool,

    /// Build the program and say where it is, to be copied to other machines.
    #[arg(long, conflicts_with_all = ["out", "small"])]
    program_only: bool,
}

/// Builds the program, and runs it here.
pub fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let built = workspace
        .cargo()
        .args(["build", "--quiet", "--release", "--package", PROGRAM])
        .status()
        .context("cargo could not be started")?;
    if !built.success() {
        bail!("{PROGRAM} could not be built");
    }
    let program = workspace.target().join("release").join(PROGRAM);
    let Some(out) = &args.out else {
        println!("{}", workspace.short(&program));
        eprintln!(
            "It needs Linux on x86-64 and its C library: copy it, and start it with a directory."
        );
        return Ok(());
    };
    let mut command = std::process::Command::new(&program);
    if args.small {
        command.arg("--small");
    }
    let status = command
        .arg(out)
        .status()
        .with_context(|| format!("{} could not be started", program.display()))?;
    if !status.success() {
        bail!("{PROGRAM} ended with {status}");
    }
    eprintln!(
        "The program is {}: it runs on machines without a toolchain too.",
        workspace.short(&program)
    );
    Ok(())
}
