//! Why a component that a machine lists is not offered to guests, one reason each.

use core::fmt;

use crate::component::{ComponentIndex, ComponentSet};
use crate::cpuid::CpuidResult;
use crate::layout::{ComponentFacts, GeometryError};

/// Why a component that a machine lists is not offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withheld {
    /// Its subleaf of leaf 0xD is empty.
    Undescribed,
    /// Its subleaf calls it supervisor state (true) and XCR0's mask lists it,
    /// or the other way round.
    Kind(bool),
    /// Its size or place is one that no machine can have.
    Layout(GeometryError),
    /// It is smaller than its registers: bytes claimed, bytes needed.
    Small(u32, u32),
    /// The feature that it is for is missing (a PKRU component without PKU).
    Featureless,
    /// State of the physical machine, or gone from every later one.
    Never,
    /// It waits for a permission; see [`HostXstate::permit`](crate::HostXstate::permit).
    Permission,
    /// It did not survive a restore and a save.
    RoundTrip,
    /// XCR0 can hold it only in this company, part of which is missing.
    Group(ComponentSet),
    /// XCR0 cannot hold it beside this component, which is offered.
    Beside(ComponentIndex),
}

impl fmt::Display for Withheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Undescribed => f.write_str("listed, but its subleaf is empty"),
            Self::Kind(true) => f.write_str("listed for XCR0, described as supervisor state"),
            Self::Kind(false) => f.write_str("listed for IA32_XSS, described as user state"),
            Self::Layout(error) => write!(f, "no machine can lay it out so ({error})"),
            Self::Small(claimed, needed) => {
                write!(f, "{claimed} bytes claimed, its registers take {needed}")
            }
            Self::Featureless => f.write_str("listed, but its feature bit is clear"),
            Self::Never => f.write_str("never offered"),
            Self::Permission => f.write_str("not permitted on this host"),
            Self::RoundTrip => f.write_str("does not survive a restore and a save"),
            Self::Group(group) => write!(f, "part of the group {group} is missing"),
            Self::Beside(other) => {
                write!(f, "XCR0 cannot hold it beside {other}, which is offered")
            }
        }
    }
}

/// What the subleaf of leaf 0xD says of a component that is listed for XCR0, or
/// as `supervisor` for IA32_XSS; or why that cannot be believed.
pub(crate) fn describe(
    leaf: &CpuidResult,
    supervisor: bool,
    has_xfd: bool,
) -> Result<ComponentFacts, Withheld> {
    if *leaf == CpuidResult::default() {
        return Err(Withheld::Undescribed);
    }
    let facts = ComponentFacts {
        size_bytes: leaf.eax,
        // Reserved where there is none.
        standard_offset: if leaf.ecx & 1 == 0 { leaf.ebx } else { 0 },
        supervisor: leaf.ecx & 1 != 0,
        aligned64: leaf.ecx & 2 != 0,
        xfd: has_xfd && leaf.ecx & 4 != 0,
    };
    if facts.supervisor != supervisor {
        return Err(Withheld::Kind(facts.supervisor));
    }
    Ok(facts)
}

/// The company in which alone XCR0 can hold `component`, itself included.
pub(crate) const fn company(component: ComponentIndex) -> ComponentSet {
    const SSE_AVX: ComponentSet = ComponentSet::from_bits_retain(0x6);
    let only = ComponentSet::only(component);
    if ComponentSet::AVX512.intersects(only) {
        ComponentSet::AVX512.union(SSE_AVX)
    } else if ComponentSet::MPX.intersects(only) {
        ComponentSet::MPX
    } else if ComponentSet::AMX.intersects(only) {
        ComponentSet::AMX
    } else {
        SSE_AVX
    }
}
