//! The C header says what the Rust says, and the C examples read what the Rust writes.
#![cfg(not(miri))] // runs a compiler

mod compile;
mod layout;
#[path = "../../examples/read_blob.rs"]
mod read_blob;

use std::process::Output;

use compile::{compile, skipped};
use migration_abi::blob::{self, v1};
use migration_abi::stream::{Decoder, Frame, FrameHeader, RecordType, Step};

const BLOBS: [&str; 4] = [
    "blob-v1-sse.bin",
    "blob-v1-avx512.bin",
    "blob-v1-no-xsave.bin",
    "blob-v1-sapphire-rapids.bin",
];

fn golden(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What the example in Rust prints: the one in C must print the same.
fn expected(bytes: &[u8]) -> String {
    let mut out = Vec::new();
    read_blob::show(bytes, &mut out).expect("a blob");
    text(&out)
}

/// The book shows what is printed, and the bytes that are there.
#[test]
fn the_book_walks_through_the_golden_blob() {
    let book = include_str!("../../../docs/src/reading-a-blob.md");
    let bytes = std::fs::read(golden("blob-v1-avx512.bin")).expect("golden");
    assert!(book.contains(&expected(&bytes)), "{}", expected(&bytes));
    let mut rows = 0;
    for line in book.lines() {
        // `000000f0  7f 03 … `: an offset of eight digits and 16 bytes or fewer.
        let Some((offset, rest)) = line.split_once("  ") else {
            continue;
        };
        let (Ok(offset), 8) = (usize::from_str_radix(offset, 16), offset.len()) else {
            continue;
        };
        let shown: Vec<u8> = rest
            .split(' ')
            .map_while(|digits| {
                u8::from_str_radix(digits, 16)
                    .ok()
                    .filter(|_| digits.len() == 2)
            })
            .collect();
        assert_eq!(shown, bytes[offset..offset + shown.len()], "{line}");
        rows += 1;
    }
    assert!(rows >= 20, "{rows} rows of bytes in the book");
}

#[test]
fn the_c_example_reads_the_golden_blobs() {
    let Some(read_blob) = compile("read_blob", "read_blob.c") else {
        return skipped();
    };
    for name in BLOBS {
        let output = read_blob.run(&golden(name));
        assert!(output.status.success(), "{name}: {}", text(&output.stderr));
        let bytes = std::fs::read(golden(name)).expect("golden");
        assert_eq!(text(&output.stdout), expected(&bytes), "{name}");
    }
    // And once as it stands in the book, without anything computed here.
    let output = read_blob.run(&golden("blob-v1-avx512.bin"));
    assert!(text(&output.stdout).contains(
        " 5 opmask       64 bytes at   832 held\n 6 zmm_hi256   512 bytes at   896 held\n \
         7 hi16_zmm   1024 bytes at  1408 held\n 9 pkru          8 bytes at  2432 INIT\n\
         11 cet_u        16 bytes not in the image: INIT\n"
    ));
}

/// The same bytes are refused, by the same rule at the same byte.
#[test]
fn the_c_example_refuses_what_the_rust_refuses() {
    let Some(read_blob) = compile("read_blob_refuses", "read_blob.c") else {
        return skipped();
    };
    let whole = std::fs::read(golden("blob-v1-avx512.bin")).expect("golden");
    let verdict = |output: &Output| {
        let said = text(&output.stderr);
        match output.status.code() {
            Some(0) => String::new(),
            Some(1) => said.trim_end().to_owned(),
            // A signal, or a sanitizer's word.
            _ => panic!("{:?}: {said}", output.status),
        }
    };
    let same = |bytes: &[u8], what: &str| {
        let path = compile::scratch("tampered.bin");
        std::fs::write(&path, bytes).expect("a scratch file");
        let rust = match blob::parse(bytes) {
            // The format's own rules; then that the components lie in the image.
            Ok(_) => match read_blob::show(bytes, &mut Vec::new()) {
                Ok(()) => String::new(),
                Err(error) => error.to_string(),
            },
            Err(error) => format!("{} at byte {}", error.rule(), error.offset),
        };
        assert_eq!(verdict(&read_blob.run(&path)), rust, "{what}");
    };
    // Every byte of header and directory, and of the image's header; sealed,
    // so that the rules behind the checksum are asked too.
    let image = 96 + 9 * 16;
    let places = (0..image).chain(image + 512..image + 528);
    for at in places {
        // The lowest bit of one byte, the highest of the next: each field sees both.
        let flip = if at % 2 == 0 { 0x01 } else { 0x80 };
        let mut bytes = whole.clone();
        bytes[at] ^= flip;
        let _ = v1::seal(&mut bytes);
        same(&bytes, &format!("byte {at} ^ {flip:#x}"));
    }
    for length in [0, 7, 8, 9, 10, 95, 96, 239, 240, 815, 2679, 2683] {
        same(&whole[..length], &format!("{length} bytes"));
    }
    let mut damaged = whole.clone();
    damaged[2000] ^= 4;
    same(&damaged, "damaged");
    let longer = [&whole[..], &[0]].concat();
    same(&longer, "a byte behind");
}

/// Components that lie outside of the image, or are held without a place, were
/// printed with offsets as if they were there.
#[test]
fn components_outside_of_the_image_are_refused() {
    let whole = std::fs::read(golden("blob-v1-avx512.bin")).expect("golden");
    let image = 96 + 9 * 16;
    // The image, 8 bytes of it missing: PKRU's.
    let mut short = whole.clone();
    short.drain(image + 2432..image + 2440);
    short[24..32].copy_from_slice(&2676u64.to_le_bytes());
    short[88..92].copy_from_slice(&2432u32.to_le_bytes());
    let mut huge = whole.clone();
    huge[132..136].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut beyond_layout = whole.clone();
    beyond_layout[image + 513] |= 8;
    let mut beyond_mask = whole.clone();
    beyond_mask[81] |= 4;
    beyond_mask[image + 521] |= 4;
    let mut standard = whole.clone();
    standard[87] = 0;
    standard[image + 527] = 0;
    let c = compile("read_blob_outside", "read_blob.c");
    for (mut bytes, said) in [
        (short, "image-length at byte 88"),
        (huge, "image-length at byte 88"),
        (beyond_layout, "xstate-bv-xcomp-bv at byte 752"),
        (beyond_mask, "xcomp-bv-policy at byte 80"),
        (standard, "xcomp-bv-bit-63 at byte 80"),
    ] {
        v1::seal(&mut bytes).expect("a blob");
        assert!(blob::parse(&bytes).is_ok(), "{said}: the format allows it");
        let error = read_blob::show(&bytes, &mut Vec::new()).expect_err(said);
        assert_eq!(error.to_string(), said);
        let path = compile::scratch("outside.bin");
        std::fs::write(&path, &bytes).expect("a scratch file");
        if let Some(c) = &c {
            let output = c.run(&path);
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert_eq!(text(&output.stderr).trim_end(), said);
            assert_eq!(text(&output.stdout), "");
        }
    }
    if c.is_none() {
        skipped();
    }
}

/// A directory was said to be a blob that is too short.
#[test]
fn what_cannot_be_read_is_no_broken_blob() {
    let directory = golden("blob-v1-sse.bin").with_file_name("");
    for source in ["read_blob.c", "list_stream.c"] {
        let Some(program) = compile(&format!("unread_{source}.out"), source) else {
            return skipped();
        };
        let output = program.run(&directory);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{source}: {said}");
        assert!(
            !said.contains("blob-length") && said.contains("golden"),
            "{said}"
        );
    }
}

#[test]
fn the_c_example_lists_the_golden_stream() {
    let Some(list_stream) = compile("list_stream", "list_stream.c") else {
        return skipped();
    };
    let path = golden("stream-v1.bin");
    let output = list_stream.run(&path);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(
        text(&output.stdout),
        "  0 hello from the source, boot 7, id 30313233343536373839616263646566
  1 header version 1 id 30313233343536373839616263646566 boot 7
  2 domain torture pages 70 clock 1234567890 deferred e0 vcpus 2 tsc 2600000 paused 0
leaf d.0 3 240 240 0
leaf d.1 0 0 0 0
  3 pages 2 from 0
  4 zero pages 67 from 2
  5 pages 1 from 45
  6 console ier 1 lcr 3 mcr b scr 5a dll 1 dlm 0 fcr 7 unread 8
  7 vcpu 0 rip ffffffff81000000 rsp ffff800000001000 cr3 103000 cs 8 gs base ffff888000000000 tsc 123456789012 event 83/14 timer 5000000000
  8 vcpu 0 blob of 708 bytes
  9 vcpu 1 rip ffffffff81000000 rsp ffff800000001000 cr3 103000 cs 8 gs base ffff888000000000 tsc 123456789012 event 83/14 timer 5000000000
 10 vcpu 1 blob of 2684 bytes
 11 end data 3 zero 67 vcpus 2
"
    );
    let mut bytes = std::fs::read(path).expect("golden");
    bytes[300] ^= 1;
    let damaged = compile::scratch("damaged.bin");
    std::fs::write(&damaged, &bytes).expect("a scratch file");
    assert_eq!(list_stream.run(&damaged).status.code(), Some(1));
}

/// A frame with another payload, type or flags, sealed.
fn altered(frame: &Frame<'_>, change: impl FnOnce(&mut FrameHeader, &mut Vec<u8>)) -> Vec<u8> {
    let (mut header, mut payload) = (frame.header, frame.payload.to_vec());
    change(&mut header, &mut payload);
    header.length = payload.len().try_into().expect("a length");
    header.crc = header.checksum(&payload);
    let mut out = vec![0; header.frame_len()];
    // The flags are not the writer's to judge.
    let written = header.write(&payload, &mut out);
    assert_eq!(written, Ok(out.len()));
    out
}

/// It listed records of types that nobody knows, and payloads longer than what
/// they say they hold.
#[test]
fn the_c_example_refuses_what_the_standard_refuses() {
    let Some(list_stream) = compile("list_stream_strict", "list_stream.c") else {
        return skipped();
    };
    let golden = std::fs::read(golden("stream-v1.bin")).expect("golden");
    let file = compile::scratch("one_frame.bin");
    let listed = |bytes: Vec<u8>| {
        std::fs::write(&file, bytes).expect("a scratch file");
        match list_stream.run(&file).status.code() {
            Some(0) => true,
            Some(1) => false,
            other => panic!("exit status {other:?}"),
        }
    };
    let mut frames = Decoder::new(&golden);
    let mut seen = Vec::new();
    while let Ok(Step::Frame(frame)) = frames.step() {
        let record = frame.header.record_type().expect("a known type");
        if seen.contains(&record) {
            continue;
        }
        seen.push(record);
        assert!(listed(altered(&frame, |_, _| {})), "{record:?}");
        // Blobs are of any length, and judged by `read_blob.c`.
        let any_length = record == RecordType::VcpuXstate;
        let longer = altered(&frame, |_, payload| payload.extend([0; 8]));
        assert_eq!(listed(longer), any_length, "{record:?} and 8 bytes");
        let shorter = altered(&frame, |_, payload| {
            payload.truncate(payload.len() - 1);
        });
        assert_eq!(listed(shorter), any_length, "{record:?} without a byte");
        for (flags, fine) in [(0, false), (1, true), (2, false), (3, false)] {
            let unknown = altered(&frame, |header, _| {
                (header.record, header.flags) = (0x200, flags);
            });
            assert_eq!(listed(unknown), fine, "type 200, flags {flags}");
        }
    }
    assert_eq!(seen.len(), 9, "{seen:?}");
}
