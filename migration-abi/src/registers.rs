//! One vCPU's registers as every backend can read and write them: neither the
//! VMCB's form nor the VMCS's, little-endian, 640 bytes, version 1.
//!
//! Extended state is not here: XCR0, XSS, XFD, MXCSR and all that XSAVE saves
//! stand in the [blob](crate::blob) and nowhere else. UINV belongs to the image.

use core::mem::{offset_of, size_of};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::error::{Allowed, ParseError, Rule};

/// Version of the record, carried in front of it in the stream.
pub const REGISTERS_VERSION: u16 = 1;

/// [`VcpuRegisters::clock_page_gpa`] and [`VcpuRegisters::timer_deadline_ns`]: there is none.
pub const NONE: u64 = u64::MAX;

/// Indices into [`VcpuRegisters::gpr`]: the encoding order of ModRM and REX.
pub mod gpr {
    #![allow(missing_docs)] // the names say all
    pub const RAX: usize = 0;
    pub const RCX: usize = 1;
    pub const RDX: usize = 2;
    pub const RBX: usize = 3;
    pub const RSP: usize = 4;
    pub const RBP: usize = 5;
    pub const RSI: usize = 6;
    pub const RDI: usize = 7;
    pub const R8: usize = 8;
    pub const R9: usize = 9;
    pub const R10: usize = 10;
    pub const R11: usize = 11;
    pub const R12: usize = 12;
    pub const R13: usize = 13;
    pub const R14: usize = 14;
    pub const R15: usize = 15;
}

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

/// [`VcpuRegisters::interrupt_shadow`]: no shadow.
pub const SHADOW_NONE: u8 = 0;
/// [`VcpuRegisters::interrupt_shadow`]: after STI.
pub const SHADOW_STI: u8 = 1;
/// [`VcpuRegisters::interrupt_shadow`]: after MOV SS or POP SS (debug exceptions are held back too).
pub const SHADOW_MOV_SS: u8 = 2;

/// What the vCPU does when it is run, as [`VcpuRegisters::activity`] says.
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
/// Index of the one-shot timer in [`VcpuRegisters::event_vectors`].
pub const EVENT_TIMER: usize = 0;
/// Index of the console in [`VcpuRegisters::event_vectors`].
pub const EVENT_CONSOLE: usize = 1;

/// All that a vCPU is besides its extended state. Offsets are the wire's;
/// `docs/src/wire-stream.md` has the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct VcpuRegisters {
    /// General registers, indexed by [`gpr`].
    pub gpr: [u64; 16],
    /// Instruction pointer.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,
    /// CR0 as the guest sees it.
    pub cr0: u64,
    /// CR2, which neither vendor's exit saves for the host to forget.
    pub cr2: u64,
    /// CR3 as the guest sees it.
    pub cr3: u64,
    /// CR4 as the guest sees it.
    pub cr4: u64,
    /// Task priority, 0 to 15.
    pub cr8: u64,
    /// IA32_EFER as the guest sees it (without SVM's host-owned SVME).
    pub efer: u64,
    /// DR0.
    pub dr0: u64,
    /// DR1.
    pub dr1: u64,
    /// DR2.
    pub dr2: u64,
    /// DR3.
    pub dr3: u64,
    /// DR6.
    pub dr6: u64,
    /// DR7.
    pub dr7: u64,
    /// ES.
    pub es: Segment,
    /// CS.
    pub cs: Segment,
    /// SS; its DPL is the CPL.
    pub ss: Segment,
    /// DS.
    pub ds: Segment,
    /// FS; its base is IA32_FS_BASE.
    pub fs: Segment,
    /// GS; its base is IA32_GS_BASE.
    pub gs: Segment,
    /// LDTR.
    pub ldtr: Segment,
    /// Task register.
    pub tr: Segment,
    /// GDTR.
    pub gdtr: DescriptorTable,
    /// IDTR.
    pub idtr: DescriptorTable,
    /// IA32_STAR.
    pub star: u64,
    /// IA32_LSTAR.
    pub lstar: u64,
    /// IA32_CSTAR.
    pub cstar: u64,
    /// IA32_FMASK (AMD: SFMASK).
    pub sfmask: u64,
    /// IA32_KERNEL_GS_BASE.
    pub kernel_gs_base: u64,
    /// IA32_SYSENTER_CS.
    pub sysenter_cs: u64,
    /// IA32_SYSENTER_ESP.
    pub sysenter_esp: u64,
    /// IA32_SYSENTER_EIP.
    pub sysenter_eip: u64,
    /// IA32_PAT.
    pub pat: u64,
    /// IA32_TSC_AUX.
    pub tsc_aux: u64,
    /// IA32_DEBUGCTL.
    pub debugctl: u64,
    /// IA32_S_CET (U_CET and PL0..3_SSP are in the extended state).
    pub s_cet: u64,
    /// SSP, the live shadow-stack pointer.
    pub ssp: u64,
    /// IA32_INTERRUPT_SSP_TABLE_ADDR.
    pub isst: u64,
    /// The guest's time-stamp counter when the vCPU was exported.
    pub tsc: u64,
    /// What is delivered before the next instruction.
    pub pending_event: PendingEvent,
    /// [`SHADOW_NONE`], [`SHADOW_STI`] or [`SHADOW_MOV_SS`].
    pub interrupt_shadow: u8,
    /// 1 between an NMI's delivery and its IRET.
    pub nmi_blocked: u8,
    /// An [`Activity`].
    pub activity: u8,
    /// Zero.
    pub reserved: [u8; 5],
    /// Pending debug exceptions (SDM Vol. 3C, 24.4.2), DR6's bits.
    pub pending_debug: u64,
    /// Guest-physical address of the paravirtual clock page, or [`NONE`].
    pub clock_page_gpa: u64,
    /// Guest system time at which the one-shot timer fires, or [`NONE`].
    pub timer_deadline_ns: u64,
    /// Vector of each paravirtual event, 0 = none.
    pub event_vectors: [u8; EVENTS],
    /// Paravirtual events that are pending, bit n = event n.
    pub pending_events: u64,
}

