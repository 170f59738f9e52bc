//! What the hypervisor proves of itself when it boots: that its page tables
//! forbid what they must, that the machine works, that the shell comes up.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::Tally;
use crate::build::{self, Variant};
use crate::image;
use crate::qemu::{EXIT_FAILED, EXIT_POWEROFF, Instance, MachineSpec};
use crate::shell::Shell;
use crate::workspace::Workspace;

const LIMIT: Duration = Duration::from_secs(60);

/// `selftest=NAME` on the command line, and how it must end. `machine` has to
/// find everything right; what the others do must be stopped by a fault.
const SELF_TESTS: &[(&str, i32)] = &[
    ("machine", EXIT_POWEROFF),
    ("null", EXIT_FAILED),
    ("write-text", EXIT_FAILED),
    ("write-rodata", EXIT_FAILED),
    ("execute-data", EXIT_FAILED),
    ("guard", EXIT_FAILED),
];

/// The machines that are booted to the shell.
const MACHINES: &[&str] = &["max", "EPYC-Rome"];

/// Boots once for each self-test.
pub fn machine(workspace: &Workspace) -> Result<Tally> {
    let binaries = build::binaries(workspace, Variant::Plain)?;
    let mut tally = Tally::default();
    for (name, code) in SELF_TESTS {
        let image = image::build(workspace, &binaries, &format!("selftest={name}"))?;
        let logs = logs(workspace, name);
        let mut machine = Instance::boot(name, &MachineSpec::default(), &image, &logs)?;
        tally = tally.and(judge(
            &machine_verdict(&mut machine, name, *code),
            &machine,
            workspace,
            &logs,
        )?);
    }
    Ok(tally)
}

fn machine_verdict(machine: &mut Instance, name: &str, code: i32) -> Result<()> {
    let seen = machine.wait_for_exit(LIMIT)?;
    ensure!(
        seen == code,
        "selftest={name}: QEMU ended with exit code {seen}, expected {code}"
    );
    let text = machine.console().text();
    ensure!(
        text.contains(&format!("selftest={name}")),
        "selftest={name}: the hypervisor never began it"
    );
    // The error line of a test that came back, or is not known, ends alike.
    let complaint = text.lines().find(|line| line.starts_with("(xferry) error"));
    if let Some(line) = complaint {
        bail!("selftest={name}: {line}");
    }
    if code == EXIT_FAILED {
        ensure!(
            text.contains("(xferry) panic"),
            "selftest={name}: there is no register dump"
        );
    }
    Ok(())
}

/// Boots each machine to the shell, with the self-test of its extended state on
/// the way, asks the shell for its list and then to switch the machine off.
pub fn shell(workspace: &Workspace) -> Result<Tally> {
    let binaries = build::binaries(workspace, Variant::Plain)?;
    let image = image::build(workspace, &binaries, "")?;
    let mut tally = Tally::default();
    for model in MACHINES {
        let logs = logs(workspace, model);
        let mut machine = Instance::boot(model, &MachineSpec::qemu(model), &image, &logs)?;
        tally = tally.and(judge(
            &shell_verdict(&mut machine),
            &machine,
            workspace,
            &logs,
        )?);
    }
    Ok(tally)
}

fn shell_verdict(machine: &mut Instance) -> Result<()> {
    let shell = Shell::new(machine.name(), machine.console());
    shell.ready(LIMIT)?;
    let rows = shell.run("list")?;
    ensure!(
        !rows.is_empty(),
        "the list of domains does not even have the toolstack"
    );
    let text = machine.console().text();
    let complaint = text.lines().find(|line| line.starts_with("(xferry) error"));
    if let Some(line) = complaint {
        bail!("the boot went through with an error: {line}");
    }
    let _nobody_is_left_to_answer = shell.start("poweroff")?;
    let code = machine.wait_for_exit(LIMIT)?;
    ensure!(
        code == EXIT_POWEROFF,
        "poweroff: QEMU ended with exit code {code}, expected {EXIT_POWEROFF}"
    );
    Ok(())
}

fn logs(workspace: &Workspace, name: &str) -> PathBuf {
    workspace
        .logs()
        .join(format!("boot-{}", std::process::id()))
        .join(name)
}

/// Turns a verdict into a count, and shows what there is to a failed one.
fn judge(
    verdict: &Result<()>,
    machine: &Instance,
    workspace: &Workspace,
    logs: &PathBuf,
) -> Result<Tally> {
    match verdict {
        Ok(()) => {
            std::fs::remove_dir_all(logs)
                .with_context(|| format!("removing {}", logs.display()))?;
            if let Some(run) = logs.parent() {
                let _ = std::fs::remove_dir(run);
            }
            Ok(Tally::PASS)
        }
        Err(error) => {
            eprintln!(
                "{error:#}\n--- the last lines of the console:\n{}",
                machine.console().tail(25)
            );
            eprintln!("--- logs: {}", workspace.short(logs));
            Ok(Tally::FAIL)
        }
    }
}
