//! The virtual machine control block, as the processor lays it out
//! (APM Vol. 2, Appendix B).

use bitflags::bitflags;

/// A segment register in the state-save area. `attributes` packs the
/// descriptor's access byte (bits 0–7) and AVL, L, D/B, G (bits 8–11).
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct VmcbSegment {
    pub selector: u16,
    pub attributes: u16,
    pub limit: u32,
    pub base: u64,
}

/// Control area (offsets 0–0x3FF).
#[repr(C)]
pub struct ControlArea {
    pub cr_read: u16,
    pub cr_write: u16,
    pub dr_read: u16,
    pub dr_write: u16,
    pub exceptions: u32,
    pub intercepts: InterceptsLow,
    pub intercepts_high: InterceptsHigh,
    pub intercepts_extra: u32,
    _reserved_018: [u8; 0x24],
    pub pause_filter_threshold: u16,
    pub pause_filter_count: u16,
    pub iopm_base: u64,
    pub msrpm_base: u64,
    pub tsc_offset: u64,
    pub asid: u32,
    pub tlb_control: u32,
    pub int_ctl: u64,
    pub interrupt_shadow: u64,
    pub exit_code: u64,
    pub exit_info1: u64,
    pub exit_info2: u64,
    pub exit_int_info: u64,
    pub nested_control: u64,
    _avic_098: [u8; 0x10],
    pub event_injection: u64,
    pub nested_cr3: u64,
    pub lbr_control: u64,
    pub clean: u64,
    pub next_rip: u64,
    pub fetched_bytes: u8,
    pub instruction_bytes: [u8; 15],
    _reserved_0e0: [u8; 0x320],
}

/// State-save area (offsets 0x400 on).
#[repr(C)]
pub struct SaveArea {
    pub es: VmcbSegment,
    pub cs: VmcbSegment,
    pub ss: VmcbSegment,
    pub ds: VmcbSegment,
    pub fs: VmcbSegment,
    pub gs: VmcbSegment,
    pub gdtr: VmcbSegment,
    pub ldtr: VmcbSegment,
    pub idtr: VmcbSegment,
    pub tr: VmcbSegment,
    _reserved_0a0: [u8; 0x2b],
    pub cpl: u8,
    _reserved_0cc: [u8; 4],
    pub efer: u64,
    _reserved_0d8: [u8; 0x70],
    pub cr4: u64,
    pub cr3: u64,
    pub cr0: u64,
    pub dr7: u64,
    pub dr6: u64,
    pub rflags: u64,
    pub rip: u64,
    _reserved_180: [u8; 0x58],
    pub rsp: u64,
    pub s_cet: u64,
    pub ssp: u64,
    pub isst: u64,
    pub rax: u64,
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub sfmask: u64,
    pub kernel_gs_base: u64,
    pub sysenter_cs: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub cr2: u64,
    _reserved_248: [u8; 0x20],
    pub guest_pat: u64,
    pub debugctl: u64,
    _reserved_278: [u8; 0x988],
}

/// One page, which VMRUN, VMLOAD and VMSAVE take by its physical address.
#[repr(C, align(4096))]
pub struct Vmcb {
    pub control: ControlArea,
    pub save: SaveArea,
}

const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<Vmcb>() == 4096);
    assert!(offset_of!(ControlArea, iopm_base) == 0x40);
    assert!(offset_of!(ControlArea, asid) == 0x58);
    assert!(offset_of!(ControlArea, int_ctl) == 0x60);
    assert!(offset_of!(ControlArea, exit_code) == 0x70);
    assert!(offset_of!(ControlArea, nested_control) == 0x90);
    assert!(offset_of!(ControlArea, event_injection) == 0xa8);
    assert!(offset_of!(ControlArea, clean) == 0xc0);
    assert!(offset_of!(ControlArea, instruction_bytes) == 0xd1);
    assert!(offset_of!(Vmcb, save) == 0x400);
    assert!(offset_of!(SaveArea, cpl) == 0xcb);
    assert!(offset_of!(SaveArea, efer) == 0xd0);
    assert!(offset_of!(SaveArea, cr4) == 0x148);
    assert!(offset_of!(SaveArea, rip) == 0x178);
    assert!(offset_of!(SaveArea, rsp) == 0x1d8);
    assert!(offset_of!(SaveArea, rax) == 0x1f8);
    assert!(offset_of!(SaveArea, cr2) == 0x240);
    assert!(offset_of!(SaveArea, guest_pat) == 0x268);
};

