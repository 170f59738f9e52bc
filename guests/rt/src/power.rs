//! How a guest ends.
#![allow(unsafe_code)] // the reset port of a bare machine

use crate::{cpu, hypercall};
use xferry_abi::ShutdownReason;

/// Ends the guest for `reason`. On a bare machine all reasons are a reset.
pub fn shutdown(reason: ShutdownReason) -> ! {
    hypercall::shutdown(reason);
    // SAFETY: the keyboard controller's "pulse reset"; nothing runs after it.
    unsafe { cpu::outb(0x64, 0xfe) }
    cpu::stop()
}

/// The guest is done.
pub fn off() -> ! {
    shutdown(ShutdownReason::PowerOff)
}

/// The guest found itself broken.
pub fn crash() -> ! {
    shutdown(ShutdownReason::Crash)
}
