//! State components by index and as sets: names, dependency groups, architectural sizes.
//!
//! SDM Vol. 1, 13.1 XSAVE-Supported Features and State-Component Bitmaps.
//! Bit 63 of XCOMP_BV is the compaction flag and of XCR0 reserved, so a
//! component is one of bits 0 to 62; bit 62 is a component (AMD's LWP).

use core::fmt;

use crate::mutants::rule;

/// Number of a state component, 0 to 62.
// No `Ord`: a lower number says nothing about a place in the standard form.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ComponentIndex(u8);

/// How many component numbers there are (0 to 62).
pub const COMPONENTS: usize = 63;

/// Number, name and payload of each component that this crate understands.
/// The payload is what the manuals define; a machine whose size is larger has
/// a reserved tail there (AMD Zen 3 gives PKRU 64 bytes of which 4 are used).
const KNOWN: [(ComponentIndex, &str, u16); 21] = [
    (ComponentIndex::X87, "x87", 160),
    (ComponentIndex::SSE, "sse", 256),
    (ComponentIndex::AVX, "avx", 256),
    (ComponentIndex::BNDREGS, "bndregs", 64),
    (ComponentIndex::BNDCSR, "bndcsr", 16),
    (ComponentIndex::OPMASK, "opmask", 64),
    (ComponentIndex::ZMM_HI256, "zmm_hi256", 512),
    (ComponentIndex::HI16_ZMM, "hi16_zmm", 1024),
    (ComponentIndex::PT, "pt", 72),
    (ComponentIndex::PKRU, "pkru", 4),
    (ComponentIndex::PASID, "pasid", 8),
    (ComponentIndex::CET_U, "cet_u", 16),
    (ComponentIndex::CET_S, "cet_s", 24),
    (ComponentIndex::HDC, "hdc", 8),
    (ComponentIndex::UINTR, "uintr", 48),
    (ComponentIndex::LBR, "lbr", 808),
    (ComponentIndex::HWP, "hwp", 8),
    (ComponentIndex::TILECFG, "tilecfg", 64),
    (ComponentIndex::TILEDATA, "tiledata", 8192),
    (ComponentIndex::APX, "apx", 128),
    (ComponentIndex::LWP, "lwp", 128),
];

/// The payloads by number, 0 where unknown: conversions ask for every component.
static PAYLOAD_BYTES: [u16; COMPONENTS] = {
    let mut table = [0; COMPONENTS];
    let mut i = 0;
    while i < KNOWN.len() {
        table[KNOWN[i].0.0 as usize] = KNOWN[i].2;
        i += 1;
    }
    table
};

impl ComponentIndex {
    /// x87 state: the first 160 bytes of the legacy region but MXCSR.
    pub const X87: Self = Self(0);
    /// XMM registers and MXCSR.
    pub const SSE: Self = Self(1);
    /// Upper halves of YMM0–15.
    pub const AVX: Self = Self(2);
    /// MPX bound registers BND0–3.
    pub const BNDREGS: Self = Self(3);
    /// MPX BNDCFGU and BNDSTATUS.
    pub const BNDCSR: Self = Self(4);
    /// AVX-512 mask registers k0–k7.
    pub const OPMASK: Self = Self(5);
    /// Upper halves of ZMM0–15.
    pub const ZMM_HI256: Self = Self(6);
    /// ZMM16–31.
    pub const HI16_ZMM: Self = Self(7);
    /// Processor Trace MSRs (supervisor; not offered).
    pub const PT: Self = Self(8);
    /// Protection-key rights for user pages.
    pub const PKRU: Self = Self(9);
    /// IA32_PASID (supervisor).
    pub const PASID: Self = Self(10);
    /// CET user state: IA32_U_CET and IA32_PL3_SSP (supervisor component).
    pub const CET_U: Self = Self(11);
    /// CET supervisor state: IA32_PL0_SSP to IA32_PL2_SSP.
    pub const CET_S: Self = Self(12);
    /// Hardware duty cycling (supervisor; not offered).
    pub const HDC: Self = Self(13);
    /// User interrupts (supervisor).
    pub const UINTR: Self = Self(14);
    /// Architectural last-branch records (supervisor).
    pub const LBR: Self = Self(15);
    /// Hardware P-states (supervisor; not offered).
    pub const HWP: Self = Self(16);
    /// AMX TILECFG.
    pub const TILECFG: Self = Self(17);
    /// AMX tile data; the component that IA32_XFD was made for.
    pub const TILEDATA: Self = Self(18);
    /// APX extended general-purpose registers R16–R31.
    pub const APX: Self = Self(19);
    /// AMD lightweight profiling, gone since family 17h (not offered).
    pub const LWP: Self = Self(62);

    /// The component with this number; `None` above 62.
    pub const fn new(index: u8) -> Option<Self> {
        if (index as usize) < COMPONENTS {
            Some(Self(index))
        } else {
            None
        }
    }

    /// Its number, 0 to 62.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Its bit in XCR0, IA32_XSS, XSTATE_BV and XCOMP_BV.
    pub const fn bit(self) -> u64 {
        1 << self.0
    }

    /// Its short name, where this crate knows it.
    pub fn name(self) -> Option<&'static str> {
        KNOWN
            .iter()
            .find(|(index, ..)| *index == self)
            .map(|(_, name, _)| *name)
    }

    /// The component of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        KNOWN
            .iter()
            .find(|(_, known, _)| *known == name)
            .map(|(index, ..)| *index)
    }

    /// How many bytes of it the manuals define, where this crate knows it.
    /// Bytes beyond, in a machine's larger size, are reserved.
    pub const fn payload_bytes(self) -> Option<usize> {
        match PAYLOAD_BYTES[self.0 as usize] {
            0 => None,
            bytes => Some(bytes as usize),
        }
    }
}

