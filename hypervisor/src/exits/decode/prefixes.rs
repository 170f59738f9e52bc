//! What stands in front of an opcode: legacy prefixes and REX.

use super::{CodeSize, Cursor, DecodeError};
use crate::virt::SegmentName;

/// Prefixes of one instruction, with what they came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Prefixes {
    /// 66.
    pub operand_size: bool,
    /// 67.
    pub address_size: bool,
    /// F0.
    pub lock: bool,
    /// F2 or F3, whichever came last: that one selects the opcode.
    pub repeat: Option<Repeat>,
    /// The segment override that is in force.
    pub segment: Option<SegmentName>,
    /// REX, 0 where there is none.
    rex: u8,
}

/// REPNE or REP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// F2.
    Repne,
    /// F3.
    Rep,
}

impl Prefixes {
    /// Takes all prefixes; gives them and the first byte after them.
    ///
    /// A REX prefix counts only right before the opcode, so a legacy prefix or
    /// another REX after it annuls it (SDM Vol. 2A, 2.2.1 REX Prefixes). In
    /// 64-bit mode overrides other than FS and GS are ignored, and do not
    /// annul one of those (APM Vol. 3, 1.2.4 Segment-Override Prefixes).
    pub fn take(cursor: &mut Cursor<'_>, size: CodeSize) -> Result<(Self, u8), DecodeError> {
        let mut prefixes = Self::default();
        let long = size == CodeSize::Bits64;
        loop {
            let byte = cursor.byte()?;
            let flat = match byte {
                0x26 => Some(SegmentName::Es),
                0x2e => Some(SegmentName::Cs),
                0x36 => Some(SegmentName::Ss),
                0x3e => Some(SegmentName::Ds),
                _ => None,
            };
            match byte {
                0x40..=0x4f if long => {
                    prefixes.rex = byte;
                    continue;
                }
                _ if flat.is_some() => {
                    if !long {
                        prefixes.segment = flat;
                    }
                }
                0x64 => prefixes.segment = Some(SegmentName::Fs),
                0x65 => prefixes.segment = Some(SegmentName::Gs),
                0x66 => prefixes.operand_size = true,
                0x67 => prefixes.address_size = true,
                0xf0 => prefixes.lock = true,
                0xf2 => prefixes.repeat = Some(Repeat::Repne),
                0xf3 => prefixes.repeat = Some(Repeat::Rep),
                _ => return Ok((prefixes, byte)),
            }
            prefixes.rex = 0;
        }
    }

    /// Operand size 64.
    pub const fn rex_w(&self) -> bool {
        self.rex & 8 != 0
    }

    /// 8 where REX.R extends ModRM.reg, else 0.
    pub const fn rex_r(&self) -> u8 {
        (self.rex & 4) << 1
    }

    /// 8 where REX.X extends SIB.index, else 0.
    pub const fn rex_x(&self) -> u8 {
        (self.rex & 2) << 2
    }

    /// 8 where REX.B extends ModRM.rm, SIB.base or the opcode's register.
    pub const fn rex_b(&self) -> u8 {
        (self.rex & 1) << 3
    }

    /// Address size in bits.
    pub const fn address_bits(&self, size: CodeSize) -> u8 {
        match (size, self.address_size) {
            (CodeSize::Bits16, false) | (CodeSize::Bits32, true) => 16,
            (CodeSize::Bits16, true) | (CodeSize::Bits32, false) | (CodeSize::Bits64, true) => 32,
            (CodeSize::Bits64, false) => 64,
        }
    }

    /// Whether the operand size is 16 bits. REX.W goes before 66.
    pub const fn operand_is_16(&self, size: CodeSize) -> bool {
        match size {
            CodeSize::Bits16 => !self.operand_size,
            CodeSize::Bits32 => self.operand_size,
            CodeSize::Bits64 => self.operand_size && !self.rex_w(),
        }
    }
}
