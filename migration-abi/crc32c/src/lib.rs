//! CRC-32C (Castagnoli), as iSCSI and SSE4.2 have it, for code that owns no vector register.
//!
//! ```text
//!  x86-64 with SSE4.2   CRC32 r64, r64: three streams at once, joined by a table
//!  everything else      eight table steps at a time
//! ```
//!
//! The faster ways by PCLMULQDQ are not for a hypervisor: while it runs, the
//! vector registers hold a guest's state. CRC32 takes general registers alone,
//! so it needs neither a target feature nor a saved register; it is written as
//! inline assembly because a target without SSE, such as
//! `x86_64-unknown-none`, cannot name the intrinsic. Whether the processor has
//! it is asked of CPUID once (in a guest that costs an exit).
#![cfg_attr(not(test), no_std)]

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod instruction;
pub mod table;

/// Reflected polynomial.
pub const POLYNOMIAL: u32 = 0x82f6_3b78;

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
    pub fn update(self, bytes: &[u8]) -> Self {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        if let Some(instruction) = instruction::Crc32::of_this_processor() {
            return Self(instruction.extend(self.0, bytes));
        }
        Self(table::extend(self.0, bytes))
    }

    /// The checksum of all that was appended.
    #[must_use]
    pub const fn finish(self) -> u32 {
        !self.0
    }
}

/// The checksum of `bytes`.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    Crc32c::new().update(bytes).finish()
}

/// Whether this processor's own instruction is used here.
#[must_use]
pub fn by_instruction() -> bool {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        instruction::Crc32::of_this_processor().is_some()
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    {
        false
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
