//! IN, OUT, INS and OUTS: ports of the domain's own 16550, and of nothing else.

#[cfg(test)]
#[path = "ports_tests.rs"]
mod tests;

use super::decode::{StringIo, Width, decode_string_io};
use super::fetch;
use super::walk::{Access, Fault, Paging, walk};
use super::{Handled, Next, Running, io};
use crate::mm::addr::GuestPhys;
use crate::vcpu::{live, rflags};
use crate::virt::{Backend, IoExit, Register, SegmentName, gpr};
use xferry_abi::info::crash;

/// Elements of a repeated instruction that are done before interrupts get a
/// chance; the guest's registers then stand in the middle, as they would after
/// an interrupt on hardware.
const BATCH: u64 = 256;

/// CR0.PE and RFLAGS.VM.
const CR0_PE: u64 = 1;
const RFLAGS_VM: u64 = 1 << 17;
/// RFLAGS.DF: towards lower addresses.
const RFLAGS_DF: u64 = 1 << 10;

/// Handles an access to a port that exits.
pub fn handle(running: &mut Running<'_>, exit: &IoExit) -> Handled {
    let Some(width) = Width::from_bytes(exit.width) else {
        return Err(super::handle::crashed(
            crash::UNEXPECTED_EXIT,
            u64::from(exit.width),
        ));
    };
    if exit.string {
        return string(running, exit, width);
    }
    let mut uart = running.target.domain.console.lock();
    let rax = &mut running.vcpu.gprs.0[gpr::RAX];
    if exit.input {
        let value = io::read(&mut uart, exit.port, width);
        *rax = io::merge_rax(*rax, width, value);
    } else {
        // AL, AX or EAX: the verdict takes the low bytes.
        io::write(&mut uart, exit.port, width, *rax as u32);
    }
    drop(uart);
    running.done(exit.next_rip)
}

/// INS and OUTS: memory by the guest's own translation.
fn string(running: &mut Running<'_>, exit: &IoExit, width: Width) -> Handled {
    let code = running.code();
    let rip = running.vcpu.backend.read(Register::Rip);
    let fetched = fetch::fetch(&code, rip, &running.paging(), &running.target.domain.memory);
    let operands = match fetched.decode(|bytes| decode_string_io(bytes, code.size, exit)) {
        Ok((operands, _)) => operands,
        Err(error) => return Err(running.not_fetched(error)),
    };
    let mask = u64::MAX >> (64 - u32::from(operands.address_bits));
    let index_register = if operands.input { gpr::RDI } else { gpr::RSI };
    for _ in 0..BATCH {
        let count = running.vcpu.gprs.0[gpr::RCX] & mask;
        if operands.repeat && count == 0 {
            return running.done(exit.next_rip);
        }
        let index = running.vcpu.gprs.0[index_register] & mask;
        if let Err(fault) = element(running, exit, width, &operands, index) {
            let event = running.fault(fault)?;
            return running.raise(event);
        }
        let flags = running.vcpu.backend.read(Register::Rflags);
        let step = u64::from(width.bytes());
        let moved = if flags & RFLAGS_DF != 0 {
            index.wrapping_sub(step)
        } else {
            index.wrapping_add(step)
        };
        let gprs = &mut running.vcpu.gprs.0;
        merge(&mut gprs[index_register], moved, operands.address_bits);
        if !operands.repeat {
            return running.done(exit.next_rip);
        }
        merge(&mut gprs[gpr::RCX], count - 1, operands.address_bits);
        // A single step is one element; after the last the instruction is done.
        if flags & rflags::TF != 0 && count > 1 {
            running.vcpu.trap_step()?;
            return Ok(Next::Resume);
        }
    }
    // RIP stays: the rest is done when it comes back.
    Ok(Next::Resume)
}

/// A register after an instruction of this address size: 32-bit results clear
/// the upper half, 16-bit results leave it.
fn merge(register: &mut u64, value: u64, bits: u8) {
    *register = match bits {
        16 => (*register & !0xffff) | (value & 0xffff),
        32 => value & 0xffff_ffff,
        _ => value,
    };
}

/// Moves one element.
fn element(
    running: &mut Running<'_>,
    exit: &IoExit,
    width: Width,
    operands: &StringIo,
    index: u64,
) -> Result<(), Fault> {
    let mut places = [GuestPhys::new(0); 4];
    let bytes = usize::from(width.bytes());
    let places = places.get_mut(..bytes).unwrap_or_default();
    for (offset, place) in (0u64..).zip(places.iter_mut()) {
        *place = translate(running, operands, index.wrapping_add(offset))?;
    }
    let domain = &running.target.domain;
    if operands.input {
        let value = io::read(&mut domain.console.lock(), exit.port, width).to_le_bytes();
        for (place, byte) in places.iter().zip(value) {
            domain
                .memory
                .write(*place, &[byte])
                .map_err(|_| Fault::Unbacked(*place))?;
        }
    } else {
        let mut value = [0; 4];
        for (place, byte) in places.iter().zip(value.iter_mut()) {
            domain
                .memory
                .read(*place, core::slice::from_mut(byte))
                .map_err(|_| Fault::Unbacked(*place))?;
        }
        let value = u32::from_le_bytes(value);
        io::write(&mut domain.console.lock(), exit.port, width, value);
    }
    Ok(())
}

/// Where a byte of the memory operand lies.
fn translate(running: &Running<'_>, operands: &StringIo, offset: u64) -> Result<GuestPhys, Fault> {
    let backend = &running.vcpu.backend;
    let mut paging = running.paging();
    paging.pkru = live::guest_pkru(paging.cr4);
    let segment = backend.segment(operands.segment);
    let linear = if super::handle::in_64_bit_code(running) {
        match operands.segment {
            SegmentName::Fs | SegmentName::Gs => segment.base.wrapping_add(offset),
            _ => offset,
        }
    } else {
        if !within(&segment, offset, operands.input, &paging) {
            return Err(Fault::GeneralProtection);
        }
        segment.base.wrapping_add(offset) & 0xffff_ffff
    };
    let access = if operands.input {
        Access::Write
    } else {
        Access::Read
    };
    walk(&paging, linear, access, &running.target.domain.memory)
}

/// Segment checks outside 64-bit code (SDM Vol. 3A, 6.3 Limit Checking, 6.4 Type
/// Checking).
fn within(
    segment: &migration_abi::registers::Segment,
    offset: u64,
    write: bool,
    paging: &Paging,
) -> bool {
    use migration_abi::registers::attributes as a;
    let protected = paging.cr0 & CR0_PE != 0 && paging.rflags & RFLAGS_VM == 0;
    let kind = segment.attributes & a::TYPE;
    let (code, writable, expand_down) =
        (kind & 8 != 0, kind & 2 != 0, kind & 8 == 0 && kind & 4 != 0);
    if protected {
        if segment.attributes & (a::UNUSABLE | a::PRESENT) != a::PRESENT {
            return false;
        }
        let readable = !code || writable;
        if write && (code || !writable) || !write && !readable {
            return false;
        }
    }
    let limit = u64::from(segment.limit);
    if protected && expand_down {
        let top = if segment.attributes & a::DB != 0 {
            0xffff_ffff
        } else {
            0xffff
        };
        offset > limit && offset <= top
    } else {
        offset <= limit
    }
}
