//! Which machines would take what a file holds, and which rule stands against it.

use anyhow::Result;
use serde_json::json;
use vcpu_xstate::foreign::{self, Excess, ForeignError, ForeignImage};
use vcpu_xstate::{Claims, ComponentSet, Geometry, HostXstate, Rejection, XstatePolicy, validate};

use super::blob::number;
use super::document::{Section, Table, words};
use crate::machines::Machine;

/// What is judged.
pub enum Judged<'a> {
    /// A blob: a compacted image with what came with it and whose layout it has.
    Blob {
        /// The registers and masks.
        claims: Claims,
        /// The layout of the machine that wrote it.
        geometry: &'a Geometry,
        /// The image.
        image: &'a [u8],
    },
    /// An image of another hypervisor.
    Foreign {
        /// The image with its registers.
        image: &'a ForeignImage<'a>,
        /// The layout of the machine that made it; where it is not known, the
        /// judge's own.
        geometry: Option<&'a Geometry>,
    },
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
    Ok(match judged {
        Judged::Blob {
            claims,
            geometry,
            image,
        } => {
            let policy = policy(claims.xstate_mask, claims.xsave);
            let verdict = validate(claims, geometry, image, &host, &policy);
            verdict.map(|_| ()).map_err(|rejection| Why {
                rule: rejection.rule(),
                text: in_words(&rejection, &host),
            })
        }
        Judged::Foreign { image, geometry } => {
            let registers = &image.registers;
            let held =
                number(image.bytes, 512, 8).unwrap_or(0) | number(image.bytes, 520, 8).unwrap_or(0);
            let mask = registers.xcr0 | registers.xss | registers.accum.unwrap_or(0) | held;
            let policy = policy(mask, true);
            let geometry = geometry.unwrap_or(host.geometry());
            let verdict = foreign::read(image, geometry, &host, &policy, Excess::Refuse);
            verdict.map(|_| ()).map_err(|error| Why {
                rule: error.rule(),
                text: match &error {
                    ForeignError::Rejected(rejection) => in_words(rejection, &host),
                    error => error.to_string(),
                },
            })
        }
    })
}

fn policy(mask: u64, xsave: bool) -> XstatePolicy {
    if xsave {
        XstatePolicy::new(ComponentSet::from_bits_retain(mask), ComponentSet::EMPTY)
    } else {
        XstatePolicy::without_xsave()
    }
}

/// Why a machine does not offer components: those that it does not have, and
/// each of the others with its reason.
fn not_offered(lacking: ComponentSet, host: &HostXstate) -> String {
    let mut absent = ComponentSet::EMPTY;
    let mut parts = Vec::new();
    for component in lacking {
        match host.withheld(component) {
            Some(why) => parts.push(format!("{component}: {why}")),
            None => absent.insert(ComponentSet::only(component)),
        }
    }
    if !absent.is_empty() {
        parts.insert(0, format!("it has no {absent}"));
    }
    parts.join("; ")
}

/// The rejection with the names of components, where it is about those.
fn in_words(rejection: &Rejection, host: &HostXstate) -> String {
    let lacks = |seen: u64, allowed: u64| ComponentSet::from_bits_retain(seen & !allowed);
    let rule = rejection.rule();
    match rejection {
        Rejection::MaskHost(seen, allowed) => {
            format!("{rule}: {}", not_offered(lacks(*seen, *allowed), host))
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
