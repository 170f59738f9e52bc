//! One virtual CPU: its control block, its extended state, and what waits to
//! be delivered to it.

pub mod clock;
pub mod events;
pub mod live;
pub mod record;

use crate::cpu::tsc;
use crate::domain::memory::GuestMemory;
use crate::domain::xstate_memory::XstateMemory;
use crate::host;
use crate::mm::addr::{GuestPhys, PAGE_BYTES};
use crate::virt::{ActiveBackend, Backend, Event, Gprs, PortAccess, Register, gpr};
use alloc::sync::Arc;
use clock::DomainClock;
use events::{Delivery, Events, TripleFault};
use live::LiveRegisters;
use vcpu_xstate::owner::VcpuXstate;
use vcpu_xstate::policy::{CpuPolicy, Dynamic};

/// RFLAGS bits that handlers look at.
pub mod rflags {
    /// Trap flag: #DB after each instruction.
    pub const TF: u64 = 1 << 8;
    /// Interrupt flag.
    pub const IF: u64 = 1 << 9;
    /// Resume flag.
    pub const RF: u64 = 1 << 16;
}

/// DR6.BS: the debug exception was a single step.
const DR6_BS: u64 = 1 << 14;

/// What a vCPU does when it is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// It executes instructions.
    Running,
    /// It waits in HLT.
    Halted,
}

/// There was no memory for a vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom {
    /// Bytes that were wanted and not there.
    pub bytes: usize,
}

/// A virtual CPU.
pub struct Vcpu {
    /// Its number in the domain.
    pub index: u32,
    /// General-purpose registers.
    pub gprs: Gprs,
    /// The control block.
    pub backend: ActiveBackend,
    /// Extended state, and who owns it.
    pub xstate: VcpuXstate,
    /// Registers that are switched by hand.
    pub live: LiveRegisters,
    /// Running or halted.
    pub activity: Activity,
    /// What waits to be delivered.
    pub events: Events,
    /// An NMI was delivered and its IRET is still to come. There is no source
    /// of NMIs here; the flag is kept for the next host.
    pub nmi_blocked: bool,
    /// Pending debug exceptions, kept for a VMX host.
    pub pending_debug: u64,
    /// What is added to the host's TSC.
    pub tsc_offset: u64,
    /// The domain's clock, so that no lock is needed to tell the time.
    pub clock: DomainClock,
    /// Where its clock page lies.
    pub clock_page: Option<GuestPhys>,
    /// Version that the page was last written with; even.
    pub clock_version: u32,
    /// What CPUID says to it: shared with the domain, replaced as a whole.
    pub policy: Arc<CpuPolicy>,
}

impl Vcpu {
    /// A vCPU after INIT. Its TSC begins at zero with its domain's clock.
    ///
    /// # Errors
    /// No memory for its control block or its area.
    pub fn new(
        index: u32,
        policy: &Arc<CpuPolicy>,
        clock: DomainClock,
        memory: &GuestMemory,
        ports: PortAccess,
        areas: &mut XstateMemory,
    ) -> Result<Self, NoRoom> {
        let host = &host::get().xstate;
        let xstate = VcpuXstate::new(host::vcpu_tag(), policy.xstate(), host, areas)
            .map_err(|error| NoRoom { bytes: error.bytes })?;
        let backend = ActiveBackend::new(memory.root().address(), ports).map_err(|_| NoRoom {
            bytes: PAGE_BYTES as usize,
        })?;
        let mut vcpu = Self {
            index,
            gprs: Gprs::default(),
            backend,
            xstate,
            live: LiveRegisters::default(),
            activity: Activity::Running,
            events: Events::NONE,
            nmi_blocked: false,
            pending_debug: 0,
            tsc_offset: 0,
            clock,
            clock_page: None,
            clock_version: 0,
            policy: Arc::clone(policy),
        };
        if !host.geometry().xfd_capable().is_empty() {
            vcpu.backend.intercept_device_not_available();
        }
        vcpu.set_registers(
            &record::init(policy.cpuid(1, 0, &Dynamic::default()).eax),
            tsc::now(),
        );
        Ok(vcpu)
    }

    /// Steps over the instruction that a handler has executed in the guest's
    /// stead: RIP moves on, the interrupt shadow ends, RF is cleared, and a
    /// single step traps.
    ///
    /// # Errors
    /// The trap makes a triple fault.
    pub fn advance(&mut self, next_rip: u64) -> Result<(), TripleFault> {
        self.backend.write(Register::Rip, next_rip);
        self.backend.clear_interrupt_shadow();
        let flags = self.backend.read(Register::Rflags);
        if flags & rflags::RF != 0 {
            self.backend.write(Register::Rflags, flags & !rflags::RF);
        }
        if flags & rflags::TF != 0 {
            self.trap_step()?;
        }
        Ok(())
    }

    /// A single step has ended: #DB, with DR6.BS.
    ///
    /// # Errors
    /// The trap makes a triple fault.
    pub fn trap_step(&mut self) -> Result<(), TripleFault> {
        let dr6 = self.backend.read(Register::Dr6);
        self.backend.write(Register::Dr6, dr6 | DR6_BS);
        self.events.raise(Event::exception(1, None))
    }

    /// A general-purpose register; RAX where `number` is none.
    #[must_use]
    pub fn gpr(&self, number: u8) -> u64 {
        self.gprs.0[usize::from(number & 15)]
    }

    /// EDX:EAX, as WRMSR and XSETBV take it.
    #[must_use]
    pub fn edx_eax(&self) -> u64 {
        (self.gprs.0[gpr::RDX] << 32) | (self.gprs.0[gpr::RAX] & 0xffff_ffff)
    }

    /// Sets EDX:EAX, upper halves zero, as RDMSR does.
    pub fn set_edx_eax(&mut self, value: u64) {
        self.gprs.0[gpr::RAX] = value & 0xffff_ffff;
        self.gprs.0[gpr::RDX] = value >> 32;
    }

    /// Whether an interrupt could be delivered now.
    #[must_use]
    pub fn interruptible(&self) -> bool {
        self.backend.read(Register::Rflags) & rflags::IF != 0 && !self.backend.interrupt_shadow()
    }

    /// Makes the next entry deliver what waits.
    pub fn prepare_entry(&mut self) {
        let interruptible = self.interruptible();
        match self.events.take(interruptible) {
            Delivery::Nothing => self.backend.set_interrupt_window(false),
            Delivery::Window => self.backend.set_interrupt_window(true),
            Delivery::Inject { event, more } => {
                self.backend.inject(event);
                self.backend.set_interrupt_window(more);
            }
        }
    }

    /// Guest system time, ns, at the host's TSC `host_tsc`.
    #[must_use]
    pub fn now_ns(&self, host_tsc: u64) -> u64 {
        self.clock.now_ns(host_tsc)
    }
}
