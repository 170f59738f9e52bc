//! The libraries' test programs: built once, run without one rule at a time.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::list::{self, Mutant};
use crate::workspace::Workspace;

/// Hollow failures of one program after which no better one is looked for.
const HOLLOW: usize = 16;
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
    Noticed(Failure),
    /// No test failed. What happened instead, if anything, says nothing of the
    /// rule: a program that hung or crashed, or a panic of the libraries' own.
    Survived(Option<String>),
}

/// A test that failed, and where it said so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    program: String,
    name: String,
    /// The assertion: file and line.
    place: Option<(PathBuf, usize)>,
}

impl Failure {
    /// Whether the libraries panicked before the test could see anything. The
    /// model does not count: its panics are what a host must not do.
    fn is_hollow(&self, root: &Path) -> bool {
        let Some((file, line)) = &self.place else {
            return false;
        };
        let library = list::SOURCES.iter().any(|source| file.starts_with(source));
        let model = file
            .iter()
            .any(|part| part == "model" || part == "modelled.rs");
        if !library || model || list::is_tests(file) {
            return false;
        }
        // Before the tests at the end of a file.
        let text = std::fs::read_to_string(root.join(file)).unwrap_or_default();
        text.split_once("#[cfg(test)]\nmod tests {")
            .is_none_or(|(shipped, _)| *line <= shipped.lines().count())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.program, self.name)?;
        match &self.place {
            Some((file, line)) => write!(f, " at {}:{line}", file.display()),
            None => Ok(()),
        }
    }
}

/// How a program ended.
enum Ended {
    /// All tests passed.
    Passed,
    /// This test failed.
    Failed(String),
    /// It did not come to an end by itself, or by a signal.
    Broke(String),
}

/// Compiles the tests with the feature, and makes sure that all pass with
/// every rule in place. Quick programs come first, but what depends on the
/// processor that runs it last: so that no mutant needs a certain machine.
///
/// # Errors
/// They do not.
pub fn build(workspace: &Workspace) -> Result<Vec<Program>> {
    let output = workspace
        .cargo()
        .args([
            "test",
            "--no-run",
            "--message-format=json-render-diagnostics",
        ])
        .args(["--package", "vcpu-xstate", "--package", "migration-abi"])
        .args(["--features", "vcpu-xstate/mutants,migration-abi/mutants"])
        .arg("--target-dir")
        .arg(workspace.target().join("xferry-mutants"))
        // The tests run some hundred times.
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1")
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        // Built in few pieces, and whole after a run that was ended half-way.
        .env("CARGO_INCREMENTAL", "0")
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
        match program.run(None, &[])? {
            Ended::Passed => program.took = start.elapsed(),
            Ended::Failed(test) => bail!("{} {test} fails with every rule in place", program.name),
            Ended::Broke(how) => bail!("{} {how} with every rule in place", program.name),
        }
    }
    // What depends on the processor comes last.
    let here = ["silicon", "images", "kvm"];
    programs.sort_by_key(|program| (here.contains(&program.name.as_str()), program.took));
    Ok(programs)
}

/// Runs the programs without the mutant's rule, up to the first test that fails.
pub fn judge(mutant: &Mutant, programs: &[Program], root: &Path) -> Verdict {
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
    let mut hollow = None;
    for program in first.chain(rest) {
        match program.notice(mutant, root) {
            Ok(Verdict::Noticed(failure)) => return Verdict::Noticed(failure),
            Ok(Verdict::Survived(how)) => hollow = hollow.or(how),
            Err(error) => hollow = Some(format!("{} {error:#}", program.name)),
        }
    }
    Verdict::Survived(hollow)
}

