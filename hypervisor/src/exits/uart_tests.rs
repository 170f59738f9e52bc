//! The UART as drivers use it.

use super::*;
use std::vec::Vec;

fn text(uart: &mut Uart) -> Vec<u8> {
    core::iter::from_fn(|| uart.pop_output()).collect()
}

#[test]
fn polled_output_and_input() {
    let mut uart = Uart::new();
    for byte in *b"hello" {
        assert_eq!(uart.read(LSR) & 0x60, 0x60);
        uart.write(THR, byte);
    }
    assert_eq!(uart.output().collect::<Vec<_>>(), b"hello");
    assert_eq!(text(&mut uart), b"hello");
    assert_eq!(uart.read(LSR) & 1, 0);
    assert!(uart.push_input(b'x'));
    assert_eq!(uart.read(LSR) & 1, 1);
    assert_eq!((uart.read(THR), uart.read(LSR) & 1), (b'x', 0));
    assert_eq!(uart.read(THR), 0);
}

#[test]
fn output_that_nobody_reads_loses_its_oldest_bytes() {
    let mut uart = Uart::new();
    for number in 0..5000_u32 {
        uart.write(THR, number as u8);
    }
    assert_eq!((uart.output_len(), uart.dropped_bytes()), (4096, 904));
    let kept: Vec<u8> = (904..5000_u32).map(|number| number as u8).collect();
    assert_eq!(text(&mut uart), kept);
}

#[test]
fn input_is_refused_when_there_is_no_room() {
    let mut uart = Uart::new();
    let mut taken = 0;
    while uart.push_input(taken as u8) {
        taken += 1;
    }
    assert_eq!((taken, uart.input_room()), (256, 0));
    assert_eq!(uart.read(LSR) & 2, 0);
    assert_eq!(uart.read(THR), 0);
    assert!(uart.push_input(7));
}

#[test]
fn the_divisor_latch_hides_data_and_interrupt_enable() {
    let mut uart = Uart::new();
    uart.write(IER, 0xff);
    uart.write(LCR, 0x83);
    uart.write(THR, 0x0c);
    uart.write(IER, 0x01);
    assert_eq!((uart.read(THR), uart.read(IER)), (0x0c, 0x01));
    uart.write(LCR, 0x03);
    assert_eq!((uart.read(IER), uart.output_len()), (0x0f, 0));
}

/// What Linux's 8250 driver looks for: loopback, then FIFOs that stay.
#[test]
fn a_driver_finds_a_16550a() {
    let mut uart = Uart::new();
    assert_eq!(uart.read(MSR), 0xb0);
    uart.write(MCR, 0x10 | 0x0a);
    assert_eq!(uart.read(MSR) & 0xf0, 0x90);
    uart.write(MCR, 0x10 | 0x05);
    assert_eq!(uart.read(MSR) & 0xf0, 0x60);
    uart.write(THR, 0x5a);
    assert_eq!((uart.read(THR), uart.output_len()), (0x5a, 0));
    uart.write(MCR, 0);
    assert_eq!(uart.read(IIR) >> 6, 0);
    uart.write(IIR, 0x01);
    assert_eq!(uart.read(IIR) >> 6, 3);
    uart.write(SCR, 0xae);
    assert_eq!(uart.read(SCR), 0xae);
}

#[test]
fn interrupts_by_priority() {
    let mut uart = Uart::new();
    assert!(!uart.interrupt());
    uart.write(IER, 0x02);
    assert!(uart.interrupt());
    // Reading IIR acknowledges the transmitter, and nothing else.
    assert_eq!((uart.read(IIR), uart.read(IIR)), (0x02, 0x01));
    uart.write(THR, b'a');
    assert!(uart.interrupt());
    uart.write(IER, 0x07);
    assert!(uart.push_input(1));
    assert_eq!((uart.read(IIR), uart.read(IIR)), (0x04, 0x04));
    assert_eq!(uart.read(THR), 1);
    assert_eq!(uart.read(IIR), 0x02);
    // Overrun happens in loopback alone, and goes before all.
    uart.write(MCR, 0x10);
    for byte in 0..=255 {
        uart.write(THR, byte);
    }
    assert_eq!(uart.read(IIR), 0x04);
    uart.write(THR, 0);
    assert_eq!(uart.read(IIR), 0x06);
    assert_eq!(uart.read(LSR) & 3, 3);
    assert_eq!((uart.read(LSR) & 3, uart.read(IIR)), (1, 0x04));
}

#[test]
fn fewer_bytes_than_the_trigger_time_out() {
    let mut uart = Uart::new();
    uart.write(IIR, 0x41);
    uart.write(IER, 0x01);
    assert!(uart.push_input(1));
    assert_eq!(uart.read(IIR), 0xcc);
    for byte in 2..5 {
        assert!(uart.push_input(byte));
    }
    assert_eq!(uart.read(IIR), 0xc4);
    uart.write(IIR, 0x43);
    assert_eq!((uart.read(IIR), uart.read(LSR) & 1), (0xc1, 0));
}

#[test]
fn registers_move_to_another_host_and_a_waiting_driver_goes_on() {
    let mut uart = Uart::new();
    uart.write(LCR, 0x83);
    uart.write(THR, 0x01);
    uart.write(IER, 0x02);
    uart.write(LCR, 0x03);
    for (register, value) in [(IER, 0x03), (MCR, 0x0b), (SCR, 0x77), (IIR, 0x87)] {
        uart.write(register, value);
    }
    assert_eq!(uart.read(IIR) & 0xf, 0x02);
    let moved = Uart::import(uart.export());
    assert_eq!(moved.export(), uart.export());
    assert!(moved.interrupt());
    let state = UartState {
        ier: 0x03,
        lcr: 0x03,
        mcr: 0x0b,
        scr: 0x77,
        dll: 1,
        dlm: 2,
        fcr: 0x81,
    };
    assert_eq!(moved.export(), state);
    let wild = UartState {
        ier: 0xff,
        mcr: 0xff,
        fcr: 0xff,
        ..state
    };
    let tamed = UartState {
        ier: 0x0f,
        mcr: 0x1f,
        fcr: 0xc9,
        ..state
    };
    assert_eq!(Uart::import(wild).export(), tamed);
}
