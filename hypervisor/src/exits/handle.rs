//! From an exit to what follows from it.
//!
//! Each handler moves registers and events of the one vCPU that runs; whether
//! something is allowed it asks of a verdict.

#[cfg(test)]
#[path = "handle_tests.rs"]
mod tests;

use super::decode::{self, Instruction, decode_intercepted};
use super::fetch::{self, CodeSegment, InstructionError};
use super::walk::{Fault, Paging, PhysicalMemory};
use super::{control, hypercalls, instructions, ports};
use crate::domain::memory::GuestMemory;
use crate::domain::status::Stop;
use crate::mm::addr::GuestPhys;
use crate::sched::VcpuRef;
use crate::sched::pcpu::Pcpu;
use crate::vcpu::Vcpu;
use crate::vcpu::events::TripleFault;
use crate::virt::event::vector;
use crate::virt::{Backend, Event, Exit, Intercepted, Register, SegmentName};
use migration_abi::registers::attributes;
use vcpu_xstate::policy::Bit;
use xferry_abi::info::crash;

/// The vCPU that has just come back, and where.
pub struct Running<'a> {
    /// The physical CPU.
    pub pcpu: &'a mut Pcpu,
    /// Which vCPU.
    pub target: &'a VcpuRef,
    /// The vCPU.
    pub vcpu: &'a mut Vcpu,
}

/// What follows an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Back into the guest.
    Resume,
    /// The same, but its timer has changed.
    ResumeTimer,
    /// Another vCPU may run.
    Yield,
    /// It has nothing to do until an event comes.
    Block,
    /// Its domain stops.
    Stop(Stop),
}

/// A handler's way out: `?` on whatever ends the handling of an exit.
pub type Handled = Result<Next, Next>;

/// Handles an exit.
pub fn handle(running: &mut Running<'_>, exit: Exit) -> Next {
    let handled = match exit {
        Exit::Instruction(what) => instruction(running, what),
        Exit::Io(io) => ports::handle(running, &io),
        Exit::Exception { vector, error_code } => exception(running, vector, error_code),
        // The window is closed or kept open when the next entry is prepared.
        Exit::InterruptWindow | Exit::HostEvent => Ok(Next::Resume),
        Exit::Interrupt => Ok(Next::Yield),
        Exit::NestedFault { address, .. } => Err(crashed(crash::NESTED_FAULT, address.as_u64())),
        Exit::Shutdown => Err(crashed(crash::TRIPLE_FAULT, 0)),
        Exit::TaskSwitch => Err(crashed(crash::UNEXPECTED_EXIT, 0)),
        Exit::InvalidState => Err(crashed(crash::INVALID_STATE, 0)),
        Exit::Unexpected { code, .. } => Err(crashed(crash::UNEXPECTED_EXIT, code)),
    };
    match handled {
        Ok(next) | Err(next) => next,
    }
}

/// Whether the guest executes 64-bit code.
pub fn in_64_bit_code(running: &Running<'_>) -> bool {
    running.code().size == decode::CodeSize::Bits64
}

/// The domain stops for what it did.
pub fn crashed(cause: u32, detail: u64) -> Next {
    Next::Stop(Stop::crash(cause, detail))
}

impl From<TripleFault> for Next {
    fn from(_: TripleFault) -> Self {
        crashed(crash::TRIPLE_FAULT, 0)
    }
}

fn instruction(running: &mut Running<'_>, what: Intercepted) -> Handled {
    // Nothing of these needs to be known but that they were tried.
    if what == Intercepted::NotOffered {
        return running.raise(Event::INVALID_OPCODE);
    }
    let found = running.fetch_as(what)?;
    let next_rip = running.next_rip(found.len);
    match what {
        Intercepted::Cpuid => instructions::cpuid(running, next_rip),
        Intercepted::Rdmsr => instructions::rdmsr(running, next_rip),
        Intercepted::Wrmsr => instructions::wrmsr(running, next_rip),
        Intercepted::Hlt => instructions::hlt(running, next_rip),
        Intercepted::Xsetbv => instructions::xsetbv(running, next_rip),
        Intercepted::Invd | Intercepted::Wbinvd => instructions::flush(running, next_rip),
        Intercepted::Hypercall => hypercalls::handle(running, next_rip),
        Intercepted::WriteCr(_) => control::write(running, found.kind, next_rip),
        Intercepted::NotOffered => running.raise(Event::INVALID_OPCODE),
    }
}

/// An exception that is intercepted is handed back, unless it is the other
/// vendor's hypercall.
fn exception(running: &mut Running<'_>, number: u8, error_code: Option<u32>) -> Handled {
    if number == vector::UD
        && let Ok(found) = running.fetch(decode::decode)
        && found.kind == decode::Kind::Vmcall
    {
        let next_rip = running.next_rip(found.len);
        return hypercalls::handle(running, next_rip);
    }
    // The host's memory or buses are broken: nothing that runs on is safe.
    assert_ne!(number, vector::MC, "machine check while a guest ran");
    if number == vector::NM {
        return instructions::device_not_available(running);
    }
    running.raise(Event::exception(number, error_code))
}

