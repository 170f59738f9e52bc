//! CPUID leaves as a fixed table: ordered, bounded, found in a few instructions.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::place::{Register, Word};
use crate::cpuid::CpuidResult;

/// The most leaves of a policy.
pub const MAX_LEAVES: usize = 96;

/// One CPUID leaf: what a policy is made of, in memory and on the wire (24
/// bytes, little-endian on every machine that this runs on).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct CpuidLeaf {
    /// EAX of the query.
    pub leaf: u32,
    /// ECX of the query; 0 for leaves that have no subleaves.
    pub subleaf: u32,
    /// Answer.
    pub eax: u32,
    /// Answer.
    pub ebx: u32,
    /// Answer.
    pub ecx: u32,
    /// Answer.
    pub edx: u32,
}

const _: () = assert!(size_of::<CpuidLeaf>() == 24 && align_of::<CpuidLeaf>() == 4);

impl CpuidLeaf {
    /// The leaf with this answer.
    pub const fn new(leaf: u32, subleaf: u32, answer: CpuidResult) -> Self {
        Self {
            leaf,
            subleaf,
            eax: answer.eax,
            ebx: answer.ebx,
            ecx: answer.ecx,
            edx: answer.edx,
        }
    }

    /// Its answer.
    pub const fn answer(&self) -> CpuidResult {
        CpuidResult {
            eax: self.eax,
            ebx: self.ebx,
            ecx: self.ecx,
            edx: self.edx,
        }
    }
}

/// Whether ECX of the query matters.
pub(super) const fn has_subleaves(leaf: u32) -> bool {
    matches!(leaf, 4 | 7 | 0xb | 0xd | 0x1d | 0x1e)
}

/// The register of an answer.
pub(super) const fn register(answer: &mut CpuidResult, register: Register) -> &mut u32 {
    match register {
        Register::Eax => &mut answer.eax,
        Register::Ebx => &mut answer.ebx,
        Register::Ecx => &mut answer.ecx,
        Register::Edx => &mut answer.edx,
    }
}

/// The feature words of a source of CPUID answers.
pub(super) fn feature_word(cpuid: &impl Fn(u32, u32) -> CpuidResult, word: Word) -> u32 {
    let (leaf, subleaf, place) = word.place();
    *register(&mut cpuid(leaf, subleaf), place)
}

const BASIC: u32 = 0x20;
const EXTENDED: u32 = 0x22;
const EXTENDED_BASE: u32 = 0x8000_0000;

/// Where a leaf stands in the index; `None` for leaves that no policy has.
const fn slot(leaf: u32) -> Option<usize> {
    if leaf < BASIC {
        Some(leaf as usize)
    } else if leaf >= EXTENDED_BASE && leaf - EXTENDED_BASE < EXTENDED {
        Some((BASIC + (leaf - EXTENDED_BASE)) as usize)
    } else {
        None
    }
}

/// A policy's leaves, ascending by leaf and subleaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LeafTable {
    rows: [CpuidLeaf; MAX_LEAVES],
    len: u8,
    /// One more than the first row of each leaf; 0 for none.
    index: [u8; (BASIC + EXTENDED) as usize],
}

impl LeafTable {
    pub(super) const fn new() -> Self {
        Self {
            rows: [CpuidLeaf {
                leaf: 0,
                subleaf: 0,
                eax: 0,
                ebx: 0,
                ecx: 0,
                edx: 0,
            }; MAX_LEAVES],
            len: 0,
            index: [0; (BASIC + EXTENDED) as usize],
        }
    }

    /// Appends a row. What has no slot, or is one too many, is left out; the
    /// assembler's rows are neither (the largest policy, with all 61 subleaves of
    /// components, has 86, and a test builds it).
    pub(super) fn push(&mut self, leaf: u32, subleaf: u32, answer: CpuidResult) {
        let (Some(slot), Some(row)) = (slot(leaf), self.rows.get_mut(usize::from(self.len))) else {
            return;
        };
        *row = CpuidLeaf::new(leaf, subleaf, answer);
        self.len += 1;
        if self.index[slot] == 0 {
            self.index[slot] = self.len;
        }
    }

    pub(super) fn rows(&self) -> &[CpuidLeaf] {
        self.rows.get(..usize::from(self.len)).unwrap_or(&[])
    }

    /// The row that answers this query.
    #[inline]
    pub(super) fn find(&self, leaf: u32, subleaf: u32) -> Option<&CpuidLeaf> {
        let first = usize::from(*self.index.get(slot(leaf)?)?).checked_sub(1)?;
        let mut rows = self.rows().get(first..)?.iter();
        if has_subleaves(leaf) {
            rows.take_while(|row| row.leaf == leaf)
                .find(|row| row.subleaf == subleaf)
        } else {
            rows.next()
        }
    }

    pub(super) fn find_mut(&mut self, leaf: u32) -> Option<&mut CpuidLeaf> {
        let first = usize::from(*self.index.get(slot(leaf)?)?).checked_sub(1)?;
        self.rows.get_mut(first)
    }
}
