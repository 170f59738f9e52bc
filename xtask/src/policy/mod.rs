//! `cargo xtask policy`: what machines can run together, and whether one can take a file.

mod check;
mod level;
mod show;
#[cfg(test)]
mod tests;
mod words;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args as ClapArgs, Subcommand};
use vcpu_xstate::policy::set::by_name;
use vcpu_xstate::policy::{CpuPolicy, FeatureSet};
use vcpu_xstate::{ComponentIndex, ComponentSet, HostXstate};

use crate::machines::{Machine, Table};

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
    /// A table of machines; $XFERRY_CPUID_CSV where it is not given.
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,

    /// Features whose state the hypervisor switches beside the image: cet-ss,
    /// cet-ibt, uintr, enqcmd, apx-f.
    #[arg(long, value_name = "FEATURE", value_delimiter = ',')]
    grant: Vec<String>,

    /// Components to permit: pasid, uintr, or the number of one without a name.
    #[arg(long, value_name = "COMPONENT", value_delimiter = ',')]
    permit: Vec<String>,

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
    /// A blob, or a migration stream, whose policy is judged too.
    #[arg(value_name = "BLOB")]
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
            print!("{}", level::run(&hosts, args.common.json)?);
            Ok(true)
        }
        Task::Show(args) => {
            let table = args.common.table()?;
            print!(
                "{}",
                show::run(&args.common, table.find(&args.machine)?, &args.config)?
            );
            Ok(true)
        }
        Task::Check(args) => {
            let table = args.common.table()?;
            let hosts = args.common.hosts(&table, &args.machines)?;
            let bytes = read(&args.file)?;
            let (text, taken) = check::run(&bytes, &hosts, args.common.json)?;
            print!("{text}");
            Ok(taken)
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("reading {}", path.display()))
}

/// A machine as a receiver.
struct Host<'a> {
    machine: &'a Machine,
    xstate: HostXstate,
    policy: CpuPolicy,
}

impl Common {
    fn table(&self) -> Result<Table> {
        Table::load(self.table.as_deref())
    }

    fn granted(&self) -> Result<FeatureSet> {
        self.grant.iter().try_fold(FeatureSet::EMPTY, |all, name| {
            let feature = by_name(name).with_context(|| format!("no feature {name:?}"))?;
            Ok(all.with(feature.bit()))
        })
    }

    fn permitted(&self) -> Result<ComponentSet> {
        self.permit
            .iter()
            .try_fold(ComponentSet::EMPTY, |all, name| {
                let number = || name.parse().ok().and_then(ComponentIndex::new);
                let component = ComponentIndex::from_name(name).or_else(number);
                let component = component.with_context(|| format!("no component {name:?}"))?;
                Ok(all.union(ComponentSet::only(component)))
            })
    }

    fn xstate(&self, machine: &Machine) -> Result<HostXstate> {
        let mut xstate = machine.host(machine.mxcsr_mask())?;
        xstate.permit(self.permitted()?);
        Ok(xstate)
    }

    fn host<'a>(&self, machine: &'a Machine) -> Result<Host<'a>> {
        let xstate = self.xstate(machine)?;
        let cpuid = |leaf, subleaf| machine.cpuid(leaf, subleaf);
        let policy = CpuPolicy::host_granting(&cpuid, &xstate, &self.granted()?);
        Ok(Host {
            machine,
            xstate,
            policy,
        })
    }

    fn hosts<'a>(&self, table: &'a Table, names: &[String]) -> Result<Vec<Host<'a>>> {
        let mut hosts = Vec::new();
        for name in names {
            if name == "all" {
                let all = table.machines().iter();
                hosts.extend(all.filter_map(|machine| self.host(machine).ok()));
            } else {
                hosts.push(self.host(table.find(name)?)?);
            }
        }
        if hosts.is_empty() {
            bail!("no machine of the table has XSAVE");
        }
        Ok(hosts)
    }
}
