//! The C header says what the Rust says, and the C examples read what the Rust writes.

mod compile;
mod layout;

use std::fmt::Write as _;
use std::process::Output;

use compile::{compile, skipped};
use migration_abi::blob::{self, v1};

const BLOBS: [&str; 3] = [
    "blob-v1-sse.bin",
    "blob-v1-avx512.bin",
    "blob-v1-no-xsave.bin",
];

fn golden(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What `read_blob.c` must print, from what the Rust reader says.
fn expected(bytes: &[u8]) -> String {
    let blob = blob::parse(bytes).expect("a blob");
    let (header, flags) = (blob.header(), blob.flags());
    let mut out = format!(
        "blob version {}, {} bytes",
        header.version, header.total_len
    );
    if flags.contains(v1::Incompatible::CRC) {
        out.push_str(", checksum right");
    }
    if flags.contains(v1::Incompatible::NO_XSAVE) {
        out.push_str(", policy without XSAVE");
    }
    out.push('\n');
    for (name, value) in [
        ("xstate_mask", header.xstate_mask),
        ("xcr0", header.xcr0),
        ("xss", header.xss),
        ("xfd", header.xfd),
        ("xfd_err", header.xfd_err),
        ("accum", header.accum),
        ("xcomp_bv", header.xcomp_bv),
    ] {
        writeln!(out, "{name} {value:#x}").expect("a String");
    }
    let word =
        |at: usize| u64::from_le_bytes(blob.image()[at..at + 8].try_into().expect("8 bytes"));
    let xstate_bv = word(512);
    let names = [
        "x87",
        "sse",
        "avx",
        "",
        "",
        "opmask",
        "zmm_hi256",
        "hi16_zmm",
        "",
        "pkru",
        "",
        "cet_u",
        "cet_s",
    ];
    let mut next = 576;
    for entry in blob.directory().iter() {
        write!(
            out,
            "{:>2} {:<9} {:>5} bytes",
            entry.index, names[entry.index as usize], entry.size
        )
        .expect("a String");
        let at = match entry.index {
            0 => Some(0),
            1 => Some(160),
            index if header.xcomp_bv >> index & 1 == 1 => {
                if entry.flags & v1::EntryFlags::ALIGN64.bits() != 0 {
                    next = u32::next_multiple_of(next, 64);
                }
                next += entry.size;
                Some(next - entry.size)
            }
            _ => None,
        };
        let held = if xstate_bv >> entry.index & 1 == 1 {
            "held"
        } else {
            "INIT"
        };
        match at {
            Some(at) => writeln!(out, " at {at:>5} {held}"),
            None => writeln!(out, " not in the image: INIT"),
        }
        .expect("a String");
    }
    let mxcsr = if xstate_bv & 2 == 0 {
        0x1f80
    } else {
        word(24) as u32
    };
    let image = header.header_len as usize + blob.directory().len() * 16;
    writeln!(
        out,
        "mxcsr {mxcsr:#x}\nimage {} bytes at {image}, components end at {next}",
        blob.image().len()
    )
    .expect("a String");
    out
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
            Ok(_) => String::new(),
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
