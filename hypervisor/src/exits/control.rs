//! Writes of CR0, CR4 and CR8: the verdicts are `cr`'s.

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;

use super::cr::{self, Allowed, Change, Control, CrError};
use super::decode::{Kind, LmswSource};
use super::walk::{Access, Fault, walk};
use super::{Handled, Running};
use crate::vcpu::live;
use crate::virt::{Backend, Event, Register, SegmentName};
use migration_abi::registers::attributes;
use vcpu_xstate::policy::CpuPolicy;

/// CR0.TS.
const CR0_TS: u64 = 1 << 3;

/// The registers that verdicts look at.
pub fn registers(running: &Running<'_>) -> Control {
    let backend = &running.vcpu.backend;
    let read = |register| backend.read(register);
    Control {
        cr0: read(Register::Cr0),
        cr3: read(Register::Cr3),
        cr4: read(Register::Cr4),
        efer: read(Register::Efer),
        code_is_long: backend.segment(SegmentName::Cs).attributes & attributes::LONG != 0,
    }
}

/// What a policy allows in them.
pub fn allowed(policy: &CpuPolicy) -> Allowed {
    Allowed {
        cr4: policy.cr4_allowed(),
        efer: policy.efer_allowed(),
        physical_bits: policy.physical_address_bits(),
    }
}

/// A write that was intercepted: MOV to CRn, CLTS or LMSW.
pub fn write(running: &mut Running<'_>, kind: Kind, next_rip: u64) -> Handled {
    if running.vcpu.backend.cpl() != 0 {
        return running.raise(Event::GENERAL_PROTECTION);
    }
    let now = registers(running);
    let verdict = match kind {
        Kind::WriteCr { cr, gpr } => {
            let value = operand(running, gpr);
            match cr {
                0 => cr::cr0_verdict(&now, value).map(|change| (Register::Cr0, change)),
                4 => cr::cr4_verdict(&now, &allowed(&running.vcpu.policy), value)
                    .map(|change| (Register::Cr4, change)),
                _ => return running.raise(Event::INVALID_OPCODE),
            }
        }
        Kind::Clts => cr::cr0_verdict(&now, now.cr0 & !CR0_TS).map(|c| (Register::Cr0, c)),
        Kind::Lmsw(source) => {
            let operand = match lmsw_operand(running, source, next_rip) {
                Ok(operand) => operand,
                Err(fault) => {
                    let event = running.fault(fault)?;
                    return running.raise(event);
                }
            };
            let value = cr::lmsw_value(now.cr0, operand);
            cr::cr0_verdict(&now, value).map(|change| (Register::Cr0, change))
        }
        _ => return running.raise(Event::INVALID_OPCODE),
    };
    apply(running, verdict, next_rip)
}

fn apply(
    running: &mut Running<'_>,
    verdict: Result<(Register, Change), CrError>,
    next_rip: u64,
) -> Handled {
    let Ok((register, change)) = verdict else {
        return running.raise(Event::GENERAL_PROTECTION);
    };
    let backend = &mut running.vcpu.backend;
    backend.write(register, change.value);
    if change.efer != backend.read(Register::Efer) {
        backend.write(Register::Efer, change.efer);
    }
    running.done(next_rip)
}

/// The register operand: 64 bits in 64-bit code, else 32.
fn operand(running: &Running<'_>, gpr: u8) -> u64 {
    let value = running.vcpu.gpr(gpr);
    if super::handle::in_64_bit_code(running) {
        value
    } else {
        value & 0xffff_ffff
    }
}

/// LMSW's 16 bits.
fn lmsw_operand(running: &Running<'_>, source: LmswSource, next_rip: u64) -> Result<u16, Fault> {
    let memory_operand = match source {
        // The low half of the register.
        LmswSource::Gpr(gpr) => return Ok(running.vcpu.gpr(gpr) as u16),
        LmswSource::Memory(operand) => operand,
    };
    let offset = memory_operand.offset(&running.vcpu.gprs.0, next_rip);
    let mut bytes = [0; 2];
    for (i, byte) in (0u64..).zip(bytes.iter_mut()) {
        let segment = running.vcpu.backend.segment(memory_operand.segment);
        let linear = segment.base.wrapping_add(offset).wrapping_add(i);
        let mut paging = running.paging();
        paging.pkru = live::guest_pkru(paging.cr4);
        let linear = if paging.long() {
            linear
        } else {
            linear & 0xffff_ffff
        };
        let memory = &running.target.domain.memory;
        let at = walk(&paging, linear, Access::Read, memory)?;
        memory
            .read(at, core::slice::from_mut(byte))
            .map_err(|_| Fault::Unbacked(at))?;
    }
    Ok(u16::from_le_bytes(bytes))
}
