//! Where each component lies in an image: the one iterator that sizing, saving, converting and validating share.
//!
//! Invariants of a [`Geometry`], whoever gave it (CPUID or a stranger's
//! directory); the constructor refuses what would break one:
//!
//! 1. Facts stand only at components 2 to 62. x87 and SSE live in the legacy
//!    region, whose layout is the architecture's and not a machine's.
//! 2. A size is 1 byte to 64 KiB; a user component of the standard form
//!    starts at 576 or above and ends at 1 MiB or below. So no sum of offsets
//!    and sizes overflows, on any `usize` of 32 bits or more.
//! 3. No two user components overlap in the standard form.
//! 4. A supervisor component has no place in the standard form: its offset is 0.
//!
//! Nothing follows about order: AMD put PKRU where LWP had been and APX sits
//! below components of lower number, so the end of an image is the largest
//! `offset + size`, never the topmost bit's.
//!
//! SDM Vol. 1, 13.4 XSAVE Area; 13.4.3 Extended Region of an XSAVE Area.

mod difference;
mod error;
mod number;
mod pieces;
mod placements;
mod tables;

pub use difference::LayoutDifference;
pub use error::GeometryError;
use number::Number;
pub(crate) use pieces::Cut;
pub use placements::Placements;
use tables::Tables;
pub(crate) use tables::{Offsets, PerComponent, offset};

use crate::component::{COMPONENTS, ComponentIndex, ComponentSet};
use crate::mutants::rule;

/// Bytes of the legacy region.
pub const LEGACY_BYTES: usize = 512;
/// Bytes of legacy region and header: the least that an image can have.
pub const MIN_IMAGE_BYTES: usize = 576;
/// Largest size that a component may claim, in bytes.
pub const MAX_COMPONENT_BYTES: u32 = 64 << 10;
/// Largest end that a component may claim in the standard form, in bytes.
pub const MAX_STANDARD_END_BYTES: u32 = 1 << 20;

const MIN_IMAGE: u32 = MIN_IMAGE_BYTES as u32;

/// What CPUID leaf 0xD says of one component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ComponentFacts {
    /// Size in both forms, in bytes (EAX).
    pub size_bytes: u32,
    /// Offset in the standard form, in bytes; 0 for supervisor components (EBX).
    pub standard_offset: u32,
    /// Enabled by IA32_XSS rather than XCR0 (ECX bit 0).
    pub supervisor: bool,
    /// Starts at a multiple of 64 bytes in the compacted form (ECX bit 1).
    pub aligned64: bool,
    /// Can be disabled by IA32_XFD (ECX bit 2).
    pub xfd: bool,
}

impl ComponentFacts {
    /// A number for these facts of this component, well mixed.
    fn id(&self, component: ComponentIndex) -> u64 {
        // Different facts are different numbers: sizes end at 2^16, ends at 2^20.
        let flags =
            u64::from(self.supervisor) | u64::from(self.aligned64) << 1 | u64::from(self.xfd) << 2;
        let facts = u64::from(component.get())
            | flags << 6
            | u64::from(self.size_bytes) << 9
            | u64::from(self.standard_offset) << 32;
        // The finaliser of SplitMix64.
        let mixed = (facts ^ facts >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}

/// The two forms of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// Fixed offsets; user components only (XSAVE, XSAVEOPT).
    Standard,
    /// Packed by XCOMP_BV (XSAVEC, XSAVES).
    Compacted,
}

/// Where one component lies in one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Which component.
    pub component: ComponentIndex,
    /// Offset from the start of the image, in bytes.
    pub offset_bytes: usize,
    /// Its size, in bytes.
    pub size_bytes: usize,
}

impl Placement {
    /// The bytes of the image that it takes.
    pub const fn range(self) -> core::ops::Range<usize> {
        self.offset_bytes..self.offset_bytes + self.size_bytes
    }
}

/// The layout facts of a machine, or of a blob's directory.
#[derive(Clone, Debug)]
pub struct Geometry {
    facts: [Option<ComponentFacts>; COMPONENTS],
    known: ComponentSet,
    xfd: ComponentSet,
    supervisor: ComponentSet,
    id: u64,
    number: Number,
    tables: Tables,
}

