//! Names that are never drawn twice: of migrations, and of domains.

/// Draws 16-byte ids. Two hosts differ by their boot nonce, two draws by their
/// number and the time.
#[derive(Clone, Copy, Debug)]
pub struct Ids {
    nonce: u64,
    drawn: u64,
}

impl Ids {
    /// Of the host that drew `boot_nonce` when it booted.
    #[must_use]
    pub const fn new(boot_nonce: u64) -> Self {
        Self {
            nonce: boot_nonce,
            drawn: 0,
        }
    }

    /// The next; never all zero.
    pub const fn draw(&mut self, now_ns: u64) -> [u8; 16] {
        self.drawn = self.drawn.wrapping_add(1);
        let low = mix(self.nonce ^ mix(self.drawn));
        let high = mix(low ^ now_ns);
        let id = (high as u128) << 64 | low as u128;
        if id == 0 {
            return 1u128.to_le_bytes();
        }
        id.to_le_bytes()
    }
}

/// A bijection that spreads its input over all bits (Stafford's variant 13, the
/// finalizer of SplitMix64).
const fn mix(mut value: u64) -> u64 {
    value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_two_are_equal_on_one_host_or_two() {
        let mut seen = HashSet::new();
        for nonce in [0, 1, 2] {
            let mut ids = Ids::new(nonce);
            for _ in 0..1000 {
                let id = ids.draw(5);
                assert_ne!(id, [0; 16]);
                assert!(seen.insert(id));
            }
        }
    }
}
