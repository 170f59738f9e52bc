//! Frames: where one begins and ends, of what type, in which order, undamaged.
//!
//! A reader uses [`Decoder`] (a buffer that holds several) or
//! [`FrameHeader::parse`] and [`FrameHeader::verify`] (a wire, 16 bytes first).
//! A man in the middle uses [`FrameHeader::split`] and [`FrameHeader::split_mut`],
//! which verify nothing, and [`seal`] or [`FrameHeader::write`] after tampering.

use core::mem::size_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{RecordType, StreamError};
use crate::crc32c::Crc32c;
use crate::error::{Allowed, ParseError, Rule};
use crate::mutants::rule;

/// Length of the header in front of each payload.
pub const FRAME_HEADER_BYTES: usize = 16;
/// Longest payload: a reader never needs a larger buffer than header and this.
pub const MAX_PAYLOAD_BYTES: usize = 1 << 20;
/// Bytes of the header that stand before the checksum.
const BEFORE_CRC: usize = 12;

/// [`FrameHeader::flags`]: a reader that does not know the type skips the record.
pub const OPTIONAL: u16 = 1 << 0;

/// The 16 bytes in front of each payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct FrameHeader {
    /// Length of the payload in bytes.
    pub length: u32,
    /// A [`RecordType`], or one that this version does not know.
    pub record: u16,
    /// [`OPTIONAL`] or nothing.
    pub flags: u16,
    /// Counts the frames of one direction of one connection from 0, wrapping.
    pub sequence: u32,
    /// CRC-32C of these 16 bytes with this field zero, and of the payload.
    pub crc: u32,
}

const _: () = assert!(size_of::<FrameHeader>() == FRAME_HEADER_BYTES);

impl FrameHeader {
    /// Reads the header at the start of `bytes` and checks its length and flags.
    /// The checksum waits for the payload: [`FrameHeader::verify`].
    pub fn parse(bytes: &[u8]) -> Result<Self, StreamError> {
        let Ok((header, _)) = Self::read_from_prefix(bytes) else {
            let allowed = Allowed::AtLeast(FRAME_HEADER_BYTES as u64);
            return Err(ParseError::new(
                Rule::FrameShort,
                0,
                bytes.len() as u64,
                allowed,
            ));
        };
        if rule!("frame-length") && header.payload_len() > MAX_PAYLOAD_BYTES {
            let allowed = Allowed::AtMost(MAX_PAYLOAD_BYTES as u64);
            return Err(ParseError::new(
                Rule::FrameLength,
                0,
                u64::from(header.length),
                allowed,
            ));
        }
        if rule!("frame-flags") && header.flags & !OPTIONAL != 0 {
            let allowed = Allowed::Bits(u64::from(OPTIONAL));
            return Err(ParseError::new(
                Rule::FrameFlags,
                6,
                u64::from(header.flags),
                allowed,
            ));
        }
        Ok(header)
    }

    /// Length of the payload.
    #[must_use]
    pub const fn payload_len(&self) -> usize {
        self.length as usize
    }

    /// Length of header and payload.
    #[must_use]
    pub const fn frame_len(&self) -> usize {
        FRAME_HEADER_BYTES.saturating_add(self.payload_len())
    }

    /// The type, where this version knows it.
    #[must_use]
    pub const fn record_type(&self) -> Option<RecordType> {
        RecordType::from_code(self.record)
    }

    /// Whether a reader that does not know the type skips the record.
    #[must_use]
    pub const fn is_optional(&self) -> bool {
        self.flags & OPTIONAL != 0
    }

    /// Checks the payload's length and the checksum over both.
    pub fn verify(&self, payload: &[u8]) -> Result<(), StreamError> {
        if rule!("frame-short") && payload.len() != self.payload_len() {
            let allowed = Allowed::Exactly(u64::from(self.length));
            return Err(ParseError::new(
                Rule::FrameShort,
                FRAME_HEADER_BYTES,
                payload.len() as u64,
                allowed,
            ));
        }
        let computed = self.checksum(payload);
        if rule!("frame-crc") && self.crc != computed {
            let allowed = Allowed::Exactly(u64::from(computed));
            return Err(ParseError::new(
                Rule::FrameCrc,
                BEFORE_CRC,
                u64::from(self.crc),
                allowed,
            ));
        }
        Ok(())
    }

    /// What [`FrameHeader::crc`] is for this payload.
    #[must_use]
    pub fn checksum(&self, payload: &[u8]) -> u32 {
        let zeroed = Self { crc: 0, ..*self };
        Crc32c::new()
            .update(zeroed.as_bytes())
            .update(payload)
            .finish()
    }

    /// Takes the first frame off `bytes` without looking at its checksum or
    /// flags: header, payload, what follows. `None` where it is not all there yet.
    #[must_use]
    pub fn split(bytes: &[u8]) -> Option<(Self, &[u8], &[u8])> {
        let (header, rest) = Self::read_from_prefix(bytes).ok()?;
        let (payload, rest) = rest.split_at_checked(header.payload_len())?;
        Some((header, payload, rest))
    }

    /// The same for bytes that are to be changed: the whole frame, payload from
    /// [`FRAME_HEADER_BYTES`] on, and what follows. [`seal`] the frame afterwards.
    #[must_use]
    pub fn split_mut(bytes: &mut [u8]) -> Option<(&mut [u8], &mut [u8])> {
        let (header, _) = Self::read_from_prefix(bytes).ok()?;
        bytes.split_at_mut_checked(header.frame_len())
    }

