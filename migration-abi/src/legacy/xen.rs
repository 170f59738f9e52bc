//! Xen's records of extended state: of PV vCPUs and of HVM vCPUs.
//!
//! PV: what XEN_DOMCTL_getvcpuextstate gives, and with eight bytes before it
//! the body of the migration stream's X86_PV_VCPU_XSAVE. HVM: the save record
//! CPU_XSAVE. Both hold one standard image, as long as `xcr0_accum` makes it.
//!
//! A vCPU may have no extended state at all. Xen then says `{0, 0}` (no XCR0
//! is 0, but a PV guest that never touched the state got that), older Xens
//! sent records without a body, and Xens before 4.12 sent HVM records of
//! guests that had not enabled XSAVE. All of these read as a record without an
//! image: the vCPU's x87 and SSE stand in its other record, as FXSAVE wrote them.

use core::mem::size_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::area::Area;
use crate::error::{Allowed, ParseError, Rule};
use crate::mutants::rule;

/// Type code of the HVM save record.
pub const CPU_XSAVE_CODE: u16 = 16;
/// Type of the migration stream's record.
pub const X86_PV_VCPU_XSAVE: u32 = 6;
/// Where the image begins in a PV record.
pub const PV_IMAGE_OFFSET: usize = size_of::<PvHead>();
/// Where the image begins in the body of an HVM record.
pub const HVM_IMAGE_OFFSET: usize = size_of::<HvmHead>();
/// Length of what is before the body of an HVM record.
pub const DESCRIPTOR_BYTES: usize = size_of::<Descriptor>();
/// Length of what is before a PV record in the migration stream: type and
/// length of the record, number of the vCPU.
pub const STREAM_HEAD_BYTES: usize = size_of::<StreamHead>();

/// What a stream's record is padded with.
const PADDING: [u8; 8] = [0; 8];

/// Before the image of a PV vCPU.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct PvHead {
    xcr0: u64,
    xcr0_accum: u64,
}

/// Before the image of an HVM vCPU (`hvm_hw_cpu_xsave`).
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct HvmHead {
    xfeature_mask: u64,
    xcr0: u64,
    xcr0_accum: u64,
}

/// Before every HVM record (`hvm_save_descriptor`).
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Descriptor {
    typecode: u16,
    instance: u16,
    length: u32,
}

/// Before a PV vCPU's record in the stream. `length` counts from `vcpu_id`,
/// and the record is padded to eight bytes.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct StreamHead {
    record_type: u32,
    length: u32,
    vcpu_id: u32,
    reserved: u32,
}

const _: () = assert!(size_of::<PvHead>() == 16);
const _: () = assert!(size_of::<HvmHead>() == 24);
const _: () = assert!(size_of::<Descriptor>() == 8);
const _: () = assert!(size_of::<StreamHead>() == 16);

/// A PV vCPU's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PvRecord<'a> {
    /// XCR0; 0 without an image.
    pub xcr0: u64,
    /// All that was ever enabled in XCR0; 0 without an image.
    pub xcr0_accum: u64,
    /// The image, exactly as long as `xcr0_accum` makes it on that machine.
    pub area: Option<Area<'a>>,
}

/// An HVM vCPU's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HvmRecord<'a> {
    /// What the Xen that wrote it used of the machine. Says nothing of the vCPU.
    pub xfeature_mask: u64,
    /// XCR0; 0 without an image.
    pub xcr0: u64,
    /// All that was ever enabled in XCR0; 0 without an image.
    pub xcr0_accum: u64,
    /// The image, as long as `xcr0_accum` makes it on that machine, or longer
    /// by zeros (Xen 4.3.0, 4.2.3 and older).
    pub area: Option<Area<'a>>,
}

