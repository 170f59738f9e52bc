//! `receive`: a domain comes in. It is judged before its first page, built,
//! and runs when the source gave it up.

use super::settle::{ask_all, give_up_attempts, open, react, settle};
use super::{Patience, detached, peer_gave_up, silence, status, step, tell};
use crate::error::{Code, Error};
use crate::hypervisor::{Hypervisor, Policy};
use crate::link::{MILLISECOND_NS, SECOND_NS, Wire};
use crate::report::Output;
use alloc::string::{String, ToString};
use migration_abi::handover::{Body, Lost, Message, Role, Status, receiver::State};
use migration_abi::stream::{
    Domain, FRAME_HEADER_BYTES, Frame, FrameHeader, MigrationId, PAGE_BYTES, Pages, Record,
    RecordType, Sequencer, Writer,
};
use xferry_abi::info::{CREATE_INCOMING, CREATE_STAYS_PAUSED, CreateParameters, DomainInfo, state};
use xferry_abi::{DomainId, RightAction};

/// How long an older move may take to be settled before a new one goes on.
const OLDER_NS: u64 = 500 * MILLISECOND_NS;
/// How long DONE is waited for; the guest runs meanwhile.
const DONE_NS: u64 = SECOND_NS;
const DRAIN_QUIET_NS: u64 = 200 * MILLISECOND_NS;

/// A domain that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its number here.
    pub domain: DomainId,
    /// Its name.
    pub name: String,
    /// The migration.
    pub id: MigrationId,
    /// Bytes of the whole stream.
    pub stream_bytes: u64,
    /// Bytes of the vCPUs' extended-state blobs together.
    pub blob_bytes: u64,
    /// Whether the source has confirmed the end.
    pub confirmed: bool,
    /// Whether it is paused, as it was at the source.
    pub paused: bool,
}

/// Waits for a domain and takes it.
///
/// # Errors
/// None came or it was refused, and nothing is left of it; or it waits for
/// COMMIT, which the text says.
pub fn receive(
    hypervisor: &mut dyn Hypervisor,
    wire: &mut Wire<'_>,
    out: &mut dyn Output,
    boot_nonce: u64,
    patience: Patience,
) -> Result<Received, Error> {
    give_up_attempts(hypervisor, wire, out)?;
    let id = hello(hypervisor, wire, boot_nonce, patience.hello_ns)?;
    let mut build = Build {
        id,
        boot_nonce,
        silence_ns: patience.silence_ns,
        domain: None,
        name: String::new(),
        blob_bytes: 0,
    };
    if let Err(failure) = build.take_stream(hypervisor, wire) {
        build.refuse(hypervisor, wire, &failure);
        return Err(failure.error);
    }
    build.wait_for_commit(hypervisor, wire)
}

/// Waits for the source's HELLO and answers it.
fn hello(
    hypervisor: &mut dyn Hypervisor,
    wire: &mut Wire<'_>,
    boot_nonce: u64,
    limit_ns: u64,
) -> Result<MigrationId, Error> {
    let deadline = wire.now_ns().saturating_add(limit_ns);
    while let Some(message) = wire.message(deadline)?.map(|m| detached(&m)) {
        let Body::Hello { role, .. } = message.body else {
            // A refusal is for the one who asks; here a new move is waited for.
            drop(react(hypervisor, wire, &message, boot_nonce));
            continue;
        };
        if role == Role::Source {
            answer_hello(wire, message.migration_id, boot_nonce)?;
            return Ok(message.migration_id);
        }
    }
    let text = alloc::format!(
        "waited {} s, and no domain came over COM2; nothing was changed here",
        limit_ns / SECOND_NS
    );
    Err(Error::new(Code::ETIMEDOUT, "link-silent", text))
}

fn answer_hello(wire: &mut Wire<'_>, id: MigrationId, boot_nonce: u64) -> Result<(), Error> {
    wire.connect(id);
    let role = Role::Receiver;
    wire.say(id, Body::Hello { role, boot_nonce })
}

/// The order of a stream whose frame 0 was the source's HELLO.
fn after_hello(migration_id: MigrationId) -> Result<Sequencer, Error> {
    let role = Role::Source;
    let body = Body::Hello {
        role,
        boot_nonce: 0,
    };
    let mut bytes = [0; 64];
    let length = Message { migration_id, body }.write(&mut Writer::new(), &mut bytes)?;
    let frame = Frame {
        header: FrameHeader::parse(&bytes)?,
        payload: bytes.get(FRAME_HEADER_BYTES..length).unwrap_or_default(),
        offset: 0,
    };
    let mut order = Sequencer::new();
    order.accept(&frame)?;
    Ok(order)
}

