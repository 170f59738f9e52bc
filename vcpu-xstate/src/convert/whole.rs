//! Images of which every byte is written: what is no state is zero.

use super::head::Head;
use super::runs::{self, Places, Side};
use super::{Canonical, Plan, Target, TooSmall, copy_second, cut, first};
use crate::bytes::{self, LONG_BYTES};
use crate::component::{ComponentIndex, ComponentSet};
use crate::header::COMPACTED;
use crate::image::{Image, payload, records_end};
use crate::layout::{Cut, Form, Geometry, MIN_IMAGE_BYTES};
use crate::mutants::rule;

/// A canonical image that is going to be written: what of `image` it holds, and
/// how long it will be.
pub(crate) struct Planned<'i, 'a> {
    image: &'i Image<'a>,
    plan: Plan,
    cut: Option<Cut>,
    canonical: Canonical,
}

impl<'i, 'a> Planned<'i, 'a> {
    /// Of what `image` has in use, without `leave_out`; and SSE where its MXCSR
    /// is kept for AVX, as [`transfer`](super::transfer) says.
    #[inline(always)]
    pub(crate) fn new(image: &'i Image<'a>, leave_out: ComponentSet) -> Self {
        let in_use = image.in_use().difference(leave_out);
        // SSE can be in use for its MXCSR alone: then there are no XMM registers.
        let mut head = Head::of(image, in_use.intersection(image.xstate_bv()), in_use);
        let components = head.xstate_bv();
        head.xcomp_bv = components.bits() | COMPACTED;
        let extended = in_use.difference(ComponentSet::LEGACY);
        let cut = cut(image, extended, &target(image, components));
        let len_bytes = match &cut {
            // Nothing has room that is not copied.
            Some(cut) => cut.end(),
            None => size(image.geometry(), components),
        };
        Self {
            image,
            plan: Plan { head, extended },
            cut,
            canonical: Canonical {
                components,
                len_bytes,
            },
        }
    }

    #[inline(always)]
    pub(crate) const fn canonical(&self) -> Canonical {
        self.canonical
    }

    /// # Errors
    /// `out` is too small; nothing was written.
    #[inline(always)]
    pub(crate) fn write(self, out: &mut [u8]) -> Result<(), TooSmall> {
        let (needed_bytes, given_bytes) = (self.canonical.len_bytes, out.len());
        let out = out.get_mut(..needed_bytes).ok_or(TooSmall {
            needed_bytes,
            given_bytes,
        })?;
        let target = target(self.image, self.canonical.components);
        write_whole::<true>(self.image, &self.plan, self.cut, &target, out);
        Ok(())
    }
}

#[inline(always)]
const fn target<'a>(image: &Image<'a>, components: ComponentSet) -> Target<'a> {
    Target {
        geometry: image.geometry(),
        form: Form::Compacted,
        layout: components,
    }
}

#[inline(never)]
fn size(geometry: &Geometry, components: ComponentSet) -> usize {
    geometry.image_size(Form::Compacted, components)
}

/// Writes every byte of `out`, which is as long as the image; nothing has room
/// that is not copied where `EXACT`.
#[inline(always)]
pub(super) fn write_whole<const EXACT: bool>(
    image: &Image<'_>,
    plan: &Plan,
    cut: Option<Cut>,
    target: &Target<'_>,
    out: &mut [u8],
) {
    let from = image.bytes();
    // A long copy takes the head with it: what of it must differ is written
    // over it. Words go better around the head.
    match &cut {
        Some(cut) if cut.same_end >= LONG_BYTES => {
            bytes::copy(&mut out[..cut.same_end], &from[..cut.same_end]);
            plan.head.write::<true>(image, first(out));
        }
        _ => plan.head.write::<false>(image, first(out)),
    }
    let Some(cut) = cut else {
        let (of, to) = (Side::of(image), Side::to(target));
        let forms = (image.form(), target.form);
        whole_runs(from, of, to, forms, plan.extended, out);
        return clear_records(plan.extended, target, out);
    };
    if cut.same_end < LONG_BYTES {
        let extended = MIN_IMAGE_BYTES..cut.same_end;
        bytes::copy_words(&mut out[extended.clone()], &from[extended]);
    }
    if cut.len != 0 {
        if cut.to != cut.same_end {
            bytes::zero(&mut out[cut.same_end..cut.to]);
        }
        copy_second(&cut, from, out);
    }
    clear_within(&cut, plan.extended, target, out);
    if !EXACT && cut.end() != out.len() {
        bytes::zero(&mut out[cut.end()..]);
    }
    clear_records(plan.extended, target, out);
}

/// Branch records behind those that IA32_LBR_DEPTH counts are no state: XSAVES
/// leaves there what was there before (SDM Vol. 1, 13.5.12).
#[inline(always)]
fn clear_records(extended: ComponentSet, target: &Target<'_>, out: &mut [u8]) {
    if extended.has(ComponentIndex::LBR) && rule!("canonical-records") {
        clear_uncounted(target.geometry, target.form, target.layout, out);
    }
}

#[cold]
#[inline(never)]
fn clear_uncounted(geometry: &Geometry, form: Form, layout: ComponentSet, out: &mut [u8]) {
    let mut places = geometry.placements(form, layout);
    if let Some(place) = places.find(|place| place.component == ComponentIndex::LBR) {
        let records = &mut out[payload(place)];
        let end = records_end(records);
        bytes::zero(&mut records[end..]);
    }
}

/// Clears what within the runs is no state.
#[inline(always)]
fn clear_within(cut: &Cut, extended: ComponentSet, target: &Target<'_>, out: &mut [u8]) {
    if rule!("canonical-gaps") && !cut.gap.is_empty() {
        bytes::zero(&mut out[cut.gap.clone()]);
    }
    let tailed = extended.intersection(target.geometry.tailed());
    if !tailed.is_empty() {
        runs::clear_own_tails(Side::to(target), target.form, tailed, out);
    }
}

/// The extended region, where it is more than two runs.
#[inline(never)]
fn whole_runs(
    from: &[u8],
    of: Side<'_>,
    to: Side<'_>,
    forms: (Form, Form),
    extended: ComponentSet,
    out: &mut [u8],
) {
    // Offsets that do not ascend: all is cleared before anything is written.
    let cleared = forms.1 == Form::Standard && !to.geometry.standard_ascends();
    if cleared {
        bytes::zero(&mut out[MIN_IMAGE_BYTES..]);
    }
    let mut end = MIN_IMAGE_BYTES;
    let (mut own_from, mut own_to) = (None, None);
    let places = Places::new(of, to, forms, &mut own_from, &mut own_to);
    places.each_run(extended, |run| {
        if !cleared && run.to > end {
            bytes::zero(&mut out[end..run.to]);
        }
        end = run.to_end;
        run.copy(from, out);
        run.clear_gap(out);
    });
    if !cleared {
        bytes::zero(&mut out[end..]);
    }
    places.clear_tails(extended, out);
}