impl<'a> PvRecord<'a> {
    /// Reads the buffer of XEN_DOMCTL_getvcpuextstate, of the size that the
    /// call gave back.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let (head, rest) =
            PvHead::read_from_prefix(bytes).map_err(|_| length(bytes.len(), PV_IMAGE_OFFSET))?;
        let area = image(head.xcr0, head.xcr0_accum, rest, PV_IMAGE_OFFSET)?;
        Ok(Self {
            xcr0: head.xcr0,
            xcr0_accum: head.xcr0_accum,
            area,
        })
    }

    /// Reads an X86_PV_VCPU_XSAVE at the start of `bytes`; gives the vCPU, its
    /// record, and how many bytes were read, padding included.
    pub fn parse_stream(bytes: &'a [u8]) -> Result<(u32, Self, usize), ParseError> {
        let (head, rest) = StreamHead::read_from_prefix(bytes)
            .map_err(|_| length(bytes.len(), STREAM_HEAD_BYTES))?;
        if rule!("legacy-xen-type") && head.record_type != X86_PV_VCPU_XSAVE {
            return Err(record_type(head.record_type, X86_PV_VCPU_XSAVE));
        }
        if rule!("legacy-xen-reserved") && head.reserved != 0 {
            let (at, seen) = (12, u64::from(head.reserved));
            let allowed = Allowed::Exactly(0);
            return Err(ParseError::new(Rule::LegacyXenReserved, at, seen, allowed));
        }
        // From the number of the vCPU on, which is 8 bytes.
        let body = (head.length as usize)
            .checked_sub(8)
            .ok_or_else(|| at(4, length(head.length as usize, 8)))?;
        let padded = body.next_multiple_of(8);
        if rest.len() < padded {
            return Err(length(bytes.len(), STREAM_HEAD_BYTES + padded));
        }
        let body = rest.get(..body).unwrap_or_default();
        let record = Self::parse(body).map_err(|error| error.within(STREAM_HEAD_BYTES))?;
        Ok((head.vcpu_id, record, STREAM_HEAD_BYTES + padded))
    }

    /// Bytes that [`encode`](Self::encode) writes.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        PV_IMAGE_OFFSET + self.area.map_or(0, |area| area.bytes().len())
    }

    /// Bytes that [`encode_stream`](Self::encode_stream) writes.
    #[must_use]
    pub fn stream_len(&self) -> usize {
        STREAM_HEAD_BYTES + self.encoded_len().next_multiple_of(8)
    }

    /// Writes the record at the start of `out`; gives its length.
    ///
    /// Errors: `out` is too small, or the record is one that `parse` refuses.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, ParseError> {
        let head = PvHead {
            xcr0: self.xcr0,
            xcr0_accum: self.xcr0_accum,
        };
        let written = put(out, &[head.as_bytes(), image_bytes(self.area)])?;
        PvRecord::parse(out.get(..written).unwrap_or_default())?;
        Ok(written)
    }

    /// Writes it as X86_PV_VCPU_XSAVE, padded with zeros; gives its length.
    ///
    /// Errors: as [`encode`](Self::encode).
    pub fn encode_stream(&self, vcpu_id: u32, out: &mut [u8]) -> Result<usize, ParseError> {
        let len = self.encoded_len();
        let head = StreamHead {
            record_type: X86_PV_VCPU_XSAVE,
            length: u32::try_from(len + 8).unwrap_or(u32::MAX),
            vcpu_id,
            reserved: 0,
        };
        let registers = PvHead {
            xcr0: self.xcr0,
            xcr0_accum: self.xcr0_accum,
        };
        let padding = len.next_multiple_of(8) - len;
        let parts = [
            head.as_bytes(),
            registers.as_bytes(),
            image_bytes(self.area),
            PADDING.get(..padding).unwrap_or_default(),
        ];
        let written = put(out, &parts)?;
        PvRecord::parse_stream(out.get(..written).unwrap_or_default())?;
        Ok(written)
    }
}

