//! The contents of registers in an image: each component's own rules, under the rejection's names.

use super::Rejection;
use crate::component::{ComponentIndex, ComponentSet};
use crate::cpuid::HostXstate;
use crate::image::Image;
use crate::layout::{Form, Geometry, offset};
use crate::mutants::rule;
use crate::values::{self, BadValue};

/// The register contents, as far as a processor refuses some.
#[inline(always)]
pub(crate) fn check_contents(image: &Image<'_>, host: &HostXstate) -> Result<(), Rejection> {
    // MXCSR counts only with XSTATE_BV[1]: `mxcsr` is 1F80 otherwise.
    let mxcsr = values::check_mxcsr(image.mxcsr(), &host.limits());
    mxcsr.map_err(|bad| named(ComponentIndex::SSE, bad))?;
    let ruled = image.extended().intersection(values::RULED);
    if !ruled.is_empty() {
        let (bytes, form) = (image.bytes(), image.form());
        check_components(bytes, image.geometry(), form, image.layout(), ruled, host)?;
    }
    let tails = image
        .extended()
        .intersection(image.geometry().supervisor_tails());
    if !tails.is_empty() {
        return check_tails(image.bytes(), image.geometry(), image.layout(), tails);
    }
    Ok(())
}

/// XRSTORS faults on any bit of a reserved portion of supervisor state (SDM Vol.
/// 1, 13.12), which is what a size beyond the manuals' own is to us. Only a
/// compacted image has such components.
#[inline(never)]
fn check_tails(
    bytes: &[u8],
    geometry: &Geometry,
    layout: ComponentSet,
    tails: ComponentSet,
) -> Result<(), Rejection> {
    let mut own = None;
    let offsets = geometry.table(Form::Compacted, layout, &mut own);
    for component in tails {
        let start = offset(offsets, component);
        let reserved =
            start + geometry.state_bytes(component)..start + geometry.size_bytes(component);
        if rule!("supervisor-tail-reserved")
            && let Some(byte) = bytes[reserved].iter().find(|byte| **byte != 0)
        {
            return Err(Rejection::Reserved(component, (*byte).into(), 0));
        }
    }
    Ok(())
}

/// Those that have rules, of the image that consists of these parts.
#[inline(never)]
fn check_components(
    bytes: &[u8],
    geometry: &Geometry,
    form: Form,
    layout: ComponentSet,
    ruled: ComponentSet,
    host: &HostXstate,
) -> Result<(), Rejection> {
    let mut own = None;
    let offsets = geometry.table(form, layout, &mut own);
    for component in ruled {
        let start = offset(offsets, component);
        // In range, as the length of the image is.
        let bytes = &bytes[start..start + geometry.state_bytes(component)];
        values::check(component, bytes, &host.limits()).map_err(|bad| named(component, bad))?;
    }
    Ok(())
}

pub(crate) const fn named(component: ComponentIndex, bad: BadValue) -> Rejection {
    use Rejection as R;
    match bad {
        BadValue::Mxcsr(seen, allowed) => R::Mxcsr(seen, allowed),
        BadValue::Address(seen, allowed) => R::Address(component, seen, allowed),
        BadValue::Reserved(seen, allowed) => R::Reserved(component, seen, allowed),
        BadValue::CetTracker(seen, allowed) => R::CetTracker(seen, allowed),
        BadValue::LbrDepth(seen, largest) => R::LbrDepth(seen, largest),
        BadValue::TileConfig(seen, largest) => R::TileConfig(seen, largest),
    }
}
