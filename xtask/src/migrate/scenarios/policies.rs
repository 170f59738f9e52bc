//! What a machine has decides who can come: a guest that needs no more moves
//! to a lesser machine, one that needs more is refused before its memory is sent.

use anyhow::{Context, Result, ensure};
use migration_abi::stream::RecordType;

use crate::migrate::CannotPlay;
use crate::migrate::decode::{self, IMAGE_START};
use crate::migrate::relay::Side;
use crate::migrate::rig::{Guest, Rig};

/// A policy with x87 and SSE alone; and without the features besides that QEMU's
/// `max` has and its `EPYC-Rome` lacks.
pub const SSE_ONLY: &str = "policy=host:avx=0,mpx=0,pku=0,erms=0,fsrm=0,fzrm=0,fsrs=0,fsrcs=0,cmpccxadd=0,3dnow=0,3dnowext=0";

const X87_AND_SSE: u64 = 3;

/// A guest with an SSE-only policy has room for nothing else, and moves.
pub fn sse_only(rig: &mut Rig) -> Result<String> {
    let mut guest = rig.create(Side::A, 5, SSE_ONLY)?;
    rig.progress(&mut guest, 3)?;
    let blob = rig.blob_of_stopped(&guest)?;
    check_sse_only(&blob)?;
    for side in [Side::A, Side::B, Side::A] {
        ensure!(guest.at == side, "{} is at {:?}", guest.name, guest.at);
        let xstate = rig.xstate(&guest)?;
        ensure!(
            xstate.area_bytes == IMAGE_START as u64,
            "at {side:?} the area has {} bytes",
            xstate.area_bytes
        );
        ensure!(
            xstate.components.len() == 2,
            "at {side:?} it has components {:?}",
            xstate.components
        );
        rig.send(&mut guest)?;
        check_sse_only(&rig.relay.blobs().pop().context("no blob was sent")?)?;
        rig.progress(&mut guest, 3)?;
    }
    Ok(format!(
        "area {IMAGE_START} bytes on both machines, blob {} bytes",
        blob.len()
    ))
}

fn check_sse_only(blob: &[u8]) -> Result<()> {
    let decoded = decode::decode(blob).map_err(|error| anyhow::anyhow!("the blob: {error}"))?;
    ensure!(
        decoded.xstate_mask == X87_AND_SSE,
        "the blob's policy is {:#x}",
        decoded.xstate_mask
    );
    ensure!(
        decoded.directory.len() == 2,
        "the blob's directory has {} entries",
        decoded.directory.len()
    );
    ensure!(
        decoded.image.len() == IMAGE_START,
        "the blob's image has {} bytes",
        decoded.image.len()
    );
    Ok(())
}

/// A guest whose policy the other machine lacks is refused by name.
pub fn lacks_component(rig: &mut Rig) -> Result<String> {
    let mut guest = rig.create(Side::A, 13, "")?;
    rig.progress(&mut guest, 3)?;
    let lacking = lacking(rig, &component_names(rig, &guest)?)?;

    let mark = rig.relay.mark();
    let refusal = rig.send_refused(&mut guest)?;
    let pages = rig
        .relay
        .since(mark)
        .iter()
        .filter(|seen| matches!(seen.kind, RecordType::Pages | RecordType::ZeroPages))
        .count();
    ensure!(
        pages == 0,
        "{pages} records of pages were sent before the refusal"
    );
    ensure!(
        lacking.iter().any(|name| refusal.names(name)),
        "the refusal names none of {lacking:?}: {refusal}"
    );
    Ok(format!("{refusal}"))
}

fn component_names(rig: &Rig, guest: &Guest) -> Result<Vec<String>> {
    Ok(rig
        .xstate(guest)?
        .components
        .into_iter()
        .map(|component| component.name)
        .collect())
}

/// Names by which a refusal may call what B lacks of `wanted`: components, and
/// the features that they belong to.
fn lacking(rig: &Rig, wanted: &[String]) -> Result<Vec<String>> {
    let probe = rig.create(Side::B, 99, "")?;
    let there = component_names(rig, &probe)?;
    rig.destroy(probe)?;
    let mut names: Vec<String> = wanted
        .iter()
        .filter(|name| !there.contains(name))
        .cloned()
        .collect();
    if names.is_empty() {
        return Err(CannotPlay("machine B has every component of machine A".into()).into());
    }
    for (component, feature) in [("bndregs", "mpx"), ("bndcsr", "mpx"), ("pkru", "pku")] {
        if names.iter().any(|name| name == component) {
            names.push(feature.into());
        }
    }
    Ok(names)
}
