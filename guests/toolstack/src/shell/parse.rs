//! Lines to commands. Every line that is none gets an error that names the
//! rule, what was seen and what is allowed.

use crate::error::Error;
use crate::policy::component;
use xferry_abi::{DomainId, RightAction};

/// A line, its tag taken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// A program's tag.
    pub tag: Option<&'a str>,
    /// The rest.
    pub command: &'a str,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// An empty line.
    Nothing,
    /// Domains and what they do.
    List,
    /// A domain from an image.
    Create {
        /// Module's name.
        image: &'a str,
        /// The domain's name, the image's unless said.
        name: &'a str,
        /// Bytes.
        memory_bytes: u64,
        /// Change of the host's default policy.
        policy: Option<&'a str>,
        /// Whether it is left paused.
        paused: bool,
        /// The guest's command line.
        cmdline: &'a str,
    },
    /// Ends a domain.
    Destroy(DomainId),
    /// Stops it.
    Pause(DomainId),
    /// Lets it run.
    Unpause(DomainId),
    /// Shows its policy.
    ShowPolicy(DomainId),
    /// Sets it.
    SetPolicy {
        /// Of which domain.
        domain: DomainId,
        /// Change of the host's default policy.
        spec: &'a str,
        /// Components that are dropped if they are in use.
        drop: u64,
    },
    /// Shows its extended state.
    Xstate(DomainId),
    /// Gives back what of it can be.
    Reclaim(DomainId),
    /// Sets how much it may take.
    Limit(DomainId, u64),
    /// Moves it away.
    Send {
        /// Which.
        domain: DomainId,
        /// How long to wait for the other side.
        timeout_s: Option<u64>,
    },
    /// Takes a domain that is sent.
    Receive {
        /// How long to wait for the other side.
        timeout_s: Option<u64>,
    },
    /// Settles moves that were cut off.
    Reconnect {
        /// How long to try.
        timeout_s: u64,
    },
    /// Says what only an operator can: what becomes of a move whose other side
    /// is dead for ever.
    Decide(DomainId, RightAction),
    /// Shows what a domain said, and says something to it.
    Console(DomainId, Option<&'a str>),
    /// Shows its extended-state blob.
    Blob(DomainId),
    /// About the machine.
    Host,
    /// The commands.
    Help,
    /// Ends it all.
    PowerOff,
}

const COMMANDS: &str = "list, create, destroy, pause, unpause, policy, xstate, limit, send, receive, reconnect, decide, console, blob, host, help, poweroff";
const DEFAULT_MEMORY_BYTES: u64 = 4 << 20;
const RECONNECT_TIMEOUT_S: u64 = 10;
/// An hour: longer is a slip of the finger.
const MAX_TIMEOUT_S: u64 = 3600;
const TAG_MAX_BYTES: usize = 16;

/// Takes a line apart into tag and command.
///
/// # Errors
/// The tag is none; the line cannot be answered to a program then.
pub fn parse_line(line: &str) -> Result<Line<'_>, Error> {
    let line = line.trim();
    let Some(rest) = line.strip_prefix('#') else {
        return Ok(Line {
            tag: None,
            command: line,
        });
    };
    let (tag, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if tag.is_empty() || tag.len() > TAG_MAX_BYTES || !tag.chars().all(legal) {
        let allowed = format_args!("1 to {TAG_MAX_BYTES} letters, digits, '-' and '_' behind '#'");
        return Err(Error::rule("tag", format_args!("{tag:?}"), allowed));
    }
    Ok(Line {
        tag: Some(tag),
        command: command.trim(),
    })
}

/// Reads a command.
///
/// # Errors
/// The rule that the line breaks.
pub fn parse_command(line: &str) -> Result<Command<'_>, Error> {
    if let Some(c) = line.chars().find(|c| c.is_control() && *c != '\t') {
        let seen = format_args!("{c:?}");
        return Err(Error::rule("line-characters", seen, "printable characters"));
    }
    let mut words = Words { rest: line };
    let Some(command) = words.next() else {
        return Ok(Command::Nothing);
    };
    let parsed = match command {
        "list" => Command::List,
        "create" => return create(words),
        "destroy" => Command::Destroy(words.domain()?),
        "pause" => Command::Pause(words.domain()?),
        "unpause" => Command::Unpause(words.domain()?),
        "policy" => policy(&mut words)?,
        "xstate" => {
            let domain = words.domain()?;
            match words.next() {
                None => Command::Xstate(domain),
                Some("reclaim") => Command::Reclaim(domain),
                Some(other) => return Err(unexpected(other, "reclaim, or nothing")),
            }
        }
        "limit" => Command::Limit(words.domain()?, size("limit", words.needed("BYTES")?)?),
        "send" => Command::Send {
            domain: words.domain()?,
            timeout_s: words.timeout()?,
        },
        "receive" => Command::Receive {
            timeout_s: words.timeout()?,
        },
        "reconnect" => Command::Reconnect {
            timeout_s: words.timeout()?.unwrap_or(RECONNECT_TIMEOUT_S),
        },
        "decide" => {
            let domain = words.domain()?;
            let action = match words.needed("reclaim, discard or take")? {
                "reclaim" => RightAction::SourceReclaim,
                "discard" => RightAction::ReceiverDiscard,
                "take" => RightAction::ReceiverForceTake,
                other => return Err(unexpected(other, "reclaim, discard or take")),
            };
            Command::Decide(domain, action)
        }
        "console" => {
            let domain = words.domain()?;
            match words.next() {
                None => Command::Console(domain, None),
                Some("--") => return Ok(Command::Console(domain, Some(words.all()))),
                Some(other) => return Err(unexpected(other, "-- and text, or nothing")),
            }
        }
        "blob" => Command::Blob(words.domain()?),
        "host" => Command::Host,
        "help" => Command::Help,
        "poweroff" => Command::PowerOff,
        other => {
            return Err(Error::rule(
                "unknown-command",
                format_args!("{other:?}"),
                COMMANDS,
            ));
        }
    };
    match words.next() {
        None => Ok(parsed),
        Some(other) => Err(unexpected(other, "nothing more")),
    }
}