    /// Writes this header and another payload as a frame, with the length and
    /// checksum that the payload gives it. Returns the frame's length.
    pub fn write(&self, payload: &[u8], out: &mut [u8]) -> Result<usize, StreamError> {
        let mut header = Self {
            length: length_of(payload.len())?,
            ..*self
        };
        header.crc = header.checksum(payload);
        let given = out.len();
        let (head, body) = out
            .split_at_mut_checked(FRAME_HEADER_BYTES)
            .ok_or_else(|| no_room(given, payload.len()))?;
        body.get_mut(..payload.len())
            .ok_or_else(|| no_room(given, payload.len()))?
            .copy_from_slice(payload);
        head.copy_from_slice(header.as_bytes());
        Ok(header.frame_len())
    }
}

/// Gives a frame, whole and alone in `frame`, the length and checksum that its
/// bytes have now. Type, flags and sequence are left as they stand.
pub fn seal(frame: &mut [u8]) -> Result<(), StreamError> {
    let given = frame.len();
    let (head, payload) = frame
        .split_at_mut_checked(FRAME_HEADER_BYTES)
        .ok_or_else(|| no_room(given, 0))?;
    let mut header = FrameHeader::read_from_bytes(head).map_err(|_| no_room(given, 0))?;
    header.length = length_of(payload.len())?;
    header.crc = header.checksum(payload);
    head.copy_from_slice(header.as_bytes());
    Ok(())
}

fn length_of(payload: usize) -> Result<u32, StreamError> {
    u32::try_from(payload)
        .ok()
        .filter(|_| !rule!("frame-length") || payload <= MAX_PAYLOAD_BYTES)
        .ok_or(ParseError::new(
            Rule::FrameLength,
            0,
            payload as u64,
            Allowed::AtMost(MAX_PAYLOAD_BYTES as u64),
        ))
}

const fn no_room(given: usize, payload: usize) -> ParseError {
    let needed = FRAME_HEADER_BYTES.saturating_add(payload);
    ParseError::new(
        Rule::FrameRoom,
        0,
        given as u64,
        Allowed::AtLeast(needed as u64),
    )
}

/// A frame that is whole and undamaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its header.
    pub header: FrameHeader,
    /// Its payload.
    pub payload: &'a [u8],
    /// Where it begins in the decoder's buffer.
    pub offset: usize,
}

/// What a [`Decoder`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'a> {
    /// A frame.
    Frame(Frame<'a>),
    /// The frame that begins here needs so many bytes more, at least.
    NeedMore(usize),
    /// The buffer ends where a frame ends.
    End,
}

/// Takes frames off a buffer, and proves each.
#[derive(Debug, Clone)]
pub struct Decoder<'a> {
    rest: &'a [u8],
    offset: usize,
}

impl<'a> Decoder<'a> {
    /// At the start of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            offset: 0,
        }
    }

    /// The next frame. After an error or [`Step::NeedMore`] the decoder stands where it stood.
    pub fn step(&mut self) -> Result<Step<'a>, StreamError> {
        if self.rest.is_empty() {
            return Ok(Step::End);
        }
        if self.rest.len() < FRAME_HEADER_BYTES {
            return Ok(Step::NeedMore(FRAME_HEADER_BYTES - self.rest.len()));
        }
        let header = FrameHeader::parse(self.rest).map_err(|error| error.within(self.offset))?;
        let Some((_, payload, rest)) = FrameHeader::split(self.rest) else {
            return Ok(Step::NeedMore(
                header.frame_len().saturating_sub(self.rest.len()),
            ));
        };
        header
            .verify(payload)
            .map_err(|error| error.within(self.offset))?;
        let frame = Frame {
            header,
            payload,
            offset: self.offset,
        };
        self.rest = rest;
        self.offset = self.offset.saturating_add(header.frame_len());
        Ok(Step::Frame(frame))
    }

    /// Bytes taken so far: what a ring buffer may drop.
    #[must_use]
    pub const fn consumed(&self) -> usize {
        self.offset
    }
}

/// Writes the frames of one direction of one connection, counting them.
#[derive(Debug, Clone, Default)]
pub struct Writer {
    sequence: u32,
}

impl Writer {
    /// Before the first frame.
    #[must_use]
    pub const fn new() -> Self {
        Self { sequence: 0 }
    }

    /// Writes one frame whose payload, zeroed and of `length` bytes, is filled
    /// in place. Returns the frame's length. On an error no number is used up.
    pub fn frame(
        &mut self,
        out: &mut [u8],
        record: RecordType,
        length: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), StreamError>,
    ) -> Result<usize, StreamError> {
        let given = out.len();
        let header = FrameHeader {
            length: length_of(length)?,
            record: record.code(),
            flags: 0,
            sequence: self.sequence,
            crc: 0,
        };
        let frame = out
            .get_mut(..header.frame_len())
            .ok_or_else(|| no_room(given, length))?;
        let (head, payload) = frame
            .split_at_mut_checked(FRAME_HEADER_BYTES)
            .ok_or_else(|| no_room(given, length))?;
        payload.fill(0);
        fill(payload)?;
        head.copy_from_slice(header.as_bytes());
        seal(frame)?;
        self.sequence = self.sequence.wrapping_add(1);
        Ok(header.frame_len())
    }
}
