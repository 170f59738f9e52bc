//! The wire breaks in the middle of a move. Before COMMIT the guest runs on at
//! A; after it, both sides keep the whole guest and neither runs it in doubt,
//! until the wire is mended and asking settles it. It never runs on both.

use anyhow::{Context, Result, bail, ensure};
use migration_abi::stream::RecordType;

use crate::migrate::relay::{Fate, Side};
use crate::migrate::rig::{Arrival, Guest, Rig};
use crate::shell::Refusal;

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
/// Where the machines are so slow that a wait runs out before the wire breaks,
/// the cut is tried again with more.
const PATIENCE: [u32; 3] = [2, 6, 18];

pub fn play(rig: &mut Rig) -> Result<String> {
    let mut guest = rig.create(Side::A, 23, "")?;
    rig.progress(&mut guest, 2)?;
    for &(message, fate) in BEFORE {
        let place = || format!("{fate:?} {}", message.name());
        patiently(rig, &mut guest, |rig, guest, patience| {
            before(rig, guest, message, fate, patience)
        })
        .with_context(place)?;
    }
    for &(message, fate, runs_at_b) in AFTER {
        let place = || format!("{fate:?} {}", message.name());
        patiently(rig, &mut guest, |rig, guest, patience| {
            after(rig, guest, (message, fate), runs_at_b, patience)
        })
        .with_context(place)?;
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

/// What became of one cut.
enum Cut {
    /// It was made, and all is as it should be.
    Settled,
    /// The sides gave up too early, for the reason that is told.
    TooEarly(String),
}

/// Tries a cut until the sides wait long enough for it to be made.
fn patiently(
    rig: &mut Rig,
    guest: &mut Guest,
    mut cut: impl FnMut(&mut Rig, &mut Guest, u32) -> Result<Cut>,
) -> Result<()> {
    let mut early = String::new();
    for patience in PATIENCE {
        match cut(rig, guest, patience)? {
            Cut::Settled => return Ok(()),
            Cut::TooEarly(why) => early = why,
        }
        // Whatever they believe of the attempt, they agree when they have asked.
        rig.relay.mend();
        rig.reconnect()?;
        let at = [Side::A, Side::B].map(|side| rig.find(side, &guest.name));
        match at {
            [Ok(Some(_)), Ok(None)] => rig.progress(guest, 1)?,
            [Ok(None), Ok(Some(id))] => {
                (guest.at, guest.id) = (Side::B, id);
                rig.send(guest)?;
            }
            [a, b] => bail!("after an attempt that was given up: at A {a:?}, at B {b:?}"),
        }
    }
    bail!("{early}, though each side waits {} s", PATIENCE[2])
}

fn before(
    rig: &mut Rig,
    guest: &mut Guest,
    message: RecordType,
    fate: Fate,
    patience: u32,
) -> Result<Cut> {
    rig.listen(guest)?;
    arm(rig, message, fate);
    let (sent, received) = rig.try_send(guest, patience)?;
    if !rig.relay.broken() {
        return Ok(Cut::TooEarly(without(message, &sent, &received)));
    }
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
    Ok(Cut::Settled)
}

fn after(
    rig: &mut Rig,
    guest: &mut Guest,
    (message, fate): (RecordType, Fate),
    runs_at_b: bool,
    patience: u32,
) -> Result<Cut> {
    rig.listen(guest)?;
    arm(rig, message, fate);
    // What the commands say of it may be either: a source that has given the
    // guest up cannot know the rest. Where the guest is, is what counts.
    let (sent, received) = rig.try_send(guest, patience)?;
    if !rig.relay.broken() {
        return Ok(Cut::TooEarly(without(message, &sent, &received)));
    }
    ensure!(
        !rig.runs(Side::A, &guest.name)?,
        "the guest runs at A after COMMIT"
    );
    match (rig.runs(Side::B, &guest.name)?, runs_at_b) {
        (true, false) => bail!("while the wire was broken the guest ran at B"),
        (false, true) => {
            return Ok(Cut::TooEarly(format!(
                "while the wire was broken the guest did not run at B: {received:?}"
            )));
        }
        (true, true) | (false, false) => {}
    }
    rig.settle(guest, Arrival::Running)?;
    Ok(Cut::Settled)
}

/// An attempt that ended before the wire could break.
fn without(
    message: RecordType,
    sent: &Result<(), Refusal>,
    received: &Result<(), Refusal>,
) -> String {
    format!(
        "the move ended without {}: sent {sent:?}, received {received:?}",
        message.name()
    )
}
