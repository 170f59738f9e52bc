//! `cargo xtask policy`: what machines can run together, and whether one can take a file.

pub mod check;
mod level;
mod show;
#[cfg(test)]
mod tests;
mod words;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args as ClapArgs, Subcommand};

use crate::inspect::looks_like_a_stream;
use crate::machines::Table;
use crate::receiver::{Offer, Receiver};
use crate::{input, output};

/// Policies of machines: levelled, explained, and held against a file.
#[derive(ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// The greatest policy that all of these machines can run, and what it leaves out.
    Level(LevelArgs),
    /// What guests of one machine may have, and why not more.
    Show(ShowArgs),
    /// Whether a machine can take a blob or a stream, and where not, why.
    Check(CheckArgs),
}

/// What every subcommand takes.
#[derive(ClapArgs)]
struct Common {
    /// A table of machines, each in the place of a built-in one of its name;
    /// $XFERRY_CPUID_CSV where it is not given.
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,

    #[command(flatten)]
    offer: Offer,

    /// Print JSON on standard output.
    #[arg(long)]
    json: bool,
}

#[derive(ClapArgs)]
struct LevelArgs {
    /// The machines; `all` for every one that has XSAVE.
    #[arg(required = true, value_name = "MACHINE")]
    machines: Vec<String>,

    #[command(flatten)]
    common: Common,
}

#[derive(ClapArgs)]
struct ShowArgs {
    /// The machine.
    machine: String,

    /// A policy string, as `host:avx512f=0,amx-tile=0`.
    #[arg(long, default_value = "host")]
    config: String,

    #[command(flatten)]
    common: Common,
}

#[derive(ClapArgs)]
struct CheckArgs {
    /// A blob, or a migration stream, whose policy is judged too; `-` is standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// The machines; `all` for every one that has XSAVE.
    #[arg(required = true, value_name = "MACHINE")]
    machines: Vec<String>,

    #[command(flatten)]
    common: Common,
}

/// Does it. False where a machine cannot take the file.
pub fn run(args: &Args) -> Result<bool> {
    match &args.task {
        Task::Level(args) => {
            let table = args.common.table()?;
            let hosts = args.common.hosts(&table, &args.machines)?;
            output::print(&level::run(&hosts, args.common.json)?)?;
            Ok(true)
        }
        Task::Show(args) => {
            let table = args.common.table()?;
            let machine = table.find(&args.machine)?;
            output::print(&show::run(&args.common, machine, &args.config)?)?;
            Ok(true)
        }
        Task::Check(args) => {
            let table = args.common.table()?;
            let hosts = args.common.hosts(&table, &args.machines)?;
            let bytes = input::read(&args.file, looks_like_a_stream)?;
            let verdicts = check::run(&bytes, &hosts, args.common.json);
            let (text, taken) = verdicts.with_context(|| input::name(&args.file))?;
            output::print(&text)?;
            Ok(taken)
        }
    }
}

impl Common {
    fn table(&self) -> Result<Table> {
        Table::load(self.table.as_deref())
    }

    fn hosts<'a>(&self, table: &'a Table, names: &[String]) -> Result<Vec<Receiver<'a>>> {
        self.offer.receivers(&table.chosen(names)?)
    }
}
