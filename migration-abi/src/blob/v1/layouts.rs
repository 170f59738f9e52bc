//! A machine's own directory, checked once: what it says of its layouts in every blob that it writes.
//!
//! A writer of many blobs need not check its entries each time, and a reader
//! that finds an entry equal to its own, word for word, knows that it keeps the
//! rules, and that the machines agree on that component.

use zerocopy::IntoBytes;

use super::check::check_entry;
use super::{DirectoryEntry, EntryFlags, MAX_COMPONENTS};
use crate::blob::BlobError;
use crate::error::{Allowed, ParseError, Rule};

const NONE: DirectoryEntry = DirectoryEntry {
    index: 0,
    size: 0,
    flags: 0,
    standard_offset: 0,
};

/// The entries of all components that a machine has.
#[derive(Clone, Debug)]
pub struct Layouts {
    /// By index: 64, so that no index of a bit is out of range.
    entries: [DirectoryEntry; 64],
    known: u64,
    /// As a directory of user components has them, and as one of all has.
    packed: [Packed; 2],
}

/// Entries one after the other, as they stand in a directory.
#[derive(Clone, Debug)]
struct Packed {
    entries: [Words; 64],
    /// The components of the first so many entries.
    masks: [u64; 64],
    len: usize,
}

/// A directory entry as two words, least significant byte first.
pub(super) type Words = [u64; 2];

impl Layouts {
    /// The table of these entries, each of another component.
    ///
    /// # Errors
    /// An entry breaks a rule of the directory, or is there twice.
    pub fn new(entries: impl IntoIterator<Item = DirectoryEntry>) -> Result<Self, BlobError> {
        let mut layouts = Self {
            entries: [NONE; 64],
            known: 0,
            packed: [Packed::EMPTY; 2],
        };
        for entry in entries {
            let seen = u64::from(entry.index);
            let free = !layouts.known & (u64::MAX >> 1);
            let slot = layouts.entries.get_mut(entry.index as usize);
            let slot =
                slot.filter(|_| free >> seen & 1 != 0 && entry.index < MAX_COMPONENTS as u32);
            let allowed = Allowed::Bits(free);
            let slot = slot.ok_or(ParseError::new(Rule::BlobDirectory, 0, seen, allowed))?;
            check_entry(&entry)?;
            *slot = entry;
            layouts.known |= 1 << entry.index;
        }
        let known = (0..64).filter(|index| layouts.known >> index & 1 != 0);
        for entry in known.map(|index| layouts.entries[index]) {
            if entry.flags & EntryFlags::SUPERVISOR.bits() == 0 {
                layouts.packed[0].push(&entry);
            }
            layouts.packed[1].push(&entry);
        }
        Ok(layouts)
    }

    /// The components that have an entry.
    #[must_use]
    pub const fn known(&self) -> u64 {
        self.known
    }

    /// Whether this is the entry of `index` here, word for word.
    #[inline]
    pub(super) fn has(&self, index: u32, entry: &DirectoryEntry) -> bool {
        self.known >> (index & 63) & 1 != 0 && self.own(index).as_bytes() == entry.as_bytes()
    }

    #[inline]
    pub(super) const fn own(&self, index: u32) -> &DirectoryEntry {
        &self.entries[(index & 63) as usize]
    }

    /// The directory of `mask`, which has `len` components, if it stands here
    /// in one piece: where it is all components up to some one of them, or all
    /// user components.
    #[inline(always)]
    pub(super) fn directory(&self, mask: u64, len: usize) -> Option<&[Words]> {
        let last = len.wrapping_sub(1);
        let [user, all] = &self.packed;
        let is = |packed: &Packed| packed.masks.get(last).is_some_and(|here| *here == mask);
        let packed = if is(user) {
            user
        } else if is(all) {
            all
        } else {
            return None;
        };
        packed.entries.get(..len)
    }
}

impl Packed {
    const EMPTY: Self = Self {
        entries: [[0; 2]; 64],
        masks: [0; 64],
        len: 0,
    };

    fn push(&mut self, entry: &DirectoryEntry) {
        let before = self.len.checked_sub(1).map_or(0, |last| self.masks[last]);
        self.masks[self.len] = before | 1 << entry.index;
        self.entries[self.len] = [
            u64::from(entry.index) | u64::from(entry.size) << 32,
            u64::from(entry.flags) | u64::from(entry.standard_offset) << 32,
        ];
        self.len += 1;
    }
}
