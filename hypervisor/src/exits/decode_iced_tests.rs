//! The decoder against iced-x86, in every mode.

use super::*;
use iced_x86::{Code, Decoder, DecoderOptions, Mnemonic, OpKind, Register};
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

const SIZES: [CodeSize; 3] = [CodeSize::Bits16, CodeSize::Bits32, CodeSize::Bits64];

fn number(register: Register) -> u8 {
    register.number() as u8
}

fn segment(register: Register) -> SegmentName {
    match register {
        Register::ES => SegmentName::Es,
        Register::CS => SegmentName::Cs,
        Register::SS => SegmentName::Ss,
        Register::FS => SegmentName::Fs,
        Register::GS => SegmentName::Gs,
        _ => SegmentName::Ds,
    }
}

/// Something in every general register that shows which were added.
fn gprs() -> [u64; 16] {
    core::array::from_fn(|number| 0x1357_9bdf_0246_8ace_u64.rotate_left(4 * number as u32))
}

/// A memory operand reduced to its segment and where it points.
fn pointing_to(segment: SegmentName, offset: u64) -> LmswSource {
    LmswSource::Memory(MemoryOperand {
        segment,
        base: Base::None,
        index: None,
        displacement: offset as i64,
        address_bits: 0,
    })
}

fn iced_memory(i: &iced_x86::Instruction) -> LmswSource {
    let value = |register: Register, _, _| {
        let all = gprs().get(number(register) as usize).copied();
        match register {
            register if register.is_segment_register() => Some(0),
            register if register.size() == 2 => all.map(|value| value & 0xffff),
            register if register.size() == 4 => all.map(|value| value & 0xffff_ffff),
            _ => all,
        }
    };
    pointing_to(
        segment(i.memory_segment()),
        i.virtual_address(0, 0, value).unwrap(),
    )
}

/// The same instruction in iced's terms; `None` if it is none of ours.
fn iced_kind(i: &iced_x86::Instruction) -> Option<Kind> {
    let width = |register: Register| Width::from_bytes(register.size() as u8).unwrap();
    let port = |operand| match i.op_kind(operand) {
        OpKind::Immediate8 => PortOperand::Immediate(i.immediate8()),
        _ => PortOperand::Dx,
    };
    let string = |input, width| {
        let (kind, segment) = match input {
            true => (i.op0_kind(), SegmentName::Es),
            false => (i.op1_kind(), segment(i.memory_segment())),
        };
        let address_bits = match kind {
            OpKind::MemoryESDI | OpKind::MemorySegSI => 16,
            OpKind::MemoryESEDI | OpKind::MemorySegESI => 32,
            OpKind::MemoryESRDI | OpKind::MemorySegRSI => 64,
            other => panic!("{other:?}"),
        };
        let repeat = i.has_rep_prefix() || i.has_repne_prefix();
        Kind::StringIo(StringIo {
            input,
            width,
            repeat,
            segment,
            address_bits,
        })
    };
    Some(match i.code() {
        Code::Outsb_DX_m8 => string(false, Width::Byte),
        Code::Outsw_DX_m16 => string(false, Width::Word),
        Code::Outsd_DX_m32 => string(false, Width::Dword),
        Code::Insb_m8_DX => string(true, Width::Byte),
        Code::Insw_m16_DX => string(true, Width::Word),
        Code::Insd_m32_DX => string(true, Width::Dword),
        Code::Mov_cr_r32 | Code::Mov_cr_r64 => Kind::WriteCr {
            cr: number(i.op0_register()),
            gpr: number(i.op1_register()),
        },
        Code::Mov_r32_cr | Code::Mov_r64_cr => Kind::ReadCr {
            cr: number(i.op1_register()),
            gpr: number(i.op0_register()),
        },
        _ => match i.mnemonic() {
            Mnemonic::Cpuid => Kind::Cpuid,
            Mnemonic::Rdmsr => Kind::Rdmsr,
            Mnemonic::Wrmsr => Kind::Wrmsr,
            Mnemonic::Hlt => Kind::Hlt,
            Mnemonic::Pause => Kind::Pause,
            Mnemonic::Xsetbv => Kind::Xsetbv,
            Mnemonic::Vmmcall | Mnemonic::Vmgexit => Kind::Vmmcall,
            Mnemonic::Vmcall => Kind::Vmcall,
            Mnemonic::In => Kind::Io {
                input: true,
                width: width(i.op0_register()),
                port: port(1),
            },
            Mnemonic::Out => Kind::Io {
                input: false,
                width: width(i.op1_register()),
                port: port(0),
            },
            Mnemonic::Clts => Kind::Clts,
            Mnemonic::Lmsw => Kind::Lmsw(match i.op0_kind() {
                OpKind::Register => LmswSource::Gpr(number(i.op0_register())),
                _ => iced_memory(i),
            }),
            Mnemonic::Invd => Kind::Invd,
            Mnemonic::Wbinvd | Mnemonic::Wbnoinvd => Kind::Wbinvd,
            Mnemonic::Rdpmc => Kind::Rdpmc,
            Mnemonic::Rdtsc => Kind::Rdtsc,
            Mnemonic::Rdtscp => Kind::Rdtscp,
            Mnemonic::Rdpru => Kind::Rdpru,
            Mnemonic::Rsm => Kind::Rsm,
            Mnemonic::Monitor => Kind::Monitor,
            Mnemonic::Mwait => Kind::Mwait,
            Mnemonic::Monitorx => Kind::Monitorx,
            Mnemonic::Mwaitx => Kind::Mwaitx,
            Mnemonic::Vmrun => Kind::Vmrun,
            Mnemonic::Vmload => Kind::Vmload,
            Mnemonic::Vmsave => Kind::Vmsave,
            Mnemonic::Stgi => Kind::Stgi,
            Mnemonic::Clgi => Kind::Clgi,
            Mnemonic::Skinit => Kind::Skinit,
            Mnemonic::Invlpga => Kind::Invlpga,
            _ => return None,
        },
    })
}

