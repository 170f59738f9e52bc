//! What is wrong with a file: rule, offset, what was seen, what was allowed; and what is only odd.

use std::fmt;

use migration_abi::ParseError;
use serde_json::{Value, json};

use super::document::Section;

/// What was found, as people and programs read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A length, an offset or a count: decimal, as everywhere else.
    Count(u64),
    /// A mask, a register or a checksum: hexadecimal.
    Bits(u64),
    /// No single number: the sentence says it.
    Words,
}

impl Seen {
    /// A length in bytes.
    pub const fn length(bytes: usize) -> Self {
        Self::Count(bytes as u64)
    }

    fn json(self) -> Value {
        match self {
            Self::Count(count) => json!(count),
            Self::Bits(_) => json!(self.to_string()),
            Self::Words => Value::Null,
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Bits(bits) => write!(f, "{bits:#x}"),
            Self::Words => Ok(()),
        }
    }
}

/// A rule that the file breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule's name, stable.
    pub rule: String,
    /// Where in the file, in bytes.
    pub offset: usize,
    /// What is there.
    pub seen: Seen,
    /// What may be there.
    pub allowed: String,
    /// The rule in a sentence.
    pub text: String,
}

impl From<ParseError> for Finding {
    fn from(error: ParseError) -> Self {
        let (seen, allowed) = if error.rule.counts() {
            (Seen::Count(error.seen), error.allowed.counted().to_string())
        } else {
            (Seen::Bits(error.seen), error.allowed.to_string())
        };
        Self {
            rule: error.rule().into(),
            offset: error.offset,
            seen,
            allowed,
            text: error.rule.text().into(),
        }
    }
}

/// In one line, as an error says it.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} (at byte {}: {} seen, allowed: {})",
            self.rule, self.text, self.offset, self.seen, self.allowed
        )
    }
}

impl Finding {
    /// A finding of a rule by its name.
    pub fn new(rule: &str, offset: usize, seen: Seen, allowed: String, text: &str) -> Self {
        Self {
            rule: rule.into(),
            offset,
            seen,
            allowed,
            text: text.into(),
        }
    }

    /// The same, of a file that holds these bytes at `base`.
    #[must_use]
    pub fn within(self, base: usize) -> Self {
        Self {
            offset: self.offset + base,
            ..self
        }
    }

    /// A number where it is one, as what was seen is.
    fn allowed_json(&self) -> Value {
        match (self.seen, self.allowed.parse::<u64>()) {
            (Seen::Words, _) => Value::Null,
            (Seen::Count(_), Ok(count)) => json!(count),
            _ => json!(self.allowed),
        }
    }

    fn json(&self) -> Value {
        json!({
            "rule": self.rule,
            "offset": self.offset,
            "seen": self.seen.json(),
            "allowed": self.allowed_json(),
            "text": self.text,
        })
    }
}

/// Everything that is wrong, first found first, and what is odd and breaks no
/// rule. Programs find the lists, empty or not, under `broken` and `warnings`.
pub fn explain(root: &mut Section, findings: &[Finding], warnings: &[String]) {
    root.value("broken", findings.iter().map(Finding::json).collect());
    root.value("warnings", json!(warnings));
    for finding in findings {
        let values = match finding.seen {
            Seen::Words => String::new(),
            seen => format!(": {seen} seen, allowed: {}", finding.allowed),
        };
        let (rule, offset) = (&finding.rule, finding.offset);
        root.line(format!("BROKEN  {rule} at byte {offset}{values}"));
        root.line(format!("        {}", finding.text));
    }
    if !findings.is_empty() {
        root.line("        what follows is what can be read all the same");
    }
    for warning in warnings {
        root.line(format!("WARNING {warning}"));
    }
}
