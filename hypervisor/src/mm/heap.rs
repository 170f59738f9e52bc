//! The hypervisor's heap: one fixed region of frames.
//!
//! Fixed, so that what guests cause to be allocated cannot take the machine:
//! whoever allocates on a guest's behalf uses the `try_` functions of `alloc`
//! and answers for the failure.
#![allow(unsafe_code)] // the global allocator

use super::addr::{HostPhys, PAGE_BYTES};
use super::frames::{self, OutOfFrames, Owner};
use crate::cpu::irq::IrqMutex;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use linked_list_allocator::Heap;

/// Bytes of the heap.
pub const HEAP_BYTES: u64 = 16 << 20;

/// The allocator behind `alloc` on bare metal.
pub struct KernelHeap(IrqMutex<Heap>);

#[cfg_attr(target_os = "none", global_allocator)]
static HEAP: KernelHeap = KernelHeap(IrqMutex::new(Heap::empty()));

/// How full the heap is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeapUse {
    /// Bytes in all.
    pub size_bytes: usize,
    /// Bytes allocated.
    pub used_bytes: usize,
}

/// Takes the heap's frames. Before this every allocation fails.
///
/// # Safety
/// Called once.
pub unsafe fn init() -> Result<(), OutOfFrames> {
    let bytes = HEAP_BYTES as usize;
    let first: HostPhys = frames::allocate_contiguous(Owner::HEAP, bytes / PAGE_BYTES as usize, 1)?;
    // SAFETY: the frames are the heap's alone and never freed, mapped, and by
    // contract this is the first call.
    unsafe { HEAP.0.lock().init(first.as_mut_ptr(), bytes) };
    Ok(())
}

/// Gives the hypervisor of the tests a heap, which nobody uses: what they
/// allocate comes from the development machine's.
#[cfg(test)]
pub(crate) fn stand_in() {
    let mut heap = HEAP.0.lock();
    if heap.size() == 0 {
        let bytes = std::vec![core::mem::MaybeUninit::uninit(); 1 << 20];
        heap.init_from_slice(bytes.leak());
    }
}

/// How full the heap is.
pub fn usage() -> HeapUse {
    let heap = HEAP.0.lock();
    HeapUse {
        size_bytes: heap.size(),
        used_bytes: heap.used(),
    }
}

// SAFETY: a linked list of holes under a lock: what `allocate_first_fit` gives
// is a hole of that layout, unique until `deallocate`. It does not unwind.
unsafe impl GlobalAlloc for KernelHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0
            .lock()
            .allocate_first_fit(layout)
            .map_or(core::ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if let Some(pointer) = NonNull::new(pointer) {
            // SAFETY: by GlobalAlloc's contract `pointer` came from `alloc`
            // above with this layout.
            unsafe { self.0.lock().deallocate(pointer, layout) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::MaybeUninit;

    #[test]
    fn without_room_the_answer_is_null_and_freed_memory_comes_back() {
        let heap = KernelHeap(IrqMutex::new(Heap::empty()));
        let layout = Layout::from_size_align(3000, 64).unwrap();
        // SAFETY: a valid layout of non-zero size.
        assert!(unsafe { heap.alloc(layout) }.is_null());
        heap.0
            .lock()
            .init_from_slice(std::vec![MaybeUninit::uninit(); 4096].leak());
        // SAFETY: as above; the second asks for more than is left, the first is
        // given back once with its own layout.
        unsafe {
            let first = heap.alloc(layout);
            assert!(!first.is_null() && first.addr().is_multiple_of(64));
            assert!(heap.alloc(layout).is_null());
            heap.dealloc(first, layout);
            assert!(!heap.alloc(layout).is_null());
        }
    }
}
