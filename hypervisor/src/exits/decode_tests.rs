//! The decoder against tables of the manuals.

use super::*;
use std::vec;
use std::vec::Vec;

const SIZES: [CodeSize; 3] = [CodeSize::Bits16, CodeSize::Bits32, CodeSize::Bits64];

fn kind(bytes: &[u8], size: CodeSize) -> Result<Kind, DecodeError> {
    let instruction = decode(bytes, size)?;
    assert_eq!(usize::from(instruction.len), bytes.len(), "{bytes:02x?}");
    Ok(instruction.kind)
}

/// SDM Vol. 2 and APM Vol. 3, the instructions' own pages.
#[test]
fn instructions_without_operands_are_the_same_in_every_mode() {
    for (bytes, expected) in [
        (&[0x0f, 0xa2][..], Kind::Cpuid),
        (&[0x66, 0xf2, 0x0f, 0xa2], Kind::Cpuid),
        (&[0x0f, 0x32], Kind::Rdmsr),
        (&[0x0f, 0x30], Kind::Wrmsr),
        (&[0xf4], Kind::Hlt),
        (&[0xf3, 0x90], Kind::Pause),
        (&[0x0f, 0x01, 0xd1], Kind::Xsetbv),
        (&[0x0f, 0x01, 0xd9], Kind::Vmmcall),
        (&[0xf3, 0x0f, 0x01, 0xd9], Kind::Vmmcall),
        (&[0x0f, 0x01, 0xc1], Kind::Vmcall),
        (&[0x0f, 0x06], Kind::Clts),
        (&[0x0f, 0x08], Kind::Invd),
        (&[0x0f, 0x09], Kind::Wbinvd),
        (&[0xf3, 0x0f, 0x09], Kind::Wbinvd),
        (&[0x0f, 0x33], Kind::Rdpmc),
        (&[0x0f, 0x31], Kind::Rdtsc),
        (&[0x0f, 0xaa], Kind::Rsm),
        (&[0x0f, 0x01, 0xf9], Kind::Rdtscp),
        (&[0x0f, 0x01, 0xfd], Kind::Rdpru),
        (&[0x0f, 0x01, 0xc8], Kind::Monitor),
        (&[0x0f, 0x01, 0xc9], Kind::Mwait),
        (&[0x0f, 0x01, 0xd8], Kind::Vmrun),
        (&[0x0f, 0x01, 0xda], Kind::Vmload),
        (&[0x0f, 0x01, 0xdb], Kind::Vmsave),
        (&[0x0f, 0x01, 0xdc], Kind::Stgi),
        (&[0x0f, 0x01, 0xdd], Kind::Clgi),
        (&[0x0f, 0x01, 0xde], Kind::Skinit),
        (&[0x0f, 0x01, 0xdf], Kind::Invlpga),
    ] {
        for size in SIZES {
            assert_eq!(kind(bytes, size), Ok(expected), "{bytes:02x?} {size:?}");
            let locked: Vec<u8> = [&[0xf0][..], bytes].concat();
            assert_eq!(decode(&locked, size), Err(DecodeError::Lock));
        }
    }
}

/// SDM Vol. 2A, 3.1.1.1: "NP" opcodes are others, or none, behind 66, F2, F3.
#[test]
fn a_prefix_that_selects_another_opcode() {
    for prefix in [0x66, 0xf2, 0xf3] {
        let error = decode(&[prefix, 0x0f, 0x01, 0xd1], CodeSize::Bits64);
        assert_eq!(error, Err(DecodeError::Unknown(0x0f_01d1)));
    }
    assert_eq!(
        decode(&[0x90], CodeSize::Bits64),
        Err(DecodeError::Unknown(0x90))
    );
    // XCHG R8, RAX.
    assert_eq!(
        decode(&[0xf3, 0x41, 0x90], CodeSize::Bits64),
        Err(DecodeError::Unknown(0x90))
    );
    assert_eq!(kind(&[0xf3, 0x48, 0x90], CodeSize::Bits64), Ok(Kind::Pause));
}

