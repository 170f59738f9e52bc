//! What a file is, by its bytes.

use clap::ValueEnum;
use migration_abi::blob::MAGIC;

use super::{image, stream};

/// A form that can be explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// An extended-state blob.
    Blob,
    /// A migration stream, one direction of it.
    Stream,
    /// An XSAVE image, standard or compacted.
    Raw,
}

impl Format {
    /// Its name on the command line and for programs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Blob => "blob",
            Self::Stream => "stream",
            Self::Raw => "raw",
        }
    }

    /// What it is called.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Blob => "extended-state blob",
            Self::Stream => "migration stream",
            Self::Raw => "XSAVE image",
        }
    }
}

/// The form that the bytes have; `None` where they are none of them.
pub fn detect(bytes: &[u8]) -> Option<Format> {
    if bytes.starts_with(&MAGIC) {
        Some(Format::Blob)
    } else if stream::looks_like_one(bytes) {
        Some(Format::Stream)
    } else if image::looks_like_one(bytes) {
        Some(Format::Raw)
    } else {
        None
    }
}
