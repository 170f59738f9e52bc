//! The processor's virtualization, behind one narrow trait.
//!
//! A vendor's backend owns its control block and knows how to enter a guest,
//! why the guest came back ([`Exit`]) and where its registers lie. It decides
//! nothing: what an exit means is `exits/`, whether something is allowed is
//! `vcpu-xstate` or a verdict beside the handler.

pub mod event;
pub mod exit;
pub mod nested;
pub mod svm;

use crate::mm::addr::HostPhys;
use migration_abi::registers::{Segment, VcpuRegisters};

pub use event::{Event, EventKind};
pub use exit::{Exit, Intercepted, IoExit};

/// General-purpose registers in the order of their numbers in an instruction
/// (RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8–R15).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Gprs(pub [u64; 16]);

/// Numbers of general-purpose registers.
#[allow(missing_docs)]
pub mod gpr {
    pub const RAX: usize = 0;
    pub const RCX: usize = 1;
    pub const RDX: usize = 2;
    pub const RBX: usize = 3;
    pub const RSP: usize = 4;
    pub const RSI: usize = 6;
    pub const RDI: usize = 7;
    pub const R8: usize = 8;
    pub const R10: usize = 10;
}

/// A register that the control block holds and a handler reads or writes by
/// name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Register {
    Rip,
    Rflags,
    Cr0,
    Cr2,
    Cr3,
    Cr4,
    Cr8,
    Efer,
    Dr6,
    Dr7,
    Pat,
    Star,
    Lstar,
    Cstar,
    Sfmask,
    KernelGsBase,
    SysenterCs,
    SysenterEsp,
    SysenterEip,
}

/// Ports that a guest reaches without an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortAccess {
    /// None.
    Closed,
    /// Those of the link: the toolstack's.
    Link,
}

/// COM2, which is the link.
pub const LINK_PORTS: core::ops::RangeInclusive<u16> = 0x2f8..=0x2ff;

/// There was no memory for a control block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

/// One vCPU's control block on this vendor's processors.
pub trait Backend: Sized {
    /// What the vendor keeps for each physical CPU.
    type Cpu;

    /// Why a physical CPU cannot run guests, in words.
    type Unusable: core::fmt::Display;

    /// Switches virtualization on for this physical CPU, which is number
    /// `number`. Once per CPU, after its GS base, TR and SYSCALL MSRs have the
    /// values that they keep.
    ///
    /// # Errors
    /// It is not there, or not to be had.
    fn enable(number: u32) -> Result<Self::Cpu, Self::Unusable>;

    /// A control block whose nested page tables are at `nested_root`. Its
    /// registers are set by [`Backend::import`].
    ///
    /// # Errors
    /// No memory.
    fn new(nested_root: HostPhys, ports: PortAccess) -> Result<Self, OutOfMemory>;

    /// Enters the guest until the next exit, on the CPU that `cpu` is of.
    /// `gprs` are the guest's, in and out. An event whose delivery the exit cut
    /// short is returned with it.
    fn enter(&mut self, cpu: &mut Self::Cpu, gprs: &mut Gprs) -> (Exit, Option<Event>);

    /// A register's value.
    fn read(&self, register: Register) -> u64;

    /// Sets a register to a value that has passed its verdict.
    fn write(&mut self, register: Register, value: u64);

    /// A segment register.
    fn segment(&self, segment: SegmentName) -> Segment;

    /// Sets a segment's base, as the MSRs of FS and GS do.
    fn set_segment_base(&mut self, segment: SegmentName, base: u64);

    /// Current privilege level, 0–3.
    fn cpl(&self) -> u8;

    /// Whether STI or MOV SS holds interrupts off for one instruction.
    fn interrupt_shadow(&self) -> bool;

    /// Ends that.
    fn clear_interrupt_shadow(&mut self);

    /// Delivers `event` at the next entry. One event fits; the caller has seen
    /// to that.
    fn inject(&mut self, event: Event);

    /// Whether to exit with [`Exit::InterruptWindow`] as soon as an interrupt
    /// could be delivered.
    fn set_interrupt_window(&mut self, on: bool);

    /// Makes #NM exit: where the processor has IA32_XFD, and the hypervisor may
    /// hold components back by it.
    fn intercept_device_not_available(&mut self);

    /// What is added to the host's TSC for the guest.
    fn set_tsc_offset(&mut self, offset: u64);

    /// Puts the control block's part of the register record into `record`.
    fn export(&self, record: &mut VcpuRegisters);

    /// Takes it from `record`, which has passed the checks of `vcpu::record`.
    fn import(&mut self, record: &VcpuRegisters);
}

/// Segment registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum SegmentName {
    Es,
    Cs,
    Ss,
    Ds,
    Fs,
    Gs,
}

/// The backend of this build: static dispatch.
pub type ActiveBackend = svm::SvmVcpu;

/// What it keeps for each physical CPU.
pub type ActiveCpu = <ActiveBackend as Backend>::Cpu;
