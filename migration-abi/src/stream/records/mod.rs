//! What a frame holds: one type for each record, read by borrowing, written
//! into a payload of exactly its length.

mod domain;
mod memory;
mod vcpu;

pub use domain::{Domain, Leaves, MAX_LEAVES, MAX_VCPUS, NAME_BYTES, PolicyLeaf, StreamHeader};
pub use memory::{Console, End, MAX_OUTPUT_BYTES, MAX_PAGES, Pages, Uart, ZeroPages};
pub use vcpu::{RegistersRecord, XstateRecord};

use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::RecordType;
use super::StreamError;
use super::frame::{FRAME_HEADER_BYTES, Frame, Writer};
use crate::error::{Allowed, ParseError, Rule};
use crate::handover::Message;
use crate::mutants::rule;

/// Any record, read.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::large_enum_variant)] // one at a time, on the stack: there is no heap to box registers on
pub enum Record<'a> {
    /// What the stream is.
    Header(StreamHeader),
    /// What the domain is.
    Domain(Domain<'a>),
    /// Pages with their bytes.
    Pages(Pages<'a>),
    /// Pages that are zero.
    ZeroPages(ZeroPages),
    /// The console.
    Console(Console<'a>),
    /// One vCPU's registers.
    VcpuRegisters(RegistersRecord),
    /// One vCPU's extended state.
    VcpuXstate(XstateRecord<'a>),
    /// The state is complete.
    End(End),
    /// A message of the handover.
    Handover(Message<'a>),
}

impl<'a> Record<'a> {
    /// Reads a frame's payload. `None`: an optional record of a type that this
    /// version does not know, to be skipped. Offsets in errors are the
    /// decoder's buffer's.
    pub fn parse(frame: &Frame<'a>) -> Result<Option<Self>, StreamError> {
        let Some(record) = frame.header.record_type() else {
            if !rule!("record-unknown") || frame.header.is_optional() {
                return Ok(None);
            }
            let allowed = Allowed::Words("a type of this version, or the optional flag");
            let seen = u64::from(frame.header.record);
            return Err(ParseError::new(
                Rule::RecordUnknown,
                frame.offset.saturating_add(4),
                seen,
                allowed,
            ));
        };
        let base = frame.offset.saturating_add(FRAME_HEADER_BYTES);
        Self::parse_payload(record, frame.payload)
            .map(Some)
            .map_err(|error| error.within(base))
    }

    /// Reads a payload of a known type. Offsets in errors are the payload's.
    pub fn parse_payload(record: RecordType, payload: &'a [u8]) -> Result<Self, StreamError> {
        Ok(match record {
            RecordType::Header => Self::Header(StreamHeader::parse(payload)?),
            RecordType::Domain => Self::Domain(Domain::parse(payload)?),
            RecordType::Pages => Self::Pages(Pages::parse(payload)?),
            RecordType::ZeroPages => Self::ZeroPages(ZeroPages::parse(payload)?),
            RecordType::Console => Self::Console(Console::parse(payload)?),
            RecordType::VcpuRegisters => Self::VcpuRegisters(RegistersRecord::parse(payload)?),
            RecordType::VcpuXstate => Self::VcpuXstate(XstateRecord::parse(payload)?),
            RecordType::End => Self::End(End::parse(payload)?),
            message => Self::Handover(Message::parse(message, payload)?),
        })
    }

    /// Its type.
    #[must_use]
    pub const fn record_type(&self) -> RecordType {
        match self {
            Self::Header(_) => RecordType::Header,
            Self::Domain(_) => RecordType::Domain,
            Self::Pages(_) => RecordType::Pages,
            Self::ZeroPages(_) => RecordType::ZeroPages,
            Self::Console(_) => RecordType::Console,
            Self::VcpuRegisters(_) => RecordType::VcpuRegisters,
            Self::VcpuXstate(_) => RecordType::VcpuXstate,
            Self::End(_) => RecordType::End,
            Self::Handover(message) => message.record_type(),
        }
    }
}

/// Takes the fixed part off a payload.
fn fixed<T: FromBytes + KnownLayout + Immutable>(
    payload: &[u8],
) -> Result<(T, &[u8]), StreamError> {
    T::read_from_prefix(payload).map_err(|_| {
        let needed = Allowed::AtLeast(size_of::<T>() as u64);
        ParseError::new(Rule::RecordLength, 0, payload.len() as u64, needed)
    })
}

/// Refuses what a payload has beyond its record.
fn exactly(payload: &[u8], length: usize) -> Result<(), StreamError> {
    if !rule!("record-length") || payload.len() == length {
        return Ok(());
    }
    Err(ParseError::new(
        Rule::RecordLength,
        0,
        payload.len() as u64,
        Allowed::Exactly(length as u64),
    ))
}

/// Refuses a reserved field that is not zero.
fn zero(offset: usize, seen: u64) -> Result<(), StreamError> {
    if !rule!("record-reserved") || seen == 0 {
        return Ok(());
    }
    Err(ParseError::new(
        Rule::RecordReserved,
        offset,
        seen,
        Allowed::Exactly(0),
    ))
}

/// Refuses a number outside its bounds, both included.
fn within(rule: Rule, offset: usize, seen: u64, low: u64, high: u64) -> Result<(), StreamError> {
    if !rule!(rule.name()) || (low..=high).contains(&seen) {
        return Ok(());
    }
    Err(ParseError::new(
        rule,
        offset,
        seen,
        Allowed::Between(low, high),
    ))
}

/// Copies `parts`, one behind the other, into a payload of exactly their length.
pub(crate) fn fill(payload: &mut [u8], parts: &[&[u8]]) -> Result<(), StreamError> {
    let given = payload.len() as u64;
    let needed: usize = parts.iter().map(|part| part.len()).sum();
    let wrong = || {
        ParseError::new(
            Rule::RecordLength,
            0,
            given,
            Allowed::Exactly(needed as u64),
        )
    };
    let mut rest = payload;
    for part in parts {
        let (place, behind) = core::mem::take(&mut rest)
            .split_at_mut_checked(part.len())
            .ok_or_else(wrong)?;
        place.copy_from_slice(part);
        rest = behind;
    }
    if rest.is_empty() {
        Ok(())
    } else {
        Err(wrong())
    }
}

/// Each record writes itself through this: read back at once, so that nothing
/// leaves that a reader would refuse.
fn write(
    writer: &mut Writer,
    out: &mut [u8],
    record: RecordType,
    parts: &[&[u8]],
) -> Result<usize, StreamError> {
    let length = parts.iter().map(|part| part.len()).sum();
    writer.frame(out, record, length, |payload| {
        fill(payload, parts)?;
        Record::parse_payload(record, payload).map(|_| ())
    })
}

/// Writes a message of the handover; see [`Message`].
impl Message<'_> {
    /// Writes the frame; gives its length.
    pub fn write(&self, writer: &mut Writer, out: &mut [u8]) -> Result<usize, StreamError> {
        let record = self.record_type();
        writer.frame(out, record, self.payload_len(), |payload| {
            self.fill(payload)?;
            Message::parse(record, payload).map(|_| ())
        })
    }
}
