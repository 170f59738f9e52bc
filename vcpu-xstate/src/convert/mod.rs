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
use crate::header::COMPACTED;
use crate::image::Image;
use crate::layout::{Cut, Form, Geometry, MIN_IMAGE_BYTES, PerComponent};
use crate::mutants::rule;
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
    #[inline(always)]
    pub fn size_bytes(&self) -> usize {
        self.geometry.image_size(self.form, self.layout)
    }

    #[inline]
    fn table<'t>(&'t self, own: &'t mut Option<PerComponent>) -> &'t PerComponent {
        self.geometry.table(self.form, self.layout, own)
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
/// bytes, but no function of its state. A buffer that strangers read, or that
/// is compared, is written by [`transfer_whole`] or [`canonicalise`], which
/// write every byte.
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
    let plan = Plan::new(image, components, &target);
    match cut(image, plan.extended, &target) {
        Some(cut) => {
            let from = image.bytes();
            if cut.same_end >= LONG_BYTES {
                bytes::copy(&mut out[..cut.same_end], &from[..cut.same_end]);
            } else {
                // Words go around the header and what lies before it unread.
                head::copy_state(image, first(out));
                let extended = MIN_IMAGE_BYTES..cut.same_end;
                bytes::copy(&mut out[extended.clone()], &from[extended]);
            }
            copy_second(&cut, from, out);
        }
        None => transfer_runs(*image, plan.extended, target, out),
    }
    plan.head.patch(first(out));
    Ok(())
}

/// The same without what is made of the head, where there are more than two
/// runs. By value, as whatever is rare here: so nothing is kept in memory for it
/// where it is not called.
#[inline(never)]
fn transfer_runs(image: Image<'_>, extended: ComponentSet, target: Target<'_>, out: &mut [u8]) {
    let (mut own_from, mut own_to) = (None, None);
    let places = Places::new(&image, &target, &mut own_from, &mut own_to);
    head::copy_state(&image, first(out));
    places.each_run(extended, |run| run.copy(&image, out));
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
    write_whole(image, &plan, &target, out);
    Ok(())
}

/// Writes every byte of `out`, which is as long as the image.
#[inline(always)]
fn write_whole(image: &Image<'_>, plan: &Plan, target: &Target<'_>, out: &mut [u8]) {
    let from = image.bytes();
    match cut(image, plan.extended, target) {
        // A long copy takes the head with it: what of it must differ is written
        // over it. Words go better around the head.
        Some(cut) if cut.same_end >= LONG_BYTES => {
            bytes::copy(&mut out[..cut.same_end], &from[..cut.same_end]);
            plan.head.write::<true>(image, first(out));
            whole_second(&cut, plan.extended, image, target, out);
        }
        Some(cut) => {
            plan.head.write::<false>(image, first(out));
            let extended = MIN_IMAGE_BYTES..cut.same_end;
            bytes::copy(&mut out[extended.clone()], &from[extended]);
            whole_second(&cut, plan.extended, image, target, out);
        }
        None => whole_runs(*image, *plan, *target, out),
    }
}

/// What of a whole image is behind its first run.
#[inline(always)]
fn whole_second(
    cut: &Cut,
    extended: ComponentSet,
    image: &Image<'_>,
    target: &Target<'_>,
    out: &mut [u8],
) {
    if cut.len != 0 {
        if cut.to != cut.same_end {
            bytes::zero(&mut out[cut.same_end..cut.to]);
        }
        copy_second(cut, image.bytes(), out);
    }
    if rule!("canonical-gaps") && !cut.gap.is_empty() {
        bytes::zero(&mut out[cut.gap.clone()]);
    }
    let tailed = extended.intersection(target.geometry.tailed());
    if !tailed.is_empty() {
        runs::clear_tails(tailed, *image, *target, out);
    }
    if cut.end() != out.len() {
        bytes::zero(&mut out[cut.end()..]);
    }
}

/// The same where there are more than two runs.
#[inline(never)]
fn whole_runs(image: Image<'_>, plan: Plan, target: Target<'_>, out: &mut [u8]) {
    // Offsets that do not ascend: all is cleared before anything is written.
    let cleared = target.form == Form::Standard && !target.geometry.standard_ascends();
    if cleared {
        bytes::zero(&mut out[MIN_IMAGE_BYTES..]);
    }
    let mut end = MIN_IMAGE_BYTES;
    let (mut own_from, mut own_to) = (None, None);
    let places = Places::new(&image, &target, &mut own_from, &mut own_to);
    places.each_run(plan.extended, |run| {
        if !cleared && run.to > end {
            bytes::zero(&mut out[end..run.to]);
        }
        end = run.to_end;
        run.copy(&image, out);
        run.clear_gap(out);
    });
    if !cleared {
        bytes::zero(&mut out[end..]);
    }
    places.clear_tails(plan.extended, out);
    plan.head.write::<false>(&image, first(out));
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
    let components = kept(image, leave_out);
    image.geometry().image_size(Form::Compacted, components)
}

/// What of an image the canonical one holds: what is in use and not left out,
/// and SSE where its MXCSR is kept for AVX, as [`transfer`] says.
#[inline(always)]
fn kept(image: &Image<'_>, leave_out: ComponentSet) -> ComponentSet {
    let components = image.in_use().difference(leave_out);
    Head::of(image, components, components).xstate_bv()
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
    let components = kept(image, leave_out);
    let target = Target {
        geometry: image.geometry(),
        form: Form::Compacted,
        layout: components,
    };
    let out = room(&target, out)?;
    let plan = Plan::new(image, components.difference(leave_out), &target);
    write_whole(image, &plan, &target, out);
    Ok(Canonical {
        components,
        len_bytes: out.len(),
    })
}

#[cfg(test)]
mod tests;
