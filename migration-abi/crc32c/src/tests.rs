//! Both ways give the definition's value, at every length, alignment and cut.

use proptest::prelude::*;

use super::*;

/// One bit at a time, by the definition.
fn by_definition(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (POLYNOMIAL & (crc & 1).wrapping_neg())
        })
    })
}

fn by_table(bytes: &[u8]) -> u32 {
    !table::extend(u32::MAX, bytes)
}

/// Bytes without a period that a table could hide behind.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

/// RFC 3720, B.4 "CRC Examples", and the catalogue's check value.
#[test]
fn published_values() {
    let ascending: [u8; 32] = core::array::from_fn(|index| index as u8);
    for (bytes, value) in [
        (&b""[..], 0),
        (b"123456789", 0xe306_9283),
        (&[0; 32], 0x8a91_36aa),
        (&[0xff; 32], 0x62a8_ab43),
        (&ascending, 0x46dd_794e),
    ] {
        assert_eq!(crc32c(bytes), value);
        assert_eq!(by_table(bytes), value);
        assert_eq!(by_definition(bytes), value);
    }
}

/// Every length across two blocks of the three streams, from every alignment.
#[test]
fn every_length_and_alignment_as_the_table() {
    // Miri has no instruction to compare and is slow: across the words is enough.
    let longest = if cfg!(miri) { 40 } else { 3400 };
    let bytes = noise(longest + 8);
    for length in 0..=longest {
        let from = length % 8;
        let part = &bytes[from..from + length];
        assert_eq!(crc32c(part), by_table(part), "{length} bytes from {from}");
    }
    for from in 0..8 {
        let part = &bytes[from..];
        assert_eq!(crc32c(part), by_definition(part), "from {from}");
    }
}

/// A stream cut anywhere, also inside a word and inside a block.
#[test]
fn every_cut() {
    let bytes = noise(if cfg!(miri) { 30 } else { 1700 });
    let whole = by_definition(&bytes);
    for cut in 0..=bytes.len() {
        let (head, tail) = bytes.split_at(cut);
        let pieces = Crc32c::new().update(head).update(tail).finish();
        assert_eq!(pieces, whole, "cut at {cut}");
    }
}

/// A single bit, wherever it stands in a block, reaches the checksum as it should.
#[cfg(not(miri))]
#[test]
fn every_bit_of_a_block() {
    let mut bytes = vec![0; 1540];
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] = 1 << (bit % 8);
        assert_eq!(crc32c(&bytes), by_table(&bytes), "bit {bit}");
        bytes[bit / 8] = 0;
    }
}

/// Says which way was tested, because a processor without the instruction
/// compares the table with itself.
#[test]
fn the_way_that_was_tested() {
    use std::io::Write as _;
    let line = if by_instruction() {
        "crc32c: by the instruction"
    } else {
        "crc32c: skipped: this processor (or Miri) has no CRC32, the table was tested alone"
    };
    writeln!(std::io::stdout().lock(), "{line}").unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 256 }))]
    #[test]
    fn equals_the_definition_however_split(
        bytes in prop::collection::vec(any::<u8>(), 0..if cfg!(miri) { 64 } else { 4000 }),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
    ) {
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        at.sort_unstable();
        let mut crc = Crc32c::new();
        let mut from = 0;
        for to in at.into_iter().chain([bytes.len()]) {
            crc = crc.update(&bytes[from..to]);
            from = to;
        }
        prop_assert_eq!(crc.finish(), by_definition(&bytes));
    }
}
