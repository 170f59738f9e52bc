//! Whether the processor really gives the exits that the hypervisor rests on:
//! a guest of three instructions tries XSETBV.

use crate::domain::memory::{GuestMemory, MemoryError};
use crate::domain::slots::Slot;
use crate::domain::xstate_memory::XstateMemory;
use crate::exits::cr;
use crate::host;
use crate::mm::addr::GuestPhys;
use crate::sched::pcpu::Pcpu;
use crate::vcpu::clock::DomainClock;
use crate::vcpu::{NoRoom, Vcpu};
use crate::virt::{Backend, Exit, Intercepted, PortAccess, Register, SegmentName, gpr};
use alloc::sync::Arc;
use core::fmt;

/// Why the probe failed.
#[derive(Debug)]
pub enum ProbeError {
    /// No memory for the guest.
    Memory,
    /// Its state could not be loaded.
    Restore,
    /// It came back for something else.
    NotIntercepted(Exit),
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("no memory for the guest that tries the intercepts"),
            Self::Restore => f.write_str("INIT state could not be restored"),
            Self::NotIntercepted(exit) => write!(
                f,
                "XSETBV of a guest is not intercepted (it got as far as {exit:?}); \
                 QEMU before version 10 is like that"
            ),
        }
    }
}

impl From<MemoryError> for ProbeError {
    fn from(_: MemoryError) -> Self {
        Self::Memory
    }
}

impl From<NoRoom> for ProbeError {
    fn from(_: NoRoom) -> Self {
        Self::Memory
    }
}

/// XSETBV, then HLT, in real mode.
const CODE: [u8; 4] = [0x0f, 0x01, 0xd1, 0xf4];
const AT: u64 = 0x100;

/// Runs the guest.
///
/// # Errors
/// XSETBV did not exit, or there was no memory to try.
pub fn intercepts(pcpu: &mut Pcpu) -> Result<(), ProbeError> {
    let policy = Arc::new(host::get().policy.clone());
    let memory = GuestMemory::new(Slot::take().ok_or(ProbeError::Memory)?, 1)?;
    memory
        .write(GuestPhys::new(AT), &CODE)
        .map_err(|_| ProbeError::Memory)?;
    let mut areas = XstateMemory::new(64 << 10);
    let clock = DomainClock::new(0, crate::cpu::tsc::now(), host::get().tsc_khz);
    let mut vcpu = Vcpu::new(0, &policy, clock, &memory, PortAccess::Closed, &mut areas)?;
    vcpu.backend.write(Register::Cr4, cr::CR4_OSXSAVE);
    vcpu.backend.write(Register::Rip, AT);
    vcpu.backend.set_segment_base(SegmentName::Cs, 0);
    vcpu.gprs.0[gpr::RAX] = 1;
    vcpu.gprs.0[gpr::RCX] = 0;
    vcpu.gprs.0[gpr::RDX] = 0;
    pcpu.xstate
        .load(&mut vcpu.xstate)
        .map_err(|_| ProbeError::Restore)?;
    pcpu.xstate.enter(&vcpu.xstate);
    let (exit, _) = vcpu.backend.enter(&mut pcpu.backend, &mut vcpu.gprs);
    pcpu.xstate.save(&mut vcpu.xstate);
    match exit {
        Exit::Instruction(Intercepted::Xsetbv) => Ok(()),
        other => Err(ProbeError::NotIntercepted(other)),
    }
}
