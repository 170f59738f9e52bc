//! Fetching at the ends of pages, segments and the address space.

use super::super::decode::{DecodeError, Kind, decode};
use super::super::walk::error_code::{I, P};
use super::super::walk::tests::Words;
use super::*;
use crate::mm::addr::GuestPhys;
use std::collections::BTreeMap;

const REAL: Paging = Paging {
    cr0: 0,
    cr3: 0,
    cr4: 0,
    efer: 0,
    rflags: 2,
    pkru: 0,
    cpl: 0,
    physical_bits: 40,
    gib_pages: false,
};

/// 32-bit paging: directory at 0x1000, table at 0x2000.
const PAGED: Paging = Paging {
    cr0: 1 << 31 | 1,
    cr3: 0x1000,
    cr4: 1 << 20,
    ..REAL
};

const FLAT: CodeSegment = CodeSegment {
    base: 0,
    limit: u32::MAX,
    size: CodeSize::Bits32,
};

fn put(memory: &mut Words, address: u64, bytes: &[u8]) {
    for (at, byte) in (address..).zip(bytes) {
        let word = memory.0.entry(at & !7).or_default();
        *word |= u64::from(*byte) << (8 * (at & 7));
    }
}

fn zeros(memory: &mut Words, from: u64, to: u64) {
    for at in (from..to).step_by(8) {
        memory.0.entry(at).or_default();
    }
}

/// Linear 0x10000 is frame 0x7000, linear 0x11000 is frame 0x5000 with `flags`.
fn two_pages(flags: u64) -> Words {
    let mut memory = Words(BTreeMap::from([
        (0x1000, 0x2003),
        (0x2040, 0x7003 | (0x5000 | flags) << 32),
    ]));
    zeros(&mut memory, 0x7000, 0x8000);
    zeros(&mut memory, 0x5000, 0x6000);
    memory
}

fn at(
    code: &CodeSegment,
    rip: u64,
    paging: &Paging,
    memory: &Words,
) -> Result<Instruction, InstructionError> {
    instruction(code, rip, paging, memory, decode)
}

#[test]
fn an_instruction_across_pages_that_are_not_neighbours() {
    let mut memory = two_pages(3);
    put(&mut memory, 0x7fff, &[0x0f]);
    put(&mut memory, 0x5000, &[0xa2]);
    let got = at(&FLAT, 0x10fff, &PAGED, &memory);
    assert_eq!(
        got,
        Ok(Instruction {
            kind: Kind::Cpuid,
            len: 2
        })
    );
    assert_eq!(
        fetch(&FLAT, 0x10fff, &PAGED, &memory).bytes().len(),
        MAX_BYTES
    );
}

#[test]
fn the_second_page_matters_only_to_what_reaches_it() {
    let mut memory = two_pages(0);
    put(&mut memory, 0x7ffe, &[0x0f, 0xa2]);
    let got = at(&FLAT, 0x10ffe, &PAGED, &memory);
    assert_eq!(
        got,
        Ok(Instruction {
            kind: Kind::Cpuid,
            len: 2
        })
    );

    let mut memory = two_pages(0);
    put(&mut memory, 0x7fff, &[0x0f]);
    let fault = Fault::Page {
        error_code: I,
        address: 0x11000,
    };
    assert_eq!(
        at(&FLAT, 0x10fff, &PAGED, &memory),
        Err(InstructionError::Fetch(fault))
    );

    // SMEP: the second page is the user's. The address is its first byte's.
    let mut user = two_pages(7);
    *user.0.get_mut(&0x1000).unwrap() |= 4;
    put(&mut user, 0x7fff, &[0x0f]);
    let fault = Fault::Page {
        error_code: P | I,
        address: 0x11000,
    };
    assert_eq!(
        at(&FLAT, 0x10fff, &PAGED, &user),
        Err(InstructionError::Fetch(fault))
    );
}

