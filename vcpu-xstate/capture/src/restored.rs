//! What the registers hold after INIT and a restore of a stored image, in plain code.
//!
//! This is XRSTOR (SDM Vol. 1, 13.8) as far as ring 3 sees it, on images that
//! a processor wrote itself. The result is the image that XSAVE would then
//! write for all of XCR0 into a buffer of zeros, but for one word: its
//! XSTATE_BV names what is not INIT *by content* (MXCSR does not count).
//! Zen 5 writes it so; a processor that keeps XINUSE set over INIT values has
//! the same registers and so the same checksum.

use crate::corpus::{Component, Corpus, DIFFER, DIFFER_IN_MXCSR, DIFFER_IN_XSTATE_BV, Record};
use crate::states::{BNDCSR, PKRU};

/// Bytes of legacy region and header.
pub const HEAD: usize = 576;
const MXCSR: usize = 24;
const MXCSR_MASK: usize = 28;
const XSTATE_BV: usize = 512;
const XCOMP_BV: usize = 520;
const MXCSR_INIT: u32 = 0x1f80;
const FCW_INIT: u16 = 0x037f;

/// The two images of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// XSAVE's.
    Standard,
    /// XSAVEC's.
    Compacted,
}

/// The 64-bit word at `at`; 0 beyond the end.
pub fn word(image: &[u8], at: usize) -> u64 {
    let bytes = image.get(at..).and_then(|rest| rest.first_chunk());
    bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// MXCSR as it stands in an image.
pub fn mxcsr(image: &[u8]) -> u32 {
    word(image, MXCSR) as u32
}

/// XSTATE_BV of an image.
pub fn xstate_bv(image: &[u8]) -> u64 {
    word(image, XSTATE_BV)
}

/// XCOMP_BV of an image.
pub fn xcomp_bv(image: &[u8]) -> u64 {
    word(image, XCOMP_BV)
}

/// Bytes of the standard image of `mask`.
pub fn standard_size(components: &[Component], mask: u64) -> usize {
    components
        .iter()
        .filter(|component| mask & component.bit() != 0)
        .map(|component| (component.offset + component.size) as usize)
        .fold(HEAD, usize::max)
}

/// Offsets of the components of XCOMP_BV, and where the image ends.
pub fn compacted_places(components: &[Component], xcomp_bv: u64) -> (Vec<(u32, usize)>, usize) {
    let mut sorted: Vec<&Component> = components.iter().collect();
    sorted.sort_by_key(|component| component.index);
    let mut end = HEAD;
    let mut places = Vec::new();
    for component in sorted {
        if xcomp_bv & component.bit() == 0 {
            continue;
        }
        if component.aligned() {
            end = end.next_multiple_of(64);
        }
        places.push((component.index, end));
        end += component.size as usize;
    }
    (places, end)
}

/// The image of all registers after INIT and a restore of `image` with `rfbm`.
/// `mxcsr_mask` is the processor's. `None` if the image is shorter than its
/// own header makes it.
pub fn registers(
    corpus: &Corpus,
    form: Form,
    image: &[u8],
    rfbm: u64,
    mxcsr_mask: u32,
) -> Option<Vec<u8>> {
    let mut out = vec![0; standard_size(&corpus.components, corpus.xcr0)];
    let loads = xstate_bv(image) & rfbm & corpus.xcr0;
    let mut copy = |to: usize, from: usize, bytes: usize| -> Option<()> {
        let source = image.get(from..from + bytes)?;
        out.get_mut(to..to + bytes)?.copy_from_slice(source);
        Some(())
    };
    if loads & 1 != 0 {
        copy(0, 0, 5)?;
        copy(6, 6, 18)?;
        (0..8).try_for_each(|i| copy(32 + 16 * i, 32 + 16 * i, 10))?;
    } else {
        out[..2].copy_from_slice(&FCW_INIT.to_le_bytes());
    }
    if loads & 2 != 0 {
        out[160..416].copy_from_slice(image.get(160..416)?);
    }
    // The standard form takes MXCSR with SSE and with AVX, whatever XSTATE_BV
    // says; the compacted one with SSE that is not INIT.
    let loads_mxcsr = match form {
        Form::Standard => rfbm & 6 != 0,
        Form::Compacted => loads & 2 != 0,
    };
    let mxcsr = if loads_mxcsr {
        mxcsr(image)
    } else {
        MXCSR_INIT
    };
    out[MXCSR..MXCSR + 4].copy_from_slice(&mxcsr.to_le_bytes());
    out[MXCSR_MASK..MXCSR_MASK + 4].copy_from_slice(&mxcsr_mask.to_le_bytes());

    let (places, _) = compacted_places(&corpus.components, xcomp_bv(image));
    for component in &corpus.components {
        if loads & component.bit() == 0 {
            continue;
        }
        let from = match form {
            Form::Standard => component.offset as usize,
            Form::Compacted => places.iter().find(|(i, _)| *i == component.index)?.1,
        };
        let (to, bytes) = (component.offset as usize, state_bytes(component));
        out.get_mut(to..to + bytes)?
            .copy_from_slice(image.get(from..from + bytes)?);
    }
    settle_xstate_bv(&mut out, &corpus.components);
    Some(out)
}

/// Bytes of a component that are registers. Behind those of PKRU and BNDCSR its size
/// has reserved ones: no save writes the former's, and what stood there remains.
fn state_bytes(component: &Component) -> usize {
    let size = component.size as usize;
    match component.index {
        BNDCSR => size.min(16),
        PKRU => size.min(4),
        _ => size,
    }
}

/// Sets XSTATE_BV of a standard image of all registers from their contents.
pub fn settle_xstate_bv(image: &mut [u8], components: &[Component]) {
    let zero = |range: std::ops::Range<usize>| {
        let bytes = image.get(range).unwrap_or_default();
        bytes.iter().all(|byte| *byte == 0)
    };
    let mut used = 0;
    let fcw = word(image, 0) as u16;
    if fcw != FCW_INIT || !zero(2..MXCSR) || !zero(32..160) {
        used |= 1;
    }
    if !zero(160..416) {
        used |= 2;
    }
    for component in components {
        let start = component.offset as usize;
        if !zero(start..start + component.size as usize) {
            used |= component.bit();
        }
    }
    if let Some(word) = image.get_mut(XSTATE_BV..XSTATE_BV + 8) {
        word.copy_from_slice(&used.to_le_bytes());
    }
}

/// CRC-32, reflected polynomial 0xEDB88320, as zlib's.
pub fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let mut crc = i as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
                bit += 1;
            }
            table[i] = crc;
            i += 1;
        }
        table
    };
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (crc >> 8) ^ TABLE[(crc as u8 ^ byte) as usize]
    })
}

