//! A 16550 UART, polled (TI/National PC16550D data sheet, 8.0 Registers).
#![allow(unsafe_code)] // port input and output

use x86::io::{inb, outb};

/// I/O base of the first serial port.
pub const COM1: u16 = 0x3f8;

const DATA: u16 = 0;
const INTERRUPT_ENABLE: u16 = 1;
const FIFO_CONTROL: u16 = 2;
const LINE_CONTROL: u16 = 3;
const MODEM_CONTROL: u16 = 4;
const LINE_STATUS: u16 = 5;

const DIVISOR_LATCH: u8 = 0x80;
const EIGHT_BITS: u8 = 0x03;
const FIFO_ON_AND_CLEAR: u8 = 0xc7;
const DTR_RTS_OUT2: u8 = 0x0b;
const RECEIVED: u8 = 0x01;
const TRANSMIT_EMPTY: u8 = 0x20;

/// Polls before a byte is given up: a port that hangs must not hang us. At 115200
/// baud a byte takes 87 µs, a poll about 1 µs on hardware.
const PATIENCE: u32 = 1_000_000;

/// A serial port.
pub struct Serial {
    base: u16,
}

impl Serial {
    /// The port at `base`, not yet set up.
    pub const fn new(base: u16) -> Self {
        Self { base }
    }

    /// 115200 baud, 8N1, FIFOs on, no interrupts.
    pub fn init(&mut self) {
        self.write(INTERRUPT_ENABLE, 0);
        self.write(LINE_CONTROL, DIVISOR_LATCH);
        self.write(DATA, 1);
        self.write(INTERRUPT_ENABLE, 0);
        self.write(LINE_CONTROL, EIGHT_BITS);
        self.write(FIFO_CONTROL, FIFO_ON_AND_CLEAR);
        self.write(MODEM_CONTROL, DTR_RTS_OUT2);
    }

    /// Sends a byte. One poll for each: Bochs paces bytes, and drops what does
    /// not wait.
    pub fn send(&mut self, byte: u8) {
        for _ in 0..PATIENCE {
            if self.read(LINE_STATUS) & TRANSMIT_EMPTY != 0 {
                break;
            }
            core::hint::spin_loop();
        }
        self.write(DATA, byte);
    }

    /// A byte that was received, if there is one.
    pub fn receive(&mut self) -> Option<u8> {
        let status = self.read(LINE_STATUS);
        // All ones: there is no port.
        let received = status != 0xff && status & RECEIVED != 0;
        received.then(|| self.read(DATA))
    }

    fn read(&mut self, register: u16) -> u8 {
        // SAFETY: at CPL 0; the registers of a UART at `base`, which the
        // hypervisor owns, touch no memory. Without a UART this reads ones.
        unsafe { inb(self.base + register) }
    }

    fn write(&mut self, register: u16, value: u8) {
        // SAFETY: as in `read`.
        unsafe { outb(self.base + register, value) }
    }
}
