//! A small image for the tests, put together field by field.

use alloc::vec::Vec;

const HEADERS: u64 = 64 + 2 * 56;
const NOTE_BYTES: u64 = 12 + 4 + 4;

/// An ELF64 with one executable segment at `address`, whose first byte is the
/// PVH entry, and the note that says so.
pub(crate) fn image(address: u64, data: &[u8], memory_bytes: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut put = |part: &[u8]| bytes.extend_from_slice(part);
    put(b"\x7fELF");
    put(&[2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for half in [2u16, 62] {
        put(&half.to_le_bytes());
    }
    put(&1u32.to_le_bytes());
    for word in [address, 64, 0] {
        put(&word.to_le_bytes());
    }
    put(&0u32.to_le_bytes());
    for half in [64u16, 56, 2, 0, 0, 0] {
        put(&half.to_le_bytes());
    }
    let mut header = |kind: u32, flags: u32, offset: u64, file_bytes: u64, memory_bytes: u64| {
        put(&kind.to_le_bytes());
        put(&flags.to_le_bytes());
        for word in [offset, address, address, file_bytes, memory_bytes, 8] {
            put(&word.to_le_bytes());
        }
    };
    let data_at = HEADERS + NOTE_BYTES;
    header(1, 5, data_at, data.len() as u64, memory_bytes);
    header(4, 4, HEADERS, NOTE_BYTES, NOTE_BYTES);
    for word in [4u32, 4, 18] {
        put(&word.to_le_bytes());
    }
    put(b"Xen\0");
    put(&(address as u32).to_le_bytes());
    put(data);
    bytes
}
