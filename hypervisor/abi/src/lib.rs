//! The hypercall interface of Xferry, shared by the hypervisor and its guests.
//!
//! A guest puts a [`Call`] number in RAX, arguments in RDI, RSI, RDX, R10 and
//! R8, and executes VMMCALL or VMCALL (either vendor's works on either
//! machine). RAX comes back as a value ≥ 0 or a negated [`Errno`]; RDX, RSI and
//! RDI come back as the [`Reason`] code, what was seen and what was allowed
//! (all zero on success). No other register changes.
//!
//! Every pointer is guest-physical and is copied from once, before anything is
//! checked. The calls of [`Call`] are for every guest, except
//! [`Call::Control`], which the privileged toolstack domain alone may use:
//! others get [`Errno::EPERM`] and learn nothing.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod buffer;
pub mod call;
pub mod clock;
pub mod control;
pub mod error;
pub mod info;
pub mod policy;
pub mod right;

pub use buffer::Buffer;
pub use call::{Call, ConsoleDirection, Event, ShutdownReason};
pub use clock::ClockPage;
pub use control::{Control, DomainId, Request};
pub use error::{Errno, Failure, Reason};
pub use right::{RightAction, RightAnswer};

/// Version of the guest calls: major in the upper 16 bits, minor in the lower.
/// A minor step adds calls; a major step changes one.
pub const CALLS_VERSION: u32 = 0x0001_0000;

/// Version of the control call. The caller states the version that it was
/// built for, and any other is refused with [`Errno::EINVAL`].
pub const CONTROL_VERSION: u32 = 1;

/// CPUID leaf where a guest finds the hypervisor.
pub const CPUID_BASE: u32 = 0x4000_0000;

/// EBX, ECX, EDX of [`CPUID_BASE`], as bytes.
pub const CPUID_SIGNATURE: [u8; 12] = *b"XferryXferry";

/// Bytes in a page, in every address and count of this interface.
pub const PAGE_BYTES: usize = 4096;
