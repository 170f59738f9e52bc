//! The one error of the toolstack: a number with a name, the rule that was
//! broken, and a sentence.

use alloc::borrow::{Cow, ToOwned};
use alloc::string::String;
use core::fmt;
use migration_abi::ParseError;
use xferry_abi::error::{Errno, Failure, Reason};

/// An errno of Xen's: those of the hypercalls, and a few for the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub u32);

impl Code {
    /// The user stopped it.
    pub const EINTR: Self = Self(4);
    /// The link failed.
    pub const EIO: Self = Self(5);
    /// The other side said what it must not say.
    pub const EPROTO: Self = Self(71);
    /// The other side said nothing.
    pub const ETIMEDOUT: Self = Self(110);
}

impl From<Errno> for Code {
    fn from(errno: Errno) -> Self {
        Self(errno as u32)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::EINTR => f.write_str("EINTR"),
            Self::EIO => f.write_str("EIO"),
            Self::EPROTO => f.write_str("EPROTO"),
            Self::ETIMEDOUT => f.write_str("ETIMEDOUT"),
            Self(number) => match Errno::from_number(number) {
                Some(errno) => write!(f, "{errno:?}"),
                None => write!(f, "E{number}"),
            },
        }
    }
}

/// Why a command was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What kind of refusal.
    pub code: Code,
    /// The rule, in kebab-case.
    pub reason: Cow<'static, str>,
    /// [`Reason`]'s number where the hypervisor gave one, for the wire.
    pub reason_code: u32,
    /// What was seen and what is allowed.
    pub text: String,
}

impl Error {
    /// A refusal of the toolstack's own.
    #[must_use]
    pub fn new(code: impl Into<Code>, reason: &'static str, text: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            reason: Cow::Borrowed(reason),
            reason_code: 0,
            text: text.into(),
        }
    }

    /// A broken rule of the input: what was seen and what is allowed.
    #[must_use]
    pub fn rule(reason: &'static str, seen: impl fmt::Display, allowed: impl fmt::Display) -> Self {
        Self::new(
            Errno::EINVAL,
            reason,
            alloc::format!("saw {seen}, allowed {allowed}"),
        )
    }

    /// A refusal of the hypervisor, with its own explanation where it gave one.
    #[must_use]
    pub fn hypercall(failure: Failure, explanation: &str) -> Self {
        let (reason, text) = split_rule(explanation);
        Self {
            code: failure.errno.into(),
            reason: reason.map_or_else(|| class(failure.reason), |r| Cow::Owned(r.to_owned())),
            reason_code: failure.reason.0,
            text: if text.is_empty() {
                alloc::format!("saw {:#x}, allowed {:#x}", failure.seen, failure.allowed)
            } else {
                one_line(text)
            },
        }
    }

    /// A refusal by the other host, as its REFUSE carries it.
    #[must_use]
    pub fn refused(errno: u32, reason_code: u32, text: &str) -> Self {
        let (reason, rest) = split_rule(text);
        Self {
            code: Code(errno),
            reason: reason.map_or_else(|| class(Reason(reason_code)), |r| Cow::Owned(r.to_owned())),
            reason_code,
            text: one_line(rest),
        }
    }

    /// Says before the text what was being done.
    #[must_use]
    pub fn during(mut self, what: &str) -> Self {
        self.text = alloc::format!("{what}: {}", self.text);
        self
    }

    /// Says after the text what is the case now.
    #[must_use]
    pub fn and(mut self, what: &str) -> Self {
        self.text.push_str("; ");
        self.text.push_str(what);
        self
    }
}

impl From<ParseError> for Error {
    fn from(error: ParseError) -> Self {
        let text = alloc::format!("{error}");
        let (reason, rest) = split_rule(&text);
        Self {
            code: Errno::EINVAL.into(),
            reason: reason.map_or(Cow::Borrowed("stream"), |r| Cow::Owned(r.to_owned())),
            reason_code: 0,
            text: one_line(rest),
        }
    }
}

impl From<xferry_pvh::Error> for Error {
    fn from(error: xferry_pvh::Error) -> Self {
        Self::new(Errno::EINVAL, error.rule, error.text)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.code, self.reason, self.text)
    }
}

/// Splits "rule-name: text" where it begins with a name of a rule.
fn split_rule(text: &str) -> (Option<&str>, &str) {
    match text.split_once(": ") {
        Some((rule, rest)) if is_rule(rule) => (Some(rule), rest),
        _ => (None, text),
    }
}

fn is_rule(word: &str) -> bool {
    let legal =
        |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    !word.is_empty() && word.chars().all(legal)
}

/// What stands for a rule that has no name here: its class and number.
fn class(reason: Reason) -> Cow<'static, str> {
    let name = match reason.class() {
        0 => return Cow::Borrowed("refused"),
        Reason::CLASS_CALL => "call",
        Reason::CLASS_DOMAIN => "domain",
        Reason::CLASS_POLICY => "policy",
        Reason::CLASS_XSTATE => "xstate",
        Reason::CLASS_REGISTERS => "registers",
        Reason::CLASS_BLOB => "blob",
        Reason::CLASS_RIGHT => "right",
        _ => "rule",
    };
    Cow::Owned(alloc::format!("{name}-{}", reason.code()))
}

/// The answer to a program is one line, whatever the text came from.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explanation_that_names_its_rule_gives_the_reason() {
        let failure = Failure {
            errno: Errno::EINVAL,
            reason: Reason::new(Reason::CLASS_XSTATE, 3),
            seen: 1,
            allowed: 0,
        };
        let error = Error::hypercall(failure, "xcomp-bv-bit-63: saw 0,\nallowed 1");
        assert_eq!(
            alloc::format!("{error}"),
            "EINVAL xcomp-bv-bit-63: saw 0, allowed 1"
        );
        let error = Error::hypercall(failure, "");
        assert_eq!(
            alloc::format!("{error}"),
            "EINVAL xstate-3: saw 0x1, allowed 0x0"
        );
        let error = Error::hypercall(failure, "The state: was refused");
        assert_eq!(
            alloc::format!("{error}"),
            "EINVAL xstate-3: The state: was refused"
        );
    }

    #[test]
    fn a_refusal_reads_back_as_it_was_sent() {
        let sent = Error::rule("policy-misfit", "pku", "what this host has");
        let text = alloc::format!("{}: {}", sent.reason, sent.text);
        assert_eq!(Error::refused(sent.code.0, sent.reason_code, &text), sent);
        assert_eq!(
            alloc::format!("{}", Error::refused(9999, 0, "x")),
            "E9999 refused: x"
        );
    }
}
