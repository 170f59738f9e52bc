//! Version 1 of the blob, frozen: its structs, constants and lengths.

mod check;
mod layouts;
mod read;
mod write;

use core::mem::{offset_of, size_of};

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute};

pub use layouts::Layouts;
pub use read::{Blob, Directory, Own};
pub use write::{Fields, encode, encoded_len, head_len, prepare, seal, write_head};

/// This module's format version.
pub const VERSION: u16 = 1;
/// Length of the header that the writer writes.
pub const HEADER_BYTES: usize = 96;
/// Longest header that the reader takes: a later writer may append fields that
/// an old reader may skip, and says so with a compatible flag.
pub const MAX_HEADER_BYTES: usize = 128;
/// Length of the directory entry that the writer writes.
pub const ENTRY_BYTES: usize = 16;
/// Longest directory entry that the reader takes.
pub const MAX_ENTRY_BYTES: usize = 64;
/// Most components: bit 63 of XCOMP_BV is the format bit, so 0 to 62.
pub const MAX_COMPONENTS: usize = 63;
/// Legacy region and XSAVE header: no image is shorter (SDM Vol. 1, 13.4.2 XSAVE Header).
pub const MIN_IMAGE_BYTES: usize = 576;
/// Longest image; AMX needs 11 KiB, and 63 components of 64 KiB would be 4 MiB.
pub const MAX_IMAGE_BYTES: usize = 4 << 20;
/// Length of the CRC trailer.
pub const CRC_BYTES: usize = 4;
/// Where XCOMP_BV stands in an image (SDM Vol. 1, 13.4.2).
const XCOMP_BV_OFFSET: usize = 520;

bitflags! {
    /// What a reader must understand to read the blob at all.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Incompatible: u32 {
        /// The last four bytes are the CRC-32C of all before them.
        const CRC = 1 << 0;
        /// The vCPU's policy has no XSAVE: the image is legacy region and header alone.
        const NO_XSAVE = 1 << 1;
    }

    /// What the directory says of a component.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct EntryFlags: u32 {
        /// Managed by IA32_XSS rather than XCR0 (CPUID.(0DH,i):ECX[0]).
        const SUPERVISOR = 1 << 0;
        /// Aligned to 64 bytes in the compacted form (ECX[1]).
        const ALIGN64 = 1 << 1;
        /// Can be disabled by IA32_XFD (ECX[2]).
        const XFD = 1 << 2;
    }
}

/// The header, byte for byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Header {
    /// [`super::MAGIC`].
    pub magic: [u8; 8],
    /// [`VERSION`].
    pub version: u16,
    /// Length of the header in bytes; the directory begins there.
    pub header_len: u16,
    /// Length of one directory entry in bytes.
    pub dir_entry_len: u16,
    /// Number of directory entries, one for each bit of `xstate_mask`.
    pub dir_entries: u16,
    /// Flags that a reader may ignore; none is defined.
    pub compatible: u32,
    /// [`Incompatible`].
    pub incompatible: u32,
    /// Length of the blob in bytes, trailer included.
    pub total_len: u64,
    /// The policy: components that the vCPU may ever use.
    pub xstate_mask: u64,
    /// The guest's XCR0.
    pub xcr0: u64,
    /// The guest's IA32_XSS.
    pub xss: u64,
    /// The guest's IA32_XFD, never one that the host armed.
    pub xfd: u64,
    /// The guest's IA32_XFD_ERR.
    pub xfd_err: u64,
    /// Components that may hold state.
    pub accum: u64,
    /// The image's XCOMP_BV.
    pub xcomp_bv: u64,
    /// Length of the image in bytes.
    pub image_len: u32,
    /// Zero.
    pub reserved: u32,
}

impl Header {
    /// Whether the other one consists of other words: 0 if not.
    #[inline(always)]
    fn unlike(&self, other: &Self) -> u64 {
        let words: [u64; HEADER_BYTES / 8] = transmute!(*self);
        let others: [u64; HEADER_BYTES / 8] = transmute!(*other);
        words
            .iter()
            .zip(others)
            .fold(0, |all, (one, other)| all | one ^ other)
    }
}

/// One component's layout on the machine that wrote the blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct DirectoryEntry {
    /// Component index, 0 to 62.
    pub index: u32,
    /// Size in bytes (x87: 160, SSE: 256, by convention).
    pub size: u32,
    /// [`EntryFlags`].
    pub flags: u32,
    /// Offset in the standard form; 0 for x87 and for supervisor components, 160 for SSE.
    pub standard_offset: u32,
}

const _: () = {
    assert!(size_of::<Header>() == HEADER_BYTES);
    assert!(size_of::<DirectoryEntry>() == ENTRY_BYTES);
    assert!(offset_of!(Header, compatible) == 16);
    assert!(offset_of!(Header, total_len) == 24);
    assert!(offset_of!(Header, xstate_mask) == 32);
    assert!(offset_of!(Header, xcomp_bv) == 80);
    assert!(offset_of!(Header, image_len) == 88);
};
