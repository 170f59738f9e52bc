//! What the decoder gives: instructions that exits are about, and their operands.

use super::memory::MemoryOperand;
use crate::virt::SegmentName;

/// Bytes of a port access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 1.
    Byte,
    /// 2.
    Word,
    /// 4.
    Dword,
}

impl Width {
    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u8 {
        match self {
            Self::Byte => 1,
            Self::Word => 2,
            Self::Dword => 4,
        }
    }

    /// The width of so many bytes.
    #[must_use]
    pub const fn from_bytes(bytes: u8) -> Option<Self> {
        match bytes {
            1 => Some(Self::Byte),
            2 => Some(Self::Word),
            4 => Some(Self::Dword),
            _ => None,
        }
    }
}

/// A decoded instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What it is.
    pub kind: Kind,
    /// Its length in bytes, 1 to 15.
    pub len: u8,
}

/// Instructions that exits are about. Registers are numbers, 0 to 15.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // mnemonics, where nothing else is said
pub enum Kind {
    Cpuid,
    Rdmsr,
    Wrmsr,
    Hlt,
    Pause,
    Xsetbv,
    /// AMD's hypercall (VMGEXIT too, which is the same outside SEV-ES).
    Vmmcall,
    /// Intel's hypercall.
    Vmcall,
    /// IN or OUT with AL, AX or EAX.
    Io {
        input: bool,
        width: Width,
        port: PortOperand,
    },
    /// INS or OUTS.
    StringIo(StringIo),
    /// MOV CRn to a register.
    ReadCr {
        cr: u8,
        gpr: u8,
    },
    /// MOV a register to CRn: 64 bits of it in 64-bit mode, else 32.
    WriteCr {
        cr: u8,
        gpr: u8,
    },
    Clts,
    /// LMSW from 16 bits.
    Lmsw(LmswSource),
    Invd,
    /// WBINVD or WBNOINVD, which is a WBINVD where it is not known.
    Wbinvd,
    Rdpmc,
    Rdtsc,
    Rdtscp,
    Rdpru,
    Rsm,
    Monitor,
    Mwait,
    Monitorx,
    Mwaitx,
    Vmrun,
    Vmload,
    Vmsave,
    Stgi,
    Clgi,
    Skinit,
    Invlpga,
}

/// Where IN and OUT take their port from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortOperand {
    /// The instruction.
    Immediate(u8),
    /// DX.
    Dx,
}

/// INS (to ES:rDI) or OUTS (from rSI).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StringIo {
    /// INS.
    pub input: bool,
    /// Bytes per element.
    pub width: Width,
    /// Repeated rCX times. REPNE means the same here.
    pub repeat: bool,
    /// Segment of the memory operand: ES for INS, whatever the prefixes.
    pub segment: SegmentName,
    /// Size of rSI, rDI and rCX: 16, 32 or 64 bits.
    pub address_bits: u8,
}

/// What LMSW loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LmswSource {
    /// The low 16 bits of a register.
    Gpr(u8),
    /// 16 bits of memory.
    Memory(MemoryOperand),
}
