//! From a foreign image to a trusted one: lengths, header, registers, contents, each rule in its paragraph.

use core::fmt;

use zerocopy::{FromBytes, IntoBytes};

use super::{Accepts, Excess, ForeignError, ForeignImage, FpPointers, Tail, UnderXfd};
use crate::component::{ComponentIndex, ComponentSet};
use crate::cpuid::HostXstate;
use crate::header::{COMPACTED, XsaveHeader};
use crate::image::{Image, is_init, payload};
use crate::layout::{Form, Geometry, LEGACY_BYTES, MIN_IMAGE_BYTES};
use crate::legacy::LegacyRegion;
use crate::masks::XstatePolicy;
use crate::mutants::rule;
use crate::validate::{
    Claims, Registers, Rejection as R, TrustedImage, check_claims, check_contents,
};

/// What a read left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Components whose state the image held.
    pub state: ComponentSet,
    /// Those of `state` that were not INIT, as far as their place is known.
    pub in_use: ComponentSet,
    /// Components that were only said to hold state at some time.
    pub accum: ComponentSet,
    /// Components that the guest's IA32_XFD disables, of which a KVM buffer
    /// says nothing, whatever its XSTATE_BV has ([`UnderXfd::Init`]). Left out
    /// of a strict read too: nothing is lost.
    pub disabled: ComponentSet,
}

impl Dropped {
    /// Whether nothing was left out.
    pub const fn is_empty(&self) -> bool {
        self.state.is_empty() && self.accum.is_empty() && self.disabled.is_empty()
    }
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        let mut separator = "";
        for component in self.state.union(self.accum).union(self.disabled) {
            let held = if self.in_use.has(component) {
                " (in use)"
            } else if self.disabled.has(component) {
                " (disabled by IA32_XFD)"
            } else {
                ""
            };
            write!(f, "{separator}{component}{held}")?;
            separator = ", ";
        }
        Ok(())
    }
}

/// An image that was taken.
#[derive(Clone, Copy, Debug)]
pub struct Taken<'a> {
    /// The image, with its registers.
    pub image: TrustedImage<'a>,
    /// What was left out of it: after a strict read, no more than what the
    /// guest's own IA32_XFD disables.
    pub dropped: Dropped,
}

/// Judges an image of a machine with `geometry` for a vCPU with `policy` on
/// `host`. Where it was made on this host, `geometry` is `host.geometry()`.
///
/// # Errors
/// The first rule that it breaks.
pub fn read<'a>(
    foreign: &ForeignImage<'a>,
    geometry: &'a Geometry,
    host: &HostXstate,
    policy: &XstatePolicy,
    excess: Excess,
) -> Result<Taken<'a>, ForeignError> {
    let (form, header) = check_header(foreign)?;
    let beyond = check_excess(header, form, policy, excess)?;
    let (registers, accum) = check_registers(foreign, header, geometry, host, policy, excess)?;
    let layout = match form {
        Form::Standard => extent(foreign),
        Form::Compacted => header.layout(),
    };
    check_length(foreign, geometry, form, layout)?;
    if rule!("foreign-xstate-bv-xcomp-bv")
        && form == Form::Compacted
        && !layout.contains(header.xstate_bv())
    {
        let (held, layout) = (header.xstate_bv().bits(), layout.bits());
        return Err(R::XstateBvXcompBv(held, layout).into());
    }
    let held = header.xstate_bv().difference(beyond);
    let disabled = match foreign.under_xfd {
        UnderXfd::Init if rule!("kvm-state-under-xfd") => {
            held.intersection(registers.xfd.components())
        }
        _ => ComponentSet::EMPTY,
    };
    let held = held.difference(disabled);
    check_held(foreign.bytes, geometry, form, held, &registers)?;
    check_elsewhere(foreign, form, &registers)?;
    check_pointers(foreign, held)?;

    // What `Image` wants has been checked, each under its own name.
    let too_short = R::TooShort(foreign.bytes.len() as u64, MIN_IMAGE_BYTES as u64);
    let image =
        Image::without(foreign.bytes, geometry, form, beyond.union(disabled)).ok_or(too_short)?;
    check_contents(&image, host)?;
    Ok(Taken {
        image: TrustedImage::new(image, registers.on(host)),
        dropped: Dropped {
            state: beyond,
            in_use: in_use(foreign.bytes, geometry, form, layout, beyond),
            accum,
            disabled,
        },
    })
}

