//! Memory for the areas of a domain's vCPUs: taken from the heap, counted, and
//! never more than the domain's limit.

use alloc::vec::Vec;
use vcpu_xstate::area::{AreaMemory, Block};

/// What a domain's areas take, and may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XstateMemory {
    used_bytes: u64,
    limit_bytes: u64,
}

const BLOCK_BYTES: u64 = size_of::<Block>() as u64;

impl XstateMemory {
    /// Nothing taken yet.
    #[must_use]
    pub const fn new(limit_bytes: u64) -> Self {
        Self {
            used_bytes: 0,
            limit_bytes,
        }
    }

    /// Bytes taken, in whole blocks of 64.
    #[must_use]
    pub const fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    /// The most that may be taken.
    #[must_use]
    pub const fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// By how much the limit stands in the way of `bytes` bytes more; 0 where it
    /// does not, and it is the machine that has none.
    #[must_use]
    pub const fn missing_bytes(&self, bytes: u64) -> u64 {
        let wanted = self
            .used_bytes
            .saturating_add(bytes.next_multiple_of(BLOCK_BYTES));
        wanted.saturating_sub(self.limit_bytes)
    }

    /// Sets it. Areas that are there already stay.
    pub const fn set_limit_bytes(&mut self, limit_bytes: u64) {
        self.limit_bytes = limit_bytes;
    }
}

impl AreaMemory for XstateMemory {
    fn allocate(&mut self, blocks: usize) -> Option<Vec<Block>> {
        let bytes = (blocks as u64).checked_mul(BLOCK_BYTES)?;
        let used = self.used_bytes.checked_add(bytes)?;
        if used > self.limit_bytes {
            return None;
        }
        let mut area = Vec::new();
        area.try_reserve_exact(blocks).ok()?;
        area.resize(blocks, Block::ZERO);
        self.used_bytes = used;
        Some(area)
    }

    fn release(&mut self, area: Vec<Block>) {
        let bytes = area.len() as u64 * BLOCK_BYTES;
        self.used_bytes = self.used_bytes.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_holds_and_what_is_released_can_be_had_again() {
        let mut memory = XstateMemory::new(640);
        let area = memory.allocate(9).unwrap();
        assert_eq!(memory.used_bytes(), 576);
        assert!(memory.allocate(2).is_none());
        assert_eq!(memory.used_bytes(), 576);
        assert!(memory.allocate(1).is_some());
        memory.release(area);
        assert_eq!(memory.used_bytes(), 64);
        assert!(memory.allocate(usize::MAX).is_none());
        assert_eq!(memory.missing_bytes(577), 64 + 640 - 640);
        assert_eq!(memory.missing_bytes(64), 0);
    }
}
