//! A program's side of the toolstack's shell.
//!
//! A line `#TAG command…` is answered by lines `TAG| …` and a last one that is
//! `TAG= ok` or `TAG= error ERRNO reason: text`. Tags are never used twice, so
//! whatever else is printed on the console cannot be mistaken for an answer.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::console::Console;

/// What the shell prints when it is ready for a person, and so for a program.
pub const PROMPT: &str = "xferry> ";

/// How long a command may take that does nothing over the link.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What the shell refused, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Xen's name of the error.
    pub errno: String,
    /// The rule that was broken.
    pub reason: String,
    /// The message for people: what was seen, what was allowed.
    pub text: String,
}

impl Refusal {
    /// Whether the rule or the message names `what`.
    pub fn names(&self, what: &str) -> bool {
        self.reason.contains(what) || self.text.contains(what)
    }

    fn parse(rest: &str) -> Option<Self> {
        let (head, text) = rest.split_once(':').unwrap_or((rest, ""));
        let (errno, reason) = head.trim().split_once(' ').unwrap_or((head.trim(), ""));
        (!errno.is_empty()).then(|| Self {
            errno: errno.to_owned(),
            reason: reason.trim().to_owned(),
            text: text.trim().to_owned(),
        })
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.errno, self.reason, self.text)
    }
}

impl std::error::Error for Refusal {}

/// A command's answer: the lines it printed, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What it printed, without tags.
    pub lines: Vec<String>,
    /// Whether it was done.
    pub outcome: Result<(), Refusal>,
}

impl Answer {
    /// The lines of a command that has to have been done.
    pub fn done(self) -> Result<Vec<String>, Refusal> {
        self.outcome.map(|()| self.lines)
    }
}

/// The shell of one machine.
pub struct Shell<'a> {
    machine: &'a str,
    console: &'a Console,
}

/// A command that was typed and whose answer was not read yet.
#[must_use]
pub struct Pending<'a> {
    machine: &'a str,
    console: &'a Console,
    tag: String,
    from: usize,
    command: String,
}

impl<'a> Shell<'a> {
    /// The shell on `console` of the machine called `machine`.
    pub fn new(machine: &'a str, console: &'a Console) -> Self {
        Self { machine, console }
    }

    /// Waits until it was booted.
    pub fn ready(&self, limit: Duration) -> Result<()> {
        self.console
            .wait(0, limit, |text| text.contains(PROMPT).then_some(()))
            .with_context(|| format!("waiting for the shell of machine {}", self.machine))
    }

    /// Types `command` and does not wait.
    pub fn start(&self, command: &str) -> Result<Pending<'a>> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let tag = format!("x{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let from = self.console.position();
        self.console.type_in(&format!("#{tag} {command}\n"))?;
        Ok(Pending {
            machine: self.machine,
            console: self.console,
            tag,
            from,
            command: command.to_owned(),
        })
    }

    /// Runs `command` to its end, whatever that is.
    pub fn ask(&self, command: &str) -> Result<Answer> {
        self.start(command)?.wait(PATIENCE)
    }

    /// Runs `command`, which must be done, and gives what it printed.
    pub fn run(&self, command: &str) -> Result<Vec<String>> {
        self.ask(command)?
            .done()
            .with_context(|| format!("machine {}: {command}", self.machine))
    }

    /// Runs `command`, which must be refused, and gives why.
    pub fn refused(&self, command: &str) -> Result<Refusal> {
        match self.ask(command)?.outcome {
            Err(refusal) => Ok(refusal),
            Ok(()) => anyhow::bail!(
                "machine {}: {command}: was done, and should have been refused",
                self.machine
            ),
        }
    }
}

impl Pending<'_> {
    /// Waits for the answer.
    pub fn wait(self, limit: Duration) -> Result<Answer> {
        self.console
            .wait(self.from, limit, |text| parse(text, &self.tag))
            .with_context(|| format!("machine {}: {}", self.machine, self.command))
    }
}

/// The answer to `tag` in `text`, once its last line is complete.
fn parse(text: &str, tag: &str) -> Option<Answer> {
    let output = format!("{tag}| ");
    let end = format!("{tag}= ");
    let mut lines = Vec::new();
    // The last piece is a line that may still grow.
    let (complete, _) = text.rsplit_once('\n')?;
    for line in complete.lines() {
        // A prompt may stand before it. The tag stands at the start of a word,
        // or `x1` would be found in `x11`'s answer.
        let line = line.trim_start_matches(PROMPT).trim_end();
        if let Some(rest) = line.strip_prefix(&output) {
            lines.push(rest.to_owned());
        } else if line == output.trim_end() {
            lines.push(String::new());
        } else if let Some(rest) = line.strip_prefix(&end) {
            let outcome = if rest == "ok" {
                Ok(())
            } else {
                let rest = rest.strip_prefix("error ").unwrap_or(rest);
                Err(Refusal::parse(rest).unwrap_or(Refusal {
                    errno: String::new(),
                    reason: String::new(),
                    text: rest.to_owned(),
                }))
            };
            return Some(Answer { lines, outcome });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_found_among_other_lines() {
        let text = "xferry> #x1 list\r\n(xferry) domain 1 built\r\nx11| not this\r\nx1| 1 torture\r\nx1| \r\nxferry> x1| 2 torture\r\nx1= ok\r\nxferry> ";
        let answer = parse(text, "x1").unwrap();
        assert_eq!(answer.done().unwrap(), ["1 torture", "", "2 torture"]);
    }

    #[test]
    fn an_unfinished_answer_is_none() {
        assert_eq!(parse("x1| a\nx1= ok", "x1"), None);
        assert_eq!(parse("x1| a\n", "x1"), None);
        assert_eq!(parse("", "x1"), None);
    }

    #[test]
    fn refusals_keep_their_parts() {
        let answer = parse("x2= error EINVAL xcomp-bv-bit-63: saw 0, allowed 1\n", "x2").unwrap();
        let refusal = answer.done().unwrap_err();
        assert_eq!(refusal.errno, "EINVAL");
        assert_eq!(refusal.reason, "xcomp-bv-bit-63");
        assert_eq!(refusal.text, "saw 0, allowed 1");
        assert!(refusal.names("bit-63") && !refusal.names("pkru"));

        let bare = parse("x3= error ENOENT\n", "x3")
            .unwrap()
            .done()
            .unwrap_err();
        assert_eq!((bare.errno.as_str(), bare.reason.as_str()), ("ENOENT", ""));
    }
}
