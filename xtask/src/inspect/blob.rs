//! An extended-state blob: header, directory, image and trailer, as far as they can be read.

use migration_abi::ParseError;
use migration_abi::blob::v1::{CRC_BYTES, Incompatible};
use migration_abi::blob::{self, DirectoryEntry, MAGIC, v1};
use migration_abi::crc32c::crc32c;
use serde_json::{Value, json};
use vcpu_xstate::policy::{Arrival, CpuPolicy};
use vcpu_xstate::{Claims, ComponentSet};
use zerocopy::FromBytes;

use super::against::Subject;
use super::claims;
use super::document::{Section, hex};
use super::finding::Finding;
use super::image::{Image, Interface, mask};
use super::layout::Layout;
use crate::receiver::{Judged, Why};

/// Fields of the header: offset, bytes, key, label.
const LENGTHS: &[(usize, usize, &str, &str)] = &[
    (8, 2, "version", "version"),
    (10, 2, "header_len", "length of the header"),
    (12, 2, "dir_entry_len", "length of a directory entry"),
    (14, 2, "dir_entries", "directory entries"),
    (88, 4, "image_len", "length of the image"),
    (24, 8, "total_len", "length of all"),
];
const MASKS: &[(usize, &str, &str)] = &[
    (32, "xstate_mask", "policy (xstate_mask)"),
    (40, "xcr0", "XCR0"),
    (48, "xss", "IA32_XSS"),
    (56, "xfd", "IA32_XFD"),
    (64, "xfd_err", "IA32_XFD_ERR"),
    (72, "accum", "may hold state (accum)"),
    (80, "xcomp_bv", "XCOMP_BV"),
];

/// What of a blob could be read, for those who judge it further.
pub struct Parts<'a> {
    /// The header's registers and masks.
    pub claims: Claims,
    /// By the directory.
    pub layout: Layout,
    /// The image.
    pub image: &'a [u8],
    /// What the blob's reader stops at.
    pub unread: Option<ParseError>,
}

/// The parts, or why no machine takes what has none.
pub type Read<'a> = Result<Parts<'a>, Why>;

/// As a machine judges it, under the policy that came along, if one did.
pub fn judged<'a>(read: &'a Read<'_>, policy: Option<&'a CpuPolicy>) -> Subject<'a> {
    let parts = read.as_ref().map_err(Clone::clone)?;
    match (&parts.unread, &parts.layout.broken) {
        (Some(error), _) => Err(unreadable(error)),
        (None, Some(error)) => Err(Why::directory(error)),
        (None, None) => Ok(Judged::Blob(Arrival {
            claims: &parts.claims,
            geometry: &parts.layout.geometry,
            image: parts.image,
            policy,
        })),
    }
}

/// What every machine says of what its reader does not read.
fn unreadable(error: &ParseError) -> Why {
    Why {
        rule: error.rule(),
        words: error.rule.text().into(),
        ways: Vec::new(),
    }
}

/// Adds all that can be read of a blob to `root`; gives what is wrong, first
/// what its reader stops at, and what could be read.
pub fn explain<'a>(
    root: &mut Section,
    bytes: &'a [u8],
    full: bool,
) -> (Vec<Finding>, Option<Read<'a>>) {
    let unread = blob::parse(bytes).err();
    let mut findings: Vec<Finding> = unread.map(Finding::from).into_iter().collect();
    root.section(header(bytes));
    let Some(parts) = is_version_1(bytes).then(|| parts(bytes, unread)).flatten() else {
        return (findings, unread.as_ref().map(unreadable).map(Err));
    };
    let whole = findings.is_empty();
    let problems = parts.layout.problems.iter().cloned();
    findings.extend(problems);
    let mut behind = None;
    if whole {
        let base = parts.image.as_ptr() as usize - bytes.as_ptr() as usize;
        let held = number(parts.image, 512, 8).map(|held| (held, base + 512));
        findings.extend(claims::masks(&parts.claims));
        behind = held.map(|held| claims::held(&parts.claims, held));
    }
    let mut image_findings = Image {
        bytes: parts.image,
        layout: &parts.layout,
        policy: ComponentSet::from_bits_retain(parts.claims.xstate_mask),
        interface: Interface::Blob,
        full,
    }
    .explain(root)
    .broken;
    let base = parts.image.as_ptr() as usize - bytes.as_ptr() as usize;
    // What the image is broken by matters where the blob itself is whole.
    if whole {
        findings.extend(image_findings.drain(..).map(|finding| finding.within(base)));
        findings.extend(behind.into_iter().flatten());
    }
    (findings, Some(Ok(parts)))
}

/// Whether what follows the first ten bytes is known here: those alone mean the
/// same in every version.
fn is_version_1(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC) && number(bytes, 8, 2) == Some(u64::from(v1::VERSION))
}

