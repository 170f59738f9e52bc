//! From an untrusted image to a trusted one, or to the name of the rule that it breaks; nothing in between.
//!
//! What comes over a wire or out of a file is [`Claims`] and bytes. Only
//! [`validate`] makes a [`TrustedImage`], and only that can become a vCPU's
//! state: so no restore in the host can fault on what a stranger wrote. Each
//! paragraph of `validate` is one rule, in an order in which no rule reads
//! what an earlier one has not covered (lengths come first).

mod contents;

pub(crate) use contents::{check_contents, named};

use crate::component::{ComponentIndex, ComponentSet};
use crate::cpuid::HostXstate;
use crate::error::broken_accessors;
use crate::header::COMPACTED;
use crate::image::{Image, Says};
use crate::judge::{elsewhere, judge};
use crate::layout::{Form, Geometry, LayoutDifference, MIN_IMAGE_BYTES};
use crate::masks::XstatePolicy;
use crate::mutants::rule;
use crate::values::Limits;
use crate::xcr0::{Xcr0, Xcr0Error, xcr0_verdict};
use crate::xfd::{Xfd, XfdError, xfd_verdict};
use crate::xss::{Xss, XssError, xss_verdict};

/// What came with an image. Untrusted: each is an allegation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The policy of the vCPU that it was taken from.
    pub xstate_mask: u64,
    /// Its XCR0.
    pub xcr0: u64,
    /// Its IA32_XSS.
    pub xss: u64,
    /// Its IA32_XFD, as the guest sees it.
    pub xfd: u64,
    /// Its IA32_XFD_ERR, as the guest sees it.
    pub xfd_err: u64,
    /// What may hold state.
    pub accum: u64,
    /// XCOMP_BV of the image.
    pub xcomp_bv: u64,
    /// Whether its policy has XSAVE.
    pub xsave: bool,
}

/// Why an image is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// Fewer bytes than legacy region and header: length, least.
    TooShort(u64, u64),
    /// XSAVE in the image's policy (1) or not (0), other than here: seen, allowed.
    Xsave(u64, u64),
    /// The policy lacks x87 or SSE.
    MaskLegacy(u64),
    /// The policy has a part of a group (AVX-512, MPX, AMX, or what needs AVX or
    /// SSE without those), which no XCR0 can enable: seen, its whole groups.
    MaskGroup(u64, u64),
    /// The image's policy exceeds the vCPU's.
    MaskPolicy(u64, u64),
    /// The image's policy exceeds what the host offers.
    MaskHost(u64, u64),
    /// The image's directory does not describe all of its policy.
    MaskDirectory(u64, u64),
    /// A component has another layout there. The guest's own images and its
    /// cached leaf 0xD could not be converted.
    Layout(LayoutDifference),
    /// XCR0 is not legal, or exceeds the policy.
    Xcr0(Xcr0Error),
    /// IA32_XSS exceeds the policy.
    Xss(XssError),
    /// IA32_XFD exceeds the policy.
    Xfd(XfdError),
    /// IA32_XFD_ERR exceeds the policy.
    XfdErr(XfdError),
    /// `accum` exceeds the policy.
    AccumPolicy(u64, u64),
    /// `accum` lacks what is enabled and cannot be held back, or x87 and SSE:
    /// `accum`, the least that it must hold.
    AccumEnabled(u64, u64),
    /// XCOMP_BV of the image is not the one that came with it.
    XcompBvClaim(u64, u64),
    /// XCOMP_BV bit 63 is clear: the image is not compacted.
    XcompBvBit63(u64),
    /// XCOMP_BV exceeds the policy.
    XcompBvPolicy(u64, u64),
    /// The image is not exactly as long as its XCOMP_BV makes it.
    Length(u64, u64),
    /// Reserved bytes of the header are not zero.
    HeaderReserved(u64),
    /// XSTATE_BV exceeds XCOMP_BV.
    XstateBvXcompBv(u64, u64),
    /// XSTATE_BV exceeds `accum`.
    XstateBvAccum(u64, u64),
    /// XSTATE_BV has what IA32_XFD disables.
    XstateBvXfd(u64, u64),
    /// MXCSR has bits that this processor faults on.
    Mxcsr(u64, u64),
    /// A component holds an address that is not canonical here.
    Address(ComponentIndex, u64, u64),
    /// A component has reserved bits set.
    Reserved(ComponentIndex, u64, u64),
    /// IA32_U_CET has both TRACKER and SUPPRESS.
    CetTracker(u64, u64),
    /// A depth of the branch records that no processor has.
    LbrDepth(u64, u64),
    /// A tile configuration that no processor takes.
    TileConfig(u64, u64),
}

