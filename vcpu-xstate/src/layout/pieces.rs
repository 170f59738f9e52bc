//! Sets of components that are copied from one image to another by one run or by two, found at a glance.
//!
//! A machine's images hold few sets: all components up to some one of them. For
//! these it is known beforehand how they lie in two kinds of image: from 0 on
//! at the same places, and behind that, where the standard form has a hole, as
//! a second run. Every number here comes from the one iterator.
//!
//! They are searched and not computed: the processor predicts which is the
//! one, and so knows where the run ends before it has read XSTATE_BV. A long
//! copy, which does not begin before its length is known, begins sooner.

use core::ops::Range;

use super::{Form, Geometry, MIN_IMAGE_BYTES, Placement};
use crate::component::ComponentSet;

/// How the components of one set lie in a compacted image and in another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    set: ComponentSet,
    /// The components that a compacted layout must not have besides: those
    /// that would move the set's.
    without: ComponentSet,
    /// Up to here, from 0 on, both images lie alike.
    same_end: u32,
    /// A second run: where it begins in the compacted image and in the other
    /// one, and its length; 0 where there is none.
    compacted: u32,
    other: u32,
    len: u32,
    /// Alignment within, by its place in the compacted image.
    gap: u32,
    gap_len: u32,
}

/// The pieces of two kinds of image, each with one component more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pieces {
    all: [Piece; Self::MOST],
    /// How many there are.
    len: usize,
}

/// How what one image holds is copied to another: a run from 0 on, at the same
/// place in both, and then another one, which may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Where the first run ends in both images.
    pub(crate) same_end: usize,
    /// Where the second one begins in the image that is read,
    pub(crate) from: usize,
    /// and in the one that is written,
    pub(crate) to: usize,
    /// and its length.
    pub(crate) len: usize,
    /// What of the written image is alignment within these runs.
    pub(crate) gap: Range<usize>,
}

impl Cut {
    /// Where the last run ends in the image that is written.
    #[inline(always)]
    pub(crate) const fn end(&self) -> usize {
        self.to + self.len
    }
}

impl Pieces {
    /// More than any machine's user components.
    const MOST: usize = 12;
    pub(super) const EMPTY: Self = Self {
        all: [Piece::EMPTY; Self::MOST],
        len: 1,
    };

    /// Compacted images and standard ones.
    pub(super) fn between_forms(geometry: &Geometry, user: ComponentSet) -> Self {
        let standard = geometry.placements(Form::Standard, user);
        Self::of(geometry, user, standard, true)
    }

    /// Two compacted images, whether they have supervisor components or not.
    pub(super) fn compacted(geometry: &Geometry, user: ComponentSet) -> Self {
        let alone = geometry.placements(Form::Compacted, user);
        Self::of(geometry, user, alone, false)
    }

    /// The places of `user` in a compacted image, and in `other`.
    fn of(
        geometry: &Geometry,
        user: ComponentSet,
        other: impl Iterator<Item = Placement>,
        two_runs: bool,
    ) -> Self {
        let mut pieces = Self::EMPTY;
        let mut piece = Piece::EMPTY;
        let one = geometry.placements(Form::Compacted, user);
        let among_all = geometry
            .placements(Form::Compacted, geometry.known)
            .filter(|place| user.has(place.component));
        // Whether supervisor components have moved nothing. Each can only move
        // what is behind it further: if all of them do not, then none does.
        let mut unmoved = true;
        for ((one, other), among_all) in one.zip(other).zip(among_all).take(Self::MOST - 1) {
            unmoved &= one == among_all;
            if !piece.add(one, other, two_runs) || !(unmoved || two_runs) {
                break;
            }
            let below = ComponentSet::from_bits_retain(one.component.bit() - 1);
            let harmless = if unmoved {
                ComponentSet::LEGACY.union(geometry.supervisor)
            } else {
                ComponentSet::LEGACY
            };
            piece.without = below.difference(piece.set).difference(harmless);
            pieces.all[pieces.len] = piece;
            pieces.len += 1;
        }
        pieces
    }

    /// How `held` is copied between two images whose layouts, as far as their
    /// order places components, are `layouts`; `to_compacted` or from it.
    #[inline(always)]
    pub(super) fn cut(
        &self,
        held: ComponentSet,
        layouts: ComponentSet,
        to_compacted: bool,
    ) -> Option<Cut> {
        let piece = self
            .all
            .iter()
            .take(self.len)
            .find(|p| p.set.bits() == held.bits())?;
        if layouts.intersects(piece.without) {
            return None;
        }
        let (compacted, other) = (piece.compacted as usize, piece.other as usize);
        let gap = piece.gap as usize;
        let (from, to, gap) = if to_compacted {
            (other, compacted, gap)
        } else {
            // A gap is in the last run.
            (
                compacted,
                other,
                gap.wrapping_sub(compacted).wrapping_add(other),
            )
        };
        Some(Cut {
            same_end: piece.same_end as usize,
            from,
            to,
            len: piece.len as usize,
            gap: gap..gap.wrapping_add(piece.gap_len as usize),
        })
    }
}

impl Piece {
    /// Nothing beyond legacy region and header.
    const EMPTY: Self = Self {
        set: ComponentSet::EMPTY,
        without: ComponentSet::EMPTY,
        same_end: MIN_IMAGE_BYTES as u32,
        compacted: MIN_IMAGE_BYTES as u32,
        other: MIN_IMAGE_BYTES as u32,
        len: 0,
        gap: MIN_IMAGE_BYTES as u32,
        gap_len: 0,
    };

    /// Adds a component that lies at `one` in the compacted image and at
    /// `other` in the other; `false` if that makes more runs than there may be.
    fn add(&mut self, one: Placement, other: Placement, two_runs: bool) -> bool {
        let size = one.size_bytes as u32;
        let (at, there) = (one.offset_bytes as u32, other.offset_bytes as u32);
        if other.component != one.component {
            return false;
        }
        self.set.insert(ComponentSet::only(one.component));
        let (end, end_there) = (self.compacted + self.len, self.other + self.len);
        let (gap, gap_there) = (at.wrapping_sub(end), there.wrapping_sub(end_there));
        if gap == gap_there && gap < 64 && (gap == 0 || self.gap_len == 0) {
            if gap != 0 {
                (self.gap, self.gap_len) = (end, gap);
            }
            if self.len == 0 {
                self.same_end = at + size;
                (self.compacted, self.other) = (self.same_end, self.same_end);
            } else {
                self.len += gap + size;
            }
            true
        } else if two_runs && self.len == 0 && self.gap_len == 0 && gap == 0 && there > end_there {
            (self.compacted, self.other, self.len) = (at, there, size);
            true
        } else {
            false
        }
    }
}
