//! Places that are looked up instead of walked to.
//!
//! Where a component lies in a compacted image depends on what lies before it,
//! so finding it means a walk. But a machine's images have few layouts, and
//! most are a beginning of one order: all user components, or all components.
//! For these the places stand in a table, which the one iterator fills; any
//! other layout is walked.

use super::{Form, Geometry, MIN_IMAGE_BYTES, Placements};
use crate::component::{ComponentIndex, ComponentSet};

/// One number for each component; 64, so that no index is out of range.
pub(crate) type PerComponent = [u32; 64];

const fn slot(component: ComponentIndex) -> usize {
    component.get() as usize & 63
}

/// The tables of a geometry. Invariant: they agree with its iterator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tables {
    sizes: PerComponent,
    standard: PerComponent,
    /// In the standard form offsets ascend with the numbers.
    standard_ascends: bool,
    /// Components whose size is larger than what the manuals define of them.
    tailed: ComponentSet,
    user: Packed,
    all: Packed,
    /// Of the standard form and the compacted one.
    between_forms: Pieces,
    /// Of compacted images, whether they have supervisor components or not.
    compacted: Pieces,
}

/// Sets of components that lie at the same places in two kinds of images, side
/// by side from 576 on: copied in one piece. Each has one component more.
///
/// They are searched and not computed: the processor predicts which is the
/// one, and so knows where the piece ends before it has read XSTATE_BV. A long
/// copy, which does not begin before its length is known, begins sooner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pieces {
    all: [Piece; Self::MOST],
    /// How many there are.
    len: usize,
    /// How many have no alignment within.
    gapless: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    set: ComponentSet,
    /// The components that a layout must not have besides: every one below the
    /// last one of the set, but for x87 and SSE.
    without: ComponentSet,
    end: u32,
}

impl Pieces {
    /// More than any machine's user components below the first supervisor one.
    const MOST: usize = 12;
    const EMPTY: Self = Self {
        all: [Piece {
            set: ComponentSet::EMPTY,
            without: ComponentSet::EMPTY,
            end: MIN_IMAGE_BYTES as u32,
        }; Self::MOST],
        len: 1,
        gapless: 1,
    };

    /// The places of one kind of image, as far as they are the same in the other.
    fn of(one: Placements<'_>, mut other: Placements<'_>) -> Self {
        let mut pieces = Self::EMPTY;
        let (mut set, mut end, mut gapless) = (ComponentSet::EMPTY, MIN_IMAGE_BYTES, true);
        for place in one.take(Self::MOST - 1) {
            if other.next() != Some(place) || place.offset_bytes.wrapping_sub(end) >= 64 {
                break;
            }
            gapless &= place.offset_bytes == end;
            set.insert(ComponentSet::only(place.component));
            end = place.range().end;
            let below = ComponentSet::from_bits_retain(place.component.bit() - 1);
            pieces.all[pieces.len] = Piece {
                set,
                without: below.difference(set).difference(ComponentSet::LEGACY),
                end: end as u32,
            };
            pieces.len += 1;
            pieces.gapless += usize::from(gapless);
        }
        pieces
    }

    /// Where `held` ends in images whose components, as far as their order
    /// places them, are `layouts`; if it is one piece there. `with_gaps` or
    /// only if it has none.
    #[inline]
    pub(super) fn end(
        &self,
        held: ComponentSet,
        layouts: ComponentSet,
        with_gaps: bool,
    ) -> Option<usize> {
        let len = if with_gaps { self.len } else { self.gapless };
        let piece = self.all.iter().take(len).find(|piece| piece.set == held)?;
        (!layouts.intersects(piece.without)).then_some(piece.end as usize)
    }
}

/// The compacted places of one order of components.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Packed {
    order: ComponentSet,
    offsets: PerComponent,
}

impl Packed {
    const EMPTY: Self = Self {
        order: ComponentSet::EMPTY,
        offsets: [0; 64],
    };

    fn of(geometry: &Geometry, order: ComponentSet) -> Self {
        let mut packed = Self {
            order,
            ..Self::EMPTY
        };
        for place in geometry.placements(Form::Compacted, order) {
            packed.offsets[slot(place.component)] = place.offset_bytes as u32;
        }
        packed
    }
}

impl Tables {
    pub(super) const EMPTY: Self = Self {
        sizes: [0; 64],
        standard: [0; 64],
        standard_ascends: true,
        tailed: ComponentSet::EMPTY,
        user: Packed::EMPTY,
        all: Packed::EMPTY,
        between_forms: Pieces::EMPTY,
        compacted: Pieces::EMPTY,
    };