/// Ours in the terms of the comparison: where a memory operand points to, and
/// no segment that 64-bit mode ignores, which iced does name.
fn comparable(kind: Kind, size: CodeSize, len: u8) -> Kind {
    let flat = |segment| match segment {
        SegmentName::Fs | SegmentName::Gs => segment,
        _ if size == CodeSize::Bits64 => SegmentName::Ds,
        _ => segment,
    };
    match kind {
        Kind::Lmsw(LmswSource::Memory(operand)) => {
            let offset = match operand.address_bits {
                0 => operand.displacement as u64,
                _ => operand.offset(&gprs(), len.into()),
            };
            Kind::Lmsw(pointing_to(flat(operand.segment), offset))
        }
        Kind::StringIo(io) => Kind::StringIo(StringIo {
            segment: flat(io.segment),
            ..io
        }),
        other => other,
    }
}

fn agrees_with_iced(bytes: &[u8], size: CodeSize) -> Result<(), TestCaseError> {
    let bits = match size {
        CodeSize::Bits16 => 16,
        CodeSize::Bits32 => 32,
        CodeSize::Bits64 => 64,
    };
    let theirs = Decoder::new(bits, bytes, DecoderOptions::NONE).decode();
    let ours = decode(bytes, size);
    let expected = if theirs.is_invalid() {
        None
    } else {
        iced_kind(&theirs)
    };
    // LOCK MOV CR0 is AMD's alone; F3 REX.B 90 is XCHG.
    if matches!(
        ours,
        Ok(Instruction {
            kind: Kind::ReadCr { cr: 8, .. } | Kind::WriteCr { cr: 8, .. },
            ..
        })
    ) && expected.is_none()
        && bytes.contains(&0xf0)
    {
        return Ok(());
    }
    if expected == Some(Kind::Pause) && ours == Err(DecodeError::Unknown(0x90)) {
        return Ok(());
    }
    match (ours, expected) {
        (Ok(ours), Some(kind)) => {
            let compared = |kind| comparable(kind, size, ours.len);
            prop_assert_eq!(compared(ours.kind), compared(kind), "{:02x?}", bytes);
            prop_assert_eq!(usize::from(ours.len), theirs.len());
        }
        (Err(_), None) => {}
        (ours, expected) => {
            return Err(TestCaseError::fail(std::format!(
                "{bytes:02x?} {size:?}: {ours:?}, iced {theirs} {expected:?}"
            )));
        }
    }
    Ok(())
}

fn size() -> impl Strategy<Value = CodeSize> {
    prop::sample::select(SIZES.to_vec())
}

/// Bytes that are often one of our instructions: prefixes, then an opcode.
fn likely() -> impl Strategy<Value = Vec<u8>> {
    let prefix = prop::sample::select(vec![
        0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x40, 0x41, 0x44, 0x48,
        0x4f_u8,
    ]);
    let one = prop::sample::select(vec![
        0x6c, 0x6d, 0x6e, 0x6f, 0x90, 0xe4, 0xe5, 0xe6, 0xe7, 0xec, 0xed, 0xee, 0xef, 0xf4_u8,
    ]);
    let two = prop::sample::select(vec![
        0x01, 0x06, 0x08, 0x09, 0x20, 0x22, 0x30, 0x31, 0x32, 0x33, 0xa2, 0xaa_u8,
    ]);
    let opcode = prop_oneof![
        one.prop_map(|byte| vec![byte]),
        two.prop_map(|byte| vec![0x0f, byte]),
        Just(vec![0x0f, 0x01]),
    ];
    (
        prop::collection::vec(prefix, 0..5),
        opcode,
        prop::collection::vec(any::<u8>(), 0..8),
    )
        .prop_map(|(prefixes, opcode, rest)| [prefixes, opcode, rest].concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn any_bytes_agree_with_iced(bytes in prop::collection::vec(any::<u8>(), 0..20), size in size()) {
        agrees_with_iced(&bytes, size)?;
    }

    #[test]
    fn our_instructions_agree_with_iced(bytes in likely(), size in size()) {
        agrees_with_iced(&bytes, size)?;
    }

    #[test]
    fn a_length_is_within_the_bytes_and_every_cut_is_truncated(bytes in likely(), size in size()) {
        if let Ok(instruction) = decode(&bytes, size) {
            let len = usize::from(instruction.len);
            prop_assert!((1..=MAX_BYTES.min(bytes.len())).contains(&len));
            for cut in 0..len {
                prop_assert_eq!(decode(&bytes[..cut], size), Err(DecodeError::Truncated));
            }
        }
    }
}
