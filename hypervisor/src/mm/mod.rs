//! Memory of the machine: who owns each frame, how the hypervisor's own
//! addresses are mapped, and its heap.
//!
//! ```text
//!   memory map ──► frames  (one owner per 4 KiB frame, counted)
//!                    ├──► paging   own tables: identity map, W^X, guard pages
//!                    ├──► heap     a fixed region for the hypervisor's objects
//!                    └──► domains  guest memory, VMCBs, nested tables
//! ```
//!
//! Everything is identity-mapped: a host-physical address is its pointer.

pub mod addr;
pub mod frames;
pub mod heap;
pub mod paging;

pub use addr::{GuestPhys, HostPhys, PAGE_BYTES, PhysRange};
