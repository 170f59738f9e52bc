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
use head::{Head, STATE_BYTES};
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
/// INIT in the result.
///
/// MXCSR belongs to SSE and to AVX both (SDM Vol. 1, 13.8.1): it stays what the
/// guest would see if either is among `components`, and is INIT otherwise.
/// Where it is not INIT, XSTATE_BV\[1\] is set for it, whether XMM registers
/// hold something or not: without that bit the compacted form has no MXCSR.
///
/// Written is **what a restore reads**: header, MXCSR, and the components that
/// XSTATE_BV names; of the legacy region also the INIT values of x87 and XMM
/// where it does not name them. Every other byte of `out` (MXCSR_MASK, padding
/// of x87 registers, reserved bytes, gaps, places of components that are INIT)
/// is afterwards either what it was or what `image` has there: one vCPU's old
/// bytes, but no function of its state. A buffer that strangers read, or that
/// is compared, is written by [`transfer_whole`] or [`canonicalise`], which
/// write every byte.
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
    let out = room(&target, out)?;
    let plan = Plan::new(image, components, &target);
    let from = image.bytes();
    match one_piece(image, plan.extended, &target, true) {
        Some(end) if end >= LONG_BYTES => bytes::copy(&mut out[..end], &from[..end]),
        Some(end) => {
            // Words go around the header and what lies before it unread.
            bytes::copy(&mut out[..STATE_BYTES], &from[..STATE_BYTES]);
            let extended = MIN_IMAGE_BYTES..end;
            bytes::copy(&mut out[extended.clone()], &from[extended]);
        }
        None => transfer_runs(image, plan.extended, &target, out),
    }
    plan.head.patch(&plan.header, first(out));
    Ok(())
}

/// The same without what is made of the head, where there is more than one piece.
#[inline(never)]
fn transfer_runs(image: &Image<'_>, extended: ComponentSet, target: &Target<'_>, out: &mut [u8]) {
    let (mut own_from, mut own_to) = (None, None);
    let places = Places::new(image, target, &mut own_from, &mut own_to);
    bytes::copy(&mut out[..STATE_BYTES], &image.bytes()[..STATE_BYTES]);
    places.each_run(extended, |run| run.copy(image, out));
    if !places.one_machine() {
        places.clear_tails(extended, out);
    }
}

/// Where `extended` ends, if both images are of one machine and it lies in one
/// piece with legacy region and header, at the same places in both.
#[inline]
fn one_piece(
    image: &Image<'_>,
    extended: ComponentSet,
    target: &Target<'_>,
    with_gaps: bool,
) -> Option<usize> {
    if !core::ptr::eq(image.geometry(), target.geometry) {
        return None;
    }
    let images = [(image.form(), image.layout()), (target.form, target.layout)];
    target.geometry.one_piece(extended, images, with_gaps)
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
    let out = room(&target, out)?;
    let plan = Plan::new(image, components, &target);
    // Offsets that do not ascend: all is cleared before anything is written.
    let cleared = target.form == Form::Standard && !target.geometry.standard_ascends();
    if cleared {
        bytes::zero(&mut out[MIN_IMAGE_BYTES..]);
    }
    let mut end = MIN_IMAGE_BYTES;
    let (mut own_from, mut own_to) = (None, None);
    let places = Places::new(image, &target, &mut own_from, &mut own_to);
    // A long copy takes the head with it: what of it must differ is written
    // over it. Words go better around the head.
    let mut copied = false;
    let from = image.bytes();
    if let Some(piece) = one_piece(image, plan.extended, &target, false) {
        end = piece;
        copied = end >= LONG_BYTES;
        let start = if copied { 0 } else { MIN_IMAGE_BYTES };
        bytes::copy(&mut out[start..end], &from[start..end]);
    } else {
        places.each_run(plan.extended, |run| {
            if !cleared && run.to > end {
                bytes::zero(&mut out[end..run.to]);
            }
            end = run.to_end;
            let beside = run.to == MIN_IMAGE_BYTES && run.from == MIN_IMAGE_BYTES;
            if beside && end >= LONG_BYTES {
                copied = true;
                bytes::copy(&mut out[..end], &from[..end]);
            } else {
                run.copy(image, out);
            }
            run.clear_gap(out);
        });
    }
    if !cleared {
        bytes::zero(&mut out[end..]);
    }
    places.clear_tails(plan.extended, out);
    if copied {
        plan.head.write::<true>(image, &plan.header, first(out));
    } else {
        plan.head.write::<false>(image, &plan.header, first(out));
    }
    Ok(())
}

/// The bytes of `out` that the image takes.
#[inline]
fn room<'o>(target: &Target<'_>, out: &'o mut [u8]) -> Result<&'o mut [u8], TooSmall> {
    let (needed_bytes, given_bytes) = (target.size_bytes(), out.len());
    out.get_mut(..needed_bytes).ok_or(TooSmall {
        needed_bytes,
        given_bytes,
    })
}

#[inline]
fn first(out: &mut [u8]) -> &mut [u8; MIN_IMAGE_BYTES] {
    let Some(first) = out.first_chunk_mut() else {
        unreachable!("no image is shorter than its head");
    };
    first
}

/// What the written image will say of itself.
struct Plan {
    head: Head,
    header: XsaveHeader,
    /// What is written of the extended region.
    extended: ComponentSet,
}

impl Plan {
    #[inline]
    fn new(image: &Image<'_>, components: ComponentSet, target: &Target<'_>) -> Self {
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
        Self {
            head,
            header,
            extended: held.difference(ComponentSet::LEGACY),
        }
    }
}

/// Bytes of the canonical image of what `image` has in use, without `leave_out`.
pub fn canonical_size(image: &Image<'_>, leave_out: ComponentSet) -> usize {
    let components = kept(image, leave_out);
    image.geometry().image_size(Form::Compacted, components)
}

/// What of an image the canonical one holds: what is in use and not left out,
/// and SSE where its MXCSR is kept for AVX, as [`transfer`] says.
#[inline]
fn kept(image: &Image<'_>, leave_out: ComponentSet) -> ComponentSet {
    let components = image.in_use().difference(leave_out);
    Head::of(image, components, components).xstate_bv()
}

/// Writes the canonical image of what `image` has in use, without `leave_out`.
///
/// # Errors
/// `out` is too small; nothing was written.
#[inline]
pub fn canonicalise(
    image: &Image<'_>,
    leave_out: ComponentSet,
    out: &mut [u8],
) -> Result<Canonical, TooSmall> {
    let components = kept(image, leave_out);
    let target = Target {
        geometry: image.geometry(),
        form: Form::Compacted,
        layout: components,
    };
    transfer_whole(image, components.difference(leave_out), target, out)?;
    Ok(Canonical {
        components,
        len_bytes: target.size_bytes(),
    })
}

#[cfg(test)]
mod tests;
