//! The wire between two machines: carries bytes, counts them, keeps what was
//! seen, and tampers with a message or breaks where a scenario says so.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use migration_abi::stream::RecordType;

use super::frames::{self, Piece, Splitter};

/// How long bytes are left to gather.
const HANDFUL: Duration = Duration::from_micros(300);

/// One of the two machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one where guests are created.
    A,
    /// The other.
    B,
}

impl Side {
    /// The machine at the other end.
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// A frame that passed, or was to pass.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Who sent it.
    pub from: Side,
    /// What it holds.
    pub kind: RecordType,
    /// When its last byte (its first, where it is long) came to the relay.
    pub at: Instant,
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is carried on.
    Pass,
    /// The wire breaks, and the frame is lost with it.
    CutBefore,
    /// It is carried on, then the wire breaks.
    CutAfter,
}

/// What a scenario does to frames: it sees each whole one of at most
/// [`super::frames::HELD_BYTES`] and may change it in place.
pub type Rule = Box<dyn FnMut(Side, RecordType, &mut [u8]) -> Fate + Send>;

#[derive(Default)]
struct State {
    bytes: u64,
    seen: Vec<Seen>,
    xstate: Vec<Vec<u8>>,
    rule: Option<Rule>,
    broken: bool,
    /// Counts up when the wire is mended, so that the carriers forget frames
    /// that were cut in half.
    mended: u64,
}

/// The wire. Dropping it closes both ends.
pub struct Relay {
    shared: Arc<Mutex<State>>,
    ends: [UnixStream; 2],
}

impl Relay {
    /// Joins the ends of machine A and machine B.
    pub fn join(a: UnixStream, b: UnixStream) -> Result<Self> {
        let shared: Arc<Mutex<State>> = Arc::default();
        let ends = [a.try_clone()?, b.try_clone()?];
        for (side, source, sink) in [(Side::A, a.try_clone()?, b.try_clone()?), (Side::B, b, a)] {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new()
                .name(format!("wire from {side:?}"))
                .spawn(move || carry(side, source, sink, &shared))?;
        }
        Ok(Self { shared, ends })
    }

    /// Bytes carried so far, both directions together.
    pub fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    /// A mark in the list of frames: all that were seen so far stand before it.
    pub fn mark(&self) -> usize {
        self.lock().seen.len()
    }

    /// The frames seen since `mark`.
    pub fn since(&self, mark: usize) -> Vec<Seen> {
        self.lock().seen.get(mark..).unwrap_or_default().to_vec()
    }

    /// The extended-state blobs that were sent, in order, before any tampering.
    pub fn blobs(&self) -> Vec<Vec<u8>> {
        self.lock().xstate.clone()
    }

    /// Does `rule` to all frames from now on.
    pub fn arm(&self, rule: Rule) {
        self.lock().rule = Some(rule);
    }

    /// Mends the wire, if broken, and does nothing to frames from now on. What
    /// was on the wire when it broke is lost.
    pub fn mend(&self) {
        let mut state = self.lock();
        state.rule = None;
        state.broken = false;
        state.mended += 1;
    }