/// The little-endian number at `offset`.
pub fn number(bytes: &[u8], offset: usize, size: usize) -> Option<u64> {
    let field = bytes.get(offset..offset + size)?;
    Some(
        field
            .iter()
            .rev()
            .fold(0, |value, byte| value << 8 | u64::from(*byte)),
    )
}

/// The header, field by field, as far as the bytes reach.
fn header(bytes: &[u8]) -> Section {
    let mut section = Section::new("header", "Header");
    let magic = bytes.get(..8).unwrap_or(bytes);
    let text: String = magic.escape_ascii().to_string();
    section.field("magic", "magic", json!(text), text.clone());
    if !is_version_1(bytes) {
        if let Some(version) = number(bytes, 8, 2).filter(|_| bytes.starts_with(&MAGIC)) {
            section.field("version", "version", json!(version), version.to_string());
            section.line("what follows is that version's, and not known here");
        }
        return section;
    }
    for (offset, size, key, label) in LENGTHS {
        if let Some(value) = number(bytes, *offset, *size) {
            section.field(key, label, json!(value), value.to_string());
        }
    }
    for (offset, key, label, names) in [
        (16, "compatible", "compatible flags", false),
        (20, "incompatible", "incompatible flags", true),
    ] {
        if let Some(value) = number(bytes, offset, 4) {
            let meaning = if names {
                flags(value as u32)
            } else {
                String::new()
            };
            section.hex(key, label, value, &meaning);
        }
    }
    for (offset, key, label) in MASKS {
        if let Some(value) = number(bytes, *offset, 8) {
            mask(&mut section, key, label, value);
        }
    }
    trailer(&mut section, bytes);
    section
}

fn flags(value: u32) -> String {
    let mut names = Vec::new();
    for (flag, name) in [
        (Incompatible::CRC, "a CRC-32C ends the blob"),
        (Incompatible::NO_XSAVE, "the policy has no XSAVE"),
    ] {
        if value & flag.bits() != 0 {
            names.push(name.to_owned());
        }
    }
    let unknown = value & !Incompatible::all().bits();
    if unknown != 0 {
        names.push(format!("unknown: {unknown:#x}"));
    }
    names.join(", ")
}

/// The checksum, beside the one that is right.
fn trailer(section: &mut Section, bytes: &[u8]) {
    let flagged =
        number(bytes, 20, 4).is_some_and(|flags| flags & u64::from(Incompatible::CRC.bits()) != 0);
    if !flagged {
        return;
    }
    let whole = number(bytes, 24, 8) == Some(bytes.len() as u64);
    let Some((covered, trailer)) = whole
        .then(|| bytes.split_last_chunk::<CRC_BYTES>())
        .flatten()
    else {
        section.field(
            "crc32c",
            "CRC-32C",
            Value::Null,
            "not there: the blob has not the length that it says",
        );
        return;
    };
    let (seen, right) = (u32::from_le_bytes(*trailer), crc32c(covered));
    let verdict = if seen == right {
        "right".into()
    } else {
        format!("wrong, {right:#x} would be right")
    };
    section.hex("crc32c", "CRC-32C", seen.into(), &verdict);
    section.value("crc32c_computed", hex(right.into()));
}

/// The parts, by the header's lengths, where those are believable.
fn parts(bytes: &[u8], unread: Option<ParseError>) -> Option<Parts<'_>> {
    let field = |offset, size| number(bytes, offset, size);
    let length = |offset, size| field(offset, size).and_then(|value| usize::try_from(value).ok());
    let header_len = length(10, 2)?.clamp(v1::HEADER_BYTES, v1::MAX_HEADER_BYTES);
    let entry_len = length(12, 2)?.clamp(v1::ENTRY_BYTES, v1::MAX_ENTRY_BYTES);
    let entries = length(14, 2)?.min(v1::MAX_COMPONENTS);
    let end = header_len + entries * entry_len;
    let directory: Vec<DirectoryEntry> = bytes
        .get(header_len..end.min(bytes.len()))?
        .chunks_exact(entry_len)
        .filter_map(|entry| Some(DirectoryEntry::read_from_prefix(entry).ok()?.0))
        .collect();
    let layout = Layout::of_directory(&directory, header_len, entry_len);
    let image_len = length(88, 4)?;
    let image = bytes.get(end.min(bytes.len())..)?;
    let image = image.get(..image_len).unwrap_or(image);
    let claims = Claims {
        xstate_mask: field(32, 8)?,
        xcr0: field(40, 8)?,
        xss: field(48, 8)?,
        xfd: field(56, 8)?,
        xfd_err: field(64, 8)?,
        accum: field(72, 8)?,
        xcomp_bv: field(80, 8)?,
        xsave: field(20, 4)? & u64::from(Incompatible::NO_XSAVE.bits()) == 0,
    };
    Some(Parts {
        claims,
        layout,
        image,
        unread,
    })
}
