//! `cargo xtask tidy`: the rules of this repository that are cheap to check.

mod manifests;
mod sources;
pub mod vector;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::build::Binaries;
use crate::workspace::Workspace;

/// A rule that something breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where: a path, with a line or a function.
    pub place: String,
    /// What is wrong and what would be right.
    pub what: String,
}

impl Finding {
    fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            what: what.into(),
        }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// Checks everything, the linked hypervisor in `binaries` too.
pub fn tidy(workspace: &Workspace, binaries: &Binaries) -> Result<()> {
    let mut findings = Vec::new();
    for path in tracked_files(workspace)? {
        let Ok(text) = std::fs::read_to_string(workspace.root().join(&path)) else {
            // Not UTF-8: a stored blob, not a text that rules apply to.
            continue;
        };
        findings.extend(sources::check(&path, &text));
        if path.file_name().is_some_and(|name| name == "Cargo.toml") {
            findings.extend(manifests::check(&path, &text));
        }
    }
    findings.extend(manifests::licences(workspace.root()));
    findings.extend(vector::check(&binaries.hypervisor)?);

    if findings.is_empty() {
        return Ok(());
    }
    for finding in &findings {
        eprintln!("{finding}");
    }
    bail!("tidy: {} findings", findings.len())
}

/// The repository's files, below its root: what git knows and what it does not
/// ignore, or everything outside the target directory where there is no git.
fn tracked_files(workspace: &Workspace) -> Result<Vec<PathBuf>> {
    let git = std::process::Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(workspace.root())
        .output();
    let mut files: Vec<PathBuf> = match git {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout)
            .split_terminator('\0')
            .map(PathBuf::from)
            .collect(),
        _ => {
            let mut files = Vec::new();
            walk(workspace.root(), workspace, &mut files)?;
            files
        }
    };
    files.retain(|path| workspace.root().join(path).is_file());
    files.sort();
    files.dedup();
    Ok(files)
}

fn walk(dir: &Path, workspace: &Workspace, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            let skipped =
                path == workspace.target() || path.ends_with("target") || path.ends_with(".git");
            if !skipped {
                walk(&path, workspace, files)?;
            }
        } else if let Ok(below) = path.strip_prefix(workspace.root()) {
            files.push(below.to_path_buf());
        }
    }
    Ok(())
}
