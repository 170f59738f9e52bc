//! Writes of control registers, decoded and carried out.

use super::*;
use crate::testing::{CODE, DATA, Guest};
use crate::virt::{Intercepted, gpr};
use migration_abi::registers::VcpuRegisters;

const GP: Option<Event> = Some(Event::GENERAL_PROTECTION);
/// MOV CR0, RAX.
const MOV_CR0: [u8; 3] = [0x0f, 0x22, 0xc0];
/// MOV CR4, R11.
const MOV_CR4: [u8; 4] = [0x41, 0x0f, 0x22, 0xe3];
const CR0_PE: u64 = 1;
const LONG: u64 = 0x8001_0011;

fn mov_cr0(guest: &mut Guest, value: u64) -> Option<Event> {
    guest.set(gpr::RAX, value);
    guest.execute(&MOV_CR0, Intercepted::WriteCr(0))
}

fn mov_cr4(guest: &mut Guest, value: u64) -> Option<Event> {
    guest.set(11, value);
    guest.execute(&MOV_CR4, Intercepted::WriteCr(4))
}

/// What the write was about, without RIP and general registers.
fn control_of(guest: &Guest) -> VcpuRegisters {
    let mut registers = guest.registers();
    (registers.rip, registers.gpr) = (0, [0; 16]);
    registers
}

#[test]
fn illegal_values_are_general_protection_faults_and_change_nothing() {
    let mut guest = Guest::new("host");
    let before = control_of(&guest);
    for value in [
        LONG | 1 << 32,     // reserved
        LONG & !CR0_PE,     // PG without PE
        LONG | cr::CR0_NW,  // NW without CD
        LONG & !cr::CR0_PG, // PG stays in 64-bit code
    ] {
        assert_eq!(mov_cr0(&mut guest, value), GP, "CR0 {value:#x}");
        assert_eq!((guest.rip(), control_of(&guest)), (CODE, before));
    }
    let pae = cr::CR4_PAE;
    // Without PAE; VMXE; PCIDE and LA57, which no policy has; reserved.
    for value in [
        0,
        pae | 1 << 13,
        pae | cr::CR4_PCIDE,
        pae | cr::CR4_LA57,
        pae | 1 << 40,
    ] {
        assert_eq!(mov_cr4(&mut guest, value), GP, "CR4 {value:#x}");
        assert_eq!((guest.rip(), control_of(&guest)), (CODE, before));
    }
}

#[test]
fn legal_values_arrive_and_rip_moves_on() {
    let mut guest = Guest::new("host");
    assert_eq!(mov_cr0(&mut guest, LONG | CR0_TS), None);
    assert_eq!(guest.rip(), CODE + 3);
    assert_eq!(guest.read(Register::Cr0), LONG | CR0_TS);
    let value = cr::CR4_PAE | cr::CR4_OSXSAVE | cr::CR4_PKE | cr::CR4_SMEP;
    assert_eq!(mov_cr4(&mut guest, value), None);
    assert_eq!(guest.rip(), CODE + 4);
    assert_eq!(guest.read(Register::Cr4), value);
    // What the policy takes away is not there to set.
    let mut guest = Guest::new("host:pku=0");
    assert_eq!(mov_cr4(&mut guest, value), GP);
    assert_eq!(mov_cr4(&mut guest, value & !cr::CR4_PKE), None);
}

#[test]
fn control_registers_are_the_kernels() {
    let mut guest = Guest::new("host");
    guest.set_cpl(3);
    let before = control_of(&guest);
    assert_eq!(mov_cr0(&mut guest, LONG | CR0_TS), GP);
    assert_eq!(mov_cr4(&mut guest, cr::CR4_PAE | cr::CR4_OSXSAVE), GP);
    assert_eq!(guest.execute(&[0x0f, 0x06], Intercepted::WriteCr(0)), GP);
    assert_eq!(control_of(&guest), before);
}

#[test]
fn long_mode_is_entered_and_left_with_paging() {
    let mut guest = Guest::flat("host");
    // Outside 64-bit code 32 bits of the register count.
    guest.change(|r| {
        (r.cr4, r.efer, r.cr3) = (cr::CR4_PAE, cr::EFER_LME, 0x1000);
    });
    assert_eq!(mov_cr0(&mut guest, 0xdead << 32 | LONG), None);
    assert_eq!(guest.rip(), CODE + 3);
    assert_eq!(guest.read(Register::Cr0), LONG);
    assert_eq!(guest.read(Register::Efer), cr::EFER_LME | cr::EFER_LMA);
    // From compatibility mode back.
    assert_eq!(mov_cr0(&mut guest, LONG & !cr::CR0_PG), None);
    assert_eq!(guest.read(Register::Efer), cr::EFER_LME);
    // Without PAE there is no way in.
    guest.change(|r| r.cr4 = 0);
    assert_eq!(mov_cr0(&mut guest, LONG), GP);
    assert_eq!(guest.read(Register::Efer), cr::EFER_LME);
}

#[test]
fn clts_clears_ts_alone() {
    let mut guest = Guest::new("host");
    guest.change(|r| r.cr0 |= CR0_TS | 2);
    assert_eq!(guest.execute(&[0x0f, 0x06], Intercepted::WriteCr(0)), None);
    assert_eq!(guest.rip(), CODE + 2);
    assert_eq!(guest.read(Register::Cr0), LONG | 2);
}

#[test]
fn lmsw_sets_four_bits_and_never_clears_pe() {
    let mut guest = Guest::new("host");
    // LMSW AX.
    guest.set(gpr::RAX, 0xffff_0000_ffff_fffe);
    let lmsw = [0x0f, 0x01, 0xf0];
    assert_eq!(guest.execute(&lmsw, Intercepted::WriteCr(0)), None);
    assert_eq!(guest.rip(), CODE + 3);
    assert_eq!(guest.read(Register::Cr0), LONG | 0xe);
    guest.set(gpr::RAX, 0);
    assert_eq!(guest.execute(&lmsw, Intercepted::WriteCr(0)), None);
    assert_eq!(guest.read(Register::Cr0), LONG);
}

#[test]
fn lmsw_reads_memory_through_the_guests_tables() {
    let mut guest = Guest::new("host");
    // LMSW [RAX + 0x10], across two pages that lie apart.
    let lmsw = [0x0f, 0x01, 0x70, 0x10];
    guest.map(DATA + 0x1000, 0x1_2000);
    guest.put(DATA + 0xfff, &[0x0a]);
    guest.put(0x1_2000, &[0xff]);
    guest.set(gpr::RAX, DATA + 0xfff - 0x10);
    assert_eq!(guest.execute(&lmsw, Intercepted::WriteCr(0)), None);
    assert_eq!(guest.rip(), CODE + 4);
    assert_eq!(guest.read(Register::Cr0), LONG | 0xa);
    // The second page is gone: the fault names it, and CR0 stays.
    guest.map_with(DATA + 0x1000, 0);
    guest.put(DATA + 0xfff, &[0x04]);
    let fault = Event::exception(14, Some(0));
    assert_eq!(guest.execute(&lmsw, Intercepted::WriteCr(0)), Some(fault));
    assert_eq!((guest.rip(), guest.read(Register::Cr0)), (CODE, LONG | 0xa));
    assert_eq!(guest.read(Register::Cr2), DATA + 0x1000);
}