/// Length of the record in bytes.
pub const REGISTERS_BYTES: usize = 640;

const _: () = {
    assert!(size_of::<Segment>() == 24);
    assert!(size_of::<DescriptorTable>() == 16);
    assert!(size_of::<PendingEvent>() == 8);
    assert!(size_of::<VcpuRegisters>() == REGISTERS_BYTES);
    assert!(offset_of!(VcpuRegisters, rip) == 128);
    assert!(offset_of!(VcpuRegisters, cr0) == 144);
    assert!(offset_of!(VcpuRegisters, efer) == 184);
    assert!(offset_of!(VcpuRegisters, dr0) == 192);
    assert!(offset_of!(VcpuRegisters, es) == 240);
    assert!(offset_of!(VcpuRegisters, gdtr) == 432);
    assert!(offset_of!(VcpuRegisters, star) == 464);
    assert!(offset_of!(VcpuRegisters, tsc) == 576);
    assert!(offset_of!(VcpuRegisters, pending_event) == 584);
    assert!(offset_of!(VcpuRegisters, interrupt_shadow) == 592);
    assert!(offset_of!(VcpuRegisters, pending_debug) == 600);
    assert!(offset_of!(VcpuRegisters, clock_page_gpa) == 608);
    assert!(offset_of!(VcpuRegisters, event_vectors) == 624);
    assert!(offset_of!(VcpuRegisters, pending_events) == 632);
};

impl Default for VcpuRegisters {
    fn default() -> Self {
        Self::ZERO
    }
}

impl VcpuRegisters {
    /// All zero, with no clock page and no timer: legal as a record, not as a CPU.
    pub const ZERO: Self = Self {
        gpr: [0; 16],
        rip: 0,
        rflags: 0,
        cr0: 0,
        cr2: 0,
        cr3: 0,
        cr4: 0,
        cr8: 0,
        efer: 0,
        dr0: 0,
        dr1: 0,
        dr2: 0,
        dr3: 0,
        dr6: 0,
        dr7: 0,
        es: Segment::ZERO,
        cs: Segment::ZERO,
        ss: Segment::ZERO,
        ds: Segment::ZERO,
        fs: Segment::ZERO,
        gs: Segment::ZERO,
        ldtr: Segment::ZERO,
        tr: Segment::ZERO,
        gdtr: DescriptorTable::ZERO,
        idtr: DescriptorTable::ZERO,
        star: 0,
        lstar: 0,
        cstar: 0,
        sfmask: 0,
        kernel_gs_base: 0,
        sysenter_cs: 0,
        sysenter_esp: 0,
        sysenter_eip: 0,
        pat: 0,
        tsc_aux: 0,
        debugctl: 0,
        s_cet: 0,
        ssp: 0,
        isst: 0,
        tsc: 0,
        pending_event: PendingEvent::NONE,
        interrupt_shadow: SHADOW_NONE,
        nmi_blocked: 0,
        activity: Activity::Running as u8,
        reserved: [0; 5],
        pending_debug: 0,
        clock_page_gpa: NONE,
        timer_deadline_ns: NONE,
        event_vectors: [0; EVENTS],
        pending_events: 0,
    };

