//! The wire formats of Xferry: what a virtual CPU and a domain look like
//! between two machines.
//!
//! ```text
//!  stream   frame ─ HEADER ─ DOMAIN ─ PAGES… ─ CONSOLE ─┬ VCPU_REGISTERS ┬ … ─ END
//!                                                       └ VCPU_XSTATE    ┘
//!  registers         one vCPU's registers, vendor-neutral, 640 bytes
//!  blob              one vCPU's extended state, any host's layout
//!  handover          who may run the domain, and the messages that move the right
//!  legacy            Xen's records, KVM's buffers, raw XSAVE images
//! ```
//!
//! Everything here is bytes and their lengths, magics and checksums. What the
//! bytes mean (may this host take this policy, is this MXCSR legal) is decided
//! by `vcpu-xstate` and the hypervisor. Readers borrow, allocate nothing and
//! cannot panic on any bytes; each stop is a [`ParseError`] that says which rule,
//! where, what was seen and what was allowed.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

#[cfg(target_endian = "big")]
compile_error!(
    "the records are little-endian in memory as on the wire; a big-endian host needs byte-order types here"
);

pub mod blob;
pub mod crc32c;
pub mod error;
pub mod handover;
pub mod legacy;
mod mutants;
pub mod registers;
pub mod stream;
#[cfg(feature = "xstate")]
pub mod xstate;

pub use error::{Allowed, ParseError, Rule};

/// What the README shows, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
