//! Where CPUID keeps feature bits: registers, words and single places, and how messages write them.

use core::fmt;

/// One of the registers that CPUID returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Register {
    /// EAX.
    Eax,
    /// EBX.
    Ebx,
    /// ECX.
    Ecx,
    /// EDX.
    Edx,
}

/// A register of CPUID that holds feature bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    missing_docs,
    reason = "the name is the place: leaf, subleaf, register"
)]
pub enum Word {
    L1Edx,
    L1Ecx,
    L7Ebx,
    L7Ecx,
    L7Edx,
    L71Eax,
    L71Edx,
    LD1Eax,
    E1Ecx,
    E1Edx,
    E7Edx,
    E8Ebx,
    E21Eax,
}

impl Word {
    /// How many there are.
    pub const COUNT: usize = 13;

    /// All of them, in the order of a [`FeatureSet`](super::FeatureSet).
    pub const ALL: [Self; Self::COUNT] = [
        Self::L1Edx,
        Self::L1Ecx,
        Self::L7Ebx,
        Self::L7Ecx,
        Self::L7Edx,
        Self::L71Eax,
        Self::L71Edx,
        Self::LD1Eax,
        Self::E1Ecx,
        Self::E1Edx,
        Self::E7Edx,
        Self::E8Ebx,
        Self::E21Eax,
    ];

    /// Leaf, subleaf and register.
    pub const fn place(self) -> (u32, u32, Register) {
        match self {
            Self::L1Edx => (1, 0, Register::Edx),
            Self::L1Ecx => (1, 0, Register::Ecx),
            Self::L7Ebx => (7, 0, Register::Ebx),
            Self::L7Ecx => (7, 0, Register::Ecx),
            Self::L7Edx => (7, 0, Register::Edx),
            Self::L71Eax => (7, 1, Register::Eax),
            Self::L71Edx => (7, 1, Register::Edx),
            Self::LD1Eax => (0xd, 1, Register::Eax),
            Self::E1Ecx => (0x8000_0001, 0, Register::Ecx),
            Self::E1Edx => (0x8000_0001, 0, Register::Edx),
            Self::E7Edx => (0x8000_0007, 0, Register::Edx),
            Self::E8Ebx => (0x8000_0008, 0, Register::Ebx),
            Self::E21Eax => (0x8000_0021, 0, Register::Eax),
        }
    }
}

/// Where a feature bit is, written `CPUID 7.0:ECX[3]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    /// EAX of the query.
    pub leaf: u32,
    /// ECX of the query.
    pub subleaf: u32,
    /// The register of the answer.
    pub register: Register,
    /// The bit, 0 to 31.
    pub bit: u8,
}

impl Location {
    /// Leaf in bits 63:32, subleaf in 31:16, register (0 to 3) in 15:8, bit in
    /// 7:0: how a refusal carries it in one number.
    pub const fn packed(self) -> u64 {
        (self.leaf as u64) << 32
            | ((self.subleaf & 0xffff) as u64) << 16
            | (self.register as u64) << 8
            | self.bit as u64
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CPUID ")?;
        match self.leaf {
            leaf @ ..10 => write!(f, "{leaf}")?,
            leaf => write!(f, "{leaf:#X}")?,
        }
        if super::leaves::has_subleaves(self.leaf) {
            write!(f, ".{}", self.subleaf)?;
        }
        let register = match self.register {
            Register::Eax => "EAX",
            Register::Ebx => "EBX",
            Register::Ecx => "ECX",
            Register::Edx => "EDX",
        };
        write!(f, ":{register}[{}]", self.bit)
    }
}