bitflags! {
    /// Intercepts at offset 0x00C.
    #[derive(Clone, Copy)]
    #[repr(transparent)]
    pub struct InterceptsLow: u32 {
        const INTR = 1 << 0;
        const NMI = 1 << 1;
        const SMI = 1 << 2;
        const INIT = 1 << 3;
        const VINTR = 1 << 4;
        const RDPMC = 1 << 15;
        const CPUID = 1 << 18;
        const RSM = 1 << 19;
        const INVD = 1 << 22;
        const HLT = 1 << 24;
        const INVLPGA = 1 << 26;
        const IOIO = 1 << 27;
        const MSR = 1 << 28;
        const TASK_SWITCH = 1 << 29;
        const FERR_FREEZE = 1 << 30;
        const SHUTDOWN = 1 << 31;
    }
}

bitflags! {
    /// Intercepts at offset 0x010.
    #[derive(Clone, Copy)]
    #[repr(transparent)]
    pub struct InterceptsHigh: u32 {
        const VMRUN = 1 << 0;
        const VMMCALL = 1 << 1;
        const VMLOAD = 1 << 2;
        const VMSAVE = 1 << 3;
        const STGI = 1 << 4;
        const CLGI = 1 << 5;
        const SKINIT = 1 << 6;
        const WBINVD = 1 << 9;
        const MONITOR = 1 << 10;
        const MWAIT = 1 << 11;
        const MWAIT_ARMED = 1 << 12;
        const XSETBV = 1 << 13;
        const RDPRU = 1 << 14;
    }
}

bitflags! {
    /// The virtual-interrupt field at offset 0x060.
    #[derive(Clone, Copy)]
    pub struct IntCtl: u64 {
        const V_TPR = 0xff;
        const V_IRQ = 1 << 8;
        const V_INTR_PRIO = 0xf << 16;
        const V_IGN_TPR = 1 << 20;
        const V_INTR_MASKING = 1 << 24;
    }
}

/// Exit codes (APM Vol. 2, Appendix C).
pub mod exit_code {
    pub const CR_WRITE_0: u64 = 0x10;
    pub const CR_WRITE_15: u64 = 0x1f;
    pub const EXCEPTION_0: u64 = 0x40;
    pub const EXCEPTION_31: u64 = 0x5f;
    pub const INTR: u64 = 0x60;
    pub const NMI: u64 = 0x61;
    pub const SMI: u64 = 0x62;
    pub const INIT: u64 = 0x63;
    pub const VINTR: u64 = 0x64;
    pub const RDPMC: u64 = 0x6f;
    pub const CPUID: u64 = 0x72;
    pub const RSM: u64 = 0x73;
    pub const INVD: u64 = 0x76;
    pub const HLT: u64 = 0x78;
    pub const INVLPGA: u64 = 0x7a;
    pub const IOIO: u64 = 0x7b;
    pub const MSR: u64 = 0x7c;
    pub const TASK_SWITCH: u64 = 0x7d;
    pub const SHUTDOWN: u64 = 0x7f;
    pub const VMRUN: u64 = 0x80;
    pub const VMMCALL: u64 = 0x81;
    pub const VMLOAD: u64 = 0x82;
    pub const VMSAVE: u64 = 0x83;
    pub const STGI: u64 = 0x84;
    pub const CLGI: u64 = 0x85;
    pub const SKINIT: u64 = 0x86;
    pub const WBINVD: u64 = 0x89;
    pub const MONITOR: u64 = 0x8a;
    pub const MWAIT: u64 = 0x8b;
    pub const MWAIT_ARMED: u64 = 0x8c;
    pub const XSETBV: u64 = 0x8d;
    pub const RDPRU: u64 = 0x8e;
    pub const NESTED_PAGE_FAULT: u64 = 0x400;
    pub const INVALID: u64 = u64::MAX;
}
