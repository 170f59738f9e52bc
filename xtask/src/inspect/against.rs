//! Which machines would take what a file holds, and which rule stands against it.

use anyhow::Result;
use serde_json::json;
use vcpu_xstate::{Claims, ComponentSet, Geometry, Rejection, XstatePolicy, validate};

use super::document::{Section, Table, words};
use crate::machines::Machine;

/// What is judged: a compacted image with what came with it.
pub struct Judged<'a> {
    /// The registers and masks.
    pub claims: Claims,
    /// The layout of the machine that wrote it.
    pub geometry: &'a Geometry,
    /// The image.
    pub image: &'a [u8],
}

/// Adds a verdict for each machine.
pub fn explain(root: &mut Section, judged: &Judged<'_>, machines: &[&Machine]) -> Result<()> {
    if machines.is_empty() {
        return Ok(());
    }
    let mut section = Section::new("against_machines", "Machines");
    let columns = [words("machine"), words("verdict"), words("")];
    let mut table = Table::new("against", &columns);
    for machine in machines {
        let verdict = verdict(judged, machine)?;
        let (short, value, why) = match &verdict {
            Ok(()) => ("takes it", true, String::new()),
            Err(why) => ("refuses", false, why.text.clone()),
        };
        let rule = verdict.as_ref().err().map(|why| why.rule);
        table.row(
            vec![machine.name().into(), short.into(), why.clone()],
            json!({"machine": machine.name(), "takes": value, "rule": rule, "why": why}),
        );
    }
    section.table(table);
    root.section(section);
    Ok(())
}

/// The rule that stands against it.
struct Why {
    rule: &'static str,
    text: String,
}

fn verdict(judged: &Judged<'_>, machine: &Machine) -> Result<Result<(), Why>> {
    let host = machine.host(machine.mxcsr_mask())?;
    // The policy that the state was taken under is the one asked for here.
    let policy = if judged.claims.xsave {
        let mask = ComponentSet::from_bits_retain(judged.claims.xstate_mask);
        XstatePolicy::new(mask, ComponentSet::EMPTY)
    } else {
        XstatePolicy::without_xsave()
    };
    let result = validate(
        &judged.claims,
        judged.geometry,
        judged.image,
        &host,
        &policy,
    );
    Ok(result.map(|_| ()).map_err(|rejection| Why {
        rule: rejection.rule(),
        text: in_words(&rejection),
    }))
}

/// The rejection with the names of components, where it is about those.
fn in_words(rejection: &Rejection) -> String {
    let lacks = |seen: u64, allowed: u64| ComponentSet::from_bits_retain(seen & !allowed);
    let rule = rejection.rule();
    match rejection {
        Rejection::MaskHost(seen, allowed) => {
            format!("{rule}: it does not offer {}", lacks(*seen, *allowed))
        }
        Rejection::Layout(difference) => format!("{rule}: {difference}"),
        Rejection::XstateBvAccum(seen, allowed) | Rejection::XstateBvXcompBv(seen, allowed) => {
            format!("{rejection} ({} too many)", lacks(*seen, *allowed))
        }
        Rejection::Address(component, ..) | Rejection::Reserved(component, ..) => {
            format!("{rejection} in {component}")
        }
        _ => rejection.to_string(),
    }
}
