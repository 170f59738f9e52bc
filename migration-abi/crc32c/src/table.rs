//! The checksum by table, eight bytes at a time: for every processor.

use crate::POLYNOMIAL;

/// `TABLES[n][b]`: byte `b` followed by `n` zero bytes.
static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0u32; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        tables[0][byte] = zero_byte(byte as u32);
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

/// The register after one zero byte, by the definition: bit by bit.
pub(crate) const fn zero_byte(mut crc: u32) -> u32 {
    let mut bit = 0;
    while bit < 8 {
        crc = if crc & 1 != 0 {
            (crc >> 1) ^ POLYNOMIAL
        } else {
            crc >> 1
        };
        bit += 1;
    }
    crc
}

/// The register `crc` (all ones at the start, inverted at the end) after `bytes`.
#[must_use]
pub const fn extend(mut crc: u32, mut bytes: &[u8]) -> u32 {
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
    crc
}
