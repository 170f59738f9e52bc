//! HEADER and DOMAIN: what a receiver needs to refuse before the first page.

use core::mem::{offset_of, size_of};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::super::RecordType;
use super::super::frame::Writer;
use super::super::{MigrationId, PAGE_BYTES, STREAM_VERSION, StreamError};
use super::{exactly, fixed, within, write, zero};
use crate::error::{Allowed, ParseError, Rule};
use crate::mutants::rule;

const MAGIC: [u8; 8] = *b"XFSTREAM";
/// Length of a domain's name, padded with zeros.
pub const NAME_BYTES: usize = 32;
/// Most leaves of a CPUID policy.
pub const MAX_LEAVES: u32 = 256;
/// Most vCPUs.
pub const MAX_VCPUS: u32 = 4096;
/// Most pages: physical addresses have 52 bits.
const MAX_MEMORY_PAGES: u64 = 1 << 40;

/// HEADER: what the stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamHeader {
    /// Names this migration.
    pub migration_id: MigrationId,
    /// A number that the source drew when it booted: another boot, another number.
    pub boot_nonce: u64,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct WireHeader {
    magic: [u8; 8],
    version: u16,
    header_len: u16,
    page_size: u32,
    compatible: u32,
    incompatible: u32,
    migration_id: [u8; 16],
    boot_nonce: u64,
}

const _: () = assert!(size_of::<WireHeader>() == 48);

impl StreamHeader {
    /// Reads the payload. Longer than version 1 says is a compatible extension, skipped.
    pub fn parse(payload: &[u8]) -> Result<Self, StreamError> {
        let (wire, _): (WireHeader, _) = fixed(payload)?;
        let stop = |rule, offset, seen, allowed| Err(ParseError::new(rule, offset, seen, allowed));
        if rule!("stream-magic") && wire.magic != MAGIC {
            let allowed = Allowed::Exactly(u64::from_le_bytes(MAGIC));
            return stop(
                Rule::StreamMagic,
                0,
                u64::from_le_bytes(wire.magic),
                allowed,
            );
        }
        let fields = [
            (
                Rule::StreamVersion,
                offset_of!(WireHeader, version),
                u64::from(wire.version),
                u64::from(STREAM_VERSION),
            ),
            (
                Rule::StreamIncompatible,
                offset_of!(WireHeader, incompatible),
                u64::from(wire.incompatible),
                0,
            ),
            (
                Rule::StreamPageSize,
                offset_of!(WireHeader, page_size),
                u64::from(wire.page_size),
                PAGE_BYTES as u64,
            ),
        ];
        for (rule, offset, seen, value) in fields {
            if rule!(rule.name()) && seen != value {
                return stop(rule, offset, seen, Allowed::Exactly(value));
            }
        }
        let length = usize::from(wire.header_len);
        if rule!("record-length") && (length < size_of::<WireHeader>() || length != payload.len()) {
            let allowed = Allowed::Words("the payload's length, 0x30 or more");
            return stop(
                Rule::RecordLength,
                offset_of!(WireHeader, header_len),
                length as u64,
                allowed,
            );
        }
        let Some(migration_id) = MigrationId::new(wire.migration_id) else {
            let offset = offset_of!(WireHeader, migration_id);
            return stop(
                Rule::MigrationIdZero,
                offset,
                0,
                Allowed::Words("any id but zero"),
            );
        };
        Ok(Self {
            migration_id,
            boot_nonce: wire.boot_nonce,
        })
    }

    /// Writes the frame; gives its length.
    pub fn write(&self, writer: &mut Writer, out: &mut [u8]) -> Result<usize, StreamError> {
        let wire = WireHeader {
            magic: MAGIC,
            version: STREAM_VERSION,
            header_len: size_of::<WireHeader>() as u16,
            page_size: PAGE_BYTES as u32,
            compatible: 0,
            incompatible: 0,
            migration_id: *self.migration_id.bytes(),
            boot_nonce: self.boot_nonce,
        };
        write(writer, out, RecordType::Header, &[wire.as_bytes()])
    }
}

/// One leaf of the domain's CPUID policy.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct PolicyLeaf {
    /// EAX of the query.
    pub leaf: u32,
    /// ECX of the query, 0 where the leaf has no subleaves.
    pub subleaf: u32,
    /// Answer.
    pub eax: u32,
    /// Answer.
    pub ebx: u32,
    /// Answer.
    pub ecx: u32,
    /// Answer.
    pub edx: u32,
}

/// Length of a leaf on the wire.
const LEAF_BYTES: usize = size_of::<PolicyLeaf>();
const _: () = assert!(LEAF_BYTES == 24);

/// Policy leaves where they lie in the stream, aligned or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaves<'a>(&'a [u8]);

impl<'a> Leaves<'a> {
    /// To be written.
    #[must_use]
    pub fn new(leaves: &'a [PolicyLeaf]) -> Self {
        Self(leaves.as_bytes())
    }

    /// One by one.
    pub fn iter(self) -> impl ExactSizeIterator<Item = PolicyLeaf> + Clone + 'a {
        self.0
            .chunks_exact(LEAF_BYTES)
            .map(|chunk| PolicyLeaf::read_from_bytes(chunk).unwrap_or_default())
    }

    /// How many.
    #[must_use]
    pub const fn len(self) -> usize {
        self.0.len() / LEAF_BYTES
    }

    /// Whether there are none (never in a record that was read).
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0.is_empty()
    }
}

