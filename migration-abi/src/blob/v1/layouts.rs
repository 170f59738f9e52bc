//! A machine's own directory, checked once: what it says of its layouts in every blob that it writes.
//!
//! A writer of many blobs need not check its entries each time, and a reader
//! that finds an entry equal to its own, word for word, knows that it keeps the
//! rules, and that the machines agree on that component.

use zerocopy::IntoBytes;

use super::check::check_entry;
use super::{DirectoryEntry, MAX_COMPONENTS};
use crate::blob::BlobError;
use crate::error::{Allowed, ParseError, Rule};

const NONE: DirectoryEntry = DirectoryEntry {
    index: 0,
    size: 0,
    flags: 0,
    standard_offset: 0,
};

/// The entries of all components that a machine has, by index.
#[derive(Clone, Debug)]
pub struct Layouts {
    /// 64, so that no index of a bit is out of range.
    entries: [DirectoryEntry; 64],
    known: u64,
}

impl Layouts {
    /// The table of these entries, each of another component.
    ///
    /// # Errors
    /// An entry breaks a rule of the directory, or is there twice.
    pub fn new(entries: impl IntoIterator<Item = DirectoryEntry>) -> Result<Self, BlobError> {
        let mut layouts = Self {
            entries: [NONE; 64],
            known: 0,
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
}
