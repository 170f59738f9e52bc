//! CRC-32C (Castagnoli), as iSCSI and SSE4.2 have it: by the processor's
//! instruction, several streams at once, or by table.
//!
//! The instruction stands in a crate of its own, because this one forbids
//! unsafe code: see [`xferry_crc32c`].

pub use xferry_crc32c::{Crc32c, crc32c};
