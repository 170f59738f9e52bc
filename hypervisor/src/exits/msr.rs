//! Which model-specific registers a guest has and what it may write to them,
//! as pure verdicts. What is not named here does not exist: #GP(0).
//!
//! ```text
//!   RDMSR ─► read_verdict  ─► Register(which)
//!   WRMSR ─► write_verdict ─► Register(which, value) │ Efer(change)
//!                             └► Fault
//! ```
//!
//! Default-deny, as with CPUID: APIC_BASE, MISC_ENABLE, MTRRs, machine check,
//! performance counters, DEBUGCTL, TSC_ADJUST, VMX's and SVM's own are absent,
//! and reading one tells a guest nothing about the machine.
//!
//! Sources: SDM Vol. 4, Table 2-2 IA-32 Architectural MSRs; APM Vol. 2,
//! Appendix A; for what WRMSR checks, SDM Vol. 2D, WRMSR.

#[cfg(test)]
#[path = "msr_tests.rs"]
mod tests;

use super::cr::{self, Allowed, Change, Control};
use super::walk;
use vcpu_xstate::policy::{Bit, CpuPolicy};

/// Register numbers.
#[allow(missing_docs)]
pub mod number {
    pub const TSC: u32 = 0x10;
    pub const SYSENTER_CS: u32 = 0x174;
    pub const SYSENTER_ESP: u32 = 0x175;
    pub const SYSENTER_EIP: u32 = 0x176;
    pub const XFD: u32 = 0x1c4;
    pub const XFD_ERR: u32 = 0x1c5;
    pub const PAT: u32 = 0x277;
    pub const XSS: u32 = 0xda0;
    pub const EFER: u32 = 0xc000_0080;
    pub const STAR: u32 = 0xc000_0081;
    pub const LSTAR: u32 = 0xc000_0082;
    pub const CSTAR: u32 = 0xc000_0083;
    pub const SFMASK: u32 = 0xc000_0084;
    pub const FS_BASE: u32 = 0xc000_0100;
    pub const GS_BASE: u32 = 0xc000_0101;
    pub const KERNEL_GS_BASE: u32 = 0xc000_0102;
    pub const TSC_AUX: u32 = 0xc000_0103;
}

/// Which of a vCPU's registers an MSR is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // names of the manuals
pub enum MsrRegister {
    /// A write sets the offset, so that the guest reads on from the value.
    Tsc,
    SysenterCs,
    SysenterEsp,
    SysenterEip,
    /// The owner of the extended state has the verdict on its value.
    Xfd,
    /// As `Xfd`.
    XfdErr,
    Pat,
    /// As `Xfd`.
    Xss,
    Efer,
    Star,
    Lstar,
    Cstar,
    Sfmask,
    FsBase,
    GsBase,
    KernelGsBase,
    TscAux,
}

/// What RDMSR does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadVerdict {
    /// EDX:EAX is this register.
    Register(MsrRegister),
    /// #GP(0).
    Fault,
}

/// What WRMSR does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteVerdict {
    /// The register takes the value, which is legal, or for extended state is
    /// judged by its owner.
    Register(MsrRegister, u64),
    /// EFER takes the change.
    Efer(Change),
    /// #GP(0).
    Fault,
}

/// What of a guest's policy decides about MSRs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offered {
    /// SYSENTER.
    pub sysenter: bool,
    /// Long mode, with SYSCALL and 64-bit bases.
    pub long_mode: bool,
    /// RDTSCP or RDPID.
    pub tsc_aux: bool,
    /// The page attribute table.
    pub pat: bool,
    /// XSAVES, so IA32_XSS.
    pub xsaves: bool,
    /// Extended feature disable.
    pub xfd: bool,
    /// Bits of a linear address that the processor has, whatever CR4.LA57 says
    /// (SDM Vol. 3A, 4.5.3: canonicality of what is loaded into registers).
    pub linear_bits: u8,
}

impl Offered {
    /// What `policy` offers.
    #[must_use]
    pub fn of(policy: &CpuPolicy) -> Self {
        Self {
            sysenter: policy.has(const { Bit::of("sep") }),
            long_mode: policy.has(const { Bit::of("lm") }),
            tsc_aux: policy.has(const { Bit::of("rdtscp") })
                || policy.has(const { Bit::of("rdpid") }),
            pat: policy.has(const { Bit::of("pat") }),
            xsaves: policy.has(const { Bit::of("xsaves") }),
            xfd: policy.has(const { Bit::of("xfd") }),
            linear_bits: policy.linear_address_bits(),
        }
    }

