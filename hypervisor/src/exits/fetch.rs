//! Fetching an instruction again: up to 15 bytes at CS:RIP, through the guest's
//! page tables.
//!
//! What cannot be fetched counts only if the instruction needs it: a CPUID at
//! the end of a page has nothing to do with the page behind it.

#[cfg(test)]
#[path = "fetch_tests.rs"]
mod tests;

use super::decode::{CodeSize, DecodeError, Instruction, MAX_BYTES};
use super::walk::{Access, Fault, Paging, PhysicalMemory, walk};
use crate::mm::addr::PAGE_BYTES;

/// The code segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeSegment {
    /// Linear base; ignored in 64-bit mode.
    pub base: u64,
    /// The last offset; ignored in 64-bit mode.
    pub limit: u32,
    /// Default sizes.
    pub size: CodeSize,
}

impl CodeSegment {
    /// What CS and the mode say: 64-bit code needs both EFER.LMA and CS.L; in
    /// real mode and virtual-8086 mode D is clear.
    #[must_use]
    pub const fn new(base: u64, limit: u32, long: bool, db: bool, paging: &Paging) -> Self {
        let size = match (long && paging.long(), db) {
            (true, _) => CodeSize::Bits64,
            (false, true) => CodeSize::Bits32,
            (false, false) => CodeSize::Bits16,
        };
        Self { base, limit, size }
    }

    /// The linear address of the byte at `offset`.
    const fn linear(&self, offset: u64) -> Result<u64, Fault> {
        match self.size {
            CodeSize::Bits64 => Ok(offset),
            // An offset that went past 4 GiB is beyond every limit.
            _ if offset > self.limit as u64 => Err(Fault::GeneralProtection),
            // Segmentation wraps at 4 GiB (SDM Vol. 3A, 3.4 Logical and Linear
            // Addresses).
            _ => Ok(self.base.wrapping_add(offset) & 0xffff_ffff),
        }
    }
}

/// Bytes of an instruction, as many as could be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetched {
    bytes: [u8; MAX_BYTES],
    len: usize,
    /// Why there are fewer than 15.
    stop: Option<Fault>,
}

/// Why there is no instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstructionError {
    /// It could not be fetched to its end: the guest gets this.
    Fetch(Fault),
    /// It was fetched, and is none or not the right one.
    Decode(DecodeError),
}

impl Fetched {
    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Decodes them with `decode`, which is given the bytes; where it wants
    /// more than there are, what stopped the fetch is the error.
    ///
    /// # Errors
    /// See [`InstructionError`].
    pub fn decode<T>(
        &self,
        decode: impl FnOnce(&[u8]) -> Result<T, DecodeError>,
    ) -> Result<T, InstructionError> {
        match (decode(self.bytes()), self.stop) {
            (Err(DecodeError::Truncated), Some(fault)) => Err(InstructionError::Fetch(fault)),
            (Err(error), _) => Err(InstructionError::Decode(error)),
            (Ok(decoded), _) => Ok(decoded),
        }
    }

    fn push(&mut self, memory: &impl PhysicalMemory, piece: Piece) -> Result<(), Fault> {
        let room = self.bytes.get_mut(self.len..).unwrap_or_default();
        let count = room.len().min(piece.bytes);
        let (into, _) = room.split_at_mut(count);
        let read = memory.read_bytes(piece.physical, into);
        read.ok_or(Fault::Unbacked(piece.physical))?;
        self.len += count;
        Ok(())
    }
}

/// Bytes that lie together in a page.
struct Piece {
    physical: crate::mm::addr::GuestPhys,
    bytes: usize,
}

/// Fetches what is at CS:`rip`. In 16- and 32-bit code only EIP counts.
#[must_use]
pub fn fetch(
    code: &CodeSegment,
    rip: u64,
    paging: &Paging,
    memory: &impl PhysicalMemory,
) -> Fetched {
    let mut fetched = Fetched {
        bytes: [0; MAX_BYTES],
        len: 0,
        stop: None,
    };
    let start = if code.size == CodeSize::Bits64 {
        rip
    } else {
        rip & 0xffff_ffff
    };
    while fetched.len < MAX_BYTES {
        // Past the last address a fetch goes on at 0, which is canonical, as
        // the CPU's does.
        let offset = start.wrapping_add(fetched.len as u64);
        let got = piece(code, offset, paging, memory).and_then(|piece| fetched.push(memory, piece));
        if let Err(fault) = got {
            fetched.stop = Some(fault);
            break;
        }
    }
    fetched
}

/// Fetches and decodes in one.
///
/// # Errors
/// See [`InstructionError`].
pub fn instruction(
    code: &CodeSegment,
    rip: u64,
    paging: &Paging,
    memory: &impl PhysicalMemory,
    decode: impl FnOnce(&[u8], CodeSize) -> Result<Instruction, DecodeError>,
) -> Result<Instruction, InstructionError> {
    fetch(code, rip, paging, memory).decode(|bytes| decode(bytes, code.size))
}

/// The bytes from `offset` to the end of its page or segment.
fn piece(
    code: &CodeSegment,
    offset: u64,
    paging: &Paging,
    memory: &impl PhysicalMemory,
) -> Result<Piece, Fault> {
    let linear = code.linear(offset)?;
    let physical = walk(paging, linear, Access::Fetch, memory)?;
    let page_rest = PAGE_BYTES - linear % PAGE_BYTES;
    let rest = match code.size {
        CodeSize::Bits64 => page_rest,
        // `linear` has checked that the offset is inside.
        _ => page_rest.min(u64::from(code.limit) - offset + 1),
    };
    // At most a page.
    Ok(Piece {
        physical,
        bytes: rest as usize,
    })
}
