//! The frame table: one byte for each 4 KiB frame says who owns it.
//!
//! An owner for every frame rather than a bitmap of free ones: a frame freed by
//! the wrong owner is an error instead of a corruption, what a domain holds is
//! a number that can be asked for, and what a destroyed domain still held comes
//! back whatever path it was lost on.

use crate::mm::addr::{HostPhys, PAGE_BYTES, PhysRange};
use core::fmt;

/// Who a frame belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owner(u8);

/// How many owners there can be, `Owner::FREE` and `Owner::UNUSABLE` included.
const OWNERS: usize = 256;

/// The first owner number that stands for a domain.
const FIRST_DOMAIN: u8 = 16;

/// Frames below 1 MiB are handed out only when asked for by name: a starting
/// processor needs them, nothing else does.
const FIRST_HIGH_FRAME: usize = (0x10_0000 / PAGE_BYTES) as usize;

impl Owner {
    const FREE: Self = Self(0);
    const UNUSABLE: Self = Self(1);
    /// The hypervisor's image and the frame table.
    pub const IMAGE: Self = Self(2);
    /// The modules that the boot loader brought.
    pub const MODULES: Self = Self(3);
    /// The hypervisor's own page tables.
    pub const PAGE_TABLES: Self = Self(4);
    /// The hypervisor's heap.
    pub const HEAP: Self = Self(5);
    /// Per-CPU structures and stacks.
    pub const PER_CPU: Self = Self(6);
    /// Structures that hardware reads for virtualization and that belong to no
    /// domain (host save areas, shared permission maps).
    pub const VIRTUALIZATION: Self = Self(7);

    /// How many domains can own frames at one time.
    pub const DOMAIN_SLOTS: u8 = u8::MAX - FIRST_DOMAIN + 1;

    /// The owner for the domain in `slot`, 0 up to `DOMAIN_SLOTS`.
    pub const fn domain(slot: u8) -> Option<Self> {
        match FIRST_DOMAIN.checked_add(slot) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    const fn index(self) -> usize {
        self.0 as usize
    }
}

/// There were not enough free frames, or none that lie together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutOfFrames {
    /// How many were asked for.
    pub wanted: usize,
    /// How many were free, wherever they lay.
    pub free: usize,
}

impl fmt::Display for OutOfFrames {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{} frames wanted together, {} free in all",
            self.wanted, self.free
        )
    }
}

/// A frame was given back that its owner does not hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotOwned {
    /// The first frame that was not the owner's.
    pub frame: HostPhys,
}

impl fmt::Display for NotOwned {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "frame {} is not held by who gives it back", self.frame)
    }
}

/// How the machine's frames are spent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameCounts {
    /// Frames of usable memory, whoever has them.
    pub total: usize,
    /// Frames that nobody has.
    pub free: usize,
}

/// One owner for each frame from address 0 to the end of usable memory.
pub struct FrameTable<'a> {
    owners: &'a mut [u8],
    counts: [usize; OWNERS],
    /// No frame below this one is free and high: where a search begins.
    lowest_free: usize,
}

impl<'a> FrameTable<'a> {
    /// Bytes of storage that a table for memory up to the highest end of
    /// `usable` needs.
    pub fn storage_bytes(usable: impl Iterator<Item = PhysRange>) -> u64 {
        usable
            .map(|range| range.pages_inside().end().page_number())
            .max()
            .unwrap_or(0)
    }

    /// A table in which everything is unusable but `usable`.
    pub fn new(owners: &'a mut [u8], usable: impl Iterator<Item = PhysRange>) -> Self {
        owners.fill(Owner::UNUSABLE.0);
        let mut table = Self {
            owners,
            counts: [0; OWNERS],
            lowest_free: FIRST_HIGH_FRAME,
        };
        for range in usable {
            for slot in table.slots_mut(range.pages_inside()) {
                *slot = Owner::FREE.0;
            }
        }
        // Frame 0 is never given away: a null pointer must fault.
        if let Some(first) = table.owners.first_mut() {
            *first = Owner::UNUSABLE.0;
        }
        for owner in table.owners.iter() {
            table.counts[usize::from(*owner)] += 1;
        }
        table
    }

    /// Takes every free frame that `range` touches out of use for ever.
    pub fn withhold(&mut self, range: PhysRange) {
        self.claim(range, Owner::UNUSABLE);
    }

    /// Gives every free frame that `range` touches to `owner`: for what was in
    /// memory before there was a table. Returns how many there were.
    pub fn claim(&mut self, range: PhysRange, owner: Owner) -> usize {
        let mut claimed = 0;
        for slot in self.slots_mut(range.pages_touched()) {
            if *slot == Owner::FREE.0 {
                *slot = owner.0;
                claimed += 1;
            }
        }
        self.counts[Owner::FREE.index()] -= claimed;
        self.counts[owner.index()] += claimed;
        claimed
    }