/// SDM Vol. 3A, 5.3 Limit Checking.
#[test]
fn the_limit_is_the_last_byte_that_can_be_fetched() {
    let mut memory = Words::default();
    zeros(&mut memory, 0x2_0000, 0x2_1000);
    put(&mut memory, 0x2_0100, &[0x0f, 0xa2]);
    let code = |limit| CodeSegment {
        base: 0x2_0000,
        limit,
        size: CodeSize::Bits16,
    };
    assert!(at(&code(0x101), 0x100, &REAL, &memory).is_ok());
    let fault = Err(InstructionError::Fetch(Fault::GeneralProtection));
    assert_eq!(at(&code(0x100), 0x100, &REAL, &memory), fault);
    assert_eq!(at(&code(0xff), 0x100, &REAL, &memory), fault);
    assert_eq!(fetch(&code(0x105), 0x100, &REAL, &memory).bytes().len(), 6);
}

#[test]
fn a_segment_wraps_at_four_gib_and_an_offset_does_not() {
    let mut memory = Words::default();
    zeros(&mut memory, 0xffff_f000, 0x1_0000_0000);
    zeros(&mut memory, 0, 0x1000);
    put(&mut memory, 0xffff_ffff, &[0x0f]);
    put(&mut memory, 0, &[0xa2]);
    let high = CodeSegment {
        base: 0xffff_f000,
        ..FLAT
    };
    assert!(at(&high, 0xfff, &REAL, &memory).is_ok());
    let fault = Err(InstructionError::Fetch(Fault::GeneralProtection));
    assert_eq!(at(&FLAT, 0xffff_ffff, &REAL, &memory), fault);
}

#[test]
fn sixty_four_bit_code_ignores_base_and_limit_but_is_canonical() {
    let paging = Paging {
        cr4: 1 << 5,
        efer: 1 << 10,
        ..PAGED
    };
    let code = CodeSegment::new(0x5000, 0, true, false, &paging);
    assert_eq!(code.size, CodeSize::Bits64);
    let mut memory = Words(BTreeMap::from([
        (0x1000, 0x2003),
        (0x17f8, 0x2003),
        (0x2000, 0x83),
        (0x2ff8, 0x83),
    ]));
    zeros(&mut memory, 0, 0x1000);
    zeros(&mut memory, 0x3fff_f000, 0x4000_0000);
    put(&mut memory, 0x100, &[0xf4]);
    put(&mut memory, 0x3fff_ffff, &[0x0f]);
    let gib = Paging {
        gib_pages: true,
        ..paging
    };
    assert_eq!(
        at(&code, 0x100, &gib, &memory),
        Ok(Instruction {
            kind: Kind::Hlt,
            len: 1
        })
    );
    let fault = Err(InstructionError::Fetch(Fault::GeneralProtection));
    assert_eq!(at(&code, 0x7fff_ffff_ffff, &gib, &memory), fault);
    assert_eq!(at(&code, 0x8000_0000_0000, &gib, &memory), fault);
    // CS.L means nothing outside long mode.
    assert_eq!(
        CodeSegment::new(0, 0, true, false, &REAL).size,
        CodeSize::Bits16
    );
}

#[test]
fn code_outside_the_domains_memory_is_no_exception_of_the_guest() {
    let memory = Words::default();
    let fault = Fault::Unbacked(GuestPhys::new(0x100));
    assert_eq!(
        at(&FLAT, 0x100, &REAL, &memory),
        Err(InstructionError::Fetch(fault))
    );
}

#[test]
fn bytes_that_are_no_instruction_of_an_exit_say_so() {
    let mut memory = Words::default();
    zeros(&mut memory, 0, 0x1000);
    put(&mut memory, 0x10, &[0x0f, 0x0b]);
    let error = InstructionError::Decode(DecodeError::Unknown(0x0f0b));
    assert_eq!(at(&FLAT, 0x10, &REAL, &memory), Err(error));
}
