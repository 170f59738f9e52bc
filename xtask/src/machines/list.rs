//! The command that lists the machines: masks, what a guest may have of them, and what each is.

use std::path::PathBuf;

use anyhow::{Result, bail};
use serde_json::{Value, json};
use vcpu_xstate::{ComponentSet, CpuidResult};

use super::{Machine, Table, unbelieved, unbelieved_json};
use crate::output::{self, hex};

/// List the machines that other commands know by name.
#[derive(clap::Args)]
pub struct Args {
    /// Only those whose name or model contains this.
    pattern: Option<String>,

    /// Print the CPUID of this machine instead, as rows of a table.
    #[arg(long, value_name = "MACHINE", conflicts_with = "pattern")]
    rows: Option<String>,

    /// A table of machines, each in the place of a built-in one of its name;
    /// $XFERRY_CPUID_CSV where it is not given.
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,

    /// Print JSON on standard output.
    #[arg(long, conflicts_with = "rows")]
    json: bool,
}

/// The leaves that a table holds, and the highest subleaf of each.
const LEAVES: [(u32, u32); 10] = [
    (0, 0),
    (1, 0),
    (7, 1),
    (0xd, 62),
    (0x1d, 1),
    (0x1e, 0),
    (0x8000_0000, 0),
    (0x8000_0001, 0),
    (0x8000_0008, 0),
    (0x8000_000a, 0),
];

/// Prints a line for each machine, or for each leaf of one.
pub fn run(args: &Args) -> Result<()> {
    let table = Table::load(args.table.as_deref())?;
    if let Some(name) = &args.rows {
        return output::print(&rows(table.find(name)?));
    }
    let machines = chosen(&table, args.pattern.as_deref().unwrap_or_default())?;
    if args.json {
        let machines: Vec<Value> = machines.iter().map(|machine| object(machine)).collect();
        return output::print(&format!("{:#}\n", json!(machines)));
    }
    output::print(&lines(&machines))
}

/// The machines whose name or model contains the pattern.
fn chosen<'a>(table: &'a Table, pattern: &str) -> Result<Vec<&'a Machine>> {
    let wanted = pattern.to_lowercase();
    let matches = |text: &str| text.to_lowercase().contains(&wanted);
    let all = table.machines().iter();
    let chosen = all.filter(|machine| matches(machine.name()) || matches(machine.model()));
    let chosen: Vec<&Machine> = chosen.collect();
    if chosen.is_empty() {
        bail!("no machine has {pattern:?} in its name or model");
    }
    Ok(chosen)
}

/// A machine for programs; masks are null where it has no XSAVE.
fn object(machine: &Machine) -> Value {
    let host = machine.host(machine.mxcsr_mask()).ok();
    let mask = |set: ComponentSet| host.as_ref().map(|_| hex(set.bits()));
    let [user, supervisor] = machine.masks();
    let offered = host.as_ref().map(|host| machine.policy(host).xstate().mask);
    let unbelieved = host.as_ref().map(|host| unbelieved(machine.listed(), host));
    let unbelieved = unbelieved.unwrap_or_default();
    json!({
        "name": machine.name(),
        "model": machine.model(),
        "xsave": host.is_some(),
        "xcr0": mask(user),
        "xss": mask(supervisor),
        "offered": offered.map(|offered| hex(offered.bits())),
        "undescribed": hex(machine.undescribed().bits()),
        "unbelieved": unbelieved_json(&unbelieved),
    })
}

/// A heading, and a line for each machine.
fn lines(machines: &[&Machine]) -> String {
    let names = machines.iter().map(|machine| machine.name());
    let width = names.chain(["name"]).map(|name| name.chars().count()).max();
    let width = width.unwrap_or(0);
    let mut text = format!(
        "{:<width$} {:<18} {:<7} {:<7} model\n",
        "name", "XCR0", "XSS", "offered"
    );
    for machine in machines {
        text.push_str(&line(machine, width));
        text.push('\n');
    }
    text
}

fn line(machine: &Machine, width: usize) -> String {
    let (name, model) = (machine.name(), machine.model());
    let Ok(host) = machine.host(machine.mxcsr_mask()) else {
        return format!("{name:<width$} {:<34} {model}", "no XSAVE");
    };
    let [user, supervisor] = machine.masks();
    let offered = machine.policy(&host).xstate().mask;
    let mut lacks = match machine.undescribed() {
        none if none.is_empty() => String::new(),
        lacks => format!(" [its dump does not describe {lacks}]"),
    };
    for (component, why) in unbelieved(machine.listed(), &host) {
        lacks += &format!(" [{component}: {why}]");
    }
    format!(
        "{name:<width$} {:<18} {:<7} {:<7} {model}{lacks}",
        format!("{:#x}", user.bits()),
        format!("{:#x}", supervisor.bits()),
        format!("{:#x}", offered.bits()),
    )
}

/// What a table would say of the machine.
pub(super) fn rows(machine: &Machine) -> String {
    let mut text = format!("{}\n", super::table::HEADER);
    let vendor = machine.cpuid(0, 0);
    let vendor: Vec<u8> = [vendor.ebx, vendor.edx, vendor.ecx]
        .into_iter()
        .flat_map(u32::to_le_bytes)
        .collect();
    let vendor = String::from_utf8_lossy(&vendor);
    for (leaf, last) in LEAVES {
        for subleaf in 0..=last {
            let CpuidResult { eax, ebx, ecx, edx } = machine.cpuid(leaf, subleaf);
            let empty = eax | ebx | ecx | edx == 0;
            if subleaf == 0 || !empty {
                let name = machine.name();
                let model = super::table::quoted(machine.model());
                text.push_str(&format!(
                    "{name},{vendor},{model},{leaf:#010x},{subleaf},\
                     {eax:#010x},{ebx:#010x},{ecx:#010x},{edx:#010x}\n"
                ));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `machines nosuch` printed an empty table, and that all was well.
    #[test]
    fn a_pattern_that_no_machine_has_is_an_error() {
        let table = Table::built_in();
        let error = chosen(&table, "nosuch").unwrap_err().to_string();
        assert_eq!(error, "no machine has \"nosuch\" in its name or model");
        assert_eq!(
            chosen(&table, "Sapphire").unwrap()[0].name(),
            "sapphire-rapids"
        );
    }

    #[test]
    fn a_machine_in_json() {
        let table = Table::built_in();
        let zen4 = object(table.find("zen4").unwrap());
        assert_eq!(
            (&zen4["xcr0"], &zen4["xsave"]),
            (&json!("0x2e7"), &json!(true))
        );
        assert_eq!(zen4["undescribed"], "0x0");
    }

    /// Names were padded to 48 whatever they were.
    #[test]
    fn names_are_padded_as_wide_as_the_longest() {
        let table = Table::load(None).unwrap();
        let machines = ["zen4", "sapphire-rapids"].map(|name| table.find(name).unwrap());
        let text = lines(&machines);
        let begins: Vec<&str> = text.lines().map(|line| &line[..18]).collect();
        assert_eq!(
            begins,
            [
                "name            XC",
                "zen4            0x",
                "sapphire-rapids 0x"
            ]
        );
    }
}
