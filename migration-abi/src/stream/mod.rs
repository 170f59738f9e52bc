//! The stream that moves a domain: framed records, each with its own checksum.
//!
//! ```text
//!  source ──▶  HELLO HEADER DOMAIN │        PAGES… CONSOLE VCPU_… END │       COMMIT       DONE
//!  receiver ◀─                     │ ACCEPT                           │ READY       RUNNING
//! ```
//!
//! * [`frame`] finds frames and proves them undamaged; a proxy needs no more.
//! * [`records`] reads and writes what a frame holds.
//! * [`sequencer`] holds the order, so that a whole stream is a whole domain.
//!
//! The messages of the handover travel in the same frames and have a version
//! of their own: see [`crate::handover`].

pub mod frame;
mod record_type;
pub mod records;
pub mod sequencer;

pub use frame::{Decoder, FRAME_HEADER_BYTES, Frame, FrameHeader, MAX_PAYLOAD_BYTES, Step, Writer};
pub use record_type::RecordType;
pub use records::{
    Console, Domain, End, Leaves, Pages, PolicyLeaf, Record, RegistersRecord, StreamHeader, Uart,
    XstateRecord, ZeroPages,
};
pub use sequencer::Sequencer;

use crate::error::ParseError;
use crate::mutants::rule;

/// Why a stream was not read, or not written.
pub type StreamError = ParseError;

/// The stream's version, in its HEADER record.
pub const STREAM_VERSION: u16 = 1;
/// Page size of the PAGES records in bytes.
pub const PAGE_BYTES: usize = 4096;

/// Names one attempt to move one domain, for ever: 16 random bytes, not all zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct MigrationId([u8; 16]);

impl MigrationId {
    /// The id with these bytes; all zero names nothing.
    #[must_use]
    pub fn new(bytes: [u8; 16]) -> Option<Self> {
        if rule!("migration-id-zero") && u128::from_le_bytes(bytes) == 0 {
            None
        } else {
            Some(Self(bytes))
        }
    }

    /// Its bytes.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl core::fmt::Display for MigrationId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl core::fmt::Debug for MigrationId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "MigrationId({self})")
    }
}