    /// `frames` frames that lie together, the first at a multiple of
    /// `align_frames` (a power of two), all above 1 MiB.
    pub fn allocate(
        &mut self,
        owner: Owner,
        frames: usize,
        align_frames: usize,
    ) -> Result<HostPhys, OutOfFrames> {
        let out_of_frames = OutOfFrames {
            wanted: frames,
            free: self.free(),
        };
        let start = self
            .find(self.lowest_free, self.owners.len(), frames, align_frames)
            .ok_or(out_of_frames)?;
        if frames == 1 && align_frames == 1 {
            // The search has passed every frame below: a domain's thousands of
            // single frames are not searched for from the start each time.
            self.lowest_free = start;
        }
        self.take(start, frames, owner).ok_or(out_of_frames)
    }

    /// One frame below 1 MiB, where a processor in real mode can start.
    pub fn allocate_low(&mut self, owner: Owner) -> Result<HostPhys, OutOfFrames> {
        let out_of_frames = OutOfFrames {
            wanted: 1,
            free: self.free(),
        };
        let end = FIRST_HIGH_FRAME.min(self.owners.len());
        let start = self.find(1, end, 1, 1).ok_or(out_of_frames)?;
        self.take(start, 1, owner).ok_or(out_of_frames)
    }

    /// Gives `frames` frames from `first` back: all of them, or none if one is
    /// not the owner's.
    pub fn free_frames(
        &mut self,
        owner: Owner,
        first: HostPhys,
        frames: usize,
    ) -> Result<(), NotOwned> {
        let start = usize::try_from(first.page_number()).map_err(|_| NotOwned { frame: first })?;
        let slots = start
            .checked_add(frames)
            .and_then(|end| self.owners.get_mut(start..end))
            .ok_or(NotOwned { frame: first })?;
        if let Some(wrong) = slots.iter().position(|slot| *slot != owner.0) {
            let frame = HostPhys::from_page_number((start + wrong) as u64).unwrap_or(first);
            return Err(NotOwned { frame });
        }
        slots.fill(Owner::FREE.0);
        self.counts[owner.index()] -= frames;
        self.counts[Owner::FREE.index()] += frames;
        if frames != 0 && start >= FIRST_HIGH_FRAME {
            self.lowest_free = self.lowest_free.min(start);
        }
        Ok(())
    }

    /// Gives back all that `owner` holds; returns how many frames that were.
    pub fn free_all(&mut self, owner: Owner) -> usize {
        if owner == Owner::FREE || owner == Owner::UNUSABLE {
            return 0;
        }
        for slot in self.owners.iter_mut().filter(|slot| **slot == owner.0) {
            *slot = Owner::FREE.0;
        }
        let freed = core::mem::take(&mut self.counts[owner.index()]);
        self.counts[Owner::FREE.index()] += freed;
        self.lowest_free = FIRST_HIGH_FRAME;
        freed
    }

    /// How many frames `owner` holds.
    pub fn held_by(&self, owner: Owner) -> usize {
        self.counts[owner.index()]
    }

    /// What there is and what is left.
    pub fn counts(&self) -> FrameCounts {
        let total = self.owners.len() - self.counts[Owner::UNUSABLE.index()];
        FrameCounts {
            total,
            free: self.free(),
        }
    }

    fn free(&self) -> usize {
        self.counts[Owner::FREE.index()]
    }

    /// The table's part for a range of whole pages, cut to what the table has.
    fn slots_mut(&mut self, pages: PhysRange) -> &mut [u8] {
        let clamp = |page: u64| {
            usize::try_from(page)
                .unwrap_or(usize::MAX)
                .min(self.owners.len())
        };
        let start = clamp(pages.start().page_number());
        let end = clamp(pages.end().page_number()).max(start);
        &mut self.owners[start..end]
    }

    /// The first run of free frames in `from..end`; first fit, so that large
    /// runs stay whole at the top.
    fn find(&self, from: usize, end: usize, frames: usize, align: usize) -> Option<usize> {
        if frames == 0 || !align.is_power_of_two() {
            return None;
        }
        let mut start = from.checked_next_multiple_of(align)?;
        while start.checked_add(frames)? <= end {
            let run = &self.owners[start..start + frames];
            match run.iter().rposition(|slot| *slot != Owner::FREE.0) {
                None => return Some(start),
                Some(taken) => start = (start + taken + 1).checked_next_multiple_of(align)?,
            }
        }
        None
    }

    fn take(&mut self, start: usize, frames: usize, owner: Owner) -> Option<HostPhys> {
        let address = HostPhys::from_page_number(start as u64)?;
        self.owners[start..start + frames].fill(owner.0);
        self.counts[Owner::FREE.index()] -= frames;
        self.counts[owner.index()] += frames;
        if start == self.lowest_free {
            self.lowest_free = start + frames;
        }
        Some(address)
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
