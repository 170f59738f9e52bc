//! Images good and bad.

use super::*;
use crate::testing::image;
use proptest::prelude::*;

fn reason(bytes: &[u8]) -> alloc::string::String {
    Image::parse(bytes).unwrap_err().rule.into()
}

#[test]
fn a_good_image_gives_its_segments_and_entry() {
    let bytes = image(0x10_0000, &[0xf4; 100], 0x2000);
    let image = Image::parse(&bytes).unwrap();
    assert_eq!(image.entry, 0x10_0000);
    let [segment] = image.segments[..] else {
        panic!("one segment")
    };
    assert_eq!((segment.address, segment.memory_bytes), (0x10_0000, 0x2000));
    assert_eq!(segment.data, [0xf4; 100]);
    assert_eq!(image.end(), 0x10_2000);
}

#[test]
fn each_broken_field_is_refused_by_its_rule() {
    let good = image(0x10_0000, &[0xf4; 100], 0x2000);
    let broken = |at: usize, bytes: &[u8]| {
        let mut image = good.clone();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        reason(&image)
    };
    assert_eq!(broken(0, b"MZ"), "elf-magic");
    assert_eq!(broken(4, &[1]), "elf-class");
    assert_eq!(broken(5, &[2]), "elf-byte-order");
    assert_eq!(broken(16, &[3]), "elf-type");
    assert_eq!(broken(18, &[3]), "elf-machine");
    assert_eq!(broken(32, &u64::MAX.to_le_bytes()), "elf-program-headers");
    assert_eq!(broken(54, &[32]), "elf-program-header-size");
    assert_eq!(broken(56, &[0]), "elf-program-headers");
    assert_eq!(broken(56, &[0xff, 0xff]), "elf-program-headers");
    // The first program header is the segment's, the second the note's.
    assert_eq!(broken(64 + 8, &u64::MAX.to_le_bytes()), "elf-segment");
    assert_eq!(broken(64 + 32, &u64::MAX.to_le_bytes()), "elf-segment");
    assert_eq!(
        broken(64 + 24, &u64::MAX.to_le_bytes()),
        "elf-segment-address"
    );
    assert_eq!(broken(64 + 40, &1u64.to_le_bytes()), "elf-segment-memory");
    assert_eq!(broken(64 + 4, &4u32.to_le_bytes()), "pvh-entry");
    assert_eq!(broken(120, &1u32.to_le_bytes()), "elf-segments-overlap");
    assert_eq!(broken(120, &0u32.to_le_bytes()), "pvh-entry-missing");
    assert_eq!(broken(120 + 32, &u64::MAX.to_le_bytes()), "elf-note");
    assert_eq!(reason(&[]), "elf-magic");
    assert_eq!(reason(&good[..57]), "elf-length");
    assert_eq!(reason(&good[..60]), "elf-program-headers");
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        let _ = Image::parse(&bytes);
    }

    #[test]
    fn no_damage_panics(at in 0usize..232, value: [u8; 8]) {
        let mut bytes = image(0x10_0000, &[0xf4; 100], 0x2000);
        let end = (at + 8).min(bytes.len());
        bytes[at..end].copy_from_slice(&value[..end - at]);
        let _ = Image::parse(&bytes);
    }

    #[test]
    fn truncation_is_an_error(length in 0usize..240) {
        let bytes = image(0x10_0000, &[0xf4; 100], 0x2000);
        prop_assert!(Image::parse(&bytes[..length.min(bytes.len() - 1)]).is_err());
    }
}
