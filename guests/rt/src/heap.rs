//! A heap for guests that want `alloc`.
//!
//! ```text
//! #[global_allocator]
//! static HEAP: guest_rt::heap::Heap = guest_rt::heap::Heap::new();
//! // in the entry function, before the first allocation:
//! // SAFETY: nothing else uses free memory.
//! unsafe { HEAP.init(boot.free_memory()) };
//! ```
#![allow(unsafe_code)] // GlobalAlloc

use crate::cpu;
use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ops::Range;
use core::ptr::{NonNull, null_mut};

/// A first-fit heap of a guest with one vCPU. Interrupt handlers may use it.
pub struct Heap {
    inner: UnsafeCell<linked_list_allocator::Heap>,
}

// SAFETY: a guest of this runtime has one vCPU, and `with` keeps interrupts out
// while the heap is borrowed, so no two borrows exist at once.
unsafe impl Sync for Heap {}

impl Heap {
    /// A heap without memory: every allocation fails.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            inner: UnsafeCell::new(linked_list_allocator::Heap::empty()),
        }
    }

    /// Gives it the memory at `range`. Takes effect once; later calls are
    /// ignored.
    ///
    /// # Safety
    /// The range must be mapped, and nobody else's from now on.
    pub unsafe fn init(&self, range: Range<u64>) {
        self.with(|heap| {
            if heap.size() == 0 && range.end > range.start {
                let bytes = (range.end - range.start) as usize;
                // SAFETY: the caller gives the memory away; the heap had none.
                unsafe { heap.init(range.start as *mut u8, bytes) }
            }
        });
    }

    /// Bytes given to it, and how many of them are free.
    #[must_use]
    pub fn usage(&self) -> (usize, usize) {
        self.with(|heap| (heap.size(), heap.free()))
    }

    fn with<R>(&self, f: impl FnOnce(&mut linked_list_allocator::Heap) -> R) -> R {
        // SAFETY: see `Sync`; `f` cannot reach this heap another way.
        cpu::without_interrupts(|| f(unsafe { &mut *self.inner.get() }))
    }
}

impl Default for Heap {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: blocks come from linked_list_allocator, which keeps to the layout,
// never hands out memory twice, and is borrowed by one caller at a time.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.with(|heap| {
            heap.allocate_first_fit(layout)
                .map_or(null_mut(), NonNull::as_ptr)
        })
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(block) = NonNull::new(block) else {
            return;
        };
        // SAFETY: by GlobalAlloc's contract the block is of this heap and layout.
        self.with(|heap| unsafe { heap.deallocate(block, layout) });
    }
}
