//! Two machines and the wire between them, and what can be done with a guest
//! there.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::decode::{self, Decoded};
use super::relay::{self, Relay, Seen, Side};
use super::report::Measured;
use super::torture::Ledger;
use super::xstate::Xstate;
use crate::image::TORTURE;
use crate::qemu::{Instance, MachineSpec};
use crate::shell::{Refusal, Shell};

const BOOT: Duration = Duration::from_secs(60);
const MOVE: Duration = Duration::from_secs(60);
const PROGRESS: Duration = Duration::from_secs(30);
/// Number of the toolstack's own domain.
const TOOLSTACK: u32 = 0;
/// How many seconds the two sides of a move wait for each other's answers.
const PATIENCE: u32 = 20;
/// How often a guest's console is looked at while something is awaited.
const LOOK: Duration = Duration::from_millis(50);

/// Two machines that are joined.
pub struct Rig {
    a: Instance,
    b: Instance,
    /// The wire.
    pub relay: Relay,
    measured: Measured,
    /// Bytes and blobs on the wire before the scenario began.
    before: (u64, usize),
}

/// How a guest that was moved should be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It ran when it was sent.
    Running,
    /// Its toolstack had paused it.
    Paused,
}

/// A torture guest, and all that it said.
pub struct Guest {
    /// Its domain's name, on whichever machine.
    pub name: String,
    /// Where it is.
    pub at: Side,
    /// Its domain's number there.
    pub id: u32,
    /// What it said.
    pub ledger: Ledger,
}

impl Rig {
    /// Boots `images` on the two machines and joins them; logs go to `logs`.
    pub fn boot(specs: [&MachineSpec; 2], images: [&Path; 2], logs: &Path) -> Result<Self> {
        let mut a = Instance::boot("A", specs[0], images[0], logs)?;
        let mut b = Instance::boot("B", specs[1], images[1], logs)?;
        let relay = Relay::join(a.take_link()?, b.take_link()?)?;
        let rig = Self {
            a,
            b,
            relay,
            measured: Measured::default(),
            before: (0, 0),
        };
        for side in [Side::A, Side::B] {
            rig.shell(side).ready(BOOT)?;
        }
        Ok(rig)
    }

    /// One of the machines.
    pub fn machine(&self, side: Side) -> &Instance {
        match side {
            Side::A => &self.a,
            Side::B => &self.b,
        }
    }