/// DOMAIN: what the domain is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Domain<'a> {
    /// Names the domain on whatever host.
    pub uuid: [u8; 16],
    /// Printable ASCII, padded with zeros.
    pub name: [u8; NAME_BYTES],
    /// Guest frames 0 to this, without it, are memory.
    pub memory_pages: u64,
    /// Guest system time at the pause.
    pub clock_ns: u64,
    /// Components that the policy adds to an area when they are first enabled.
    pub xstate_deferred: u64,
    /// vCPUs, numbered from 0.
    pub vcpus: u32,
    /// Frequency of the guest's TSC.
    pub tsc_khz: u32,
    /// It was paused by its toolstack before it was sent, and stays so where it
    /// arrives.
    pub paused: bool,
    /// CPUID policy, leaf 0xD and so the layouts among it.
    pub leaves: Leaves<'a>,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct WireDomain {
    uuid: [u8; 16],
    name: [u8; NAME_BYTES],
    memory_pages: u64,
    clock_ns: u64,
    xstate_deferred: u64,
    vcpus: u32,
    tsc_khz: u32,
    leaf_count: u32,
    flags: u32,
}

/// `flags`: the domain is paused.
const PAUSED: u32 = 1;

const _: () = assert!(size_of::<WireDomain>() == 88);

impl<'a> Domain<'a> {
    /// Reads the payload.
    pub fn parse(payload: &'a [u8]) -> Result<Self, StreamError> {
        let (wire, rest): (WireDomain, _) = fixed(payload)?;
        check_name(&wire.name)?;
        let numbers = [
            (
                Rule::DomainMemory,
                offset_of!(WireDomain, memory_pages),
                wire.memory_pages,
                1,
                MAX_MEMORY_PAGES,
            ),
            (
                Rule::DomainVcpus,
                offset_of!(WireDomain, vcpus),
                u64::from(wire.vcpus),
                1,
                u64::from(MAX_VCPUS),
            ),
            (
                Rule::DomainTsc,
                offset_of!(WireDomain, tsc_khz),
                u64::from(wire.tsc_khz),
                1,
                u64::from(u32::MAX),
            ),
            (
                Rule::DomainLeaves,
                offset_of!(WireDomain, leaf_count),
                u64::from(wire.leaf_count),
                1,
                u64::from(MAX_LEAVES),
            ),
        ];
        for (rule, offset, seen, low, high) in numbers {
            within(rule, offset, seen, low, high)?;
        }
        zero(
            offset_of!(WireDomain, flags),
            u64::from(wire.flags & !PAUSED),
        )?;
        // At most 256 leaves of 24 bytes, checked above.
        exactly(
            payload,
            size_of::<WireDomain>() + wire.leaf_count as usize * LEAF_BYTES,
        )?;
        Ok(Self {
            uuid: wire.uuid,
            name: wire.name,
            memory_pages: wire.memory_pages,
            clock_ns: wire.clock_ns,
            xstate_deferred: wire.xstate_deferred,
            vcpus: wire.vcpus,
            tsc_khz: wire.tsc_khz,
            paused: wire.flags & PAUSED != 0,
            leaves: Leaves(rest),
        })
    }

    /// Writes the frame; gives its length.
    pub fn write(&self, writer: &mut Writer, out: &mut [u8]) -> Result<usize, StreamError> {
        let wire = WireDomain {
            uuid: self.uuid,
            name: self.name,
            memory_pages: self.memory_pages,
            clock_ns: self.clock_ns,
            xstate_deferred: self.xstate_deferred,
            vcpus: self.vcpus,
            tsc_khz: self.tsc_khz,
            leaf_count: u32::try_from(self.leaves.len()).unwrap_or(u32::MAX),
            flags: if self.paused { PAUSED } else { 0 },
        };
        write(
            writer,
            out,
            RecordType::Domain,
            &[wire.as_bytes(), self.leaves.0],
        )
    }

    /// The name without its padding.
    #[must_use]
    pub fn name(&self) -> &str {
        let length = self
            .name
            .iter()
            .position(|&byte| byte == 0)
            .unwrap_or(NAME_BYTES);
        self.name
            .get(..length)
            .and_then(|name| core::str::from_utf8(name).ok())
            .unwrap_or_default()
    }
}

/// A name goes to logs and consoles: printable, and one way to pad it.
fn check_name(name: &[u8; NAME_BYTES]) -> Result<(), StreamError> {
    let length = name
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(NAME_BYTES);
    for (index, &byte) in name.iter().enumerate() {
        let legal = if index < length {
            byte.is_ascii_graphic() || byte == b' '
        } else {
            byte == 0
        };
        if rule!("domain-name") && !legal {
            let allowed = Allowed::Words("printable ASCII, then zeros");
            let offset = offset_of!(WireDomain, name) + index;
            return Err(ParseError::new(
                Rule::DomainName,
                offset,
                u64::from(byte),
                allowed,
            ));
        }
    }
    Ok(())
}
