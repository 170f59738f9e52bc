//! The forms that other hypervisors have for extended state, as bytes: Xen's
//! records, KVM's buffers, raw images.
//!
//! ```text
//!  Xen PV    xcr0 │ xcr0_accum │ standard image
//!  Xen HVM   descriptor │ xfeature_mask │ xcr0 │ xcr0_accum │ standard image │ zeros, in old ones
//!  KVM       standard image, to the buffer's end (4096, or what KVM_CAP_XSAVE2 says) + kvm_xcrs
//!  raw       standard or compacted image
//! ```
//!
//! These forms tell neither sizes nor offsets of components: that is the
//! machine's, so what an image means and whether its length is right is
//! decided with a geometry in hand (`vcpu_xstate::foreign`, for which
//! `xstate` makes the bridge). Here are lengths of what is fixed,
//! type codes, and the rule that an interface for standard images gets one.
//!
//! `docs/src/legacy-formats.md` has the byte tables.

mod area;
pub mod kvm;
#[cfg(feature = "kvm")]
mod kvm_bindings;
pub mod xen;

pub use area::{Area, Form};
