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

#[cfg(test)]
mod tests {
    use crate::machines::{THIS, Table};

    /// What is captured here reads back as this machine, and the host that the
    /// library makes of it is the same.
    #[test]
    fn captured_rows_are_this_machine() {
        let dir = std::env::temp_dir().join(format!("xferry-capture-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let table = dir.join("cpuid.csv");
        std::fs::write(&table, xstate_capture::machine::csv()).unwrap();
        let machines = Table::load(Some(&table)).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();

        let name = xstate_capture::machine::name(&xstate_capture::machine::brand());
        let captured = machines.find(&name).unwrap();
        let this = machines.find(THIS).unwrap();
        for subleaf in 0..63 {
            assert_eq!(captured.cpuid(0xd, subleaf), this.cpuid(0xd, subleaf));
        }
        let mask = this.mxcsr_mask();
        let (there, here) = (captured.host(mask).unwrap(), this.host(mask).unwrap());
        assert_eq!(there, here);
        assert!(captured.undescribed().is_empty());
    }
}
