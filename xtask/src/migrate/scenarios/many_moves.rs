//! Guests go there and back, many times in one boot, two of them at a time, and
//! never see a wrong bit, a counter or a clock that goes back.

use anyhow::{Result, ensure};

use crate::migrate::relay::Side;
use crate::migrate::rig::Rig;

/// Seeds of the guests that share the machines, pair by pair, and how often each
/// pair goes there and back.
const PAIRS: [([u64; 2], usize); 3] = [([7, 1009], 3), ([42, 271_828], 1), ([65_537, 3], 1)];
/// Patterns that a guest must find right between its moves.
const PATTERNS: u64 = 2;

pub fn play(rig: &mut Rig) -> Result<String> {
    let mut moves = 0;
    let mut patterns = 0;
    for (seeds, rounds) in PAIRS {
        let mut guests = Vec::new();
        for seed in seeds {
            guests.push(rig.create(Side::A, seed, "")?);
        }
        for _ in 0..rounds * 2 {
            // While the first is away the machines have one guest each; then
            // both have changed sides.
            for guest in &mut guests {
                rig.progress(guest, PATTERNS)?;
                rig.send(guest)?;
                moves += 1;
            }
        }
        for mut guest in guests {
            rig.progress(&mut guest, PATTERNS)?;
            ensure!(guest.at == Side::A, "{} did not come back", guest.name);
            patterns += guest.ledger.count();
            rig.destroy(guest)?;
        }
    }
    ensure!(moves >= 20, "only {moves} moves");
    Ok(format!(
        "{moves} moves of {} guests, {patterns} patterns right",
        PAIRS.len() * 2
    ))
}
