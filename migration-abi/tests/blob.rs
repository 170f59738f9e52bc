//! The blob: its golden files, every rule, every truncation, and any bytes at all.

mod samples;

use migration_abi::blob::{self, Blob, Fields, v1};
use migration_abi::{Allowed, ParseError, Rule};
use proptest::prelude::*;
use samples::{blob_avx512, blob_no_xsave, blob_sapphire_rapids, blob_sse, encode, image};

/// Read, take apart, written again: the same bytes.
fn rewritten(bytes: &[u8]) -> Vec<u8> {
    let blob = blob::parse(bytes).expect("a blob");
    let directory: Vec<_> = blob.directory().iter().collect();
    assert_eq!(directory.len(), blob.directory().len());
    encode(&Fields::of(&blob), &directory, blob.image())
}

#[test]
fn golden_v1_reads_for_ever() {
    for (name, written) in [
        ("blob-v1-sse.bin", blob_sse()),
        ("blob-v1-avx512.bin", blob_avx512()),
        ("blob-v1-no-xsave.bin", blob_no_xsave()),
        ("blob-v1-sapphire-rapids.bin", blob_sapphire_rapids()),
    ] {
        let golden = samples::golden(name, &written);
        assert_eq!(rewritten(&golden), golden, "{name}");
        assert_eq!(
            written, golden,
            "the writer of version 1 has changed: {name}"
        );
    }
    let bytes = samples::golden("blob-v1-avx512.bin", &[]);
    let blob = blob::parse(&bytes).expect("golden");
    let header = blob.header();
    assert_eq!(
        (header.version, header.xstate_mask, header.xcr0, header.xss),
        (1, 0x1ae7, 0x2e7, 0x1800)
    );
    assert_eq!((header.xfd, header.xfd_err, header.accum), (0, 0, 0x1ae7));
    assert_eq!(header.xcomp_bv, 0x8000_0000_0000_02e7);
    assert_eq!(blob.image().len(), 2440);
    let pkru = blob
        .directory()
        .iter()
        .find(|entry| entry.index == 9)
        .expect("pkru");
    assert_eq!((pkru.size, pkru.flags, pkru.standard_offset), (8, 0, 2688));
    let cet = blob
        .directory()
        .iter()
        .find(|entry| entry.index == 12)
        .expect("cet_s");
    assert_eq!((cet.size, cet.flags, cet.standard_offset), (24, 1, 0));
    // The bytes of the table in the book, without this crate's structs.
    assert_eq!(&bytes[..8], b"XFXSTATE");
    assert_eq!(bytes[8..16], [1, 0, 96, 0, 16, 0, 9, 0]);
    assert_eq!(bytes.len(), 96 + 9 * 16 + 2440 + 4);
}

/// The book's first row asked for 96 bytes, where 10 are, and magic and version come before.
#[test]
fn checks_come_in_the_books_order() {
    let whole = samples::golden("blob-v1-sse.bin", &[]);
    let mut later = whole.clone();
    later[8] = 9;
    let stop = |bytes: &[u8]| {
        let error = blob::parse(bytes).expect_err("a stop");
        (error.rule(), error.allowed)
    };
    let least = |bytes| ("blob-length", Allowed::AtLeast(bytes));
    assert_eq!(stop(&[]), least(10));
    assert_eq!(stop(&whole[..7]), least(10));
    assert_eq!(stop(&[0; 9]).0, "blob-magic");
    assert_eq!(stop(&whole[..9]), least(10));
    assert_eq!(stop(&[0; 50]).0, "blob-magic");
    assert_eq!(stop(&later[..10]).0, "blob-version");
    assert_eq!(stop(&whole[..50]), least(96));
    let total = Allowed::Exactly(whole.len() as u64);
    assert_eq!(stop(&whole[..700]), ("blob-length", total));
    // The table has a row for each stop, in this order.
    let book = include_str!("../../docs/src/wire-blob.md");
    let (_, table) = book.split_once("in this order").expect("the table");
    let mut rest = table;
    for row in [
        "`blob-length` | 0 | at least 10",
        "`blob-magic`",
        "`blob-version`",
        "`blob-length` | 0 | at least 96",
        "`blob-incompatible`",
        "`blob-total`",
        "`blob-length` | 0 | exactly",
        "`blob-crc`",
    ] {
        rest = rest.split_once(row).unwrap_or_else(|| panic!("{row}")).1;
    }
}

/// The blob that a real machine could have written: one that has its layouts
/// takes it, finds in use just what it holds, and would write the same bytes.
#[test]
fn golden_of_sapphire_rapids_is_canonical() {
    let bytes = samples::golden("blob-v1-sapphire-rapids.bin", &[]);
    let blob = blob::parse(&bytes).expect("golden");
    let claims = migration_abi::xstate::claims(&blob);
    let there = migration_abi::xstate::geometry(&blob).expect("layouts");
    let (host, policy) = (samples::machine::intel(), samples::machine::policy(0x602e7));
    let image =
        vcpu_xstate::validate(&claims, &there, blob.image(), &host, &policy).expect("taken");
    assert_eq!(image.image().in_use().bits(), 0x226);
    let mut again = vec![0xcc; bytes.len()];
    let written = migration_abi::xstate::write_blob(&image, true, &mut again);
    assert_eq!(written, Ok(bytes.len()));
    assert_eq!(again, bytes);
}