    /// Whether the wire is broken.
    pub fn broken(&self) -> bool {
        self.lock().broken
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        for end in &self.ends {
            // The carriers wake up and end. An error means that they did.
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

fn carry(side: Side, mut source: UnixStream, mut sink: UnixStream, shared: &Mutex<State>) {
    let mut splitter = Splitter::default();
    let mut mended = 0;
    let mut buffer = [0; 16384];
    loop {
        let Ok(count @ 1..) = source.read(&mut buffer) else {
            return;
        };
        let carried = {
            let mut state = shared.lock().unwrap_or_else(PoisonError::into_inner);
            if state.mended != mended {
                mended = state.mended;
                splitter = Splitter::default();
            }
            let mut out = Vec::with_capacity(count);
            for piece in splitter.feed(&buffer[..count]) {
                state.handle(side, piece, &mut out);
            }
            state.bytes += out.len() as u64;
            out
        };
        if sink.write_all(&carried).is_err() {
            return;
        }
        // An emulated port writes byte by byte. Taking them in handfuls leaves
        // the processors to the machines.
        std::thread::sleep(HANDFUL);
    }
}

impl State {
    /// Appends to `out` what is to be carried on of `piece`.
    fn handle(&mut self, from: Side, piece: Piece, out: &mut Vec<u8>) {
        match piece {
            Piece::Loose(bytes) => {
                if !self.broken {
                    out.extend(bytes);
                }
            }
            Piece::Begun(kind, bytes) => {
                if !self.broken {
                    self.note(from, kind);
                    out.extend(bytes);
                }
            }
            Piece::Whole(kind, mut bytes) => {
                if self.broken {
                    return;
                }
                self.note(from, kind);
                if kind == RecordType::VcpuXstate
                    && let Some(blob) = frames::blob(&bytes)
                {
                    self.xstate.push(blob.to_vec());
                }
                let fate = self
                    .rule
                    .as_mut()
                    .map_or(Fate::Pass, |rule| rule(from, kind, &mut bytes));
                if fate != Fate::CutBefore {
                    out.extend(bytes);
                }
                self.broken = fate != Fate::Pass;
            }
        }
    }

    fn note(&mut self, from: Side, kind: RecordType) {
        self.seen.push(Seen {
            from,
            kind,
            at: Instant::now(),
        });
    }
}

/// The time from the first frame that is sent of a stopped guest to the one that
/// says that it runs at its new place.
pub fn pause(seen: &[Seen], from: Side) -> Result<Duration> {
    let begin = seen
        .iter()
        .find(|seen| seen.from == from && seen.kind == RecordType::Header)
        .context("no stream was sent")?;
    let end = seen
        .iter()
        .find(|seen| seen.from == from.other() && seen.kind == RecordType::Running)
        .context("the receiver never said that the guest runs")?;
    Ok(end.at.saturating_duration_since(begin.at))
}

#[cfg(test)]
mod tests {
    use super::super::frames::tests::frame;
    use super::*;

    struct Wire {
        relay: Relay,
        a: UnixStream,
        b: UnixStream,
    }

    fn wire() -> Wire {
        let (a, near_a) = UnixStream::pair().unwrap();
        let (b, near_b) = UnixStream::pair().unwrap();
        for end in [&a, &b] {
            end.set_read_timeout(Some(Duration::from_millis(300)))
                .unwrap();
        }
        Wire {
            relay: Relay::join(near_a, near_b).unwrap(),
            a,
            b,
        }
    }

    fn receive(mut end: &UnixStream, len: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; len];
        end.read_exact(&mut bytes).ok().map(|()| bytes)
    }

    #[test]
    fn carries_both_ways_and_counts() {
        let mut wire = wire();
        let hello = frame(RecordType::Hello, b"hello");
        wire.a.write_all(&hello).unwrap();
        assert_eq!(receive(&wire.b, hello.len()), Some(hello.clone()));
        wire.b.write_all(b"noise").unwrap();
        let seen = wire.relay.since(0);
        assert_eq!((seen[0].from, seen[0].kind), (Side::A, RecordType::Hello));
        assert!(wire.relay.bytes() >= hello.len() as u64);
    }

    #[test]
    fn breaks_where_told_and_mends() {
        let mut wire = wire();
        wire.relay.arm(Box::new(|_, kind, _| match kind {
            RecordType::Commit => Fate::CutBefore,
            _ => Fate::Pass,
        }));
        let (hello, commit) = (
            frame(RecordType::Hello, b"1"),
            frame(RecordType::Commit, b"2"),
        );
        wire.a.write_all(&hello).unwrap();
        wire.a.write_all(&commit).unwrap();
        assert_eq!(receive(&wire.b, hello.len()), Some(hello.clone()));
        assert_eq!(receive(&wire.b, 1), None);
        assert!(wire.relay.broken());
        wire.b.write_all(&hello).unwrap();
        assert_eq!(receive(&wire.a, 1), None);

        wire.relay.mend();
        wire.b.write_all(&hello).unwrap();
        assert_eq!(receive(&wire.a, hello.len()), Some(hello));
    }

    #[test]
    fn a_cut_after_carries_the_frame() {
        let mut wire = wire();
        wire.relay.arm(Box::new(|_, _, _| Fate::CutAfter));
        let commit = frame(RecordType::Commit, b"2");
        wire.a.write_all(&commit).unwrap();
        wire.a.write_all(&commit).unwrap();
        assert_eq!(receive(&wire.b, commit.len()), Some(commit));
        assert_eq!(receive(&wire.b, 1), None);
    }
}
