//! Frames over a link: written whole, read with a time limit.

use super::Link;
use crate::error::Error;
use alloc::vec;
use alloc::vec::Vec;
use migration_abi::ParseError;
use migration_abi::handover::{Body, Message};
use migration_abi::stream::{
    FRAME_HEADER_BYTES, Frame, FrameHeader, MAX_PAYLOAD_BYTES, MigrationId, Record, Writer,
};

/// How the next frame is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Search {
    /// It begins where the last one ended; anything else is an error.
    Strict,
    /// A message of the handover, wherever it begins: other bytes are skipped.
    /// A receiver that starts late, or a FIFO that was reset, has only part of
    /// what was sent before.
    Messages,
}

/// Longest payload of a message; a header that claims more is none.
const MESSAGE_MAX_BYTES: usize = 1024;
const READ_BYTES: usize = 4096;

/// One connection.
pub struct Wire<'a> {
    link: &'a mut dyn Link,
    writer: Writer,
    /// The migration that this connection is for.
    connection: Option<MigrationId>,
    output: Vec<u8>,
    input: Vec<u8>,
    /// Bytes at the start of `input` that were the last frame.
    taken: usize,
    sent_bytes: u64,
    received_bytes: u64,
}

impl<'a> Wire<'a> {
    /// Before the first frame in either direction.
    pub fn new(link: &'a mut dyn Link) -> Self {
        Self {
            link,
            writer: Writer::new(),
            connection: None,
            output: vec![0; FRAME_HEADER_BYTES + MAX_PAYLOAD_BYTES / 2],
            input: Vec::new(),
            taken: 0,
            sent_bytes: 0,
            received_bytes: 0,
        }
    }

