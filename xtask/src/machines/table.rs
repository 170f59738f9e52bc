//! Reads a table of machines: one CPUID answer a line.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use vcpu_xstate::CpuidResult;

use super::{ALL, Answers, Machine};

/// What the first line says.
pub const HEADER: &str = "cpu,vendor,model,leaf,subleaf,eax,ebx,ecx,edx";

/// The machines of a table, in its order.
pub fn parse(text: &str) -> Result<Vec<Machine>> {
    let mut lines = text.lines().enumerate();
    match lines.next() {
        Some((_, HEADER)) => {}
        _ => bail!("line 1: a table begins with {HEADER:?}"),
    }
    let mut order = Vec::new();
    let mut machines = BTreeMap::<&str, (&str, BTreeMap<(u32, u32), CpuidResult>)>::new();
    for (number, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
        let row = row(line).with_context(|| format!("line {}", number + 1))?;
        let machine = machines.entry(row.name).or_insert_with(|| {
            order.push(row.name);
            (row.model, BTreeMap::new())
        });
        let before = machine.1.insert(row.query, row.answer);
        ensure!(
            before.is_none_or(|answer| answer == row.answer),
            "line {}: {} answers leaf {:#x}.{} twice",
            number + 1,
            row.name,
            row.query.0,
            row.query.1
        );
    }
    let machine = |name: &str| {
        let (model, leaves) = machines.remove(name).unwrap_or_default();
        Machine {
            name: name.to_owned(),
            model: unquoted(model),
            answers: Answers::Leaves(leaves),
        }
    };
    Ok(order.into_iter().map(machine).collect())
}

/// A field as other programs write it that has a comma in it (RFC 4180), or as
/// dumps have it, without quotes around.
fn unquoted(field: &str) -> String {
    let inside = field
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    inside.map_or_else(|| field.to_owned(), |text| text.replace("\"\"", "\""))
}

/// The same the other way.
pub fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

struct Row<'a> {
    name: &'a str,
    model: &'a str,
    query: (u32, u32),
    answer: CpuidResult,
}

fn row(line: &str) -> Result<Row<'_>> {
    // A model may hold commas: the numbers are the last six fields, and name
    // and vendor the first two.
    let fields: Vec<&str> = line.rsplitn(7, ',').collect();
    let [edx, ecx, ebx, eax, subleaf, leaf, rest] = fields[..] else {
        bail!("{} fields, 9 are needed", line.split(',').count());
    };
    let mut words = rest.splitn(3, ',');
    let name = words.next().unwrap_or_default();
    ensure!(!name.is_empty(), "the machine has no name");
    ensure!(
        name.to_lowercase() != ALL,
        "{name:?} stands for all machines, and names none"
    );
    let model = words.nth(1).unwrap_or_default();
    Ok(Row {
        name,
        model,
        query: (number(leaf)?, number(subleaf)?),
        answer: CpuidResult {
            eax: number(eax)?,
            ebx: number(ebx)?,
            ecx: number(ecx)?,
            edx: number(edx)?,
        },
    })
}

/// A number, hexadecimal with `0x` and decimal without.
fn number(text: &str) -> Result<u32> {
    let number = match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    };
    number.with_context(|| format!("{text:?} is no 32-bit number"))
}
