//! What goes to standard output: a reader that has read enough is no error, and masks survive JSON.

use std::io::{self, ErrorKind, Write};

use anyhow::{Context, Result};
use serde_json::Value;

/// Prints all of it, unless the reader closes the pipe before the end.
pub fn print(text: &str) -> Result<()> {
    put(&mut io::stdout().lock(), text)
}

/// A mask, register or address as programs get it: JSON's numbers end at 2⁵³.
pub fn hex(value: u64) -> Value {
    Value::String(format!("{value:#x}"))
}

fn put(to: &mut impl Write, text: &str) -> Result<()> {
    match to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("standard output"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Failing(ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// `machines | head -1` panicked.
    #[test]
    fn a_closed_pipe_is_no_error_and_a_full_disk_is_one() {
        assert!(put(&mut Failing(ErrorKind::BrokenPipe), "text").is_ok());
        assert!(put(&mut Failing(ErrorKind::StorageFull), "text").is_err());
    }
}
