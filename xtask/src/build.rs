//! `cargo xtask build`: the hypervisor, its guests, and the bootable image.

use std::path::{Path, PathBuf};

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

/// Builds everything that an image of `variant` holds.
pub fn binaries(workspace: &Workspace, variant: Variant) -> Result<Binaries> {
    let guests = workspace.target().to_path_buf();
    cargo_build(
        workspace,
        &guests,
        &["--package", "toolstack", "--package", "torture"],
    )?;
    // A target directory of its own, or the two variants would rebuild each
    // other for ever.
    let hypervisor = match variant {
        Variant::Plain => {
            cargo_build(workspace, &guests, &["--package", "xferry"])?;
            guests.clone()
        }
        Variant::ImportFault => {
            let own = guests.join("import-fault");
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
        toolstack: linked(&guests, "toolstack")?,
        torture: linked(&guests, "torture")?,
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
