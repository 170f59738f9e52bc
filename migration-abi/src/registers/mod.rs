//! One vCPU's registers as every backend can read and write them: neither the
//! VMCB's form nor the VMCS's, little-endian, 640 bytes, version 1.
//!
//! Extended state is not here: XCR0, XSS, XFD, MXCSR and all that XSAVE saves
//! stand in the [blob](crate::blob) and nowhere else. UINV belongs to the image.

mod check;
mod parts;

use core::mem::{offset_of, size_of};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub use parts::{
    Activity, DescriptorTable, EVENT_CONSOLE, EVENT_TIMER, EVENTS, EventKind, INTERRUPTED_DELIVERY,
    PendingEvent, SHADOW_MOV_SS, SHADOW_NONE, SHADOW_STI, Segment, attributes,
};

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
}
