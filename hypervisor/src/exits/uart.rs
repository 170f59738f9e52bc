//! A domain's console as a guest that knows no hypercall sees it: a 16550A
//! (National Semiconductor PC16550D data sheet, section 8.0 Registers).
//!
//! ```text
//!   guest OUT ─► THR ─► output ring, 4 KiB ─► console_read, or the stream
//!   guest IN  ◄─ RBR ◄─ input ring, 256 B  ◄─ whoever has the console
//! ```
//!
//! Nothing blocks: a byte is sent as soon as it is written, so THRE and TEMT
//! are always set, and if nobody reads the output its oldest bytes are dropped
//! and counted. Input is refused while the ring is full, so it never overruns
//! but in loopback. Modem lines say that somebody is there.

#[cfg(test)]
#[path = "uart_tests.rs"]
mod tests;

/// Ports of the device.
pub const PORTS: u16 = 8;

/// Register 0: RBR when read, THR when written, DLL with LCR.DLAB.
pub const THR: u8 = 0;
/// Register 1: IER, or DLM with LCR.DLAB.
pub const IER: u8 = 1;
/// Register 2 when read; FCR when written.
pub const IIR: u8 = 2;
/// Register 3.
pub const LCR: u8 = 3;
/// Register 4.
pub const MCR: u8 = 4;
/// Register 5.
pub const LSR: u8 = 5;
/// Register 6.
pub const MSR: u8 = 6;
/// Register 7.
pub const SCR: u8 = 7;

/// Bits of IER.
mod ier {
    pub const RECEIVED: u8 = 1 << 0;
    pub const TRANSMITTER_EMPTY: u8 = 1 << 1;
    pub const LINE_STATUS: u8 = 1 << 2;
    pub const ALL: u8 = 0xf;
}

/// Values of IIR: the source of the interrupt, by falling priority.
mod iir {
    pub const LINE_STATUS: u8 = 0x06;
    pub const RECEIVED: u8 = 0x04;
    pub const TIMEOUT: u8 = 0x0c;
    pub const TRANSMITTER_EMPTY: u8 = 0x02;
    pub const NONE: u8 = 0x01;
    pub const FIFOS: u8 = 0xc0;
}

/// Bits of LSR.
mod lsr {
    pub const DATA_READY: u8 = 1 << 0;
    pub const OVERRUN: u8 = 1 << 1;
    pub const TRANSMITTER_EMPTY: u8 = 1 << 5 | 1 << 6;
}

/// Bits of FCR.
mod fcr {
    pub const ENABLE: u8 = 1 << 0;
    pub const CLEAR_RECEIVER: u8 = 1 << 1;
    /// Enable, DMA mode and trigger level stay; the clearing bits do not.
    pub const KEPT: u8 = 0xc9;
}

/// Bits of MCR.
mod mcr {
    pub const LOOPBACK: u8 = 1 << 4;
    pub const ALL: u8 = 0x1f;
}

const LCR_DLAB: u8 = 1 << 7;

/// CTS, DSR and DCD: the other side is ready.
const MSR_PRESENT: u8 = 0xb0;

const OUTPUT_BYTES: usize = 4096;
const INPUT_BYTES: usize = 256;

/// The registers that a guest has set, for the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UartState {
    /// Interrupt enable.
    pub ier: u8,
    /// Line control.
    pub lcr: u8,
    /// Modem control.
    pub mcr: u8,
    /// Scratch.
    pub scr: u8,
    /// Divisor, low byte.
    pub dll: u8,
    /// Divisor, high byte.
    pub dlm: u8,
    /// FIFO control, as last written, without its clearing bits.
    pub fcr: u8,
}

/// The device.
#[derive(Clone, Debug)]
pub struct Uart {
    state: UartState,
    output: Ring<OUTPUT_BYTES>,
    input: Ring<INPUT_BYTES>,
    dropped_bytes: u64,
    overrun: bool,
    /// The transmitter became empty, and IIR has not said so yet.
    transmitter_event: bool,
}

