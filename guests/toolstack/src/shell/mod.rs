//! The shell's two faces: people with a prompt and an editable line, programs
//! with tags.

mod editor;
mod help;
mod parse;

pub use editor::{Editor, Key};
pub use help::help_lines;
pub use parse::{Command, Line, parse_command, parse_line};

use crate::error::Error;
use crate::report::Output;
use alloc::string::String;
use core::fmt::{self, Write};

/// What stands before a line that a person types.
pub const PROMPT: &str = "xferry> ";

/// Prints a command's lines for a person, or behind a program's tag. Each line
/// is passed on whole, so that nothing gets in between.
pub struct Answer<'a> {
    write: &'a mut dyn FnMut(&str),
    tag: Option<&'a str>,
}

impl<'a> Answer<'a> {
    /// For a line with `tag`, or for a person.
    pub fn new(tag: Option<&'a str>, write: &'a mut dyn FnMut(&str)) -> Self {
        Self { write, tag }
    }

    /// Says how the command ended.
    pub fn end(&mut self, result: Result<(), Error>) {
        let mut text = String::new();
        // A String takes everything.
        let _ = match (self.tag, result) {
            (Some(tag), Ok(())) => writeln!(text, "{tag}= ok"),
            (Some(tag), Err(error)) => writeln!(text, "{tag}= error {error}"),
            (None, Ok(())) => Ok(()),
            (None, Err(error)) => writeln!(text, "error: {error}"),
        };
        if !text.is_empty() {
            (self.write)(&text);
        }
    }
}

impl Output for Answer<'_> {
    fn line(&mut self, arguments: fmt::Arguments<'_>) {
        let mut text = String::new();
        if let Some(tag) = self.tag {
            // A String takes everything.
            let _ = write!(text, "{tag}| ");
        }
        let _ = writeln!(text, "{arguments}");
        (self.write)(&text);
    }
}
