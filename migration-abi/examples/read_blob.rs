//! What is in a blob: its registers, and where each component lies in its image.
//!
//! `cargo run -p migration-abi --example read_blob FILE`
//!
//! The same as `c/read_blob.c`, which shows what the parser does here.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use migration_abi::blob::{self, Blob, DirectoryEntry, v1};

/// Prints what the blob in `bytes` says.
pub fn show(bytes: &[u8], out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    // Lengths, checksum and directory are right, or the error says which rule
    // is broken, where, what was seen and what is allowed.
    let blob = blob::parse(bytes)?;
    check_components(&blob, bytes)?;
    let header = blob.header();
    write!(
        out,
        "blob version {}, {} bytes",
        header.version, header.total_len
    )?;
    if blob.flags().contains(v1::Incompatible::CRC) {
        write!(out, ", checksum right")?;
    }
    if blob.flags().contains(v1::Incompatible::NO_XSAVE) {
        write!(out, ", policy without XSAVE")?;
    }
    writeln!(out)?;
    for (name, value) in [
        ("xstate_mask", header.xstate_mask),
        ("xcr0", header.xcr0),
        ("xss", header.xss),
        ("xfd", header.xfd),
        ("xfd_err", header.xfd_err),
        ("accum", header.accum),
        ("xcomp_bv", header.xcomp_bv),
    ] {
        writeln!(out, "{name} {value:#x}")?;
    }

    let image = blob.image();
    let xstate_bv = word(image, 512);
    let mut next = v1::MIN_IMAGE_BYTES as u64;
    for entry in blob.directory().iter() {
        let there = entry.index < 2 || header.xcomp_bv >> entry.index & 1 == 1;
        write!(
            out,
            "{:>2} {:<9} {:>5} bytes",
            entry.index,
            name(entry.index),
            entry.size
        )?;
        if !there {
            writeln!(out, " not in the image: INIT")?;
            continue;
        }
        // The legacy region is the same in both forms.
        let at = match entry.index {
            0 | 1 => u64::from(entry.standard_offset),
            _ => place(&entry, &mut next),
        };
        let held = xstate_bv >> entry.index & 1 == 1;
        writeln!(out, " at {at:>5} {}", if held { "held" } else { "INIT" })?;
    }
    // MXCSR of a compacted image counts with XSTATE_BV[1] alone.
    let mxcsr = if xstate_bv & 2 != 0 {
        word(image, 24) as u32
    } else {
        0x1f80
    };
    writeln!(out, "mxcsr {mxcsr:#x}")?;
    writeln!(
        out,
        "image {} bytes at {}, components end at {next}",
        image.len(),
        image_offset(&blob, bytes)
    )?;
    Ok(())
}

/// Whether every component lies within the image: the format leaves that to
/// whoever takes the state. `vcpu_xstate::validate` checks it, and all else.
fn check_components(blob: &Blob<'_>, bytes: &[u8]) -> Result<(), Box<dyn Error>> {
    const XCOMP_BV: usize = 80;
    const IMAGE_LEN: usize = 88;
    const COMPACTED: u64 = 1 << 63;
    let broken = |rule: &str, offset: usize| Err(format!("{rule} at byte {offset}").into());
    let (header, image) = (blob.header(), blob.image());
    if header.xcomp_bv & COMPACTED == 0 {
        return broken("xcomp-bv-bit-63", XCOMP_BV);
    }
    let layout = header.xcomp_bv & !COMPACTED;
    if layout & !header.xstate_mask != 0 {
        return broken("xcomp-bv-policy", XCOMP_BV);
    }
    if word(image, 512) & !layout != 0 {
        return broken("xstate-bv-xcomp-bv", image_offset(blob, bytes) + 512);
    }
    let mut end = v1::MIN_IMAGE_BYTES as u64;
    for entry in blob.directory().iter() {
        if entry.index >= 2 && layout >> entry.index & 1 == 1 {
            place(&entry, &mut end);
        }
    }
    if end != image.len() as u64 {
        return broken("image-length", IMAGE_LEN);
    }
    Ok(())
}

/// Where a component begins that is not in the legacy region; moves `next` behind it.
fn place(entry: &DirectoryEntry, next: &mut u64) -> u64 {
    if entry.flags & v1::EntryFlags::ALIGN64.bits() != 0 {
        *next = next.next_multiple_of(64);
    }
    *next += u64::from(entry.size);
    *next - u64::from(entry.size)
}

fn word(image: &[u8], at: usize) -> u64 {
    let bytes = image.get(at..).and_then(|rest| rest.first_chunk());
    bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Where the image begins in the blob's bytes.
fn image_offset(blob: &Blob<'_>, bytes: &[u8]) -> usize {
    let trailer = if blob.flags().contains(v1::Incompatible::CRC) {
        v1::CRC_BYTES
    } else {
        0
    };
    bytes.len() - trailer - blob.image().len()
}

/// Names of the components that have one; the format needs none of them.
fn name(index: u32) -> &'static str {
    const NAMES: [&str; 20] = [
        "x87",
        "sse",
        "avx",
        "bndregs",
        "bndcsr",
        "opmask",
        "zmm_hi256",
        "hi16_zmm",
        "pt",
        "pkru",
        "pasid",
        "cet_u",
        "cet_s",
        "hdc",
        "uintr",
        "lbr",
        "hwp",
        "tilecfg",
        "tiledata",
        "apx",
    ];
    match index {
        62 => "lwp",
        _ => NAMES.get(index as usize).copied().unwrap_or("?"),
    }
}

#[allow(dead_code)] // the tests call `show`
fn run() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: read_blob FILE")?;
    let bytes = std::fs::read(&path).map_err(|error| format!("{path}: {error}"))?;
    show(&bytes, &mut std::io::stdout().lock())
}

#[allow(dead_code)] // the tests call `show`
fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
