//! An ELF64 image with a PVH entry, read from bytes that nobody vouches for.

use crate::error::Error;
use alloc::vec::Vec;
use core::fmt;

/// Xen's note that names the 32-bit entry (public header elfnote.h).
const NOTE_PHYS32_ENTRY: u32 = 18;
const TYPE_EXECUTABLE: u16 = 2;
const MACHINE_X86_64: u16 = 62;
const HEADER_BYTES: u64 = 64;
const PROGRAM_HEADER_BYTES: u64 = 56;
const MAX_PROGRAM_HEADERS: u16 = 64;
const LOAD: u32 = 1;
const NOTE: u32 = 4;
const EXECUTE: u32 = 1;

/// What of the image is to lie where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Guest-physical address.
    pub address: u64,
    /// What is copied there.
    pub data: &'a [u8],
    /// Its length in memory; what `data` does not fill is zero.
    pub memory_bytes: u64,
    /// Whether it holds code.
    pub executable: bool,
}

impl Segment<'_> {
    /// Behind its last byte. Cannot overflow: checked when it was read.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.address.saturating_add(self.memory_bytes)
    }
}

/// A program that can be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image<'a> {
    /// Where it starts, in 32-bit protected mode.
    pub entry: u32,
    /// Its segments, by address, none over another.
    pub segments: Vec<Segment<'a>>,
}

impl<'a> Image<'a> {
    /// Reads it.
    ///
    /// # Errors
    /// The rule that `bytes` break, what was seen and what is allowed.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        if bytes.get(..4) != Some(b"\x7fELF") {
            return Err(Error::rule("elf-magic", Hex(bytes.get(..4)), "7f 45 4c 46"));
        }
        check("elf-class", u64::from(field::<1>(bytes, 4)?[0]), 2)?;
        check("elf-byte-order", u64::from(field::<1>(bytes, 5)?[0]), 1)?;
        check(
            "elf-type",
            u16_at(bytes, 16)?.into(),
            TYPE_EXECUTABLE.into(),
        )?;
        check(
            "elf-machine",
            u16_at(bytes, 18)?.into(),
            MACHINE_X86_64.into(),
        )?;
        check("elf-header-size", u16_at(bytes, 52)?.into(), HEADER_BYTES)?;
        check(
            "elf-program-header-size",
            u16_at(bytes, 54)?.into(),
            PROGRAM_HEADER_BYTES,
        )?;
        let count = u16_at(bytes, 56)?;
        if !(1..=MAX_PROGRAM_HEADERS).contains(&count) {
            let allowed = format_args!("1 to {MAX_PROGRAM_HEADERS}");
            return Err(Error::rule("elf-program-headers", count, allowed));
        }
        let table = u64_at(bytes, 32)?;

        let mut segments = Vec::new();
        let mut entry = None;
        for index in 0..u64::from(count) {
            // At most 64 headers of 56 bytes.
            let header = slice(
                bytes,
                table.saturating_add(index * PROGRAM_HEADER_BYTES),
                PROGRAM_HEADER_BYTES,
                "elf-program-headers",
            )?;
            match u32_at(header, 0)? {
                LOAD => segments.extend(segment(bytes, header)?),
                NOTE => {
                    let data = content(bytes, header, "elf-note")?;
                    entry = entry.or(entry_note(data)?);
                }
                _ => {}
            }
        }
        segments.sort_by_key(|segment| segment.address);
        for pair in segments.windows(2) {
            if let [below, above] = pair
                && below.end() > above.address
            {
                let allowed = format_args!("{:#x} or more", below.end());
                let seen = format_args!("a segment at {:#x}", above.address);
                return Err(Error::rule("elf-segments-overlap", seen, allowed));
            }
        }
        let missing = "a note of Xen's of type 18 (XEN_ELFNOTE_PHYS32_ENTRY)";
        let entry = entry.ok_or_else(|| Error::rule("pvh-entry-missing", "none", missing))?;
        let holds =
            |s: &Segment<'_>| s.executable && (s.address..s.end()).contains(&u64::from(entry));
        if !segments.iter().any(holds) {
            let allowed = "an address in an executable segment";
            return Err(Error::rule(
                "pvh-entry",
                format_args!("{entry:#x}"),
                allowed,
            ));
        }
        Ok(Self { entry, segments })
    }

    /// Behind the last byte of the image in memory.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.segments.last().map_or(0, Segment::end)
    }
}

