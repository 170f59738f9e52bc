//! Update PKRU of a stopped vCPU that is a blob: in the file, before anybody takes it.
//!
//! `cargo run -p migration-abi --example update_pkru [IN OUT]`
//!
//! A debugger that lets a guest read its own memory again, or a toolstack that
//! takes a right away while the guest is on its way. The image of a blob is a
//! plain compacted image: an update of it is that of any buffer, and the value
//! is judged for the machine that is to take it.

use std::error::Error;
use std::io::Write;

use migration_abi::blob::latest::seal;
use migration_abi::blob::parse;
use migration_abi::xstate::geometry;
use vcpu_xstate::update::{UpdateError, begin_image_view};
use vcpu_xstate::views::{Access, Pkru, ProtectionKey};
use vcpu_xstate::{Form, HostXstate, Image};

/// A Sapphire Rapids guest whose key 1 is read-only, and key 15 of no use.
const BLOB: &[u8] = include_bytes!("../tests/golden/blob-v1-sapphire-rapids.bin");

/// Gives protection key 1 of the guest back to it; what happens goes to `out`.
pub fn update(
    bytes: &mut [u8],
    host: &HostXstate,
    out: &mut impl Write,
) -> Result<(), Box<dyn Error>> {
    let blob = parse(bytes)?;
    // Its own layouts, and where the image lies: it is followed by the checksum.
    let there = geometry(&blob)?;
    let start = blob.image().as_ptr().addr() - bytes.as_ptr().addr();
    let place = start..start + blob.image().len();
    let key = ProtectionKey::new(1).ok_or("a key below 16")?;

    let image = &mut bytes[place];
    let mut pkru = match begin_image_view::<Pkru>(image, &there, Form::Compacted, &host.limits()) {
        Ok(pkru) => pkru,
        Err(UpdateError::Room(component, room)) => {
            // INIT, and the image has no room: a vCPU that imports it has.
            writeln!(out, "{component} is INIT; the image holds {room}")?;
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    writeln!(out, "key 1 had {:?}", pkru.get(key))?;
    pkru.set(key, Access::ReadWrite);
    pkru.finish()?;
    // The checksum is over the image too. XSTATE_BV has PKRU now; that `accum`
    // in the header has it is yours to see to, and so it is with PKRU always.
    seal(bytes)?;

    let blob = parse(bytes)?;
    let image = Image::new(blob.image(), &there, Form::Compacted).ok_or("an image")?;
    let pkru = image.view::<Pkru>().ok_or("a machine with PKRU")?;
    writeln!(out, "sealed; key 1 has {:?}", pkru.get(key))?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    // For this machine. MXCSR_MASK, which CPUID does not give, is judged
    // elsewhere: no MXCSR is touched here.
    let cpuid = |leaf, subleaf| core::arch::x86_64::__cpuid_count(leaf, subleaf).into();
    let host = HostXstate::read(&cpuid, 0)?;
    let mut files = std::env::args().skip(1);
    let (from, to) = (files.next(), files.next());
    let mut bytes = match &from {
        Some(path) => std::fs::read(path).map_err(|error| format!("{path}: {error}"))?,
        None => BLOB.to_vec(),
    };
    update(&mut bytes, &host, &mut std::io::stdout())?;
    if let Some(path) = to {
        std::fs::write(&path, bytes).map_err(|error| format!("{path}: {error}"))?;
    }
    Ok(())
}