broken_accessors!(Rejection,
    Self::TooShort(seen, least) => ("image-too-short", 0x301, seen, least),
    Self::Xsave(seen, allowed) => ("policy-xsave", 0x302, seen, allowed),
    Self::MaskLegacy(seen) => ("xstate-mask-legacy", 0x303, seen, seen | 3),
    Self::MaskPolicy(seen, allowed) => ("xstate-mask-policy", 0x304, seen, allowed),
    Self::MaskHost(seen, allowed) => ("xstate-mask-host", 0x305, seen, allowed),
    Self::MaskDirectory(seen, allowed) => ("xstate-mask-directory", 0x306, seen, allowed),
    Self::Layout(d) => ("component-layout", 0x307, d.values().1, d.values().2),
    Self::Xcr0(e) => (e.rule(), e.code(), e.seen(), e.allowed()),
    Self::Xss(e) => (e.rule(), e.code(), e.seen(), e.allowed()),
    Self::Xfd(e) => (e.rule(), e.code(), e.seen(), e.allowed()),
    Self::XfdErr(e) => ("xfd-err-policy", 0x308, e.seen(), e.allowed()),
    Self::AccumPolicy(seen, allowed) => ("accum-policy", 0x309, seen, allowed),
    Self::AccumEnabled(seen, least) => ("accum-enabled", 0x30a, seen, least),
    Self::XcompBvClaim(seen, claimed) => ("xcomp-bv-claim", 0x30b, seen, claimed),
    Self::XcompBvBit63(seen) => ("xcomp-bv-bit-63", 0x30c, seen, seen | COMPACTED),
    Self::XcompBvPolicy(seen, allowed) => ("xcomp-bv-policy", 0x30d, seen, allowed),
    Self::Length(seen, exact) => ("image-length", 0x30e, seen, exact),
    Self::HeaderReserved(seen) => ("header-reserved", 0x30f, seen, 0),
    Self::XstateBvXcompBv(seen, allowed) => ("xstate-bv-xcomp-bv", 0x310, seen, allowed),
    Self::XstateBvAccum(seen, allowed) => ("xstate-bv-accum", 0x311, seen, allowed),
    Self::XstateBvXfd(seen, allowed) => ("xstate-bv-xfd", 0x312, seen, allowed),
    Self::Mxcsr(seen, allowed) => ("mxcsr", 0x313, seen, allowed),
    Self::Address(_, seen, allowed) => ("component-address", 0x314, seen, allowed),
    Self::Reserved(_, seen, allowed) => ("component-reserved", 0x315, seen, allowed),
    Self::CetTracker(seen, allowed) => ("cet-tracker", 0x316, seen, allowed),
    Self::LbrDepth(seen, largest) => ("lbr-depth", 0x317, seen, largest),
    Self::TileConfig(seen, largest) => ("tile-config", 0x318, seen, largest),
    Self::MaskGroup(seen, whole) => ("xstate-mask-group", 0x319, seen, whole),
);

/// The registers that came with an image, judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registers {
    pub policy_mask: ComponentSet,
    pub xcr0: Xcr0,
    pub xss: Xss,
    pub xfd: Xfd,
    pub xfd_err: Xfd,
    pub accum: ComponentSet,
    pub xsave: bool,
}

/// What belongs to a trusted image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Values {
    pub registers: Registers,
    /// [`HostXstate::layout_id`] of the host that it was judged for,
    pub layout_id: u64,
    /// and what of that host decided about its contents.
    pub limits: Limits,
}

impl Registers {
    /// With what of `host` they were judged by.
    pub(crate) const fn on(self, host: &HostXstate) -> Values {
        Values {
            registers: self,
            layout_id: host.layout_id(),
            limits: host.limits(),
        }
    }
}

/// An image that this host can restore, with the registers that belong to it.
#[derive(Clone, Copy)]
pub struct TrustedImage<'a> {
    image: Image<'a>,
    values: Values,
}