/// Why a stream was not taken.
struct Failure {
    error: Error,
    /// The source knows already: it said so itself.
    said_by_source: bool,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            error,
            said_by_source: false,
        }
    }
}

impl From<migration_abi::ParseError> for Failure {
    fn from(error: migration_abi::ParseError) -> Self {
        Error::from(error).into()
    }
}

/// What a frame leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Next,
    /// HEADER and DOMAIN were checked and the domain was made.
    Accept,
    /// All is here.
    Ready,
    /// The source said HELLO once more.
    AnswerHello,
}

/// A domain on its way in.
struct Build {
    id: MigrationId,
    boot_nonce: u64,
    silence_ns: u64,
    domain: Option<DomainId>,
    name: String,
    blob_bytes: u64,
}

impl Build {
    /// Takes the stream up to END, and says READY.
    fn take_stream(
        &mut self,
        hypervisor: &mut dyn Hypervisor,
        wire: &mut Wire<'_>,
    ) -> Result<(), Failure> {
        ask_all(hypervisor, wire)?;
        let mut order = after_hello(self.id)?;
        loop {
            let Some(frame) = wire.record(self.silence_ns)? else {
                return Err(silence("the next record", self.silence_ns).into());
            };
            if let Some(message) = self.of_another_move(&frame)? {
                drop(react(hypervisor, wire, &message, self.boot_nonce));
                continue;
            }
            match self.record(hypervisor, &mut order, &frame)? {
                Then::Next => {}
                Then::AnswerHello => answer_hello(wire, self.id, self.boot_nonce)?,
                Then::Accept => {
                    self.settle_older(hypervisor, wire)?;
                    step(hypervisor, wire, self.id, RightAction::ReceiverAccept, 0)?;
                }
                Then::Ready => {
                    let said = step(hypervisor, wire, self.id, RightAction::ReceiverReady, 0);
                    // Where only the message failed the step was made, and
                    // what is ready is not dropped: the source will ask.
                    return match status(hypervisor, self.id)? {
                        Status::Receiver(State::Ready) => Ok(()),
                        _ => Ok(said.map(drop)?),
                    };
                }
            }
        }
    }

