//! Nested page tables: guest-physical to host-physical, in the format of
//! 4-level paging that SVM uses as it is (APM Vol. 2, 15.25).
#![allow(unsafe_code)] // writes table entries in frames of its own

use crate::mm::addr::{GuestPhys, HostPhys};

const PRESENT: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
/// Nested walks are user accesses (APM Vol. 2, 15.25.5).
const USER: u64 = 1 << 2;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const ENTRIES: usize = 512;

/// The root of one domain's tables. The frames belong to the domain, which
/// frees them when nothing can run on them any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NestedRoot(HostPhys);

impl NestedRoot {
    /// Empty tables. `allocate` gives zeroed frames of the domain.
    ///
    /// # Errors
    /// What `allocate` says.
    pub fn new<E>(allocate: &mut impl FnMut() -> Result<HostPhys, E>) -> Result<Self, E> {
        allocate().map(Self)
    }

    /// Where the tables begin.
    #[must_use]
    pub const fn address(self) -> HostPhys {
        self.0
    }

    /// Maps the page of `guest` to the frame `host`, for every kind of access.
    ///
    /// # Safety
    /// The root and all frames that `allocate` gives are identity-mapped, are
    /// the domain's, and nobody else writes them now. `guest` is below 2^48.
    ///
    /// # Errors
    /// What `allocate` says; a table that was added meanwhile stays, empty.
    pub unsafe fn map<E>(
        self,
        guest: GuestPhys,
        host: HostPhys,
        allocate: &mut impl FnMut() -> Result<HostPhys, E>,
    ) -> Result<(), E> {
        let flags = PRESENT | WRITE | USER;
        let mut table = self.0;
        for level in [39, 30, 21] {
            // SAFETY: `table` is the root or a table entered below; the index
            // is under 512 by the mask.
            let entry = unsafe { &mut *table.as_mut_ptr::<u64>().add(index(guest, level)) };
            if *entry & PRESENT == 0 {
                *entry = allocate()?.as_u64() | flags;
            }
            table = HostPhys::new(*entry & ADDRESS);
        }
        // SAFETY: as above.
        unsafe { *table.as_mut_ptr::<u64>().add(index(guest, 12)) = host.as_u64() | flags };
        Ok(())
    }
}

fn index(guest: GuestPhys, shift: u32) -> usize {
    // Nine bits, by the mask.
    (guest.as_u64() >> shift) as usize & (ENTRIES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(align(4096))]
    struct Frame(#[expect(dead_code)] [u64; ENTRIES]);

    fn frame() -> Result<HostPhys, ()> {
        let frame = std::boxed::Box::leak(std::boxed::Box::new(Frame([0; ENTRIES])));
        Ok(HostPhys::of(&raw const *frame))
    }

    fn walk(root: NestedRoot, guest: GuestPhys) -> Option<u64> {
        let mut table = root.address();
        for level in [39, 30, 21, 12] {
            // SAFETY: tables of this test, leaked.
            let entry = unsafe { *table.as_mut_ptr::<u64>().add(index(guest, level)) };
            if entry & PRESENT == 0 {
                return None;
            }
            assert_ne!(entry & USER, 0);
            table = HostPhys::new(entry & ADDRESS);
        }
        Some(table.as_u64())
    }

    #[test]
    fn what_was_mapped_is_found_and_nothing_else() {
        let root = NestedRoot::new(&mut frame).unwrap();
        let pages = [
            0u64,
            0x1000,
            0x1f_f000,
            0x20_0000,
            0x4000_0000,
            0x7fff_ffff_f000,
        ];
        for (i, page) in pages.into_iter().enumerate() {
            let host = HostPhys::new(0x10_0000 + i as u64 * 0x1000);
            // SAFETY: tables of this test.
            unsafe { root.map(GuestPhys::new(page), host, &mut frame) }.unwrap();
        }
        for (i, page) in pages.into_iter().enumerate() {
            assert_eq!(
                walk(root, GuestPhys::new(page)),
                Some(0x10_0000 + i as u64 * 0x1000)
            );
        }
        for page in [0x2000u64, 0x20_1000, 0x8000_0000] {
            assert_eq!(walk(root, GuestPhys::new(page)), None);
        }
    }

    #[test]
    fn running_out_of_frames_is_an_error_and_maps_nothing() {
        let root = NestedRoot::new(&mut frame).unwrap();
        let mut left = 2;
        let mut few = || {
            left -= 1;
            if left < 0 {
                Err("none left")
            } else {
                frame().map_err(|()| "")
            }
        };
        let guest = GuestPhys::new(0x5000);
        // SAFETY: tables of this test.
        let result = unsafe { root.map(guest, HostPhys::new(0x9000), &mut few) };
        assert_eq!(result, Err("none left"));
        assert_eq!(walk(root, guest), None);
    }
}
