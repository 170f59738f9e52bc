//! CRC-32C (Castagnoli), as iSCSI and SSE4.2 have it, eight table steps at a time.
//!
//! Tables and no instruction: the hypervisor's target has no SSE, and a
//! gigabyte of pages at one lookup per byte would be most of a migration.

/// Reflected polynomial.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// `TABLES[n][b]`: byte `b` followed by `n` zero bytes.
static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0u32; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 != 0 {
                (crc >> 1) ^ POLYNOMIAL
            } else {
                crc >> 1
            };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut row = 1;
    while row < 8 {
        let mut byte = 0;
        while byte < 256 {
            let previous = tables[row - 1][byte];
            tables[row][byte] = (previous >> 8) ^ tables[0][(previous & 0xff) as usize];
            byte += 1;
        }
        row += 1;
    }
    tables
}

/// A checksum over bytes that come in pieces.
#[derive(Debug, Clone, Copy)]
pub struct Crc32c(u32);

impl Default for Crc32c {
    fn default() -> Self {
        Self::new()
    }
}

impl Crc32c {
    /// Over no bytes yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(u32::MAX)
    }

    /// The same, with `bytes` appended.
    #[must_use]
    pub const fn update(self, mut bytes: &[u8]) -> Self {
        let mut crc = self.0;
        while let Some((eight, rest)) = bytes.split_first_chunk::<8>() {
            let [a, b, c, d] =
                (crc ^ u32::from_le_bytes([eight[0], eight[1], eight[2], eight[3]])).to_le_bytes();
            crc = TABLES[7][a as usize]
                ^ TABLES[6][b as usize]
                ^ TABLES[5][c as usize]
                ^ TABLES[4][d as usize]
                ^ TABLES[3][eight[4] as usize]
                ^ TABLES[2][eight[5] as usize]
                ^ TABLES[1][eight[6] as usize]
                ^ TABLES[0][eight[7] as usize];
            bytes = rest;
        }
        while let Some((&byte, rest)) = bytes.split_first() {
            crc = (crc >> 8) ^ TABLES[0][((crc ^ byte as u32) & 0xff) as usize];
            bytes = rest;
        }
        Self(crc)
    }

    /// The checksum of all that was appended.
    #[must_use]
    pub const fn finish(self) -> u32 {
        !self.0
    }
}

/// The checksum of `bytes`.
#[must_use]
pub const fn crc32c(bytes: &[u8]) -> u32 {
    Crc32c::new().update(bytes).finish()
}

#[cfg(test)]
mod tests {
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

    /// RFC 3720, B.4 "CRC Examples", and the catalogue's check value.
    #[test]
    fn published_values() {
        assert_eq!(crc32c(b""), 0);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        let ascending: [u8; 32] = core::array::from_fn(|index| index as u8);
        assert_eq!(crc32c(&ascending), 0x46dd_794e);
    }

    proptest! {
        #[test]
        fn equals_the_definition_however_split(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..200) {
            let (head, tail) = bytes.split_at(cut.min(bytes.len()));
            prop_assert_eq!(Crc32c::new().update(head).update(tail).finish(), by_definition(&bytes));
        }
    }
}
