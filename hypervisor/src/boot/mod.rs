//! From the boot loader to a machine that the hypervisor can run on.
//!
//! `boot.S` reaches 64-bit mode, `entry` brings up one thing after the other
//! (console, exceptions, frames, page tables, heap, timers) and gives control
//! to `start` with a plain [`BootInfo`](info::BootInfo): what the loader said,
//! copied, so that nothing later reads the loader's memory.

#[cfg(target_os = "none")]
mod entry;
#[cfg(target_os = "none")]
pub mod image;
pub mod info;
pub mod multiboot;
#[cfg(target_os = "none")]
pub mod selftest;

pub use info::BootInfo;
