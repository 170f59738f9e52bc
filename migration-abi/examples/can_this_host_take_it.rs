//! Can this host take it? A blob, judged for the processor that this runs on.
//!
//! `cargo run -p migration-abi --example can_this_host_take_it FILE`
//!
//! Without a file: the blob of a guest that uses AVX-512 and CET.

use std::error::Error;
use std::io::Write;

use migration_abi::blob;
use migration_abi::xstate::{claims, geometry};
use vcpu_xstate::{ComponentSet, HostXstate, XstatePolicy, validate};

const BLOB: &[u8] = include_bytes!("../tests/golden/blob-v1-avx512.bin");

/// Writes what `host` would say of the blob in `bytes` to `out`.
pub fn judge(bytes: &[u8], host: &HostXstate, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    // Its form: lengths, checksum, directory. An error says rule and place.
    let blob = blob::parse(bytes)?;
    let claims = claims(&blob);
    let mask = ComponentSet::from_bits_retain(claims.xstate_mask);
    writeln!(out, "{} bytes; the guest may use: {mask}", bytes.len())?;
    for entry in blob.directory().iter() {
        if claims.xcomp_bv >> entry.index & 1 != 0 {
            let (index, size) = (entry.index, entry.size);
            writeln!(out, "  in the image: component {index}, {size} bytes")?;
        }
    }

    // What it means. The policy is that of the vCPU that is to have it: here,
    // as much of the guest's as this host offers.
    let there = geometry(&blob)?;
    let policy = XstatePolicy {
        xsave: claims.xsave,
        ..XstatePolicy::new(mask, ComponentSet::EMPTY)
    };
    match validate(&claims, &there, blob.image(), host, &policy) {
        Ok(image) => writeln!(
            out,
            "this host takes it; in use: {}",
            image.image().in_use()
        )?,
        Err(no) => writeln!(out, "refused by {}: {}", no.rule(), no.words())?,
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    // CPUID does not tell MXCSR_MASK: a VMM takes it from an FXSAVE image. With
    // 0 the bits that every processor has are allowed.
    let host = HostXstate::read(
        &|leaf, subleaf| core::arch::x86_64::__cpuid_count(leaf, subleaf).into(),
        0,
    )?;
    let file = std::env::args_os().nth(1).map(std::fs::read).transpose()?;
    let bytes = file.as_deref().unwrap_or(BLOB);
    judge(bytes, &host, &mut std::io::stdout())
}
