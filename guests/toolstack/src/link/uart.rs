//! COM2 as a link: a 16550 polled by port I/O, which this domain owns.
#![allow(unsafe_code)] // port I/O

use super::{Link, MILLISECOND_NS, SECOND_NS};
use crate::error::{Code, Error};
use alloc::vec::Vec;
use guest_rt::{clock, console, cpu, hypercall};

const PORT: u16 = 0x2f8;
const LINE_STATUS: u16 = PORT + 5;
const DATA_READY: u8 = 1;
/// The interrupt's cause. The line itself is masked: causes are only read.
const CAUSE: u16 = PORT + 2;
const CAUSE_MASK: u8 = 0x0f;
/// The receiver has reached its trigger level.
const RECEIVED: u8 = 4;
const TRIGGER_BYTES: usize = 14;
const HOLDING_EMPTY: u8 = 1 << 5;
/// What is read where there is no device.
const NO_DEVICE: u8 = 0xff;
/// Bytes that the transmitter takes once it said that it is empty.
const FIFO_BYTES: usize = 16;

/// A transmitter that takes nothing for so long is a link that is dead.
const STUCK_NS: u64 = 5 * SECOND_NS;
/// While bytes keep coming the gaps are far shorter than this, and the other
/// vCPUs' turn is far longer than a FIFO lasts: only a link that is silent for
/// longer gives the processor away.
const SPIN_NS: u64 = 2 * MILLISECOND_NS;

/// Between two looks that found nothing.
const BREATH_NS: u64 = 20_000;

/// Ctrl-C.
const INTERRUPT: u8 = 3;

/// The port, and what the user typed while it was waited on.
pub struct Com2 {
    last_byte_ns: u64,
    type_ahead: Vec<u8>,
}

impl Com2 {
    /// Sets it up: 115200 baud, 8N1, FIFOs on and empty, and the receiver tells
    /// its cause (the line is masked). The
    /// receiver's trigger level is the highest, 14 bytes: an emulator takes no
    /// more than that from its socket at a time.
    #[must_use]
    pub fn new() -> Self {
        let steps = [
            (1, 0x00),
            (3, 0x80),
            (0, 0x01),
            (1, 0x00),
            (3, 0x03),
            (2, 0xc7),
            (4, 0x03),
            (1, 0x01),
        ];
        for (register, value) in steps {
            // SAFETY: COM2 is this domain's; the device moves no memory.
            unsafe { cpu::outb(PORT + register, value) }
        }
        Self {
            last_byte_ns: 0,
            type_ahead: Vec::new(),
        }
    }

    /// What was typed during the last command.
    pub fn take_type_ahead(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.type_ahead)
    }

    fn line_status() -> Result<u8, Error> {
        // SAFETY: COM2 is this domain's; reading clears error bits only. A byte
        // lost to an overrun is found by the frame's checksum.
        match unsafe { cpu::inb(LINE_STATUS) } {
            NO_DEVICE => {
                let text = "saw no UART at 0x2f8 (COM2), allowed a 16550";
                Err(Error::new(Code::EIO, "link-missing", text))
            }
            status => Ok(status),
        }
    }

    /// Lets others run, and hears the user.
    fn pause(&mut self) -> Result<(), Error> {
        hypercall::yield_now();
        let mut typed = [0; 64];
        let count = console::read(&mut typed);
        let typed = typed.get(..count).unwrap_or_default();
        match typed.iter().position(|&byte| byte == INTERRUPT) {
            Some(at) => {
                self.type_ahead.clear();
                let rest = typed.get(at + 1..).unwrap_or_default();
                self.type_ahead.extend_from_slice(rest);
                Err(Error::new(Code::EINTR, "interrupted", "Ctrl-C was typed"))
            }
            None => {
                self.type_ahead.extend_from_slice(typed);
                Ok(())
            }
        }
    }
}

impl Default for Com2 {
    fn default() -> Self {
        Self::new()
    }
}

/// Leaves the device alone for a moment: each look at it takes a lock that an
/// emulator needs to move the next bytes.
fn breathe() {
    let start = clock::now_ns();
    while clock::now_ns().saturating_sub(start) < BREATH_NS {}
}

impl Link for Com2 {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        for burst in bytes.chunks(FIFO_BYTES) {
            if Self::line_status()? & HOLDING_EMPTY == 0 {
                let start = clock::now_ns();
                while Self::line_status()? & HOLDING_EMPTY == 0 {
                    let waited = clock::now_ns().saturating_sub(start);
                    if waited > STUCK_NS {
                        let text =
                            "the transmitter took nothing for 5 s: nobody reads the other end";
                        return Err(Error::new(Code::EIO, "link-stuck", text));
                    }
                    if waited > SPIN_NS {
                        self.pause()?;
                    }
                    breathe();
                }
            }
            for &byte in burst {
                // SAFETY: COM2 is this domain's; the FIFO was empty and holds a burst.
                unsafe { cpu::outb(PORT, byte) }
            }
        }
        self.last_byte_ns = clock::now_ns();
        Ok(())
    }

    fn read(&mut self, to: &mut [u8]) -> Result<usize, Error> {
        let mut count = 0;
        while let Some(room) = to.get_mut(count..).filter(|room| !room.is_empty()) {
            // At the trigger level one look stands for as many bytes.
            // SAFETY: COM2 is this domain's; reading the cause ends none that is
            // waited for.
            let cause = unsafe { cpu::inb(CAUSE) } & CAUSE_MASK;
            let waiting = if cause == RECEIVED {
                TRIGGER_BYTES
            } else if Self::line_status()? & DATA_READY != 0 {
                1
            } else {
                break;
            };
            for place in room.iter_mut().take(waiting) {
                // SAFETY: COM2 is this domain's, and what waits is ours to take.
                *place = unsafe { cpu::inb(PORT) };
                count += 1;
            }
        }
        if count != 0 {
            self.last_byte_ns = clock::now_ns();
        }
        Ok(count)
    }

    fn now_ns(&self) -> u64 {
        clock::now_ns()
    }

    fn idle(&mut self) -> Result<(), Error> {
        breathe();
        if clock::now_ns().saturating_sub(self.last_byte_ns) > SPIN_NS {
            self.pause()?;
        }
        Ok(())
    }
}
