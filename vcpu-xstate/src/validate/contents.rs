//! The contents of registers in an image: each component's own rules, under the rejection's names.

use super::Rejection;
use crate::component::{ComponentIndex, ComponentSet};
use crate::cpuid::HostXstate;
use crate::image::Image;
use crate::layout::{Form, Geometry, offset};
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
        return check_components(bytes, image.geometry(), form, image.layout(), ruled, host);
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

const fn named(component: ComponentIndex, bad: BadValue) -> Rejection {
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
