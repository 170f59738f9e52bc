//! The machines that scenarios are played on: a pair is booted when one is
//! needed, and stays for the next scenario as long as all went well on it.

use std::path::{Path, PathBuf};

use super::report::Measured;
use super::rig::Rig;
use super::scenarios::Scenario;
use crate::qemu::MachineSpec;
use crate::workspace::Workspace;

/// Lines of each console that are shown after a failure.
const TAIL: usize = 25;

/// Where scenarios are played.
pub struct Stage<'a> {
    workspace: &'a Workspace,
    image: &'a Path,
    keep_logs: bool,
    pair: Option<Pair>,
    pairs: usize,
}

struct Pair {
    specs: [MachineSpec; 2],
    logs: PathBuf,
    rig: Rig,
}

/// Why a scenario was not passed.
pub struct Failure {
    /// The reason.
    pub error: anyhow::Error,
    /// What was measured before.
    pub measured: Measured,
    /// The last words of both machines, and where all of them are.
    pub words: String,
}

impl<'a> Stage<'a> {
    /// With `image` to be booted on all machines.
    pub fn new(workspace: &'a Workspace, image: &'a Path, keep_logs: bool) -> Self {
        Self {
            workspace,
            image,
            keep_logs,
            pair: None,
            pairs: 0,
        }
    }

    /// Where this run's logs are.
    pub fn logs(&self) -> PathBuf {
        self.workspace
            .logs()
            .join(format!("migrate-test-{}", std::process::id()))
    }

    /// Plays a scenario; gives what it showed.
    pub fn play(
        &mut self,
        scenario: &Scenario,
        from: &MachineSpec,
        to: &MachineSpec,
    ) -> Result<(String, Measured), Failure> {
        let mut pair = match self.take_pair(from, to) {
            Some(pair) => pair,
            None => self.boot(from, to)?,
        };
        match pair
            .rig
            .begin()
            .and_then(|()| (scenario.play)(&mut pair.rig))
        {
            Ok(detail) => {
                let measured = pair.rig.measured();
                self.pair = Some(pair);
                Ok((detail, measured))
            }
            Err(error) => Err(Failure {
                error,
                measured: pair.rig.measured(),
                words: self.words(pair.rig.last_words(TAIL), &pair.logs),
            }),
        }
    }

    /// The pair that is there, if these are its machines.
    fn take_pair(&mut self, from: &MachineSpec, to: &MachineSpec) -> Option<Pair> {
        let pair = self.pair.take()?;
        if pair.specs == [from.clone(), to.clone()] {
            return Some(pair);
        }
        self.end(pair);
        None
    }

    fn boot(&mut self, from: &MachineSpec, to: &MachineSpec) -> Result<Pair, Failure> {
        self.pairs += 1;
        let logs = self.logs().join(format!("pair-{}", self.pairs));
        match Rig::boot([from, to], [self.image, self.image], &logs) {
            Ok(rig) => Ok(Pair {
                specs: [from.clone(), to.clone()],
                logs,
                rig,
            }),
            Err(error) => Err(Failure {
                error,
                measured: Measured::default(),
                words: self.words(tails(&logs), &logs),
            }),
        }
    }

    fn words(&self, last: String, logs: &Path) -> String {
        format!("{last}--- logs: {}", self.workspace.short(logs))
    }

    /// Ends a pair on which everything was passed. Its logs go, unless they were
    /// asked for.
    fn end(&self, pair: Pair) {
        drop(pair.rig);
        if !self.keep_logs {
            // What cannot be removed is in nobody's way.
            let _ = std::fs::remove_dir_all(&pair.logs);
            let _ = std::fs::remove_dir(self.logs());
        }
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        if let Some(pair) = self.pair.take() {
            self.end(pair);
        }
    }
}

/// The last lines of whatever logs there are, for a pair that never booted.
fn tails(logs: &Path) -> String {
    let mut text = String::new();
    for name in ["A-console.log", "A-qemu.log", "B-console.log", "B-qemu.log"] {
        let said = std::fs::read(logs.join(name)).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let lines: Vec<&str> = said.lines().collect();
        if !lines.is_empty() {
            let last = lines[lines.len().saturating_sub(TAIL)..].join("\n");
            text.push_str(&format!("--- {name}:\n{last}\n"));
        }
    }
    text
}
