//! The same state gives the same bytes, however often and wherever it is
//! exported, and the blob is no byte longer than the documented tables say.

use anyhow::{Context, Result, bail, ensure};

use crate::migrate::decode::{self, Decoded};
use crate::migrate::relay::Side;
use crate::migrate::rig::{Guest, Rig};

/// What QEMU's `max` has: x87, SSE, AVX, BNDREGS, BNDCSR, PKRU; and the
/// compacted image with all of them: 576 + 256 + 64 + 64 + 8.
const MAX_MASK: u64 = 0x21f;
const MAX_IMAGE: usize = 968;

pub fn play(rig: &mut Rig) -> Result<String> {
    let mut guest = rig.create(Side::A, 11, "")?;
    rig.progress(&mut guest, 3)?;

    let (first, decoded) = stop_with_all_in_use(rig, &mut guest)?;
    let expected = decoded.header_len + 16 * decoded.directory.len() + decoded.image.len() + 4;
    ensure!(decoded.trailer, "the blob has no CRC");
    ensure!(
        first.len() == expected,
        "the blob has {} bytes, its parts have {expected}",
        first.len()
    );
    ensure!(
        decoded.header_len <= 128,
        "the header has {} bytes",
        decoded.header_len
    );
    if decoded.xstate_mask == MAX_MASK {
        ensure!(
            decoded.image.len() == MAX_IMAGE,
            "the image has {} bytes, and not {MAX_IMAGE}",
            decoded.image.len()
        );
    }
    ensure!(
        rig.blob(&guest)? == first,
        "exported a second time, the same state gave other bytes"
    );

    // A guest that its operator paused stays so when it is moved: what is
    // exported at B is the state that was imported there.
    rig.send(&mut guest)?;
    let on_the_wire = rig
        .relay
        .blobs()
        .pop()
        .context("no blob was seen on the wire")?;
    ensure!(
        on_the_wire == first,
        "on the wire the same state gave other bytes"
    );
    let after = rig.blob(&guest)?;
    ensure!(
        after == first,
        "exported after a move, the same state gave other bytes: {}",
        difference(&first, &after)
    );

    rig.unpause(&guest)?;
    rig.progress(&mut guest, 2)?;
    Ok(format!(
        "{} bytes = {} + 16 * {} + {} + 4, equal in four exports",
        first.len(),
        decoded.header_len,
        decoded.directory.len(),
        decoded.image.len()
    ))
}

/// Pauses a guest at a moment when no component is INIT; there are such
/// moments all the time, and others now and then.
fn stop_with_all_in_use(rig: &Rig, guest: &mut Guest) -> Result<(Vec<u8>, Decoded)> {
    let mut seen = 0;
    for _ in 0..40 {
        rig.pause(guest)?;
        let blob = rig.blob(guest)?;
        let decoded = decode::decode(&blob).map_err(|error| {
            anyhow::anyhow!("the blob does not follow its documented tables: {error}")
        })?;
        if decoded.in_image == decoded.xstate_mask {
            return Ok((blob, decoded));
        }
        seen |= decoded.in_image;
        rig.unpause(guest)?;
        rig.progress(guest, 1)?;
    }
    bail!("in 40 looks the guest never had all components in use at once; those seen: {seen:#x}")
}

fn difference(a: &[u8], b: &[u8]) -> String {
    match a.iter().zip(b).position(|(a, b)| a != b) {
        Some(at) => format!("first at byte {at}"),
        None => format!("{} bytes and {}", a.len(), b.len()),
    }
}
