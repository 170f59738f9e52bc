//! The hypervisor's log and the console, both on the first serial port.
//!
//! A log line is `(xferry) level text`, always whole and always at the start of
//! a line, whatever the console's user was in the middle of. The console itself
//! is raw bytes: one call is never torn apart.

mod lines;
mod serial;

use crate::cpu::irq::IrqMutex;
use core::fmt::Write;
use lines::{ByteSink, Prefixed};
use log::{Level, LevelFilter, Log, Metadata, Record};
use serial::{COM1, Serial};

struct Port {
    serial: Serial,
    at_line_start: bool,
}

static PORT: IrqMutex<Port> = IrqMutex::new(Port {
    serial: Serial::new(COM1),
    at_line_start: true,
});

struct Logger;

static LOGGER: Logger = Logger;

impl ByteSink for Port {
    fn put(&mut self, byte: u8) {
        self.serial.send(byte);
        self.at_line_start = byte == b'\n';
    }
}

impl ByteSink for Serial {
    fn put(&mut self, byte: u8) {
        self.send(byte);
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let mut port = PORT.lock();
        if !port.at_line_start {
            port.put(b'\n');
        }
        let mut out = Prefixed::new(&mut *port, name_of(record.level()));
        // A sink of bytes cannot fail; a Display that does loses its own line.
        let _ = writeln!(out, "{}", record.args());
    }

    fn flush(&self) {}
}

const fn name_of(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

/// Sets the serial port up and makes it the log's, at level `info`.
pub fn init() {
    PORT.lock().serial.init();
    // Refused only if there is a logger already, and then it is this one.
    let _ = log::set_logger(&LOGGER);
    log::set_max_level(LevelFilter::Info);
}

/// Sets the level by its name (`off` to `trace`); false if it is none.
pub fn set_level(name: &str) -> bool {
    let level = name.parse::<LevelFilter>();
    level.map(log::set_max_level).is_ok()
}

/// Writes bytes to the console, as they are, in one piece.
pub fn console_write(bytes: &[u8]) {
    let mut port = PORT.lock();
    for byte in bytes {
        port.put(*byte);
    }
}

/// Reads what the console has received, without waiting; returns how many bytes
/// of `buffer` it filled.
pub fn console_read(buffer: &mut [u8]) -> usize {
    let mut port = PORT.lock();
    let mut count = 0;
    for slot in buffer {
        let Some(byte) = port.serial.receive() else {
            break;
        };
        *slot = byte;
        count += 1;
    }
    count
}

/// A writer for last words: lines `(xferry) panic text`, past the lock, because
/// whoever holds it may be who fails.
pub fn emergency() -> impl Write {
    let mut serial = Serial::new(COM1);
    if PORT.try_lock().is_none_or(|port| !port.at_line_start) {
        serial.put(b'\n');
    }
    Prefixed::new(serial, "panic")
}
