//! The command that lists the machines: masks, what a guest may have of them, and what each is.

use std::path::PathBuf;

use anyhow::Result;
use vcpu_xstate::CpuidResult;

use super::{Machine, Table};

/// List the machines that other commands know by name.
#[derive(clap::Args)]
pub struct Args {
    /// Only those whose name or model contains this.
    pattern: Option<String>,

    /// Print the CPUID of this machine instead, as rows of a table.
    #[arg(long, value_name = "MACHINE", conflicts_with = "pattern")]
    rows: Option<String>,

    /// A table of machines; $XFERRY_CPUID_CSV where it is not given.
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
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
        rows(table.find(name)?);
        return Ok(());
    }
    let wanted = args.pattern.as_deref().unwrap_or_default().to_lowercase();
    let matches = |text: &str| text.to_lowercase().contains(&wanted);
    println!(
        "{:<48} {:<18} {:<7} {:<7} model",
        "name", "XCR0", "XSS", "offered"
    );
    for machine in table.machines() {
        if matches(machine.name()) || matches(machine.model()) {
            println!("{}", line(machine));
        }
    }
    Ok(())
}

fn line(machine: &Machine) -> String {
    let (name, model) = (machine.name(), machine.model());
    let Ok(host) = machine.host(machine.mxcsr_mask()) else {
        return format!("{name:<48} {:<34} {model}", "no XSAVE");
    };
    let [user, supervisor] = machine.masks();
    let offered = machine.policy(&host).xstate().mask;
    let lacks = match machine.undescribed() {
        none if none.is_empty() => String::new(),
        lacks => format!(" [its dump does not describe {lacks}]"),
    };
    format!(
        "{name:<48} {:<18} {:<7} {:<7} {model}{lacks}",
        format!("{:#x}", user.bits()),
        format!("{:#x}", supervisor.bits()),
        format!("{:#x}", offered.bits()),
    )
}

/// What a table would say of the machine.
fn rows(machine: &Machine) {
    println!("{}", super::table::HEADER);
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
                let (name, model) = (machine.name(), machine.model());
                println!(
                    "{name},{vendor},{model},{leaf:#010x},{subleaf},\
                     {eax:#010x},{ebx:#010x},{ecx:#010x},{edx:#010x}"
                );
            }
        }
    }
}