impl<'a> TrustedImage<'a> {
    /// For whoever has applied every rule of [`validate`] to an image of
    /// another form.
    pub(crate) const fn new(image: Image<'a>, values: Values) -> Self {
        Self { image, values }
    }

    /// The image.
    pub const fn image(&self) -> &Image<'a> {
        &self.image
    }

    pub(crate) const fn values(&self) -> &Values {
        &self.values
    }
}

impl core::fmt::Debug for TrustedImage<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "TrustedImage({})", self.image.xstate_bv())
    }
}

/// Judges a compacted image of a machine with `geometry`, for a vCPU with
/// `policy` on `host`.
///
/// # Errors
/// The first rule that it breaks.
#[inline(always)]
pub fn validate<'a>(
    claims: &Claims,
    geometry: &'a Geometry,
    image: &'a [u8],
    host: &HostXstate,
    policy: &XstatePolicy,
) -> Result<TrustedImage<'a>, Rejection> {
    let (registers, image) = judged(claims, geometry, image, host, (policy, host.offered()))?;
    Ok(TrustedImage::new(image, registers.on(host)))
}

/// The same for whoever takes it on the spot. Beside the policy stands a set of
/// whole groups, which need not be asked whether it is one.
#[inline(always)]
pub(crate) fn judged<'a>(
    claims: &Claims,
    geometry: &'a Geometry,
    image: &'a [u8],
    host: &HostXstate,
    policy: (&XstatePolicy, ComponentSet),
) -> Result<(Registers, Image<'a>), Rejection> {
    let registers = check_claims(claims, geometry, host, policy)?;
    let image = check_image(claims, &registers, geometry, image)?;
    check_contents(&image, host)?;
    Ok((registers, image))
}

/// Everything that can be judged before the image is looked at.
#[inline(always)]
pub(crate) fn check_claims(
    claims: &Claims,
    geometry: &Geometry,
    host: &HostXstate,
    (policy, whole): (&XstatePolicy, ComponentSet),
) -> Result<Registers, Rejection> {
    use Rejection as R;
    let Claims { xsave, accum, .. } = *claims;
    let mask = ComponentSet::from_bits_retain(claims.xstate_mask);
    let (in_policy, offered, described) = (policy.mask, host.offered(), geometry.known());
    let has_xsave = policy.xsave;
    judge! {
        // A guest with XSAVE does not become one without.
        rule!("policy-xsave"), u64::from(xsave ^ has_xsave)
            => R::Xsave(xsave.into(), has_xsave.into());

        // Every guest has x87 and SSE.
        rule!("xstate-mask-legacy"), beyond(ComponentSet::LEGACY, mask) => R::MaskLegacy(mask.bits());

        // No more than this vCPU may use, than this host offers, than the
        // directory describes.
        rule!("xstate-mask-policy"), beyond(mask, in_policy)
            => R::MaskPolicy(mask.bits(), in_policy.bits());
        rule!("xstate-mask-host"), beyond(mask, offered)
            => R::MaskHost(mask.bits(), offered.bits());
        rule!("xstate-mask-directory"), beyond(mask, described)
            => R::MaskDirectory(mask.bits(), described.bits());

        // Groups are whole: what no XCR0 can enable is in no policy.
        rule!("xstate-mask-group"), parted(mask, whole)
            => R::MaskGroup(mask.bits(), mask.whole_groups().bits());
    }?;

    // The layouts agree over the policy.
    if !core::ptr::eq(host.geometry(), geometry)
        && let Some(difference) = host.geometry().first_difference(geometry, mask)
        && rule!("component-layout")
    {
        return Err(R::Layout(difference));
    }

    // The registers are values that the guest could have written.
    let supervisor = mask.intersection(host.geometry().supervisor());
    let capable = mask.intersection(host.geometry().xfd_capable());
    let xcr0 = xcr0_verdict(claims.xcr0, 0, mask.difference(supervisor)).map_err(R::Xcr0)?;
    judge! {
        rule!("xcr0-without-xsave"), if xsave { 0 } else { xcr0.bits() ^ Xcr0::RESET.bits() }
            => R::Xcr0(Xcr0Error::WithoutXsave(xcr0.bits()));
    }?;
    let xss = xss_verdict(claims.xss, supervisor).map_err(R::Xss)?;
    let disableable = policy.disableable(capable);
    let xfd = xfd_verdict(claims.xfd, disableable).map_err(R::Xfd)?;
    let allowed = if rule!("xfd-err-policy") {
        disableable
    } else {
        ComponentSet::ALL
    };
    let xfd_err = xfd_verdict(claims.xfd_err, allowed).map_err(R::XfdErr)?;

    // policy ⊇ accum ⊇ what is enabled and cannot be held back by XFD.
    let accum = ComponentSet::from_bits_retain(accum);
    let enabled = xcr0.components().union(xss.components());
    let least = enabled.difference(capable).union(ComponentSet::LEGACY);
    judge! {
        rule!("accum-policy"), beyond(accum, mask) => R::AccumPolicy(accum.bits(), mask.bits());
        rule!("accum-enabled"), beyond(least, accum) => R::AccumEnabled(accum.bits(), least.bits());
    }?;

    Ok(Registers {
        policy_mask: mask,
        xcr0,
        xss,
        xfd,
        xfd_err,
        accum,
        xsave,
    })
}

