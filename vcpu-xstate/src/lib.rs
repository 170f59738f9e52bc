//! Extended state of virtual CPUs: everything that the XSAVE family saves.
//!
//! The crate knows what a machine has ([`cpuid`]), where each component lies
//! in an image ([`layout`]), what a guest may enable ([`xcr0`], [`xss`],
//! [`xfd`]), how large a vCPU's image must be ([`masks`], [`area`]), how one
//! form becomes another ([`convert`]), what of an image from elsewhere may be
//! believed ([`validate`]), and who owns a vCPU's state at any moment
//! ([`owner`]). It executes nothing: [`hw`] alone holds the instructions, and
//! every query of the processor is injected, so all of it runs and is tested
//! on any host.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod component;
pub mod cpuid;
pub mod error;
pub mod layout;
pub mod masks;
#[cfg(test)]
mod testing;
pub mod xcr0;
pub mod xfd;
pub mod xss;

pub use component::{ComponentIndex, ComponentSet};
pub use cpuid::{CpuidResult, HostXstate};
pub use error::Broken;
pub use layout::{ComponentFacts, Form, Geometry, Placement};
pub use masks::XstatePolicy;
pub use xcr0::Xcr0;
pub use xfd::Xfd;
pub use xss::Xss;
