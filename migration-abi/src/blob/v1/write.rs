//! Writes a version 1 blob into a buffer of the caller's, with the image
//! exported straight into its place.

use zerocopy::{FromBytes, IntoBytes};

use super::check::{check_directory, check_header};
use super::{
    CRC_BYTES, DirectoryEntry, ENTRY_BYTES, HEADER_BYTES, Header, Incompatible, Layouts,
    MAX_IMAGE_BYTES, MIN_IMAGE_BYTES, VERSION, XCOMP_BV_OFFSET,
};
use crate::blob::{Blob, BlobError, MAGIC};
use crate::crc32c::crc32c;
use crate::error::{Allowed, ParseError, Rule};
use crate::mutants::rule;

/// What a writer says; lengths and magics are the format's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fields {
    /// The policy: components that the vCPU may ever use.
    pub xstate_mask: u64,
    /// The guest's XCR0.
    pub xcr0: u64,
    /// The guest's IA32_XSS.
    pub xss: u64,
    /// The guest's IA32_XFD.
    pub xfd: u64,
    /// The guest's IA32_XFD_ERR.
    pub xfd_err: u64,
    /// Components that may hold state.
    pub accum: u64,
    /// The image's XCOMP_BV.
    pub xcomp_bv: u64,
    /// The policy has no XSAVE.
    pub no_xsave: bool,
    /// With the CRC trailer (files and the stream have it, the hypercall does without).
    pub crc: bool,
}

impl Fields {
    /// What a blob that was read says: written again, it gives the same bytes.
    #[must_use]
    pub const fn of(blob: &Blob<'_>) -> Self {
        let header = blob.header();
        Self {
            xstate_mask: header.xstate_mask,
            xcr0: header.xcr0,
            xss: header.xss,
            xfd: header.xfd,
            xfd_err: header.xfd_err,
            accum: header.accum,
            xcomp_bv: header.xcomp_bv,
            no_xsave: blob.flags().contains(Incompatible::NO_XSAVE),
            crc: blob.flags().contains(Incompatible::CRC),
        }
    }

    fn header(&self, image_len: usize) -> Result<Header, BlobError> {
        let header = self.unchecked_header(image_len);
        check_header(&header)?;
        Ok(header)
    }

    /// The header, by construction right but for `xstate_mask` and `image_len`.
    #[inline]
    fn unchecked_header(&self, image_len: usize) -> Header {
        let total_len = encoded_len(self.xstate_mask, image_len, self.crc).unwrap_or(usize::MAX);
        let entries = self.xstate_mask.count_ones() as usize;
        self.header_of(entries, image_len, total_len)
    }

    /// The header of a blob with so many components and of these lengths.
    #[inline(always)]
    pub(super) const fn header_of(
        &self,
        entries: usize,
        image_len: usize,
        total_len: usize,
    ) -> Header {
        let mut incompatible = 0;
        if self.crc {
            incompatible |= Incompatible::CRC.bits();
        }
        if self.no_xsave {
            incompatible |= Incompatible::NO_XSAVE.bits();
        }
        Header {
            magic: MAGIC,
            version: VERSION,
            header_len: HEADER_BYTES as u16,
            dir_entry_len: ENTRY_BYTES as u16,
            dir_entries: entries as u16,
            compatible: 0,
            incompatible,
            total_len: total_len as u64,
            xstate_mask: self.xstate_mask,
            xcr0: self.xcr0,
            xss: self.xss,
            xfd: self.xfd,
            xfd_err: self.xfd_err,
            accum: self.accum,
            xcomp_bv: self.xcomp_bv,
            image_len: if image_len > u32::MAX as usize {
                u32::MAX
            } else {
                image_len as u32
            },
            reserved: 0,
        }
    }
}

/// Length in bytes of header and directory of a vCPU with this policy: where
/// the image lies.
#[must_use]
#[inline]
pub const fn head_len(xstate_mask: u64) -> usize {
    HEADER_BYTES + xstate_mask.count_ones() as usize * ENTRY_BYTES
}