impl Default for Uart {
    fn default() -> Self {
        Self::new()
    }
}

impl Uart {
    /// After reset.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            state: UartState {
                ier: 0,
                lcr: 0,
                mcr: 0,
                scr: 0,
                dll: 0,
                dlm: 0,
                fcr: 0,
            },
            output: Ring::new(),
            input: Ring::new(),
            dropped_bytes: 0,
            overrun: false,
            transmitter_event: false,
        }
    }

    /// What a guest reads from register `register`, 0 to 7.
    pub fn read(&mut self, register: u8) -> u8 {
        let divisor = self.state.lcr & LCR_DLAB != 0;
        match register {
            THR if divisor => self.state.dll,
            THR => self.input.pop().unwrap_or(0),
            IER if divisor => self.state.dlm,
            IER => self.state.ier,
            IIR => {
                let cause = self.cause();
                if cause == iir::TRANSMITTER_EMPTY {
                    self.transmitter_event = false;
                }
                cause | if self.fifos() { iir::FIFOS } else { 0 }
            }
            LCR => self.state.lcr,
            MCR => self.state.mcr,
            LSR => self.take_line_status(),
            MSR => self.modem_status(),
            SCR => self.state.scr,
            _ => 0xff,
        }
    }

    /// What a guest's write to register `register`, 0 to 7, does.
    pub fn write(&mut self, register: u8, value: u8) {
        let divisor = self.state.lcr & LCR_DLAB != 0;
        match register {
            THR if divisor => self.state.dll = value,
            THR => self.transmit(value),
            IER if divisor => self.state.dlm = value,
            IER => {
                let before = self.state.ier;
                self.state.ier = value & ier::ALL;
                // The transmitter is empty at once when somebody asks.
                if self.state.ier & !before & ier::TRANSMITTER_EMPTY != 0 {
                    self.transmitter_event = true;
                }
            }
            IIR => self.control_fifos(value),
            LCR => self.state.lcr = value,
            MCR => self.state.mcr = value & mcr::ALL,
            SCR => self.state.scr = value,
            // LSR and MSR are read-only.
            _ => {}
        }
    }

    /// Whether the interrupt line is raised.
    #[must_use]
    pub fn interrupt(&self) -> bool {
        self.cause() != iir::NONE
    }

    /// Gives the guest a byte; `false`, and nothing done, if there is no room.
    #[must_use]
    pub fn push_input(&mut self, byte: u8) -> bool {
        self.input.push(byte)
    }

    /// Takes the oldest byte of input, for a guest that asks by hypercall.
    pub fn pop_input(&mut self) -> Option<u8> {
        self.input.pop()
    }

    /// How many bytes of input have room.
    #[must_use]
    pub const fn input_room(&self) -> usize {
        INPUT_BYTES - self.input.len
    }

    /// Takes the oldest byte of output.
    pub fn pop_output(&mut self) -> Option<u8> {
        self.output.pop()
    }

    /// How many bytes of output wait.
    #[must_use]
    pub const fn output_len(&self) -> usize {
        self.output.len
    }

    /// The output that waits, oldest byte first, without taking it.
    pub fn output(&self) -> impl Iterator<Item = u8> {
        self.output.iter()
    }

    /// Output that nobody read in time, bytes since reset.
    #[must_use]
    pub const fn dropped_bytes(&self) -> u64 {
        self.dropped_bytes
    }

    /// Adds a byte to the output, for one that is taken over from another host.
    pub fn push_output(&mut self, byte: u8) {
        if !self.output.push(byte) {
            let _ = self.output.pop();
            self.dropped_bytes = self.dropped_bytes.saturating_add(1);
            let _ = self.output.push(byte);
        }
    }

    /// The registers.
    #[must_use]
    pub const fn export(&self) -> UartState {
        self.state
    }

    /// A device with these registers, rings empty. Whether the guest has seen
    /// the last transmitter interrupt is not part of them: it gets one more,
    /// which does no harm, where one too few would stop it.
    #[must_use]
    pub const fn import(state: UartState) -> Self {
        let mut uart = Self::new();
        uart.state = UartState {
            ier: state.ier & ier::ALL,
            mcr: state.mcr & mcr::ALL,
            fcr: state.fcr & fcr::KEPT,
            ..state
        };
        uart.transmitter_event = true;
        uart
    }

    const fn fifos(&self) -> bool {
        self.state.fcr & fcr::ENABLE != 0
    }

    fn transmit(&mut self, byte: u8) {
        self.transmitter_event = true;
        if self.state.mcr & mcr::LOOPBACK == 0 {
            self.push_output(byte);
        } else if !self.input.push(byte) {
            self.overrun = true;
        }
    }

    fn control_fifos(&mut self, value: u8) {
        // Switching the FIFOs on or off clears them. Without the enable bit the
        // others are not looked at.
        let switched = (value ^ self.state.fcr) & fcr::ENABLE != 0;
        let enabled = value & fcr::ENABLE != 0;
        if switched || (enabled && value & fcr::CLEAR_RECEIVER != 0) {
            self.input = Ring::new();
        }
        self.state.fcr = if enabled { value & fcr::KEPT } else { 0 };
    }

    const fn line_status(&self) -> u8 {
        let ready = if self.input.len == 0 {
            0
        } else {
            lsr::DATA_READY
        };
        let overrun = if self.overrun { lsr::OVERRUN } else { 0 };
        lsr::TRANSMITTER_EMPTY | ready | overrun
    }

    const fn take_line_status(&mut self) -> u8 {
        let status = self.line_status();
        self.overrun = false;
        status
    }

    /// In loopback DTR, RTS, OUT1 and OUT2 come back as DSR, CTS, RI and DCD.
    const fn modem_status(&self) -> u8 {
        let control = self.state.mcr;
        if control & mcr::LOOPBACK == 0 {
            return MSR_PRESENT;
        }
        (control & 1) << 5 | (control & 2) << 3 | (control & 4) << 4 | (control & 8) << 4
    }

    /// Bytes at which the receiver interrupts.
    const fn trigger(&self) -> usize {
        match (self.fifos(), self.state.fcr >> 6) {
            (false, _) | (true, 0) => 1,
            (true, 1) => 4,
            (true, 2) => 8,
            (true, _) => 14,
        }
    }

    const fn cause(&self) -> u8 {
        let enabled = self.state.ier;
        if enabled & ier::LINE_STATUS != 0 && self.overrun {
            iir::LINE_STATUS
        } else if enabled & ier::RECEIVED != 0 && self.input.len >= self.trigger() {
            iir::RECEIVED
        } else if enabled & ier::RECEIVED != 0 && self.input.len != 0 {
            // Fewer than that: no time passes here, so they are late at once.
            iir::TIMEOUT
        } else if enabled & ier::TRANSMITTER_EMPTY != 0 && self.transmitter_event {
            iir::TRANSMITTER_EMPTY
        } else {
            iir::NONE
        }
    }
}

/// A queue of at most `N` bytes.
#[derive(Clone, Debug)]
struct Ring<const N: usize> {
    bytes: [u8; N],
    /// Below `N`.
    first: usize,
    /// At most `N`.
    len: usize,
}

impl<const N: usize> Ring<N> {
    const fn new() -> Self {
        Self {
            bytes: [0; N],
            first: 0,
            len: 0,
        }
    }

    fn push(&mut self, byte: u8) -> bool {
        if self.len == N {
            return false;
        }
        self.bytes[(self.first + self.len) % N] = byte;
        self.len += 1;
        true
    }

    fn pop(&mut self) -> Option<u8> {
        if self.len == 0 {
            return None;
        }
        let byte = self.bytes[self.first];
        self.first = (self.first + 1) % N;
        self.len -= 1;
        Some(byte)
    }

    fn iter(&self) -> impl Iterator<Item = u8> {
        (0..self.len).map(|at| self.bytes[(self.first + at) % N])
    }
}