impl<'a> HvmRecord<'a> {
    /// Reads a record's body.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let (head, rest) =
            HvmHead::read_from_prefix(bytes).map_err(|_| length(bytes.len(), HVM_IMAGE_OFFSET))?;
        // Before 4.12 also where XSAVE was not enabled: nothing, at length.
        let nothing = head.xcr0 == 0 && head.xcr0_accum == 0 && rest.iter().all(|b| *b == 0);
        let area = if nothing {
            None
        } else {
            image(head.xcr0, head.xcr0_accum, rest, HVM_IMAGE_OFFSET)?
        };
        Ok(Self {
            xfeature_mask: head.xfeature_mask,
            xcr0: head.xcr0,
            xcr0_accum: head.xcr0_accum,
            area,
        })
    }

    /// Reads a record with its descriptor at the start of `bytes`; gives the
    /// vCPU, its record, and how many bytes were read.
    pub fn parse_save(bytes: &'a [u8]) -> Result<(u16, Self, usize), ParseError> {
        let (descriptor, rest) = Descriptor::read_from_prefix(bytes)
            .map_err(|_| length(bytes.len(), DESCRIPTOR_BYTES))?;
        if rule!("legacy-xen-type") && descriptor.typecode != CPU_XSAVE_CODE {
            let (seen, code) = (descriptor.typecode.into(), CPU_XSAVE_CODE.into());
            return Err(record_type(seen, code));
        }
        let total = DESCRIPTOR_BYTES.saturating_add(descriptor.length as usize);
        let body = rest
            .get(..descriptor.length as usize)
            .ok_or_else(|| length(bytes.len(), total))?;
        let record = Self::parse(body).map_err(|error| error.within(DESCRIPTOR_BYTES))?;
        Ok((descriptor.instance, record, total))
    }

    /// Bytes that [`encode`](Self::encode) writes.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        HVM_IMAGE_OFFSET + self.area.map_or(0, |area| area.bytes().len())
    }

    /// Writes the body at the start of `out`; gives its length.
    ///
    /// Errors: `out` is too small, or the record is one that `parse` refuses.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, ParseError> {
        let written = put(out, &[self.head().as_bytes(), image_bytes(self.area)])?;
        HvmRecord::parse(out.get(..written).unwrap_or_default())?;
        Ok(written)
    }

    /// Writes it with its descriptor; gives the length of both.
    ///
    /// Errors: as [`encode`](Self::encode).
    pub fn encode_save(&self, vcpu: u16, out: &mut [u8]) -> Result<usize, ParseError> {
        let descriptor = Descriptor {
            typecode: CPU_XSAVE_CODE,
            instance: vcpu,
            length: u32::try_from(self.encoded_len()).unwrap_or(u32::MAX),
        };
        let head = self.head();
        let parts = [
            descriptor.as_bytes(),
            head.as_bytes(),
            image_bytes(self.area),
        ];
        let written = put(out, &parts)?;
        HvmRecord::parse_save(out.get(..written).unwrap_or_default())?;
        Ok(written)
    }

    const fn head(&self) -> HvmHead {
        HvmHead {
            xfeature_mask: self.xfeature_mask,
            xcr0: self.xcr0,
            xcr0_accum: self.xcr0_accum,
        }
    }
}

/// What follows the registers: a standard image, or nothing where they are 0.
fn image(
    xcr0: u64,
    xcr0_accum: u64,
    bytes: &[u8],
    offset: usize,
) -> Result<Option<Area<'_>>, ParseError> {
    let empty = xcr0 == 0 && xcr0_accum == 0;
    match (bytes.is_empty(), empty) {
        (true, false) if rule!("legacy-xen-empty") => {
            let allowed = Allowed::Exactly(0);
            let seen = xcr0 | xcr0_accum;
            let registers = offset - size_of::<PvHead>();
            Err(ParseError::new(
                Rule::LegacyXenEmpty,
                registers,
                seen,
                allowed,
            ))
        }
        (false, true) if rule!("legacy-xen-empty") => {
            let allowed = Allowed::Exactly(offset as u64);
            let seen = (offset + bytes.len()) as u64;
            Err(ParseError::new(Rule::LegacyXenEmpty, 0, seen, allowed))
        }
        (true, _) => Ok(None),
        (false, _) => Area::parse_standard(bytes)
            .map(Some)
            .map_err(|error| error.within(offset)),
    }
}

fn image_bytes(area: Option<Area<'_>>) -> &[u8] {
    area.map_or(&[], |area| area.bytes())
}

/// Writes the parts one behind the other.
fn put(out: &mut [u8], parts: &[&[u8]]) -> Result<usize, ParseError> {
    let (given, needed) = (out.len(), parts.iter().map(|part| part.len()).sum());
    let mut rest = out;
    for part in parts {
        let Some((place, behind)) = rest.split_at_mut_checked(part.len()) else {
            let least = Allowed::AtLeast(needed as u64);
            return Err(ParseError::new(Rule::LegacyRoom, 0, given as u64, least));
        };
        place.copy_from_slice(part);
        rest = behind;
    }
    Ok(needed)
}

const fn length(seen: usize, least: usize) -> ParseError {
    let allowed = Allowed::AtLeast(least as u64);
    ParseError::new(Rule::LegacyXenLength, 0, seen as u64, allowed)
}

const fn at(offset: usize, error: ParseError) -> ParseError {
    ParseError { offset, ..error }
}

fn record_type(seen: u32, right: u32) -> ParseError {
    let allowed = Allowed::Exactly(right.into());
    ParseError::new(Rule::LegacyXenType, 0, seen.into(), allowed)
}
