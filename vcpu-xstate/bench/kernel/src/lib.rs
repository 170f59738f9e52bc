//! What the benches measure, compiled for bare metal as the hypervisor is: no vector registers, its own memcpy.
//!
//! A program of this machine links it as one object of which only the
//! functions of `entry` are visible. On any other target it is empty.
#![cfg_attr(target_os = "none", no_std)]

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod entry;
#[cfg(target_os = "none")]
mod heap;
#[cfg(target_os = "none")]
mod machine;
#[cfg(target_os = "none")]
mod scene;
#[cfg(target_os = "none")]
mod switch;
