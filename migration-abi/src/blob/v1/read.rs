//! Reads a version 1 blob: borrows, allocates nothing, cannot panic.
//!
//! Lengths come first, in the order in which later ones depend on earlier
//! ones; then the checksum; then what the fields say of each other. Whether
//! the state is one that this host may run is `vcpu-xstate::validate`'s.

use core::mem::offset_of;

use zerocopy::FromBytes;

use super::check::{check_directory_like, check_header};
use super::layouts::Words;
use super::{
    CRC_BYTES, DirectoryEntry, ENTRY_BYTES, Fields, HEADER_BYTES, Header, Incompatible, Layouts,
    MAX_IMAGE_BYTES, MIN_IMAGE_BYTES, XCOMP_BV_OFFSET,
};
use crate::blob::BlobError;
use crate::crc32c::crc32c;
use crate::error::{Allowed, ParseError, Rule};
use crate::mutants::rule;

/// A blob whose bytes are in order. Still untrusted in what it claims.
#[derive(Debug, Clone, Copy)]
pub struct Blob<'a> {
    header: Header,
    directory: Directory<'a>,
    image: &'a [u8],
}

impl<'a> Blob<'a> {
    /// Reads a blob that fills `bytes` exactly.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BlobError> {
        Self::read(bytes, |_, _| false).map(|(blob, _)| blob)
    }

    /// The same on a machine with these layouts. Says whether the blob's are the
    /// same, component for component of its `xstate_mask`.
    pub fn parse_on(bytes: &'a [u8], layouts: &Layouts) -> Result<(Self, bool), BlobError> {
        Self::read(bytes, |index, entry| layouts.has(index, entry))
    }

    fn read(
        bytes: &'a [u8],
        known: impl Fn(u32, &DirectoryEntry) -> bool,
    ) -> Result<(Self, bool), BlobError> {
        let (header, parts) = Parts::split(bytes)?;
        if let Some(trailer) = parts.trailer {
            check_crc(parts.covered, trailer)?;
        }
        let directory = Directory {
            bytes: parts.directory,
            entry_len: usize::from(header.dir_entry_len),
        };
        let base = usize::from(header.header_len);
        let all_known = check_directory_like(&header, directory.iter(), base, known)?;
        check_image(&header, parts.image, base + parts.directory.len())?;
        let blob = Self {
            header,
            directory,
            image: parts.image,
        };
        Ok((blob, all_known))
    }

    /// The header as it stands.
    #[must_use]
    #[inline(always)]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// The layouts, one entry for each bit of `xstate_mask`, ascending.
    #[must_use]
    pub const fn directory(&self) -> Directory<'a> {
        self.directory
    }

    /// The compacted image.
    #[must_use]
    #[inline(always)]
    pub const fn image(&self) -> &'a [u8] {
        self.image
    }

    /// The incompatible flags, all known.
    #[must_use]
    #[inline(always)]
    pub const fn flags(&self) -> Incompatible {
        Incompatible::from_bits_truncate(self.header.incompatible)
    }
}

/// The component directory, read entry by entry where it lies.
#[derive(Debug, Clone, Copy)]
pub struct Directory<'a> {
    bytes: &'a [u8],
    entry_len: usize,
}

impl<'a> Directory<'a> {
    /// The entries, ascending by index. What a longer entry says beyond version 1 is skipped.
    #[inline(always)]
    pub fn iter(self) -> impl Iterator<Item = DirectoryEntry> + Clone + 'a {
        // `max(1)`: `Parts::split` has refused shorter entries, and chunks of 0 would panic.
        self.bytes
            .chunks_exact(self.entry_len.max(1))
            .filter_map(|chunk| {
                DirectoryEntry::read_from_prefix(chunk)
                    .ok()
                    .map(|(entry, _)| entry)
            })
    }

    /// Number of entries.
    #[must_use]
    pub const fn len(self) -> usize {
        match self.bytes.len().checked_div(self.entry_len) {
            Some(entries) => entries,
            None => 0,
        }
    }

    /// Whether there are none (never, in a blob of a vCPU that has x87).
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// Where the parts of a blob lie, by its header's lengths alone.
struct Parts<'a> {
    directory: &'a [u8],
    image: &'a [u8],
    /// All that the checksum covers.
    covered: &'a [u8],
    trailer: Option<&'a [u8]>,
}

