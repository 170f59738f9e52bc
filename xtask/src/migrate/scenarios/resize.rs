//! A paused guest's policy is narrowed and widened between its moves; its area
//! and its blob follow, and it cannot be narrowed below what it uses.

use anyhow::{Result, ensure};

use crate::migrate::decode;
use crate::migrate::relay::Side;
use crate::migrate::rig::{Guest, Rig};

/// Bits of the components in XCR0.
const AVX: u64 = 1 << 2;
const MPX: u64 = 3 << 3;
const PKRU: u64 = 1 << 9;

pub fn play(rig: &mut Rig) -> Result<String> {
    // The guest is told to leave MPX and PKRU alone, so these can be taken away.
    let mut guest = rig.create(Side::A, 17, "use=x87,sse,avx")?;
    rig.progress(&mut guest, 2)?;
    let wide = look(rig, &guest)?;
    ensure!(
        wide.mask & (AVX | MPX | PKRU) == AVX | MPX | PKRU,
        "the host's policy is {:#x}",
        wide.mask
    );

    // Narrowed: less room, a smaller directory, and the guest notices nothing.
    set(rig, &guest, "host:mpx=0,pku=0")?;
    let narrow = look(rig, &guest)?;
    ensure!(
        narrow.mask == wide.mask & !(MPX | PKRU),
        "narrowed, the policy is {:#x}",
        narrow.mask
    );
    ensure!(
        narrow.area_bytes < wide.area_bytes,
        "narrowed, the area has {} bytes",
        narrow.area_bytes
    );
    ensure!(
        narrow.directory + 3 == wide.directory,
        "narrowed, the blob's directory has {} rows",
        narrow.directory
    );
    move_and_run(rig, &mut guest)?;
    let moved = look(rig, &guest)?;
    ensure!(moved == narrow, "moved, it is {moved:?} and was {narrow:?}");

    // Narrower than what it uses: refused by name, and nothing is changed.
    rig.pause(&guest)?;
    let command = format!("policy {} host:avx=0,mpx=0,pku=0", guest.id);
    let refusal = rig.shell(guest.at).refused(&command)?;
    rig.unpause(&guest)?;
    ensure!(
        refusal.names("avx"),
        "the refusal does not name avx: {refusal}"
    );
    ensure!(
        look(rig, &guest)? == narrow,
        "the refused policy changed something"
    );
    rig.progress(&mut guest, 2)?;

    // Widened again, and home.
    set(rig, &guest, "host")?;
    ensure!(
        look(rig, &guest)? == wide,
        "widened, it is {:?} and was {wide:?}",
        look(rig, &guest)?
    );
    move_and_run(rig, &mut guest)?;
    Ok(format!(
        "area {} to {} bytes and back; {refusal}",
        wide.area_bytes, narrow.area_bytes
    ))
}

/// What follows a policy.
#[derive(Debug, PartialEq, Eq)]
struct Size {
    area_bytes: u64,
    mask: u64,
    directory: usize,
}

fn look(rig: &Rig, guest: &Guest) -> Result<Size> {
    let blob = rig.blob_of_stopped(guest)?;
    let decoded = decode::decode(&blob).map_err(|error| anyhow::anyhow!("the blob: {error}"))?;
    Ok(Size {
        area_bytes: rig.xstate(guest)?.area_bytes,
        mask: decoded.xstate_mask,
        directory: decoded.directory.len(),
    })
}

fn set(rig: &Rig, guest: &Guest, policy: &str) -> Result<()> {
    rig.pause(guest)?;
    rig.shell(guest.at)
        .run(&format!("policy {} {policy}", guest.id))?;
    rig.unpause(guest)
}

fn move_and_run(rig: &mut Rig, guest: &mut Guest) -> Result<()> {
    rig.progress(guest, 2)?;
    rig.send(guest)?;
    rig.progress(guest, 2)
}