/// Writes header and directory before an image of `image_len` bytes that is at
/// its place ([`head_len`]) already; gives the length of the blob, which is
/// complete unless it has a checksum: then [`seal`] it.
///
/// # Errors
/// `out` is too short, or the mask or the length are such as no blob of this
/// machine can have; nothing was written.
#[inline(always)]
pub fn write_head(
    out: &mut [u8],
    fields: &Fields,
    layouts: &Layouts,
    image_len: usize,
) -> Result<usize, BlobError> {
    let mask = fields.xstate_mask;
    let known = layouts.known();
    if mask & !known != 0 {
        let allowed = Allowed::Bits(known);
        return Err(ParseError::new(Rule::BlobDirectory, 0, mask, allowed));
    }
    if !(MIN_IMAGE_BYTES..=MAX_IMAGE_BYTES).contains(&image_len) {
        let allowed = Allowed::Between(MIN_IMAGE_BYTES as u64, MAX_IMAGE_BYTES as u64);
        let seen = image_len as u64;
        return Err(ParseError::new(Rule::BlobImageLength, 0, seen, allowed));
    }
    let entries = mask.count_ones() as usize;
    let trailer = if fields.crc { CRC_BYTES } else { 0 };
    let total = HEADER_BYTES + entries * ENTRY_BYTES + image_len + trailer;
    let given = out.len();
    if given < total {
        let allowed = Allowed::AtLeast(total as u64);
        return Err(ParseError::new(Rule::BlobRoom, 0, given as u64, allowed));
    }
    let header = fields.header_of(entries, image_len, total);
    let (head, body) = out.split_at_mut(HEADER_BYTES);
    let (words, _) = head.as_chunks_mut::<8>();
    let (from, _) = header.as_bytes().as_chunks::<8>();
    for (to, from) in words.iter_mut().zip(from) {
        *to = *from;
    }
    match layouts.directory(mask, entries) {
        Some(own) => {
            let (places, _) = body.as_chunks_mut::<ENTRY_BYTES>();
            for (place, entry) in places.iter_mut().zip(own) {
                let (words, _) = place.as_chunks_mut::<8>();
                words[0] = entry[0].to_le_bytes();
                words[1] = entry[1].to_le_bytes();
            }
        }
        None => write_directory(body, mask, layouts),
    }
    Ok(total)
}

#[cold]
#[inline(never)]
fn write_directory(body: &mut [u8], mask: u64, layouts: &Layouts) {
    let (places, _) = body.as_chunks_mut::<ENTRY_BYTES>();
    let mut left = mask;
    for place in places {
        if left == 0 {
            break;
        }
        let entry = layouts.own(left.trailing_zeros());
        place.copy_from_slice(entry.as_bytes());
        left &= left - 1;
    }
}

/// Length in bytes of the blob of a vCPU with this policy and image; `None`
/// where no such blob can be.
#[must_use]
pub const fn encoded_len(xstate_mask: u64, image_len: usize, crc: bool) -> Option<usize> {
    if xstate_mask >> super::MAX_COMPONENTS != 0
        || image_len < MIN_IMAGE_BYTES
        || image_len > MAX_IMAGE_BYTES
    {
        return None;
    }
    let directory = xstate_mask.count_ones() as usize * ENTRY_BYTES;
    Some(HEADER_BYTES + directory + image_len + if crc { CRC_BYTES } else { 0 })
}

