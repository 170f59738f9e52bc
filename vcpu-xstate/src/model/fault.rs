//! What the model raises instead of executing: the exception, and which condition of the manual it was.

use core::fmt;

use crate::component::ComponentIndex;

/// Vector of an exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Exception {
    /// #UD, invalid opcode.
    InvalidOpcode,
    /// #NM, device not available.
    DeviceNotAvailable,
    /// #GP(0), general protection.
    GeneralProtection,
    /// #PF: an access outside the memory that was given.
    PageFault,
}

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InvalidOpcode => "#UD",
            Self::DeviceNotAvailable => "#NM",
            Self::GeneralProtection => "#GP(0)",
            Self::PageFault => "#PF",
        })
    }
}

/// The condition of the manual that was met. Sections are those of SDM Vol. 1
/// where no volume is named; an instruction's name stands for its page in
/// Vol. 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// CPUID does not list the instruction (13.2; each instruction's #UD).
    NotSupported,
    /// CR4.OSXSAVE is clear (13.3; XSAVE, XSETBV, XGETBV, …).
    OsxsaveClear,
    /// CR4.PKE is clear (RDPKRU, WRPKRU).
    PkeClear,
    /// CR4.OSFXSR is clear (LDMXCSR, STMXCSR).
    OsfxsrClear,
    /// CR0.EM is set (LDMXCSR, STMXCSR, SSE instructions).
    Emulation,
    /// The component that the instruction uses is not enabled in XCR0 (13.3).
    Disabled(ComponentIndex),
    /// CR0.TS is set (13.7 to 13.12).
    TaskSwitched,
    /// CR0.EM is set (x87 instructions; Vol. 3, 2.5 Control Registers).
    X87Emulation,
    /// IA32_XFD disables a component that the instruction uses: the bits that
    /// went to IA32_XFD_ERR (13.14).
    XfdUse(u64),
    /// IA32_XFD disables a component that XRSTOR or XRSTORS would load: the
    /// bits that went to IA32_XFD_ERR (13.14).
    XfdRestore(u64),
    /// The instruction is for CPL 0 only (XSAVES, XRSTORS, XSETBV, RDMSR,
    /// WRMSR).
    Cpl(u8),
    /// The area is not 64-byte aligned: its address (13.7 to 13.12).
    Misaligned(u64),
    /// The area, or a byte of it that the instruction accesses, has a linear
    /// address that is not canonical: the address (Vol. 2, XSAVE …; Vol. 1,
    /// 3.3.7.1).
    AreaNonCanonical(u64),
    /// ECX names no extended control register that can be accessed so
    /// (XSETBV, XGETBV).
    XcrIndex(u32),
    /// XCR0 bit 0 would be clear (13.3; XSETBV).
    Xcr0X87(u64),
    /// XCR0 would have bits that CPUID.(0xD,0) does not list (13.3; XSETBV).
    Xcr0Reserved(u64),
    /// XCR0\[2:1\] would be 10b (13.3; XSETBV).
    Xcr0AvxWithoutSse(u64),
    /// XCR0\[4:3\] would be 01b or 10b (13.3; XSETBV).
    Xcr0Mpx(u64),
    /// XCR0\[7:5\] would be neither 000b nor 111b, or 111b without AVX (13.3;
    /// XSETBV).
    Xcr0Avx512(u64),
    /// XCR0\[18:17\] would be 01b or 10b (13.3; XSETBV).
    Xcr0Amx(u64),
    /// XCR0\[19\] would be set together with MPX (Intel APX specification,
    /// 3.1.4.2 XCR0.APX_F).
    Xcr0ApxWithMpx(u64),
    /// The machine has no such MSR, or the model does not know it: its number.
    NoMsr(u32),
    /// IA32_XSS would have bits that CPUID.(0xD,1) does not list (13.3; Vol. 4,
    /// IA32_XSS).
    XssReserved(u64),
    /// IA32_XFD or IA32_XFD_ERR would have bits of components that cannot be
    /// disabled (13.14).
    XfdReserved(u64),
    /// ECX, or EDX of WRPKRU, is not zero (RDPKRU, WRPKRU).
    PkruOperand,
    /// XCOMP_BV\[63\] is set on a machine without the compacted form (13.8;
    /// XRSTOR).
    NoCompaction(u64),
    /// XCOMP_BV\[63\] is clear: XRSTORS has no standard form (13.12).
    NotCompacted(u64),
    /// Standard form: XSTATE_BV has bits that XCR0 has not (13.8.1).
    XstateBvXcr0(u64),
    /// Standard form: bytes 23:8 of the header are not zero (13.8.1).
    StandardHeader,
    /// Compacted form: XCOMP_BV has bits that XCR0 (for XRSTORS, XCR0 |
    /// IA32_XSS) has not (13.8.2, 13.12).
    XcompBvEnabled(u64),
    /// Compacted form: XSTATE_BV has bits that XCOMP_BV has not, or bit 63
    /// (13.8.2, 13.12).
    XstateBvXcompBv(u64),
    /// Compacted form: bytes 63:16 of the header are not zero (13.8.2, 13.12).
    HeaderReserved,
    /// MXCSR would have bits that MXCSR_MASK has not (13.8, 13.12; 11.6.6).
    Mxcsr(u32),
    /// A register would get an address that is not canonical (13.5; Vol. 2,
    /// WRMSR).
    NonCanonical(ComponentIndex, u64),
    /// A register would get reserved bits, or a value that it has not (13.5;
    /// Vol. 2, WRMSR).
    ReservedValue(ComponentIndex, u64),
    /// A reserved portion of a supervisor component in the area is not zero
    /// (13.12).
    ReservedPortion(ComponentIndex),
    /// UINTR state would be loaded while UINV is not 0 (13.5.11, 13.12).
    UinvLive(u8),
    /// PT state would be loaded or made INIT while IA32_RTIT_CTL.TraceEn is 1
    /// (13.5.6).
    TraceEnabled,
    /// The access needs this offset of the area, which is not in the memory
    /// that was given (13.13).
    Outside(u64),
}

impl Reason {
    /// The exception that this condition raises.
    pub const fn exception(&self) -> Exception {
        match self {
            Self::NotSupported
            | Self::OsxsaveClear
            | Self::PkeClear
            | Self::OsfxsrClear
            | Self::Emulation
            | Self::Disabled(_) => Exception::InvalidOpcode,
            Self::TaskSwitched | Self::X87Emulation | Self::XfdUse(_) | Self::XfdRestore(_) => {
                Exception::DeviceNotAvailable
            }
            Self::Outside(_) => Exception::PageFault,
            _ => Exception::GeneralProtection,
        }
    }
}

/// An exception that an instruction raised.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fault {
    /// Which.
    pub exception: Exception,
    /// Why.
    pub reason: Reason,
}

impl From<Reason> for Fault {
    fn from(reason: Reason) -> Self {
        Self {
            exception: reason.exception(),
            reason,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:x?}", self.exception, self.reason)
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl core::error::Error for Fault {}
