//! The nightly toolchain that fuzzing and Miri need: the one that is there, with what it lacks.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;

/// What is said where there is none.
pub const NONE: &str = "no nightly toolchain";

/// A nightly toolchain of rustup's.
#[derive(Clone, Debug)]
pub struct Nightly {
    name: String,
}

impl Nightly {
    /// The one that is installed; of several, the undated one.
    pub fn find() -> Option<Self> {
        let output = Command::new("rustup")
            .args(["toolchain", "list"])
            .stderr(Stdio::null())
            .output()
            .ok()?;
        first_nightly(&String::from_utf8_lossy(&output.stdout)).map(|name| Self { name })
    }

    /// `cargo` of this toolchain, in `dir`.
    pub fn cargo(&self, dir: &Path) -> Command {
        // Not `cargo +nightly`: a `cargo` in the path need not be rustup's.
        let mut command = Command::new("rustup");
        command.args(["run", &self.name, "cargo"]).current_dir(dir);
        command
    }

    /// Makes sure of rustup's components.
    ///
    /// # Errors
    /// One is missing and may not be installed, or cannot be.
    pub fn components(&self, workspace: &Workspace, wanted: &[&str]) -> Result<()> {
        let output = Command::new("rustup")
            .args([
                "component",
                "list",
                "--installed",
                "--toolchain",
                &self.name,
            ])
            .output()
            .context("rustup could not be started")?;
        let installed = String::from_utf8_lossy(&output.stdout).into_owned();
        let missing: Vec<&str> = wanted
            .iter()
            .copied()
            .filter(|name| !installed.lines().any(|line| line.starts_with(name)))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let mut command = Command::new("rustup");
        command
            .args(["component", "add", "--toolchain", &self.name])
            .args(&missing);
        install(workspace, &missing.join(", "), &mut command)
    }

    /// Makes sure of cargo-fuzz.
    ///
    /// # Errors
    /// It is missing and may not be installed, or cannot be.
    pub fn cargo_fuzz(&self, workspace: &Workspace) -> Result<()> {
        let mut ask = self.cargo(workspace.root());
        ask.args(["fuzz", "--version"])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if ask.status().is_ok_and(|status| status.success()) {
            return Ok(());
        }
        let mut command = self.cargo(workspace.root());
        command.args(["install", "cargo-fuzz", "--locked", "--version", "^0.13"]);
        install(workspace, "cargo-fuzz", &mut command)
    }
}

fn install(workspace: &Workspace, what: &str, command: &mut Command) -> Result<()> {
    if !workspace.may_install() {
        bail!("missing, and --no-install forbids installing it: {what}");
    }
    eprintln!("Installing {what} …");
    if !command.status().is_ok_and(|status| status.success()) {
        bail!("{what} could not be installed: {command:?}");
    }
    Ok(())
}

/// The first nightly in what `rustup toolchain list` prints.
fn first_nightly(list: &str) -> Option<String> {
    let mut names: Vec<&str> = list
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| name.starts_with("nightly"))
        .collect();
    // `nightly-2026-…` sorts before `nightly-x86_64-…`.
    names.sort_unstable_by(|a, b| b.cmp(a));
    names.first().map(ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_undated_nightly_is_chosen() {
        let list = "stable-x86_64-unknown-linux-gnu (default)\n\
            nightly-2026-01-01-x86_64-unknown-linux-gnu\n\
            nightly-x86_64-unknown-linux-gnu (active)\n";
        let name = first_nightly(list);
        assert_eq!(name.as_deref(), Some("nightly-x86_64-unknown-linux-gnu"));
        assert_eq!(first_nightly("1.95.0-x86_64-unknown-linux-gnu\n"), None);
        assert_eq!(first_nightly("no installed toolchains\n"), None);
    }
}