/// The form, and the header where its bytes are there to be read (Xen
/// 773522000c read it before it had compared the length).
fn check_header<'a>(foreign: &ForeignImage<'a>) -> Result<(Form, &'a XsaveHeader), ForeignError> {
    let too_short = R::TooShort(foreign.bytes.len() as u64, MIN_IMAGE_BYTES as u64);
    let rest = foreign.bytes.get(LEGACY_BYTES..).ok_or(too_short)?;
    let Ok((header, _)) = XsaveHeader::ref_from_prefix(rest) else {
        return Err(too_short.into());
    };

    // A standard interface has XCOMP_BV = 0. Elsewhere it tells the form.
    let xcomp_bv = header.xcomp_bv();
    let form = match foreign.accepts {
        _ if xcomp_bv == 0 => Form::Standard,
        Accepts::Standard if rule!("foreign-compacted") => {
            return Err(ForeignError::Compacted(xcomp_bv));
        }
        Accepts::Either if rule!("foreign-bit-63") && xcomp_bv & COMPACTED == 0 => {
            return Err(R::XcompBvBit63(xcomp_bv).into());
        }
        Accepts::Standard | Accepts::Either => Form::Compacted,
    };

    // Reserved bytes are zero.
    if let Some(word) = header.first_reserved()
        && rule!("foreign-header-reserved")
    {
        return Err(R::HeaderReserved(word).into());
    }
    Ok((form, header))
}

/// What the image holds beyond the policy: nothing, unless it may be dropped.
fn check_excess(
    header: &XsaveHeader,
    form: Form,
    policy: &XstatePolicy,
    excess: Excess,
) -> Result<ComponentSet, ForeignError> {
    let (held, allowed) = (header.xstate_bv(), policy.mask);
    let beyond = held.difference(allowed);

    // Bit 63 is no component that could be dropped.
    let droppable = match excess {
        Excess::Refuse => ComponentSet::EMPTY,
        Excess::Drop => ComponentSet::ALL,
    };
    if rule!("foreign-policy") && !droppable.contains(beyond) {
        return Err(ForeignError::Beyond(held.bits(), allowed.bits()));
    }

    // The layout of a compacted image may have what is dropped.
    let room = header.layout().difference(allowed);
    if rule!("foreign-layout-beyond") && form == Form::Compacted && !droppable.contains(room) {
        let allowed = allowed.bits() | COMPACTED;
        return Err(R::XcompBvPolicy(header.xcomp_bv(), allowed).into());
    }
    Ok(beyond)
}

/// The registers, and what of the accumulated XCR0 was dropped. What may hold
/// state is what is said to, else what is enabled or held; and always what a
/// guest can use without asking.
fn check_registers(
    foreign: &ForeignImage<'_>,
    header: &XsaveHeader,
    geometry: &Geometry,
    host: &HostXstate,
    policy: &XstatePolicy,
    excess: Excess,
) -> Result<(Registers, ComponentSet), ForeignError> {
    let registers = &foreign.registers;
    let (accum, dropped) = match registers.accum {
        Some(bits) => {
            let said = ComponentSet::from_bits_retain(bits);
            let beyond = said.difference(policy.mask).intersection(ComponentSet::ALL);
            match excess {
                Excess::Refuse => (said, ComponentSet::EMPTY),
                Excess::Drop => (said.difference(beyond), beyond),
            }
        }
        None => {
            let enabled = ComponentSet::from_bits_retain(registers.xcr0 | registers.xss);
            let may_hold = enabled.union(header.xstate_bv());
            (may_hold.intersection(policy.mask), ComponentSet::EMPTY)
        }
    };
    let supervisor = host.geometry().supervisor();
    let claims = Claims {
        xstate_mask: policy.mask.bits(),
        xcr0: registers.xcr0,
        xss: registers.xss,
        xfd: registers.xfd,
        xfd_err: registers.xfd_err,
        accum: accum.union(policy.initial_accum(supervisor)).bits(),
        xcomp_bv: header.xcomp_bv(),
        xsave: policy.xsave,
    };
    let registers = check_claims(&claims, geometry, host, (policy, host.offered()))?;
    Ok((registers, dropped))
}

/// The components that the length of a standard image follows.
fn extent(foreign: &ForeignImage<'_>) -> ComponentSet {
    let registers = &foreign.registers;
    ComponentSet::from_bits_retain(registers.accum.unwrap_or(registers.xcr0))
}

