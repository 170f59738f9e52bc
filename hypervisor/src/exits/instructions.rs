//! CPUID, RDMSR, WRMSR, XSETBV, HLT, INVD and WBINVD.

#[cfg(test)]
#[path = "instructions_tests.rs"]
mod tests;

use super::msr::{self, MsrRegister, Offered, ReadVerdict, WriteVerdict};
use super::{Handled, Next, Running, control, cr};
use crate::cpu::tsc;
use crate::domain::status::Stop;
use crate::vcpu::{Activity, Vcpu, clock};
use crate::virt::event::vector;
use crate::virt::{Backend, Event, Register, SegmentName, gpr};
use vcpu_xstate::owner::{FirstUse, WriteXssError, XsetbvError};
use vcpu_xstate::policy::Dynamic;
use vcpu_xstate::{ComponentSet, OutOfMemory};
use xferry_abi::info::state;

/// CPUID: what the policy says, and what follows the vCPU's registers.
pub fn cpuid(running: &mut Running<'_>, next_rip: u64) -> Handled {
    let vcpu = &mut *running.vcpu;
    let cr4 = vcpu.backend.read(Register::Cr4);
    let dynamic = Dynamic {
        cr4_osxsave: cr4 & cr::CR4_OSXSAVE != 0,
        cr4_pke: cr4 & cr::CR4_PKE != 0,
        xcr0: vcpu.xstate.xcr0(),
        xss: vcpu.xstate.xss(),
        apic_id: vcpu.index,
    };
    // EAX and ECX.
    let leaf = vcpu.gprs.0[gpr::RAX] as u32;
    let subleaf = vcpu.gprs.0[gpr::RCX] as u32;
    let answer = vcpu.policy.cpuid(leaf, subleaf, &dynamic);
    vcpu.gprs.0[gpr::RAX] = u64::from(answer.eax);
    vcpu.gprs.0[gpr::RBX] = u64::from(answer.ebx);
    vcpu.gprs.0[gpr::RCX] = u64::from(answer.ecx);
    vcpu.gprs.0[gpr::RDX] = u64::from(answer.edx);
    running.done(next_rip)
}

/// XSETBV. The processor has checked CR4.OSXSAVE; CPL, index and value are the
/// verdict's. Where the value enables what the area has no room for, the area
/// grows first; where there is no memory, the vCPU stops before the
/// instruction.
pub fn xsetbv(running: &mut Running<'_>, next_rip: u64) -> Handled {
    // The intercept comes before the privilege check (APM Vol. 2, 15.9, Table
    // "Instruction Intercepts"): the verdict checks.
    let cpl = running.vcpu.backend.cpl();
    if running.vcpu.gprs.0[gpr::RCX] as u32 != 0 {
        return running.raise(Event::GENERAL_PROTECTION);
    }
    let value = running.vcpu.edx_eax();
    let mut memory = running.target.domain.xstate_memory.lock();
    let set = running
        .vcpu
        .xstate
        .set_xcr0(value, cpl, &mut running.pcpu.xstate, &mut *memory);
    drop(memory);
    match set {
        Ok(()) => {
            running.reload()?;
            running.done(next_rip)
        }
        Err(XsetbvError::Fault(_)) => running.raise(Event::GENERAL_PROTECTION),
        Err(XsetbvError::NeedsMemory(missing)) => Err(needs_memory(running, &missing)),
    }
}

/// The vCPU stands before an instruction for which there is no memory: the
/// toolstack is told by how much to raise the domain's limit, or where the limit
/// is not it, how much the hypervisor would have to have.
fn needs_memory(running: &Running<'_>, wanted: &OutOfMemory) -> Next {
    let bytes = wanted.bytes as u64;
    let memory = running.target.domain.xstate_memory.lock();
    let detail = match memory.missing_bytes(bytes) {
        0 => bytes,
        missing => missing,
    };
    Next::Stop(Stop {
        state: state::NEEDS_MEMORY,
        cause: 0,
        detail,
    })
}

/// #NM with a component in IA32_XFD_ERR: the first use of one that the
/// hypervisor had held back, or the guest's own.
pub fn device_not_available(running: &mut Running<'_>) -> Handled {
    let used = running.pcpu.xstate.read_xfd_err();
    let mut memory = running.target.domain.xstate_memory.lock();
    let first = running.vcpu.xstate.first_use(
        ComponentSet::from_bits_retain(used),
        &mut running.pcpu.xstate,
        &mut *memory,
    );
    drop(memory);
    match first {
        FirstUse::Grow(_) => {
            // IA32_XFD_ERR is the guest's again when it is entered.
            running.reload()?;
            Ok(Next::Resume)
        }
        FirstUse::Reflect => {
            // What the processor noted is what the guest finds.
            running.raise(Event::exception(vector::NM, None))
        }
        FirstUse::Wait(missing) => Err(needs_memory(running, &missing)),
    }
}

/// RDMSR of an MSR that exits.
pub fn rdmsr(running: &mut Running<'_>, next_rip: u64) -> Handled {
    if running.vcpu.backend.cpl() != 0 {
        return running.raise(Event::GENERAL_PROTECTION);
    }
    let offered = Offered::of(&running.vcpu.policy);
    let number = running.vcpu.gprs.0[gpr::RCX] as u32;
    match msr::read_verdict(&offered, number) {
        ReadVerdict::Register(register) => {
            let value = read_register(running.vcpu, register);
            running.vcpu.set_edx_eax(value);
            running.done(next_rip)
        }
        ReadVerdict::Fault => running.raise(Event::GENERAL_PROTECTION),
    }
}