impl Running<'_> {
    /// The guest gets an exception.
    pub fn raise(&mut self, event: Event) -> Handled {
        self.vcpu.events.raise(event)?;
        Ok(Next::Resume)
    }

    /// The instruction is done.
    pub fn done(&mut self, next_rip: u64) -> Handled {
        self.vcpu.advance(next_rip)?;
        Ok(Next::Resume)
    }

    /// Brings the vCPU's extended state into this CPU's registers again, where a
    /// handler has had it in memory. On a development machine there are no
    /// registers to bring it into.
    pub fn reload(&mut self) -> Result<(), Next> {
        if cfg!(not(target_os = "none")) {
            return Ok(());
        }
        self.pcpu
            .xstate
            .load(&mut self.vcpu.xstate)
            .map_err(|_| crashed(crash::XSTATE_LOST, 0))
    }

    /// RIP after an instruction of `len` bytes here: outside 64-bit code only
    /// EIP counts.
    fn next_rip(&self, len: u8) -> u64 {
        let next = self
            .vcpu
            .backend
            .read(Register::Rip)
            .wrapping_add(u64::from(len));
        match self.code().size {
            decode::CodeSize::Bits64 => next,
            _ => next & 0xffff_ffff,
        }
    }

    /// How the guest translates addresses now.
    pub fn paging(&self) -> Paging {
        let read = |register| self.vcpu.backend.read(register);
        Paging {
            cr0: read(Register::Cr0),
            cr3: read(Register::Cr3),
            cr4: read(Register::Cr4),
            efer: read(Register::Efer),
            rflags: read(Register::Rflags),
            pkru: 0,
            cpl: self.vcpu.backend.cpl(),
            physical_bits: self.vcpu.policy.physical_address_bits(),
            gib_pages: self.vcpu.policy.has(const { Bit::of("page1gb") }),
        }
    }

    /// The guest's code segment.
    pub fn code(&self) -> CodeSegment {
        let cs = self.vcpu.backend.segment(SegmentName::Cs);
        CodeSegment::new(
            cs.base,
            cs.limit,
            cs.attributes & attributes::LONG != 0,
            cs.attributes & attributes::DB != 0,
            &self.paging(),
        )
    }

    /// Fetches and decodes what stands at RIP.
    fn fetch(
        &self,
        decode: impl FnOnce(&[u8], decode::CodeSize) -> Result<Instruction, decode::DecodeError>,
    ) -> Result<Instruction, InstructionError> {
        let rip = self.vcpu.backend.read(Register::Rip);
        let memory = &self.target.domain.memory;
        fetch::instruction(&self.code(), rip, &self.paging(), memory, decode)
    }

    /// Fetches the instruction that the exit says it was.
    pub fn fetch_as(&mut self, what: Intercepted) -> Result<Instruction, Next> {
        match self.fetch(|bytes, size| decode_intercepted(bytes, size, what)) {
            Ok(found) => Ok(found),
            Err(error) => Err(self.not_fetched(error)),
        }
    }

    /// What becomes of a guest whose instruction could not be had.
    pub fn not_fetched(&mut self, error: InstructionError) -> Next {
        let event = match error {
            InstructionError::Fetch(fault) => match self.fault(fault) {
                Ok(event) => event,
                Err(next) => return next,
            },
            InstructionError::Decode(error) => match error {
                // Another vCPU rewrote it: entering again executes the new one,
                // and the processor says what of it is undefined.
                decode::DecodeError::Mismatch(_) | decode::DecodeError::Unknown(_) => {
                    return Next::Resume;
                }
                decode::DecodeError::TooLong => Event::GENERAL_PROTECTION,
                decode::DecodeError::Lock => Event::INVALID_OPCODE,
                decode::DecodeError::Truncated => {
                    let rip = self.vcpu.backend.read(Register::Rip);
                    return crashed(crash::INSTRUCTION, rip);
                }
            },
        };
        self.raise(event).unwrap_or_else(|next| next)
    }

    /// The exception for a failed translation. CR2 is set for #PF.
    pub fn fault(&mut self, fault: Fault) -> Result<Event, Next> {
        match fault {
            Fault::Page {
                error_code,
                address,
            } => {
                self.vcpu.backend.write(Register::Cr2, address);
                Ok(Event::exception(vector::PF, Some(error_code)))
            }
            Fault::GeneralProtection => Ok(Event::GENERAL_PROTECTION),
            Fault::Unbacked(address) => Err(crashed(crash::NESTED_FAULT, address.as_u64())),
        }
    }
}

impl PhysicalMemory for GuestMemory {
    fn read_u32(&self, address: GuestPhys) -> Option<u32> {
        let mut bytes = [0; 4];
        self.read(address, &mut bytes).ok()?;
        Some(u32::from_le_bytes(bytes))
    }

    fn read_u64(&self, address: GuestPhys) -> Option<u64> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes).ok()?;
        Some(u64::from_le_bytes(bytes))
    }

    fn read_bytes(&self, address: GuestPhys, into: &mut [u8]) -> Option<()> {
        self.read(address, into).ok()
    }
}