/// Sets bytes, gives the blob a right checksum again, and says which rule stops it.
fn tampered(mut bytes: Vec<u8>, at: usize, value: &[u8]) -> ParseError {
    bytes[at..at + value.len()].copy_from_slice(value);
    v1::seal(&mut bytes).expect("long enough to seal");
    let error = blob::parse(&bytes).expect_err("tampered with");
    let text = error.to_string();
    assert!(
        text.starts_with(error.rule()) && text.contains(&format!("byte {}", error.offset)),
        "{text}"
    );
    error
}

#[test]
fn every_rule_by_name() {
    let directory = v1::HEADER_BYTES;
    let image = directory + 9 * v1::ENTRY_BYTES;
    for (rule, at, value) in [
        (Rule::BlobMagic, 0, &b"x"[..]),
        (Rule::BlobVersion, 8, &[2]),
        (Rule::BlobVersion, 8, &[0]),
        (Rule::BlobHeaderLength, 10, &[95]),
        (Rule::BlobHeaderLength, 10, &[97]),
        (Rule::BlobHeaderLength, 10, &[136]),
        (Rule::BlobEntryLength, 12, &[15]),
        (Rule::BlobEntryLength, 12, &[18]),
        (Rule::BlobEntryLength, 12, &[68]),
        (Rule::BlobDirectory, 14, &[64]),
        (Rule::BlobTotal, 14, &[8]),
        (Rule::BlobIncompatible, 20, &[5]),
        (Rule::BlobIncompatible, 23, &[0x80]),
        (Rule::BlobTotal, 24, &[0]),
        (Rule::BlobTotal, 31, &[0xff]),
        (Rule::BlobMask, 39, &[0x80]),
        (Rule::BlobDirectory, 32, &[0xe6]),
        (Rule::BlobDirectory, 39, &[0x40]),
        (Rule::BlobXcompBv, 80, &[0xe6]),
        (Rule::BlobImageLength, 88, &[0x3f, 2, 0, 0]),
        (Rule::BlobImageLength, 88, &[1, 0, 0x40, 0]),
        (Rule::BlobReserved, 92, &[1]),
        (Rule::BlobLegacyEntry, directory + 4, &[161]),
        (Rule::BlobLegacyEntry, directory + 12, &[1]),
        (Rule::BlobLegacyEntry, directory + 16 + 8, &[2]),
        (Rule::BlobDirectory, directory + 32, &[3]),
        (Rule::BlobDirectory, directory + 35, &[1]),
        (Rule::BlobEntryFlags, directory + 32 + 8, &[8]),
        (Rule::BlobSupervisorOffset, directory + 7 * 16 + 12, &[1]),
        (Rule::BlobXcompBv, image + 520, &[0xff]),
    ] {
        let error = tampered(blob_avx512(), at, value);
        assert_eq!(error.rule, rule, "byte {at} = {value:x?}: {error}");
    }
    let damaged = |at: usize| {
        let mut bytes = blob_sse();
        bytes[at] ^= 0x10;
        blob::parse(&bytes).expect_err("damaged").rule
    };
    assert_eq!(damaged(96 + 32 + 100), Rule::BlobCrc);
    assert_eq!(damaged(blob_sse().len() - 1), Rule::BlobCrc);
}

/// A later writer's compatible additions are skipped, not misread.
#[test]
fn longer_header_and_entries_are_skipped() {
    let short = blob_sse();
    let mut long = short[..96].to_vec();
    long.extend([0xaa; 32]);
    for entry in short[96..128].chunks(16) {
        long.extend_from_slice(entry);
        long.extend([0xbb; 8]);
    }
    long.extend_from_slice(&short[128..]);
    long[10] = 128;
    long[12] = 24;
    long[16] = 0xff; // compatible flags, all unknown
    let total = long.len() as u64;
    long[24..32].copy_from_slice(&total.to_le_bytes());
    v1::seal(&mut long).expect("sealed");
    assert_eq!(rewritten(&long), short);
}

#[test]
fn truncated_at_every_byte_and_with_bytes_behind() {
    for whole in [blob_sse(), blob_avx512(), blob_no_xsave()] {
        for length in (0..whole.len()).step_by(if cfg!(miri) { 41 } else { 1 }) {
            let error = blob::parse(&whole[..length]).expect_err("truncated");
            assert_eq!(error.rule, Rule::BlobLength, "{length}: {error}");
        }
        let mut longer = whole.clone();
        longer.push(0);
        assert_eq!(
            blob::parse(&longer).expect_err("longer").rule,
            Rule::BlobLength
        );
    }
}

