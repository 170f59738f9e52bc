//! A readable image: bytes, a form and a geometry that are known to fit each other.
//!
//! A component whose XSTATE_BV bit is clear is INIT and its bytes are never
//! read. MXCSR in a standard image is the exception that the manual makes:
//! standard-form XRSTOR loads it whatever XSTATE_BV says, compacted XRSTOR
//! only with XSTATE_BV\[1\]. [`Image::mxcsr`] is what the guest would see.

use zerocopy::FromBytes;

use crate::bytes::is_zero;
use crate::component::{ComponentIndex, ComponentSet};
use crate::header::{COMPACTED, XsaveHeader};
use crate::layout::{self, Form, Geometry, Offsets, PerComponent, Placement};
use crate::legacy::{LegacyRegion, MXCSR_INIT};
use crate::mutants::rule;

/// An image that can be read without a further check of lengths.
#[derive(Clone, Copy)]
pub struct Image<'a> {
    bytes: &'a [u8],
    legacy: &'a LegacyRegion,
    geometry: &'a Geometry,
    form: Form,
    xstate_bv: ComponentSet,
    layout: ComponentSet,
}

/// What an image says of itself. An image goes to what is rare in parts, none
/// of them larger than two registers: so it is never put into memory for that.
#[derive(Clone, Copy)]
pub(crate) struct Says {
    /// The components whose state it holds.
    pub(crate) xstate_bv: ComponentSet,
    /// The components that have room.
    pub(crate) layout: ComponentSet,
}

impl<'a> Image<'a> {
    /// A view of `bytes`, `None` if they are fewer than the header makes
    /// necessary, if the header holds what `geometry` does not know, or if it
    /// is of the other form. In the compacted form, XSTATE_BV beyond XCOMP_BV
    /// counts as such too.
    #[inline(always)]
    pub fn new(bytes: &'a [u8], geometry: &'a Geometry, form: Form) -> Option<Self> {
        Self::without(bytes, geometry, form, ComponentSet::EMPTY)
    }

    /// The same, reading `dropped` as INIT. In the standard form, where nothing
    /// lies behind them, `geometry` need not know these components.
    #[inline(always)]
    pub(crate) fn without(
        bytes: &'a [u8],
        geometry: &'a Geometry,
        form: Form,
        dropped: ComponentSet,
    ) -> Option<Self> {
        let (legacy, header) = Self::head(bytes)?;
        let xstate_bv = header.xstate_bv().difference(dropped);
        let layout = match (form, header.xcomp_bv()) {
            (Form::Standard, 0) => xstate_bv,
            // Not the host's own (Xen 9979547be5, Linux 4498601d1a).
            (Form::Compacted, xcomp_bv)
                if xcomp_bv >> 63 == 1 && !rule!("xen-9979547be5-offsets-of-the-image") =>
            {
                geometry.known()
            }
            (Form::Compacted, xcomp_bv) if xcomp_bv >> 63 == 1 => header.layout(),
            _ => return None,
        };
        let placeable = match form {
            Form::Standard => geometry.known().difference(geometry.supervisor()),
            Form::Compacted => geometry.known(),
        };
        let fits = placeable.contains(layout)
            && layout.union(ComponentSet::LEGACY).contains(xstate_bv)
            && bytes.len() >= geometry.image_size(form, layout);
        fits.then_some(Self {
            bytes,
            legacy,
            geometry,
            form,
            xstate_bv,
            layout,
        })
    }

    /// Legacy region and header, if the bytes are as many.
    #[inline(always)]
    pub(crate) fn head(bytes: &'a [u8]) -> Option<(&'a LegacyRegion, &'a XsaveHeader)> {
        let (legacy, rest) = LegacyRegion::ref_from_prefix(bytes).ok()?;
        let (header, _) = XsaveHeader::ref_from_prefix(rest).ok()?;
        Some((legacy, header))
    }

    /// For whoever has judged an image by all that [`new`](Self::new) wants: no
    /// more than that it says so, and what. Bytes that are too few for what it
    /// holds end in a panic when they are read.
    #[inline(always)]
    pub(crate) fn judged(
        bytes: &'a [u8],
        geometry: &'a Geometry,
        form: Form,
        says: Says,
    ) -> Option<Self> {
        let (legacy, _) = Self::head(bytes)?;
        Some(Self {
            bytes,
            legacy,
            geometry,
            form,
            xstate_bv: says.xstate_bv,
            layout: says.layout,
        })
    }

