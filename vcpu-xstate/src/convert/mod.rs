//! From any image to any other: standard, compacted, compacted under another XCOMP_BV, canonical.
//!
//! One pass, no allocation, no vector register. The canonical image is compacted, holds just the
//! components in use, and is the same bytes for the same state on any
//! hardware: what is INIT is decided by content, bytes that are no state are
//! zero, and the legacy region of an INIT component holds its INIT values.

mod head;
mod runs;
mod whole;

use core::fmt;

use crate::bytes::{self, LONG_BYTES};
use crate::component::ComponentSet;
use crate::header::COMPACTED;
use crate::image::Image;
use crate::layout::{Cut, Form, Geometry, MIN_IMAGE_BYTES};
use crate::mutants::rule;
use head::Head;
use runs::{Places, Side};
pub(crate) use whole::Planned;
use whole::write_whole;

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
    #[inline(always)]
    pub fn size_bytes(&self) -> usize {
        self.geometry.image_size(self.form, self.layout)
    }

    /// The components that it has a place for, x87 and SSE always.
    #[inline(always)]
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
/// bytes, but no function of its state. (Reserved bytes of a written supervisor
/// component are zero: XRSTORS looks at them.) A buffer that strangers read, or that
/// is compared, is written by [`transfer_whole`] or [`canonicalise`], which
/// write every byte.
///
/// Between machines that give a component two sizes, as many bytes are copied as
/// both have, and the rest of the larger one is zero. Of a component with a name
/// that is all its state; of one without, nobody can tell. (No vCPU moves so:
/// its policy wants equal sizes.)
///
/// # Errors
/// `out` is too small; nothing was written.
#[inline(always)]
pub fn transfer(
    image: &Image<'_>,
    components: ComponentSet,
    target: Target<'_>,
    out: &mut [u8],
) -> Result<(), TooSmall> {
    let out = room(&target, out)?;
    transfer_into(image, components, target, out);
    Ok(())
}

/// The same to a buffer that has been measured.
#[inline(always)]
pub(crate) fn transfer_into(
    image: &Image<'_>,
    components: ComponentSet,
    target: Target<'_>,
    out: &mut [u8],
) {
    let plan = Plan::new(image, components, &target);
    let from = image.bytes();
    match cut(image, plan.extended, &target) {
        Some(cut) => {
            if cut.same_end >= LONG_BYTES {
                bytes::copy(&mut out[..cut.same_end], &from[..cut.same_end]);
            } else {
                // Words go around the header and what lies before it unread.
                let extended = MIN_IMAGE_BYTES..cut.same_end;
                bytes::copy_words(&mut out[extended.clone()], &from[extended]);
                head::copy_state(image, first(out));
            }
            copy_second(&cut, from, out);
        }
        None => {
            head::copy_state(image, first(out));
            let (of, to) = (Side::of(image), Side::to(&target));
            transfer_runs(
                from,
                of,
                to,
                (image.form(), target.form),
                plan.extended,
                out,
            );
        }
    }
    if !target.geometry.supervisor_tails().is_empty() {
        clear_supervisor_tails(&target, out);
    }
    plan.head.patch(first(out));
}

/// Those of INIT components too: what was moved with a gap would stand behind
/// what a save writes of them later, and the restore after that would fault.
#[cold]
#[inline(never)]
fn clear_supervisor_tails(target: &Target<'_>, out: &mut [u8]) {
    let tails = target
        .room()
        .intersection(target.geometry.supervisor_tails());
    if rule!("supervisor-tails") {
        runs::clear_own_tails(Side::to(target), target.form, tails, out);
    }
}

/// The extended region, where it is more than two runs.
#[inline(never)]
fn transfer_runs(
    from: &[u8],
    of: Side<'_>,
    to: Side<'_>,
    forms: (Form, Form),
    extended: ComponentSet,
    out: &mut [u8],
) {
    let (mut own_from, mut own_to) = (None, None);
    let places = Places::new(of, to, forms, &mut own_from, &mut own_to);
    places.each_run(extended, |run| run.copy(from, out));
    if !places.one_machine() {
        places.clear_tails(extended, out);
    }
}

