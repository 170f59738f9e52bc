//! Frame-owner slots: while a domain lives, it has one, and all its frames are
//! counted under it.

use crate::mm::frames::{self, Owner};
use spin::mutex::SpinMutex;

/// Bit n: slot n is taken.
struct Slots([u64; 4]);

static SLOTS: SpinMutex<Slots> = SpinMutex::new(Slots([0; 4]));

impl Slots {
    fn take(&mut self) -> Option<u8> {
        let slot = (0..Owner::DOMAIN_SLOTS).find(|slot| !self.taken(*slot))?;
        self.0[usize::from(slot / 64)] |= 1 << (slot % 64);
        Some(slot)
    }

    fn taken(&self, slot: u8) -> bool {
        self.0[usize::from(slot / 64)] & 1 << (slot % 64) != 0
    }

    fn free(&mut self, slot: u8) {
        self.0[usize::from(slot / 64)] &= !(1 << (slot % 64));
    }
}

/// A slot; dropping it frees every frame under it.
pub struct Slot {
    number: u8,
    owner: Owner,
}

impl Slot {
    /// A free slot, if there is one.
    #[must_use]
    pub fn take() -> Option<Self> {
        let number = SLOTS.lock().take()?;
        let owner = Owner::domain(number)?;
        Some(Self { number, owner })
    }

    /// The owner that it stands for.
    #[must_use]
    pub const fn owner(&self) -> Owner {
        self.owner
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        frames::free_all(self.owner);
        SLOTS.lock().free(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_run_out_and_come_back() {
        let mut slots = Slots([0; 4]);
        for expected in 0..Owner::DOMAIN_SLOTS {
            assert_eq!(slots.take(), Some(expected));
        }
        assert_eq!(slots.take(), None);
        slots.free(77);
        assert_eq!(slots.take(), Some(77));
    }
}
