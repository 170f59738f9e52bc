//! `policy show`: what guests of one machine may have under a configuration, and why not more.

use std::fmt::Write as _;

use anyhow::{Result, anyhow};
use serde_json::json;
use vcpu_xstate::policy::{CpuPolicy, LeftOut, Subject};

use super::Common;
use super::words::{Facts, gathered, left_out, lines};
use crate::machines::Machine;

pub fn run(common: &Common, machine: &Machine, config: &str) -> Result<String> {
    if let Some(vain) = common.offer.permitted_in_vain(&[machine])? {
        eprintln!("note: {vain}");
    }
    let (xstate, granted) = (common.offer.xstate(machine)?, common.offer.granted()?);
    let cpuid = |leaf, subleaf| machine.cpuid(leaf, subleaf);
    let host = CpuPolicy::host_granting(&cpuid, &xstate, &granted);
    let refused = |error: vcpu_xstate::policy::ConfigError<'_>| anyhow!("{error}");
    let policy = host.with_config(config).map_err(refused)?;
    let by_config = host.explain_config(config).map_err(refused)?;
    let by_host = CpuPolicy::explain_host(&cpuid, &xstate, &granted);
    let facts = Facts::of(&policy);
    if common.json {
        let entries = |report: &[LeftOut]| -> Vec<_> {
            let entry = |out: &LeftOut| left_out(out, out.why.to_string(), None);
            report.iter().map(entry).collect()
        };
        let mut value = facts.json(&policy);
        value["machine"] = json!(machine.name());
        value["config"] = json!(config);
        value["not_offered"] = entries(&by_host).into();
        value["left_out"] = entries(&by_config).into();
        return Ok(format!("{value:#}\n"));
    }

    let (name, model) = (machine.name(), machine.model());
    let mut text = format!(
        "{name}: {model}\nA guest of {config:?} can have:\n\n{}\n",
        facts.text()
    );
    let mut section = |title: &str, report: &[LeftOut]| {
        let (components, features): (Vec<LeftOut>, Vec<LeftOut>) = report
            .iter()
            .partition(|out| matches!(out.subject, Subject::Component(_)));
        for (kind, report) in [("Components", components), ("Features", features)] {
            if !report.is_empty() {
                let body = lines(&gathered(&report, |out| out.why.to_string()));
                let _ = writeln!(text, "{kind} {title}:\n\n{body}");
            }
        }
    };
    section("that the configuration leaves out", &by_config);
    section("of the machine that are not offered", &by_host);
    Ok(text)
}