impl Default for Geometry {
    fn default() -> Self {
        Self::new()
    }
}

impl Geometry {
    /// A geometry of x87 and SSE alone.
    pub const fn new() -> Self {
        Self {
            facts: [None; COMPONENTS],
            known: ComponentSet::LEGACY,
            xfd: ComponentSet::EMPTY,
            supervisor: ComponentSet::EMPTY,
            id: 0,
            number: Number::NONE,
            tables: Tables::EMPTY,
        }
    }

    /// A number for the layout that images of `form` have here, never 0, the
    /// same on every machine that has it. Two geometries with the same number
    /// have the same layout, unless somebody took pains to make them collide:
    /// no memory's safety rests on it.
    pub const fn id(&self, form: Form) -> u64 {
        let id = match form {
            Form::Standard => self.id,
            Form::Compacted => self.id.rotate_left(17),
        };
        id << 2 | (form as u64) << 1 | 1
    }

    /// Adds what is known of one component, once.
    pub fn insert(
        &mut self,
        component: ComponentIndex,
        facts: ComponentFacts,
    ) -> Result<(), GeometryError> {
        use GeometryError as E;
        if rule!("layout-legacy") && ComponentSet::LEGACY.has(component) {
            return Err(E::Legacy(component));
        }
        let ComponentFacts {
            size_bytes: size,
            standard_offset: offset,
            ..
        } = facts;
        if rule!("layout-size") && (size == 0 || size > MAX_COMPONENT_BYTES) {
            return Err(E::Size(component, size));
        }
        if facts.supervisor {
            if rule!("layout-supervisor-offset") && offset != 0 {
                return Err(E::SupervisorOffset(component, offset));
            }
        } else {
            if rule!("layout-start") && offset < MIN_IMAGE {
                return Err(E::Start(component, offset));
            }
            let end = u64::from(offset) + u64::from(size);
            if rule!("layout-end") && end > u64::from(MAX_STANDARD_END_BYTES) {
                return Err(E::End(component, end));
            }
            let here = offset..offset + size;
            for other in self.placements(Form::Standard, self.known) {
                let there = other.range();
                if rule!("layout-overlap")
                    && (here.start as usize) < there.end
                    && there.start < here.end as usize
                {
                    return Err(E::Overlap(component, other.component));
                }
            }
        }
        let slot = &mut self.facts[usize::from(component.get())];
        if rule!("layout-twice") && slot.is_some() {
            return Err(E::Twice(component));
        }
        *slot = Some(facts);
        self.id ^= facts.id(component);
        self.number = Number::NONE;
        let only = ComponentSet::only(component);
        self.known.insert(only);
        if facts.xfd {
            self.xfd.insert(only);
        }
        if facts.supervisor {
            self.supervisor.insert(only);
        }
        self.tables = Tables::of(self);
        Ok(())
    }

    /// The facts of a component of the extended region.
    pub fn get(&self, component: ComponentIndex) -> Option<&ComponentFacts> {
        self.facts[usize::from(component.get())].as_ref()
    }

    /// The components that have a layout here; x87 and SSE always do.
    pub const fn known(&self) -> ComponentSet {
        self.known
    }

    /// The components that IA32_XFD can disable.
    pub const fn xfd_capable(&self) -> ComponentSet {
        self.xfd
    }

    /// The supervisor components.
    pub const fn supervisor(&self) -> ComponentSet {
        self.supervisor
    }

