//! From any image to any other: standard, compacted, compacted under another XCOMP_BV, canonical.
//!
//! One pass, no allocation, no vector register. The canonical image is compacted, holds just the
//! components in use, and is the same bytes for the same state on any
//! hardware: what is INIT is decided by content, bytes that are no state are
//! zero, and the legacy region of an INIT component holds its INIT values.

mod head;
mod runs;

use core::fmt;

use crate::bytes::{self, LONG_BYTES};
use crate::component::ComponentSet;
use crate::header::XsaveHeader;
use crate::image::Image;
use crate::layout::{Form, Geometry, MIN_IMAGE_BYTES, PerComponent};
use head::Head;
use runs::Places;

/// Where an image is written to: a form, a layout, and a geometry.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// The machine's geometry.
    pub geometry: &'a Geometry,
    /// The form to write.
    pub form: Form,
    /// The components that have room there. x87 and SSE have it always: in the
    /// compacted form XCOMP_BV names them where they are held.
    pub layout: ComponentSet,
}

impl Target<'_> {
    /// Bytes that the image takes.
    #[inline]
    pub fn size_bytes(&self) -> usize {
        self.geometry.image_size(self.form, self.layout)
    }

    #[inline]
    fn table<'t>(&'t self, own: &'t mut Option<PerComponent>) -> &'t PerComponent {
        self.geometry.table(self.form, self.layout, own)
    }

    /// The components that it has a place for, x87 and SSE always.
    const fn room(&self) -> ComponentSet {
        let known = self.layout.intersection(self.geometry.known());
        let placed = match self.form {
            Form::Standard => known.difference(self.geometry.supervisor()),
            Form::Compacted => known,
        };
        placed.union(ComponentSet::LEGACY)
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
/// Written is what a restore reads. The places of components that are INIT,
/// and holes of the standard form, keep the bytes that `out` had: for a buffer
/// that strangers read there is [`transfer_whole`].
///
/// # Errors
/// `out` is too small; nothing was written.
#[inline]
pub fn transfer(
    image: &Image<'_>,
    components: ComponentSet,
    target: Target<'_>,
    out: &mut [u8],
) -> Result<(), TooSmall> {
    write::<false>(image, components, &target, out)
}

/// As [`transfer`], and every byte of the image that is no state is zero: for
/// interfaces that give a buffer away whole, as KVM's and Xen's do.
///
/// # Errors
/// `out` is too small; nothing was written.
#[inline]
pub fn transfer_whole(
    image: &Image<'_>,
    components: ComponentSet,
    target: Target<'_>,
    out: &mut [u8],
) -> Result<(), TooSmall> {
    write::<true>(image, components, &target, out)
}

#[inline]
fn write<const WHOLE: bool>(
    image: &Image<'_>,
    components: ComponentSet,
    target: &Target<'_>,
    out: &mut [u8],
) -> Result<(), TooSmall> {
    let (needed_bytes, given_bytes) = (target.size_bytes(), out.len());
    let Some(out) = out.get_mut(..needed_bytes) else {
        return Err(TooSmall {
            needed_bytes,
            given_bytes,
        });
    };
    let wanted = components.intersection(target.room());
    let held = image.xstate_bv().intersection(wanted);
    let head = Head::of(image, held, components);
    let header = match target.form {
        Form::Standard => XsaveHeader::standard(head.xstate_bv()),
        // The legacy region is there whether XCOMP_BV names it or not, but what is
        // in use of it must be named (SDM Vol. 1, 13.8.2), and what has no place
        // here must not.
        Form::Compacted => {
            let named = target.layout.intersection(target.room());
            XsaveHeader::compacted(head.xstate_bv(), named.union(head.xstate_bv()))
        }
    };

    let extended = held.difference(ComponentSet::LEGACY);
    // Offsets that do not ascend: all is cleared before anything is written.
    let cleared = WHOLE && target.form == Form::Standard && !target.geometry.standard_ascends();
    if cleared {
        bytes::zero(&mut out[MIN_IMAGE_BYTES..]);
    }
    let (mut own_from, mut own_to) = (None, None);
    let places = Places::new(image, target, &mut own_from, &mut own_to);
    let mut copied = false;
    let mut end = MIN_IMAGE_BYTES;
    places.each_run(extended, |run| {
        if WHOLE && !cleared && run.to > end {
            bytes::zero(&mut out[end..run.to]);
        }
        end = run.to_end;
        // Words go better around the head, which is written below.
        let long = run.to > 0 || run.to_end >= LONG_BYTES;
        copied |= long && run.to == 0;
        run.copy(image, if long { 0 } else { MIN_IMAGE_BYTES }, out);
    });
    if WHOLE && !cleared {
        bytes::zero(&mut out[end..]);
    }
    places.clear_tails(extended, out);

    let Some(first) = out.first_chunk_mut() else {
        unreachable!("no image is shorter than its head");
    };
    if copied {
        head.write::<true>(image, &header, first);
    } else {
        head.write::<false>(image, &header, first);
    }
    Ok(())
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
#[inline]
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
mod tests;