    /// A message that speaks of another migration than this.
    fn of_another_move(&self, frame: &Frame<'_>) -> Result<Option<Message<'static>>, Failure> {
        let message = frame
            .header
            .record_type()
            .is_some_and(|record| record.is_handover());
        if !message {
            return Ok(None);
        }
        Ok(match Record::parse(frame)? {
            Some(Record::Handover(message)) if message.migration_id != self.id => {
                Some(detached(&message))
            }
            _ => None,
        })
    }

    fn record(
        &mut self,
        hypervisor: &mut dyn Hypervisor,
        order: &mut Sequencer,
        frame: &Frame<'_>,
    ) -> Result<Then, Failure> {
        // Said again before our answer came there; it counts from 0 again.
        if frame.header.record_type() == Some(RecordType::Hello) {
            *order = after_hello(self.id)?;
            return Ok(Then::AnswerHello);
        }
        let Some(record) = order.accept(frame)? else {
            return Ok(Then::Next);
        };
        match record {
            Record::Header(_) => {}
            Record::Domain(domain) => {
                self.create(hypervisor, &domain)?;
                return Ok(Then::Accept);
            }
            Record::Pages(pages) => self.pages(hypervisor, &pages)?,
            // Memory is zero when a domain is made.
            Record::ZeroPages(_) => {}
            Record::Console(_) => {
                hypervisor.set_console(self.made()?, frame.payload)?;
            }
            Record::VcpuRegisters(record) => {
                hypervisor.set_registers(self.made()?, record.vcpu, &record.registers)?;
            }
            Record::VcpuXstate(record) => {
                hypervisor.set_xstate(self.made()?, record.vcpu, record.bytes)?;
                self.blob_bytes = self.blob_bytes.saturating_add(record.bytes.len() as u64);
            }
            Record::End(_) => return Ok(Then::Ready),
            Record::Handover(message) => {
                if let Body::Abort(reason) | Body::Refuse(reason) = &message.body {
                    return Err(Failure {
                        error: peer_gave_up(reason),
                        said_by_source: true,
                    });
                }
            }
        }
        Ok(Then::Next)
    }

    /// Judges the domain by its policy and makes it, without the right to run.
    fn create(
        &mut self,
        hypervisor: &mut dyn Hypervisor,
        domain: &Domain<'_>,
    ) -> Result<(), Error> {
        let policy = Policy {
            deferred: domain.xstate_deferred,
            leaves: domain
                .leaves
                .iter()
                .map(|leaf| zerocopy::transmute!(leaf))
                .collect(),
        };
        policy.fits(&hypervisor.policy(DomainId::HOST)?)?;
        let id = hypervisor.create(&CreateParameters {
            uuid: domain.uuid,
            name: domain.name,
            memory_pages: domain.memory_pages,
            vcpus: domain.vcpus,
            flags: CREATE_INCOMING
                | if domain.paused {
                    CREATE_STAYS_PAUSED
                } else {
                    0
                },
            xstate_limit_bytes: 0,
            migration_id: *self.id.bytes(),
        })?;
        self.domain = Some(id);
        self.name = domain.name().to_string();
        hypervisor.set_policy(id, 0, &policy)?;
        hypervisor.set_clock(id, domain.clock_ns)
    }

    fn pages(&self, hypervisor: &mut dyn Hypervisor, pages: &Pages<'_>) -> Result<(), Error> {
        let address = pages.first_gfn.saturating_mul(PAGE_BYTES as u64);
        hypervisor.memory_write(self.made()?, address, pages.data)
    }

    /// The domain. The order of records says that it was made.
    fn made(&self) -> Result<DomainId, Error> {
        self.domain
            .ok_or_else(|| Error::new(Code::EPROTO, "record-order", "saw state before DOMAIN"))
    }

    /// An older copy that waits here is asked about before a new one is
    /// accepted: the source stands still and answers now.
    fn settle_older(
        &self,
        hypervisor: &mut dyn Hypervisor,
        wire: &mut Wire<'_>,
    ) -> Result<(), Error> {
        let deadline = wire.now_ns().saturating_add(OLDER_NS);
        loop {
            let waits = |entry: &super::settle::Open| {
                entry.id != self.id
                    && matches!(entry.status, Status::Receiver(state) if state.when_link_lost() == Lost::Query)
            };
            if !open(hypervisor)?.iter().any(waits) || wire.now_ns() >= deadline {
                return Ok(());
            }
            let message = wire.message(deadline)?.map(|m| detached(&m));
            if let Some(message) = message.filter(|m| m.migration_id != self.id) {
                drop(react(hypervisor, wire, &message, self.boot_nonce));
            }
        }
    }

    /// Drops what there is of the domain and tells the source why.
    fn refuse(&self, hypervisor: &mut dyn Hypervisor, wire: &mut Wire<'_>, failure: &Failure) {
        if self.domain.is_some() {
            // Refused where READY was said already; then it waits, and says so.
            let action = RightAction::ReceiverAbort;
            drop(hypervisor.right(DomainId::TOOLSTACK, action, 0, self.id.bytes()));
        }
        if !failure.said_by_source {
            let mut text = String::new();
            tell(wire, self.id, &failure.error, &mut text, Body::Refuse);
        }
        wire.drain(DRAIN_QUIET_NS, self.silence_ns);
    }

    /// READY was said: the source decides.
    fn wait_for_commit(
        self,
        hypervisor: &mut dyn Hypervisor,
        wire: &mut Wire<'_>,
    ) -> Result<Received, Error> {
        let (id, nonce) = (self.id, self.boot_nonce);
        let decided = |status| match status {
            Status::Receiver(state) => state.may_run() || state.has_ended(),
            _ => true,
        };
        let waits = "the guest is here, whole and stopped, and waits for the source's COMMIT; \
                     `reconnect` on both sides settles it";
        match settle(hypervisor, wire, id, nonce, self.silence_ns, decided) {
            Ok(Status::Receiver(state)) if state.may_run() => {}
            Ok(Status::Receiver(State::Ready)) => {
                return Err(silence("COMMIT", self.silence_ns).and(waits));
            }
            Ok(_) => {
                let text = "the source gave this attempt up; the guest runs on there";
                return Err(Error::new(Code::EPROTO, "peer-aborted", text));
            }
            Err(error) => return Err(error.and(waits)),
        }
        let confirmed = |status| status == Status::Receiver(State::Done);
        // It runs, whatever becomes of the last word.
        drop(settle(hypervisor, wire, id, nonce, DONE_NS, confirmed));
        let domain = self.made()?;
        let info: Option<DomainInfo> = hypervisor.domain_info(domain).ok();
        Ok(Received {
            domain,
            confirmed: confirmed(status(hypervisor, id)?),
            paused: info.is_some_and(|info| info.state == state::PAUSED),
            name: self.name,
            id,
            stream_bytes: wire.received_bytes(),
            blob_bytes: self.blob_bytes,
        })
    }
}
