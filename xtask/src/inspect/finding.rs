//! What is wrong with a file: rule, offset, what was seen, what was allowed.

use migration_abi::ParseError;
use serde_json::{Value, json};

use super::document::Section;

/// A rule that the file breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule's name, stable.
    pub rule: String,
    /// Where in the file, in bytes.
    pub offset: usize,
    /// What is there.
    pub seen: u64,
    /// What may be there.
    pub allowed: String,
    /// The rule in a sentence.
    pub text: String,
}

impl From<ParseError> for Finding {
    fn from(error: ParseError) -> Self {
        Self {
            rule: error.rule().into(),
            offset: error.offset,
            seen: error.seen,
            allowed: error.allowed.to_string(),
            text: error.rule.text().into(),
        }
    }
}

impl Finding {
    /// The same, of a file that holds these bytes at `base`.
    #[must_use]
    pub fn within(self, base: usize) -> Self {
        Self {
            offset: self.offset + base,
            ..self
        }
    }

    fn json(&self) -> Value {
        json!({
            "rule": self.rule,
            "offset": self.offset,
            "seen": format!("{:#x}", self.seen),
            "allowed": self.allowed,
            "text": self.text,
        })
    }
}

/// Everything that is wrong, first found first. Programs find the list, empty
/// or not, under `broken`.
pub fn explain(root: &mut Section, findings: &[Finding]) {
    root.value("broken", findings.iter().map(Finding::json).collect());
    for finding in findings {
        root.line(format!(
            "BROKEN  {} at byte {}: {:#x} seen, allowed: {}",
            finding.rule, finding.offset, finding.seen, finding.allowed
        ));
        root.line(format!("        {}", finding.text));
    }
    if !findings.is_empty() {
        root.line("        what follows is what can be read all the same");
    }
}