    /// What was sent so far, bytes.
    #[must_use]
    pub const fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }

    /// What was received so far, bytes.
    #[must_use]
    pub const fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// Time, ns.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        self.link.now_ns()
    }

    /// Begins a connection for a migration: frames are counted from 0.
    pub const fn connect(&mut self, id: MigrationId) {
        self.connection = Some(id);
        self.writer = Writer::new();
    }

    /// Sends the frame that `write` writes.
    ///
    /// # Errors
    /// It cannot be written, or the link failed.
    pub fn send(
        &mut self,
        write: impl FnOnce(&mut Writer, &mut [u8]) -> Result<usize, ParseError>,
    ) -> Result<(), Error> {
        let length = write(&mut self.writer, &mut self.output)?;
        let frame = self.output.get(..length).unwrap_or_default();
        self.link.write(frame)?;
        self.sent_bytes = self.sent_bytes.saturating_add(length as u64);
        Ok(())
    }

    /// Sends a message of the handover. One that speaks of another migration
    /// than the connection's is a connection of its own, one frame long.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn say(&mut self, migration_id: MigrationId, body: Body<'_>) -> Result<(), Error> {
        let message = Message { migration_id, body };
        if self.connection == Some(migration_id) {
            self.send(|writer, out| message.write(writer, out))
        } else {
            self.send(|_, out| message.write(&mut Writer::new(), out))
        }
    }

    /// The next record of a stream, proved undamaged, or `None` where no byte
    /// came for `silence_ns`. A long record may take longer than that.
    ///
    /// # Errors
    /// The link failed, the user interrupted, or what came is no frame.
    pub fn record(&mut self, silence_ns: u64) -> Result<Option<Frame<'_>>, Error> {
        let mut last = self.link.now_ns();
        let mut seen = self.received_bytes;
        let header = self.find(Search::Strict, |now, received| {
            if received != seen {
                (seen, last) = (received, now);
            }
            now.saturating_sub(last) > silence_ns
        })?;
        Ok(header.map(|header| self.frame(header)))
    }

    /// The header of the next frame, whose payload is here too; `None` where
    /// `enough` says so, of the time and the bytes received, when nothing is left
    /// to be read.
    fn find(
        &mut self,
        search: Search,
        mut enough: impl FnMut(u64, u64) -> bool,
    ) -> Result<Option<FrameHeader>, Error> {
        self.input.drain(..self.taken.min(self.input.len()));
        self.taken = 0;
        loop {
            let read = self.fill()?;
            if let Some(header) = self.look(search)? {
                self.taken = header.frame_len();
                return Ok(Some(header));
            }
            let enough = enough(self.link.now_ns(), self.received_bytes);
            match (read, enough) {
                (true, _) => {}
                (false, true) => return Ok(None),
                (false, false) => self.link.idle()?,
            }
        }
    }

    /// The frame that was found.
    fn frame(&self, header: FrameHeader) -> Frame<'_> {
        let payload = self.input.get(FRAME_HEADER_BYTES..self.taken);
        Frame {
            header,
            payload: payload.unwrap_or_default(),
            offset: 0,
        }
    }

    /// The next message of the handover, other bytes skipped, or `None` where
    /// none came until `deadline_ns`. A deadline of 0 asks for what is here.
    ///
    /// # Errors
    /// The link failed or the user interrupted.
    pub fn message(&mut self, deadline_ns: u64) -> Result<Option<Message<'_>>, Error> {
        let Some(header) = self.find(Search::Messages, |now, _| now >= deadline_ns)? else {
            return Ok(None);
        };
        let frame = self.frame(header);
        // `look` has seen that it is one.
        Ok(match Record::parse(&frame)? {
            Some(Record::Handover(message)) => Some(message),
            _ => None,
        })
    }

    /// Takes and drops what comes until nothing did for `quiet_ns`, at most
    /// `most_ns` long: the other side must not stand before a full link while
    /// it has not read yet why it should stop.
    pub fn drain(&mut self, quiet_ns: u64, most_ns: u64) {
        let start = self.link.now_ns();
        let mut last = start;
        loop {
            self.input.clear();
            self.taken = 0;
            let now = self.link.now_ns();
            match self.fill() {
                Ok(true) => last = now,
                Ok(false) if self.link.idle().is_ok() => {}
                _ => return,
            }
            if now.saturating_sub(last) > quiet_ns || now.saturating_sub(start) > most_ns {
                return;
            }
        }
    }

    /// Takes what waits; whether anything did.
    fn fill(&mut self) -> Result<bool, Error> {
        let before = self.input.len();
        self.input.resize(before + READ_BYTES, 0);
        let result = self
            .link
            .read(self.input.get_mut(before..).unwrap_or_default());
        let count = *result.as_ref().unwrap_or(&0);
        self.input.truncate(before.saturating_add(count));
        self.received_bytes = self.received_bytes.saturating_add(count as u64);
        result.map(|count| count != 0)
    }

    /// The whole frame at the start of the input, if one is there.
    fn look(&mut self, search: Search) -> Result<Option<FrameHeader>, Error> {
        let mut skip = 0;
        let found = loop {
            let rest = self.input.get(skip..).unwrap_or_default();
            if rest.len() < FRAME_HEADER_BYTES {
                break None;
            }
            match whole_frame(rest, search) {
                Ok(found) => break found,
                Err(_) if search == Search::Messages => skip += 1,
                Err(error) => return Err(error.into()),
            }
        };
        self.input.drain(..skip);
        Ok(found)
    }
}

/// The header of the frame that `bytes` begins with, once it is all there.
fn whole_frame(bytes: &[u8], search: Search) -> Result<Option<FrameHeader>, ParseError> {
    let header = FrameHeader::parse(bytes)?;
    if search == Search::Messages {
        let message = header
            .record_type()
            .is_some_and(|record| record.is_handover());
        if !message || header.payload_len() > MESSAGE_MAX_BYTES {
            // Any error will do: the caller goes on to the next byte.
            return Err(FrameHeader::parse(&[])
                .err()
                .unwrap_or_else(|| unreachable!()));
        }
    }
    let Some(payload) = bytes.get(FRAME_HEADER_BYTES..header.frame_len()) else {
        return Ok(None);
    };
    header.verify(payload)?;
    if search == Search::Messages {
        // Well-formed too, so that the caller is never given a broken one.
        Record::parse(&Frame {
            header,
            payload,
            offset: 0,
        })?;
    }
    Ok(Some(header))
}