/// Writes header and directory at the start of `out` and gives the image's
/// place, zeroed, to be filled. `out` is then `out[..encoded_len]` after [`seal`].
///
/// Errors: `out` too short, an image length or mask that no blob can have, a
/// directory that is not `xstate_mask` spelled out. `out` is unspecified then.
pub fn prepare<'a>(
    out: &'a mut [u8],
    fields: &Fields,
    directory: impl IntoIterator<Item = DirectoryEntry>,
    image_len: usize,
) -> Result<&'a mut [u8], BlobError> {
    let header = fields.header(image_len)?;
    let (given, needed) = (out.len(), header.total_len as usize);
    let short = || {
        ParseError::new(
            Rule::BlobRoom,
            0,
            given as u64,
            Allowed::AtLeast(needed as u64),
        )
    };
    let out = out.get_mut(..needed).ok_or_else(short)?;
    let (head, body) = out.split_at_mut_checked(HEADER_BYTES).ok_or_else(short)?;
    head.copy_from_slice(header.as_bytes());
    let directory_len = usize::from(header.dir_entries) * ENTRY_BYTES;
    let (table, rest) = body.split_at_mut_checked(directory_len).ok_or_else(short)?;
    let mut directory = directory.into_iter();
    let mut written = 0;
    for (place, entry) in table.chunks_exact_mut(ENTRY_BYTES).zip(directory.by_ref()) {
        place.copy_from_slice(entry.as_bytes());
        written += 1;
    }
    let surplus = directory.count();
    if rule!("blob-directory") && written + surplus != usize::from(header.dir_entries) {
        let (seen, allowed) = (
            (written + surplus) as u64,
            Allowed::Exactly(u64::from(header.dir_entries)),
        );
        return Err(ParseError::new(
            Rule::BlobDirectory,
            HEADER_BYTES,
            seen,
            allowed,
        ));
    }
    let entries = table
        .chunks_exact(ENTRY_BYTES)
        .filter_map(|chunk| DirectoryEntry::read_from_bytes(chunk).ok());
    check_directory(&header, entries, HEADER_BYTES)?;
    let image = rest.get_mut(..image_len).ok_or_else(short)?;
    image.fill(0);
    Ok(image)
}

/// Writes the CRC trailer of a prepared blob whose image has been filled, or of
/// one that was edited; where its flags say that it has none, does nothing.
///
/// `blob` is the whole of it. Nothing but the flag is looked at, so that a tool
/// can seal what a reader will refuse for another reason than its checksum.
pub fn seal(blob: &mut [u8]) -> Result<(), BlobError> {
    let given = blob.len() as u64;
    let short =
        |least: usize| ParseError::new(Rule::BlobLength, 0, given, Allowed::AtLeast(least as u64));
    let (header, _) = Header::read_from_prefix(blob).map_err(|_| short(HEADER_BYTES))?;
    if header.incompatible & Incompatible::CRC.bits() != 0 {
        let (covered, trailer) = blob
            .split_last_chunk_mut::<CRC_BYTES>()
            .ok_or_else(|| short(HEADER_BYTES + CRC_BYTES))?;
        *trailer = crc32c(covered).to_le_bytes();
    }
    Ok(())
}

/// Writes a whole blob from an image in hand; gives its length.
pub fn encode(
    out: &mut [u8],
    fields: &Fields,
    directory: impl IntoIterator<Item = DirectoryEntry>,
    image: &[u8],
) -> Result<usize, BlobError> {
    let copy = image
        .get(XCOMP_BV_OFFSET..)
        .and_then(|tail| tail.first_chunk::<8>());
    let copy = copy.map_or(0, |bytes| u64::from_le_bytes(*bytes));
    prepare(out, fields, directory, image.len())?.copy_from_slice(image);
    if rule!("blob-xcomp-bv") && copy != fields.xcomp_bv {
        let allowed = Allowed::Exactly(fields.xcomp_bv);
        return Err(ParseError::new(
            Rule::BlobXcompBv,
            XCOMP_BV_OFFSET,
            copy,
            allowed,
        ));
    }
    let total = encoded_len(fields.xstate_mask, image.len(), fields.crc).unwrap_or(0);
    let given = out.len();
    let blob = out.get_mut(..total);
    let blob = blob.ok_or(ParseError::new(
        Rule::BlobRoom,
        0,
        given as u64,
        Allowed::AtLeast(total as u64),
    ))?;
    seal(blob)?;
    Ok(total)
}