    const fn register(&self, msr: u32) -> Option<MsrRegister> {
        let (offered, register) = match msr {
            number::TSC => (true, MsrRegister::Tsc),
            number::SYSENTER_CS => (self.sysenter, MsrRegister::SysenterCs),
            number::SYSENTER_ESP => (self.sysenter, MsrRegister::SysenterEsp),
            number::SYSENTER_EIP => (self.sysenter, MsrRegister::SysenterEip),
            number::XFD => (self.xfd, MsrRegister::Xfd),
            number::XFD_ERR => (self.xfd, MsrRegister::XfdErr),
            number::PAT => (self.pat, MsrRegister::Pat),
            number::XSS => (self.xsaves, MsrRegister::Xss),
            number::EFER => (true, MsrRegister::Efer),
            number::STAR => (self.long_mode, MsrRegister::Star),
            number::LSTAR => (self.long_mode, MsrRegister::Lstar),
            number::CSTAR => (self.long_mode, MsrRegister::Cstar),
            number::SFMASK => (self.long_mode, MsrRegister::Sfmask),
            number::FS_BASE => (self.long_mode, MsrRegister::FsBase),
            number::GS_BASE => (self.long_mode, MsrRegister::GsBase),
            number::KERNEL_GS_BASE => (self.long_mode, MsrRegister::KernelGsBase),
            number::TSC_AUX => (self.tsc_aux, MsrRegister::TscAux),
            _ => return None,
        };
        if offered { Some(register) } else { None }
    }
}

/// RDMSR of `msr`, ECX.
#[must_use]
pub const fn read_verdict(offered: &Offered, msr: u32) -> ReadVerdict {
    match offered.register(msr) {
        Some(register) => ReadVerdict::Register(register),
        None => ReadVerdict::Fault,
    }
}

/// WRMSR of `value`, EDX:EAX, to `msr`, ECX. `now` and `allowed` decide about
/// EFER.
#[must_use]
pub fn write_verdict(
    offered: &Offered,
    now: &Control,
    allowed: &Allowed,
    msr: u32,
    value: u64,
) -> WriteVerdict {
    let Some(register) = offered.register(msr) else {
        return WriteVerdict::Fault;
    };
    let legal = match register {
        MsrRegister::Efer => {
            return cr::efer_verdict(now, allowed, value)
                .map_or(WriteVerdict::Fault, WriteVerdict::Efer);
        }
        // A VMCS holds 32 bits of it, SVM's processors use 16: more would be
        // lost on a move, and is not used.
        MsrRegister::SysenterCs => {
            return WriteVerdict::Register(register, value & 0xffff_ffff);
        }
        MsrRegister::Lstar
        | MsrRegister::Cstar
        | MsrRegister::FsBase
        | MsrRegister::GsBase
        | MsrRegister::KernelGsBase
        // AMD's SYSENTER uses 32 bits of these and checks none; Intel's VM
        // entry refuses what is not canonical (SDM Vol. 3C, 27.3.1.1), so such
        // a guest could not move there.
        | MsrRegister::SysenterEsp
        | MsrRegister::SysenterEip => is_canonical(value, offered.linear_bits),
        MsrRegister::Sfmask | MsrRegister::TscAux => value >> 32 == 0,
        MsrRegister::Pat => pat_is_legal(value),
        // Any value, or the owner's verdict.
        MsrRegister::Tsc
        | MsrRegister::Star
        | MsrRegister::Xss
        | MsrRegister::Xfd
        | MsrRegister::XfdErr => true,
    };
    if legal {
        WriteVerdict::Register(register, value)
    } else {
        WriteVerdict::Fault
    }
}

/// Whether an address of `bits` bits is canonical (SDM Vol. 1, 3.3.7.1).
#[must_use]
pub const fn is_canonical(address: u64, bits: u8) -> bool {
    let bits = match bits {
        ..32 => 32,
        65.. => 64,
        bits => bits,
    };
    walk::is_canonical(address, bits as u32)
}

/// Whether each of PAT's eight bytes is a memory type: UC, WC, WT, WP, WB, UC-
/// (SDM Vol. 3A, 12.12.2 IA32_PAT MSR).
#[must_use]
pub const fn pat_is_legal(value: u64) -> bool {
    let types = value.to_le_bytes();
    let mut at = 0;
    while at < types.len() {
        if !matches!(types[at], 0 | 1 | 4..=7) {
            return false;
        }
        at += 1;
    }
    true
}
