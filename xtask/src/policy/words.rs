//! A policy in lines and in JSON, and reasons gathered so that one line says what many share.

use std::fmt::Write as _;

use serde_json::{Value, json};
use vcpu_xstate::policy::{CpuPolicy, Dynamic, LeftOut, Subject, Why};
use vcpu_xstate::{ComponentSet, Form};

use crate::output::hex;

/// Width of text.
const WIDTH: usize = 96;

/// What a policy says of extended state, and its features.
pub struct Facts {
    pub user: ComponentSet,
    pub supervisor: ComponentSet,
    pub deferred: ComponentSet,
    pub standard_bytes: usize,
    pub compacted_bytes: usize,
    pub physical_bits: u8,
    pub features: Vec<&'static str>,
}

impl Facts {
    pub fn of(policy: &CpuPolicy) -> Self {
        let (xstate, geometry) = (policy.xstate(), policy.geometry());
        let mask = xstate.mask;
        let named = policy.features().named();
        Self {
            user: mask.difference(geometry.supervisor()),
            supervisor: mask.intersection(geometry.supervisor()),
            deferred: xstate.deferred,
            standard_bytes: geometry.image_size(Form::Standard, mask),
            compacted_bytes: geometry.image_size(Form::Compacted, mask),
            physical_bits: policy.physical_address_bits(),
            features: named.map(|feature| feature.name).collect(),
        }
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |label: &str, value: String| {
            let _ = writeln!(text, "  {label:<12} {value}");
        };
        let set = |set: ComponentSet| format!("{:#x}  {set}", set.bits());
        line("XCR0", set(self.user));
        line("IA32_XSS", set(self.supervisor));
        line("deferred", set(self.deferred));
        let (standard, compacted) = (self.standard_bytes, self.compacted_bytes);
        line(
            "image",
            format!("{standard} bytes standard, {compacted} compacted"),
        );
        line(
            "addresses",
            format!("{} bits guest-physical", self.physical_bits),
        );
        text.push_str(&wrapped("  features     ", &self.features));
        text
    }

    pub fn json(&self, policy: &CpuPolicy) -> Value {
        let vcpu = Dynamic {
            xcr0: self.user.bits(),
            xss: self.supervisor.bits(),
            ..Dynamic::default()
        };
        let leaves = policy.leaves().iter().map(|row| {
            let answer = policy.cpuid(row.leaf, row.subleaf, &vcpu);
            json!({
                "leaf": hex(row.leaf.into()),
                "subleaf": row.subleaf,
                "eax": hex(answer.eax.into()),
                "ebx": hex(answer.ebx.into()),
                "ecx": hex(answer.ecx.into()),
                "edx": hex(answer.edx.into()),
            })
        });
        json!({
            "xstate_mask": hex(self.user.union(self.supervisor).bits()),
            "xcr0": hex(self.user.bits()),
            "xss": hex(self.supervisor.bits()),
            "deferred": hex(self.deferred.bits()),
            "standard_bytes": self.standard_bytes,
            "compacted_bytes": self.compacted_bytes,
            "physical_address_bits": self.physical_bits,
            "features": self.features,
            "cpuid": leaves.collect::<Vec<_>>(),
        })
    }
}

/// `label` and the words after it, in lines of [`WIDTH`] that hang under the first word.
pub fn wrapped<W: AsRef<str>>(label: &str, words: &[W]) -> String {
    let indent = label.chars().count();
    let mut text = label.to_owned();
    let mut column = indent;
    for (at, word) in words.iter().enumerate() {
        let word = word.as_ref();
        let length = word.chars().count();
        if at > 0 && column + 1 + length > WIDTH {
            let _ = write!(text, "\n{:indent$}", "");
            column = indent;
        } else if at > 0 {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += length;
    }
    text.push('\n');
    text
}

/// The short name of what is left out.
pub fn name(subject: &Subject) -> String {
    match subject {
        Subject::Feature(feature) => feature.name.to_owned(),
        Subject::Bit(place) => place.to_string().replacen("CPUID ", "", 1),
        Subject::Component(component) => component.to_string(),
    }
}

/// Reasons, each with all that it is the reason of, in the order of the report.
/// `why` puts a reason into words, given the machine where there are several.
pub fn gathered(
    report: &[LeftOut],
    why: impl Fn(&LeftOut) -> String,
) -> Vec<(String, Vec<String>)> {
    let mut reasons: Vec<(String, Vec<String>)> = Vec::new();
    let mut subjects: Vec<(Subject, Vec<String>)> = Vec::new();
    for out in report {
        let words = why(out);
        match subjects
            .iter_mut()
            .find(|(subject, _)| *subject == out.subject)
        {
            Some((_, all)) if all.contains(&words) => {}
            Some((_, all)) => all.push(words),
            None => subjects.push((out.subject, vec![words])),
        }
    }
    for (subject, words) in subjects {
        let words = words.join(", ");
        let name = name(&subject);
        match reasons.iter_mut().find(|(reason, _)| *reason == words) {
            Some((_, names)) => names.push(name),
            None => reasons.push((words, vec![name])),
        }
    }
    reasons
}

/// The lines of reasons.
pub fn lines(reasons: &[(String, Vec<String>)]) -> String {
    let mut text = String::new();
    for (reason, names) in reasons {
        let starts = |name: &String| reason.starts_with(&format!("{name} "));
        if names.iter().all(starts) {
            // The reason names what it is about.
            let _ = writeln!(text, "  {reason}");
        } else if names.len() == 1 && reason.len() + names[0].len() + 4 <= WIDTH {
            let _ = writeln!(text, "  {}: {reason}", names[0]);
        } else {
            let _ = writeln!(text, "  {reason}:");
            text.push_str(&wrapped("    ", names));
        }
    }
    text
}

/// One entry of a report.
pub fn left_out(out: &LeftOut, words: String, machine: Option<&str>) -> Value {
    let kind = match out.subject {
        Subject::Feature(_) | Subject::Bit(_) => "feature",
        Subject::Component(_) => "component",
    };
    let rule = match out.why {
        Why::Never => "never",
        Why::NotGranted => "not-granted",
        Why::Unknown => "unknown",
        Why::Withheld(_) => "withheld",
        Why::MxcsrMask(_) => "mxcsr-mask",
        Why::NoPalette => "no-palette",
        Why::Configuration => "configuration",
        Why::Needs(_) => "needs",
        Why::WithoutState(_) => "without-state",
        Why::WithoutFeature => "without-feature",
        Why::Group(_) => "group",
        Why::Missing => "missing",
        Why::Layout(_) => "layout",
        Why::Palette => "palette",
    };
    json!({
        "kind": kind, "name": name(&out.subject), "reason": rule, "why": words, "machine": machine,
    })
}
