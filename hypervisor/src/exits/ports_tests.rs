//! IN, OUT, INS and OUTS as a guest sees them.

use super::*;
use crate::domain::status::Stop;
use crate::testing::{CODE, DATA, Guest};
use crate::virt::{Event, Exit};
use alloc::vec::Vec;

const COM1: u16 = 0x3f8;
/// REP OUTSB, REP INSB.
const REP_OUTSB: [u8; 2] = [0xf3, 0x6e];
const REP_INSB: [u8; 2] = [0xf3, 0x6c];

fn port(port: u16, width: u8, input: bool) -> IoExit {
    IoExit {
        port,
        width,
        input,
        string: false,
        repeat: false,
        next_rip: CODE + 1,
    }
}

fn io(guest: &mut Guest, exit: IoExit) {
    guest.at(&[0xee]);
    assert_eq!(guest.exit(Exit::Io(exit)), Next::Resume);
    assert_eq!((guest.event(), guest.rip()), (None, exit.next_rip));
}

/// The exit of a string instruction at [`CODE`].
fn string(guest: &Guest, code: &[u8], width: u8, input: bool) -> Exit {
    let next_rip = guest.at(code);
    Exit::Io(IoExit {
        string: true,
        repeat: code.contains(&0xf3),
        next_rip,
        ..port(COM1, width, input)
    })
}

fn output(guest: &Guest) -> Vec<u8> {
    let mut uart = guest.domain.console.lock();
    core::iter::from_fn(|| uart.pop_output()).collect()
}

fn page_fault(error_code: u32) -> Option<Event> {
    Some(Event::exception(14, Some(error_code)))
}

#[test]
fn the_16550_is_at_com1() {
    let mut guest = Guest::new("host");
    guest.set(gpr::RAX, 0x1122_3344_5566_7748);
    io(&mut guest, port(COM1, 1, false));
    assert_eq!(output(&guest), [0x48]);
    // Scratch register and back, then the line status.
    io(&mut guest, port(COM1 + 7, 1, false));
    guest.set(gpr::RAX, 0x1122_3344_5566_7700);
    io(&mut guest, port(COM1 + 7, 1, true));
    assert_eq!(guest.get(gpr::RAX), 0x1122_3344_5566_7748);
    io(&mut guest, port(COM1 + 5, 2, true));
    assert_eq!(guest.get(gpr::RAX), 0x1122_3344_5566_b060);
    // LCR, MCR, LSR, MSR at once: a 32-bit result clears the upper half.
    io(&mut guest, port(COM1 + 3, 4, true));
    assert_eq!(guest.get(gpr::RAX), 0xb060_0000);
}

#[test]
fn absent_ports_read_ones_at_every_width_and_swallow_writes() {
    let mut guest = Guest::new("host");
    for (width, expected) in [
        (1, 0x1122_3344_5566_77ff),
        (2, 0x1122_3344_5566_ffff),
        (4, 0xffff_ffff),
    ] {
        for number in [0x60, 0x2f8, 0x400, 0xcf8] {
            guest.set(gpr::RAX, 0x1122_3344_5566_7788);
            io(&mut guest, port(number, width, false));
            assert_eq!(guest.get(gpr::RAX), 0x1122_3344_5566_7788);
            io(&mut guest, port(number, width, true));
            assert_eq!(guest.get(gpr::RAX), expected, "{number:#x} {width}");
        }
    }
    assert!(output(&guest).is_empty());
    let stop = Stop::crash(crash::UNEXPECTED_EXIT, 3);
    let exit = Exit::Io(port(COM1, 3, true));
    assert_eq!(guest.exit(exit), Next::Stop(stop));
}

#[test]
fn an_emulated_port_access_is_single_stepped() {
    let mut guest = Guest::new("host");
    guest.at(&[0xee]);
    guest.change(|r| r.rflags |= 1 << 8);
    assert_eq!(guest.exit(Exit::Io(port(COM1, 1, false))), Next::Resume);
    assert_eq!(guest.event(), Some(Event::exception(1, None)));
    assert_eq!(guest.rip(), CODE + 1);
}