    pub(super) fn of(geometry: &Geometry) -> Self {
        let known = geometry.known.difference(ComponentSet::LEGACY);
        let mut tables = Self {
            user: Packed::of(geometry, known.difference(geometry.supervisor)),
            all: Packed::of(geometry, known),
            ..Self::EMPTY
        };
        let user = known.difference(geometry.supervisor);
        let compacted = |order| geometry.placements(Form::Compacted, order);
        tables.between_forms =
            Pieces::of(compacted(user), geometry.placements(Form::Standard, user));
        tables.compacted = Pieces::of(compacted(user), compacted(known));
        for place in geometry.placements(Form::Compacted, known) {
            tables.sizes[slot(place.component)] = place.size_bytes as u32;
            let defined = place.component.payload_bytes();
            if defined.is_some_and(|defined| defined < place.size_bytes) {
                tables.tailed.insert(ComponentSet::only(place.component));
            }
        }
        let mut end = MIN_IMAGE_BYTES;
        for place in geometry.placements(Form::Standard, known) {
            tables.standard[slot(place.component)] = place.offset_bytes as u32;
            tables.standard_ascends &= place.offset_bytes >= end;
            end = place.range().end;
        }
        tables
    }

    /// Offsets of the components of `placed`, which has no other than have a
    /// place; `None` where they have to be walked to.
    #[inline]
    pub(super) fn offsets(&self, form: Form, placed: ComponentSet) -> Option<&PerComponent> {
        if form == Form::Standard {
            return Some(&self.standard);
        }
        let Some(last) = placed.last() else {
            return Some(&self.all.offsets);
        };
        let up_to_last = ComponentSet::from_bits_retain(last.bit() | (last.bit() - 1));
        [&self.user, &self.all]
            .into_iter()
            .find(|packed| packed.order.intersection(up_to_last) == placed)
            .map(|packed| &packed.offsets)
    }

    /// The end of an image of `placed`, where it can be looked up.
    #[inline]
    pub(super) fn end(&self, form: Form, placed: ComponentSet) -> Option<usize> {
        let Some(last) = placed.last() else {
            return Some(MIN_IMAGE_BYTES);
        };
        if form == Form::Standard && !self.standard_ascends {
            return None;
        }
        let offsets = self.offsets(form, placed)?;
        Some(offsets[slot(last)] as usize + self.size(last))
    }

    /// What lies in one piece in images of both forms, or of the compacted one
    /// alone. Images whose places have to be walked to are others.
    #[inline]
    pub(super) const fn pieces(&self, one: Form, other: Form) -> &Pieces {
        match (one, other) {
            (Form::Compacted, Form::Compacted) => &self.compacted,
            _ => &self.between_forms,
        }
    }

    /// Size of a component; 0 where it is not known.
    #[inline]
    pub(super) const fn size(&self, component: ComponentIndex) -> usize {
        self.sizes[slot(component)] as usize
    }

    pub(super) const fn standard_ascends(&self) -> bool {
        self.standard_ascends
    }

    pub(super) const fn tailed(&self) -> ComponentSet {
        self.tailed
    }
}

/// The places of `placements` as a table.
#[cold]
pub(super) fn walked(placements: Placements<'_>) -> PerComponent {
    let mut offsets = [0; 64];
    for place in placements {
        offsets[slot(place.component)] = place.offset_bytes as u32;
    }
    offsets
}

/// The offset of a component in a table.
#[inline]
pub(crate) const fn offset(table: &PerComponent, component: ComponentIndex) -> usize {
    table[slot(component)] as usize
}

/// Where the components of one layout lie, asked for one after the other.
#[derive(Clone, Debug)]
pub(crate) enum Offsets<'a> {
    /// By a look into a table.
    Table(&'a [u32; 64]),
    /// By going on from the last one that was asked for.
    Walk(Placements<'a>),
}

impl Offsets<'_> {
    /// The offset of a component of the layout, in bytes. Components are asked
    /// for ascending by number, each once.
    #[inline]
    pub(crate) fn at(&mut self, component: ComponentIndex) -> usize {
        match self {
            Self::Table(offsets) => offsets[slot(component)] as usize,
            Self::Walk(places) => places
                .find(|place| place.component == component)
                .map_or(MIN_IMAGE_BYTES, |place| place.offset_bytes),
        }
    }
}
