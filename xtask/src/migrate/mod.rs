//! `cargo xtask migrate-test`: guests with their registers full move between
//! two machines, and everything that must be refused is.

pub mod decode;
mod frames;
mod relay;
pub mod report;
pub mod rig;
mod scenarios;
mod stage;
mod tamper;
mod torture;
mod xstate;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

pub use relay::Side;
use scenarios::{Scenario, all};

use self::report::{Outcome, Verdict};
use self::stage::{Failure, Stage};
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

    let mut stage = Stage::new(workspace, image, options.keep_logs);
    let mut outcomes = Vec::new();
    for scenario in chosen {
        progress.set_message(scenario.name);
        let start = Instant::now();
        let (from, to) = scenario.machines(&options.from, options.to.as_ref());
        let mut outcome = Outcome::new(scenario.name, &from, &to);
        match stage.play(scenario, &from, &to) {
            Ok((detail, measured)) => outcome.end(Verdict::Pass, detail, measured),
            Err(Failure {
                error,
                measured,
                words,
            }) => match error.downcast_ref::<CannotPlay>() {
                Some(CannotPlay(why)) => outcome.end(Verdict::Skip, why.clone(), measured),
                None => {
                    tell(&progress, &format!("{}: {error:#}\n{words}", scenario.name));
                    outcome.end(Verdict::Fail, format!("{error:#}"), measured);
                }
            },
        }
        let seconds = start.elapsed().as_secs_f32();
        tell(
            &progress,
            &format!(
                "{:<16} {:?} in {seconds:.1} s",
                outcome.name, outcome.verdict
            ),
        );
        progress.inc(1);
        outcomes.push(outcome);
    }
    progress.finish_and_clear();
    if options.keep_logs {
        eprintln!("logs: {}", workspace.short(&stage.logs()));
    }
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
