//! What a register record is made of: segments, tables, the pending event, and
//! the numbers in its narrow fields.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bits of [`Segment::attributes`] (SDM Vol. 3C, 24.4.1, Table "Format of Access Rights").
pub mod attributes {
    /// Type, bits 0 to 3.
    pub const TYPE: u32 = 0xf;
    /// Code or data (1) or system (0).
    pub const S: u32 = 1 << 4;
    /// Privilege level, bits 5 and 6.
    pub const DPL: u32 = 3 << 5;
    /// Present.
    pub const PRESENT: u32 = 1 << 7;
    /// Available for system software.
    pub const AVL: u32 = 1 << 12;
    /// 64-bit code segment.
    pub const LONG: u32 = 1 << 13;
    /// Default operation size.
    pub const DB: u32 = 1 << 14;
    /// Granularity: the limit was in pages.
    pub const GRANULARITY: u32 = 1 << 15;
    /// A null selector was loaded (VMX keeps it so; SVM clears `PRESENT` instead).
    pub const UNUSABLE: u32 = 1 << 16;
    /// Every bit that may be set.
    pub const ALL: u32 = 0x1_f0ff;
}

/// A segment register with its hidden part.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Segment {
    /// Linear base address.
    pub base: u64,
    /// Limit in bytes, already scaled by the granularity bit.
    pub limit: u32,
    /// Selector.
    pub selector: u16,
    /// Zero.
    pub reserved: u16,
    /// See [`attributes`].
    pub attributes: u32,
    /// Zero.
    pub reserved2: u32,
}

/// GDTR or IDTR.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct DescriptorTable {
    /// Linear base address.
    pub base: u64,
    /// Limit in bytes, at most 0xffff.
    pub limit: u32,
    /// Zero.
    pub reserved: u32,
}

/// What [`PendingEvent::kind`] says, without its interrupted-in-delivery flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum EventKind {
    /// Nothing is pending; the other fields are zero.
    None = 0,
    /// External interrupt, accepted but not yet delivered.
    Interrupt = 1,
    /// Non-maskable interrupt, vector 2.
    Nmi = 2,
    /// Hardware exception, vectors 0 to 31.
    Exception = 3,
    /// INT n.
    SoftwareInterrupt = 4,
    /// INT3, INTO or INT1.
    SoftwareException = 5,
}

impl EventKind {
    /// The kind in a byte whose flag was taken off.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::None,
            1 => Self::Interrupt,
            2 => Self::Nmi,
            3 => Self::Exception,
            4 => Self::SoftwareInterrupt,
            5 => Self::SoftwareException,
            _ => return None,
        })
    }
}

/// Set in [`PendingEvent::kind`] where an exit interrupted the event's delivery
/// (EXITINTINFO, IDT-vectoring information): it is delivered again, before all else.
pub const INTERRUPTED_DELIVERY: u8 = 0x80;

/// The event that the vCPU takes before its next instruction.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct PendingEvent {
    /// An [`EventKind`], with [`INTERRUPTED_DELIVERY`] or without.
    pub kind: u8,
    /// Vector.
    pub vector: u8,
    /// 1 where `error_code` is pushed, else 0.
    pub has_error: u8,
    /// Length of the instruction in bytes for software events, else 0.
    pub insn_len: u8,
    /// Error code, 0 where there is none.
    pub error_code: u32,
}

impl PendingEvent {
    /// No event.
    pub const NONE: Self = Self {
        kind: 0,
        vector: 0,
        has_error: 0,
        insn_len: 0,
        error_code: 0,
    };

    /// The kind without its flag; `None` where it is unknown.
    #[must_use]
    pub const fn event_kind(&self) -> Option<EventKind> {
        EventKind::from_code(self.kind & !INTERRUPTED_DELIVERY)
    }

    /// Whether an exit interrupted the delivery.
    #[must_use]
    pub const fn interrupted_delivery(&self) -> bool {
        self.kind & INTERRUPTED_DELIVERY != 0
    }
}

/// [`interrupt_shadow`](super::VcpuRegisters::interrupt_shadow): no shadow.
pub const SHADOW_NONE: u8 = 0;
/// [`interrupt_shadow`](super::VcpuRegisters::interrupt_shadow): after STI.
pub const SHADOW_STI: u8 = 1;
/// [`interrupt_shadow`](super::VcpuRegisters::interrupt_shadow): after MOV SS or POP SS (debug exceptions are held back too).
pub const SHADOW_MOV_SS: u8 = 2;

/// What the vCPU does when it is run, as [`activity`](super::VcpuRegisters::activity) says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Activity {
    /// Executes instructions.
    Running = 0,
    /// Waits in HLT.
    Halted = 1,
    /// Triple fault.
    Shutdown = 2,
    /// Waits for a start-up IPI.
    WaitForSipi = 3,
}

impl Activity {
    /// The activity with this number.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Running,
            1 => Self::Halted,
            2 => Self::Shutdown,
            3 => Self::WaitForSipi,
            _ => return None,
        })
    }
}

/// Number of paravirtual events.
pub const EVENTS: usize = 8;
/// Index of the one-shot timer in [`event_vectors`](super::VcpuRegisters::event_vectors).
pub const EVENT_TIMER: usize = 0;
/// Index of the console in [`event_vectors`](super::VcpuRegisters::event_vectors).
pub const EVENT_CONSOLE: usize = 1;

impl Segment {
    /// All zero.
    pub const ZERO: Self = Self {
        base: 0,
        limit: 0,
        selector: 0,
        reserved: 0,
        attributes: 0,
        reserved2: 0,
    };
}

impl DescriptorTable {
    /// All zero.
    pub const ZERO: Self = Self {
        base: 0,
        limit: 0,
        reserved: 0,
    };
}