/// How `extended` is copied, if both images are of one machine and it is
/// known beforehand.
#[inline(always)]
fn cut(image: &Image<'_>, extended: ComponentSet, target: &Target<'_>) -> Option<Cut> {
    if !core::ptr::eq(image.geometry(), target.geometry) {
        return None;
    }
    let from = (image.form(), image.layout());
    target
        .geometry
        .cut(extended, from, (target.form, target.layout))
}

#[inline(always)]
fn copy_second(cut: &Cut, from: &[u8], out: &mut [u8]) {
    if cut.len != 0 {
        let to = &mut out[cut.to..cut.to + cut.len];
        bytes::copy(to, &from[cut.from..cut.from + cut.len]);
    }
}

/// As [`transfer`], and every byte of the image that is no state is zero: for
/// interfaces that give a buffer away whole, as KVM's and Xen's do.
///
/// # Errors
/// `out` is too small; nothing was written.
#[inline(always)]
pub fn transfer_whole(
    image: &Image<'_>,
    components: ComponentSet,
    target: Target<'_>,
    out: &mut [u8],
) -> Result<(), TooSmall> {
    let out = room(&target, out)?;
    let plan = Plan::new(image, components, &target);
    let cut = cut(image, plan.extended, &target);
    write_whole::<false>(image, &plan, cut, &target, out);
    Ok(())
}

/// The bytes of `out` that the image takes.
#[inline(always)]
fn room<'o>(target: &Target<'_>, out: &'o mut [u8]) -> Result<&'o mut [u8], TooSmall> {
    let (needed_bytes, given_bytes) = (target.size_bytes(), out.len());
    out.get_mut(..needed_bytes).ok_or(TooSmall {
        needed_bytes,
        given_bytes,
    })
}

#[inline(always)]
fn first(out: &mut [u8]) -> &mut [u8; MIN_IMAGE_BYTES] {
    let Some(first) = out.first_chunk_mut() else {
        unreachable!("no image is shorter than its head");
    };
    first
}

/// What the written image will say of itself.
#[derive(Clone, Copy)]
struct Plan {
    head: Head,
    /// What is written of the extended region.
    extended: ComponentSet,
}

impl Plan {
    #[inline(always)]
    fn new(image: &Image<'_>, components: ComponentSet, target: &Target<'_>) -> Self {
        let room = target.room();
        let wanted = components.intersection(room);
        let held = image.xstate_bv().intersection(wanted);
        let mut head = Head::of(image, held, components);
        if target.form == Form::Compacted {
            // The legacy region is there whether XCOMP_BV names it or not, but what is
            // in use of it must be named (SDM Vol. 1, 13.8.2), and what has no place
            // here must not.
            let named = target.layout.intersection(room).union(head.xstate_bv());
            head.xcomp_bv = named.bits() | COMPACTED;
        }
        Self {
            head,
            extended: held.difference(ComponentSet::LEGACY),
        }
    }
}

/// Bytes of the canonical image of what `image` has in use, without `leave_out`.
pub fn canonical_size(image: &Image<'_>, leave_out: ComponentSet) -> usize {
    Planned::new(image, leave_out).canonical().len_bytes
}

/// Writes the canonical image of what `image` has in use, without `leave_out`.
///
/// # Errors
/// `out` is too small; nothing was written.
#[inline(always)]
pub fn canonicalise(
    image: &Image<'_>,
    leave_out: ComponentSet,
    out: &mut [u8],
) -> Result<Canonical, TooSmall> {
    let planned = Planned::new(image, leave_out);
    let canonical = planned.canonical();
    planned.write(out)?;
    Ok(canonical)
}

#[cfg(test)]
mod property_tests;

#[cfg(test)]
mod tests;