    /// The shell of one of the machines.
    pub fn shell(&self, side: Side) -> Shell<'_> {
        let machine = self.machine(side);
        Shell::new(machine.name(), machine.console())
    }

    /// Makes the machines as they were when they had booted, and measures anew.
    pub fn begin(&mut self) -> Result<()> {
        self.relay.mend();
        for side in [Side::A, Side::B] {
            for row in self.shell(side).run("list")? {
                let id = row
                    .split_whitespace()
                    .next()
                    .and_then(|word| word.parse::<u32>().ok());
                if let Some(id) = id.filter(|id| *id != TOOLSTACK) {
                    self.shell(side).run(&format!("destroy {id}"))?;
                }
            }
        }
        self.measured = Measured::default();
        self.before = (self.relay.bytes(), self.relay.blobs().len());
        Ok(())
    }

    /// What was measured since the beginning of the scenario.
    pub fn measured(&self) -> Measured {
        let (bytes, blobs) = self.before;
        let blobs = self.relay.blobs().split_off(blobs);
        Measured {
            stream_bytes: self.relay.bytes() - bytes,
            blob_bytes: blobs.last().map_or(0, |blob| blob.len() as u64),
            ..self.measured
        }
    }

    /// Creates a torture guest on `side`. `options` are words for `create`
    /// (`policy=…`) and for the guest.
    pub fn create(&self, side: Side, seed: u64, options: &str) -> Result<Guest> {
        let name = format!("t{seed}");
        self.shell(side).run(
            &format!("create {TORTURE} name={name} {options} seed={seed}").replace("  ", " "),
        )?;
        let id = self
            .find(side, &name)?
            .with_context(|| format!("{name} was created and is not in the list"))?;
        Ok(Guest {
            name,
            at: side,
            id,
            ledger: Ledger::new(seed),
        })
    }

    /// Number of the domain called `name` on `side`, if there is one.
    pub fn find(&self, side: Side, name: &str) -> Result<Option<u32>> {
        let Some(row) = self.row(side, name)? else {
            return Ok(None);
        };
        let id = row
            .split_whitespace()
            .next()
            .and_then(|word| word.parse().ok());
        Ok(Some(
            id.with_context(|| format!("no domain number in {row:?}"))?,
        ))
    }

    pub fn row(&self, side: Side, name: &str) -> Result<Option<String>> {
        let rows = self.shell(side).run("list")?;
        Ok(rows
            .into_iter()
            .find(|row| row.split_whitespace().any(|word| word == name)))
    }

    /// Whether the domain called `name` is on `side` and may run.
    pub fn runs(&self, side: Side, name: &str) -> Result<bool> {
        let row = self.row(side, name)?;
        Ok(row.is_some_and(|row| {
            row.split_whitespace()
                .any(|word| word == "running" || word == "blocked")
        }))
    }

    /// Reads what a guest said since; anything wrong is an error.
    pub fn listen(&self, guest: &mut Guest) -> Result<()> {
        let lines = self.shell(guest.at).run(&format!("console {}", guest.id))?;
        guest.ledger.read(&lines)
    }

    /// Waits until a guest has found `more` further patterns right.
    pub fn progress(&self, guest: &mut Guest, more: u64) -> Result<()> {
        self.listen(guest)?;
        let goal = guest.ledger.count() + more;
        let deadline = Instant::now() + PROGRESS;
        while guest.ledger.count() < goal {
            if Instant::now() > deadline {
                bail!(
                    "{} at {:?} found {} patterns right and did not reach {goal}",
                    guest.name,
                    guest.at,
                    guest.ledger.count()
                );
            }
            std::thread::sleep(LOOK);
            self.listen(guest)?;
        }
        Ok(())
    }

    /// Lets a guest stop.
    pub fn pause(&self, guest: &Guest) -> Result<()> {
        self.shell(guest.at)
            .run(&format!("pause {}", guest.id))
            .map(drop)
    }

    /// Lets a guest run on.
    pub fn unpause(&self, guest: &Guest) -> Result<()> {
        self.shell(guest.at)
            .run(&format!("unpause {}", guest.id))
            .map(drop)
    }

    /// Ends a guest, after it was heard a last time.
    pub fn destroy(&self, mut guest: Guest) -> Result<()> {
        self.listen(&mut guest)?;
        self.shell(guest.at)
            .run(&format!("destroy {}", guest.id))
            .map(drop)
    }

    /// The extended-state blob of a paused guest.
    pub fn blob(&self, guest: &Guest) -> Result<Vec<u8>> {
        self.blob_of(guest.at, guest.id)
    }

    /// The same of the domain with this number on `side`.
    pub fn blob_of(&self, side: Side, id: u32) -> Result<Vec<u8>> {
        let lines = self.shell(side).run(&format!("blob {id}"))?;
        decode::from_hex(&lines).map_err(|error| anyhow::anyhow!("blob {id} at {side:?}: {error}"))
    }

    /// The blob of a running guest, which is stopped for it.
    pub fn blob_of_stopped(&self, guest: &Guest) -> Result<Vec<u8>> {
        self.pause(guest)?;
        let blob = self.blob(guest);
        self.unpause(guest)?;
        blob
    }

    /// Pauses a guest at a moment when no component is INIT; there are such
    /// moments all the time, and others now and then.
    pub fn stop_with_all_in_use(&self, guest: &mut Guest) -> Result<(Vec<u8>, Decoded)> {
        let mut seen = 0;
        for _ in 0..40 {
            self.pause(guest)?;
            let blob = self.blob(guest)?;
            let decoded = decode::decode(&blob).map_err(|error| {
                anyhow::anyhow!("the blob does not follow its documented tables: {error}")
            })?;
            if decoded.in_image == decoded.xstate_mask {
                return Ok((blob, decoded));
            }
            seen |= decoded.in_image;
            self.unpause(guest)?;
            self.progress(guest, 1)?;
        }
        bail!(
            "in 40 looks the guest never had all components in use at once; those seen: {seen:#x}"
        )
    }

    /// What the shell says of a guest's extended state.
    pub fn xstate(&self, guest: &Guest) -> Result<Xstate> {
        let lines = self.shell(guest.at).run(&format!("xstate {}", guest.id))?;
        Xstate::parse(&lines).with_context(|| format!("xstate {} said {lines:?}", guest.id))
    }

    /// Moves a guest to the other machine.
    pub fn send(&mut self, guest: &mut Guest) -> Result<Vec<Seen>> {
        self.listen(guest)?;
        let mark = self.relay.mark();
        let (sent, received) = self.try_send(guest, PATIENCE)?;
        let to = guest.at.other();
        sent.with_context(|| format!("sending {} from {:?}", guest.name, guest.at))?;
        received.with_context(|| format!("receiving {} at {to:?}", guest.name))?;
        ensure!(
            self.find(guest.at, &guest.name)?.is_none(),
            "{} was moved and is still at {:?}",
            guest.name,
            guest.at
        );
        guest.id = self
            .find(to, &guest.name)?
            .with_context(|| format!("{} did not arrive at {to:?}", guest.name))?;
        let seen = self.relay.since(mark);
        self.measured.pause = self.measured.pause.max(relay::pause(&seen, guest.at)?);
        guest.at = to;
        Ok(seen)
    }

    /// Tries to, and gives what each side's command said.
    ///
    /// `patience` is how many seconds the sides wait for each other's answers.
    pub fn try_send(
        &self,
        guest: &Guest,
        patience: u32,
    ) -> Result<(Result<(), Refusal>, Result<(), Refusal>)> {
        let receive = self
            .shell(guest.at.other())
            .start(&format!("receive timeout={patience}"))?;
        let send = self
            .shell(guest.at)
            .start(&format!("send {} timeout={patience}", guest.id))?;
        let sent = send.wait(MOVE)?.outcome;
        Ok((sent, receive.wait(MOVE)?.outcome))
    }

    /// A move of a running guest that must be refused: gives the source's reason,
    /// having made sure that the guest runs on where it was and is nowhere else.
    pub fn send_refused(&self, guest: &mut Guest) -> Result<Refusal> {
        let refusal = self.try_refused(guest)?;
        self.stayed(guest)
            .with_context(|| format!("after the refusal: {refusal}"))?;
        Ok(refusal)
    }

    /// A move that must be refused, whatever becomes of the guest: gives the
    /// source's reason.
    pub fn try_refused(&self, guest: &Guest) -> Result<Refusal> {
        let (sent, received) = self.try_send(guest, PATIENCE)?;
        let Err(refusal) = sent else {
            bail!("{} was moved, and should have been refused", guest.name);
        };
        ensure!(
            received.is_err(),
            "the receiver took what the source says it refused: {refusal}"
        );
        Ok(refusal)
    }

    /// Lets the two sides settle whatever is open between them.
    pub fn reconnect(&self) -> Result<()> {
        let [a, b] = [Side::A, Side::B].map(|side| self.shell(side).start("reconnect"));
        a?.wait(MOVE)?.done().context("reconnect at A")?;
        b?.wait(MOVE)?.done().context("reconnect at B")?;
        Ok(())
    }

    /// Mends the wire after a move that broke past its point of no return, and
    /// has the two sides settle it: the guest is then at the other side alone,
    /// and runs there, unless it was sent paused.
    pub fn settle(&self, guest: &mut Guest, arrival: Arrival) -> Result<()> {
        self.relay.mend();
        self.reconnect()?;
        let (from, to) = (guest.at, guest.at.other());
        ensure!(
            self.find(from, &guest.name)?.is_none(),
            "settled, and the guest is still at {from:?}"
        );
        let id = self.find(to, &guest.name)?;
        guest.id = id.with_context(|| format!("settled, and the guest is not at {to:?}"))?;
        guest.at = to;
        let runs = self.runs(to, &guest.name)?;
        ensure!(
            runs == (arrival == Arrival::Running),
            "settled, and at {to:?} the guest should be {arrival:?}"
        );
        if !runs {
            self.unpause(guest)?;
        }
        self.progress(guest, 2)
    }

    /// Makes sure that a guest runs on where it is, and is not at the other side.
    pub fn stayed(&self, guest: &mut Guest) -> Result<()> {
        let other = guest.at.other();
        ensure!(
            self.find(other, &guest.name)?.is_none(),
            "{} is at {other:?} as well",
            guest.name
        );
        self.progress(guest, 2)
    }

    /// The last lines of both consoles, and what the emulators said.
    pub fn last_words(&self, lines: usize) -> String {
        let mut text = String::new();
        for machine in [&self.a, &self.b] {
            let (name, tail, messages) = (
                machine.name(),
                machine.console().tail(lines),
                machine.messages(),
            );
            text.push_str(&format!(
                "--- machine {name}, the last lines of its console:\n{tail}\n"
            ));
            if !messages.trim().is_empty() {
                text.push_str(&format!(
                    "--- machine {name}, QEMU itself:\n{}\n",
                    messages.trim()
                ));
            }
        }
        text
    }
}
