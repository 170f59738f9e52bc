//! `policy level`: the greatest policy of several machines, and what each of them keeps out of it.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use vcpu_xstate::ComponentSet;
use vcpu_xstate::policy::{CpuPolicy, LeftOut, Subject, Why, level_all};

use super::words::{Facts, gathered, left_out, lines, wrapped};
use crate::output::hex;
use crate::receiver::Receiver;

/// Machines that a reason names; beyond, it counts them.
const NAMED: usize = 4;

/// Machines that a list of them names; beyond, it counts the rest.
const LISTED: usize = 12;

pub fn run(hosts: &[Receiver<'_>], as_json: bool) -> Result<String> {
    let policies: Vec<&CpuPolicy> = hosts.iter().map(|host| &host.policy).collect();
    let names: Vec<&str> = hosts.iter().map(|host| host.machine.name()).collect();
    let levelled = level_all(&policies).context("no machine to level")?;
    let facts = Facts::of(&levelled.policy);
    let why = |out: &LeftOut| reason(out, &names);
    let gaps = undescribed(hosts);
    if as_json {
        let entries = levelled.left_out.iter();
        let entries = entries.map(|out| left_out(out, why(out), out.machine.map(|at| names[at])));
        let mut value = json!({ "machines": names });
        merge(&mut value, facts.json(&levelled.policy));
        value["left_out"] = entries.collect();
        let config = |host: &Receiver<'_>| json!(host.policy.config_for(&levelled.policy));
        value["configs"] = hosts.iter().map(config).collect();
        value["undescribed"] = gaps
            .into_iter()
            .map(|(name, set)| json!([name, hex(set.bits())]))
            .collect();
        return Ok(format!("{value:#}\n"));
    }

    let mut text = wrapped("Machines: ", &listed(&names));
    let _ = writeln!(text, "All of them can run:\n\n{}", facts.text());
    if levelled.left_out.is_empty() {
        text.push_str("Nothing that any of them offers is left out.\n");
    } else {
        let (components, features): (Vec<LeftOut>, Vec<LeftOut>) = together(&levelled.left_out)
            .into_iter()
            .partition(|out| matches!(out.subject, Subject::Component(_)));
        let shared = |report: &[LeftOut]| {
            lines(&gathered(report, |out| {
                shared_reason(out, &levelled.left_out, &names)
            }))
        };
        if !components.is_empty() {
            let _ = writeln!(text, "Components left out:\n\n{}", shared(&components));
        }
        if !features.is_empty() {
            let _ = writeln!(text, "Features left out:\n\n{}", shared(&features));
        }
    }
    text.push_str(&strings(hosts, &levelled.policy));
    let lacking: Vec<&str> = gaps.iter().map(|(name, _)| *name).collect();
    if let [(name, set)] = gaps[..] {
        let note = "and does not describe it: it counts as missing";
        let _ = writeln!(text, "note: the dump of {name} lists {set} {note}");
    } else if !gaps.is_empty() {
        let note = "note: what these dumps list and do not describe counts as missing:";
        let words: Vec<String> = note.split(' ').map(str::to_owned).collect();
        text.push_str(&wrapped("", &[words, listed(&lacking)].concat()));
    }
    Ok(text)
}

/// The policy string of each machine by which its default becomes the level.
fn strings(hosts: &[Receiver<'_>], level: &CpuPolicy) -> String {
    let mut text = String::from("As a policy string, there:\n\n");
    for host in hosts.iter().take(LISTED) {
        let config = host.policy.config_for(level);
        let config = config.unwrap_or_else(|| "no string says it".to_owned());
        let _ = writeln!(text, "  {}: {config}", host.machine.name());
    }
    text.push('\n');
    text
}

/// One entry for each subject and kind of reason: machines are gathered later.
fn together(report: &[LeftOut]) -> Vec<LeftOut> {
    let mut kept: Vec<LeftOut> = Vec::new();
    for out in report {
        let same = |other: &LeftOut| {
            other.subject == out.subject
                && matches!((other.why, out.why), (Why::Missing, Why::Missing))
        };
        if !kept.iter().any(same) {
            kept.push(*out);
        }
    }
    kept
}

/// The reason with all machines that it is about.
fn shared_reason(out: &LeftOut, report: &[LeftOut], names: &[&str]) -> String {
    if out.why != Why::Missing {
        return reason(out, names);
    }
    let against: Vec<&str> = report
        .iter()
        .filter(|other| other.subject == out.subject && other.why == Why::Missing)
        .filter_map(|other| other.machine.map(|at| names[at]))
        .collect();
    if against.len() <= NAMED {
        format!("not offered by {}", against.join(", "))
    } else {
        let (shown, total) = (against[..NAMED - 1].join(", "), names.len());
        format!("not offered by {} of {total}: {shown}, …", against.len())
    }
}

/// One reason, with the names of the machines on both sides.
fn reason(out: &LeftOut, names: &[&str]) -> String {
    let on = |at: Option<usize>| format!("on {}", at.map_or("?", |at| names[at]));
    match out.why {
        Why::Missing => format!("not offered by {}", out.machine.map_or("?", |at| names[at])),
        Why::Layout(difference) => difference
            .between(&on(out.machine), &on(Some(0)))
            .to_string(),
        Why::Palette => format!("other tiles {} than {}", on(out.machine), on(Some(0))),
        why => why.to_string(),
    }
}

/// Names with commas between; many are counted.
fn listed(names: &[&str]) -> Vec<String> {
    let shown = names.len().min(LISTED);
    let mut words: Vec<String> = names[..shown]
        .iter()
        .map(|name| format!("{name},"))
        .collect();
    match (words.last_mut(), names.len() - shown) {
        (Some(last), 0) => {
            last.pop();
        }
        (_, more) => words.push(format!("and {more} more")),
    }
    words
}

/// The machines whose dumps list components that they do not describe.
fn undescribed<'a>(hosts: &[Receiver<'a>]) -> Vec<(&'a str, ComponentSet)> {
    let gaps = hosts
        .iter()
        .map(|host| (host.machine.name(), host.machine.undescribed()));
    gaps.filter(|(_, set)| !set.is_empty()).collect()
}

fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}