#[test]
fn writer_refuses_what_the_reader_would() {
    let fields = Fields {
        xstate_mask: 3,
        xcomp_bv: 1 << 63 | 3,
        crc: true,
        ..Fields::default()
    };
    let directory: Vec<_> = blob::parse(&blob_sse())
        .expect("a blob")
        .directory()
        .iter()
        .collect();
    let good = image(3, fields.xcomp_bv, 0);
    let mut out = vec![0; 4096];
    let rule = |result: Result<usize, ParseError>| result.expect_err("refused").rule;
    let mut encode =
        |fields: &Fields, directory: &[blob::DirectoryEntry], image: &[u8], room: usize| {
            rule(v1::encode(
                &mut out[..room],
                fields,
                directory.iter().copied(),
                image,
            ))
        };
    let length = v1::encoded_len(3, 576, true).expect("a length");
    assert_eq!(
        encode(&fields, &directory, &good, length - 1),
        Rule::BlobRoom
    );
    assert_eq!(encode(&fields, &directory, &good, 0), Rule::BlobRoom);
    assert_eq!(
        encode(&fields, &directory[..1], &good, length),
        Rule::BlobDirectory
    );
    let three = [directory[0], directory[1], directory[1]];
    assert_eq!(encode(&fields, &three, &good, length), Rule::BlobDirectory);
    assert_eq!(
        encode(&fields, &[directory[1], directory[0]], &good, length),
        Rule::BlobDirectory
    );
    assert_eq!(
        encode(&fields, &directory, &good[..575], length),
        Rule::BlobImageLength
    );
    assert_eq!(
        encode(&fields, &directory, &image(3, 3, 0), length),
        Rule::BlobXcompBv
    );
    let bit63 = Fields {
        xstate_mask: 1 << 63 | 1,
        ..fields
    };
    assert!(v1::encoded_len(bit63.xstate_mask, 576, true).is_none());
    assert_eq!(encode(&bit63, &directory, &good, 4000), Rule::BlobMask);
    assert_eq!(v1::encoded_len(3, 575, true), None);
    assert_eq!(v1::encoded_len(3, v1::MAX_IMAGE_BYTES + 1, true), None);
}

#[test]
fn version_is_read_before_all_else() {
    assert_eq!(blob::version(&blob_sse()), Ok(1));
    assert_eq!(blob::version(b"XFXSTATE\x09\x01"), Ok(0x109));
    let error = blob::parse(b"XFXSTATE\x09\x01").expect_err("no such version");
    assert_eq!(
        (error.rule, error.offset, error.seen),
        (Rule::BlobVersion, 8, 0x109)
    );
    assert_eq!(error.allowed, Allowed::Exactly(1));
    assert_eq!(
        blob::version(b"XFXSTATE\x01").expect_err("short").rule,
        Rule::BlobLength
    );
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..900)) {
        let _ = blob::parse(&bytes);
        let mut bytes = bytes;
        let _ = v1::seal(&mut bytes);
    }

    /// Bytes that get past the checksum: the rules behind it see everything.
    #[test]
    fn any_edit_of_a_blob_is_read_or_refused(edits in prop::collection::vec((0usize..300, any::<u8>()), 1..6)) {
        let mut bytes = blob_avx512();
        for (at, value) in edits {
            bytes[at] = value;
        }
        let _ = v1::seal(&mut bytes);
        if let Ok(blob) = blob::parse(&bytes) {
            let directory = blob.directory().iter();
            prop_assert_eq!(directory.fold(0, |mask, entry| mask | 1u64 << entry.index), blob.header().xstate_mask);
            prop_assert_eq!(&blob.image()[520..528], blob.header().xcomp_bv.to_le_bytes());
        }
    }

    /// One damaged byte never passes a checksum.
    #[test]
    fn one_damaged_byte_is_seen(at in 0usize..2684, flip in 1u8..) {
        let mut bytes = blob_avx512();
        bytes[at] ^= flip;
        prop_assert!(blob::parse(&bytes).is_err());
    }

    #[test]
    fn what_is_written_is_read(
        mask in any::<u64>(), values in any::<[u64; 7]>(), extra in 0usize..2000, crc in any::<bool>(), no_xsave in any::<bool>()
    ) {
        let mask = mask & !(1 << 63);
        let [xcr0, xss, xfd, xfd_err, accum, xcomp_bv, xstate_bv] = values;
        let fields = Fields { xstate_mask: mask, xcr0, xss, xfd, xfd_err, accum, xcomp_bv, no_xsave, crc };
        let directory: Vec<_> = (0..63).filter(|index| mask >> index & 1 != 0).map(|index| match index {
            0 => blob::DirectoryEntry { index, size: 160, flags: 0, standard_offset: 0 },
            1 => blob::DirectoryEntry { index, size: 256, flags: 0, standard_offset: 160 },
            _ => blob::DirectoryEntry { index, size: index * 8, flags: index % 8, standard_offset: if index % 2 == 1 { 0 } else { index * 64 } },
        }).collect();
        let image = image(xstate_bv, xcomp_bv, extra);
        let bytes = encode(&fields, &directory, &image);
        let blob = Blob::parse(&bytes).expect("just written");
        prop_assert_eq!(Fields::of(&blob), fields);
        prop_assert_eq!(blob.image(), &image[..]);
        prop_assert_eq!(blob.directory().iter().collect::<Vec<_>>(), directory);
    }
}