/// WRMSR to an MSR that exits.
pub fn wrmsr(running: &mut Running<'_>, next_rip: u64) -> Handled {
    if running.vcpu.backend.cpl() != 0 {
        return running.raise(Event::GENERAL_PROTECTION);
    }
    let vcpu = &*running.vcpu;
    let offered = Offered::of(&vcpu.policy);
    let (now, allowed) = (control::registers(running), control::allowed(&vcpu.policy));
    let (number, value) = (vcpu.gprs.0[gpr::RCX] as u32, vcpu.edx_eax());
    match msr::write_verdict(&offered, &now, &allowed, number, value) {
        WriteVerdict::Register(register, value) => {
            write_register(running, register, value)?;
            running.done(next_rip)
        }
        WriteVerdict::Efer(change) => {
            running.vcpu.backend.write(Register::Efer, change.efer);
            running.done(next_rip)
        }
        WriteVerdict::Fault => running.raise(Event::GENERAL_PROTECTION),
    }
}

fn read_register(vcpu: &Vcpu, register: MsrRegister) -> u64 {
    use MsrRegister as M;
    match register {
        M::Tsc => tsc::now().wrapping_add(vcpu.tsc_offset),
        M::Xfd => vcpu.xstate.xfd(),
        M::XfdErr => vcpu.xstate.xfd_err(),
        M::Xss => vcpu.xstate.xss(),
        M::TscAux => vcpu.live.tsc_aux,
        M::FsBase => vcpu.backend.segment(SegmentName::Fs).base,
        M::GsBase => vcpu.backend.segment(SegmentName::Gs).base,
        other => in_control_block(other).map_or(0, |r| vcpu.backend.read(r)),
    }
}

/// Sets a register to a value that has passed its verdict, but for extended
/// state's, whose owner judges; `Err` is what follows where the write is not done.
fn write_register(
    running: &mut Running<'_>,
    register: MsrRegister,
    value: u64,
) -> Result<(), Next> {
    use MsrRegister as M;
    let vcpu = &mut *running.vcpu;
    let accepted = match register {
        M::Tsc => {
            vcpu.tsc_offset = value.wrapping_sub(tsc::now());
            vcpu.backend.set_tsc_offset(vcpu.tsc_offset);
            if let Some(at) = vcpu.clock_page {
                let memory = &running.target.domain.memory;
                let (offset, version) = (vcpu.tsc_offset, vcpu.clock_version);
                vcpu.clock_version = clock::publish(memory, at, &vcpu.clock, offset, version);
            }
            true
        }
        M::Xfd => vcpu
            .xstate
            .set_xfd(value, running.pcpu.xstate.host())
            .is_ok(),
        M::XfdErr => vcpu
            .xstate
            .set_xfd_err(value, running.pcpu.xstate.host())
            .is_ok(),
        M::Xss => {
            let mut memory = running.target.domain.xstate_memory.lock();
            let set = vcpu
                .xstate
                .set_xss(value, &mut running.pcpu.xstate, &mut *memory);
            drop(memory);
            match set {
                Ok(()) => {
                    running.reload()?;
                    true
                }
                Err(WriteXssError::Fault(_)) => false,
                Err(WriteXssError::NeedsMemory(missing)) => {
                    return Err(needs_memory(running, &missing));
                }
            }
        }
        M::TscAux => {
            vcpu.live.tsc_aux = value;
            vcpu.live.load_tsc_aux(running.pcpu.has_tsc_aux);
            true
        }
        M::FsBase => {
            vcpu.backend.set_segment_base(SegmentName::Fs, value);
            true
        }
        M::GsBase => {
            vcpu.backend.set_segment_base(SegmentName::Gs, value);
            true
        }
        other => {
            if let Some(register) = in_control_block(other) {
                vcpu.backend.write(register, value);
            }
            true
        }
    };
    if accepted {
        return Ok(());
    }
    running.raise(Event::GENERAL_PROTECTION).and_then(Err)
}

/// MSRs that are registers of the control block.
const fn in_control_block(register: MsrRegister) -> Option<Register> {
    use MsrRegister as M;
    Some(match register {
        M::SysenterCs => Register::SysenterCs,
        M::SysenterEsp => Register::SysenterEsp,
        M::SysenterEip => Register::SysenterEip,
        M::Pat => Register::Pat,
        M::Efer => Register::Efer,
        M::Star => Register::Star,
        M::Lstar => Register::Lstar,
        M::Cstar => Register::Cstar,
        M::Sfmask => Register::Sfmask,
        M::KernelGsBase => Register::KernelGsBase,
        M::Tsc | M::Xfd | M::XfdErr | M::Xss | M::FsBase | M::GsBase | M::TscAux => return None,
    })
}

/// HLT: waits for an event. The loop sees to it.
pub fn hlt(running: &mut Running<'_>, next_rip: u64) -> Handled {
    running.vcpu.advance(next_rip)?;
    running.vcpu.activity = Activity::Halted;
    Ok(Next::Resume)
}

/// INVD and WBINVD: a guest has no memory that is not coherent, so there is
/// nothing to write back, and nothing may be thrown away.
pub fn flush(running: &mut Running<'_>, next_rip: u64) -> Handled {
    running.done(next_rip)
}