    /// What it says of itself.
    #[inline(always)]
    pub(crate) const fn says(&self) -> Says {
        Says {
            xstate_bv: self.xstate_bv,
            layout: self.layout,
        }
    }

    /// The layout facts of the machine that the image is of.
    #[inline(always)]
    pub const fn geometry(&self) -> &'a Geometry {
        self.geometry
    }

    /// XCOMP_BV of its header.
    #[inline(always)]
    pub const fn xcomp_bv(&self) -> u64 {
        match self.form {
            Form::Standard => 0,
            Form::Compacted => self.layout.bits() | COMPACTED,
        }
    }

    /// The components whose state the image holds.
    #[inline(always)]
    pub const fn xstate_bv(&self) -> ComponentSet {
        self.xstate_bv
    }

    /// The components that have room: XCOMP_BV, or XSTATE_BV in the standard
    /// form, where the header does not say.
    #[inline(always)]
    pub const fn layout(&self) -> ComponentSet {
        self.layout
    }

    /// The legacy region as it stands; x87 and XMM count only under XSTATE_BV.
    #[inline(always)]
    pub const fn legacy(&self) -> &'a LegacyRegion {
        self.legacy
    }

    /// The MXCSR that a restore of this image gives.
    #[inline(always)]
    pub fn mxcsr(&self) -> u32 {
        let standard = rule!("mxcsr-of-a-standard-image") && self.form == Form::Standard;
        let anyway = !rule!("mxcsr-of-a-compacted-image");
        if standard || anyway || self.xstate_bv.has(ComponentIndex::SSE) {
            self.legacy.mxcsr.get()
        } else {
            MXCSR_INIT
        }
    }

    /// Components 2 and above whose state the image holds, ascending, each
    /// with the bytes that the manuals define (reserved tails left off).
    pub fn held(&self) -> impl Iterator<Item = (ComponentIndex, &'a [u8])> + use<'a> {
        let (bytes, geometry) = (self.bytes, self.geometry);
        let mut offsets = self.offsets();
        self.extended().iter().map(move |component| {
            let place = Placement {
                component,
                offset_bytes: offsets.at(component),
                size_bytes: geometry.size_bytes(component),
            };
            // In range: `new` compared the length with the end of the layout.
            (component, &bytes[payload(place)])
        })
    }

    /// What is held of the extended region: each has a place, by `new`.
    #[inline(always)]
    pub(crate) const fn extended(&self) -> ComponentSet {
        self.xstate_bv.difference(ComponentSet::LEGACY)
    }

    /// Where the components of its layout lie.
    #[inline]
    fn offsets(&self) -> Offsets<'a> {
        self.geometry.offsets(self.form, self.layout)
    }

    /// The same as a table; `own` is room for one.
    #[inline(always)]
    fn table<'t>(&'t self, own: &'t mut Option<PerComponent>) -> &'t PerComponent {
        self.geometry.table(self.form, self.layout, own)
    }

    /// Standard or compacted.
    #[inline(always)]
    pub(crate) const fn form(&self) -> Form {
        self.form
    }

    /// All bytes that it was made of.
    #[inline(always)]
    pub(crate) const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The components that are not INIT, by content. QEMU does not track
    /// XINUSE, Intel keeps XINUSE\[PKRU\] set at 0 and XRSTORS sets it from
    /// XSTATE_BV, so the header alone says too much. Of a component without a
    /// name the header is all that there is to go by.
    #[inline(always)]
    pub fn in_use(&self) -> ComponentSet {
        let mut used = ComponentSet::EMPTY;
        if self.xstate_bv.has(ComponentIndex::X87) && !self.legacy.x87_is_init() {
            used.insert(ComponentSet::only(ComponentIndex::X87));
        }
        let xmm = self.xstate_bv.has(ComponentIndex::SSE) && !self.legacy.xmm_is_init();
        if xmm || rule!("sse-in-use-by-mxcsr") && self.mxcsr() != MXCSR_INIT {
            used.insert(ComponentSet::only(ComponentIndex::SSE));
        }
        let extended = self.extended();
        if !extended.is_empty() {
            let mut own = None;
            let offsets = self.table(&mut own);
            for component in extended {
                let start = layout::offset(offsets, component);
                let bytes = &self.bytes[start..start + self.geometry.state_bytes(component)];
                // What has no name has no known INIT value: zero may be a value.
                // Of what is in use mostly the first word tells.
                let first = bytes
                    .first_chunk()
                    .map_or(0, |word| u64::from_ne_bytes(*word));
                if first != 0
                    || !ComponentSet::NAMED.has(component)
                    || !scanned_zero(bytes)
                    || !rule!("init-by-content")
                {
                    used.insert(ComponentSet::only(component));
                }
            }
        }
        if self.xstate_bv.intersects(ComponentSet::INIT_NOT_ZERO) && rule!("init-by-content") {
            let (bytes, form) = (self.bytes, self.form);
            let again = otherwise_in_use(bytes, self.geometry, form, self.says());
            used = used.difference(ComponentSet::INIT_NOT_ZERO).union(again);
        }
        used
    }
}

