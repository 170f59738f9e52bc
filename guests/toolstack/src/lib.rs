//! The toolstack domain: a small shell that builds, moves and inspects guests.
//!
//! ```text
//!  console ──> shell (line, parse) ──> commands ──> hypervisor (control calls)
//!                                         │
//!                               build <──┼──> migrate (source, receiver, settle)
//!                                         │         │
//!                                      report     link (wire, COM2) ──> the other host
//! ```
//!
//! It reports and carries messages; who may run a domain is the hypervisor's
//! to say, and nothing here decides it. All logic runs on the host too: the
//! hypervisor and the link are traits, and the tests stand in for both.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod build;
pub mod commands;
pub mod error;
pub mod hypervisor;
pub mod ids;
pub mod link;
pub mod migrate;
pub mod native;
pub mod policy;
pub mod report;
pub mod shell;
#[cfg(test)]
mod testing;

pub use error::{Code, Error};
pub use hypervisor::{Data, Hypervisor};