#[test]
fn rep_outs_reads_across_pages_that_lie_apart() {
    let mut guest = Guest::new("host");
    guest.map(DATA + 0x1000, 0x1_2000);
    guest.put(DATA + 0xffe, b"fe");
    guest.put(0x1_2000, b"rry");
    let exit = string(&guest, &REP_OUTSB, 1, false);
    guest.set(gpr::RSI, DATA + 0xffe);
    guest.set(gpr::RCX, 5);
    assert_eq!(guest.exit(exit), Next::Resume);
    assert_eq!((guest.event(), guest.rip()), (None, CODE + 2));
    assert_eq!(output(&guest), b"ferry");
    assert_eq!(
        (guest.get(gpr::RSI), guest.get(gpr::RCX)),
        (DATA + 0x1003, 0)
    );
    // A count of zero does nothing but end.
    guest.at(&REP_OUTSB);
    assert_eq!(guest.exit(exit), Next::Resume);
    assert_eq!((guest.rip(), output(&guest)), (CODE + 2, Vec::new()));
    assert_eq!(guest.get(gpr::RSI), DATA + 0x1003);
}

#[test]
fn a_fault_in_the_middle_leaves_the_registers_in_the_middle() {
    let mut guest = Guest::new("host");
    guest.map_with(DATA + 0x1000, 0);
    guest.put(DATA + 0xffe, b"ok");
    let exit = string(&guest, &REP_OUTSB, 1, false);
    guest.set(gpr::RSI, DATA + 0xffe);
    guest.set(gpr::RCX, 5);
    assert_eq!(guest.exit(exit), Next::Resume);
    assert_eq!(guest.event(), page_fault(0));
    assert_eq!(guest.read(Register::Cr2), DATA + 0x1000);
    assert_eq!((guest.rip(), output(&guest)), (CODE, b"ok".to_vec()));
    assert_eq!(
        (guest.get(gpr::RSI), guest.get(gpr::RCX)),
        (DATA + 0x1000, 3)
    );
    // The page comes, and the rest is done.
    guest.map(DATA + 0x1000, 0x1_2000);
    guest.put(0x1_2000, b"ay!");
    assert_eq!(guest.exit(exit), Next::Resume);
    assert_eq!((guest.rip(), output(&guest)), (CODE + 2, b"ay!".to_vec()));
}

#[test]
fn a_long_repetition_lets_others_in_between() {
    let mut guest = Guest::new("host");
    let exit = string(&guest, &REP_OUTSB, 1, false);
    guest.set(gpr::RSI, DATA);
    guest.set(gpr::RCX, BATCH + 44);
    assert_eq!(guest.exit(exit), Next::Resume);
    assert_eq!((guest.event(), guest.rip()), (None, CODE));
    assert_eq!(
        (guest.get(gpr::RSI), guest.get(gpr::RCX)),
        (DATA + BATCH, 44)
    );
    assert_eq!(guest.exit(exit), Next::Resume);
    assert_eq!((guest.get(gpr::RCX), guest.rip()), (0, CODE + 2));
    assert_eq!(output(&guest).len() as u64, BATCH + 44);
}

#[test]
fn a_repetition_that_is_single_stepped_traps_after_each_element() {
    let mut guest = Guest::new("host");
    guest.put(DATA, b"ab");
    let exit = string(&guest, &REP_OUTSB, 1, false);
    guest.set(gpr::RSI, DATA);
    guest.set(gpr::RCX, 2);
    guest.change(|r| r.rflags |= 1 << 8);
    let step = Some(Event::exception(1, None));
    assert_eq!(guest.exit(exit), Next::Resume);
    assert_eq!((guest.event(), guest.rip()), (step, CODE));
    assert_eq!((output(&guest), guest.get(gpr::RCX)), (b"a".to_vec(), 1));
    assert_eq!(guest.exit(exit), Next::Resume);
    assert_eq!((guest.event(), guest.rip()), (step, CODE + 2));
    assert_eq!((output(&guest), guest.get(gpr::RCX)), (b"b".to_vec(), 0));
}

