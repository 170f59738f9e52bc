//! A line as a person types it: characters, backspace, Ctrl-C and Ctrl-U, and
//! the lines before it by the up and down arrows.

use alloc::collections::VecDeque;
use alloc::string::String;

/// Longer lines are not taken further.
const LINE_MAX_CHARS: usize = 4096;
const HISTORY_LINES: usize = 32;

const CTRL_C: u8 = 3;
const BACKSPACE: u8 = 8;
const CTRL_U: u8 = 0x15;
const ESCAPE: u8 = 0x1b;
const DELETE: u8 = 0x7f;

/// What a byte led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// Nothing to be done.
    None,
    /// This is to be shown.
    Echo(String),
    /// The line is complete.
    Line(String),
    /// Ctrl-C: a new prompt.
    Cancelled,
}

/// Where in an escape sequence the input is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escape {
    No,
    Begun,
    /// Behind `ESC [` or `ESC O`.
    Sequence,
}

/// The line being typed.
#[derive(Clone, Debug)]
pub struct Editor {
    line: String,
    /// Bytes of a character that is not complete.
    partial: [u8; 4],
    partial_bytes: usize,
    escape: Escape,
    /// The last byte was a carriage return, and a line feed may belong to it.
    after_return: bool,
    history: VecDeque<String>,
    /// How many lines back the shown one is, 0 for the one being typed.
    back: usize,
    typed: String,
}

impl Editor {
    /// An empty line, no history.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            line: String::new(),
            partial: [0; 4],
            partial_bytes: 0,
            escape: Escape::No,
            after_return: false,
            history: VecDeque::new(),
            back: 0,
            typed: String::new(),
        }
    }

    /// Takes one byte of input.
    pub fn key(&mut self, byte: u8) -> Key {
        let after_return = core::mem::replace(&mut self.after_return, byte == b'\r');
        match (self.escape, byte) {
            (Escape::Begun, b'[' | b'O') => {
                self.escape = Escape::Sequence;
                Key::None
            }
            (Escape::Begun, _) => {
                self.escape = Escape::No;
                Key::None
            }
            (Escape::Sequence, b'0'..=b'9' | b';') => Key::None,
            (Escape::Sequence, end) => {
                self.escape = Escape::No;
                match end {
                    b'A' => self.recall(self.back + 1),
                    b'B' if self.back > 0 => self.recall(self.back - 1),
                    _ => Key::None,
                }
            }
            (Escape::No, ESCAPE) => {
                self.escape = Escape::Begun;
                Key::None
            }
            (Escape::No, b'\n') if after_return => Key::None,
            (Escape::No, b'\r' | b'\n') => Key::Line(self.complete()),
            (Escape::No, CTRL_C) => {
                self.reset();
                Key::Cancelled
            }
            (Escape::No, CTRL_U) => {
                let erased = erase(self.line.chars().count());
                self.line.clear();
                Key::Echo(erased)
            }
            (Escape::No, BACKSPACE | DELETE) => match self.line.pop() {
                Some(_) => Key::Echo(erase(1)),
                None => Key::None,
            },
            (Escape::No, byte) => self.character(byte),
        }
    }

    /// Adds a byte of UTF-8; what is none is dropped.
    fn character(&mut self, byte: u8) -> Key {
        let byte = if byte == b'\t' { b' ' } else { byte };
        if byte < 0x20 || self.line.len() >= LINE_MAX_CHARS {
            return Key::None;
        }
        if !(0x80..0xc0).contains(&byte) {
            self.partial_bytes = 0;
        }
        if let Some(place) = self.partial.get_mut(self.partial_bytes) {
            *place = byte;
            self.partial_bytes += 1;
        }
        let bytes = self.partial.get(..self.partial_bytes).unwrap_or_default();
        match core::str::from_utf8(bytes) {
            Ok(text) => {
                let text = String::from(text);
                self.partial_bytes = 0;
                self.line.push_str(&text);
                Key::Echo(text)
            }
            Err(_) => Key::None,
        }
    }

    fn complete(&mut self) -> String {
        let line = core::mem::take(&mut self.line);
        self.reset();
        // A program's lines are none that a person wants back.
        let worth = !line.trim().is_empty() && !line.starts_with('#');
        if worth && self.history.back() != Some(&line) {
            self.history.push_back(line.clone());
            if self.history.len() > HISTORY_LINES {
                self.history.pop_front();
            }
        }
        line
    }

    fn reset(&mut self) {
        self.line.clear();
        self.typed.clear();
        self.partial_bytes = 0;
        self.back = 0;
    }

    /// Shows the line `back` lines ago in place of the present one.
    fn recall(&mut self, back: usize) -> Key {
        let wanted = match back {
            0 => core::mem::take(&mut self.typed),
            back => match self
                .history
                .len()
                .checked_sub(back)
                .and_then(|at| self.history.get(at))
            {
                Some(line) => line.clone(),
                None => return Key::None,
            },
        };
        let mut shown = erase(self.line.chars().count());
        shown.push_str(&wanted);
        let left = core::mem::replace(&mut self.line, wanted);
        if self.back == 0 {
            self.typed = left;
        }
        self.back = back;
        Key::Echo(shown)
    }
}

