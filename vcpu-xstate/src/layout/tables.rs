//! Places that are looked up instead of walked to.
//!
//! Where a component lies in a compacted image depends on what lies before it,
//! so finding it means a walk. But a machine's images have few layouts, and
//! most are a beginning of one order: all user components, or all components.
//! For these the places stand in a table, which the one iterator fills; any
//! other layout is walked.

use super::pieces::Pieces;
use super::{Form, Geometry, MIN_IMAGE_BYTES, Placement, Placements};
use crate::component::{ComponentIndex, ComponentSet};
use crate::image::payload;
use crate::mutants::rule;

/// One number for each component; 64, so that no index is out of range.
pub(crate) type PerComponent = [u32; 64];

const fn slot(component: ComponentIndex) -> usize {
    component.get() as usize & 63
}

/// The tables of a geometry. Invariant: they agree with its iterator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tables {
    sizes: PerComponent,
    /// What the manuals define of them.
    states: PerComponent,
    standard: Places,
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

/// Where components begin, and where an image ends whose last one it is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Places {
    offsets: PerComponent,
    /// After x87 and SSE it is legacy region and header that end.
    ends: PerComponent,
}

impl Places {
    const EMPTY: Self = Self {
        offsets: [0; 64],
        ends: {
            let mut ends = [0; 64];
            (ends[0], ends[1]) = (MIN_IMAGE_BYTES as u32, MIN_IMAGE_BYTES as u32);
            ends
        },
    };

    fn set(&mut self, place: Placement) {
        self.offsets[slot(place.component)] = place.offset_bytes as u32;
        self.ends[slot(place.component)] = place.range().end as u32;
    }
}

/// The compacted places of one order of components.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Packed {
    /// x87 and SSE among them.
    order: ComponentSet,
    places: Places,
    /// Of an image of all of them, which is the most usual one.
    end: u32,
}

impl Packed {
    const EMPTY: Self = Self {
        order: ComponentSet::LEGACY,
        places: Places::EMPTY,
        end: MIN_IMAGE_BYTES as u32,
    };

    fn of(geometry: &Geometry, order: ComponentSet) -> Self {
        let mut packed = Self {
            order: order.union(ComponentSet::LEGACY),
            ..Self::EMPTY
        };
        for place in geometry.placements(Form::Compacted, order) {
            packed.places.set(place);
            packed.end = place.range().end as u32;
        }
        packed
    }

    /// Whether `placed`, which has x87 and SSE, is all of them.
    #[inline(always)]
    const fn is(&self, placed: ComponentSet) -> bool {
        self.order.bits() == placed.bits()
    }

    /// Whether it is all of them up to some one.
    #[inline(always)]
    const fn begins_with(&self, placed: ComponentSet) -> bool {
        let up_to_last = u64::MAX >> placed.bits().leading_zeros();
        self.order.bits() & up_to_last == placed.bits()
    }
}

impl Tables {
    pub(super) const EMPTY: Self = Self {
        sizes: [0; 64],
        states: [0; 64],
        standard: Places::EMPTY,
        standard_ascends: true,
        tailed: ComponentSet::EMPTY,
        user: Packed::EMPTY,
        all: Packed::EMPTY,
        between_forms: Pieces::EMPTY,
        compacted: Pieces::EMPTY,
    };

    pub(super) fn of(geometry: &Geometry) -> Self {
        let known = geometry.known.difference(ComponentSet::LEGACY);
        let user = known.difference(geometry.supervisor);
        let mut tables = Self {
            user: Packed::of(geometry, user),
            all: Packed::of(geometry, known),
            between_forms: Pieces::between_forms(geometry, user),
            compacted: Pieces::compacted(geometry, user),
            ..Self::EMPTY
        };
        for place in geometry.placements(Form::Compacted, known) {
            tables.sizes[slot(place.component)] = place.size_bytes as u32;
            let state = payload(place).len();
            tables.states[slot(place.component)] = state as u32;
            if state < place.size_bytes {
                tables.tailed.insert(ComponentSet::only(place.component));
            }
        }
        let mut end = MIN_IMAGE_BYTES;
        for place in geometry.placements(Form::Standard, known) {
            tables.standard.set(place);
            tables.standard_ascends &= place.offset_bytes >= end;
            end = place.range().end;
        }
        tables
    }

    /// Offsets of the components of `placed`, which has no other than have a
    /// place; `None` where they have to be walked to.
    #[inline(always)]
    pub(super) fn offsets(&self, form: Form, placed: ComponentSet) -> Option<&PerComponent> {
        let placed = placed.union(ComponentSet::LEGACY);
        if form == Form::Standard {
            Some(&self.standard.offsets)
        } else if self.user.is(placed) || self.user.begins_with(placed) {
            Some(&self.user.places.offsets)
        } else if self.all.begins_with(placed) {
            Some(&self.all.places.offsets)
        } else {
            None
        }
    }

    /// The end of an image of `placed`, where it can be looked up.
    #[inline(always)]
    pub(super) fn end(&self, form: Form, placed: ComponentSet) -> Option<usize> {
        let placed = placed.union(ComponentSet::LEGACY);
        let last = slot(placed.last().unwrap_or(ComponentIndex::X87));
        let end = if form == Form::Standard {
            // The topmost component's end would be the end of fewer.
            if !self.standard_ascends && rule!("standard-largest-end") {
                return None;
            }
            self.standard.ends[last]
        } else if self.user.is(placed) {
            self.user.end
        } else if self.all.is(placed) {
            self.all.end
        } else if self.user.begins_with(placed) {
            self.user.places.ends[last]
        } else if self.all.begins_with(placed) {
            self.all.places.ends[last]
        } else {
            return None;
        };
        Some(end as usize)
    }

    /// How what both of two images hold is copied from the one to the other.
    #[inline(always)]
    pub(super) const fn pieces(&self, one: Form, other: Form) -> Option<&Pieces> {
        match (one, other) {
            (Form::Compacted, Form::Compacted) => Some(&self.compacted),
            (Form::Standard, Form::Standard) => None,
            _ => Some(&self.between_forms),
        }
    }

    /// Size of a component; 0 where it is not known.
    #[inline]
    pub(super) const fn size(&self, component: ComponentIndex) -> usize {
        self.sizes[slot(component)] as usize
    }

    /// Of it what the manuals define.
    #[inline(always)]
    pub(super) const fn state_bytes(&self, component: ComponentIndex) -> usize {
        self.states[slot(component)] as usize
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
#[inline(always)]
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
