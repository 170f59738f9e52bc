//! Addresses that must not be mixed: host-physical and guest-physical.

use core::fmt;

/// Bytes of a page and of a frame.
pub const PAGE_BYTES: u64 = 4096;

/// Bytes of a large page (one page-directory entry).
pub const LARGE_PAGE_BYTES: u64 = 2 << 20;

macro_rules! physical_address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// There is no `Ord`: which of two addresses is the smaller says
        /// nothing by itself; ask a range whether it contains one.
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(transparent)]
        pub struct $name(u64);

        impl $name {
            /// The address with this number.
            pub const fn new(address: u64) -> Self {
                Self(address)
            }

            /// The first byte of a page by page number, where it has one.
            pub const fn from_page_number(number: u64) -> Option<Self> {
                match number.checked_mul(PAGE_BYTES) {
                    Some(address) => Some(Self(address)),
                    None => None,
                }
            }

            /// The number of this address.
            pub const fn as_u64(self) -> u64 {
                self.0
            }

            /// The number of the page that holds this address.
            pub const fn page_number(self) -> u64 {
                self.0 / PAGE_BYTES
            }

            /// Bytes from the start of its page.
            pub const fn page_offset(self) -> u64 {
                self.0 % PAGE_BYTES
            }

            /// Whether it is a multiple of `bytes`, a power of two.
            pub const fn is_aligned_to(self, bytes: u64) -> bool {
                self.0 & (bytes - 1) == 0
            }

            /// The address `bytes` further, unless that overflows.
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(address) => Some(Self(address)),
                    None => None,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, "{:#x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }
    };
}

physical_address! {
    /// An address as the machine's memory bus sees it.
    HostPhys
}

physical_address! {
    /// An address as a domain sees its memory: what nested paging translates.
    GuestPhys
}

impl HostPhys {
    /// The identity-mapped pointer. Making it is safe, using it needs the
    /// usual proof that the memory is mapped and one's own.
    pub const fn as_mut_ptr<T>(self) -> *mut T {
        core::ptr::with_exposed_provenance_mut(self.0 as usize)
    }

    /// The address of something in the hypervisor's identity map.
    pub fn of<T: ?Sized>(object: *const T) -> Self {
        Self(object.cast::<()>().expose_provenance() as u64)
    }
}

/// Bytes of host-physical memory from `start` up to but not including `end`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PhysRange {
    start: u64,
    end: u64,
}

impl PhysRange {
    /// A range that holds nothing.
    pub const EMPTY: Self = Self { start: 0, end: 0 };

    /// From `start`, `size_bytes` long; `None` if it runs past the last address.
    pub const fn new(start: HostPhys, size_bytes: u64) -> Option<Self> {
        match start.0.checked_add(size_bytes) {
            Some(end) => Some(Self {
                start: start.0,
                end,
            }),
            None => None,
        }
    }

    /// From `start` to `end`; empty if they are the wrong way round.
    pub const fn between(start: HostPhys, end: HostPhys) -> Self {
        if end.0 < start.0 {
            return Self {
                start: start.0,
                end: start.0,
            };
        }
        Self {
            start: start.0,
            end: end.0,
        }
    }

    /// First byte.
    pub const fn start(self) -> HostPhys {
        HostPhys(self.start)
    }

    /// The byte after the last one.
    pub const fn end(self) -> HostPhys {
        HostPhys(self.end)
    }

    /// How many bytes it holds.
    pub const fn size_bytes(self) -> u64 {
        self.end - self.start
    }

    /// Whether it holds nothing.
    pub const fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// Whether the byte at `address` is in it.
    pub const fn contains(self, address: HostPhys) -> bool {
        self.start <= address.0 && address.0 < self.end
    }

    /// Whether the two share a byte.
    pub const fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end && !self.is_empty() && !other.is_empty()
    }

    /// The whole pages that lie inside: what of usable memory can be used.
    pub const fn pages_inside(self) -> Self {
        let start = match self.start.checked_next_multiple_of(PAGE_BYTES) {
            Some(start) => start,
            None => return Self::EMPTY,
        };
        let end = self.end - self.end % PAGE_BYTES;
        Self::between(HostPhys(start), HostPhys(end))
    }

    /// The pages that it touches: what of reserved memory must be kept clear.
    pub const fn pages_touched(self) -> Self {
        if self.is_empty() {
            return self;
        }
        let start = self.start - self.start % PAGE_BYTES;
        let end = match self.end.checked_next_multiple_of(PAGE_BYTES) {
            Some(end) => end,
            // The last page of the address space: all of it but one byte.
            None => u64::MAX,
        };
        Self { start, end }
    }
}

impl fmt::Display for PhysRange {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:#x}..{:#x}", self.start, self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, end: u64) -> PhysRange {
        PhysRange::between(HostPhys::new(start), HostPhys::new(end))
    }

    #[test]
    fn usable_memory_rounds_inward_and_reserved_memory_outward() {
        assert_eq!(range(0x1001, 0x3fff).pages_inside(), range(0x2000, 0x3000));
        assert_eq!(range(0x1001, 0x3fff).pages_touched(), range(0x1000, 0x4000));
        assert!(range(0x1001, 0x1fff).pages_inside().is_empty());
        assert!(range(0x1800, 0x1800).pages_touched().is_empty());
    }

    #[test]
    fn ranges_at_the_end_of_the_address_space_do_not_overflow() {
        assert!(PhysRange::new(HostPhys::new(u64::MAX), 2).is_none());
        assert!(range(u64::MAX - 1, u64::MAX).pages_inside().is_empty());
        assert_eq!(
            range(u64::MAX - 1, u64::MAX).pages_touched().end().as_u64(),
            u64::MAX
        );
    }

    #[test]
    fn neighbours_do_not_overlap_and_an_empty_range_overlaps_nothing() {
        assert!(!range(0, 0x1000).overlaps(range(0x1000, 0x2000)));
        assert!(range(0, 0x1001).overlaps(range(0x1000, 0x2000)));
        assert!(!range(0x1800, 0x1800).overlaps(range(0x1000, 0x2000)));
    }
}
