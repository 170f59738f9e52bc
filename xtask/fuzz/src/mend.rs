//! Makes damaged bytes whole as far as asked, so that mutations reach what lies behind a checksum.

use migration_abi::blob::v1;
use vcpu_xstate::layout::{Form, Geometry};
use vcpu_xstate::{ComponentIndex, ComponentSet};

/// What of a blob is mended, by the bits of an input's first byte.
pub mod blob_bits {
    /// Magic, version, lengths, reserved fields.
    pub const LENGTHS: u8 = 1 << 0;
    /// The directory says what the machine has of `xstate_mask`.
    pub const DIRECTORY: u8 = 1 << 1;
    /// The header's masks nest, within the machine's.
    pub const MASKS: u8 = 1 << 2;
    /// The image's header fits the blob's, and the image is as long as it says.
    pub const IMAGE: u8 = 1 << 3;
    /// The checksum, where there is one.
    pub const CHECKSUM: u8 = 1 << 4;
}

const HEADER: usize = v1::HEADER_BYTES;
const ENTRY: usize = v1::ENTRY_BYTES;
const MASK: usize = 32;
const XCR0: usize = 40;
const XSS: usize = 48;
const XFD: usize = 56;
const XFD_ERR: usize = 64;
const ACCUM: usize = 72;
const XCOMP_BV: usize = 80;

fn get(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..)
        .and_then(|tail| tail.first_chunk())
        .map_or(0, |word| u64::from_le_bytes(*word))
}

fn put(bytes: &mut [u8], at: usize, value: u64) {
    if let Some(word) = bytes.get_mut(at..at + 8) {
        word.copy_from_slice(&value.to_le_bytes());
    }
}

/// Mends a blob as `bits` say; `geometry` and `offered` are the machine's.
pub fn blob(bytes: &mut Vec<u8>, bits: u8, geometry: &Geometry, offered: ComponentSet) {
    use blob_bits as b;
    if bits & (b::LENGTHS | b::DIRECTORY | b::MASKS | b::IMAGE) != 0 {
        let least = HEADER + v1::MIN_IMAGE_BYTES;
        bytes.resize(bytes.len().max(least), 0);
    }
    if bits & b::MASKS != 0 {
        masks(bytes, geometry, offered);
    }
    if bits & b::DIRECTORY != 0 {
        directory(bytes, geometry);
    }
    if bits & b::IMAGE != 0 {
        image(bytes, geometry);
    }
    if bits & b::LENGTHS != 0 {
        lengths(bytes);
    }
    if bits & b::CHECKSUM != 0 {
        // What is too short to have one has none.
        let _ = v1::seal(bytes);
    }
}

/// Where the image begins by the mask that stands in the header.
fn image_at(bytes: &[u8]) -> usize {
    let mask = get(bytes, MASK) & ComponentSet::ALL.bits();
    HEADER + mask.count_ones() as usize * ENTRY
}

fn masks(bytes: &mut [u8], geometry: &Geometry, offered: ComponentSet) {
    let keep = |bytes: &mut [u8], at, limit: u64, least: u64| {
        let value = get(bytes, at) & limit | least;
        put(bytes, at, value);
        value
    };
    let mask = get(bytes, MASK) & offered.bits();
    let mask = ComponentSet::from_bits_retain(mask | 3).whole_groups();
    put(bytes, MASK, mask.bits());
    let user = mask.difference(geometry.supervisor());
    let xcr0 = ComponentSet::from_bits_retain(get(bytes, XCR0) | 1)
        .intersection(user)
        .whole_groups();
    put(bytes, XCR0, xcr0.bits());
    let supervisor = mask.intersection(geometry.supervisor()).bits();
    let xss = keep(bytes, XSS, supervisor, 0);
    let capable = mask.intersection(geometry.xfd_capable()).bits();
    let xfd = keep(bytes, XFD, capable, 0);
    keep(bytes, XFD_ERR, capable, 0);
    let least = (xcr0.bits() | xss) & !capable | 3;
    let accum = keep(bytes, ACCUM, mask.bits(), least);
    keep(bytes, XCOMP_BV, accum & !xfd, 1 << 63);
}

fn directory(bytes: &mut Vec<u8>, geometry: &Geometry) {
    let mask = ComponentSet::from_bits_retain(get(bytes, MASK) & ComponentSet::ALL.bits());
    let end = image_at(bytes);
    bytes.resize(bytes.len().max(end), 0);
    for (place, component) in bytes[HEADER..end].chunks_exact_mut(ENTRY).zip(mask.iter()) {
        let entry = entry(geometry, component);
        for (at, value) in place.chunks_exact_mut(4).zip(entry) {
            at.copy_from_slice(&value.to_le_bytes());
        }
    }
}

/// Index, size, flags, standard offset.
#[must_use]
pub fn entry(geometry: &Geometry, component: ComponentIndex) -> [u32; 4] {
    let index = u32::from(component.get());
    match (index, geometry.get(component)) {
        (0, _) => [0, 160, 0, 0],
        (1, _) => [1, 256, 0, 160],
        (_, None) => [index, 0, 0, 0],
        (_, Some(facts)) => {
            let flags = u32::from(facts.supervisor)
                | u32::from(facts.aligned64) << 1
                | u32::from(facts.xfd) << 2;
            [index, facts.size_bytes, flags, facts.standard_offset]
        }
    }
}

fn image(bytes: &mut Vec<u8>, geometry: &Geometry) {
    let layout = get(bytes, XCOMP_BV) & ComponentSet::ALL.bits();
    let at = image_at(bytes);
    let length = geometry.image_size(Form::Compacted, ComponentSet::from_bits_retain(layout));
    let trailer = if has_crc(bytes) { v1::CRC_BYTES } else { 0 };
    bytes.resize(at + length + trailer, 0);
    let header = at + 512;
    let xstate_bv = get(bytes, header) & layout;
    bytes[header + 16..header + 64].fill(0);
    put(bytes, header, xstate_bv);
    put(bytes, header + 8, layout | 1 << 63);
    put(bytes, XCOMP_BV, layout | 1 << 63);
}

fn has_crc(bytes: &[u8]) -> bool {
    bytes.get(20).is_some_and(|flags| flags & 1 != 0)
}

fn lengths(bytes: &mut [u8]) {
    let mask = get(bytes, MASK) & ComponentSet::ALL.bits();
    let (total, at) = (bytes.len(), image_at(bytes));
    let trailer = if has_crc(bytes) { v1::CRC_BYTES } else { 0 };
    let image = total.saturating_sub(at + trailer);
    bytes[..8].copy_from_slice(&migration_abi::blob::MAGIC);
    bytes[8..10].copy_from_slice(&v1::VERSION.to_le_bytes());
    bytes[10..12].copy_from_slice(&(HEADER as u16).to_le_bytes());
    bytes[12..14].copy_from_slice(&(ENTRY as u16).to_le_bytes());
    bytes[14..16].copy_from_slice(&(mask.count_ones() as u16).to_le_bytes());
    bytes[20] &= 3;
    bytes[21..24].fill(0);
    bytes[24..32].copy_from_slice(&(total as u64).to_le_bytes());
    put(bytes, MASK, mask);
    bytes[88..92].copy_from_slice(&(image as u32).to_le_bytes());
    bytes[92..96].fill(0);
}
