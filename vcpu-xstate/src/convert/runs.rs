//! Which bytes go where: the components that an image holds, joined into runs.
//!
//! Starting a long copy takes as long as copying a kilobyte. So what lies side
//! by side in both images is one run. AMD's two forms are one, legacy region and
//! header included; Intel's are two: MPX left a hole in the standard form.

use core::ops::Range;

use super::Target;
use crate::bytes;
use crate::component::{ComponentIndex, ComponentSet};
use crate::image::{Image, payload};
use crate::layout::{Form, Geometry, MIN_IMAGE_BYTES, PerComponent, Placement, offset};
use crate::mutants::rule;

/// Bytes that are copied at once.
pub(super) struct Run {
    /// Offset in the image that is read.
    pub(super) from: usize,
    /// Offset in the image that is written.
    pub(super) to: usize,
    /// Its end there. Kept instead of a length: so it does not depend on all
    /// components before the last one, and the processor, which waits for the
    /// length before it begins a long copy, has it sooner.
    pub(super) to_end: usize,
    /// What of the written image is alignment, no state, and to be cleared
    /// afterwards: within the run, or just before it.
    gap: Range<usize>,
}

impl Run {
    /// Copies it.
    #[inline]
    pub(super) fn copy(&self, from: &[u8], out: &mut [u8]) {
        // In range: both images are as long as their layouts make them.
        let to = &mut out[self.to..self.to_end];
        let from = &from[self.from..];
        bytes::copy(to, &from[..to.len()]);
    }

    /// Clears what of it is no state.
    #[inline]
    pub(super) fn clear_gap(&self, out: &mut [u8]) {
        if rule!("canonical-gaps") && !self.gap.is_empty() {
            bytes::zero(&mut out[self.gap.clone()]);
        }
    }
}

/// Where components lie in the image that is read and in the one that is written.
pub(super) struct Places<'a> {
    from: &'a PerComponent,
    to: &'a PerComponent,
    read: &'a Geometry,
    written: &'a Geometry,
    form: Form,
}

/// Which machine lays an image out, and for what. Two words: with its form,
/// what a function for a rare case is told of an image, so that none need be in
/// memory for it.
#[derive(Clone, Copy)]
pub(super) struct Side<'a> {
    pub(super) geometry: &'a Geometry,
    pub(super) layout: ComponentSet,
}

impl<'a> Side<'a> {
    #[inline(always)]
    pub(super) const fn of(image: &Image<'a>) -> Self {
        Self {
            geometry: image.geometry(),
            layout: image.layout(),
        }
    }

    #[inline(always)]
    pub(super) const fn to(target: &Target<'a>) -> Self {
        Self {
            geometry: target.geometry,
            layout: target.layout,
        }
    }

    fn table(self, form: Form, own: &'a mut Option<PerComponent>) -> &'a PerComponent {
        self.geometry.table(form, self.layout, own)
    }
}

impl<'a> Places<'a> {
    pub(super) fn new(
        of: Side<'a>,
        to: Side<'a>,
        (form_of, form): (Form, Form),
        own_from: &'a mut Option<PerComponent>,
        own_to: &'a mut Option<PerComponent>,
    ) -> Self {
        Self {
            from: of.table(form_of, own_from),
            to: to.table(form, own_to),
            read: of.geometry,
            written: to.geometry,
            form,
        }
    }

    /// Whether both images are of one machine: each component has one size.
    #[inline]
    pub(super) fn one_machine(&self) -> bool {
        core::ptr::eq(self.read, self.written)
    }

    /// Bytes of a component that are copied: another machine may have another size.
    #[inline]
    fn copied(&self, component: ComponentIndex) -> usize {
        let written = self.written.size_bytes(component);
        if self.one_machine() {
            written
        } else {
            written.min(self.read.size_bytes(component))
        }
    }

    /// Gives each run of `held`, which both layouts have, ascending by component
    /// number. The first one begins at 0 and covers legacy region and header.
    #[inline]
    pub(super) fn each_run(&self, held: ComponentSet, mut give: impl FnMut(&Run)) {
        // Where offsets do not ascend, another component may lie in what looks
        // like a gap: one of a lower number, which has been written.
        let gaps_are_free = self.form == Form::Compacted
            || self.written.standard_ascends()
            || !rule!("runs-over-free-gaps");
        let mut run = Run {
            from: MIN_IMAGE_BYTES,
            to: MIN_IMAGE_BYTES,
            to_end: MIN_IMAGE_BYTES,
            gap: 0..0,
        };
        for component in held {
            let (from, to) = (offset(self.from, component), offset(self.to, component));
            // Negative where a component lies below one of a lower number: as
            // large as no gap of alignment is.
            let gap = to.wrapping_sub(run.to_end);
            let beside = gap < 64;
            let moves_as_one = from.wrapping_sub(to) == run.from.wrapping_sub(run.to);
            let one_run = gap == 0 || run.gap.is_empty() && gaps_are_free;
            if beside && moves_as_one && one_run {
                if gap != 0 {
                    run.gap = run.to_end..to;
                }
            } else {
                give(&run);
                let before = if beside && self.form == Form::Compacted {
                    run.to_end..to
                } else {
                    0..0
                };
                (run.from, run.to, run.gap) = (from, to, before);
            }
            run.to_end = to + self.copied(component);
        }
        give(&run);
    }

    /// Clears what of the written components is no state: the reserved tail of a
    /// size that is larger than the manuals' (PKRU has 4 bytes in 8, or in 64), or
    /// than the other machine's.
    #[inline]
    pub(super) fn clear_tails(&self, held: ComponentSet, out: &mut [u8]) {
        let tailed = if self.one_machine() {
            held.intersection(self.written.tailed())
        } else {
            held
        };
        for component in tailed {
            let place = Placement {
                component,
                offset_bytes: offset(self.to, component),
                size_bytes: self.written.size_bytes(component),
            };
            let state = payload(place);
            let copied = place.offset_bytes + self.copied(component);
            if rule!("canonical-tails") {
                bytes::zero(&mut out[state.end.min(copied)..place.range().end]);
            }
        }
    }
}

/// The same of two images of one machine, of what has a tail.
#[inline(never)]
pub(super) fn clear_own_tails(to: Side<'_>, form: Form, tailed: ComponentSet, out: &mut [u8]) {
    let mut own = None;
    let table = to.table(form, &mut own);
    for component in tailed {
        let at = offset(table, component);
        let state = at + to.geometry.state_bytes(component);
        if rule!("canonical-tails") {
            bytes::zero(&mut out[state..at + to.geometry.size_bytes(component)]);
        }
    }
}
