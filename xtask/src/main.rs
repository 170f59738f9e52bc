//! Builds, runs and tests Xferry.

mod bench;
mod build;
mod capture;
mod components;
mod console;
mod fuzz;
mod image;
mod input;
mod inspect;
mod layout;
mod machines;
mod migrate;
mod miri;
mod mutants;
mod nightly;
mod output;
mod policy;
mod qemu;
mod receiver;
mod run;
mod setup;
mod shell;
mod test;
mod tidy;
mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::build::Variant;
use crate::qemu::MachineSpec;
use crate::run::Link;
use crate::workspace::Workspace;

/// Builds, runs and tests Xferry. What a task needs and this machine lacks is
/// installed first, where that is possible.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    /// Install nothing: name what is missing, and stop.
    #[arg(long, global = true)]
    no_install: bool,

    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    #[command(flatten)]
    Work(Work),
    #[command(flatten)]
    Question(Question),
}

/// What is done in the repository.
#[derive(Subcommand)]
enum Work {
    /// Install what building, booting and testing need.
    Setup,
    /// Build the hypervisor, its guests and the bootable image.
    Build(BuildOptions),
    /// Boot, with the toolstack's shell in this terminal.
    Run(RunOptions),
    /// Move guests between two machines, and see that every bit arrives.
    MigrateTest(MigrateOptions),
    /// Pass every test.
    Test(TestOptions),
    /// Write this machine's CPUID and images of its extended state.
    Capture(capture::Args),
    /// Time the libraries' code, as the hypervisor links it, against plain copies.
    Bench(bench::Options),
    /// Fuzz the libraries (libFuzzer; needs a nightly toolchain).
    Fuzz(fuzz::Args),
    /// Remove each rule of the libraries once: some test must notice.
    Mutants(mutants::Args),
    /// Run the libraries' tests under Miri (needs a nightly toolchain).
    Miri,
    /// Check the rules of this repository.
    Tidy,
}

/// What is answered anywhere, from files and facts alone.
#[derive(Subcommand)]
enum Question {
    /// Explain a blob, a migration stream or an XSAVE image.
    Inspect(inspect::InspectOptions),
    /// Show where each component lies on machines, as text or as a drawing.
    Layout(layout::Args),
    /// List the machines that other commands know by name.
    Machines(machines::list::Args),
    /// What machines can run together, and whether one can take a file.
    Policy(policy::Args),
}

#[derive(Args)]
struct BuildOptions {
    /// Build the hypervisor whose import drops a component, for tests.
    #[arg(long)]
    import_fault: bool,

    /// The hypervisor's command line.
    #[arg(long, default_value = "")]
    cmdline: String,
}

#[derive(Args)]
struct RunOptions {
    /// The machine: qemu, or qemu:CPUMODEL.
    #[arg(long, default_value_t)]
    machine: MachineSpec,

    /// The hypervisor's command line.
    #[arg(long, default_value = "")]
    cmdline: String,

    /// Lead the link (COM2) to whoever connects to this socket.
    #[arg(long, value_name = "SOCKET", conflicts_with = "link_connect")]
    link_listen: Option<PathBuf>,

    /// Lead the link (COM2) to the machine that listens on this socket.
    #[arg(long, value_name = "SOCKET")]
    link_connect: Option<PathBuf>,
}

#[derive(Args)]
struct MigrateOptions {
    /// Machine A: qemu, or qemu:CPUMODEL.
    #[arg(long, value_name = "MACHINE", default_value_t)]
    from: MachineSpec,

    /// Machine B; the same as A unless a scenario needs a lesser one.
    #[arg(long, value_name = "MACHINE")]
    to: Option<MachineSpec>,

    /// Play only this scenario; may be repeated.
    #[arg(long, value_name = "NAME")]
    scenario: Vec<String>,

    /// Keep the logs of scenarios that passed too.
    #[arg(long)]
    keep_logs: bool,

    /// Print the results as JSON on standard output.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct TestOptions {
    /// Only the steps whose name contains this; may be repeated.
    #[arg(long, value_name = "NAME")]
    step: Vec<String>,
}

/// What a question exits with that cannot be answered: 1 is "no", as with grep.
const NO_ANSWER: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let (result, failure) = match cli.task {
        Task::Work(work) => (dispatch(work, !cli.no_install), ExitCode::FAILURE),
        Task::Question(question) => (answer(&question), ExitCode::from(NO_ANSWER)),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            failure
        }
    }
}

/// Prints the answer. False is "no".
fn answer(question: &Question) -> Result<bool> {
    match question {
        Question::Inspect(options) => return inspect::run(options),
        Question::Layout(args) => layout::run(args)?,
        Question::Machines(args) => machines::list::run(args)?,
        Question::Policy(args) => return policy::run(args),
    }
    Ok(true)
}

/// Does the work. False is a failure that has been reported already.
fn dispatch(work: Work, may_install: bool) -> Result<bool> {
    let workspace = Workspace::find(may_install)?;
    let needs = |lints| {
        setup::ensure(
            &workspace,
            setup::Options {
                install: may_install,
                lints,
            },
        )
    };
    match work {
        Work::Setup => {
            needs(true)?;
            eprintln!("Everything needed is here.");
        }
        Work::Build(options) => {
            needs(false)?;
            let variant = if options.import_fault {
                Variant::ImportFault
            } else {
                Variant::Plain
            };
            let image = build::bootable(&workspace, variant, &options.cmdline)?;
            println!("{}", workspace.short(&image));
        }
        Work::Run(options) => {
            needs(false)?;
            let image = build::bootable(&workspace, Variant::Plain, &options.cmdline)?;
            let link = match (options.link_listen, options.link_connect) {
                (Some(path), _) => Link::Listen(path),
                (None, Some(path)) => Link::Connect(path),
                (None, None) => Link::None,
            };
            run::run(&options.machine, &image, &link)?;
        }
        Work::MigrateTest(options) => {
            needs(false)?;
            let image = build::bootable(&workspace, Variant::Plain, "")?;
            let what = migrate::Options {
                from: options.from,
                to: options.to,
                scenarios: options.scenario,
                keep_logs: options.keep_logs,
            };
            migrate::conclude(&migrate::play(&workspace, &image, &what)?, options.json)?;
        }
        Work::Test(options) => {
            needs(true)?;
            return test::run(&workspace, &options.step);
        }
        Work::Capture(args) => capture::run(&workspace, &args)?,
        Work::Bench(options) => {
            needs(false)?;
            return bench::run(&workspace, &options);
        }
        Work::Fuzz(args) => return fuzz::run(&workspace, &args),
        Work::Mutants(args) => return mutants::run(&workspace, &args),
        Work::Miri => return miri::run(&workspace),
        Work::Tidy => {
            needs(false)?;
            tidy::tidy(&workspace, &build::binaries(&workspace, Variant::Plain)?)?;
        }
    }
    Ok(true)
}
