//! What a page-table entry says (SDM Vol. 3, 5.5 4-Level Paging).

use crate::mm::addr::{HostPhys, LARGE_PAGE_BYTES, PAGE_BYTES};

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const WRITE_THROUGH: u64 = 1 << 3;
const CACHE_DISABLE: u64 = 1 << 4;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// What may be done with a page. There is no value that both writes and
/// executes: W^X by type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protection {
    /// Constants.
    Read,
    /// Data.
    ReadWrite,
    /// Code.
    ReadExecute,
}

/// How accesses are cached, by the page attribute table's reset values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Caching {
    /// RAM.
    WriteBack,
    /// Device registers: strong uncacheable.
    Uncached,
}

/// Bytes that one entry maps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageSize {
    /// 4 KiB, an entry of a page table.
    Small,
    /// 2 MiB, an entry of a page directory.
    Large,
}

impl PageSize {
    /// How many bytes that is.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Small => PAGE_BYTES,
            Self::Large => LARGE_PAGE_BYTES,
        }
    }
}

/// An entry of any level.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry(u64);

impl Entry {
    /// Maps nothing.
    pub const NOT_PRESENT: Self = Self(0);

    /// An entry with these bits.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Its bits.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Leads to a lower table; what is allowed is said there.
    pub const fn table(table: HostPhys) -> Self {
        Self((table.as_u64() & ADDRESS) | PRESENT | WRITABLE)
    }

    /// Maps a page for the supervisor.
    pub const fn page(
        frame: HostPhys,
        size: PageSize,
        protection: Protection,
        caching: Caching,
    ) -> Self {
        let allowed = match protection {
            Protection::Read => NO_EXECUTE,
            Protection::ReadWrite => NO_EXECUTE | WRITABLE,
            Protection::ReadExecute => 0,
        };
        let caching = match caching {
            Caching::WriteBack => 0,
            Caching::Uncached => CACHE_DISABLE | WRITE_THROUGH,
        };
        let large = match size {
            PageSize::Small => 0,
            PageSize::Large => LARGE,
        };
        Self((frame.as_u64() & ADDRESS) | PRESENT | allowed | caching | large)
    }

    /// The entry for `index` of the 512 small pages that a large one is made of.
    pub const fn small_part(self, index: u64) -> Self {
        Self((self.0 & !LARGE) + index * PAGE_BYTES)
    }

    /// Whether it maps or leads anywhere.
    pub const fn is_present(self) -> bool {
        self.0 & PRESENT != 0
    }

    /// Whether it is a large page (meaningful in a page directory).
    pub const fn is_large(self) -> bool {
        self.0 & LARGE != 0
    }

    /// Whether code in it could also be written.
    pub const fn is_writable_and_executable(self) -> bool {
        self.0 & (WRITABLE | NO_EXECUTE) == WRITABLE
    }

    /// The frame or table it names.
    pub const fn address(self) -> HostPhys {
        HostPhys::new(self.0 & ADDRESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: HostPhys = HostPhys::new(0x1_2345_6000);

    fn small(protection: Protection, caching: Caching) -> u64 {
        Entry::page(FRAME, PageSize::Small, protection, caching).bits()
    }

    #[test]
    fn entries_are_what_the_manual_says() {
        assert_eq!(
            small(Protection::Read, Caching::WriteBack),
            0x8000_0001_2345_6001
        );
        assert_eq!(
            small(Protection::ReadWrite, Caching::WriteBack),
            0x8000_0001_2345_6003
        );
        assert_eq!(
            small(Protection::ReadExecute, Caching::WriteBack),
            0x1_2345_6001
        );
        assert_eq!(
            small(Protection::ReadWrite, Caching::Uncached),
            0x8000_0001_2345_601b
        );
        let large = Entry::page(
            HostPhys::new(0x20_0000),
            PageSize::Large,
            Protection::Read,
            Caching::WriteBack,
        );
        assert_eq!(large.bits(), 0x8000_0000_0020_0081);
        assert_eq!(large.small_part(3).bits(), 0x8000_0000_0020_3001);
    }

    #[test]
    fn no_protection_is_writable_and_executable() {
        for protection in [
            Protection::Read,
            Protection::ReadWrite,
            Protection::ReadExecute,
        ] {
            for size in [PageSize::Small, PageSize::Large] {
                let entry = Entry::page(FRAME, size, protection, Caching::WriteBack);
                assert!(!entry.is_writable_and_executable(), "{protection:?}");
            }
        }
        assert!(Entry::from_bits(0x3).is_writable_and_executable());
    }
}
