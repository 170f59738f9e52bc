//! Which AMX tile configurations are one that LDTILECFG would take.

use super::{BadValue, word};
use crate::mutants::rule;

/// Whether it is a configuration of palette 1 that [`check`] takes: by
/// words, without naming what is wrong with another one.
pub(super) fn usual(bytes: &[u8]) -> bool {
    let at = |index: usize| word(bytes, 8 * index);
    let (low, high, rows) = (at(2), at(3), at(6));
    // Palette 1, any start row; reserved bytes; tiles 8 to 15.
    let mut bad = (at(0) & !0xff00 ^ 1) | at(1) | at(4) | at(5) | at(7);
    for tile in 0..8 {
        let row_bytes = if tile < 4 { low } else { high } >> (16 * (tile % 4)) & 0xffff;
        let rows = rows >> (8 * tile) & 0xff;
        let one_alone = (row_bytes == 0) ^ (rows == 0);
        bad |= u64::from((row_bytes > 64) | (rows > 16) | one_alone);
    }
    bad == 0
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
