//! Decoding the few instructions that exits are about.
//!
//! Where SVM gives no next RIP and no decode assists, an exit says which
//! instruction it was but neither its length nor its operands. The bytes are
//! fetched again ([`super::fetch`]) and decoded here, and what they turn out to
//! be is held against what the exit said: another CPU of the guest may have
//! rewritten them meanwhile.
//!
//! ```text
//!   Intercepted ──┐
//!   bytes, ≤ 15 ──┴─► prefixes ─► opcode ─► operands ─► Instruction { kind, len }
//! ```

mod instruction;
mod memory;
mod prefixes;

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "decode_iced_tests.rs"]
mod iced_tests;

use crate::virt::{Intercepted, IoExit, SegmentName};
use core::fmt;
pub use instruction::{Instruction, Kind, LmswSource, PortOperand, StringIo, Width};
pub use memory::{Base, MemoryOperand};
use prefixes::{Prefixes, Repeat};

/// The most bytes of an instruction (SDM Vol. 2A, 2.3.11).
pub const MAX_BYTES: usize = 15;

/// The code segment's default sizes: CS.L, CS.D and the paging mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeSize {
    /// Real mode, virtual-8086 mode, or CS.D = 0.
    Bits16,
    /// Protected or compatibility mode with CS.D = 1.
    Bits32,
    /// EFER.LMA = 1 and CS.L = 1.
    Bits64,
}

/// Why bytes are not the instruction that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The instruction goes on after the bytes that were given: what stopped
    /// the fetch is what the guest gets.
    Truncated,
    /// More than 15 bytes: #GP(0) (SDM Vol. 2A, 2.3.11).
    TooLong,
    /// LOCK where it is not allowed: #UD (SDM Vol. 2A, LOCK).
    Lock,
    /// An instruction that no exit is about, or an undefined one. The opcode:
    /// one byte, or 0x0fXX, or 0x0f01XX.
    Unknown(u32),
    /// Known, but not what the exit said. The guest rewrote it on another CPU;
    /// entering it again at the same RIP executes the new one.
    Mismatch(Kind),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => write!(out, "the instruction is longer than what could be fetched"),
            Self::TooLong => write!(out, "more than {MAX_BYTES} bytes"),
            Self::Lock => write!(out, "LOCK is not allowed here"),
            Self::Unknown(opcode) => write!(out, "opcode {opcode:#x} causes no exit of ours"),
            Self::Mismatch(kind) => write!(out, "{kind:?} is not what the exit was about"),
        }
    }
}

/// Decodes whatever of [`Kind`] stands at the start of `bytes`.
///
/// # Errors
/// See [`DecodeError`], except for `Mismatch`.
pub fn decode(bytes: &[u8], size: CodeSize) -> Result<Instruction, DecodeError> {
    let mut cursor = Cursor { bytes, at: 0 };
    let (prefixes, opcode) = Prefixes::take(&mut cursor, size)?;
    let kind = match opcode {
        0x0f => two_bytes(&mut cursor, &prefixes, size)?,
        0x6c..=0x6f => {
            let input = opcode & 2 == 0;
            Kind::StringIo(StringIo {
                input,
                width: port_width(opcode, &prefixes, size),
                repeat: prefixes.repeat.is_some(),
                segment: match prefixes.segment {
                    Some(segment) if !input => segment,
                    None if !input => SegmentName::Ds,
                    _ => SegmentName::Es,
                },
                address_bits: prefixes.address_bits(size),
            })
        }
        // With REX.B it is XCHG R8, RAX.
        0x90 if prefixes.repeat == Some(Repeat::Rep) && prefixes.rex_b() == 0 => Kind::Pause,
        0xe4..=0xe7 | 0xec..=0xef => Kind::Io {
            input: opcode & 2 == 0,
            width: port_width(opcode, &prefixes, size),
            port: if opcode & 8 == 0 {
                PortOperand::Immediate(cursor.byte()?)
            } else {
                PortOperand::Dx
            },
        },
        0xf4 => Kind::Hlt,
        _ => return Err(DecodeError::Unknown(u32::from(opcode))),
    };
    let kind = locked(kind, prefixes.lock)?;
    Ok(Instruction {
        kind,
        len: cursor.at,
    })
}

/// Decodes an instruction that the exit says is `expected`.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode_intercepted(
    bytes: &[u8],
    size: CodeSize,
    expected: Intercepted,
) -> Result<Instruction, DecodeError> {
    let instruction = decode(bytes, size)?;
    let same = match (expected, instruction.kind) {
        (Intercepted::Cpuid, Kind::Cpuid)
        | (Intercepted::Rdmsr, Kind::Rdmsr)
        | (Intercepted::Wrmsr, Kind::Wrmsr)
        | (Intercepted::Hlt, Kind::Hlt)
        | (Intercepted::Xsetbv, Kind::Xsetbv)
        | (Intercepted::Hypercall, Kind::Vmmcall | Kind::Vmcall)
        | (Intercepted::WriteCr(0), Kind::Clts | Kind::Lmsw(_))
        | (Intercepted::Invd, Kind::Invd)
        | (Intercepted::Wbinvd, Kind::Wbinvd) => true,
        (Intercepted::WriteCr(said), Kind::WriteCr { cr, .. }) => said == cr,
        (Intercepted::NotOffered, kind) => matches!(
            kind,
            Kind::Rdpmc
                | Kind::Rdpru
                | Kind::Rsm
                | Kind::Monitor
                | Kind::Mwait
                | Kind::Monitorx
                | Kind::Mwaitx
                | Kind::Vmrun
                | Kind::Vmload
                | Kind::Vmsave
                | Kind::Stgi
                | Kind::Clgi
                | Kind::Skinit
                | Kind::Invlpga
        ),
        _ => false,
    };
    if same {
        Ok(instruction)
    } else {
        Err(DecodeError::Mismatch(instruction.kind))
    }
}