    /// Reads and [checks](Self::check) a record of exactly [`REGISTERS_BYTES`] bytes, aligned or not.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let exactly = Allowed::Exactly(REGISTERS_BYTES as u64);
        let record = Self::read_from_bytes(bytes)
            .map_err(|_| ParseError::new(Rule::RegistersLength, 0, bytes.len() as u64, exactly))?;
        record.check()?;
        Ok(record)
    }

    /// The eight segment registers with their offsets in the record.
    #[must_use]
    pub const fn segments(&self) -> [(usize, &Segment); 8] {
        [
            (offset_of!(Self, es), &self.es),
            (offset_of!(Self, cs), &self.cs),
            (offset_of!(Self, ss), &self.ss),
            (offset_of!(Self, ds), &self.ds),
            (offset_of!(Self, fs), &self.fs),
            (offset_of!(Self, gs), &self.gs),
            (offset_of!(Self, ldtr), &self.ldtr),
            (offset_of!(Self, tr), &self.tr),
        ]
    }

    /// Whether the record is well-formed: reserved fields zero, enumerations
    /// known, narrow fields narrow. Whether a CPU may be in this state (CR0
    /// against EFER, canonical addresses) is the hypervisor's to judge.
    pub fn check(&self) -> Result<(), ParseError> {
        use Allowed::{AtMost, Bits, Exactly};
        let stop = |rule, offset, seen, allowed| Err(ParseError::new(rule, offset, seen, allowed));

        for (offset, segment) in self.segments() {
            segment.check().map_err(|error| error.within(offset))?;
        }
        for (offset, table) in [
            (offset_of!(Self, gdtr), &self.gdtr),
            (offset_of!(Self, idtr), &self.idtr),
        ] {
            table.check().map_err(|error| error.within(offset))?;
        }
        if self.cr8 > 15 {
            return stop(
                Rule::TaskPriority,
                offset_of!(Self, cr8),
                self.cr8,
                AtMost(15),
            );
        }
        self.pending_event
            .check()
            .map_err(|error| error.within(offset_of!(Self, pending_event)))?;
        if self.interrupt_shadow > SHADOW_MOV_SS {
            let seen = u64::from(self.interrupt_shadow);
            return stop(
                Rule::InterruptShadow,
                offset_of!(Self, interrupt_shadow),
                seen,
                AtMost(2),
            );
        }
        if self.nmi_blocked > 1 {
            return stop(
                Rule::NmiBlocked,
                offset_of!(Self, nmi_blocked),
                u64::from(self.nmi_blocked),
                AtMost(1),
            );
        }
        if Activity::from_code(self.activity).is_none() {
            return stop(
                Rule::Activity,
                offset_of!(Self, activity),
                u64::from(self.activity),
                AtMost(3),
            );
        }
        for (index, &byte) in self.reserved.iter().enumerate() {
            if byte != 0 {
                let offset = offset_of!(Self, reserved) + index;
                return stop(Rule::RegistersReserved, offset, u64::from(byte), Exactly(0));
            }
        }
        for (index, &vector) in self.event_vectors.iter().enumerate() {
            if (1..32).contains(&vector) {
                let words = Allowed::Words("0, or 0x20 to 0xff");
                let offset = offset_of!(Self, event_vectors) + index;
                return stop(Rule::ParavirtualVector, offset, u64::from(vector), words);
            }
        }
        if self.pending_events >= 1 << EVENTS {
            let offset = offset_of!(Self, pending_events);
            return stop(
                Rule::ParavirtualPending,
                offset,
                self.pending_events,
                Bits((1 << EVENTS) - 1),
            );
        }
        Ok(())
    }
}

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

    fn check(&self) -> Result<(), ParseError> {
        let reserved = [
            (offset_of!(Self, reserved), u64::from(self.reserved)),
            (offset_of!(Self, reserved2), u64::from(self.reserved2)),
        ];
        for (offset, seen) in reserved {
            if seen != 0 {
                return Err(ParseError::new(
                    Rule::RegistersReserved,
                    offset,
                    seen,
                    Allowed::Exactly(0),
                ));
            }
        }
        if self.attributes & !attributes::ALL != 0 {
            return Err(ParseError::new(
                Rule::SegmentAttributes,
                offset_of!(Self, attributes),
                u64::from(self.attributes),
                Allowed::Bits(attributes::ALL as u64),
            ));
        }
        Ok(())
    }
}

