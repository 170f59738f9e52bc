//! Which AMX tile configurations are one that LDTILECFG would take.

use super::BadValue;
use crate::mutants::rule;

/// Whether it is a configuration of palette 1 that [`check`] takes: by
/// words, all tiles at once, without naming what is wrong with another one.
pub(super) fn usual(bytes: &[u8]) -> bool {
    let Some(config) = bytes.first_chunk::<64>() else {
        return false;
    };
    let (words, _) = config.as_chunks::<8>();
    let at = |index: usize| u64::from_le_bytes(words[index]);
    let (low, high, rows) = (at(2), at(3), at(6));
    // Palette 1, any start row; reserved bytes; tiles 8 to 15.
    let mut bad = (at(0) & !0xff00 ^ 1) | at(1) | at(4) | at(5) | at(7);
    // Each lane's top bit tells whether the lane is larger. A carry out of a
    // lane comes from one that is larger by far and has said so itself.
    bad |= (rows | rows.wrapping_add(BYTES * (0x7f - 16))) & (BYTES << 7);
    for (row_bytes, rows) in [(low, rows & 0xffff_ffff), (high, rows >> 32)] {
        bad |= (row_bytes | row_bytes.wrapping_add(WORDS * (0x7fff - 64))) & (WORDS << 15);
        // A tile has both dimensions or none.
        let unlike = is_set(row_bytes) ^ is_set(spread(rows));
        bad |= unlike & (WORDS << 15);
    }
    bad == 0
}

/// A 1 in each byte, and in each 16 bits.
const BYTES: u64 = 0x0101_0101_0101_0101;
const WORDS: u64 = 0x0001_0001_0001_0001;

/// The top bit of each 16 bits that are not 0; they are less than half full.
const fn is_set(lanes: u64) -> u64 {
    lanes.wrapping_add(WORDS * 0x7fff)
}

/// Four bytes as 16 bits each.
const fn spread(bytes: u64) -> u64 {
    let pairs = (bytes | bytes << 16) & 0x0000_ffff_0000_ffff;
    (pairs | pairs << 8) & 0x00ff_00ff_00ff_00ff
}

/// Palette 0 (INIT) or 1, start row, reserved bytes, bytes per row, rows (SDM
/// Vol. 2, LDTILECFG).
pub(super) fn check(bytes: &[u8]) -> Result<(), BadValue> {
    let byte = |i: usize| u64::from(bytes.get(i).copied().unwrap_or(0));
    let most = |value: u64, largest: u64| {
        if !rule!("tile-config") || value <= largest {
            Ok(())
        } else {
            Err(BadValue::TileConfig(value, largest))
        }
    };
    most(byte(0), 1)?;
    let any_other = (1..64).any(|i| byte(i) != 0);
    if byte(0) == 0 {
        return most(any_other.into(), 0);
    }
    (2..16).try_for_each(|i| most(byte(i), 0))?;
    (0..16).try_for_each(|tile| {
        let (row_bytes, rows) = (
            byte(16 + 2 * tile) | byte(17 + 2 * tile) << 8,
            byte(48 + tile),
        );
        let (max_row_bytes, max_rows) = if tile < 8 { (64, 16) } else { (0, 0) };
        most(row_bytes, max_row_bytes)?;
        most(rows, max_rows)?;
        // A tile has both dimensions or none.
        most((row_bytes == 0) as u64 ^ (rows == 0) as u64, 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        /// What is taken at a glance is what the rules take, but for palette 0.
        #[test]
        fn a_usual_one_breaks_no_rule(
            sizes in proptest::collection::vec((0_u8..70, 0_u8..20), 8),
            start_row in proptest::prelude::any::<u8>(),
            (at, value) in (0_usize..64, 0_u8..3),
            both in proptest::prelude::any::<bool>(),
        ) {
            let mut bytes = [0; 64];
            (bytes[0], bytes[1]) = (1, start_row);
            for (tile, (row_bytes, rows)) in sizes.into_iter().enumerate() {
                // Mostly legal ones, or nothing would be taken.
                let legal = (row_bytes.clamp(1, 64), rows.clamp(1, 16));
                let (row_bytes, rows) = if both { legal } else { (row_bytes, rows) };
                (bytes[16 + 2 * tile], bytes[48 + tile]) = (row_bytes, rows);
            }
            let compare = |bytes: &[u8; 64]| {
                let by_rules = check(bytes).is_ok() && bytes[0] == 1;
                assert_eq!(usual(bytes), by_rules, "{bytes:x?}");
            };
            compare(&bytes);
            bytes[at] = value;
            compare(&bytes);
        }
    }
}
