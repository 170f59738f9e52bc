//! From any image to any other: standard, compacted, compacted under another XCOMP_BV, canonical.
//!
//! One pass, no allocation. The canonical image is compacted, holds just the
//! components in use, and is the same bytes for the same state on any
//! hardware: what is INIT is decided by content, bytes that are no state are
//! zero, and the legacy region of an INIT component holds its INIT values.

use core::fmt;

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, IntoBytes};

use crate::component::{ComponentIndex, ComponentSet};
use crate::header::XsaveHeader;
use crate::image::{Image, payload};
use crate::layout::{Form, Geometry, LEGACY_BYTES, MIN_IMAGE_BYTES};
use crate::legacy::{LegacyRegion, MXCSR_INIT};

/// Where an image is written to: a form, a layout, and a geometry.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// The machine's geometry.
    pub geometry: &'a Geometry,
    /// The form to write.
    pub form: Form,
    /// The components that have room there.
    pub layout: ComponentSet,
}

impl Target<'_> {
    /// Bytes that the image takes.
    pub fn size_bytes(&self) -> usize {
        self.geometry.image_size(self.form, self.layout)
    }
}

/// The buffer is smaller than the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooSmall {
    /// Bytes that the image takes.
    pub needed_bytes: usize,
    /// Bytes that there were.
    pub given_bytes: usize,
}

impl fmt::Display for TooSmall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "image takes {} bytes, {} given",
            self.needed_bytes, self.given_bytes
        )
    }
}

impl core::error::Error for TooSmall {}

/// A canonical image that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Canonical {
    /// The components in it: XSTATE_BV, and XCOMP_BV without bit 63.
    pub components: ComponentSet,
    /// Its length in bytes.
    pub len_bytes: usize,
}

/// Writes what `image` holds of `components` to `out`, as `target` wants it.
/// Components that have no room there, or that `image` does not hold, are
/// INIT in the result. MXCSR stays what the guest would see.
///
/// # Errors
/// `out` is too small; nothing was written.
pub fn transfer(
    image: &Image<'_>,
    components: ComponentSet,
    target: Target<'_>,
    out: &mut [u8],
) -> Result<(), TooSmall> {
    let needed_bytes = target.size_bytes();
    if out.len() < needed_bytes {
        return Err(TooSmall {
            needed_bytes,
            given_bytes: out.len(),
        });
    }
    let room = target.layout.union(ComponentSet::LEGACY);
    let held = image
        .xstate_bv()
        .intersection(components)
        .intersection(room);
    let (head, _) = out.split_at_mut(MIN_IMAGE_BYTES);
    let (legacy, header) = head.split_at_mut(LEGACY_BYTES);
    let sse = write_legacy(image, held, components, legacy);
    let xstate_bv = held.union(sse);
    let new = match target.form {
        Form::Standard => XsaveHeader::standard(xstate_bv),
        Form::Compacted => XsaveHeader::compacted(xstate_bv, target.layout),
    };
    header.copy_from_slice(new.as_bytes());

    let mut held_there = image.held().filter(|(c, _)| held.has(*c));
    let mut next = held_there.next();
    let mut end = MIN_IMAGE_BYTES;
    for place in target.geometry.placements(target.form, target.layout) {
        if target.form == Form::Compacted {
            // Alignment gaps are no state.
            out[end..place.offset_bytes].fill(0);
            end = place.range().end;
        }
        // Both run ascending, and what is held has room: none is passed over.
        let Some((_, bytes)) = next.filter(|(component, _)| *component == place.component) else {
            continue;
        };
        let to = &mut out[place.range()];
        let state = bytes.len().min(payload(place).len());
        to[..state].copy_from_slice(&bytes[..state]);
        to[state..].fill(0);
        next = held_there.next();
    }
    Ok(())
}

/// Writes the legacy region. Says SSE if it holds state, which it does for its
/// MXCSR alone too: a compacted restore takes MXCSR only with XSTATE_BV\[1\],
/// while XSAVE may have cleared that bit (all XMM zero) with an MXCSR that is
/// not INIT. Everybody's conversion lost it there.
fn write_legacy(
    image: &Image<'_>,
    held: ComponentSet,
    components: ComponentSet,
    out: &mut [u8],
) -> ComponentSet {
    let sse = ComponentSet::only(ComponentIndex::SSE);
    let Ok(region) = LegacyRegion::mut_from_bytes(out) else {
        unreachable!("the caller split off exactly 512 bytes");
    };
    *region = *image.legacy();
    region.clear_reserved();
    region.copy_x87(if held.has(ComponentIndex::X87) {
        image.legacy()
    } else {
        &LegacyRegion::INIT
    });
    if !held.contains(sse) {
        region.xmm = LegacyRegion::INIT.xmm;
    }
    let mxcsr = if components.contains(sse) {
        image.mxcsr()
    } else {
        MXCSR_INIT
    };
    region.mxcsr = U32::new(mxcsr);
    if mxcsr == MXCSR_INIT {
        ComponentSet::EMPTY
    } else {
        sse
    }
}

/// Bytes of the canonical image of what `image` has in use, without `leave_out`.
pub fn canonical_size(image: &Image<'_>, geometry: &Geometry, leave_out: ComponentSet) -> usize {
    let components = image.in_use().difference(leave_out);
    geometry.image_size(Form::Compacted, components)
}

/// Writes the canonical image of what `image` has in use, without `leave_out`.
/// `geometry` is that of the image.
///
/// # Errors
/// `out` is too small; nothing was written.
pub fn canonicalise(
    image: &Image<'_>,
    geometry: &Geometry,
    leave_out: ComponentSet,
    out: &mut [u8],
) -> Result<Canonical, TooSmall> {
    let components = image.in_use().difference(leave_out);
    let target = Target {
        geometry,
        form: Form::Compacted,
        layout: components,
    };
    transfer(image, components, target, out)?;
    Ok(Canonical {
        components,
        len_bytes: target.size_bytes(),
    })
}

#[cfg(test)]
#[path = "convert_tests.rs"]
mod tests;
