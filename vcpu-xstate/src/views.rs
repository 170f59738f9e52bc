//! Typed views of components' bytes, with constructors of legal values: PKRU, CET, PASID, MXCSR, XMM, x87.
//!
//! A view is a plain value. It is read from the bytes of an update
//! ([`crate::update`]) and written back to them; what a constructor cannot
//! know to be legal on the machine is judged when the update is finished.

use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, IntoBytes};

use crate::component::ComponentIndex;
use crate::legacy::{FCW_INIT, LegacyRegion, MXCSR_INIT};
use crate::values::{BadValue, Limits, check_mxcsr};

/// A component, or a part of one, as a value.
pub trait View: Sized {
    /// The component whose bytes it reads.
    const COMPONENT: ComponentIndex;

    /// The value of `bytes`, which are those that an update of the component
    /// shows. Bytes that are missing read as zero, but for x87, where they read
    /// as its initial configuration.
    fn read(bytes: &[u8]) -> Self;

    /// Puts the value into `bytes`; what it does not cover stays.
    fn write(&self, bytes: &mut [u8]);
}

fn word(bytes: &[u8], offset: usize) -> u64 {
    bytes
        .get(offset..)
        .and_then(<[u8]>::first_chunk)
        .map_or(0, |word| u64::from_le_bytes(*word))
}

fn half(bytes: &[u8], offset: usize) -> u32 {
    bytes
        .get(offset..)
        .and_then(<[u8]>::first_chunk)
        .map_or(0, |half| u32::from_le_bytes(*half))
}

fn put(bytes: &mut [u8], offset: usize, value: &[u8]) {
    if let Some(to) = bytes.get_mut(offset..offset + value.len()) {
        to.copy_from_slice(value);
    }
}

/// A protection key, 0 to 15.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProtectionKey(u8);

impl ProtectionKey {
    /// The key with this number; `None` above 15.
    pub const fn new(number: u8) -> Option<Self> {
        if number < 16 {
            Some(Self(number))
        } else {
            None
        }
    }

    /// Its number.
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// What data accesses a key allows. (Fetches are always allowed.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Reads and writes.
    ReadWrite,
    /// Reads; writes too at CPL 0 to 2 with CR0.WP clear.
    ReadOnly,
    /// Neither.
    None,
}

/// PKRU: the rights of each protection key (SDM Vol. 3, 4.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pkru(pub u32);

impl Pkru {
    /// The rights of a key.
    pub const fn get(self, key: ProtectionKey) -> Access {
        match self.0 >> (2 * key.0) & 3 {
            0 => Access::ReadWrite,
            2 => Access::ReadOnly,
            // AD, whatever WD says.
            _ => Access::None,
        }
    }

    /// Sets the rights of a key.
    pub const fn set(&mut self, key: ProtectionKey, access: Access) {
        let rights = match access {
            Access::ReadWrite => 0,
            Access::ReadOnly => 2,
            Access::None => 1,
        };
        let shift = 2 * key.0;
        self.0 = self.0 & !(3 << shift) | rights << shift;
    }
}

impl View for Pkru {
    const COMPONENT: ComponentIndex = ComponentIndex::PKRU;

    fn read(bytes: &[u8]) -> Self {
        Self(half(bytes, 0))
    }

    fn write(&self, bytes: &mut [u8]) {
        put(bytes, 0, &self.0.to_le_bytes());
    }
}

/// A shadow-stack pointer: canonical, and a multiple of 4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ShadowStackPointer(u64);

impl ShadowStackPointer {
    /// The pointer `address`, which a machine with these limits takes.
    ///
    /// # Errors
    /// It is not canonical, not a multiple of 4, or there are no shadow stacks.
    pub fn new(address: u64, limits: &Limits) -> Result<Self, BadValue> {
        limits.shadow_stack_pointer(address).map(|()| Self(address))
    }

    /// The linear address.
    pub const fn address(self) -> u64 {
        self.0
    }
}

/// IA32_U_CET: what of CET is on in user mode (SDM Vol. 1, 17.2.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct UserCet(u64);

impl UserCet {
    /// SH_STK_EN: shadow stacks.
    pub const SHADOW_STACKS: u64 = 1 << 0;
    /// WR_SHSTK_EN: WRSS in user mode.
    pub const WRITE_SHADOW_STACKS: u64 = 1 << 1;
    /// ENDBR_EN: indirect-branch tracking.
    pub const BRANCH_TRACKING: u64 = 1 << 2;

    /// The register's value `bits`, which a machine with these limits takes.
    ///
    /// # Errors
    /// A reserved bit, one of a feature that the machine lacks, TRACKER
    /// together with SUPPRESS, or a bitmap's address that is not canonical.
    pub fn new(bits: u64, limits: &Limits) -> Result<Self, BadValue> {
        limits.user_cet(bits).map(|()| Self(bits))
    }

    /// The register's value.
    pub const fn bits(self) -> u64 {
        self.0
    }
}

/// CET of user mode: IA32_U_CET and IA32_PL3_SSP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CetUser {
    /// IA32_U_CET.
    pub control: UserCet,
    /// IA32_PL3_SSP.
    pub stack: ShadowStackPointer,
}

impl View for CetUser {
    const COMPONENT: ComponentIndex = ComponentIndex::CET_U;

    fn read(bytes: &[u8]) -> Self {
        Self {
            control: UserCet(word(bytes, 0)),
            stack: ShadowStackPointer(word(bytes, 8)),
        }
    }

    fn write(&self, bytes: &mut [u8]) {
        put(bytes, 0, &self.control.0.to_le_bytes());
        put(bytes, 8, &self.stack.0.to_le_bytes());
    }
}