impl Program {
    /// Whether one of its tests fails because it saw something wrong.
    fn notice(&self, mutant: &Mutant, root: &Path) -> Result<Verdict> {
        let mut hollow: Vec<Failure> = Vec::new();
        loop {
            let skipped: Vec<&str> = hollow.iter().map(|one| one.name.as_str()).collect();
            let how = match self.run(Some(&mutant.name), &skipped)? {
                Ended::Failed(test) => {
                    let failure = self.failure(mutant, test);
                    if failure.is_hollow(root) && hollow.len() < HOLLOW {
                        hollow.push(failure);
                        continue;
                    }
                    if !failure.is_hollow(root) {
                        return Ok(Verdict::Noticed(failure));
                    }
                    Some(failure.to_string())
                }
                Ended::Passed => hollow.first().map(Failure::to_string),
                Ended::Broke(how) => Some(format!("{} {how}", self.name)),
            };
            return Ok(Verdict::Survived(how));
        }
    }

    /// Runs it up to the first test that fails, without those `skipped`.
    fn run(&self, mutant: Option<&str>, skipped: &[&str]) -> Result<Ended> {
        let mut command = self.command(mutant);
        if !skipped.is_empty() {
            command.arg("--exact");
            command.args(skipped.iter().flat_map(|test| ["--skip", test]));
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("{} could not be started", self.path.display()))?;
        self.watch(child)
    }

    /// Without `mutant`'s rule. The same cases in every run, and in every
    /// clone: what fails then and did not before is the mutant's doing.
    fn command(&self, mutant: Option<&str>) -> Command {
        let mut command = Command::new(&self.path);
        command
            .current_dir(&self.dir)
            .env("PROPTEST_RNG_SEED", "1")
            // A property test that fails is not made smaller, nor remembered.
            .env("PROPTEST_MAX_SHRINK_ITERS", "0")
            .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1")
            .env("RUST_BACKTRACE", "0")
            .env_remove("XFERRY_CPUID_CSV")
            .env_remove("XFERRY_XSAVE_CORPUS")
            .env_remove("XFERRY_MUTANT");
        if let Some(name) = mutant {
            command.env("XFERRY_MUTANT", name);
        }
        command
    }

    /// The failure of `test`, with its place, from another run of it alone.
    fn failure(&self, mutant: &Mutant, test: String) -> Failure {
        let again = self
            .command(Some(&mutant.name))
            .args(["--exact", &test, "--nocapture"])
            .stdin(Stdio::null())
            .output();
        let place = again
            .ok()
            .and_then(|output| place(&String::from_utf8_lossy(&output.stderr)));
        Failure {
            program: self.name.clone(),
            name: test,
            place,
        }
    }

    fn watch(&self, mut child: Child) -> Result<Ended> {
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
                        break Ended::Failed(test.to_owned());
                    }
                }
                Err(RecvTimeoutError::Timeout) => break Ended::Broke("hangs".to_owned()),
                Err(RecvTimeoutError::Disconnected) => {
                    let status = child.wait()?;
                    break if status.success() {
                        Ended::Passed
                    } else {
                        Ended::Broke(format!("ends with {status}"))
                    };
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

/// Where the panic was that made a test fail: the last one, since a test may have
/// caught others; of a property test, which panics anew, that of its case.
fn place(stderr: &str) -> Option<(PathBuf, usize)> {
    let panics: Vec<&str> = stderr.split("panicked at ").skip(1).collect();
    let panic = match panics[..] {
        [.., of_the_case, last] if last.contains("\nTest failed: ") => of_the_case,
        [.., last] => last,
        [] => return None,
    };
    let line = panic.lines().next()?.trim_end_matches(':');
    let (place, _column) = line.rsplit_once(':')?;
    let (file, line) = place.rsplit_once(':')?;
    Some((file.into(), line.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_a_panic() {
        let panic = |line: u32, message: &str| {
            format!("\nthread 'a::b' (12) panicked at vcpu-xstate/src/x.rs:{line}:9:\n{message}\n")
        };
        let at = |line| Some(("vcpu-xstate/src/x.rs".into(), line));
        assert_eq!(place("nothing"), None);
        assert_eq!(place(&panic(7, "left: 1")), at(7));
        assert_eq!(
            place(&[panic(1, "caught"), panic(7, "left: 1")].concat()),
            at(7)
        );
        let property = [
            panic(1, "caught"),
            panic(7, "left: 1"),
            panic(9, "Test failed: left: 1."),
        ];
        assert_eq!(place(&property.concat()), at(7));
    }
}
