//! The extended-state blob, taken apart with the byte tables of
//! `docs/src/wire-blob.md` alone.
//!
//! This shares no code with the hypervisor or its libraries: if the tables are
//! wrong or incomplete, this cannot read what they write.

/// One row of the component directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Component index.
    pub index: u32,
    /// Bytes of state.
    pub size: u32,
    /// 1 supervisor, 2 aligned to 64 bytes when compacted, 4 XFD.
    pub flags: u32,
    /// Offset in the standard form.
    pub standard_offset: u32,
}

/// What is in a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Length of the header.
    pub header_len: usize,
    /// The policy's components.
    pub xstate_mask: u64,
    /// XCR0 of the guest.
    pub xcr0: u64,
    /// Components that may hold state.
    pub accum: u64,
    /// XCOMP_BV without its format bit.
    pub in_image: u64,
    /// XSTATE_BV of the image.
    pub in_use: u64,
    /// The directory.
    pub directory: Vec<Entry>,
    /// The image.
    pub image: Vec<u8>,
    /// Where each component from 2 on lies in the image.
    pub placed: Vec<(u32, std::ops::Range<usize>)>,
    /// Whether a CRC stands at the end.
    pub trailer: bool,
}

/// Length of the legacy region and the XSAVE header.
pub const IMAGE_START: usize = 576;

const XSTATE_BV: usize = 512;
const XCOMP_BV: usize = 520;

/// Takes `blob` apart. The error says which row of the tables it breaks.
pub fn decode(blob: &[u8]) -> Result<Decoded, String> {
    if blob.get(..8) != Some(b"XFXSTATE") {
        return Err("offset 0: the magic is not XFXSTATE".into());
    }
    expect("version", u16_at(blob, 8)?.into(), 1)?;
    let header_len = usize::from(u16_at(blob, 10)?);
    expect("length of a directory entry", u16_at(blob, 12)?.into(), 16)?;
    let entries = usize::from(u16_at(blob, 14)?);
    let incompatible = u32_at(blob, 20)?;
    if incompatible & !3 != 0 {
        return Err(format!(
            "incompatible flags {incompatible:#x}: only bits 0 and 1 are defined"
        ));
    }
    let trailer = incompatible & 1 != 0;
    expect("total length", u64_at(blob, 24)?, blob.len() as u64)?;
    let xstate_mask = u64_at(blob, 32)?;
    let xcomp_bv = u64_at(blob, 80)?;
    let image_len = u32_at(blob, 88)? as usize;
    expect("reserved field at 92", u32_at(blob, 92)?.into(), 0)?;

    let mut directory = Vec::new();
    for row in 0..entries {
        let at = header_len + row * 16;
        directory.push(Entry {
            index: u32_at(blob, at)?,
            size: u32_at(blob, at + 4)?,
            flags: u32_at(blob, at + 8)?,
            standard_offset: u32_at(blob, at + 12)?,
        });
    }
    let listed = directory
        .iter()
        .fold(0, |mask, entry| mask | 1u64.wrapping_shl(entry.index));
    expect("components in the directory", listed, xstate_mask)?;
    if !directory.is_sorted_by(|a, b| a.index < b.index) {
        return Err("the directory does not ascend".into());
    }

    let start = header_len + entries * 16;
    let end = start + image_len;
    let image = blob
        .get(start..end)
        .ok_or("the image ends outside the blob")?
        .to_vec();
    expect(
        "bytes after the image",
        (blob.len() - end) as u64,
        if trailer { 4 } else { 0 },
    )?;
    if trailer {
        expect(
            "CRC-32C",
            u32_at(blob, end)?.into(),
            crc32c(&blob[..end]).into(),
        )?;
    }
    expect("XCOMP_BV in the image", u64_at(&image, XCOMP_BV)?, xcomp_bv)?;
    expect("bit 63 of XCOMP_BV", xcomp_bv >> 63, 1)?;

    let in_image = xcomp_bv & !(1 << 63);
    let placed = place(&directory, in_image)?;
    let needed = placed.last().map_or(IMAGE_START, |(_, range)| range.end);
    expect("length of the image", image.len() as u64, needed as u64)?;
    Ok(Decoded {
        header_len,
        xstate_mask,
        xcr0: u64_at(blob, 40)?,
        accum: u64_at(blob, 72)?,
        in_image,
        in_use: u64_at(&image, XSTATE_BV)?,
        directory,
        image,
        placed,
        trailer,
    })
}

