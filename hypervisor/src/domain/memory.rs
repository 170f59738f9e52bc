//! A domain's memory: pages from guest-physical address 0 up, each a frame of
//! its own. The map is made once, so that reading it takes no lock.
#![allow(unsafe_code)] // copies to and from the guest's frames

use super::slots::Slot;
use crate::mm::addr::{GuestPhys, HostPhys, PAGE_BYTES};
use crate::mm::frames::{self, OutOfFrames};
use crate::virt::nested::NestedRoot;
use alloc::vec::Vec;

const PAGE: usize = PAGE_BYTES as usize;

/// The most memory of one domain: 16 GiB.
pub const MAX_PAGES: u64 = 1 << 22;

/// The guest named memory that it does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outside {
    /// First address of the access.
    pub address: u64,
    /// Its length.
    pub bytes: u64,
}

/// Why a domain's memory could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryError {
    /// 0, or more than [`MAX_PAGES`].
    Size,
    /// The machine has no frame left.
    Frames,
    /// The hypervisor's heap has no room for the map.
    Heap,
}

impl From<OutOfFrames> for MemoryError {
    fn from(_: OutOfFrames) -> Self {
        Self::Frames
    }
}

/// A domain's frames and the nested tables that map them.
pub struct GuestMemory {
    frames: Vec<HostPhys>,
    root: NestedRoot,
    /// Frees the frames. None in tests, whose frames are the host's.
    _slot: Option<Slot>,
}

impl GuestMemory {
    /// `pages` zeroed pages under `slot`, mapped.
    ///
    /// # Errors
    /// See [`MemoryError`]; nothing is kept then.
    pub fn new(slot: Slot, pages: u64) -> Result<Self, MemoryError> {
        let owner = slot.owner();
        Self::build(pages, Some(slot), &mut || {
            frames::allocate(owner).map_err(MemoryError::from)
        })
    }

    fn build(
        pages: u64,
        slot: Option<Slot>,
        allocate: &mut impl FnMut() -> Result<HostPhys, MemoryError>,
    ) -> Result<Self, MemoryError> {
        if pages == 0 || pages > MAX_PAGES {
            return Err(MemoryError::Size);
        }
        let count = usize::try_from(pages).map_err(|_| MemoryError::Size)?;
        let mut map = Vec::new();
        map.try_reserve_exact(count)
            .map_err(|_| MemoryError::Heap)?;
        let root = NestedRoot::new(allocate)?;
        for page in 0..pages {
            let frame = allocate()?;
            let guest = GuestPhys::new(page * PAGE_BYTES);
            // SAFETY: frames come from `allocate`, zeroed and the domain's own,
            // and nothing runs on the tables yet; MAX_PAGES is far below 2^48.
            unsafe { root.map(guest, frame, allocate)? };
            map.push(frame);
        }
        Ok(Self {
            frames: map,
            root,
            _slot: slot,
        })
    }

    /// The nested tables.
    #[must_use]
    pub const fn root(&self) -> NestedRoot {
        self.root
    }

