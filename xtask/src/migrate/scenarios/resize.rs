//! A paused guest's policy is widened and narrowed between its moves; its area
//! and its blob follow, and it cannot be narrowed below what it uses.

use anyhow::{Result, ensure};

use super::super::decode;
use super::super::relay::Side;
use super::super::rig::{Guest, Rig};

/// What the guest finds when it starts, and so uses, up to AVX.
const NARROW: &str = "host:mpx=0,pku=0";
const WIDE: &str = "host";
/// Less than what it uses.
const TOO_NARROW: &str = "host:avx=0,mpx=0,pku=0";

/// Bits of x87, SSE and AVX.
const NARROW_MASK: u64 = 7;

pub fn play(rig: &mut Rig) -> Result<String> {
    let mut guest = rig.create(
        Side::A,
        17,
        &format!("policy={NARROW} cpuid=follows-policy"),
    )?;
    rig.progress(&mut guest, 2)?;
    let narrow = look(rig, &guest)?;
    ensure!(
        narrow.mask == NARROW_MASK,
        "with {NARROW} the policy is {:#x}",
        narrow.mask
    );

    // Widened: more room and a longer directory, and the guest, which asked
    // CPUID when it started, notices nothing.
    set(rig, &guest, WIDE)?;
    let wide = look(rig, &guest)?;
    let more = (wide.mask & !narrow.mask).count_ones() as usize;
    ensure!(
        narrow.mask & !wide.mask == 0 && more > 0,
        "widened, the policy is {:#x}",
        wide.mask
    );
    ensure!(
        wide.area_bytes > narrow.area_bytes,
        "widened, the area still has {} bytes",
        wide.area_bytes
    );
    ensure!(
        wide.directory == narrow.directory + more,
        "widened, the blob's directory has {} rows",
        wide.directory
    );
    move_and_look(rig, &mut guest, &wide)?;

    set(rig, &guest, NARROW)?;
    let again = look(rig, &guest)?;
    ensure!(
        again == narrow,
        "narrowed again, it is {again:?} and was {narrow:?}"
    );
    move_and_look(rig, &mut guest, &narrow)?;

    // Narrower than what it uses: refused by name, and nothing is changed.
    rig.pause(&guest)?;
    let refusal = rig
        .shell(guest.at)
        .refused(&format!("policy {} {TOO_NARROW}", guest.id))?;
    rig.unpause(&guest)?;
    ensure!(
        refusal.names("avx"),
        "the refusal does not name avx: {refusal}"
    );
    let kept = look(rig, &guest)?;
    ensure!(
        kept == narrow,
        "after the refusal it is {kept:?} and was {narrow:?}"
    );
    move_and_look(rig, &mut guest, &narrow)?;
    Ok(format!(
        "area {} to {} bytes and back; {refusal}",
        narrow.area_bytes, wide.area_bytes
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

/// The guest runs, moves, runs there, and its sizes moved with it.
fn move_and_look(rig: &mut Rig, guest: &mut Guest, size: &Size) -> Result<()> {
    rig.progress(guest, 2)?;
    rig.send(guest)?;
    rig.progress(guest, 2)?;
    let moved = look(rig, guest)?;
    ensure!(
        moved == *size,
        "at {:?} it is {moved:?} and was {size:?}",
        guest.at
    );
    Ok(())
}
