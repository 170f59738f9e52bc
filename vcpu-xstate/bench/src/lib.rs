//! Times what `vcpu-xstate` does, as code without vector registers, against a plain copy.
//!
//! The measured code is not this crate's dependency: it is compiled for bare
//! metal, as the hypervisor is, and linked in as one object (`build.rs`), with
//! its own memcpy. [`kernel`] is its interface, [`measure`] the clock, and
//! [`rows`] the table of what is asked. [`mod@switch`] times a switch of vCPUs,
//! and counts its instructions ([`steps`]).

pub mod kernel;
pub mod measure;
mod recorded;
pub mod rows;
pub mod steps;
pub mod switch;
