//! `cargo xtask migrate-test`: guests with their registers full move between
//! two machines, and everything that must be refused is.

pub mod decode;
mod frames;
mod relay;
pub mod report;
pub mod rig;
mod scenarios;
mod tamper;
mod torture;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

pub use relay::Side;
use scenarios::{Scenario, all};

use self::report::{Measured, Outcome, Verdict};
use self::rig::Rig;
use crate::qemu::MachineSpec;
use crate::workspace::Workspace;

/// What to play, and where.
pub struct Options {
    /// Machine A.
    pub from: MachineSpec,
    /// Machine B, where it was named.
    pub to: Option<MachineSpec>,
    /// Names of the scenarios; none means all.
    pub scenarios: Vec<String>,
    /// Whether logs of scenarios that passed are kept too.
    pub keep_logs: bool,
}

/// Scenarios that may be skipped without that being a failure, with what the
/// machine that runs the tests cannot do. Nothing is, so far.
const MAY_BE_SKIPPED: &[(&str, &str)] = &[];

/// Whether a scenario's result lets the whole pass.
pub fn acceptable(outcome: &Outcome) -> bool {
    match outcome.verdict {
        Verdict::Pass => true,
        Verdict::Fail => false,
        Verdict::Skip => MAY_BE_SKIPPED.iter().any(|(name, _)| *name == outcome.name),
    }
}

/// Plays the scenarios with `image` on both machines.
pub fn play(workspace: &Workspace, image: &Path, options: &Options) -> Result<Vec<Outcome>> {
    let chosen = choose(&options.scenarios)?;
    let progress = ProgressBar::new(chosen.len() as u64).with_style(ProgressStyle::with_template(
        "{spinner} [{elapsed_precise}] {pos}/{len} {msg}",
    )?);
    progress.enable_steady_tick(Duration::from_millis(200));

    let mut outcomes = Vec::new();
    for scenario in chosen {
        progress.set_message(scenario.name);
        let start = Instant::now();
        let outcome = play_one(workspace, image, options, scenario, &progress)?;
        let line = format!(
            "{:<16} {:?} in {:.1} s",
            outcome.name,
            outcome.verdict,
            start.elapsed().as_secs_f32()
        );
        tell(&progress, &line);
        progress.inc(1);
        outcomes.push(outcome);
    }
    progress.finish_and_clear();
    Ok(outcomes)
}

/// Prints a line on standard error, above the progress bar if one is shown.
fn tell(progress: &ProgressBar, line: &str) {
    if progress.is_hidden() {
        eprintln!("{line}");
    } else {
        progress.println(line);
    }
}

fn choose(names: &[String]) -> Result<Vec<&'static Scenario>> {
    if names.is_empty() {
        return Ok(all().iter().collect());
    }
    names
        .iter()
        .map(|name| {
            all()
                .iter()
                .find(|scenario| scenario.name == name)
                .ok_or_else(|| {
                    let known: Vec<&str> = all().iter().map(|scenario| scenario.name).collect();
                    anyhow::anyhow!(
                        "there is no scenario {name:?}; there are: {}",
                        known.join(", ")
                    )
                })
        })
        .collect()
}

fn play_one(
    workspace: &Workspace,
    image: &Path,
    options: &Options,
    scenario: &Scenario,
    progress: &ProgressBar,
) -> Result<Outcome> {
    let (from, to) = scenario.machines(&options.from, options.to.as_ref());
    let logs = workspace
        .logs()
        .join(format!("migrate-test-{}", std::process::id()))
        .join(scenario.name);
    let outcome = |verdict, detail: String| Outcome {
        name: scenario.name.to_owned(),
        from: from.to_string(),
        to: to.to_string(),
        verdict,
        detail,
        stream_bytes: 0,
        blob_bytes: 0,
        pause_ms: 0,
    };
    let fail = |error: &anyhow::Error, words: &str, measured: Measured| {
        tell(
            progress,
            &format!(
                "{}: {error:#}\n{words}--- logs: {}",
                scenario.name,
                workspace.short(&logs)
            ),
        );
        outcome(Verdict::Fail, format!("{error:#}")).measured(measured)
    };

    let mut rig = match Rig::boot([&from, &to], [image, image], &logs) {
        Ok(rig) => rig,
        Err(error) => return Ok(fail(&error, &tails(&logs), Measured::default())),
    };
    match (scenario.play)(&mut rig) {
        Ok(detail) => {
            let outcome = outcome(Verdict::Pass, detail).measured(rig.measured());
            drop(rig);
            if options.keep_logs {
                tell(progress, &format!("logs: {}", workspace.short(&logs)));
            } else {
                std::fs::remove_dir_all(&logs)?;
                // The directory of this run is removed with its last scenario.
                if let Some(run) = logs.parent() {
                    let _ = std::fs::remove_dir(run);
                }
            }
            Ok(outcome)
        }
        Err(error) => Ok(match error.downcast_ref::<CannotPlay>() {
            Some(CannotPlay(why)) => outcome(Verdict::Skip, why.clone()),
            None => fail(&error, &rig.last_words(), rig.measured()),
        }),
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
            text.push_str(&format!(
                "--- {name}:\n{}\n",
                lines[lines.len().saturating_sub(25)..].join("\n")
            ));
        }
    }
    text
}

/// Why a scenario cannot be played on these machines.
#[derive(Debug)]
pub struct CannotPlay(pub String);

impl std::fmt::Display for CannotPlay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CannotPlay {}

/// Prints results and says whether all is well.
pub fn conclude(outcomes: &[Outcome], json: bool) -> Result<()> {
    eprint!("{}", report::table(outcomes));
    if json {
        println!("{}", report::json(outcomes)?);
    }
    let bad: Vec<&str> = outcomes
        .iter()
        .filter(|outcome| !acceptable(outcome))
        .map(|outcome| outcome.name.as_str())
        .collect();
    if !bad.is_empty() {
        bail!("migrate-test: not passed: {}", bad.join(", "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenarios_by_name() {
        assert_eq!(choose(&[]).unwrap().len(), all().len());
        assert_eq!(choose(&["canonical".into()]).unwrap().len(), 1);
        let error = choose(&["nonsense".into()]).err().unwrap().to_string();
        assert!(
            error.contains("nonsense") && error.contains("canonical"),
            "{error}"
        );
    }
}
