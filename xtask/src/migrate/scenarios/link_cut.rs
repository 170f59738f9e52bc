//! The wire breaks in the middle of a move. Before COMMIT the guest runs on at
//! A; after it, both sides keep the whole guest and neither runs it in doubt,
//! until the wire is mended and asking settles it. It never runs on both.

use anyhow::{Context, Result, ensure};
use migration_abi::stream::RecordType;

use crate::migrate::relay::{Fate, Side};
use crate::migrate::rig::{Arrival, Guest, Rig};

/// Where the wire breaks before the right to run was given up.
const BEFORE: &[(RecordType, Fate)] = &[
    (RecordType::Hello, Fate::CutBefore),
    (RecordType::Accept, Fate::CutBefore),
    (RecordType::VcpuXstate, Fate::CutBefore),
    (RecordType::Ready, Fate::CutBefore),
];

/// Where it breaks after, and whether the guest must then be running at B while
/// the wire is broken.
const AFTER: &[(RecordType, Fate, bool)] = &[
    (RecordType::Commit, Fate::CutBefore, false),
    (RecordType::Commit, Fate::CutAfter, true),
    (RecordType::Running, Fate::CutAfter, true),
];

/// How many seconds a side waits for an answer: all of it, in this scenario.
const PATIENCE: u32 = 2;

pub fn play(rig: &mut Rig) -> Result<String> {
    let mut guest = rig.create(Side::A, 23, "")?;
    rig.progress(&mut guest, 2)?;
    for &(message, fate) in BEFORE {
        let place = || format!("{fate:?} {}", message.name());
        before(rig, &mut guest, message, fate).with_context(place)?;
    }
    for &(message, fate, runs_at_b) in AFTER {
        let place = || format!("{fate:?} {}", message.name());
        after(rig, &mut guest, message, fate, runs_at_b).with_context(place)?;
        // Home again, for the next.
        rig.send(&mut guest)?;
        rig.progress(&mut guest, 1)?;
    }
    Ok(format!(
        "{} cuts before COMMIT, {} after, each settled",
        BEFORE.len(),
        AFTER.len()
    ))
}

/// Breaks the wire at the first `message` of the next move.
fn arm(rig: &Rig, message: RecordType, fate: Fate) {
    rig.relay.arm(Box::new(
        move |_, kind, _| if kind == message { fate } else { Fate::Pass },
    ));
}

fn before(rig: &mut Rig, guest: &mut Guest, message: RecordType, fate: Fate) -> Result<()> {
    rig.listen(guest)?;
    arm(rig, message, fate);
    let (sent, received) = rig.try_send(guest, PATIENCE)?;
    ensure!(
        rig.relay.broken(),
        "the move ended without {}",
        message.name()
    );
    ensure!(
        sent.is_err() && received.is_err(),
        "it was called done: sent {sent:?}, received {received:?}"
    );
    ensure!(!rig.runs(Side::B, &guest.name)?, "the guest runs at B");
    rig.progress(guest, 1).context("running on at A")?;
    rig.relay.mend();
    if rig.find(Side::B, &guest.name)?.is_some() {
        // B said READY into the broken wire: it drops the guest when A tells
        // that the attempt is over.
        rig.reconnect()?;
        ensure!(
            rig.find(Side::B, &guest.name)?.is_none(),
            "settled, and B still has a copy"
        );
        rig.progress(guest, 1)?;
    }
    Ok(())
}

fn after(
    rig: &mut Rig,
    guest: &mut Guest,
    message: RecordType,
    fate: Fate,
    runs_at_b: bool,
) -> Result<()> {
    rig.listen(guest)?;
    arm(rig, message, fate);
    // What the commands say of it may be either: a source that has given the
    // guest up cannot know the rest. Where the guest is, is what counts.
    let (_sent, _received) = rig.try_send(guest, PATIENCE)?;
    ensure!(
        rig.relay.broken(),
        "the move ended without {}",
        message.name()
    );
    ensure!(
        !rig.runs(Side::A, &guest.name)?,
        "the guest runs at A after COMMIT"
    );
    ensure!(
        rig.runs(Side::B, &guest.name)? == runs_at_b,
        "while the wire was broken the guest {} at B",
        if runs_at_b { "did not run" } else { "ran" }
    );

    rig.settle(guest, Arrival::Running)
}