#[test]
fn direction_address_size_and_segment_are_the_instructions() {
    let mut guest = Guest::new("host");
    guest.put(DATA, b"abc");
    // Backwards with 32-bit addresses: the upper halves go, as they do in any
    // 32-bit result.
    let exit = string(&guest, &[0x67, 0xf3, 0x6e], 1, false);
    guest.change(|r| r.rflags |= RFLAGS_DF);
    guest.set(gpr::RSI, 0xdead << 32 | (DATA + 2));
    guest.set(gpr::RCX, 0xdead << 32 | 3);
    assert_eq!(guest.exit(exit), Next::Resume);
    assert_eq!(output(&guest), b"cba");
    assert_eq!((guest.get(gpr::RSI), guest.get(gpr::RCX)), (DATA - 1, 0));
    // FS counts in 64-bit code, DS does not.
    guest.change(|r| {
        (r.rflags, r.fs.base, r.ds.base) = (2, DATA, 0x1_2000);
    });
    guest.put(DATA + 1, b"f");
    let exit = string(&guest, &[0x64, 0x6e], 1, false);
    guest.set(gpr::RSI, 1);
    assert_eq!(guest.exit(exit), Next::Resume);
    guest.put(0x1, b"d");
    let exit = string(&guest, &[0x6e], 1, false);
    guest.set(gpr::RSI, 1);
    assert_eq!(guest.exit(exit), Next::Resume);
    assert_eq!((output(&guest), guest.get(gpr::RSI)), (b"fd".to_vec(), 2));
}

#[test]
fn ins_writes_memory_and_a_fault_takes_no_input() {
    let mut guest = Guest::new("host");
    for byte in *b"in" {
        assert!(guest.domain.console.lock().push_input(byte));
    }
    let exit = string(&guest, &REP_INSB, 1, true);
    guest.set(gpr::RDI, DATA + 0xfff);
    guest.set(gpr::RCX, 2);
    // The second page may be read alone.
    guest.map_with(DATA + 0x1000, (DATA + 0x1000) | 5);
    guest.change(|r| r.cr0 |= cr0_wp());
    assert_eq!(guest.exit(exit), Next::Resume);
    assert_eq!(guest.event(), page_fault(3));
    assert_eq!(guest.read(Register::Cr2), DATA + 0x1000);
    assert_eq!(
        (guest.get(gpr::RDI), guest.get(gpr::RCX)),
        (DATA + 0x1000, 1)
    );
    guest.map(DATA + 0x1000, DATA + 0x1000);
    assert_eq!(guest.exit(exit), Next::Resume);
    assert_eq!((guest.event(), guest.rip()), (None, CODE + 2));
    assert_eq!(guest.take(DATA + 0xfff, 2), b"in");
}

const fn cr0_wp() -> u64 {
    crate::exits::cr::CR0_WP
}

#[test]
fn an_element_whose_end_faults_is_not_begun() {
    let mut guest = Guest::new("host");
    guest.map_with(DATA + 0x1000, 0);
    assert!(guest.domain.console.lock().push_input(b'x'));
    // INSD: four bytes, the last three on a page that is not there.
    let exit = string(&guest, &[0x6d], 4, true);
    guest.set(gpr::RDI, DATA + 0xfff);
    assert_eq!(guest.exit(exit), Next::Resume);
    assert_eq!(guest.event(), page_fault(2));
    assert_eq!(guest.take(DATA + 0xfff, 1), [0]);
    assert_eq!(guest.domain.console.lock().pop_input(), Some(b'x'));
}

#[test]
fn segments_are_checked_outside_64_bit_code() {
    let gp = Some(Event::GENERAL_PROTECTION);
    // Limit, type, present: a read through DS, or none.
    for (limit, attributes, event) in [
        (DATA as u32, 0xc093, None),
        (DATA as u32 - 1, 0xc093, gp),
        (u32::MAX, 0xc099, gp),
        (u32::MAX, 0xc09b, None),
        (u32::MAX, 0xc013, gp),
        // Expand-down: beyond the limit is inside.
        (DATA as u32 - 1, 0xc097, None),
        (DATA as u32, 0xc097, gp),
    ] {
        let mut guest = Guest::flat("host");
        guest.put(DATA, b"s");
        guest.change(|r| (r.ds.limit, r.ds.attributes) = (limit, attributes));
        let exit = string(&guest, &[0x6e], 1, false);
        guest.set(gpr::RSI, DATA);
        assert_eq!(guest.exit(exit), Next::Resume);
        assert_eq!(guest.event(), event, "{limit:#x} {attributes:#x}");
        assert_eq!(output(&guest).len(), usize::from(event.is_none()));
    }
}

#[test]
fn a_string_instruction_that_was_rewritten_is_entered_again() {
    let mut guest = Guest::new("host");
    let exit = string(&guest, &REP_OUTSB, 1, false);
    guest.at(&REP_INSB);
    let before = guest.registers();
    assert_eq!(guest.exit(exit), Next::Resume);
    assert_eq!((guest.event(), guest.registers()), (None, before));
    assert!(output(&guest).is_empty());
}
