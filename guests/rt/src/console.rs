//! The guest's console: hypercall under Xferry, UART elsewhere or on request.

use crate::{hypercall, uart};
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};

/// Bytes gathered before they are passed on, so that a line is one call.
const BUFFER_BYTES: usize = 256;

/// How often in a row the console may take nothing before the rest is dropped:
/// a console that nobody reads must not stop the guest.
const PATIENCE: u32 = 1000;

static USE_UART: AtomicBool = AtomicBool::new(false);

/// Gets the console ready. Called once at start.
pub fn init() {
    if !hypercall::available() {
        use_uart();
    }
}

/// From now on the console is the UART, under a hypervisor its emulated one.
pub fn use_uart() {
    uart::init();
    USE_UART.store(true, Ordering::Relaxed);
}

/// Writes all of `bytes`, waiting while the console is full.
pub fn write(bytes: &[u8]) {
    if USE_UART.load(Ordering::Relaxed) {
        return uart::write(bytes);
    }
    let (mut rest, mut refusals) = (bytes, 0);
    while !rest.is_empty() && refusals < PATIENCE {
        match hypercall::console_write(rest) {
            Ok(0) | Err(_) => {
                refusals += 1;
                hypercall::yield_now();
            }
            Ok(moved) => {
                refusals = 0;
                rest = rest.get(moved..).unwrap_or_default();
            }
        }
    }
}

/// Takes what waits in the input; returns how many bytes, 0 for none.
pub fn read(buffer: &mut [u8]) -> usize {
    if USE_UART.load(Ordering::Relaxed) {
        uart::read(buffer)
    } else {
        hypercall::console_read(buffer).unwrap_or(0)
    }
}

/// Formats into a buffer and writes it out in as few calls as possible.
pub struct Writer {
    buffer: [u8; BUFFER_BYTES],
    length: usize,
}

impl Writer {
    /// An empty one.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            buffer: [0; BUFFER_BYTES],
            length: 0,
        }
    }

    /// Passes on what was gathered.
    pub fn flush(&mut self) {
        write(self.buffer.get(..self.length).unwrap_or_default());
        self.length = 0;
    }
}

impl Default for Writer {
    fn default() -> Self {
        Self::new()
    }
}

impl Write for Writer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            if self.length == BUFFER_BYTES {
                self.flush();
            }
            if let Some(place) = self.buffer.get_mut(self.length) {
                *place = byte;
                self.length += 1;
            }
        }
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Behind [`crate::print!`] and [`crate::println!`].
#[doc(hidden)]
pub fn print(arguments: fmt::Arguments<'_>, end: &str) {
    let mut writer = Writer::new();
    // The writer itself never fails, only a `Display` could.
    let _ = writer
        .write_fmt(arguments)
        .and_then(|()| writer.write_str(end));
}

/// Writes formatted text to the console.
#[macro_export]
macro_rules! print {
    ($($argument:tt)*) => { $crate::console::print(format_args!($($argument)*), "") };
}

/// Writes a line of formatted text to the console.
#[macro_export]
macro_rules! println {
    ($($argument:tt)*) => { $crate::console::print(format_args!($($argument)*), "\n") };
}
