//! A 16550 at COM1, polled: the console where there are no hypercalls, and a
//! way to exercise the hypervisor's emulated one.
#![allow(unsafe_code)] // port I/O

use crate::cpu::{inb, outb};

const PORT: u16 = 0x3f8;
const LINE_STATUS: u16 = PORT + 5;
const DATA_READY: u8 = 1;
const HOLDING_EMPTY: u8 = 1 << 5;

/// Polls before a byte is given up: no device answers with all ones, a device
/// that is stuck never answers.
const PATIENCE: u32 = 1_000_000;

/// 115200 baud, 8N1, FIFOs on, no interrupts.
pub fn init() {
    let steps = [
        (1, 0x00),
        (3, 0x80),
        (0, 0x01),
        (1, 0x00),
        (3, 0x03),
        (2, 0x07),
        (4, 0x03),
    ];
    for (register, value) in steps {
        // SAFETY: COM1's registers; it moves no memory.
        unsafe { outb(PORT + register, value) }
    }
}

/// Writes all of `bytes`, each as soon as the device takes it.
pub fn write(bytes: &[u8]) {
    for &byte in bytes {
        // SAFETY: COM1's line status; reading it clears error bits only.
        let ready = (0..PATIENCE).any(|_| unsafe { inb(LINE_STATUS) } & HOLDING_EMPTY != 0);
        if !ready {
            return;
        }
        // SAFETY: COM1's data register; it moves no memory.
        unsafe { outb(PORT, byte) }
    }
}

/// Takes what waits, at most `buffer.len()` bytes; returns how many.
pub fn read(buffer: &mut [u8]) -> usize {
    let mut count = 0;
    for place in buffer {
        // SAFETY: COM1's line status; reading it clears error bits only.
        let status = unsafe { inb(LINE_STATUS) };
        if status == 0xff || status & DATA_READY == 0 {
            break;
        }
        // SAFETY: COM1's data register; what waited is ours to take.
        *place = unsafe { inb(PORT) };
        count += 1;
    }
    count
}
