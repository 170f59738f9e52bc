//! Room that a guest gets when it first enables what was not given it at once:
//! without memory it waits before its instruction, with memory it runs on, and
//! the room moves with it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::migrate::relay::Side;
use crate::migrate::rig::{Guest, Rig};

/// AVX and MPX when they are first enabled; no PKRU, which lies behind them in
/// the standard layout and would have their room reserved.
const DEFERRED: &str = "policy=host:pku=0,defer-avx=1,defer-mpx=1 paused";

/// x87, SSE and the header.
const SMALL_BYTES: u64 = 576;
/// BNDCSR, 64 bytes at 1024, is the last of QEMU's `max` without PKRU.
const GROWN_BYTES: u64 = 1088;

/// How long the guest may take to its XSETBV.
const START: Duration = Duration::from_secs(10);

pub fn play(rig: &mut Rig) -> Result<String> {
    let mut guest = rig.create(Side::A, 31, DEFERRED)?;
    area(rig, &guest, SMALL_BYTES)?;
    // Room for what it has, and for nothing more.
    limit(rig, &guest, SMALL_BYTES)?;
    rig.unpause(&guest)?;
    let waits = format!("waits for {GROWN_BYTES} bytes");
    let deadline = Instant::now() + START;
    while !row(rig, &guest)?.contains(&waits) {
        ensure!(
            Instant::now() < deadline,
            "it should wait for memory, and the list says: {}",
            row(rig, &guest)?
        );
    }
    area(rig, &guest, SMALL_BYTES)?;

    // The old area and the new one, for a moment.
    limit(rig, &guest, SMALL_BYTES + GROWN_BYTES)?;
    rig.progress(&mut guest, 2)?;
    area(rig, &guest, GROWN_BYTES)?;
    rig.send(&mut guest)?;
    rig.progress(&mut guest, 2)?;
    area(rig, &guest, GROWN_BYTES)?;
    let patterns = guest.ledger.count();
    rig.destroy(guest)?;
    Ok(format!(
        "{SMALL_BYTES} bytes, waited for memory at XSETBV, then {GROWN_BYTES}, moved; {patterns} patterns right"
    ))
}

fn area(rig: &Rig, guest: &Guest, expected: u64) -> Result<()> {
    let bytes = rig.xstate(guest)?.area_bytes;
    ensure!(
        bytes == expected,
        "the area has {bytes} bytes and should have {expected}"
    );
    Ok(())
}

fn limit(rig: &Rig, guest: &Guest, bytes: u64) -> Result<()> {
    rig.shell(guest.at)
        .run(&format!("limit {} {bytes}", guest.id))
        .map(drop)
}

/// The guest's line in `list`.
fn row(rig: &Rig, guest: &Guest) -> Result<String> {
    Ok(rig.row(guest.at, &guest.name)?.unwrap_or_default())
}
