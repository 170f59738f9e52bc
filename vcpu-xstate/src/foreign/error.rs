//! Why a foreign image is refused, and what a foreign form cannot hold.

use core::fmt;

use super::read::OFFSET;
use crate::component::{ComponentIndex, ComponentSet};
use crate::error::broken_accessors;
use crate::validate::Rejection;

/// Why an image is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignError {
    /// The interface has standard images alone; carries XCOMP_BV.
    Compacted(u64),
    /// XSTATE_BV exceeds the vCPU's policy, or has bit 63: seen, allowed.
    Beyond(u64, u64),
    /// A supervisor component is said to be held by a standard image, where it
    /// has no place: which, XSTATE_BV.
    Supervisor(ComponentIndex, u64),
    /// The layout has a component of unknown size, so that the image's length
    /// cannot be judged: which, the known components.
    Unplaced(ComponentIndex, u64),
    /// The image ends before a component that it holds does (a buffer of 4096
    /// bytes with AMX in it): which, length, least.
    Truncated(ComponentIndex, u64, u64),
    /// What follows the image is not zero: offset of the first such byte,
    /// length of the image.
    Tail(u64, u64),
    /// IA32_XSS enables supervisor state that a standard image has no place for,
    /// and the caller does not say that it is elsewhere: enabled, elsewhere.
    Xss(u64, u64),
    /// FIP or FDP has a selector in its upper half, as byte 511 says (Xen): FIP, FDP.
    Selectors(u64, u64),
    /// It breaks a rule that every image is under.
    Rejected(Rejection),
}

broken_accessors!(ForeignError,
    Self::Compacted(seen) => ("foreign-compacted", 0x1701, seen, 0),
    Self::Beyond(seen, allowed) => ("foreign-policy", 0x1702, seen, allowed),
    Self::Supervisor(c, seen) => ("foreign-supervisor", 0x1703, seen, seen & !c.bit()),
    Self::Unplaced(c, known) => ("foreign-unplaced", 0x1704, c.bit(), known),
    Self::Truncated(_, seen, least) => ("foreign-truncated", 0x1705, seen, least),
    Self::Tail(seen, allowed) => ("foreign-tail", 0x1706, seen, allowed),
    Self::Xss(seen, elsewhere) => ("foreign-xss", 0x1707, seen, elsewhere),
    Self::Selectors(fip, fdp) => ("foreign-fp-selectors", 0x1708, selected(fip, fdp), OFFSET),
    Self::Rejected(e) => (e.rule(), e.code(), e.seen(), e.allowed()),
);

/// The pointer that has a selector in it, the first of the two.
const fn selected(fip: u64, fdp: u64) -> u64 {
    if fip > OFFSET { fip } else { fdp }
}

impl ForeignError {
    /// The component that it is about, where it is about one.
    pub const fn component(&self) -> Option<ComponentIndex> {
        match *self {
            Self::Supervisor(c, _) | Self::Unplaced(c, _) | Self::Truncated(c, ..) => Some(c),
            Self::Compacted(_)
            | Self::Beyond(..)
            | Self::Tail(..)
            | Self::Xss(..)
            | Self::Selectors(..)
            | Self::Rejected(_) => None,
        }
    }
}

/// The rule's name and the words for it: `foreign-truncated: tiledata ends at
/// 11008, the bytes at 4096`.
impl fmt::Display for ForeignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.rule())?;
        match self {
            Self::Compacted(seen) => {
                write!(
                    f,
                    "compacted (XCOMP_BV {seen:#x}), where images are standard"
                )
            }
            Self::Beyond(seen, allowed) => {
                let beyond = ComponentSet::from_bits_retain(seen & !allowed);
                write!(f, "XSTATE_BV has {beyond}, the policy has not")
            }
            Self::Supervisor(c, _) => {
                write!(
                    f,
                    "a standard image has no place for {c}, which is supervisor state"
                )
            }
            Self::Unplaced(c, _) => write!(f, "the size of {c} is not known here"),
            Self::Truncated(c, len, end) => write!(f, "{c} ends at {end}, the bytes at {len}"),
            Self::Tail(at, exact) => {
                write!(f, "byte {at} is not zero, and the image ended at {exact}")
            }
            Self::Xss(seen, elsewhere) => {
                let missing = ComponentSet::from_bits_retain(seen & !elsewhere);
                write!(
                    f,
                    "IA32_XSS has {missing}, for which a standard image has no place"
                )
            }
            Self::Selectors(fip, fdp) => write!(
                f,
                "as byte 511 says, FCS is {:#x}, FIP {:#x}, FDS {:#x} and FDP {:#x}",
                fip >> 32 & 0xffff,
                fip & OFFSET,
                fdp >> 32 & 0xffff,
                fdp & OFFSET,
            ),
            Self::Rejected(Rejection::Length(seen, exact)) => {
                write!(f, "{seen} bytes, what it may hold makes it {exact}")
            }
            Self::Rejected(rejection) => write!(f, "{}", rejection.words()),
        }
    }
}

