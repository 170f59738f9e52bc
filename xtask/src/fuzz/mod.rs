//! `cargo xtask fuzz`: libFuzzer over the targets of `xtask/fuzz`.
//!
//! What is found is kept under Cargo's target directory: a corpus for each
//! target, which later runs begin with, and the inputs that broke something.

mod report;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

use self::report::Outcome;
use crate::nightly::{NONE, Nightly};
use crate::workspace::Workspace;

/// Longest input in bytes: a blob with all tiles, and its header.
const LONGEST: u32 = 16 << 10;
/// Seconds after which one input hangs.
const HANGS: u32 = 10;

/// What is fuzzed, and for how long.
#[derive(clap::Args)]
pub struct Args {
    /// Only these targets; all, where none is named.
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,

    /// How long each target runs.
    #[arg(long, value_name = "N", default_value_t = 60, conflicts_with = "runs")]
    seconds: u64,

    /// How many inputs each target is given, however long it takes.
    #[arg(long, value_name = "N")]
    runs: Option<u64>,

    /// With a sanitizer; what is fuzzed has next to no unsafe code, and is
    /// several times faster without.
    #[arg(long, value_enum, default_value_t = Sanitizer::None)]
    sanitizer: Sanitizer,
}

/// A sanitizer of the compiler's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Sanitizer {
    /// None.
    None,
    /// Memory errors.
    Address,
}

impl Sanitizer {
    const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Address => "address",
        }
    }
}

/// How long one target runs.
#[derive(Clone, Copy, Debug)]
enum Length {
    Seconds(u64),
    Runs(u64),
}

/// The command. Gives whether every target held.
///
/// # Errors
/// No toolchain, or the targets do not compile.
pub fn run(workspace: &Workspace, args: &Args) -> Result<bool> {
    let nightly = Nightly::find().context(NONE)?;
    let length = args
        .runs
        .map_or(Length::Seconds(args.seconds), Length::Runs);
    eprintln!("building the fuzz targets …");
    let outcomes = play(workspace, &nightly, &args.targets, args.sanitizer, length)?;
    println!("{}", report::table(&outcomes));
    Ok(outcomes.iter().all(Outcome::held))
}

/// Each target for `seconds`, for `cargo xtask test`. `Err` of a reason where
/// there is no toolchain for it.
///
/// # Errors
/// The targets do not compile.
pub fn smoke(workspace: &Workspace, seconds: u64) -> Result<Result<Vec<bool>, &'static str>> {
    let Some(nightly) = Nightly::find() else {
        return Ok(Err(NONE));
    };
    let length = Length::Seconds(seconds);
    let outcomes = play(workspace, &nightly, &[], Sanitizer::None, length)?;
    eprintln!("{}", report::table(&outcomes));
    Ok(Ok(outcomes.iter().map(Outcome::held).collect()))
}

/// Builds the targets, and runs them, as many at once as there are processors.
fn play(
    workspace: &Workspace,
    nightly: &Nightly,
    wanted: &[String],
    sanitizer: Sanitizer,
    length: Length,
) -> Result<Vec<Outcome>> {
    nightly.cargo_fuzz(workspace)?;
    let targets = chosen(&workspace.root().join("xtask/fuzz"), wanted)?;
    let programs = build(workspace, nightly, sanitizer)?;
    let places = Places {
        programs,
        seeds: workspace.root().join("xtask/fuzz/seeds"),
        kept: workspace.target().join("xferry-fuzz"),
    };
    let at_once = thread::available_parallelism().map_or(1, usize::from);
    let mut outcomes = Vec::new();
    for group in targets.chunks(at_once) {
        let results: Vec<Result<Outcome>> = thread::scope(|scope| {
            let running: Vec<_> = group
                .iter()
                .map(|target| scope.spawn(|| places.fuzz(target, length)))
                .collect();
            running
                .into_iter()
                .map(|thread| match thread.join() {
                    Ok(result) => result,
                    Err(panic) => std::panic::resume_unwind(panic),
                })
                .collect()
        });
        for result in results {
            let outcome = result?;
            outcome.complain();
            outcomes.push(outcome);
        }
    }
    Ok(outcomes)
}

/// The names of the targets, which are the programs' files.
fn chosen(fuzz: &Path, wanted: &[String]) -> Result<Vec<String>> {
    let mut all: Vec<String> = std::fs::read_dir(fuzz.join("libfuzzer/fuzz_targets"))
        .context("the fuzz targets are missing")?
        .filter_map(|entry| Some(entry.ok()?.path().file_stem()?.to_string_lossy().into()))
        .collect();
    all.sort_unstable();
    if let Some(unknown) = wanted.iter().find(|name| !all.contains(name)) {
        bail!(
            "no target is called {unknown}; there are: {}",
            all.join(", ")
        );
    }
    all.retain(|name| wanted.is_empty() || wanted.contains(name));
    Ok(all)
}

/// Compiles all targets; gives the folder of the programs.
fn build(workspace: &Workspace, nightly: &Nightly, sanitizer: Sanitizer) -> Result<PathBuf> {
    let target = workspace
        .target()
        .join("xferry-fuzz")
        .join(sanitizer.name());
    let output = nightly
        .cargo(workspace.root())
        .args(["fuzz", "build", "--fuzz-dir", "xtask/fuzz/libfuzzer"])
        .args(["--sanitizer", sanitizer.name(), "--target-dir"])
        .arg(&target)
        .output()
        .context("cargo fuzz could not be started")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo fuzz build:\n{said}");
    // One folder below is named after the machine's triple.
    let release = std::fs::read_dir(&target)?
        .filter_map(|entry| Some(entry.ok()?.path().join("release")))
        .find(|folder| folder.join("decode").is_file());
    release.context("cargo fuzz build made no program")
}

/// Where a run reads and writes.
struct Places {
    programs: PathBuf,
    seeds: PathBuf,
    kept: PathBuf,
}

impl Places {
    fn fuzz(&self, target: &str, length: Length) -> Result<Outcome> {
        let corpus = self.kept.join("corpus").join(target);
        let artifacts = self.kept.join("artifacts").join(target);
        for folder in [&corpus, &artifacts] {
            std::fs::create_dir_all(folder)?;
        }
        let length = match length {
            Length::Seconds(seconds) => format!("-max_total_time={seconds}"),
            Length::Runs(runs) => format!("-runs={runs}"),
        };
        let output = Command::new(self.programs.join(target))
            .args([&corpus, &self.seeds.join(target)])
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .args([
                length,
                format!("-max_len={LONGEST}"),
                format!("-timeout={HANGS}"),
                "-print_final_stats=1".into(),
            ])
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("{target} could not be started"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        Ok(Outcome::read(target, output.status.success(), &said))
    }
}
