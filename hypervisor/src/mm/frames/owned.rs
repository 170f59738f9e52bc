//! Frames that go back by themselves when their holder is dropped.

use super::{OutOfFrames, Owner, allocate_contiguous, free_contiguous};
use crate::mm::addr::{HostPhys, PAGE_BYTES, PhysRange};

/// Zeroed frames that lie together: for structures that hardware reads.
#[derive(Debug)]
pub struct OwnedFrames {
    owner: Owner,
    first: HostPhys,
    frames: usize,
}

impl OwnedFrames {
    /// Takes `frames` frames, the first at a multiple of `align_frames` frames
    /// (a power of two).
    pub fn allocate(owner: Owner, frames: usize, align_frames: usize) -> Result<Self, OutOfFrames> {
        let first = allocate_contiguous(owner, frames, align_frames)?;
        Ok(Self {
            owner,
            first,
            frames,
        })
    }

    /// Where they are.
    pub fn start(&self) -> HostPhys {
        self.first
    }

    /// How much they are.
    pub fn size_bytes(&self) -> usize {
        self.frames * PAGE_BYTES as usize
    }

    /// All of them.
    pub fn range(&self) -> PhysRange {
        let end = self.first.as_u64() + self.size_bytes() as u64;
        PhysRange::between(self.first, HostPhys::new(end))
    }

    /// The identity-mapped pointer to the first byte.
    pub fn as_mut_ptr<T>(&self) -> *mut T {
        self.first.as_mut_ptr()
    }
}

impl Drop for OwnedFrames {
    fn drop(&mut self) {
        // Only `Owner::free_all` can have taken them away before: then they are
        // not ours to give back, and the table says so.
        if let Err(error) = free_contiguous(self.owner, self.first, self.frames) {
            log::error!("{error}");
        }
    }
}
