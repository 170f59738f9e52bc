//! Rejections in words: what stands against an image, with both sides and with names for masks.

use core::fmt;

use crate::component::ComponentSet;
use crate::validate::Rejection;

impl Rejection {
    /// The reason in words, without the rule's name.
    pub const fn words(&self) -> impl fmt::Display + '_ {
        Words(self)
    }
}

/// The rule's name and the words for it: `xstate-mask-host: tilecfg tiledata not
/// offered here`.
impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule(), self.words())
    }
}

impl core::error::Error for Rejection {}

struct Words<'a>(&'a Rejection);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use Rejection as R;
        // What of the first mask the second lacks.
        let beyond = |seen: &u64, allowed: &u64| ComponentSet::from_bits_retain(seen & !allowed);
        let missing = |seen: &u64, least: &u64| ComponentSet::from_bits_retain(least & !seen);
        match self.0 {
            R::TooShort(seen, least) => write!(f, "{seen} bytes, {least} are the least"),
            R::Xsave(1, _) => f.write_str("its guest has XSAVE, the vCPU's policy has not"),
            R::Xsave(..) => f.write_str("its guest has no XSAVE, the vCPU's policy has"),
            R::MaskLegacy(seen) => write!(f, "its policy lacks {}", missing(seen, &3)),
            R::MaskGroup(seen, whole) => {
                let part = beyond(seen, whole);
                write!(f, "its policy has {part} without the rest of the group")
            }
            R::MaskPolicy(seen, allowed) => {
                write!(f, "{} not in the vCPU's policy", beyond(seen, allowed))
            }
            R::MaskHost(seen, allowed) => write!(f, "{} not offered here", beyond(seen, allowed)),
            R::MaskDirectory(seen, allowed) => {
                let lacks = beyond(seen, allowed);
                write!(f, "its directory does not describe {lacks}")
            }
            R::Layout(difference) => difference.fmt(f),
            R::Xcr0(error) => written(f, "XCR0", error.seen(), error.allowed()),
            R::Xss(error) => written(f, "IA32_XSS", error.seen(), error.allowed()),
            R::Xfd(error) => written(f, "IA32_XFD", error.seen(), error.allowed()),
            R::XfdErr(error) => written(f, "IA32_XFD_ERR", error.seen(), error.allowed()),
            R::AccumPolicy(seen, allowed) => {
                let more = beyond(seen, allowed);
                write!(f, "{more} may hold state and is not in its policy")
            }
            R::AccumEnabled(seen, least) => {
                let less = missing(seen, least);
                write!(f, "{less} is enabled and said to hold no state")
            }
            R::XcompBvClaim(seen, claimed) => {
                write!(f, "XCOMP_BV {seen:#x} in the image, {claimed:#x} beside it")
            }
            R::XcompBvBit63(seen) => write!(f, "XCOMP_BV {seen:#x}: the image is not compacted"),
            R::XcompBvPolicy(seen, allowed) => {
                let more = beyond(seen, allowed);
                write!(f, "room for {more}, which its policy lacks")
            }
            R::Length(seen, exact) => write!(f, "{seen} bytes, its layout makes it {exact}"),
            R::HeaderReserved(seen) => write!(f, "{seen:#x} in reserved bytes of the header"),
            R::XstateBvXcompBv(seen, allowed) => {
                write!(
                    f,
                    "XSTATE_BV has {}, XCOMP_BV has not",
                    beyond(seen, allowed)
                )
            }
            R::XstateBvAccum(seen, allowed) => {
                let more = beyond(seen, allowed);
                write!(f, "XSTATE_BV has {more}, which was said to hold no state")
            }
            R::XstateBvXfd(seen, allowed) => {
                let more = beyond(seen, allowed);
                write!(f, "XSTATE_BV has {more}, which IA32_XFD disables")
            }
            R::Mxcsr(seen, allowed) => written(f, "MXCSR", *seen, *allowed),
            R::Address(component, seen, _) => {
                write!(
                    f,
                    "{component} holds {seen:#x}, which is not canonical here"
                )
            }
            R::Reserved(component, seen, allowed) => {
                let more = seen & !allowed;
                write!(
                    f,
                    "{component} holds {seen:#x}, of which {more:#x} is reserved here"
                )
            }
            R::CetTracker(seen, _) => {
                write!(f, "IA32_U_CET {seen:#x} both tracks and suppresses")
            }
            R::LbrDepth(seen, largest) => {
                write!(
                    f,
                    "{seen} branch records; multiples of 8 up to {largest} are"
                )
            }
            R::TileConfig(seen, largest) => {
                write!(
                    f,
                    "a field of the tile configuration is {seen}, at most {largest}"
                )
            }
        }
    }
}

/// A register's value, and what a guest could have written to it: without some
/// bits, or with more.
fn written(f: &mut fmt::Formatter<'_>, register: &str, seen: u64, allowed: u64) -> fmt::Result {
    match seen & !allowed {
        0 => write!(f, "{register} {seen:#x} lacks {:#x}", allowed & !seen),
        more => write!(
            f,
            "{register} {seen:#x}, of which {more:#x} cannot be set here"
        ),
    }
}