/// MXCSR_MASK of the machine: the first image in which XSAVE wrote it.
/// `None` where no image has it.
pub fn mxcsr_mask(corpus: &Corpus) -> Option<u32> {
    let with_mxcsr = corpus.records.iter().find(|record| record.rfbm & 6 != 0)?;
    Some(word(&with_mxcsr.standard, MXCSR_MASK) as u32)
}

/// The flags of a pair: of what was restored from each, and of each.
pub fn flags(restored: [&[u8]; 2], standard: &[u8], compacted: &[u8]) -> u32 {
    let [first, second] = restored;
    let mut flags = 0;
    if first != second {
        flags |= DIFFER;
    }
    if mxcsr(first) != mxcsr(second) {
        flags |= DIFFER_IN_MXCSR;
    }
    if xstate_bv(standard) != xstate_bv(compacted) {
        flags |= DIFFER_IN_XSTATE_BV;
    }
    flags
}

/// Says what in `record` is not as the architecture and the format have it.
pub fn unexplained(corpus: &Corpus, mxcsr_mask: u32, record: &Record) -> Option<String> {
    let forms = [
        (Form::Standard, &record.standard),
        (Form::Compacted, &record.compacted),
    ];
    let lengths = [
        standard_size(&corpus.components, record.rfbm),
        compacted_places(&corpus.components, record.rfbm).1,
    ];
    let mut found = Vec::new();
    for (i, (form, image)) in forms.into_iter().enumerate() {
        let layout = if i == 0 { 0 } else { record.rfbm | 1 << 63 };
        if image.len() != lengths[i] || xcomp_bv(image) != layout {
            return Some(format!("{form:?}: length or XCOMP_BV"));
        }
        let Some(all) = registers(corpus, form, image, record.rfbm, mxcsr_mask) else {
            return Some(format!("{form:?}: shorter than its header says"));
        };
        if crc32(&all) != record.crc[i] || mxcsr(&all) != record.mxcsr[i] {
            return Some(format!(
                "{form:?}: crc32 {:08x}, stored {:08x}; MXCSR {:x}, stored {:x}",
                crc32(&all),
                record.crc[i],
                mxcsr(&all),
                record.mxcsr[i]
            ));
        }
        found.push(all);
    }
    let flags = flags([&found[0], &found[1]], &record.standard, &record.compacted);
    (flags != record.flags).then(|| format!("flags {flags}, stored {}", record.flags))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_zlibs() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b""), 0);
    }

    #[test]
    fn alignment_counts_from_the_component_on() {
        let component = |index, size, traits| Component {
            index,
            size,
            offset: 576,
            traits,
        };
        let odd = [component(18, 8192, 6), component(9, 8, 0)];
        let (places, end) = compacted_places(&odd, 1 << 63 | 0x4_0203);
        assert_eq!(places, [(9, 576), (18, 640)]);
        assert_eq!(end, 640 + 8192);
        assert_eq!(compacted_places(&odd, 0x3).1, HEAD);
    }

    /// A Xeon with PKRU writes four bytes of its eight; the others, of whatever was
    /// in the buffer, were called registers, and no image with PKRU was explained.
    #[test]
    fn pkru_is_four_bytes_of_eight() {
        let pkru = Component {
            index: PKRU,
            size: 8,
            offset: 576,
            traits: 0,
        };
        let corpus = Corpus {
            xcr0: 0x203,
            components: vec![pkru],
            ..Corpus::default()
        };
        let mut image = vec![0; 584];
        image[513] = 2;
        image[576..580].copy_from_slice(&[0x54, 1, 2, 3]);
        let clean = registers(&corpus, Form::Standard, &image, 0x200, 0xffff).unwrap();
        assert_eq!(clean[576..], [0x54, 1, 2, 3, 0, 0, 0, 0]);
        image[580..].fill(0xcc);
        let stale = registers(&corpus, Form::Standard, &image, 0x200, 0xffff).unwrap();
        assert_eq!(stale, clean);
    }

    /// A standard restore takes MXCSR for AVX alone, a compacted one does not.
    #[test]
    fn mxcsr_of_each_form() {
        let corpus = Corpus {
            xcr0: 7,
            ..Corpus::default()
        };
        let mut image = vec![0; HEAD];
        image[MXCSR..MXCSR + 4].copy_from_slice(&0x1fa5_u32.to_le_bytes());
        let mxcsr_of = |form, rfbm, bv: u64| {
            let mut image = image.clone();
            image[XSTATE_BV..XSTATE_BV + 8].copy_from_slice(&bv.to_le_bytes());
            mxcsr(&registers(&corpus, form, &image, rfbm, 0xffff).unwrap())
        };
        assert_eq!(mxcsr_of(Form::Standard, 4, 0), 0x1fa5);
        assert_eq!(mxcsr_of(Form::Standard, 2, 0), 0x1fa5);
        assert_eq!(mxcsr_of(Form::Standard, 1, 3), MXCSR_INIT);
        assert_eq!(mxcsr_of(Form::Compacted, 4, 2), MXCSR_INIT);
        assert_eq!(mxcsr_of(Form::Compacted, 2, 0), MXCSR_INIT);
        assert_eq!(mxcsr_of(Form::Compacted, 2, 2), 0x1fa5);
    }
}