/// CET of supervisor mode: IA32_PL0_SSP to IA32_PL2_SSP. (IA32_S_CET and the
/// table of interrupt stacks are in no image; VMCB and VMCS hold them.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CetSupervisor {
    /// IA32_PL0_SSP, IA32_PL1_SSP, IA32_PL2_SSP.
    pub stacks: [ShadowStackPointer; 3],
}

impl View for CetSupervisor {
    const COMPONENT: ComponentIndex = ComponentIndex::CET_S;

    fn read(bytes: &[u8]) -> Self {
        Self {
            stacks: [0, 8, 16].map(|offset| ShadowStackPointer(word(bytes, offset))),
        }
    }

    fn write(&self, bytes: &mut [u8]) {
        for (offset, stack) in [0, 8, 16].into_iter().zip(&self.stacks) {
            put(bytes, offset, &stack.0.to_le_bytes());
        }
    }
}

/// IA32_PASID: the process address space that ENQCMD names, if any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Pasid(u64);

impl Pasid {
    /// No address space: ENQCMD raises #GP.
    pub const NONE: Self = Self(0);
    const VALID: u64 = 1 << 31;
    const ID: u64 = 0xf_ffff;

    /// The address space with this number, of 20 bits.
    pub const fn new(id: u32) -> Option<Self> {
        if id as u64 <= Self::ID {
            Some(Self(id as u64 | Self::VALID))
        } else {
            None
        }
    }

    /// The address space's number, if there is one.
    pub const fn id(self) -> Option<u32> {
        if self.0 & Self::VALID == 0 {
            None
        } else {
            Some((self.0 & Self::ID) as u32)
        }
    }
}

impl View for Pasid {
    const COMPONENT: ComponentIndex = ComponentIndex::PASID;

    fn read(bytes: &[u8]) -> Self {
        Self(word(bytes, 0))
    }

    fn write(&self, bytes: &mut [u8]) {
        put(bytes, 0, &self.0.to_le_bytes());
    }
}

/// MXCSR. It belongs to SSE and AVX both and is kept with SSE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mxcsr(u32);

impl Mxcsr {
    /// After reset, and wherever SSE is INIT.
    pub const INIT: Self = Self(MXCSR_INIT);

    /// The value `bits`, which a machine with these limits takes.
    ///
    /// # Errors
    /// A bit that it lacks.
    pub fn new(bits: u32, limits: &Limits) -> Result<Self, BadValue> {
        check_mxcsr(bits, limits).map(|()| Self(bits))
    }

    /// The register's value.
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl View for Mxcsr {
    const COMPONENT: ComponentIndex = ComponentIndex::SSE;

    fn read(bytes: &[u8]) -> Self {
        Self(half(bytes, 256))
    }

    fn write(&self, bytes: &mut [u8]) {
        put(bytes, 256, &self.0.to_le_bytes());
    }
}

/// XMM0–15.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Xmm(pub [[u8; 16]; 16]);

impl View for Xmm {
    const COMPONENT: ComponentIndex = ComponentIndex::SSE;

    fn read(bytes: &[u8]) -> Self {
        let registers = <[[u8; 16]; 16]>::read_from_prefix(bytes);
        Self(registers.map_or_else(|_| Self::default().0, |(registers, _)| registers))
    }

    fn write(&self, bytes: &mut [u8]) {
        put(bytes, 0, self.0.as_bytes());
    }
}

/// x87, as XSAVE64 stores it. Every value is legal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct X87 {
    /// Control word.
    pub fcw: u16,
    /// Status word.
    pub fsw: u16,
    /// Abridged tag word: a set bit is a register in use.
    pub ftw: u8,
    /// Last opcode.
    pub fop: u16,
    /// Last instruction pointer.
    pub fip: u64,
    /// Last operand pointer.
    pub fdp: u64,
    /// ST0–7, 10 bytes each.
    pub st: [[u8; 10]; 8],
}

impl X87 {
    /// After FNINIT.
    pub const INIT: Self = Self {
        fcw: FCW_INIT,
        fsw: 0,
        ftw: 0,
        fop: 0,
        fip: 0,
        fdp: 0,
        st: [[0; 10]; 8],
    };
}

impl View for X87 {
    const COMPONENT: ComponentIndex = ComponentIndex::X87;

    fn read(bytes: &[u8]) -> Self {
        let mut region = LegacyRegion::INIT;
        put(region.as_mut_bytes(), 0, bytes);
        let mut st = [[0; 10]; 8];
        for (to, from) in st.iter_mut().zip(&region.st) {
            to.copy_from_slice(&from[..10]);
        }
        Self {
            fcw: region.fcw.get(),
            fsw: region.fsw.get(),
            ftw: region.ftw,
            fop: region.fop.get(),
            fip: region.fip.get(),
            fdp: region.fdp.get(),
            st,
        }
    }

    fn write(&self, bytes: &mut [u8]) {
        let mut region = LegacyRegion::INIT;
        region.fcw = U16::new(self.fcw);
        region.fsw = U16::new(self.fsw);
        region.ftw = self.ftw;
        region.fop = U16::new(self.fop);
        region.fip = U64::new(self.fip);
        region.fdp = U64::new(self.fdp);
        region.mxcsr.set(0);
        for (to, from) in region.st.iter_mut().zip(&self.st) {
            to[..10].copy_from_slice(from);
        }
        put(bytes, 0, &region.as_bytes()[..160]);
    }
}

#[cfg(test)]
#[path = "views_tests.rs"]
mod tests;
