//! Text to lines that each begin with the log's prefix.

use core::fmt;

/// Takes bytes one by one.
pub(super) trait ByteSink {
    fn put(&mut self, byte: u8);
}

impl<S: ByteSink> ByteSink for &mut S {
    fn put(&mut self, byte: u8) {
        (**self).put(byte);
    }
}

/// Puts `(xferry) level ` before each line.
pub(super) struct Prefixed<S> {
    sink: S,
    level: &'static str,
    at_line_start: bool,
}

impl<S: ByteSink> Prefixed<S> {
    /// A writer that is at the start of a line.
    pub(super) const fn new(sink: S, level: &'static str) -> Self {
        Self {
            sink,
            level,
            at_line_start: true,
        }
    }

    fn raw(&mut self, text: &str) {
        for byte in text.bytes() {
            self.sink.put(byte);
        }
    }
}

impl<S: ByteSink> fmt::Write for Prefixed<S> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for line in text.split_inclusive('\n') {
            if self.at_line_start {
                self.raw("(xferry) ");
                self.raw(self.level);
                self.raw(" ");
            }
            self.raw(line);
            self.at_line_start = line.ends_with('\n');
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::fmt::Write;
    use std::vec::Vec;

    impl ByteSink for Vec<u8> {
        fn put(&mut self, byte: u8) {
            self.push(byte);
        }
    }

    #[test]
    fn every_line_of_a_message_has_the_prefix_once() {
        let mut bytes = Vec::new();
        let mut out = Prefixed::new(&mut bytes, "info");
        write!(out, "{}-{}\n\nlast\n", 1, 2).unwrap();
        let text = str::from_utf8(&bytes).unwrap();
        assert_eq!(
            text,
            "(xferry) info 1-2\n(xferry) info \n(xferry) info last\n"
        );
    }
}
