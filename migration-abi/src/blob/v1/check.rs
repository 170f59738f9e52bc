//! The rules of a version 1 blob's header and directory, shared by reader and writer.

use core::mem::offset_of;

use super::{
    DirectoryEntry, ENTRY_BYTES, EntryFlags, HEADER_BYTES, Header, Incompatible, MAX_COMPONENTS,
    MAX_ENTRY_BYTES, MAX_HEADER_BYTES, MAX_IMAGE_BYTES, MIN_IMAGE_BYTES, VERSION,
};
use crate::blob::{BlobError, MAGIC};
use crate::error::{Allowed, ParseError, Rule};
use crate::mutants::rule;

/// The header's own rules, each field against constants.
#[inline(always)]
pub(super) fn check_header(header: &Header) -> Result<(), BlobError> {
    use Allowed::{AtMost, Between, Bits, Exactly};
    let number =
        |rule, offset, seen: u64, allowed| Err(ParseError::new(rule, offset, seen, allowed));

    if rule!("blob-magic") && header.magic != MAGIC {
        let allowed = Exactly(u64::from_le_bytes(MAGIC));
        return number(
            Rule::BlobMagic,
            0,
            u64::from_le_bytes(header.magic),
            allowed,
        );
    }
    if rule!("blob-version") && header.version != VERSION {
        let offset = offset_of!(Header, version);
        return number(
            Rule::BlobVersion,
            offset,
            u64::from(header.version),
            Exactly(u64::from(VERSION)),
        );
    }
    let unknown = header.incompatible & !Incompatible::all().bits();
    if rule!("blob-incompatible") && unknown != 0 {
        let (offset, known) = (
            offset_of!(Header, incompatible),
            u64::from(Incompatible::all().bits()),
        );
        return number(
            Rule::BlobIncompatible,
            offset,
            u64::from(header.incompatible),
            Bits(known),
        );
    }
    let header_len = usize::from(header.header_len);
    if rule!("blob-header-length")
        && (!(HEADER_BYTES..=MAX_HEADER_BYTES).contains(&header_len)
            || !header_len.is_multiple_of(8))
    {
        let allowed = Allowed::Words("96 to 128, a multiple of 8");
        return number(
            Rule::BlobHeaderLength,
            offset_of!(Header, header_len),
            header_len as u64,
            allowed,
        );
    }
    let entry_len = usize::from(header.dir_entry_len);
    if rule!("blob-entry-length")
        && (!(ENTRY_BYTES..=MAX_ENTRY_BYTES).contains(&entry_len) || !entry_len.is_multiple_of(4))
    {
        let allowed = Allowed::Words("16 to 64, a multiple of 4");
        return number(
            Rule::BlobEntryLength,
            offset_of!(Header, dir_entry_len),
            entry_len as u64,
            allowed,
        );
    }
    if rule!("blob-directory") && usize::from(header.dir_entries) > MAX_COMPONENTS {
        let allowed = AtMost(MAX_COMPONENTS as u64);
        return number(
            Rule::BlobDirectory,
            offset_of!(Header, dir_entries),
            u64::from(header.dir_entries),
            allowed,
        );
    }
    if rule!("blob-mask") && header.xstate_mask >> MAX_COMPONENTS != 0 {
        let allowed = Bits(!(1 << MAX_COMPONENTS));
        let offset = offset_of!(Header, xstate_mask);
        return number(Rule::BlobMask, offset, header.xstate_mask, allowed);
    }
    let image_len = header.image_len as usize;
    if rule!("blob-image-length") && !(MIN_IMAGE_BYTES..=MAX_IMAGE_BYTES).contains(&image_len) {
        let allowed = Between(MIN_IMAGE_BYTES as u64, MAX_IMAGE_BYTES as u64);
        return number(
            Rule::BlobImageLength,
            offset_of!(Header, image_len),
            image_len as u64,
            allowed,
        );
    }
    if rule!("blob-reserved") && header.reserved != 0 {
        let offset = offset_of!(Header, reserved);
        return number(
            Rule::BlobReserved,
            offset,
            u64::from(header.reserved),
            Exactly(0),
        );
    }
    Ok(())
}

