//! Which bytes go where: the components that an image holds, joined into runs.
//!
//! Starting a long copy takes as long as copying a kilobyte. So what lies side
//! by side in both images is one run, and the first run begins with legacy
//! region and header. AMD's two forms are one run, Intel's two: MPX left a hole
//! in the standard form.

use core::ops::Range;

use super::Target;
use crate::bytes;
use crate::component::ComponentSet;
use crate::image::{Image, payload};
use crate::layout::{Form, MIN_IMAGE_BYTES, Placement};

/// Bytes that are copied at once.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// Offset in the image that is read.
    pub(super) from: usize,
    /// Offset in the image that is written.
    pub(super) to: usize,
    pub(super) len: usize,
    /// What of the written image is alignment, no state, and to be cleared
    /// afterwards: within the run, or just before it.
    pub(super) gap: Range<usize>,
}

impl Run {
    /// Copies it.
    #[inline]
    pub(super) fn copy(&self, image: &Image<'_>, out: &mut [u8]) {
        // In range: both images are as long as their layouts make them.
        let from = &image.bytes()[self.from..self.from + self.len];
        bytes::copy(&mut out[self.to..self.to + self.len], from);
        if !self.gap.is_empty() {
            bytes::zero(&mut out[self.gap.clone()]);
        }
    }

    /// Copies what of the first run lies behind legacy region and header.
    #[inline]
    pub(super) fn copy_extended(&self, image: &Image<'_>, out: &mut [u8]) {
        if self.len > MIN_IMAGE_BYTES {
            let behind = Self {
                from: MIN_IMAGE_BYTES,
                to: MIN_IMAGE_BYTES,
                len: self.len - MIN_IMAGE_BYTES,
                gap: self.gap.clone(),
            };
            behind.copy(image, out);
        }
    }

    const fn to_end(&self) -> usize {
        self.to + self.len
    }
}

/// Gives each run of `held`, which both layouts have, ascending by component
/// number. The first one begins at 0 and covers legacy region and header.
#[inline]
pub(super) fn each(
    image: &Image<'_>,
    target: &Target<'_>,
    held: ComponentSet,
    mut give: impl FnMut(&Run),
) {
    let (mut from_offsets, mut to_offsets) = (image.offsets(), target.offsets());
    let mut run = Run {
        from: 0,
        to: 0,
        len: MIN_IMAGE_BYTES,
        gap: 0..0,
    };
    for component in held {
        let (from, to) = (from_offsets.at(component), to_offsets.at(component));
        // Another machine may have another size.
        let len = image
            .geometry()
            .size_bytes(component)
            .min(target.geometry.size_bytes(component));
        // Negative where a component lies below one of a lower number: as
        // large as no gap of alignment is.
        let gap = to.wrapping_sub(run.to_end());
        let aligned = gap < 64;
        let joins = from.wrapping_sub(run.from + run.len) == gap && aligned;
        if joins && (gap == 0 || run.gap.is_empty()) {
            if gap != 0 {
                run.gap = run.to_end()..to;
            }
            run.len += gap + len;
        } else {
            give(&run);
            let before = if aligned && target.form == Form::Compacted {
                run.to_end()..to
            } else {
                0..0
            };
            run = Run {
                from,
                to,
                len,
                gap: before,
            };
        }
    }
    give(&run);
}

/// Clears what of the written components is no state: the reserved tail of a
/// size that is larger than the manuals' (PKRU has 4 bytes in 8, or in 64), or
/// than the other machine's.
#[inline]
pub(super) fn clear_tails(
    image: &Image<'_>,
    target: &Target<'_>,
    held: ComponentSet,
    out: &mut [u8],
) {
    let tailed = if core::ptr::eq(image.geometry(), target.geometry) {
        held.intersection(target.geometry.tailed())
    } else {
        held
    };
    let mut offsets = target.offsets();
    for component in tailed {
        let place = Placement {
            component,
            offset_bytes: offsets.at(component),
            size_bytes: target.geometry.size_bytes(component),
        };
        let state = payload(place);
        let copied = place.offset_bytes + image.geometry().size_bytes(component);
        bytes::zero(&mut out[state.end.min(copied)..place.range().end]);
    }
}
