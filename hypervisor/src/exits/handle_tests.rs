//! What an exit comes to, before any handler of an instruction.

use super::*;
use crate::mm::addr::GuestPhys;
use crate::testing::{CODE, DATA, Guest};
use crate::virt::gpr;
use xferry_abi::CALLS_VERSION;

const CPUID: [u8; 2] = [0x0f, 0xa2];
const VMCALL: [u8; 3] = [0x0f, 0x01, 0xc1];
const UD: Exit = Exit::Exception {
    vector: 6,
    error_code: None,
};

fn cpuid() -> Exit {
    Exit::Instruction(Intercepted::Cpuid)
}

#[test]
fn what_a_guest_may_not_do_stops_its_domain_with_the_cause() {
    for (exit, cause, detail) in [
        (
            Exit::NestedFault {
                address: GuestPhys::new(0x1234_5000),
                write: true,
                fetch: false,
            },
            crash::NESTED_FAULT,
            0x1234_5000,
        ),
        (Exit::Shutdown, crash::TRIPLE_FAULT, 0),
        (Exit::TaskSwitch, crash::UNEXPECTED_EXIT, 0),
        (Exit::InvalidState, crash::INVALID_STATE, 0),
        (
            Exit::Unexpected {
                code: 0x77,
                info: 1,
            },
            crash::UNEXPECTED_EXIT,
            0x77,
        ),
    ] {
        let mut guest = Guest::new("host");
        let before = guest.registers();
        let next = guest.exit(exit);
        assert_eq!(next, Next::Stop(Stop::crash(cause, detail)), "{exit:?}");
        assert_eq!(guest.registers(), before, "{exit:?}");
    }
}

#[test]
fn what_is_the_hosts_leaves_the_guest_alone() {
    let mut guest = Guest::new("host");
    let before = guest.registers();
    assert_eq!(guest.exit(Exit::HostEvent), Next::Resume);
    assert_eq!(guest.exit(Exit::InterruptWindow), Next::Resume);
    assert_eq!(guest.exit(Exit::Interrupt), Next::Yield);
    assert_eq!(guest.registers(), before);
}

#[test]
fn intercepted_exceptions_are_handed_back() {
    let mut guest = Guest::new("host");
    guest.at(&[0x90]);
    for (vector, error_code) in [(17, Some(0)), (1, None), (6, None), (7, None)] {
        let next = guest.exit(Exit::Exception { vector, error_code });
        assert_eq!(next, Next::Resume);
        assert_eq!(guest.event(), Some(Event::exception(vector, error_code)));
        assert_eq!(guest.rip(), CODE);
    }
}

#[test]
fn the_other_vendors_hypercall_is_served() {
    let mut guest = Guest::new("host");
    let end = guest.at(&VMCALL);
    guest.set(gpr::RAX, 0);
    assert_eq!(guest.exit(UD), Next::Resume);
    assert_eq!(guest.event(), None);
    assert_eq!(guest.result(), Ok(u64::from(CALLS_VERSION)));
    assert_eq!(guest.rip(), end);
}

#[test]
fn another_undefined_instruction_is_the_guests_own() {
    let mut guest = Guest::new("host");
    // UD2; VMCALL with LOCK; VMMCALL, which this processor has.
    for code in [
        &[0x0f, 0x0b][..],
        &[0xf0, 0x0f, 0x01, 0xc1],
        &[0x0f, 0x01, 0xd9],
    ] {
        guest.at(code);
        guest.set(gpr::RAX, 0);
        assert_eq!(guest.exit(UD), Next::Resume);
        assert_eq!(guest.event(), Some(Event::INVALID_OPCODE), "{code:x?}");
        assert_eq!((guest.rip(), guest.get(gpr::RAX)), (CODE, 0));
    }
    // One that cannot be fetched.
    guest.map_with(CODE, 0);
    assert_eq!(guest.exit(UD), Next::Resume);
    assert_eq!(guest.event(), Some(Event::INVALID_OPCODE));
}

#[test]
fn what_is_not_offered_is_undefined() {
    let mut guest = Guest::new("host");
    // VMRUN.
    let event = guest.execute(&[0x0f, 0x01, 0xd8], Intercepted::NotOffered);
    assert_eq!(event, Some(Event::INVALID_OPCODE));
    assert_eq!(guest.rip(), CODE);
}

