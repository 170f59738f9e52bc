//! The same state gives the same bytes, however often and wherever it is
//! exported, and the blob is no byte longer than the documented tables say.

use anyhow::{Context, Result, bail, ensure};
use migration_abi::stream::RecordType;

use crate::migrate::relay::{Fate, Side};
use crate::migrate::rig::{Arrival, Rig};

/// What QEMU's `max` has: x87, SSE, AVX, BNDREGS, BNDCSR, PKRU; and the
/// compacted image with all of them: 576 + 256 + 64 + 64 + 8.
const MAX_MASK: u64 = 0x21f;
const MAX_IMAGE: usize = 968;

/// How many seconds the sides wait for each other while the wire is broken.
const PATIENCE: u32 = 3;

pub fn play(rig: &mut Rig) -> Result<String> {
    let mut guest = rig.create(Side::A, 11, "")?;
    rig.progress(&mut guest, 3)?;

    let (first, decoded) = rig.stop_with_all_in_use(&mut guest)?;
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
    same("exported a second time", &first, &rig.blob(&guest)?)?;

    // At B a guest runs as soon as it may. So that it is exported there as it was
    // imported, the wire breaks before COMMIT: it is whole there, and waits.
    rig.relay.arm(Box::new(|_, kind, _| {
        if kind == RecordType::Commit {
            Fate::CutBefore
        } else {
            Fate::Pass
        }
    }));
    let (_sent, _received) = rig.try_send(&guest, PATIENCE)?;
    ensure!(rig.relay.broken(), "the move did not come to its COMMIT");
    let on_the_wire = rig
        .relay
        .blobs()
        .pop()
        .context("no blob was seen on the wire")?;
    same("on the wire", &first, &on_the_wire)?;
    let id = rig
        .find(Side::B, &guest.name)?
        .context("the guest is not at B")?;
    same(
        "exported after the move",
        &first,
        &rig.blob_of(Side::B, id)?,
    )?;
    same(
        "exported from the copy that stayed",
        &first,
        &rig.blob(&guest)?,
    )?;
    rig.settle(&mut guest, Arrival::Paused)?;
    Ok(format!(
        "{} bytes = {} + 16 * {} + {} + 4, equal in five exports",
        first.len(),
        decoded.header_len,
        decoded.directory.len(),
        decoded.image.len()
    ))
}

fn same(when: &str, first: &[u8], other: &[u8]) -> Result<()> {
    if first == other {
        return Ok(());
    }
    match first.iter().zip(other).position(|(a, b)| a != b) {
        Some(at) => bail!("{when}, the same state gave other bytes, first at {at}"),
        None => bail!(
            "{when}, the same state gave {} bytes and not {}",
            other.len(),
            first.len()
        ),
    }
}
