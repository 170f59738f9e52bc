//! Can this host take it? A blob, judged for the processor that this runs on.
//!
//! `cargo run -p migration-abi --example can_this_host_take_it FILE`
//!
//! Without a file: a blob of a Sapphire Rapids machine. Status 0: it takes it;
//! 1: it does not, or there is no such blob.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use migration_abi::blob;
use migration_abi::xstate::{claims, geometry};
use vcpu_xstate::{ComponentIndex, ComponentSet, HostXstate, XstatePolicy, validate};

const BLOB: &[u8] = include_bytes!("../tests/golden/blob-v1-sapphire-rapids.bin");

/// Writes what `host` would say of the blob in `bytes` to `out`, and gives
/// whether it takes it.
pub fn judge(
    bytes: &[u8],
    host: &HostXstate,
    out: &mut impl Write,
) -> Result<bool, Box<dyn Error>> {
    // Its form: lengths, checksum, directory. An error says rule and place.
    let blob = blob::parse(bytes)?;
    let claims = claims(&blob);
    let mask = ComponentSet::from_bits_retain(claims.xstate_mask);
    writeln!(out, "{} bytes; the guest may use: {mask}", bytes.len())?;
    for entry in blob.directory().iter() {
        let index = u8::try_from(entry.index).ok().and_then(ComponentIndex::new);
        if let Some(component) = index.filter(|c| claims.xcomp_bv & c.bit() != 0) {
            writeln!(out, "  in the image: {component}, {} bytes", entry.size)?;
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
        Ok(image) => {
            let in_use = image.image().in_use();
            writeln!(out, "this host takes it; in use: {in_use}")?;
            Ok(true)
        }
        Err(no) => {
            writeln!(out, "refused by {}: {}", no.rule(), no.words())?;
            Ok(false)
        }
    }
}

fn run() -> Result<bool, Box<dyn Error>> {
    // CPUID does not tell MXCSR_MASK: a VMM takes it from an FXSAVE image. With
    // 0 the bits that every processor has are allowed.
    let host = HostXstate::read(
        &|leaf, subleaf| core::arch::x86_64::__cpuid_count(leaf, subleaf).into(),
        0,
    )?;
    let file = std::env::args().nth(1);
    let read = |path: String| std::fs::read(&path).map_err(|error| format!("{path}: {error}"));
    let file = file.map(read).transpose()?;
    let bytes = file.as_deref().unwrap_or(BLOB);
    judge(bytes, &host, &mut std::io::stdout())
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
