//! Why an image or a plan is refused.

use alloc::string::String;
use core::fmt;

/// The rule that was broken, and a sentence: what was seen, what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Name of the rule, in kebab case, the same for ever.
    pub rule: &'static str,
    /// What was seen and what is allowed.
    pub text: String,
}

impl Error {
    pub(crate) fn rule(
        rule: &'static str,
        seen: impl fmt::Display,
        allowed: impl fmt::Display,
    ) -> Self {
        Self {
            rule,
            text: alloc::format!("saw {seen}, allowed is {allowed}"),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.text)
    }
}

impl core::error::Error for Error {}