/// What of `set` is beyond `limit`; 0 if nothing is.
#[inline(always)]
const fn beyond(set: ComponentSet, limit: ComponentSet) -> u64 {
    set.difference(limit).bits()
}

/// What of `mask` is in no whole group, 0 if nothing is; nothing of `whole` is.
#[inline(always)]
fn parted(mask: ComponentSet, whole: ComponentSet) -> u64 {
    if mask.bits() == whole.bits() {
        return 0;
    }
    elsewhere(|| beyond(mask, mask.whole_groups()))
}

/// The header, and that the bytes are as many as it says.
#[inline(always)]
fn check_image<'a>(
    claims: &Claims,
    registers: &Registers,
    geometry: &'a Geometry,
    bytes: &'a [u8],
) -> Result<Image<'a>, Rejection> {
    use Rejection as R;
    let len = bytes.len() as u64;

    // The exact length comes before any byte is read: it follows from the
    // XCOMP_BV that came with the image.
    let (claimed, mask) = (claims.xcomp_bv, registers.policy_mask);
    let layout = ComponentSet::from_bits_retain(claimed & !COMPACTED);
    judge! {
        rule!("xcomp-bv-bit-63"), !claimed & COMPACTED => R::XcompBvBit63(claimed);
        rule!("xcomp-bv-policy"), beyond(layout, mask)
            => R::XcompBvPolicy(claimed, mask.bits() | COMPACTED);
    }?;
    let too_short = R::TooShort(len, MIN_IMAGE_BYTES as u64);
    let (_, header) = Image::head(bytes).ok_or(too_short)?;
    let exact = geometry.image_size(Form::Compacted, layout) as u64;
    let (xstate_bv, xcomp_bv) = (header.xstate_bv(), header.xcomp_bv());
    let (accum, xfd) = (registers.accum, registers.xfd.components());
    let reserved = header.reserved();
    judge! {
        rule!("image-length"), len ^ exact => R::Length(len, exact);

        // The image's own XCOMP_BV is the one that came with it.
        rule!("xcomp-bv-claim"), xcomp_bv ^ claimed => R::XcompBvClaim(xcomp_bv, claimed);

        // Reserved bytes are zero.
        rule!("header-reserved"), reserved
            => R::HeaderReserved(header.first_reserved().unwrap_or(0));

        // XSTATE_BV ⊆ XCOMP_BV, ⊆ accum, and nothing in it that XFD disables. The
        // legacy region is there whether XCOMP_BV names it or not, but XRSTORS
        // does not care and faults.
        rule!("xstate-bv-xcomp-bv"), beyond(xstate_bv, layout)
            => R::XstateBvXcompBv(xstate_bv.bits(), layout.bits());
        rule!("xstate-bv-accum"), beyond(xstate_bv, accum)
            => R::XstateBvAccum(xstate_bv.bits(), accum.bits());
        rule!("xstate-bv-xfd"), xstate_bv.intersection(xfd).bits()
            => R::XstateBvXfd(xstate_bv.bits(), ComponentSet::ALL.difference(xfd).bits());
    }?;

    // What `Image::new` wants has been judged, each under its own name.
    let says = Says { xstate_bv, layout };
    Image::judged(bytes, geometry, Form::Compacted, says).ok_or(too_short)
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;

#[cfg(test)]
mod mended_tests;

#[cfg(test)]
mod property_tests;