/// The directory is `xstate_mask`, spelled out: each component once, ascending.
pub(super) fn check_directory(
    header: &Header,
    entries: impl Iterator<Item = DirectoryEntry>,
    base: usize,
) -> Result<(), BlobError> {
    check_directory_like(header, entries, base, |_, _| false).map(|_| ())
}

/// The same; an entry that is `known` keeps the rules. Says whether all were.
#[inline(always)]
pub(super) fn check_directory_like(
    header: &Header,
    entries: impl Iterator<Item = DirectoryEntry>,
    base: usize,
    known: impl Fn(u32, &DirectoryEntry) -> bool,
) -> Result<bool, BlobError> {
    let mask = header.xstate_mask;
    if rule!("blob-directory") && u32::from(header.dir_entries) != mask.count_ones() {
        let (offset, seen) = (
            offset_of!(Header, dir_entries),
            u64::from(header.dir_entries),
        );
        let allowed = Allowed::Exactly(u64::from(mask.count_ones()));
        return Err(ParseError::new(Rule::BlobDirectory, offset, seen, allowed));
    }
    let mut left = mask;
    let mut all_known = true;
    for (position, entry) in entries.enumerate() {
        let expected = left.trailing_zeros();
        left &= left.wrapping_sub(1);
        if known(expected, &entry) {
            continue;
        }
        all_known = false;
        let at = base + position * usize::from(header.dir_entry_len);
        if rule!("blob-directory") && entry.index != expected {
            let (seen, allowed) = (
                u64::from(entry.index),
                Allowed::Exactly(u64::from(expected)),
            );
            return Err(ParseError::new(
                Rule::BlobDirectory,
                at + offset_of!(DirectoryEntry, index),
                seen,
                allowed,
            ));
        }
        check_entry(&entry).map_err(|error| error.within(at))?;
    }
    Ok(all_known)
}

/// One directory entry's own rules.
pub(super) fn check_entry(entry: &DirectoryEntry) -> Result<(), BlobError> {
    let known = EntryFlags::all().bits();
    if rule!("blob-entry-flags") && entry.flags & !known != 0 {
        let (offset, allowed) = (
            offset_of!(DirectoryEntry, flags),
            Allowed::Bits(u64::from(known)),
        );
        return Err(ParseError::new(
            Rule::BlobEntryFlags,
            offset,
            u64::from(entry.flags),
            allowed,
        ));
    }
    // x87 and SSE have no leaf 0xD; what stands here for them is a convention,
    // so there is one way to write it.
    let fixed = match entry.index {
        0 => Some((0, 160, 0)),
        1 => Some((160, 256, 0)),
        _ => None,
    };
    if let Some((offset, size, flags)) = fixed {
        let fields = [
            (offset_of!(DirectoryEntry, size), entry.size, size),
            (offset_of!(DirectoryEntry, flags), entry.flags, flags),
            (
                offset_of!(DirectoryEntry, standard_offset),
                entry.standard_offset,
                offset,
            ),
        ];
        for (at, seen, value) in fields {
            if rule!("blob-legacy-entry") && seen != value {
                let allowed = Allowed::Exactly(u64::from(value));
                return Err(ParseError::new(
                    Rule::BlobLegacyEntry,
                    at,
                    u64::from(seen),
                    allowed,
                ));
            }
        }
    }
    if rule!("blob-supervisor-offset")
        && entry.flags & EntryFlags::SUPERVISOR.bits() != 0
        && entry.standard_offset != 0
    {
        let (offset, seen) = (
            offset_of!(DirectoryEntry, standard_offset),
            u64::from(entry.standard_offset),
        );
        return Err(ParseError::new(
            Rule::BlobSupervisorOffset,
            offset,
            seen,
            Allowed::Exactly(0),
        ));
    }
    Ok(())
}
