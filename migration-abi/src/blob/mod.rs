//! The extended-state blob: `<xstate_mask, xcomp_bv, compacted image>` with a
//! directory of the layout it was made under, so that any host can judge it.
//!
//! ```text
//!  0        96                 96+16n                       total
//!  ┌────────┬──────────────────┬───────────────────────────┬─────────┐
//!  │ header │ directory, n × 16│ compacted image (≥ 576)   │ CRC-32C │
//!  └────────┴──────────────────┴───────────────────────────┴─────────┘
//! ```
//!
//! Each version is a frozen module: it changes only by a bug fix that refuses
//! more or less of what its own `docs/src/wire-blob.md` table already says.
//! A new format is a new module, and [`parse`] reads them all.

pub mod v1;

/// The version that writers write.
pub use v1 as latest;

pub use latest::{Blob, DirectoryEntry, Fields};

use crate::error::{Allowed, ParseError, Rule};
use crate::mutants::rule;

/// Why a blob was not read, or not written.
pub type BlobError = ParseError;

/// First eight bytes of every version.
pub const MAGIC: [u8; 8] = *b"XFXSTATE";

/// Reads a blob of any version there ever was.
pub fn parse(bytes: &[u8]) -> Result<Blob<'_>, BlobError> {
    match version(bytes)? {
        v1::VERSION => Blob::parse(bytes),
        other if rule!("blob-version") => Err(ParseError::new(
            Rule::BlobVersion,
            MAGIC.len(),
            u64::from(other),
            Allowed::Exactly(v1::VERSION as u64),
        )),
        _ => Blob::parse(bytes),
    }
}

/// The version that a blob says it has. Of all versions the first ten bytes mean the same.
pub fn version(bytes: &[u8]) -> Result<u16, BlobError> {
    let Some((magic, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(ParseError::new(
            Rule::BlobLength,
            0,
            bytes.len() as u64,
            Allowed::AtLeast(10),
        ));
    };
    if rule!("blob-magic") && *magic != MAGIC {
        let (seen, magic) = (u64::from_le_bytes(*magic), u64::from_le_bytes(MAGIC));
        return Err(ParseError::new(
            Rule::BlobMagic,
            0,
            seen,
            Allowed::Exactly(magic),
        ));
    }
    match rest.first_chunk::<2>() {
        Some(version) => Ok(u16::from_le_bytes(*version)),
        None => Err(ParseError::new(
            Rule::BlobLength,
            0,
            bytes.len() as u64,
            Allowed::AtLeast(10),
        )),
    }
}
