//! Four levels of tables: mapping, unmapping, looking up and auditing.
//!
//! Where tables live and how they are read is injected, so that a test maps a
//! machine in a `Vec`.

use super::entry::{Caching, Entry, PageSize, Protection};
use crate::mm::addr::{HostPhys, LARGE_PAGE_BYTES, PAGE_BYTES, PhysRange};
use crate::mm::frames::OutOfFrames;

/// Entries of a table.
const ENTRIES: u64 = 512;

/// Memory that tables are made of.
pub trait TableMemory {
    /// A new table, all entries not present.
    fn allocate(&mut self) -> Result<HostPhys, OutOfFrames>;
    /// Entry `index` (0 to 511) of a table that `allocate` gave.
    fn read(&self, table: HostPhys, index: u64) -> Entry;
    /// Sets entry `index` (0 to 511) of a table that `allocate` gave.
    fn write(&mut self, table: HostPhys, index: u64, entry: Entry);
}

/// What an audit of all entries counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Audit {
    /// 4 KiB pages mapped.
    pub small_pages: u64,
    /// 2 MiB pages mapped.
    pub large_pages: u64,
    /// Pages that are both writable and executable.
    pub writable_and_executable: u64,
}

/// An address space.
pub struct Mapper<M> {
    root: HostPhys,
    memory: M,
}

impl<M: TableMemory> Mapper<M> {
    /// An address space that maps nothing.
    pub fn new(mut memory: M) -> Result<Self, OutOfFrames> {
        Ok(Self {
            root: memory.allocate()?,
            memory,
        })
    }

    /// The top table: what CR3 takes.
    pub fn root(&self) -> HostPhys {
        self.root
    }

    /// Maps all pages that `range` touches to themselves, over what was there;
    /// by large pages where they fit.
    pub fn map_identity(
        &mut self,
        range: PhysRange,
        protection: Protection,
        caching: Caching,
    ) -> Result<(), OutOfFrames> {
        let pages = range.pages_touched();
        let (mut address, end) = (pages.start().as_u64(), pages.end().as_u64());
        while address < end {
            let frame = HostPhys::new(address);
            let fits = frame.is_aligned_to(LARGE_PAGE_BYTES) && end - address >= LARGE_PAGE_BYTES;
            let size = if fits && !self.has_page_table(address) {
                PageSize::Large
            } else {
                PageSize::Small
            };
            self.set(address, size, Entry::page(frame, size, protection, caching))?;
            match address.checked_add(size.bytes()) {
                Some(next) => address = next,
                None => break,
            }
        }
        Ok(())
    }

    /// Takes one small page out.
    pub fn unmap(&mut self, page: HostPhys) -> Result<(), OutOfFrames> {
        self.set(page.as_u64(), PageSize::Small, Entry::NOT_PRESENT)
    }

    /// The entry that maps `address`, and its size.
    pub fn lookup(&self, address: u64) -> Option<(Entry, PageSize)> {
        let mut table = self.root;
        for level in (1..=4).rev() {
            let entry = self.memory.read(table, index(address, level));
            if !entry.is_present() {
                return None;
            }
            match level {
                1 => return Some((entry, PageSize::Small)),
                2 if entry.is_large() => return Some((entry, PageSize::Large)),
                _ => table = entry.address(),
            }
        }
        None
    }

    /// Counts every page of the lower half, where everything is.
    pub fn audit(&self) -> Audit {
        let mut audit = Audit::default();
        self.audit_table(self.root, 4, &mut audit);
        audit
    }

    fn audit_table(&self, table: HostPhys, level: u32, audit: &mut Audit) {
        for entry in (0..ENTRIES).map(|index| self.memory.read(table, index)) {
            let is_page = level == 1 || level == 2 && entry.is_large();
            if !entry.is_present() {
                continue;
            }
            if !is_page {
                self.audit_table(entry.address(), level - 1, audit);
                continue;
            }
            if level == 1 {
                audit.small_pages += 1;
            } else {
                audit.large_pages += 1;
            }
            audit.writable_and_executable += u64::from(entry.is_writable_and_executable());
        }
    }

    /// Whether small pages were already told apart in the 2 MiB at `address`.
    fn has_page_table(&self, address: u64) -> bool {
        let mut table = self.root;
        for level in (2..=4).rev() {
            let entry = self.memory.read(table, index(address, level));
            if !entry.is_present() {
                return false;
            }
            if level == 2 {
                return !entry.is_large();
            }
            table = entry.address();
        }
        false
    }

    /// Sets the entry for a page of `size`, making or splitting what is above.
    fn set(&mut self, address: u64, size: PageSize, entry: Entry) -> Result<(), OutOfFrames> {
        let last = match size {
            PageSize::Small => 1,
            PageSize::Large => 2,
        };
        let mut table = self.root;
        for level in (last + 1..=4).rev() {
            let slot = index(address, level);
            let above = self.memory.read(table, slot);
            table = if !above.is_present() {
                let lower = self.memory.allocate()?;
                self.memory.write(table, slot, Entry::table(lower));
                lower
            } else if level == 2 && above.is_large() {
                let lower = self.memory.allocate()?;
                for part in 0..ENTRIES {
                    self.memory.write(lower, part, above.small_part(part));
                }
                self.memory.write(table, slot, Entry::table(lower));
                lower
            } else {
                above.address()
            };
        }
        self.memory.write(table, index(address, last), entry);
        Ok(())
    }
}

/// The entry for `address` in a table of `level` (4 is the root).
const fn index(address: u64, level: u32) -> u64 {
    ((address / PAGE_BYTES) >> (9 * (level - 1))) & (ENTRIES - 1)
}

#[cfg(test)]
#[path = "mapper_tests.rs"]
mod tests;