    /// Where the components of `mask` lie, ascending by number, from number 2.
    ///
    /// `mask` is RFBM in the standard form and XCOMP_BV (bit 63 or not) in the
    /// compacted one. What has no place is left out: components that are not
    /// [`known`](Self::known), and supervisor components in the standard form.
    pub fn placements(&self, form: Form, mask: ComponentSet) -> Placements<'_> {
        Placements {
            geometry: self,
            form,
            remaining: self.placed(form, mask).iter(),
            next_bytes: MIN_IMAGE_BYTES,
        }
    }

    /// The part of `mask` that has a place.
    #[inline(always)]
    fn placed(&self, form: Form, mask: ComponentSet) -> ComponentSet {
        let nowhere = match form {
            Form::Standard => ComponentSet::LEGACY.union(self.supervisor),
            Form::Compacted => ComponentSet::LEGACY,
        };
        mask.intersection(self.known).difference(nowhere)
    }

    /// Bytes of an image that holds `mask`; 576 at least.
    #[inline(always)]
    pub fn image_size(&self, form: Form, mask: ComponentSet) -> usize {
        match self.tables.end(form, self.placed(form, mask)) {
            Some(end) => end,
            None => self.walked_size(form, mask),
        }
    }

    #[cold]
    fn walked_size(&self, form: Form, mask: ComponentSet) -> usize {
        self.placements(form, mask)
            .map(|placement| placement.range().end)
            .fold(MIN_IMAGE_BYTES, usize::max)
    }

    /// Where the components of `mask` lie, for those who ask for some of them
    /// in their order.
    #[inline]
    pub(crate) fn offsets(&self, form: Form, mask: ComponentSet) -> Offsets<'_> {
        match self.tables.offsets(form, self.placed(form, mask)) {
            Some(offsets) => Offsets::Table(offsets),
            None => Offsets::Walk(self.placements(form, mask)),
        }
    }

    /// The same as a table; `own` is room for one that is not kept here.
    #[inline(always)]
    pub(crate) fn table<'a>(
        &'a self,
        form: Form,
        mask: ComponentSet,
        own: &'a mut Option<PerComponent>,
    ) -> &'a PerComponent {
        match self.tables.offsets(form, self.placed(form, mask)) {
            Some(offsets) => offsets,
            None => own.insert(tables::walked(self.placements(form, mask))),
        }
    }

    /// How `held` is copied, legacy region and header with it, from one image to
    /// another, each of a form and a layout that has `held`. `None` where it is
    /// more than two runs, or not known beforehand.
    #[inline(always)]
    pub(crate) fn cut(
        &self,
        held: ComponentSet,
        (form, layout): (Form, ComponentSet),
        to: (Form, ComponentSet),
    ) -> Option<Cut> {
        let pieces = self.tables.pieces(form, to.0)?;
        // Only compacted images have their components where others let them.
        let placing = |(form, layout): (Form, ComponentSet)| match form {
            Form::Standard => ComponentSet::EMPTY,
            Form::Compacted => layout,
        };
        let layouts = placing((form, layout)).union(placing(to));
        pieces.cut(held, layouts, to.0 == Form::Compacted)
    }

    /// Size of a component of the extended region; 0 where it is not known.
    #[inline]
    pub(crate) const fn size_bytes(&self, component: ComponentIndex) -> usize {
        self.tables.size(component)
    }

    /// Bytes of it that the manuals define.
    #[inline(always)]
    pub(crate) const fn state_bytes(&self, component: ComponentIndex) -> usize {
        self.tables.state_bytes(component)
    }

    /// Components that end in reserved bytes: their size is larger than what
    /// the manuals define of them.
    pub(crate) const fn tailed(&self) -> ComponentSet {
        self.tables.tailed()
    }

    /// Those of them that XRSTORS looks at, and faults if they are not zero (SDM
    /// Vol. 1, 13.12).
    #[inline]
    pub(crate) const fn supervisor_tails(&self) -> ComponentSet {
        self.tailed().intersection(self.supervisor)
    }

    /// Whether offsets ascend with the numbers in the standard form.
    pub(crate) const fn standard_ascends(&self) -> bool {
        self.tables.standard_ascends()
    }

    /// The first component of `mask` whose facts are not the same on the other
    /// side, `other` being "there" and `self` "here".
    ///
    /// The standard layout is guest ABI: a guest's own images and its cached
    /// leaf 0xD use the hardware's offsets, so a domain may move only between
    /// machines for which this is `None` over its policy.
    pub fn first_difference(&self, other: &Self, mask: ComponentSet) -> Option<LayoutDifference> {
        mask.difference(ComponentSet::LEGACY)
            .iter()
            .find(|component| self.get(*component) != other.get(*component))
            .map(|component| LayoutDifference {
                component,
                there: other.get(component).copied(),
                here: self.get(component).copied(),
            })
    }
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