/// Decodes an INS or OUTS that the exit told of: what the exit does not say is
/// its segment and its address size.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode_string_io(
    bytes: &[u8],
    size: CodeSize,
    expected: &IoExit,
) -> Result<(StringIo, u8), DecodeError> {
    let instruction = decode(bytes, size)?;
    match instruction.kind {
        Kind::StringIo(io)
            if expected.string
                && io.input == expected.input
                && io.repeat == expected.repeat
                && io.width.bytes() == expected.width =>
        {
            Ok((io, instruction.len))
        }
        other => Err(DecodeError::Mismatch(other)),
    }
}

/// Bit 0 of these opcodes says whether the operand has the operand's size. A
/// port access has at most 32 bits.
const fn port_width(opcode: u8, prefixes: &Prefixes, size: CodeSize) -> Width {
    match (opcode & 1, prefixes.operand_is_16(size)) {
        (0, _) => Width::Byte,
        (_, true) => Width::Word,
        (_, false) => Width::Dword,
    }
}

/// LOCK gives #UD on all of these but one: AMD reaches CR8 outside 64-bit mode
/// by LOCK MOV CR0 (APM Vol. 3, MOV CRn, AltMovCr8). A processor without that
/// has raised #UD before any exit.
const fn locked(kind: Kind, lock: bool) -> Result<Kind, DecodeError> {
    match kind {
        kind if !lock => Ok(kind),
        Kind::ReadCr { cr: 0, gpr } => Ok(Kind::ReadCr { cr: 8, gpr }),
        Kind::WriteCr { cr: 0, gpr } => Ok(Kind::WriteCr { cr: 8, gpr }),
        _ => Err(DecodeError::Lock),
    }
}

fn two_bytes(
    cursor: &mut Cursor<'_>,
    prefixes: &Prefixes,
    size: CodeSize,
) -> Result<Kind, DecodeError> {
    let opcode = cursor.byte()?;
    Ok(match opcode {
        0x01 => return group_7(cursor, prefixes, size),
        0x06 => Kind::Clts,
        0x08 => Kind::Invd,
        0x09 => Kind::Wbinvd,
        0x20 | 0x22 => {
            // The two bits of mod are ignored: the operand is a register.
            let modrm = cursor.byte()?;
            let cr = (modrm >> 3 & 7) | prefixes.rex_r();
            let gpr = (modrm & 7) | prefixes.rex_b();
            match (opcode, cr) {
                (0x20, 0 | 2 | 3 | 4 | 8) => Kind::ReadCr { cr, gpr },
                (0x22, 0 | 2 | 3 | 4 | 8) => Kind::WriteCr { cr, gpr },
                _ => return Err(DecodeError::Unknown(0x0f00 | u32::from(opcode))),
            }
        }
        0x30 => Kind::Wrmsr,
        0x31 => Kind::Rdtsc,
        0x32 => Kind::Rdmsr,
        0x33 => Kind::Rdpmc,
        0xa2 => Kind::Cpuid,
        0xaa => Kind::Rsm,
        _ => return Err(DecodeError::Unknown(0x0f00 | u32::from(opcode))),
    })
}

/// 0F 01: LMSW, and instructions without operands where a register would be.
fn group_7(
    cursor: &mut Cursor<'_>,
    prefixes: &Prefixes,
    size: CodeSize,
) -> Result<Kind, DecodeError> {
    let modrm = cursor.byte()?;
    if modrm >> 3 & 7 == 6 {
        let source = if modrm >> 6 == 3 {
            LmswSource::Gpr((modrm & 7) | prefixes.rex_b())
        } else {
            LmswSource::Memory(MemoryOperand::take(cursor, prefixes, size, modrm)?)
        };
        return Ok(Kind::Lmsw(source));
    }
    // Intel's are defined without a prefix that selects opcodes, AMD's with any.
    let plain = !prefixes.operand_size && prefixes.repeat.is_none();
    Ok(match modrm {
        0xc1 if plain => Kind::Vmcall,
        0xc8 if plain => Kind::Monitor,
        0xc9 if plain => Kind::Mwait,
        0xd1 if plain => Kind::Xsetbv,
        0xd8 => Kind::Vmrun,
        0xd9 => Kind::Vmmcall,
        0xda => Kind::Vmload,
        0xdb => Kind::Vmsave,
        0xdc => Kind::Stgi,
        0xdd => Kind::Clgi,
        0xde => Kind::Skinit,
        0xdf => Kind::Invlpga,
        0xf9 => Kind::Rdtscp,
        0xfa if plain => Kind::Monitorx,
        0xfb if plain => Kind::Mwaitx,
        0xfd if plain => Kind::Rdpru,
        _ => return Err(DecodeError::Unknown(0x0f_0100 | u32::from(modrm))),
    })
}

/// The instruction's bytes, and how many were taken.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: u8,
}

impl Cursor<'_> {
    fn byte(&mut self) -> Result<u8, DecodeError> {
        if usize::from(self.at) >= MAX_BYTES {
            return Err(DecodeError::TooLong);
        }
        let byte = self
            .bytes
            .get(usize::from(self.at))
            .ok_or(DecodeError::Truncated)?;
        self.at += 1;
        Ok(*byte)
    }

    /// A little-endian number of 1, 2 or 4 bytes, sign-extended.
    fn signed(&mut self, bytes: u32) -> Result<i64, DecodeError> {
        let mut value = 0_i64;
        for index in 0..bytes {
            value |= i64::from(self.byte()?) << (8 * index);
        }
        let unused = 64 - 8 * bytes;
        Ok(value << unused >> unused)
    }
}
