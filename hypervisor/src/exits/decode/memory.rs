//! ModRM, SIB and displacement: a memory operand and where it points.

use super::prefixes::Prefixes;
use super::{CodeSize, Cursor, DecodeError};
use crate::virt::SegmentName;

/// A memory operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryOperand {
    /// Segment, overrides included.
    pub segment: SegmentName,
    /// Base.
    pub base: Base,
    /// Index register's number and its scale (1, 2, 4, 8).
    pub index: Option<(u8, u8)>,
    /// Displacement, sign-extended.
    pub displacement: i64,
    /// 16, 32 or 64: the sum is truncated to it.
    pub address_bits: u8,
}

/// What a memory operand counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// Nothing.
    None,
    /// A general register, by number.
    Gpr(u8),
    /// RIP after the instruction.
    NextRip,
}

/// Base, index with its scale, displacement.
type Parts = (Base, Option<(u8, u8)>, i64);

const BX: u8 = 3;
const SP: u8 = 4;
const BP: u8 = 5;
const SI: u8 = 6;
const DI: u8 = 7;

impl MemoryOperand {
    /// The operand after a ModRM byte whose mod is not 3 (SDM Vol. 2A, Tables
    /// 2-1 to 2-3).
    pub(super) fn take(
        cursor: &mut Cursor<'_>,
        prefixes: &Prefixes,
        size: CodeSize,
        modrm: u8,
    ) -> Result<Self, DecodeError> {
        let address_bits = prefixes.address_bits(size);
        let (base, index, displacement) = if address_bits == 16 {
            Self::take_16(cursor, modrm)?
        } else {
            Self::take_32(cursor, prefixes, size, modrm)?
        };
        // rSP and rBP as a base mean the stack; R12 and R13 do not.
        let default = match base {
            Base::Gpr(SP | BP) => SegmentName::Ss,
            _ => SegmentName::Ds,
        };
        let segment = prefixes.segment.unwrap_or(default);
        Ok(Self {
            segment,
            base,
            index,
            displacement,
            address_bits,
        })
    }

    fn take_16(cursor: &mut Cursor<'_>, modrm: u8) -> Result<Parts, DecodeError> {
        let (base, index) = match modrm & 7 {
            0 => (BX, Some((SI, 1))),
            1 => (BX, Some((DI, 1))),
            2 => (BP, Some((SI, 1))),
            3 => (BP, Some((DI, 1))),
            4 => (SI, None),
            5 => (DI, None),
            6 if modrm >> 6 == 0 => return Ok((Base::None, None, cursor.signed(2)?)),
            6 => (BP, None),
            _ => (BX, None),
        };
        let displacement = match modrm >> 6 {
            0 => 0,
            1 => cursor.signed(1)?,
            _ => cursor.signed(2)?,
        };
        Ok((Base::Gpr(base), index, displacement))
    }

    fn take_32(
        cursor: &mut Cursor<'_>,
        prefixes: &Prefixes,
        size: CodeSize,
        modrm: u8,
    ) -> Result<Parts, DecodeError> {
        let (mode, rm) = (modrm >> 6, modrm & 7);
        let mut index = None;
        let mut base = Base::Gpr(rm | prefixes.rex_b());
        if rm == 4 {
            let sib = cursor.byte()?;
            let number = (sib >> 3 & 7) | prefixes.rex_x();
            // Only rSP's number means none; R12 is an index.
            if number != SP {
                index = Some((number, 1 << (sib >> 6)));
            }
            base = Base::Gpr((sib & 7) | prefixes.rex_b());
            // The low three bits decide, so R13 is not a base without a
            // displacement either.
            if sib & 7 == BP && mode == 0 {
                return Ok((Base::None, index, cursor.signed(4)?));
            }
        } else if rm == 5 && mode == 0 {
            let base = if size == CodeSize::Bits64 {
                Base::NextRip
            } else {
                Base::None
            };
            return Ok((base, None, cursor.signed(4)?));
        }
        let displacement = match mode {
            0 => 0,
            1 => cursor.signed(1)?,
            _ => cursor.signed(4)?,
        };
        Ok((base, index, displacement))
    }

    /// The effective address: an offset into [`MemoryOperand::segment`].
    /// `gprs` in the order of their numbers.
    #[must_use]
    pub fn offset(&self, gprs: &[u64; 16], next_rip: u64) -> u64 {
        let register = |number: u8| gprs[usize::from(number & 15)];
        let base = match self.base {
            Base::None => 0,
            Base::Gpr(number) => register(number),
            Base::NextRip => next_rip,
        };
        let index = match self.index {
            Some((number, scale)) => register(number).wrapping_mul(u64::from(scale)),
            None => 0,
        };
        let sum = base
            .wrapping_add(index)
            .wrapping_add_signed(self.displacement);
        match self.address_bits {
            16 => sum & 0xffff,
            32 => sum & 0xffff_ffff,
            _ => sum,
        }
    }
}
