//! The 64-byte XSAVE header as a type.
//!
//! SDM Vol. 1, 13.4.2 XSAVE Header.

use core::mem::size_of;

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::component::ComponentSet;

/// XCOMP_BV bit 63: the image is compacted.
pub const COMPACTED: u64 = 1 << 63;

/// Header of an image, after the legacy region.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct XsaveHeader {
    xstate_bv: U64,
    xcomp_bv: U64,
    reserved: [U64; 6],
}

const _: () = assert!(size_of::<XsaveHeader>() == 64);

impl XsaveHeader {
    /// The header of a standard image.
    pub const fn standard(xstate_bv: ComponentSet) -> Self {
        Self::with(xstate_bv, 0)
    }

    /// The header of a compacted image that is laid out for `layout`.
    pub const fn compacted(xstate_bv: ComponentSet, layout: ComponentSet) -> Self {
        Self::with(xstate_bv, layout.bits() | COMPACTED)
    }

    /// The header with these words, and nothing in its reserved bytes.
    #[inline(always)]
    pub(crate) const fn with(xstate_bv: ComponentSet, xcomp_bv: u64) -> Self {
        Self {
            xstate_bv: U64::new(xstate_bv.bits()),
            xcomp_bv: U64::new(xcomp_bv),
            reserved: [U64::new(0); 6],
        }
    }

    /// The components whose state the image holds; others are INIT.
    #[inline(always)]
    pub const fn xstate_bv(&self) -> ComponentSet {
        ComponentSet::from_bits_retain(self.xstate_bv.get())
    }

    /// XCOMP_BV as it stands, bit 63 included.
    #[inline(always)]
    pub const fn xcomp_bv(&self) -> u64 {
        self.xcomp_bv.get()
    }

    /// The components that a compacted image is laid out for.
    #[inline(always)]
    pub const fn layout(&self) -> ComponentSet {
        ComponentSet::from_bits_retain(self.xcomp_bv.get() & !COMPACTED)
    }

    /// The reserved bytes, all words OR-ed: 0 in a header that a restore takes.
    #[inline(always)]
    pub(crate) fn reserved(&self) -> u64 {
        self.reserved.iter().fold(0, |all, word| all | word.get())
    }

    /// The first word of the reserved bytes that is not zero.
    pub fn first_reserved(&self) -> Option<u64> {
        self.reserved
            .iter()
            .map(|word| word.get())
            .find(|word| *word != 0)
    }
}
