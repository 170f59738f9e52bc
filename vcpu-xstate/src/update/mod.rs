//! Updating one component of a state, wherever it lives: begin, edit its bytes, finish.
//!
//! A component is in the registers of this processor, in the vCPU's area, or
//! nowhere, because it is INIT. Who wants to change it does not care:
//!
//! ```text
//!   begin ──> the component's bytes, its INIT value filled in ──> finish
//!     │         (a working copy: nothing has changed yet)           │
//!     └─ room is taken here, where it has none                      └─ judged, written, marked
//! ```
//!
//! - [`VcpuXstate::begin_update`](crate::VcpuXstate::begin_update) for a vCPU: by RDPKRU and WRPKRU, or the
//!   component's MSRs, while it is in registers and has such instructions;
//!   through its area otherwise.
//! - [`begin_image`] for a plain buffer with an image, of either form.
//! - [`VcpuXstate::begin_view`](crate::VcpuXstate::begin_view) and [`begin_image_view`] for typed access
//!   ([`crate::views`]) to either.
//!
//! A guard that is dropped has changed nothing. One that is finished has made
//! the component what the bytes say, or has changed nothing and names the rule
//! that they break: so a restore still cannot fault.
//!
//! **The bytes** are those that the manuals define, as XSAVE stores them
//! (reserved tails left off), but for the two components of the legacy region:
//!
//! | Component | Bytes |
//! |---|---|
//! | x87 | 160: the start of the legacy region; 24 to 31, which are MXCSR's, read zero and are ignored |
//! | SSE | 260: XMM0–15 (256), then MXCSR (4) |

mod bytes;
mod image;
mod vcpu;

use core::fmt;
use core::ops::{Deref, DerefMut};

use crate::area::OutOfMemory;
use crate::component::{ComponentIndex, ComponentSet};
use crate::error::broken_accessors;
use crate::validate::named;
use crate::values::BadValue;
use crate::views::View;

pub use image::{ImageUpdate, begin_image, begin_image_view};
pub use vcpu::VcpuUpdate;

/// Why a component is not updated. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateError {
    /// The vCPU's policy, or the machine of a plain image, lacks the component.
    Policy(ComponentIndex, ComponentSet),
    /// The guest's IA32_XFD disables the component: no image has it.
    Xfd(ComponentIndex, ComponentSet),
    /// The bytes of a plain image are none of that form and machine: seen,
    /// allowed. Lengths in bytes where they are too few; else XCOMP_BV where it
    /// is of the other form; else the components of the header, and those that
    /// it may have.
    Image(u64, u64),
    /// A plain image has no room: its XCOMP_BV lacks the component, or it ends
    /// before it. Carries what has room. (Convert it to a layout that has.)
    Room(ComponentIndex, ComponentSet),
    /// A restore would refuse the contents.
    Value(ComponentIndex, BadValue),
    /// There is no memory for the room that it needs.
    NeedsMemory(OutOfMemory),
}

broken_accessors!(UpdateError,
    Self::Policy(c, mask) => ("update-policy", 0xb01, c.bit(), mask.bits()),
    Self::Xfd(c, enabled) => ("update-xfd", 0xb02, c.bit(), enabled.bits()),
    Self::Image(seen, allowed) => ("update-image", 0xb03, seen, allowed),
    Self::Room(c, room) => ("update-room", 0xb04, c.bit(), room.bits()),
    Self::Value(_, bad) => (bad.rule(), bad.code(), bad.seen(), bad.allowed()),
    Self::NeedsMemory(e) => (OutOfMemory::RULE, OutOfMemory::CODE, e.bytes as u64, 0),
);

/// The rule's name and the words for it: `update-room: no room for cet_u, there is
/// room for x87 sse avx`.
impl fmt::Display for UpdateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.rule())?;
        match self {
            Self::Policy(c, _) => write!(f, "{c} is not in the policy"),
            Self::Xfd(c, _) => write!(f, "IA32_XFD disables {c}"),
            Self::Image(seen, allowed) => write!(
                f,
                "no image of this form and machine: {seen:#x} seen, {allowed:#x} allowed"
            ),
            Self::Room(c, room) => write!(f, "no room for {c}, there is room for {room}"),
            Self::Value(c, bad) => write!(f, "{}", named(*c, *bad).words()),
            Self::NeedsMemory(memory) => write!(f, "{} bytes are missing", memory.bytes),
        }
    }
}

impl core::error::Error for UpdateError {}

/// A component that is being updated.
pub trait Update: Sized {
    /// Which.
    fn component(&self) -> ComponentIndex;

    /// Its bytes as they will be.
    fn bytes(&self) -> &[u8];

    /// Its bytes, to edit.
    fn bytes_mut(&mut self) -> &mut [u8];

    /// Makes the component what its bytes say.
    ///
    /// # Errors
    /// The bytes break a rule; nothing has changed.
    fn finish(self) -> Result<(), UpdateError>;
}

/// An update through a typed view, which it dereferences to.
#[derive(Debug)]
#[must_use = "without `finish` nothing changes"]
pub struct Viewed<V, U> {
    value: V,
    update: U,
}

impl<V: View, U: Update> Viewed<V, U> {
    /// `update` is of the view's component.
    fn new(update: U) -> Self {
        Self {
            value: V::read(update.bytes()),
            update,
        }
    }

    /// Makes the component what the view says.
    ///
    /// # Errors
    /// The value breaks a rule; nothing has changed.
    pub fn finish(mut self) -> Result<(), UpdateError> {
        self.value.write(self.update.bytes_mut());
        self.update.finish()
    }
}

impl<V, U> Deref for Viewed<V, U> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.value
    }
}

impl<V, U> DerefMut for Viewed<V, U> {
    fn deref_mut(&mut self) -> &mut V {
        &mut self.value
    }
}