#[test]
fn an_instruction_that_was_rewritten_is_entered_again() {
    let mut guest = Guest::new("host");
    // HLT, and what no exit is about: ADD EAX, ECX.
    for code in [&[0xf4][..], &[0x01, 0xc8]] {
        guest.at(code);
        let before = guest.registers();
        assert_eq!(guest.exit(cpuid()), Next::Resume);
        assert_eq!(guest.event(), None, "{code:x?}");
        assert_eq!(guest.registers(), before, "{code:x?}");
    }
}

#[test]
fn an_instruction_counts_with_its_prefixes_and_to_the_end_of_its_page() {
    let mut guest = Guest::new("host");
    guest.map_with(DATA, 0);
    for code in [
        &CPUID[..],
        &[0x66, 0x0f, 0xa2],
        &[0x2e, 0xf3, 0x48, 0x0f, 0xa2],
    ] {
        guest.at_address(DATA - code.len() as u64, code);
        assert_eq!(guest.exit(cpuid()), Next::Resume);
        assert_eq!((guest.event(), guest.rip()), (None, DATA), "{code:x?}");
    }
}

#[test]
fn an_instruction_whose_second_page_is_gone_faults_there() {
    let mut guest = Guest::new("host");
    let end = guest.at_address(DATA - 1, &CPUID);
    guest.map_with(DATA, 0);
    assert_eq!(guest.exit(cpuid()), Next::Resume);
    assert_eq!(guest.event(), Some(Event::exception(vector::PF, Some(0))));
    assert_eq!(
        (guest.rip(), guest.read(Register::Cr2)),
        (DATA - 1, end - 1)
    );
    // The translation leads out of the guest's memory.
    guest.map(DATA, 0x100_0000);
    let next = guest.exit(cpuid());
    let stop = Stop::crash(crash::NESTED_FAULT, 0x100_0000);
    assert_eq!(next, Next::Stop(stop));
}

#[test]
fn more_than_fifteen_bytes_are_a_general_protection_fault() {
    let mut guest = Guest::new("host");
    let event = guest.execute(&[0x66; 16], Intercepted::Cpuid);
    assert_eq!(event, Some(Event::GENERAL_PROTECTION));
    assert_eq!(guest.rip(), CODE);
}

#[test]
fn outside_64_bit_code_eip_alone_counts_and_the_limit_holds() {
    let mut guest = Guest::flat("host");
    let end = guest.at(&CPUID);
    guest
        .vcpu()
        .backend
        .write(Register::Rip, 0xdead_0000_0000 | CODE);
    assert_eq!(guest.exit(cpuid()), Next::Resume);
    assert_eq!((guest.event(), guest.rip()), (None, end));
    guest.change(|r| {
        r.rip = CODE;
        r.cs.limit = CODE as u32;
    });
    assert_eq!(guest.exit(cpuid()), Next::Resume);
    assert_eq!(guest.event(), Some(Event::GENERAL_PROTECTION));
}

#[test]
fn an_emulated_instruction_ends_shadow_and_rf_and_is_single_stepped() {
    let mut guest = Guest::new("host");
    let end = guest.at(&CPUID);
    guest.change(|r| {
        r.rflags = 2 | 1 << 8 | 1 << 16;
        r.interrupt_shadow = 1;
        r.dr6 = 0xffff_0ff0;
    });
    assert_eq!(guest.exit(cpuid()), Next::Resume);
    assert_eq!(guest.event(), Some(Event::exception(1, None)));
    let after = guest.registers();
    assert_eq!(
        (after.rip, after.rflags, after.dr6, after.interrupt_shadow),
        (end, 2 | 1 << 8, 0xffff_4ff0, 0)
    );
    // Without TF nothing traps.
    guest.at(&CPUID);
    guest.change(|r| r.rflags = 2);
    guest.exit(cpuid());
    assert_eq!(guest.event(), None);
}

#[test]
fn a_fault_while_a_fault_is_delivered_doubles_and_triples() {
    let mut guest = Guest::new("host");
    guest.at(&[0x0f, 0x32]);
    guest.set(gpr::RCX, 0x1b);
    let fault = Event::exception(vector::PF, Some(2));
    guest.vcpu().events.redeliver(fault);
    let rdmsr = Exit::Instruction(Intercepted::Rdmsr);
    assert_eq!(guest.exit(rdmsr), Next::Resume);
    let double = Event::exception(vector::DF, Some(0));
    assert_eq!(guest.vcpu().events.first(), Some(double));
    let triple = Stop::crash(crash::TRIPLE_FAULT, 0);
    assert_eq!(guest.exit(rdmsr), Next::Stop(triple));
}
