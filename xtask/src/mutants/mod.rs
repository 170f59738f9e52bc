//! `cargo xtask mutants`: each rule of the libraries is removed once, and some test must notice.
//!
//! The sources mark each rule and each mended bug with `rule!("name")`, which is
//! `true` in what is shipped. The tests are built once with the feature
//! `mutants`; then one process after the other does without one rule, named by
//! its environment. The tests know nothing of it. At the end a table says which
//! test noticed which mutant, and where.

mod list;
mod programs;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use self::list::Mutant;
use self::programs::{Program, Verdict};
use crate::workspace::Workspace;

/// What is tried.
#[derive(clap::Args)]
pub struct Args {
    /// Only mutants whose name contains this; all, where none is named.
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    /// Print their names and places, and do nothing.
    #[arg(long)]
    list: bool,

    /// How many at once; one for each processor unless said otherwise.
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
}

/// A mutant and what became of it.
struct Outcome {
    mutant: Mutant,
    verdict: Verdict,
    took: Duration,
}

/// The command. Gives whether every mutant was noticed.
///
/// # Errors
/// The tests do not compile, or fail without any mutant.
pub fn run(workspace: &Workspace, args: &Args) -> Result<bool> {
    let mutants = list::read(workspace.root())?;
    let chosen: Vec<Mutant> = mutants
        .into_iter()
        .filter(|mutant| {
            args.names.is_empty() || args.names.iter().any(|part| mutant.name.contains(part))
        })
        .collect();
    ensure!(!chosen.is_empty(), "no mutant is called {:?}", args.names);
    if args.list {
        chosen
            .iter()
            .for_each(|m| println!("{:<40} {}", m.name, m.places.join(" ")));
        return Ok(true);
    }
    let start = Instant::now();
    eprintln!("building the test programs, and running them without a mutant …");
    let programs = programs::build(workspace)?;
    eprintln!(
        "{} test programs pass without a mutant; {} mutants",
        programs.len(),
        chosen.len()
    );
    let jobs = args
        .jobs
        .unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    let outcomes = try_all(chosen, &programs, workspace.root(), jobs);
    Ok(conclude(outcomes, start.elapsed()))
}

/// Every mutant, `jobs` at a time, in the order of the list.
fn try_all(mutants: Vec<Mutant>, programs: &[Program], root: &Path, jobs: usize) -> Vec<Outcome> {
    let all = mutants.len();
    let waiting: Mutex<VecDeque<Mutant>> = Mutex::new(mutants.into());
    let outcomes = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().ok().and_then(|mut all| all.pop_front());
                    let Some(mutant) = next else {
                        return;
                    };
                    let start = Instant::now();
                    let verdict = programs::judge(&mutant, programs, root);
                    let outcome = Outcome {
                        mutant,
                        verdict,
                        took: start.elapsed(),
                    };
                    if let Ok(mut done) = outcomes.lock() {
                        eprintln!("{:>4}/{all} {}", done.len() + 1, progress(&outcome));
                        done.push(outcome);
                    }
                }
            });
        }
    });
    outcomes.into_inner().unwrap_or_default()
}

fn progress(outcome: &Outcome) -> String {
    let what = match outcome.verdict {
        Verdict::Noticed(_) => "noticed",
        Verdict::Survived(_) => "SURVIVED",
    };
    let seconds = outcome.took.as_secs_f32();
    format!("{what} after {seconds:.1} s: {}", outcome.mutant.name)
}

fn line(outcome: &Outcome) -> String {
    let mutant = &outcome.mutant;
    let what = match &outcome.verdict {
        Verdict::Noticed(failure) => failure.to_string(),
        Verdict::Survived(broke) => {
            let broke = broke.as_ref().map(|how| format!("; {how}"));
            format!(
                "SURVIVED ({}{})",
                mutant.places.join(", "),
                broke.unwrap_or_default()
            )
        }
    };
    format!("{:<40} {what}", mutant.name)
}

/// Prints who noticed each, and the sum; gives whether nothing survived.
fn conclude(mut outcomes: Vec<Outcome>, took: Duration) -> bool {
    outcomes.sort_by(|one, other| one.mutant.name.cmp(&other.mutant.name));
    for outcome in &outcomes {
        println!("{}", line(outcome));
    }
    let survivors: Vec<&Outcome> = outcomes
        .iter()
        .filter(|outcome| matches!(outcome.verdict, Verdict::Survived(_)))
        .collect();
    if !survivors.is_empty() {
        println!("\nNo test noticed:");
        survivors
            .iter()
            .for_each(|outcome| println!("{}", line(outcome)));
    }
    println!(
        "{} mutants, {} noticed, {} survived ({} s)",
        outcomes.len(),
        outcomes.len() - survivors.len(),
        survivors.len(),
        took.as_secs()
    );
    survivors.is_empty()
}
