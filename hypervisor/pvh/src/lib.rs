//! How a PVH guest is loaded and started: its ELF image, the start info in its
//! memory, and the registers of its first vCPU (Xen's `docs/misc/pvh.pandoc`
//! and public header `arch-x86/hvm/start_info.h`).
//!
//! Pure: bytes in, bytes and registers out. The hypervisor starts the toolstack
//! domain by it, and the toolstack every other one.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod elf;
pub mod error;
pub mod start;
#[cfg(test)]
mod testing;

pub use elf::{Image, Segment};
pub use error::Error;
pub use start::{Module, StartInfo, entry_registers};
