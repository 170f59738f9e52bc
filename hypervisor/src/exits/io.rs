//! A domain's port space: a UART at COM1's ports, and nothing else.
//!
//! What is absent answers as an open bus does: reads are all ones, writes go
//! nowhere. An access of two or four bytes is one of so many single ports, as
//! the UART is a device of 8 bits (SDM Vol. 1, 19.3 I/O Address Space).

use super::decode::Width;
use super::uart::{PORTS, Uart};

/// The first of the UART's eight ports: COM1.
pub const UART_BASE: u16 = 0x3f8;

/// The UART's register that a port is.
const fn uart_register(port: u16) -> Option<u8> {
    match port.checked_sub(UART_BASE) {
        // Less than 8.
        Some(register) if register < PORTS => Some(register as u8),
        _ => None,
    }
}

/// Reads `width` bytes at `port`, zero-extended.
pub fn read(uart: &mut Uart, port: u16, width: Width) -> u32 {
    let mut value = 0;
    for byte in 0..width.bytes() {
        let register = port.checked_add(u16::from(byte)).and_then(uart_register);
        let read = register.map_or(0xff, |register| uart.read(register));
        value |= u32::from(read) << (8 * byte);
    }
    value
}

/// Writes the low `width` bytes of `value` at `port`.
pub fn write(uart: &mut Uart, port: u16, width: Width, value: u32) {
    let bytes = value.to_le_bytes();
    for (offset, byte) in (0..u16::from(width.bytes())).zip(bytes) {
        if let Some(register) = port.checked_add(offset).and_then(uart_register) {
            uart.write(register, byte);
        }
    }
}

/// RAX after IN: AL and AX leave the rest alone, EAX clears the upper half, as
/// every 32-bit result does (SDM Vol. 1, 3.4.1.1).
#[must_use]
pub const fn merge_rax(rax: u64, width: Width, value: u32) -> u64 {
    let value = value as u64;
    match width {
        Width::Byte => rax & !0xff | value & 0xff,
        Width::Word => rax & !0xffff | value & 0xffff,
        Width::Dword => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exits::uart::{LCR, SCR, THR};

    #[test]
    fn absent_ports_read_ones_and_swallow_writes() {
        let mut uart = Uart::new();
        for port in [0, 0x3f7, 0x400, 0xffff] {
            assert_eq!(read(&mut uart, port, Width::Byte), 0xff, "{port:#x}");
            write(&mut uart, port, Width::Byte, 0x55);
        }
        assert_eq!(read(&mut uart, 0x400, Width::Dword), 0xffff_ffff);
        assert_eq!(read(&mut uart, 0xffff, Width::Word), 0xffff);
        assert_eq!(uart.output_len(), 0);
    }

    #[test]
    fn wide_accesses_are_so_many_ports() {
        let mut uart = Uart::new();
        // LCR and MCR at once.
        write(&mut uart, UART_BASE + 3, Width::Word, 0x0b03);
        assert_eq!(read(&mut uart, UART_BASE + 3, Width::Word), 0x0b03);
        assert_eq!(uart.read(LCR), 3);
        // The last port, and three absent ones behind it.
        write(&mut uart, UART_BASE + 7, Width::Dword, 0x1122_3344);
        assert_eq!(uart.read(SCR), 0x44);
        assert_eq!(read(&mut uart, UART_BASE + 7, Width::Dword), 0xffff_ff44);
        // One absent port before it, then THR.
        write(&mut uart, UART_BASE - 1, Width::Word, 0x4100);
        assert_eq!(uart.pop_output(), Some(b'A'));
        assert_eq!(THR, 0);
    }

    #[test]
    fn results_go_into_rax_by_width() {
        let rax = 0x1122_3344_5566_7788;
        assert_eq!(
            merge_rax(rax, Width::Byte, 0xffff_ffaa),
            0x1122_3344_5566_77aa
        );
        assert_eq!(
            merge_rax(rax, Width::Word, 0xffff_aabb),
            0x1122_3344_5566_aabb
        );
        assert_eq!(merge_rax(rax, Width::Dword, 0xaabb_ccdd), 0xaabb_ccdd);
    }
}