/// SDM Vol. 2A, 2.2.1: REX stands right before the opcode, and the last counts.
#[test]
fn the_last_rex_counts_and_only_right_before_the_opcode() {
    let write = |cr, gpr| Ok(Kind::WriteCr { cr, gpr });
    let long = CodeSize::Bits64;
    assert_eq!(kind(&[0x0f, 0x22, 0xc0], long), write(0, 0));
    assert_eq!(kind(&[0x44, 0x0f, 0x22, 0xc0], long), write(8, 0));
    assert_eq!(kind(&[0x41, 0x0f, 0x22, 0xdf], long), write(3, 15));
    assert_eq!(kind(&[0x44, 0x41, 0x0f, 0x22, 0xc0], long), write(0, 8));
    assert_eq!(kind(&[0x44, 0x66, 0x0f, 0x22, 0xc0], long), write(0, 0));
    // CR1, CR9: there is none.
    assert_eq!(
        decode(&[0x0f, 0x22, 0xc8], long),
        Err(DecodeError::Unknown(0x0f22))
    );
    assert_eq!(
        decode(&[0x44, 0x0f, 0x20, 0xc8], long),
        Err(DecodeError::Unknown(0x0f20))
    );
    // Outside 64-bit mode REX is INC and DEC.
    assert_eq!(
        decode(&[0x44, 0x0f, 0x22, 0xc0], CodeSize::Bits32),
        Err(DecodeError::Unknown(0x44))
    );
}

/// SDM Vol. 2B, MOV—Move to/from Control Registers: mod is ignored.
#[test]
fn the_mod_field_of_a_control_register_move_is_ignored() {
    for size in SIZES {
        for mode in 0..4_u8 {
            let read = kind(&[0x0f, 0x20, mode << 6 | 0x14], size);
            assert_eq!(read, Ok(Kind::ReadCr { cr: 2, gpr: 4 }));
        }
    }
}

/// APM Vol. 3, MOV CRn: AltMovCr8.
#[test]
fn lock_mov_cr0_is_cr8() {
    let bytes = [0xf0, 0x0f, 0x22, 0xc1];
    assert_eq!(
        kind(&bytes, CodeSize::Bits32),
        Ok(Kind::WriteCr { cr: 8, gpr: 1 })
    );
    assert!(decode_intercepted(&bytes, CodeSize::Bits32, Intercepted::WriteCr(8)).is_ok());
    assert_eq!(
        decode(&[0xf0, 0x0f, 0x22, 0xd9], CodeSize::Bits32),
        Err(DecodeError::Lock)
    );
}

/// SDM Vol. 2A, 2.3.11: 15 bytes are an instruction, 16 are #GP.
#[test]
fn fifteen_bytes_and_no_more() {
    for size in SIZES {
        let mut bytes = vec![0x2e; 13];
        bytes.extend([0x0f, 0xa2]);
        assert_eq!(kind(&bytes, size), Ok(Kind::Cpuid));
        bytes.insert(0, 0x2e);
        assert_eq!(decode(&bytes, size), Err(DecodeError::TooLong));
        assert_eq!(decode(&[0x2e; 15], size), Err(DecodeError::TooLong));
        assert_eq!(decode(&[0x2e; 14], size), Err(DecodeError::Truncated));
    }
}

/// APM Vol. 3, OUTS; SDM Vol. 2A, INS: overrides are for the source alone.
#[test]
fn string_io_has_its_segment_and_address_size() {
    let io = |bytes: &[u8], size| match kind(bytes, size) {
        Ok(Kind::StringIo(io)) => (io.width, io.repeat, io.segment, io.address_bits),
        other => panic!("{other:?}"),
    };
    use SegmentName::{Ds, Es, Fs, Gs};
    let (b16, b32, b64) = (CodeSize::Bits16, CodeSize::Bits32, CodeSize::Bits64);
    assert_eq!(io(&[0x6e], b64), (Width::Byte, false, Ds, 64));
    assert_eq!(
        io(&[0xf3, 0x65, 0x67, 0x66, 0x6f], b64),
        (Width::Word, true, Gs, 32)
    );
    assert_eq!(io(&[0xf2, 0x48, 0x6f], b64), (Width::Dword, true, Ds, 64));
    assert_eq!(io(&[0x64, 0x3e, 0x6e], b64), (Width::Byte, false, Fs, 64));
    assert_eq!(io(&[0x26, 0x6e], b64), (Width::Byte, false, Ds, 64));
    assert_eq!(io(&[0x64, 0x26, 0x6e], b32), (Width::Byte, false, Es, 32));
    assert_eq!(io(&[0x64, 0x6c], b32), (Width::Byte, false, Es, 32));
    assert_eq!(io(&[0x6d], b16), (Width::Word, false, Es, 16));
    assert_eq!(io(&[0x67, 0x66, 0x6d], b16), (Width::Dword, false, Es, 32));
}