impl<'a> Parts<'a> {
    #[inline(always)]
    fn split(bytes: &'a [u8]) -> Result<(Header, Self), BlobError> {
        let (header, total) = lengths(bytes)?;
        let short = || {
            stop(
                Rule::BlobLength,
                offset_of!(Header, total_len),
                bytes.len(),
                Allowed::AtLeast(total as u64),
            )
        };
        let (covered, trailer) = if header.incompatible & Incompatible::CRC.bits() != 0 {
            let cut = total.checked_sub(CRC_BYTES).ok_or_else(short)?;
            let (covered, trailer) = bytes.split_at_checked(cut).ok_or_else(short)?;
            (covered, Some(trailer))
        } else {
            (bytes, None)
        };
        let directory_len = usize::from(header.dir_entries) * usize::from(header.dir_entry_len);
        let body = covered
            .get(usize::from(header.header_len)..)
            .ok_or_else(short)?;
        let (directory, image) = body.split_at_checked(directory_len).ok_or_else(short)?;
        Ok((
            header,
            Self {
                directory,
                image,
                covered,
                trailer,
            },
        ))
    }
}

/// Reads the header and proves that its lengths add up to `bytes` exactly;
/// gives the total. Nothing past the header is looked at.
#[inline(always)]
fn lengths(bytes: &[u8]) -> Result<(Header, usize), BlobError> {
    let Ok((header, _)) = Header::read_from_prefix(bytes) else {
        return Err(stop(
            Rule::BlobLength,
            0,
            bytes.len(),
            Allowed::AtLeast(HEADER_BYTES as u64),
        ));
    };
    check_header(&header)?;
    let trailer = if header.incompatible & Incompatible::CRC.bits() != 0 {
        CRC_BYTES
    } else {
        0
    };
    let total = usize::from(header.header_len)
        + usize::from(header.dir_entries) * usize::from(header.dir_entry_len)
        + header.image_len as usize
        + trailer;
    if rule!("blob-total") && header.total_len != total as u64 {
        let offset = offset_of!(Header, total_len);
        return Err(ParseError::new(
            Rule::BlobTotal,
            offset,
            header.total_len,
            Allowed::Exactly(total as u64),
        ));
    }
    if rule!("blob-length") && bytes.len() != total {
        return Err(stop(
            Rule::BlobLength,
            0,
            bytes.len(),
            Allowed::Exactly(total as u64),
        ));
    }
    Ok((header, total))
}

/// A blob as this very machine would have written it.
#[derive(Debug, Clone, Copy)]
pub struct Own<'a> {
    /// What it says.
    pub fields: Fields,
    /// The compacted image.
    pub image: &'a [u8],
}

