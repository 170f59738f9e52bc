//! What no machine's layout can have.

use core::fmt;

use super::{MAX_COMPONENT_BYTES, MAX_STANDARD_END_BYTES, MIN_IMAGE};
use crate::component::ComponentIndex;
use crate::error::broken_accessors;

/// Why facts cannot be part of a geometry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GeometryError {
    /// x87 and SSE have no facts: their layout is the architecture's.
    Legacy(ComponentIndex),
    /// The component has facts already.
    Twice(ComponentIndex),
    /// Size 0 or above [`MAX_COMPONENT_BYTES`].
    Size(ComponentIndex, u32),
    /// A user component that starts within legacy region or header.
    Start(ComponentIndex, u32),
    /// A user component that ends above [`MAX_STANDARD_END_BYTES`].
    End(ComponentIndex, u64),
    /// A supervisor component with an offset in the standard form.
    SupervisorOffset(ComponentIndex, u32),
    /// Two user components share bytes of the standard form.
    Overlap(ComponentIndex, ComponentIndex),
}

broken_accessors!(GeometryError,
    Self::Legacy(c) => ("layout-legacy", 0x101, c.get() as u64, 2),
    Self::Twice(c) => ("layout-twice", 0x102, c.get() as u64, 1),
    Self::Size(_, size) => ("layout-size", 0x103, size as u64, MAX_COMPONENT_BYTES as u64),
    Self::Start(_, offset) => ("layout-start", 0x104, offset as u64, MIN_IMAGE as u64),
    Self::End(_, end) => ("layout-end", 0x105, end, MAX_STANDARD_END_BYTES as u64),
    Self::SupervisorOffset(_, offset) => ("layout-supervisor-offset", 0x106, offset as u64, 0),
    Self::Overlap(a, b) => ("layout-overlap", 0x107, a.get() as u64, b.get() as u64),
);

/// The rule's name and the words for it: `layout-overlap: tilecfg and avx share
/// bytes of the standard form`. Sizes and offsets are decimal.
impl fmt::Display for GeometryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.rule())?;
        match self {
            Self::Legacy(c) => write!(f, "{c} lies where the architecture has it"),
            Self::Twice(c) => write!(f, "{c} is there twice"),
            Self::Size(c, size) => {
                write!(
                    f,
                    "{c} of {size} bytes, 1 to {MAX_COMPONENT_BYTES} are possible"
                )
            }
            Self::Start(c, offset) => {
                write!(f, "{c} at {offset}, the header ends at {MIN_IMAGE}")
            }
            Self::End(c, end) => {
                write!(
                    f,
                    "{c} ends at {end}, none ends behind {MAX_STANDARD_END_BYTES}"
                )
            }
            Self::SupervisorOffset(c, offset) => write!(
                f,
                "{c} at {offset}, and the standard form has no place for supervisor state"
            ),
            Self::Overlap(a, b) => write!(f, "{a} and {b} share bytes of the standard form"),
        }
    }
}

impl core::error::Error for GeometryError {}