impl fmt::Display for ComponentIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "component {}", self.0),
        }
    }
}

impl fmt::Debug for ComponentIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A state-component bitmap. Keeps any 64 bits, bit 63 too, so that an
/// untrusted mask can be held and judged; bit 63 is never iterated over.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct ComponentSet(u64);

impl ComponentSet {
    /// No component.
    pub const EMPTY: Self = Self(0);
    /// x87 and SSE: what every processor has and the legacy region holds.
    pub const LEGACY: Self = Self(0x3);
    /// x87, SSE and AVX.
    pub const UP_TO_AVX: Self = Self(0x7);
    /// Both components of MPX.
    pub const MPX: Self = Self(0x18);
    /// The three components of AVX-512.
    pub const AVX512: Self = Self(0xe0);
    /// Both components of AMX.
    pub const AMX: Self = Self(0x6_0000);
    /// CET_U and CET_S.
    pub const CET: Self = Self(0x1800);
    /// Every component there can be: bits 0 to 62.
    pub const ALL: Self = Self(u64::MAX >> 1);

    /// Every component whose registers this crate knows: name, defined bytes,
    /// INIT value, legal contents. Of any other it knows the size that CPUID
    /// tells, and carries it as that many bytes, by permission
    /// ([`HostXstate::permit`](crate::HostXstate::permit)).
    pub const NAMED: Self = {
        let mut set = Self::EMPTY;
        let mut i = 0;
        while i < KNOWN.len() {
            set.insert(Self::only(KNOWN[i].0));
            i += 1;
        }
        set
    };

    /// The set with exactly these bits, whatever they are.
    pub const fn from_bits_retain(bits: u64) -> Self {
        Self(bits)
    }

    /// The set with these bits; `None` if bit 63, which is no component, is set.
    pub const fn from_bits(bits: u64) -> Option<Self> {
        if bits & !Self::ALL.0 == 0 {
            Some(Self(bits))
        } else {
            None
        }
    }

    /// The set of one component.
    pub const fn only(index: ComponentIndex) -> Self {
        Self(index.bit())
    }

    /// The bitmap.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether no bit is set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many bits are set.
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether every bit of `other` is set here.
    pub const fn contains(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    /// Whether this component is in the set.
    pub const fn has(self, index: ComponentIndex) -> bool {
        self.0 & index.bit() != 0
    }

    /// Whether the sets share a bit.
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Bits of either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Bits of both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Bits of `self` that are not in `other`.
    #[must_use]
    pub const fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Adds the bits of `other`.
    pub const fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Takes the bits of `other` away.
    pub const fn remove(&mut self, other: Self) {
        self.0 &= !other.0;
    }

    /// The component with the highest number.
    #[inline(always)]
    pub(crate) const fn last(self) -> Option<ComponentIndex> {
        match self.0 & Self::ALL.0 {
            0 => None,
            bits => Some(ComponentIndex(63 - bits.leading_zeros() as u8)),
        }
    }

    /// The components, ascending. Bit 63 is no component and is passed over.
    pub const fn iter(self) -> Components {
        Components(self.0 & Self::ALL.0)
    }

    /// The largest part of `user` that XCR0 could hold at once: a member of a
    /// group goes where the rest of its group, or what the group builds on, is
    /// missing. SDM Vol. 1, 13.3 Enabling the XSAVE Feature Set and
    /// XSAVE-Enabled Features.
    ///
    /// Firecracker offered TILECFG without TILEDATA, and its guests' XSETBV
    /// took #GP.
    #[must_use]
    pub fn whole_groups(self) -> Self {
        let mut set = self;
        if rule!("group-avx-needs-sse") && !set.contains(Self(0x2)) {
            set.remove(Self(0x4));
        }
        if rule!("group-avx512") && (!set.contains(Self(0x4)) || !set.contains(Self::AVX512)) {
            set.remove(Self::AVX512);
        }
        if rule!("group-mpx") && !set.contains(Self::MPX) {
            set.remove(Self::MPX);
        }
        if rule!("firecracker-tilecfg-alone") && !set.contains(Self::AMX) {
            set.remove(Self::AMX);
        }
        // BNDREGS and APX share names of encodings: XCR0 may not have both
        // (Intel APX specification, 3.1.4.2 XCR0.APX_F).
        if rule!("group-apx-or-mpx") && set.contains(Self(1 << 19)) && set.contains(Self::MPX) {
            set.remove(Self::MPX);
        }
        set
    }
}

/// The components of a set, ascending.
#[derive(Clone, Copy, Debug)]
pub struct Components(u64);

impl Iterator for Components {
    type Item = ComponentIndex;

    fn next(&mut self) -> Option<ComponentIndex> {
        if self.0 == 0 {
            return None;
        }
        // At most 62: `iter` has masked bit 63.
        let index = self.0.trailing_zeros() as u8;
        self.0 &= self.0 - 1;
        Some(ComponentIndex(index))
    }
}

impl IntoIterator for ComponentSet {
    type Item = ComponentIndex;
    type IntoIter = Components;

    fn into_iter(self) -> Components {
        self.iter()
    }
}

impl fmt::Display for ComponentSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for index in self.iter() {
            if !first {
                f.write_str(" ")?;
            }
            write!(f, "{index}")?;
            first = false;
        }
        if self.0 & !Self::ALL.0 != 0 {
            f.write_str(if first { "bit 63" } else { " bit 63" })?;
        } else if first {
            f.write_str("none")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ComponentSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ComponentSet({:#x}: {self})", self.0)
    }
}

#[cfg(test)]
#[path = "component_tests.rs"]
mod tests;
