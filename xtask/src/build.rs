//! `cargo xtask build`: the hypervisor, its guests, and the bootable image.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};

use crate::image;
use crate::workspace::{BARE_TARGET, Workspace};

/// Which hypervisor is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Variant {
    /// The one to use.
    Plain,
    /// One whose import of extended state drops the component that its command
    /// line names, so that the tests' own ability to fail is tested.
    ImportFault,
}

/// The linked programs that go into an image.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// The hypervisor.
    pub hypervisor: PathBuf,
    /// The privileged domain.
    pub toolstack: PathBuf,
    /// The test guest.
    pub torture: PathBuf,
}

/// Builds everything that an image of `variant` holds, once in the life of this
/// process: what is tested is one and the same, whoever edits a source meanwhile.
pub fn binaries(workspace: &Workspace, variant: Variant) -> Result<Binaries> {
    static BUILT: Mutex<Vec<(Variant, Binaries)>> = Mutex::new(Vec::new());
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, binaries)) = built.iter().find(|(known, _)| *known == variant) {
        return Ok(binaries.clone());
    }
    let binaries = build(workspace, variant)?;
    built.push((variant, binaries.clone()));
    Ok(binaries)
}

fn build(workspace: &Workspace, variant: Variant) -> Result<Binaries> {
    let plain = workspace.target().to_path_buf();
    let guests = ["--package", "toolstack", "--package", "torture"];
    let hypervisor = match variant {
        Variant::Plain => {
            cargo_build(
                workspace,
                &plain,
                &[&guests[..], &["--package", "xferry"]].concat(),
            )?;
            plain.clone()
        }
        Variant::ImportFault => {
            cargo_build(workspace, &plain, &guests)?;
            // A target directory of its own, or the two variants would rebuild
            // each other for ever.
            let own = plain.join("import-fault");
            cargo_build(
                workspace,
                &own,
                &["--package", "xferry", "--features", "import-fault"],
            )?;
            own
        }
    };
    let linked = |target: &Path, name: &str| -> Result<PathBuf> {
        let path = target.join(BARE_TARGET).join("release").join(name);
        if !path.is_file() {
            bail!("cargo built no {}", workspace.short(&path));
        }
        Ok(path)
    };
    Ok(Binaries {
        hypervisor: linked(&hypervisor, "xferry")?,
        toolstack: linked(&plain, "toolstack")?,
        torture: linked(&plain, "torture")?,
    })
}

/// Builds `variant` and an image that boots it with `cmdline`.
pub fn bootable(workspace: &Workspace, variant: Variant, cmdline: &str) -> Result<PathBuf> {
    let binaries = binaries(workspace, variant)?;
    image::build(workspace, &binaries, cmdline)
}

fn cargo_build(workspace: &Workspace, target: &Path, what: &[&str]) -> Result<()> {
    let status = workspace
        .cargo()
        .args([
            "build",
            "--release",
            "--target",
            BARE_TARGET,
            "--target-dir",
        ])
        .arg(target)
        .args(what)
        .status()
        .context("cargo could not be started")?;
    if !status.success() {
        bail!("cargo build {} failed", what.join(" "));
    }
    Ok(())
}