/// One PT_LOAD; none where it takes no memory.
fn segment<'a>(bytes: &'a [u8], header: &[u8]) -> Result<Option<Segment<'a>>, Error> {
    let data = content(bytes, header, "elf-segment")?;
    let (address, memory_bytes) = (u64_at(header, 24)?, u64_at(header, 40)?);
    if memory_bytes < data.len() as u64 {
        let allowed = format_args!("at least its {} bytes in the file", data.len());
        return Err(Error::rule("elf-segment-memory", memory_bytes, allowed));
    }
    if address.checked_add(memory_bytes).is_none() {
        let seen = format_args!("{memory_bytes:#x} bytes at {address:#x}");
        return Err(Error::rule(
            "elf-segment-address",
            seen,
            "an end below 2^64",
        ));
    }
    let executable = u32_at(header, 4)? & EXECUTE != 0;
    Ok((memory_bytes != 0).then_some(Segment {
        address,
        data,
        memory_bytes,
        executable,
    }))
}

/// The bytes in the file that a program header names.
fn content<'a>(bytes: &'a [u8], header: &[u8], rule: &'static str) -> Result<&'a [u8], Error> {
    slice(bytes, u64_at(header, 8)?, u64_at(header, 32)?, rule)
}

/// The PVH entry, where it is among these notes.
fn entry_note(notes: &[u8]) -> Result<Option<u32>, Error> {
    let mut rest = notes;
    while rest.len() >= 12 {
        let (name_bytes, desc_bytes) = (u32_at(rest, 0)?, u32_at(rest, 4)?);
        let kind = u32_at(rest, 8)?;
        let name = slice(rest, 12, name_bytes.into(), "elf-note")?;
        let desc_at = 12 + aligned(name_bytes);
        let desc = slice(rest, desc_at, desc_bytes.into(), "elf-note")?;
        if name == b"Xen\0" && kind == NOTE_PHYS32_ENTRY {
            let value = match desc.len() {
                4 => u64::from(u32_at(desc, 0)?),
                8 => u64_at(desc, 0)?,
                other => {
                    return Err(Error::rule(
                        "pvh-entry",
                        format_args!("{other} bytes"),
                        "4 or 8",
                    ));
                }
            };
            let entry = u32::try_from(value)
                .map_err(|_| Error::rule("pvh-entry", format_args!("{value:#x}"), "32 bits"))?;
            return Ok(Some(entry));
        }
        let next = desc_at.saturating_add(aligned(desc_bytes));
        // The last note's padding may be missing.
        rest = usize::try_from(next)
            .ok()
            .and_then(|next| rest.get(next..))
            .unwrap_or_default();
    }
    Ok(None)
}

/// Notes are padded to 4 bytes.
fn aligned(bytes: u32) -> u64 {
    u64::from(bytes).next_multiple_of(4)
}

fn check(rule: &'static str, seen: u64, allowed: u64) -> Result<(), Error> {
    if seen == allowed {
        return Ok(());
    }
    Err(Error::rule(rule, seen, allowed))
}

fn slice<'a>(bytes: &'a [u8], at: u64, length: u64, rule: &'static str) -> Result<&'a [u8], Error> {
    let range = || {
        let start = usize::try_from(at).ok()?;
        let end = start.checked_add(usize::try_from(length).ok()?)?;
        bytes.get(start..end)
    };
    range().ok_or_else(|| {
        let seen = format_args!("{length} bytes at offset {at}");
        Error::rule(
            rule,
            seen,
            format_args!("what lies in {} bytes", bytes.len()),
        )
    })
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Error> {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk::<N>())
        .copied()
        .ok_or_else(|| {
            let allowed = format_args!("at least {}", at.saturating_add(N));
            Error::rule("elf-length", format_args!("{} bytes", bytes.len()), allowed)
        })
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, Error> {
    field(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, Error> {
    field(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64, Error> {
    field(bytes, at).map(u64::from_le_bytes)
}

/// Bytes for a message.
struct Hex<'a>(Option<&'a [u8]>);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(bytes) = self.0 else {
            return f.write_str("fewer than 4 bytes");
        };
        for (index, byte) in bytes.iter().enumerate() {
            write!(f, "{}{byte:02x}", if index == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "elf_tests.rs"]
mod tests;