impl DescriptorTable {
    /// All zero.
    pub const ZERO: Self = Self {
        base: 0,
        limit: 0,
        reserved: 0,
    };

    fn check(&self) -> Result<(), ParseError> {
        if self.limit > 0xffff {
            let (offset, seen) = (offset_of!(Self, limit), u64::from(self.limit));
            return Err(ParseError::new(
                Rule::TableLimit,
                offset,
                seen,
                Allowed::AtMost(0xffff),
            ));
        }
        if self.reserved != 0 {
            let (offset, seen) = (offset_of!(Self, reserved), u64::from(self.reserved));
            return Err(ParseError::new(
                Rule::RegistersReserved,
                offset,
                seen,
                Allowed::Exactly(0),
            ));
        }
        Ok(())
    }
}

impl PendingEvent {
    fn check(&self) -> Result<(), ParseError> {
        use Allowed::{AtMost, Between, Exactly, Words};
        let stop = |rule, offset, seen, allowed| Err(ParseError::new(rule, offset, seen, allowed));

        let Some(kind) = self.event_kind() else {
            let known = Words("0 to 5, with or without 0x80");
            return stop(
                Rule::EventKind,
                offset_of!(Self, kind),
                u64::from(self.kind),
                known,
            );
        };
        // "No event, interrupted in delivery" contradicts itself, and old bytes
        // behind a "none" would make two records of one state differ.
        if kind == EventKind::None {
            return if *self == Self::NONE {
                Ok(())
            } else {
                let seen = u64::from_le_bytes(zerocopy::transmute!(*self));
                stop(Rule::EventResidue, offset_of!(Self, kind), seen, Exactly(0))
            };
        }
        let vectors = match kind {
            EventKind::Nmi => Exactly(2),
            EventKind::Exception | EventKind::SoftwareException => AtMost(31),
            // INT n takes any vector, and a guest that programs its interrupt
            // source badly is delivered what it asked for.
            EventKind::None | EventKind::Interrupt | EventKind::SoftwareInterrupt => AtMost(255),
        };
        let fits = match vectors {
            Exactly(value) => u64::from(self.vector) == value,
            AtMost(value) => u64::from(self.vector) <= value,
            _ => true,
        };
        if !fits {
            return stop(
                Rule::EventVector,
                offset_of!(Self, vector),
                u64::from(self.vector),
                vectors,
            );
        }
        let may_have_error = u8::from(kind == EventKind::Exception);
        if self.has_error > may_have_error {
            let allowed = AtMost(u64::from(may_have_error));
            return stop(
                Rule::EventError,
                offset_of!(Self, has_error),
                u64::from(self.has_error),
                allowed,
            );
        }
        if self.has_error == 0 && self.error_code != 0 {
            return stop(
                Rule::EventError,
                offset_of!(Self, error_code),
                u64::from(self.error_code),
                Exactly(0),
            );
        }
        let software = matches!(
            kind,
            EventKind::SoftwareInterrupt | EventKind::SoftwareException
        );
        let lengths = if software { 1..=15 } else { 0..=0 };
        if !lengths.contains(&self.insn_len) {
            let allowed = Between(u64::from(*lengths.start()), u64::from(*lengths.end()));
            return stop(
                Rule::EventLength,
                offset_of!(Self, insn_len),
                u64::from(self.insn_len),
                allowed,
            );
        }
        Ok(())
    }
}