/// SDM Vol. 2A, Tables 2-1 to 2-3.
#[test]
fn lmsw_reads_memory_where_its_modrm_says() {
    let mut gprs = [0_u64; 16];
    for (number, gpr) in gprs.iter_mut().enumerate() {
        *gpr = 0x1_0000_0000 + 0x1000 * number as u64;
    }
    let at = |bytes: &[u8], size| match kind(bytes, size) {
        Ok(Kind::Lmsw(LmswSource::Memory(operand))) => {
            (operand.segment, operand.offset(&gprs, 0x7000))
        }
        other => panic!("{other:?}"),
    };
    use SegmentName::{Ds, Ss};
    // [bp+si+0x10], [0x1234], [rbp-8], [rip-16], [r12+r12*4+1], [rax*8+0x40].
    assert_eq!(
        at(&[0x0f, 0x01, 0x72, 0x10], CodeSize::Bits16),
        (Ss, 0xb010)
    );
    assert_eq!(
        at(&[0x0f, 0x01, 0x36, 0x34, 0x12], CodeSize::Bits16),
        (Ds, 0x1234)
    );
    assert_eq!(
        at(&[0x0f, 0x01, 0x75, 0xf8], CodeSize::Bits32),
        (Ss, 0x4ff8)
    );
    assert_eq!(
        at(
            &[0x0f, 0x01, 0x35, 0xf0, 0xff, 0xff, 0xff],
            CodeSize::Bits64
        ),
        (Ds, 0x6ff0)
    );
    assert_eq!(
        at(&[0x43, 0x0f, 0x01, 0x74, 0xa4, 1], CodeSize::Bits64),
        (Ds, 0x5_0003_c001)
    );
    assert_eq!(
        at(&[0x0f, 0x01, 0x34, 0xc5, 0x40, 0, 0, 0], CodeSize::Bits64),
        (Ds, 0x8_0000_0040)
    );
    // R13's number is no base without a displacement either.
    let absolute = [0x41, 0x0f, 0x01, 0x34, 0x25, 0x34, 0x12, 0, 0];
    assert_eq!(at(&absolute, CodeSize::Bits64), (Ds, 0x1234));
    let register = Ok(Kind::Lmsw(LmswSource::Gpr(9)));
    assert_eq!(kind(&[0x41, 0x0f, 0x01, 0xf1], CodeSize::Bits64), register);
}

#[test]
fn an_instruction_that_the_exit_was_not_about_is_a_mismatch() {
    let of = |bytes: &[u8], expected| decode_intercepted(bytes, CodeSize::Bits64, expected);
    let cpuid = [0x0f, 0xa2];
    assert!(of(&cpuid, Intercepted::Cpuid).is_ok());
    for other in [
        Intercepted::Rdmsr,
        Intercepted::WriteCr(0),
        Intercepted::NotOffered,
    ] {
        assert_eq!(of(&cpuid, other), Err(DecodeError::Mismatch(Kind::Cpuid)));
    }
    assert!(of(&[0x0f, 0x01, 0xc1], Intercepted::Hypercall).is_ok());
    assert!(of(&[0x0f, 0x06], Intercepted::WriteCr(0)).is_ok());
    assert!(of(&[0x0f, 0x06], Intercepted::WriteCr(4)).is_err());
    assert!(of(&[0x0f, 0x22, 0xe0], Intercepted::WriteCr(4)).is_ok());
    assert!(of(&[0x0f, 0x22, 0xe0], Intercepted::WriteCr(0)).is_err());

    let exit = IoExit {
        port: 0x3f8,
        width: 1,
        input: false,
        string: true,
        repeat: true,
        next_rip: 2,
    };
    let string = |bytes: &[u8]| decode_string_io(bytes, CodeSize::Bits64, &exit);
    assert_eq!(string(&[0xf3, 0x6e]).map(|(_, len)| len), Ok(2));
    for bytes in [&[0x6e][..], &[0xf3, 0x6f], &[0xf3, 0x6c], &[0xee]] {
        assert!(
            matches!(string(bytes), Err(DecodeError::Mismatch(_))),
            "{bytes:02x?}"
        );
    }
}
