//! The memory of the scenes: given once, never taken back, and never asked for while anything is measured.
#![allow(unsafe_code)] // the traits of allocators are unsafe

use alloc::vec;
use alloc::vec::Vec;
use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicUsize, Ordering};

use vcpu_xstate::{AreaMemory, Block};

/// Enough for every scene.
const HEAP_BYTES: usize = 4 << 20;

#[repr(C, align(4096))]
struct Heap {
    bytes: UnsafeCell<[u8; HEAP_BYTES]>,
    used: AtomicUsize,
}

// SAFETY: each byte is given to one caller, by the atomic addition in `alloc`.
unsafe impl Sync for Heap {}

#[global_allocator]
static HEAP: Heap = Heap {
    bytes: UnsafeCell::new([0; HEAP_BYTES]),
    used: AtomicUsize::new(0),
};

// SAFETY: `alloc` gives disjoint ranges within the static, aligned as asked,
// since the static itself is aligned to a page and no scene asks for more.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let take = |used: usize| {
            let start = used.checked_next_multiple_of(layout.align())?;
            let end = start.checked_add(layout.size())?;
            (end <= HEAP_BYTES).then_some(end)
        };
        let taken = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        match taken {
            Ok(used) => self
                .bytes
                .get()
                .cast::<u8>()
                .wrapping_add(used.next_multiple_of(layout.align())),
            Err(_) => core::ptr::null_mut(),
        }
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

/// Areas from that heap.
pub struct AreaHeap;

impl AreaMemory for AreaHeap {
    fn allocate(&mut self, blocks: usize) -> Option<Vec<Block>> {
        Some(vec![Block::ZERO; blocks])
    }

    fn release(&mut self, blocks: Vec<Block>) {
        drop(blocks);
    }
}
