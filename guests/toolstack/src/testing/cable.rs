//! A link in memory, with time that waits for both of its ends.

use crate::error::Error;
use crate::link::{Link, MILLISECOND_NS};
use alloc::collections::VecDeque;
use migration_abi::stream::{FrameHeader, RecordType};
use std::boxed::Box;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// What becomes of a frame that side `usize` writes: `false` breaks the wire
/// there, until it is mended.
pub type Rule = Box<dyn FnMut(usize, RecordType) -> bool + Send>;

/// The wire between two hosts, and time: it goes on only when both sides wait
/// and nothing is on its way, so no test depends on how fast it runs.
#[derive(Clone)]
pub struct Cable(Arc<(Mutex<State>, Condvar)>);

struct State {
    now_ns: u64,
    waits: [bool; 2],
    away: [bool; 2],
    /// Bytes for each side.
    queues: [VecDeque<u8>; 2],
    rule: Option<Rule>,
    broken: bool,
}

impl Cable {
    pub fn new() -> Self {
        let state = State {
            now_ns: 1,
            waits: [false; 2],
            away: [true; 2],
            queues: [VecDeque::new(), VecDeque::new()],
            rule: None,
            broken: false,
        };
        Self(Arc::new((Mutex::new(state), Condvar::new())))
    }

    pub fn arm(&self, rule: Rule) {
        self.0.0.lock().unwrap().rule = Some(rule);
    }

    pub fn mend(&self) {
        let mut state = self.0.0.lock().unwrap();
        state.rule = None;
        state.broken = false;
    }

    pub fn broken(&self) -> bool {
        self.0.0.lock().unwrap().broken
    }

    /// Puts bytes before a side that nobody wrote.
    pub fn noise(&self, side: usize, bytes: &[u8]) {
        self.0.0.lock().unwrap().queues[side].extend(bytes);
    }

    /// One side's end. Both must be taken before either waits.
    pub fn end(&self, side: usize) -> End {
        self.0.0.lock().unwrap().away[side] = false;
        End {
            cable: self.clone(),
            side,
        }
    }
}

/// One end of a cable.
pub struct End {
    cable: Cable,
    side: usize,
}

impl Drop for End {
    fn drop(&mut self) {
        let (state, changed) = &*self.cable.0;
        state.lock().unwrap().away[self.side] = true;
        changed.notify_all();
    }
}

impl Link for End {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let (state, changed) = &*self.cable.0;
        let mut state = state.lock().unwrap();
        let kind = FrameHeader::parse(bytes)?.record_type().unwrap();
        if let Some(rule) = state.rule.as_mut()
            && !rule(self.side, kind)
        {
            state.broken = true;
        }
        // Nobody hears a host whose toolstack does not listen: its UART's FIFO
        // keeps the first bytes, and those are worth nothing.
        if !state.broken {
            state.queues[1 - self.side].extend(bytes);
            changed.notify_all();
        }
        Ok(())
    }

    fn read(&mut self, to: &mut [u8]) -> Result<usize, Error> {
        let mut state = self.cable.0.0.lock().unwrap();
        let queue = &mut state.queues[self.side];
        let count = queue.len().min(to.len());
        for (place, byte) in to.iter_mut().zip(queue.drain(..count)) {
            *place = byte;
        }
        Ok(count)
    }

    fn now_ns(&self) -> u64 {
        self.cable.0.0.lock().unwrap().now_ns
    }

    fn idle(&mut self) -> Result<(), Error> {
        let (state, changed) = &*self.cable.0;
        let mut state = state.lock().unwrap();
        if !state.queues[self.side].is_empty() {
            return Ok(());
        }
        state.waits[self.side] = true;
        let other = 1 - self.side;
        let still = state.away[other] || state.waits[other] && state.queues[other].is_empty();
        if still {
            state.now_ns += 5 * MILLISECOND_NS;
            state.waits = [false; 2];
            changed.notify_all();
        } else {
            let before = state.now_ns;
            let limit = Duration::from_millis(20);
            let side = self.side;
            let unchanged = |state: &mut State| {
                state.now_ns == before && state.queues[side].is_empty() && !state.away[other]
            };
            state = changed
                .wait_timeout_while(state, limit, unchanged)
                .unwrap()
                .0;
            state.waits[self.side] = false;
        }
        Ok(())
    }
}