fn create(mut words: Words<'_>) -> Result<Command<'_>, Error> {
    let image = words.needed("IMAGE, a boot module's name")?;
    let (mut name, mut memory, mut spec, mut paused) = (None, None, None, false);
    let cmdline = loop {
        let before = words.all();
        match words.next() {
            None => break "",
            Some("--") => break words.all(),
            Some("paused") => paused = true,
            Some(word) => match word.split_once('=') {
                Some(("name", value)) => once(&mut name, "name", value)?,
                Some(("memory", value)) => once(&mut memory, "memory", size("memory", value)?)?,
                Some(("policy", value)) => once(&mut spec, "policy", value)?,
                _ => break before,
            },
        }
    };
    Ok(Command::Create {
        image,
        name: name.unwrap_or(image),
        memory_bytes: memory.unwrap_or(DEFAULT_MEMORY_BYTES),
        policy: spec,
        paused,
        cmdline,
    })
}

fn policy<'a>(words: &mut Words<'a>) -> Result<Command<'a>, Error> {
    let domain = words.domain()?;
    let Some(spec) = words.next() else {
        return Ok(Command::ShowPolicy(domain));
    };
    if spec.starts_with("drop=") {
        let allowed = "a policy, such as host:avx=0, before drop=";
        return Err(Error::rule(
            "argument-missing",
            format_args!("{spec:?}"),
            allowed,
        ));
    }
    let mut drop = 0;
    if let Some(word) = words.next() {
        let names = word
            .strip_prefix("drop=")
            .ok_or_else(|| unexpected(word, "drop=NAME,… or nothing"))?;
        for name in names.split(',') {
            let known = component(name).ok_or_else(|| {
                let allowed = "a component's name (x87, sse, avx, pkru …) or number";
                Error::rule("component-name", format_args!("{name:?}"), allowed)
            })?;
            drop |= known.bit();
        }
    }
    Ok(Command::SetPolicy { domain, spec, drop })
}

/// The words of a line, and what is left behind them.
#[derive(Clone, Copy)]
struct Words<'a> {
    rest: &'a str,
}

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let rest = self.rest.trim_start();
        if rest.is_empty() {
            return None;
        }
        let (word, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        self.rest = rest;
        Some(word)
    }

    /// All that is left, as written.
    fn all(&self) -> &'a str {
        self.rest.trim()
    }

    fn needed(&mut self, what: &str) -> Result<&'a str, Error> {
        self.next()
            .ok_or_else(|| Error::rule("argument-missing", "the line's end", what))
    }

    fn domain(&mut self) -> Result<DomainId, Error> {
        let word = self.needed("ID, a domain's number as `list` shows it")?;
        word.parse().map(DomainId).map_err(|_| {
            let allowed = "a domain's number as `list` shows it";
            Error::rule("domain-number", format_args!("{word:?}"), allowed)
        })
    }

    fn timeout(&mut self) -> Result<Option<u64>, Error> {
        let Some(word) = self.next() else {
            return Ok(None);
        };
        let value = word
            .strip_prefix("timeout=")
            .ok_or_else(|| unexpected(word, "timeout=SECONDS or nothing"))?;
        let seconds = value
            .parse()
            .ok()
            .filter(|s| (1..=MAX_TIMEOUT_S).contains(s));
        seconds.map(Some).ok_or_else(|| {
            let allowed = format_args!("1 to {MAX_TIMEOUT_S} seconds");
            Error::rule("timeout", format_args!("{value:?}"), allowed)
        })
    }
}

fn once<T>(place: &mut Option<T>, name: &str, value: T) -> Result<(), Error> {
    if place.replace(value).is_some() {
        let seen = format_args!("{name}= twice");
        return Err(Error::rule("argument-repeated", seen, "once"));
    }
    Ok(())
}

fn unexpected(seen: &str, allowed: &str) -> Error {
    Error::rule("argument-unexpected", format_args!("{seen:?}"), allowed)
}

/// Bytes, with K, M or G for powers of 1024.
fn size(what: &str, text: &str) -> Result<u64, Error> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (text.get(..text.len() - 1), 10),
        Some(b'M' | b'm') => (text.get(..text.len() - 1), 20),
        Some(b'G' | b'g') => (text.get(..text.len() - 1), 30),
        _ => (Some(text), 0),
    };
    digits
        .and_then(|digits| digits.parse::<u64>().ok())
        .and_then(|number| number.checked_mul(1 << shift))
        .filter(|bytes| *bytes != 0)
        .ok_or_else(|| {
            let seen = alloc::format!("{what} {text:?}");
            Error::rule(
                "size",
                seen,
                "a number of bytes, or with K, M or G behind it",
            )
        })
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