    /// Its size.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.frames.len() as u64
    }

    /// Checks that `bytes` bytes from `address` are memory of the domain.
    ///
    /// # Errors
    /// They are not, or not all.
    pub fn check(&self, address: GuestPhys, bytes: u64) -> Result<(), Outside> {
        let size = self.pages() * PAGE_BYTES;
        match address.as_u64().checked_add(bytes) {
            Some(end) if end <= size => Ok(()),
            _ => Err(Outside {
                address: address.as_u64(),
                bytes,
            }),
        }
    }

    /// Copies out of the domain's memory.
    ///
    /// # Errors
    /// Part of it is not memory; nothing was copied.
    pub fn read(&self, address: GuestPhys, into: &mut [u8]) -> Result<(), Outside> {
        self.check(address, into.len() as u64)?;
        let mut rest = into;
        for (pointer, bytes) in self.pieces(address, rest.len()) {
            let (piece, others) = rest.split_at_mut(bytes);
            // SAFETY: `pieces` gives ranges inside one frame of the domain,
            // identity-mapped and kept as long as `self`. The guest may write
            // there meanwhile on another CPU: bytes are copied, nothing is
            // borrowed, and whatever arrives is checked after the copy.
            unsafe { core::ptr::copy_nonoverlapping(pointer, piece.as_mut_ptr(), bytes) };
            rest = others;
        }
        Ok(())
    }

    /// Copies into the domain's memory.
    ///
    /// # Errors
    /// Part of it is not memory; nothing was copied.
    pub fn write(&self, address: GuestPhys, from: &[u8]) -> Result<(), Outside> {
        self.check(address, from.len() as u64)?;
        let mut rest = from;
        for (pointer, bytes) in self.pieces(address, rest.len()) {
            let (piece, others) = rest.split_at(bytes);
            // SAFETY: as in `read`; no Rust reference to guest memory exists.
            unsafe { core::ptr::copy_nonoverlapping(piece.as_ptr(), pointer, bytes) };
            rest = others;
        }
        Ok(())
    }

    /// Copies `bytes` bytes from `source` at `from` to `self` at `to`, without a
    /// buffer in between.
    ///
    /// # Errors
    /// Part of either is not memory; nothing was copied.
    pub fn copy_from(
        &self,
        to: GuestPhys,
        source: &Self,
        from: GuestPhys,
        bytes: u64,
    ) -> Result<(), Outside> {
        self.check(to, bytes)?;
        source.check(from, bytes)?;
        let length = usize::try_from(bytes).map_err(|_| Outside {
            address: to.as_u64(),
            bytes,
        })?;
        let mut done = 0u64;
        for (pointer, piece) in source.pieces(from, length) {
            let here = GuestPhys::new(to.as_u64() + done);
            let mut offset = 0;
            for (target, part) in self.pieces(here, piece) {
                // SAFETY: both ranges lie inside frames of their domains; where
                // both are the same domain they may overlap, hence `copy`.
                unsafe { core::ptr::copy(pointer.add(offset), target, part) };
                offset += part;
            }
            done += piece as u64;
        }
        Ok(())
    }

    /// A little-endian value, as a guest's page-table walk reads it.
    #[must_use]
    pub fn read_u64(&self, address: GuestPhys) -> Option<u64> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes).ok()?;
        Some(u64::from_le_bytes(bytes))
    }

    /// The host's view of a range that was checked, cut at page borders.
    fn pieces(&self, address: GuestPhys, bytes: usize) -> impl Iterator<Item = (*mut u8, usize)> {
        let mut at = address.as_u64();
        let mut left = bytes;
        core::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            let page = usize::try_from(at / PAGE_BYTES).ok()?;
            let offset = (at % PAGE_BYTES) as usize;
            let frame = self.frames.get(page)?;
            let piece = left.min(PAGE - offset);
            at += piece as u64;
            left -= piece;
            let start = frame.checked_add(offset as u64)?;
            Some((start.as_mut_ptr::<u8>(), piece))
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::boxed::Box;
    use std::vec;

    #[repr(align(4096))]
    struct Frame(#[expect(dead_code)] [u8; PAGE]);

    /// Memory of `pages` pages on the host's heap.
    pub(crate) fn memory(pages: u64) -> GuestMemory {
        GuestMemory::build(pages, None, &mut || {
            Ok(HostPhys::of(&raw const *Box::leak(Box::new(Frame(
                [0; PAGE],
            )))))
        })
        .unwrap()
    }

    #[test]
    fn what_was_written_across_pages_is_read_back() {
        let memory = memory(3);
        let text: Vec<u8> = (0..6000u32).map(|i| i as u8).collect();
        memory.write(GuestPhys::new(0xfff), &text).unwrap();
        let mut back = vec![0; 6000];
        memory.read(GuestPhys::new(0xfff), &mut back).unwrap();
        assert_eq!(back, text);
        assert_eq!(
            memory.read_u64(GuestPhys::new(0xfff)),
            Some(0x0706_0504_0302_0100)
        );
    }

    #[test]
    fn an_access_that_leaves_the_memory_copies_nothing() {
        let memory = memory(2);
        for (address, bytes) in [(0x1fff, 2), (0x2000, 1), (u64::MAX, 2), (0, 0x2001)] {
            let bytes = vec![0xee; bytes];
            assert!(
                memory.write(GuestPhys::new(address), &bytes).is_err(),
                "{address:#x}"
            );
        }
        let mut all = vec![0; 0x2000];
        memory.read(GuestPhys::new(0), &mut all).unwrap();
        assert!(all.iter().all(|byte| *byte == 0));
        assert!(memory.check(GuestPhys::new(0x2000), 0).is_ok());
    }

    #[test]
    fn a_copy_between_domains_with_other_offsets() {
        let (a, b) = (memory(3), memory(3));
        let text: Vec<u8> = (0..5000u32).map(|i| (i * 7) as u8).collect();
        a.write(GuestPhys::new(123), &text).unwrap();
        b.copy_from(GuestPhys::new(0xf00), &a, GuestPhys::new(123), 5000)
            .unwrap();
        let mut back = vec![0; 5000];
        b.read(GuestPhys::new(0xf00), &mut back).unwrap();
        assert_eq!(back, text);
        assert!(
            b.copy_from(GuestPhys::new(0x2000), &a, GuestPhys::new(0), 0x1001)
                .is_err()
        );
    }

    #[test]
    fn no_memory_and_too_much_memory_are_refused() {
        for pages in [0, MAX_PAGES + 1] {
            let made = GuestMemory::build(pages, None, &mut || Err(MemoryError::Frames));
            assert_eq!(made.err(), Some(MemoryError::Size));
        }
    }
}
