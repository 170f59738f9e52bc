//! Where things are: the root of the repository and what lies below it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Target triple of everything that runs without an operating system.
pub const BARE_TARGET: &str = "x86_64-unknown-none";

/// The repository that this process was started in.
#[derive(Clone, Debug)]
pub struct Workspace {
    root: PathBuf,
    target: PathBuf,
    may_install: bool,
}

impl Workspace {
    /// Finds the repository from the environment that `cargo run` sets, or else
    /// from the current directory upwards. `may_install` says whether what a
    /// task lacks may be installed.
    pub fn find(may_install: bool) -> Result<Self> {
        let root = match std::env::var_os("CARGO_MANIFEST_DIR") {
            Some(dir) => Path::new(&dir)
                .parent()
                .context("xtask's own directory has no parent")?
                .to_path_buf(),
            None => find_root(&std::env::current_dir()?)?,
        };
        // Asked of cargo, because the directory can be moved by the environment
        // and by configuration files alike.
        let output = Command::new("cargo")
            .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
            .current_dir(&root)
            .output()
            .context("cargo could not be started")?;
        if !output.status.success() {
            bail!(
                "cargo metadata: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let target = metadata["target_directory"]
            .as_str()
            .context("cargo metadata names no target directory")?
            .into();
        Ok(Self {
            root,
            target,
            may_install,
        })
    }

    /// The repository's top directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Cargo's target directory.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Whether what a task lacks may be installed.
    pub const fn may_install(&self) -> bool {
        self.may_install
    }

    /// Where the logs of emulated machines go.
    pub fn logs(&self) -> PathBuf {
        self.target.join("xferry-logs")
    }

    /// Where boot images are put together.
    pub fn images(&self) -> PathBuf {
        self.target.join("xferry-images")
    }

    /// A cargo command in the repository.
    pub fn cargo(&self) -> Command {
        let mut command = Command::new("cargo");
        command.current_dir(&self.root);
        command
    }

    /// `path` as a reader of messages wants it: relative to the repository
    /// where it lies inside.
    pub fn short<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }
}

fn find_root(from: &Path) -> Result<PathBuf> {
    for dir in from.ancestors() {
        if let Ok(manifest) = std::fs::read_to_string(dir.join("Cargo.toml"))
            && manifest.lines().any(|line| line.trim() == "[workspace]")
        {
            return Ok(dir.to_path_buf());
        }
    }
    bail!("no Cargo workspace at {} or above", from.display())
}
