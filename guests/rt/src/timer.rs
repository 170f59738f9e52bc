//! The one-shot timer event.
#![allow(unsafe_code)] // hypercall

use crate::hypercall;
use xferry_abi::{Call, error::Failure};

/// Asks for [`xferry_abi::Event::Timer`] at guest system time `deadline_ns`, in
/// place of any earlier request. A deadline in the past is due at once.
///
/// # Errors
/// What the hypervisor answered.
pub fn set(deadline_ns: u64) -> Result<(), Failure> {
    // SAFETY: takes no address.
    unsafe { hypercall::call(Call::SetTimer as u64, [deadline_ns, 0, 0, 0, 0]) }.map(drop)
}

/// Takes the request back.
///
/// # Errors
/// What the hypervisor answered.
pub fn cancel() -> Result<(), Failure> {
    set(u64::MAX)
}
