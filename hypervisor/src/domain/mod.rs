//! Domains: memory, vCPUs, console, clock, policy, and who may run them.

pub mod memory;
pub mod slots;
pub mod status;
pub mod table;
pub mod xstate_memory;

use crate::exits::uart::Uart;
use crate::vcpu::Vcpu;
use crate::vcpu::clock::DomainClock;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use memory::GuestMemory;
use spin::mutex::SpinMutex;
use status::Status;
use vcpu_xstate::policy::CpuPolicy;
use xferry_abi::{DomainId, Event};
use xstate_memory::XstateMemory;

/// A vCPU, and what others say to it while it runs.
pub struct VcpuCell {
    /// Held by the physical CPU that runs it for as long as it does; control
    /// calls take it when the domain stands still.
    pub vcpu: SpinMutex<Vcpu>,
    /// Bit n: paravirtual event n was raised since it last looked.
    raised: AtomicU64,
    /// Host time, ns since boot, until which it has nothing to do; 0 where it
    /// has something, `u64::MAX` where only an event ends the wait.
    blocked_until_ns: AtomicU64,
}

impl VcpuCell {
    /// A cell around a vCPU that is ready to run.
    #[must_use]
    pub const fn new(vcpu: Vcpu) -> Self {
        Self {
            vcpu: SpinMutex::new(vcpu),
            raised: AtomicU64::new(0),
            blocked_until_ns: AtomicU64::new(0),
        }
    }

    /// Tells the vCPU of an event.
    pub fn raise(&self, event: Event) {
        self.raised.fetch_or(1 << event as u64, Ordering::AcqRel);
    }

    /// Takes what was raised.
    pub fn take_raised(&self) -> u64 {
        // The common case costs a load, not a locked exchange.
        if self.raised.load(Ordering::Acquire) == 0 {
            return 0;
        }
        self.raised.swap(0, Ordering::AcqRel)
    }

    /// Whether it has something to do at host time `now_ns`.
    pub fn ready(&self, now_ns: u64) -> bool {
        self.blocked_until_ns() <= now_ns || self.raised.load(Ordering::Acquire) != 0
    }

    /// See the field.
    pub fn blocked_until_ns(&self) -> u64 {
        self.blocked_until_ns.load(Ordering::Acquire)
    }

    /// See the field.
    pub fn block_until_ns(&self, host_ns: u64) {
        self.blocked_until_ns.store(host_ns, Ordering::Release);
    }
}

/// What changes of a domain as a whole, under one lock.
pub struct Shared {
    /// What CPUID says to it.
    pub policy: Arc<CpuPolicy>,
    /// Its system time.
    pub clock: DomainClock,
}

/// A domain.
pub struct Domain {
    /// Its number.
    pub id: DomainId,
    /// Its name for machines.
    pub uuid: [u8; 16],
    /// Its name for people, padded with zeros.
    pub name: [u8; 32],
    /// Its vCPUs. Declared, and so dropped, before the memory that they run on.
    pub vcpus: Vec<VcpuCell>,
    /// Its memory.
    pub memory: GuestMemory,
    /// Whether it may run.
    pub status: Status,
    /// It arrives paused, and taking the right to run does not change that.
    pub stays_paused: bool,
    /// See [`Shared`]. No other lock is taken while it is held.
    pub shared: SpinMutex<Shared>,
    /// Memory of its vCPUs' areas. Taken after a vCPU's lock, never before.
    pub xstate_memory: SpinMutex<XstateMemory>,
    /// Its 16550 and the bytes on their way.
    pub console: SpinMutex<Uart>,
    /// Time that its vCPUs have run, ns.
    pub cpu_time_ns: AtomicU64,
    /// Their exits.
    pub exits: AtomicU64,
}

impl Domain {
    /// The toolstack: it alone makes control calls.
    #[must_use]
    pub fn is_privileged(&self) -> bool {
        self.id == DomainId::TOOLSTACK
    }

    /// Adds to its accounts.
    pub fn account(&self, run_ns: u64, exits: u64) {
        self.cpu_time_ns.fetch_add(run_ns, Ordering::Relaxed);
        self.exits.fetch_add(exits, Ordering::Relaxed);
    }
}