impl<'a> Own<'a> {
    /// The blob, if every byte before its image is what the writer of this
    /// version would have written here, without a checksum, for what it says of
    /// registers. Then it keeps all rules of its form, because the writer does,
    /// and its layouts are this machine's. Whatever else a reader takes, or
    /// refuses, is [`Blob::parse_on`]'s.
    #[inline(always)]
    pub fn parse(bytes: &'a [u8], layouts: &Layouts) -> Option<Self> {
        let (header, body) = bytes.split_first_chunk::<HEADER_BYTES>()?;
        let (words, _) = header.as_chunks::<8>();
        let word = |at: usize| u64::from_le_bytes(words[at / 8]);
        let xstate_mask = word(offset_of!(Header, xstate_mask));
        let xcomp_bv = word(offset_of!(Header, xcomp_bv));
        let flags = word(offset_of!(Header, compatible));
        let no_xsave = flags & NO_XSAVE != 0;

        let own = layouts.directory(xstate_mask)?;
        let (directory, image) = body.split_at_checked(own.bytes())?;
        let in_image = image.get(XCOMP_BV_OFFSET..)?.first_chunk::<8>()?;
        // What no register of a guest decides: the first words, and the last.
        let written = Fields {
            no_xsave,
            ..Fields::default()
        };
        let written = written
            .header_of(own.len(), image.len(), bytes.len())
            .words();
        let differs = |at: usize| word(at) ^ written[at / 8];
        let otherwise = differs(offset_of!(Header, magic))
            | differs(offset_of!(Header, version))
            | differs(offset_of!(Header, compatible))
            | differs(offset_of!(Header, total_len))
            | differs(offset_of!(Header, image_len))
            | unlike(directory, own.entries())
            | u64::from_le_bytes(*in_image) ^ xcomp_bv;
        let possible = (MIN_IMAGE_BYTES..=MAX_IMAGE_BYTES).contains(&image.len());
        if otherwise != 0 || !possible {
            return None;
        }
        let fields = Fields {
            xstate_mask,
            xcr0: word(offset_of!(Header, xcr0)),
            xss: word(offset_of!(Header, xss)),
            xfd: word(offset_of!(Header, xfd)),
            xfd_err: word(offset_of!(Header, xfd_err)),
            accum: word(offset_of!(Header, accum)),
            xcomp_bv,
            no_xsave,
            crc: false,
        };
        Some(Self { fields, image })
    }
}

/// The flag in the word that begins with the compatible flags.
const NO_XSAVE: u64 = (Incompatible::NO_XSAVE.bits() as u64) << 32;

/// Whether a directory consists of other words than the first ones of these: 0
/// if not.
#[inline(always)]
fn unlike(directory: &[u8], own: &[Words; 64]) -> u64 {
    let entry_unlike = |entry: &[u8; ENTRY_BYTES], own: &Words| {
        let (words, _) = entry.as_chunks::<8>();
        let [first, second] = [words[0], words[1]].map(u64::from_le_bytes);
        first ^ own[0] | second ^ own[1]
    };
    // Two at a time: the loop itself takes as long as one.
    let (entries, _) = directory.as_chunks::<ENTRY_BYTES>();
    let (pairs, last) = entries.as_chunks::<2>();
    let (own_pairs, _) = own.as_chunks::<2>();
    let mut unlike = 0;
    for ([first, second], own) in pairs.iter().zip(own_pairs) {
        unlike |= entry_unlike(first, &own[0]) | entry_unlike(second, &own[1]);
    }
    if let [last] = last {
        unlike |= entry_unlike(last, &own[(2 * pairs.len()) % own.len()]);
    }
    unlike
}

/// XCOMP_BV stands twice, and both copies agree.
#[inline(always)]
fn check_image(header: &Header, image: &[u8], base: usize) -> Result<(), BlobError> {
    let copy = image
        .get(XCOMP_BV_OFFSET..)
        .and_then(|tail| tail.first_chunk::<8>());
    let copy = copy.map(|bytes| u64::from_le_bytes(*bytes));
    if rule!("blob-xcomp-bv") && copy != Some(header.xcomp_bv) {
        let allowed = Allowed::Exactly(header.xcomp_bv);
        return Err(ParseError::new(
            Rule::BlobXcompBv,
            base + XCOMP_BV_OFFSET,
            copy.unwrap_or(0),
            allowed,
        ));
    }
    Ok(())
}

#[cold]
fn check_crc(covered: &[u8], trailer: &[u8]) -> Result<(), BlobError> {
    let computed = crc32c(covered);
    if rule!("blob-crc") && trailer != computed.to_le_bytes() {
        let seen = trailer
            .first_chunk::<4>()
            .map_or(0, |bytes| u32::from_le_bytes(*bytes));
        let allowed = Allowed::Exactly(u64::from(computed));
        return Err(ParseError::new(
            Rule::BlobCrc,
            covered.len(),
            u64::from(seen),
            allowed,
        ));
    }
    Ok(())
}

const fn stop(rule: Rule, offset: usize, seen: usize, allowed: Allowed) -> ParseError {
    ParseError::new(rule, offset, seen as u64, allowed)
}