/// Those in use whose INIT is not zero, of the image that consists of these parts.
#[cold]
#[inline(never)]
fn otherwise_in_use(bytes: &[u8], geometry: &Geometry, form: Form, says: Says) -> ComponentSet {
    let mut used = ComponentSet::EMPTY;
    let Some(image) = Image::judged(bytes, geometry, form, says) else {
        return used;
    };
    for (component, bytes) in image.held() {
        if ComponentSet::INIT_NOT_ZERO.has(component) && !is_init(component, bytes) {
            used.insert(ComponentSet::only(component));
        }
    }
    used
}

/// Whether these, the defined bytes of a component of the extended region with
/// a name, are its initial configuration (SDM Vol. 1, 13.6).
pub(crate) fn is_init(component: ComponentIndex, bytes: &[u8]) -> bool {
    if component == ComponentIndex::LBR && rule!("lbr-init-without-depth") {
        // IA32_LBR_DEPTH does not count, nor what lies behind the records that
        // it counts: XSAVES does not write there, XRSTORS does not read it
        // (13.5.12). So the same registers are the same bytes, whatever XINUSE.
        let (before, after) = (..LBR_DEPTH.start, LBR_DEPTH.end..records_end(bytes));
        let part = |bytes: Option<&[u8]>| bytes.is_none_or(is_zero);
        return part(bytes.get(before)) && part(bytes.get(after));
    }
    let init = component.init_word();
    match bytes.split_first_chunk() {
        Some((word, rest)) => u64::from_le_bytes(*word) == init && is_zero(rest),
        None => is_zero(bytes),
    }
}

/// Where LBR state has IA32_LBR_DEPTH.
pub(crate) const LBR_DEPTH: core::ops::Range<usize> = 8..16;
/// Where its records begin, and bytes of each.
const LBR_RECORDS: usize = 40;
const LBR_RECORD: usize = 24;

/// Where the records end in LBR state that IA32_LBR_DEPTH in it counts.
pub(crate) fn records_end(lbr: &[u8]) -> usize {
    let depth = lbr.get(LBR_DEPTH).and_then(<[u8]>::first_chunk);
    let depth = depth.map_or(0, |depth| u64::from_le_bytes(*depth));
    let depth = usize::try_from(depth).unwrap_or(usize::MAX);
    let end = depth.saturating_mul(LBR_RECORD).saturating_add(LBR_RECORDS);
    end.min(lbr.len())
}

#[inline(never)]
fn scanned_zero(bytes: &[u8]) -> bool {
    is_zero(bytes)
}

/// The bytes of a component's place that are state.
pub(crate) fn payload(place: Placement) -> core::ops::Range<usize> {
    let bytes = place
        .component
        .payload_bytes()
        .map_or(place.size_bytes, |payload| payload.min(place.size_bytes));
    place.offset_bytes..place.offset_bytes + bytes
}

#[cfg(test)]
#[path = "init_tests.rs"]
mod tests;
