//! The libraries' test programs: built once, run without one rule at a time.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::list::Mutant;
use crate::workspace::Workspace;

/// A program that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(120);

/// A test program.
#[derive(Clone, Debug)]
pub struct Program {
    name: String,
    path: PathBuf,
    /// Its package's directory, where it runs.
    dir: PathBuf,
    took: Duration,
}

/// What became of a mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// This test failed.
    Noticed(String),
    /// All tests passed.
    Survived,
}

/// Compiles the tests with the feature, and makes sure that all pass with
/// every rule in place. Quick programs come first.
///
/// # Errors
/// They do not.
pub fn build(workspace: &Workspace) -> Result<Vec<Program>> {
    let output = workspace
        .cargo()
        .args(["test", "--no-run", "--message-format=json"])
        .args(["--package", "vcpu-xstate", "--package", "migration-abi"])
        .args(["--features", "vcpu-xstate/mutants,migration-abi/mutants"])
        .arg("--target-dir")
        .arg(workspace.target().join("xferry-mutants"))
        // The tests run some hundred times.
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1")
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .stderr(Stdio::inherit())
        .output()
        .context("cargo could not be started")?;
    if !output.status.success() {
        bail!("the tests do not compile with the feature `mutants`");
    }
    let mut programs = Vec::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Ok(message) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let is_test = message["profile"]["test"] == true;
        if let (true, Some(path), Some(manifest), Some(name)) = (
            is_test,
            message["executable"].as_str(),
            message["manifest_path"].as_str(),
            message["target"]["name"].as_str(),
        ) {
            programs.push(Program {
                name: name.to_owned(),
                path: path.into(),
                dir: Path::new(manifest)
                    .parent()
                    .unwrap_or(Path::new("."))
                    .into(),
                took: Duration::ZERO,
            });
        }
    }
    for program in &mut programs {
        let start = Instant::now();
        if let Some(test) = program.failure(None)? {
            bail!("{test} fails with every rule in place");
        }
        program.took = start.elapsed();
    }
    programs.sort_by_key(|program| program.took);
    Ok(programs)
}

/// Runs the programs without the mutant's rule, up to the first test that fails.
pub fn judge(mutant: &Mutant, programs: &[Program]) -> Verdict {
    // Those of the package that has the mark are likelier to notice.
    let own = |program: &&Program| {
        let package = program
            .dir
            .file_name()
            .unwrap_or_default()
            .to_string_lossy();
        let marked = |place: &String| place.starts_with(package.as_ref());
        mutant.places.iter().any(marked)
    };
    let first = programs.iter().filter(own);
    let rest = programs.iter().filter(|program| !own(program));
    for program in first.chain(rest) {
        match program.failure(Some(&mutant.name)) {
            Ok(Some(test)) => return Verdict::Noticed(test),
            Ok(None) => {}
            Err(error) => return Verdict::Noticed(format!("{error:#}")),
        }
    }
    Verdict::Survived
}

impl Program {
    /// The first test that fails; `None` if all pass.
    fn failure(&self, mutant: Option<&str>) -> Result<Option<String>> {
        let mut command = Command::new(&self.path);
        command
            .current_dir(&self.dir)
            // A property test that fails is not made smaller, nor remembered.
            .env("PROPTEST_MAX_SHRINK_ITERS", "0")
            .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1")
            .env_remove("XFERRY_MUTANT")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if let Some(name) = mutant {
            command.env("XFERRY_MUTANT", name);
        }
        let child = command
            .spawn()
            .with_context(|| format!("{} could not be started", self.path.display()))?;
        self.watch(child)
    }

    fn watch(&self, mut child: Child) -> Result<Option<String>> {
        let stdout = child.stdout.take().context("no standard output")?;
        let (said, heard) = channel();
        let reader = thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if said.send(line).is_err() {
                    return;
                }
            }
        });
        let deadline = Instant::now() + LIMIT;
        let verdict = loop {
            match heard.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    let failed = line
                        .strip_prefix("test ")
                        .and_then(|l| l.strip_suffix(" ... FAILED"));
                    if let Some(test) = failed {
                        break Some(format!("{} {test}", self.name));
                    }
                }
                Err(RecvTimeoutError::Timeout) => break Some(format!("{} (hangs)", self.name)),
                Err(RecvTimeoutError::Disconnected) => {
                    let status = child.wait()?;
                    break (!status.success()).then(|| format!("{} ({status})", self.name));
                }
            }
        };
        // It may have ended already.
        let _ = child.kill();
        child.wait()?;
        drop(heard);
        let _ = reader.join();
        Ok(verdict)
    }
}