/// As many bytes as the layout makes, and nothing after them but what may be.
fn check_length(
    foreign: &ForeignImage<'_>,
    geometry: &Geometry,
    form: Form,
    layout: ComponentSet,
) -> Result<(), ForeignError> {
    // A buffer is judged by what it holds. Nobody else's components may be of
    // unknown size; in the compacted form offsets depend on them too.
    let buffer = foreign.tail == Tail::Unread && form == Form::Standard;
    if buffer {
        return Ok(());
    }
    let known = geometry.known();
    if let Some(unknown) = layout.difference(known).iter().next()
        && rule!("foreign-unplaced")
    {
        return Err(ForeignError::Unplaced(unknown, known.bits()));
    }
    let (len, exact) = (foreign.bytes.len(), geometry.image_size(form, layout));
    let wrong = R::Length(len as u64, exact as u64);
    let tail = foreign.bytes.get(exact..).ok_or(wrong)?;
    match foreign.tail {
        Tail::None if rule!("foreign-length") && !tail.is_empty() => Err(wrong.into()),
        Tail::None | Tail::Unread => Ok(()),
        Tail::Zeros => match tail.iter().position(|byte| *byte != 0) {
            Some(at) if rule!("foreign-tail") => {
                Err(ForeignError::Tail((exact + at) as u64, exact as u64))
            }
            _ => Ok(()),
        },
    }
}

/// Supervisor state that IA32_XSS enables is in a compacted image, or the caller
/// has it: in the standard form it would be taken for INIT.
fn check_elsewhere(
    foreign: &ForeignImage<'_>,
    form: Form,
    registers: &Registers,
) -> Result<(), ForeignError> {
    let (enabled, elsewhere) = (registers.xss.components(), foreign.elsewhere);
    if rule!("foreign-xss") && form == Form::Standard && !elsewhere.contains(enabled) {
        return Err(ForeignError::Xss(enabled.bits(), elsewhere.bits()));
    }
    Ok(())
}

/// What of FIP and FDP is an offset where a selector is behind it.
pub(super) const OFFSET: u64 = 0xffff_ffff;
/// Where Xen keeps the size of an x87 word, in the last reserved byte.
const WORD_SIZE: usize = 511;

/// Whether FIP or FDP has a selector in it, by what Xen says of their size.
pub(super) fn has_selectors(legacy: &LegacyRegion) -> bool {
    let narrow = matches!(legacy.as_bytes()[WORD_SIZE], 2 | 4);
    narrow && (legacy.fip.get() | legacy.fdp.get()) > OFFSET
}

/// x87's pointers are addresses: XRSTOR64 would load a selector as the upper
/// half of one.
fn check_pointers(foreign: &ForeignImage<'_>, held: ComponentSet) -> Result<(), ForeignError> {
    let own = foreign.fp_pointers == FpPointers::ByWordSize && held.has(ComponentIndex::X87);
    if let Ok((legacy, _)) = LegacyRegion::ref_from_prefix(foreign.bytes)
        && rule!("foreign-fp-selectors")
        && own
        && has_selectors(legacy)
    {
        return Err(ForeignError::Selectors(legacy.fip.get(), legacy.fdp.get()));
    }
    Ok(())
}

/// What the image holds has a place in it, may hold state, and is enabled in
/// IA32_XFD.
fn check_held(
    bytes: &[u8],
    geometry: &Geometry,
    form: Form,
    held: ComponentSet,
    registers: &Registers,
) -> Result<(), ForeignError> {
    if form == Form::Standard {
        let nowhere = held.intersection(geometry.supervisor());
        if let Some(component) = nowhere.iter().next()
            && rule!("foreign-supervisor")
        {
            return Err(ForeignError::Supervisor(component, held.bits()));
        }
    }
    if rule!("foreign-xstate-bv-accum") && !registers.accum.contains(held) {
        return Err(R::XstateBvAccum(held.bits(), registers.accum.bits()).into());
    }
    let enabled = ComponentSet::ALL.difference(registers.xfd.components());
    if rule!("foreign-xstate-bv-xfd") && !enabled.contains(held) {
        return Err(R::XstateBvXfd(held.bits(), enabled.bits()).into());
    }
    // A compacted image is as long as its layout.
    if form == Form::Standard {
        for place in geometry.placements(form, held) {
            let (len, end) = (bytes.len() as u64, place.range().end as u64);
            if rule!("foreign-truncated") && end > len {
                return Err(ForeignError::Truncated(place.component, len, end));
            }
        }
    }
    Ok(())
}

/// Those of `dropped` that are not INIT, by content.
fn in_use(
    bytes: &[u8],
    geometry: &Geometry,
    form: Form,
    layout: ComponentSet,
    dropped: ComponentSet,
) -> ComponentSet {
    let places = match form {
        Form::Standard => dropped,
        Form::Compacted => layout,
    };
    geometry
        .placements(form, places)
        .filter(|place| dropped.has(place.component))
        .filter(|place| {
            let held = bytes.get(payload(*place));
            held.is_some_and(|held| !is_init(place.component, held))
        })
        .fold(ComponentSet::EMPTY, |all, place| {
            all.union(ComponentSet::only(place.component))
        })
}