impl core::error::Error for ForeignError {}

impl From<Rejection> for ForeignError {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

/// What a form cannot hold of a vCPU's state. Nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unholdable {
    /// A supervisor component is in use: a standard image has no place for it.
    Supervisor(ComponentIndex),
    /// A component in use ends beyond the buffer: which, length, least.
    NoRoom(ComponentIndex, u64, u64),
    /// The buffer is smaller than the form: length, least.
    TooSmall(u64, u64),
    /// IA32_XSS is not zero, and nothing carries it there.
    Xss(u64),
    /// IA32_XFD is not zero, and nothing carries it there.
    Xfd(u64),
    /// IA32_XFD_ERR is not zero, and nothing carries it there.
    XfdErr(u64),
    /// XCR0 is not 1, and nothing carries it there.
    Xcr0(u64),
    /// The guest has no XSAVE, so the form has no record for it: x87 and SSE
    /// go where FXSAVE's do.
    WithoutXsave,
}

broken_accessors!(Unholdable,
    Self::Supervisor(c) => ("unholdable-supervisor", 0x1801, c.bit(), 0),
    Self::NoRoom(_, given, least) => ("unholdable-room", 0x1802, given, least),
    Self::TooSmall(given, least) => ("unholdable-buffer", 0x1803, given, least),
    Self::Xss(seen) => ("unholdable-xss", 0x1804, seen, 0),
    Self::Xfd(seen) => ("unholdable-xfd", 0x1805, seen, 0),
    Self::XfdErr(seen) => ("unholdable-xfd-err", 0x1806, seen, 0),
    Self::WithoutXsave => ("unholdable-without-xsave", 0x1807, 0, 1),
    Self::Xcr0(seen) => ("unholdable-xcr0", 0x1808, seen, 1),
);

impl Unholdable {
    /// The component that it is about, where it is about one.
    pub const fn component(&self) -> Option<ComponentIndex> {
        match *self {
            Self::Supervisor(c) | Self::NoRoom(c, ..) => Some(c),
            Self::TooSmall(..)
            | Self::Xcr0(_)
            | Self::Xss(_)
            | Self::Xfd(_)
            | Self::XfdErr(_)
            | Self::WithoutXsave => None,
        }
    }
}

/// The rule's name and the words for it.
impl fmt::Display for Unholdable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.rule())?;
        match self {
            Self::Supervisor(c) => {
                write!(f, "{c} is in use, a standard image has no place for it")
            }
            Self::NoRoom(c, given, end) => {
                write!(f, "{c} is in use and ends at {end}, the buffer at {given}")
            }
            Self::TooSmall(given, least) => {
                write!(f, "a buffer of {given} bytes, the image takes {least}")
            }
            Self::Xcr0(seen) => write!(f, "nothing carries XCR0, which is {seen:#x}"),
            Self::Xss(seen) => write!(f, "nothing carries IA32_XSS, which is {seen:#x}"),
            Self::Xfd(seen) => write!(f, "nothing carries IA32_XFD, which is {seen:#x}"),
            Self::XfdErr(seen) => write!(f, "nothing carries IA32_XFD_ERR, which is {seen:#x}"),
            Self::WithoutXsave => {
                f.write_str("the guest has no XSAVE: x87 and SSE go where FXSAVE's do")
            }
        }
    }
}

impl core::error::Error for Unholdable {}