/// Where the components of `mask` lie, by the sizes and alignments in the
/// directory: one behind the other from byte 576 on.
fn place(directory: &[Entry], mask: u64) -> Result<Vec<(u32, std::ops::Range<usize>)>, String> {
    let mut at = IMAGE_START;
    let mut placed = Vec::new();
    for index in (2..63).filter(|index| mask >> index & 1 == 1) {
        let entry = directory
            .iter()
            .find(|entry| entry.index == index)
            .ok_or_else(|| format!("component {index} is in the image and not in the directory"))?;
        if entry.flags & 2 != 0 {
            at = at.next_multiple_of(64);
        }
        let end = at + entry.size as usize;
        placed.push((index, at..end));
        at = end;
    }
    Ok(placed)
}

/// CRC-32C by its definition, one bit at a time.
pub fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 {
                crc >> 1 ^ 0x82f6_3b78
            } else {
                crc >> 1
            }
        })
    })
}

/// The bytes that the shell's `blob` printed as lines of hexadecimal digits.
pub fn from_hex(lines: &[String]) -> Result<Vec<u8>, String> {
    let digits: Vec<u8> = lines
        .iter()
        .flat_map(|line| line.bytes())
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    if !digits.len().is_multiple_of(2) {
        return Err("an odd number of hexadecimal digits".into());
    }
    digits
        .chunks_exact(2)
        .map(|pair| {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            digit(pair[0])
                .zip(digit(pair[1]))
                .and_then(|(high, low)| u8::try_from(high << 4 | low).ok())
                .ok_or_else(|| {
                    format!(
                        "{:?} are no hexadecimal digits",
                        String::from_utf8_lossy(pair)
                    )
                })
        })
        .collect()
}

fn expect(what: &str, seen: u64, wanted: u64) -> Result<(), String> {
    if seen == wanted {
        return Ok(());
    }
    Err(format!("{what}: {seen:#x}, and must be {wanted:#x}"))
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], String> {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk::<N>())
        .copied()
        .ok_or_else(|| format!("no {N} bytes at offset {at} of {}", bytes.len()))
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, String> {
    bytes_at(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, String> {
    bytes_at(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64, String> {
    bytes_at(bytes, at).map(u64::from_le_bytes)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A blob as QEMU's `max` gives it with all components in use.
    pub fn sample() -> Vec<u8> {
        let rows: [(u32, u32, u32, u32); 6] = [
            (0, 160, 0, 0),
            (1, 256, 0, 160),
            (2, 256, 0, 576),
            (3, 64, 0, 960),
            (4, 64, 0, 1024),
            (9, 8, 0, 2688),
        ];
        let mut blob = b"XFXSTATE".to_vec();
        for half in [1u16, 96, 16, 6] {
            blob.extend(half.to_le_bytes());
        }
        for word in [0u32, 1] {
            blob.extend(word.to_le_bytes());
        }
        let xcomp_bv = 0x21f | 1 << 63;
        for long in [96 + 96 + 968 + 4u64, 0x21f, 0x21f, 0, 0, 0, 0x21f, xcomp_bv] {
            blob.extend(long.to_le_bytes());
        }
        for word in [968u32, 0] {
            blob.extend(word.to_le_bytes());
        }
        for (index, size, flags, offset) in rows {
            for word in [index, size, flags, offset] {
                blob.extend(word.to_le_bytes());
            }
        }
        let mut image = vec![0u8; 968];
        image[512..520].copy_from_slice(&0x21fu64.to_le_bytes());
        image[520..528].copy_from_slice(&xcomp_bv.to_le_bytes());
        image[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
        blob.extend(image);
        let crc = crc32c(&blob);
        blob.extend(crc.to_le_bytes());
        blob
    }

    #[test]
    fn the_sample_comes_apart() {
        let blob = sample();
        let decoded = decode(&blob).unwrap();
        assert_eq!(blob.len(), 1164);
        assert_eq!(
            (decoded.xstate_mask, decoded.in_image, decoded.in_use),
            (0x21f, 0x21f, 0x21f)
        );
        assert_eq!(decoded.image.len(), 968);
        assert_eq!(
            decoded.placed,
            [(2, 576..832), (3, 832..896), (4, 896..960), (9, 960..968)]
        );
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_is_noticed() {
        let blob = sample();
        for len in 0..blob.len() {
            assert!(decode(&blob[..len]).is_err(), "{len}");
        }
        for bit in 0..blob.len() * 8 {
            let mut flipped = blob.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn the_crc_has_its_published_check_value() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn hexadecimal_lines() {
        assert_eq!(from_hex(&["5846 58".into(), "53".into()]).unwrap(), b"XFXS");
        assert!(from_hex(&["5".into()]).is_err());
        assert!(from_hex(&["5g".into()]).is_err());
        assert!(from_hex(&["+5".into()]).is_err());
    }
}