impl Default for Editor {
    fn default() -> Self {
        Self::new()
    }
}

/// What takes `count` characters off a terminal.
fn erase(count: usize) -> String {
    "\u{8} \u{8}".repeat(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn lines(editor: &mut Editor, input: &[u8]) -> Vec<String> {
        let keys = input.iter().map(|byte| editor.key(*byte));
        keys.filter_map(|key| match key {
            Key::Line(line) => Some(line),
            _ => None,
        })
        .collect()
    }

    #[test]
    fn lines_end_with_any_line_end_once() {
        let mut editor = Editor::new();
        assert_eq!(
            lines(&mut editor, b"a\rb\nc\r\nd\n\r"),
            ["a", "b", "c", "d", ""]
        );
    }

    #[test]
    fn backspace_takes_a_character_and_not_a_byte() {
        let mut editor = Editor::new();
        assert_eq!(
            lines(&mut editor, "lix\u{8}stä\u{7f}\r".as_bytes()),
            ["list"]
        );
        assert_eq!(editor.key(0x7f), Key::None);
        assert_eq!(lines(&mut editor, b"nonsense\x15list\r"), ["list"]);
    }

    #[test]
    fn ctrl_c_forgets_the_line() {
        let mut editor = Editor::new();
        assert_eq!(lines(&mut editor, b"destroy 1"), [""; 0]);
        assert_eq!(editor.key(CTRL_C), Key::Cancelled);
        assert_eq!(lines(&mut editor, b"list\r"), ["list"]);
    }

    #[test]
    fn arrows_bring_lines_back() {
        let mut editor = Editor::new();
        let history = lines(&mut editor, b"one\rtwo\r#x1 program\rtwo\r");
        assert_eq!(history.len(), 4);
        assert_eq!(lines(&mut editor, b"\x1b[A\r"), ["two"]);
        assert_eq!(lines(&mut editor, b"\x1b[A\x1bOA\r"), ["one"]);
        // Up beyond the first stays there; down comes back to what was typed.
        assert_eq!(
            lines(
                &mut editor,
                b"new\x1b[A\x1b[A\x1b[A\x1b[B\x1b[B\x1b[B\x1b[B\r"
            ),
            ["new"]
        );
        assert_eq!(editor.key(b'x'), Key::Echo("x".into()));
        assert_eq!(editor.key(0x1b), Key::None);
        assert_eq!(editor.key(b'['), Key::None);
        let Key::Echo(shown) = editor.key(b'A') else {
            panic!()
        };
        assert_eq!(shown, "\u{8} \u{8}new");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = lines(&mut Editor::new(), &bytes);
        }
    }
}
