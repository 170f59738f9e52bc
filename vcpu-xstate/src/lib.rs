//! Extended state of virtual CPUs: everything that the XSAVE family saves.
//!
//! The crate knows what a machine has ([`cpuid`]), where each component lies
//! in an image ([`layout`]), what a guest may enable ([`xcr0`], [`xss`],
//! [`xfd`]), how large a vCPU's image must be ([`masks`], [`area`]), how one
//! form becomes another ([`convert`]), what of an image from elsewhere may be
//! believed ([`mod@validate`]), who owns a vCPU's state at any moment
//! ([`owner`], [`percpu`]), what changes between two of them ([`switch`]), and how one component of it is changed wherever it
//! lives ([`update`], [`views`]). It executes nothing: [`hw`] alone holds the
//! instructions, and every query of the processor is injected, so all of it
//! runs and is tested on any host. [`model`] is a CPU in software, written from
//! the manuals alone, that the rest is tested against.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod area;
mod bytes;
pub mod component;
pub mod convert;
pub mod cpuid;
pub mod error;
pub mod foreign;
pub mod header;
pub mod hw;
pub mod image;
mod judge;
pub mod layout;
pub mod legacy;
pub mod masks;
pub mod model;
mod mutants;
pub mod owner;
pub mod percpu;
pub mod policy;
pub mod resize;
pub mod selftest;
pub mod status;
pub mod switch;
pub mod transit;
pub mod update;
pub mod validate;
pub mod values;
mod vcpu_xfd;
pub mod views;
pub mod withheld;
mod words;
pub mod xcr0;
pub mod xfd;
pub mod xss;

#[cfg(test)]
mod testing;

pub use area::{Area, AreaMemory, Block, OutOfMemory};
pub use component::{ComponentIndex, ComponentSet};
pub use cpuid::{CpuidResult, HostXstate};
pub use error::Broken;
pub use image::Image;
pub use layout::{ComponentFacts, Form, Geometry, Placement};
pub use masks::XstatePolicy;
pub use owner::VcpuXstate;
pub use percpu::{CpuId, PcpuXstate};
pub use validate::{Claims, Rejection, TrustedImage, validate};
pub use xcr0::Xcr0;
pub use xfd::Xfd;
pub use xss::Xss;

/// What the README shows, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
