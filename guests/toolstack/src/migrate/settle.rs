//! Messages of the handover to events of the hypervisor's, and moves that were
//! cut off to an end: by asking, with the hypervisor's word on both sides.

use super::{detached, status, step};
use crate::build::name_text;
use crate::error::{Code, Error};
use crate::hypervisor::Hypervisor;
use crate::link::{MILLISECOND_NS, SECOND_NS, Wire};
use crate::report::Output;
use crate::say;
use alloc::string::String;
use alloc::vec::Vec;
use migration_abi::handover::{Body, Lost, Message, Status, receiver, source};
use migration_abi::stream::{MigrationId, RecordType};
use xferry_abi::{DomainId, RightAction};

/// How often the peer is asked.
const ASK_NS: u64 = 250 * MILLISECOND_NS;
/// How long it must be quiet before nothing more is expected.
const QUIET_NS: u64 = 3 * ASK_NS;
/// How long one look at the link lasts.
const LOOK_NS: u64 = 20 * MILLISECOND_NS;

/// Does what a message asks for: answers a question, or reports the event to
/// the hypervisor and says what is owed then.
///
/// # Errors
/// The hypervisor refused (in its words, which tell what an operator can do),
/// or the link failed.
pub fn react(
    hypervisor: &mut dyn Hypervisor,
    wire: &mut Wire<'_>,
    message: &Message<'_>,
    boot_nonce: u64,
) -> Result<(), Error> {
    let id = message.migration_id;
    let here = status(hypervisor, id)?;
    if message.body == Body::Query {
        let body = Body::Status {
            status: here,
            boot_nonce,
        };
        return wire.say(id, body);
    }
    let event = match here {
        // Of a migration that this host does not know nobody's word counts.
        Status::Unknown => None,
        Status::Source(_) => source::event_for(message).map(source_action),
        Status::Receiver(_) => receiver::event_for(message).map(receiver_action),
    };
    let Some(action) = event else { return Ok(()) };
    let peer = match &message.body {
        Body::Status { status, .. } => status.code(),
        Body::Abort(_) => Status::Source(source::State::Aborted).code(),
        _ => 0,
    };
    step(hypervisor, wire, id, action, peer).map(drop)
}

const fn source_action(event: source::Event) -> RightAction {
    match event {
        source::Event::Begin => RightAction::SourceBegin,
        source::Event::Accept => RightAction::SourceAccept,
        source::Event::Ready => RightAction::SourceReady,
        source::Event::Release => RightAction::SourceRelease,
        source::Event::Confirm => RightAction::SourceConfirm,
        source::Event::Abort => RightAction::SourceAbort,
        source::Event::PeerStatus(_) => RightAction::SourcePeerStatus,
        source::Event::Reclaim => RightAction::SourceReclaim,
    }
}

const fn receiver_action(event: receiver::Event) -> RightAction {
    match event {
        receiver::Event::Accept => RightAction::ReceiverAccept,
        receiver::Event::Ready => RightAction::ReceiverReady,
        receiver::Event::Take => RightAction::ReceiverTake,
        receiver::Event::Confirm => RightAction::ReceiverConfirm,
        // The hypervisor reports the end of a domain to its own machine.
        receiver::Event::DomainEnded | receiver::Event::Abort => RightAction::ReceiverAbort,
        receiver::Event::PeerStatus(_) => RightAction::ReceiverPeerStatus,
        receiver::Event::Discard => RightAction::ReceiverDiscard,
        receiver::Event::ForceTake => RightAction::ReceiverForceTake,
    }
}

/// What a side in this state does about a lost link.
const fn when_lost(status: Status) -> Lost {
    match status {
        Status::Unknown => Lost::Nothing,
        Status::Source(state) => state.when_link_lost(),
        Status::Receiver(state) => state.when_link_lost(),
    }
}

/// Asks the peer about a migration, or repeats what it has not confirmed.
fn ask(wire: &mut Wire<'_>, id: MigrationId, status: Status) -> Result<(), Error> {
    match when_lost(status) {
        Lost::Query => wire.say(id, Body::Query),
        Lost::Repeat(RecordType::Running) => wire.say(id, Body::Running),
        Lost::Repeat(_) | Lost::Abort | Lost::Nothing => Ok(()),
    }
}

/// Carries messages until this side's state is one that `enough` names, asking
/// when nothing comes. Gives the state at the end, enough or not.
///
/// # Errors
/// The link failed, or the hypervisor refused all that came.
pub fn settle(
    hypervisor: &mut dyn Hypervisor,
    wire: &mut Wire<'_>,
    id: MigrationId,
    boot_nonce: u64,
    limit_ns: u64,
    enough: impl Fn(Status) -> bool,
) -> Result<Status, Error> {
    let start = wire.now_ns();
    let mut asked = start;
    let mut refusal = None;
    loop {
        let here = status(hypervisor, id)?;
        if enough(here) {
            return Ok(here);
        }
        let now = wire.now_ns();
        if now.saturating_sub(start) > limit_ns {
            return refusal.map_or(Ok(here), Err);
        }
        if now.saturating_sub(asked) > ASK_NS {
            ask(wire, id, here)?;
            asked = now;
        }
        let message = wire
            .message(now.saturating_add(LOOK_NS))?
            .map(|m| detached(&m));
        if let Some(message) = message
            && let Err(error) = react(hypervisor, wire, &message, boot_nonce)
        {
            refusal = Some(error);
        }
    }
}

/// A migration that has no end yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// Its id.
    pub id: MigrationId,
    /// The domain here.
    pub domain: DomainId,
    /// The domain's name.
    pub name: String,
    /// This side's state.
    pub status: Status,
}

/// All of them.
///
/// # Errors
/// The hypervisor refused.
pub fn open(hypervisor: &mut dyn Hypervisor) -> Result<Vec<Open>, Error> {
    let domains = hypervisor.domains()?;
    let open = domains.into_iter().filter_map(|(domain, info)| {
        Some(Open {
            id: MigrationId::new(info.migration_id)?,
            domain,
            name: name_text(&info.name),
            status: Status::from_code(info.migration).filter(|s| *s != Status::Unknown)?,
        })
    });
    Ok(open.collect())
}

/// Ends attempts that can simply be given up here: nothing was promised yet.
///
/// # Errors
/// The hypervisor refused.
pub fn give_up_attempts(
    hypervisor: &mut dyn Hypervisor,
    wire: &mut Wire<'_>,
    out: &mut dyn Output,
) -> Result<(), Error> {
    for entry in open(hypervisor)? {
        if when_lost(entry.status) != Lost::Abort {
            continue;
        }
        let action = match entry.status {
            Status::Source(_) => RightAction::SourceAbort,
            _ => RightAction::ReceiverAbort,
        };
        match step(hypervisor, wire, entry.id, action, 0) {
            Ok(end) => tell_end(out, &entry, end),
            // The step was made; a peer that did not hear of it will ask.
            Err(error) if error.code == Code::EIO => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Asks about everything that waits for the peer's word, once.
///
/// # Errors
/// The link failed or the hypervisor refused.
pub fn ask_all(hypervisor: &mut dyn Hypervisor, wire: &mut Wire<'_>) -> Result<usize, Error> {
    let waiting = open(hypervisor)?;
    for entry in &waiting {
        ask(wire, entry.id, entry.status)?;
    }
    Ok(waiting.len())
}

/// `reconnect`: settles all that is open on either side. Ends when nothing is
/// open here and the other side has asked all that it wanted.
///
/// # Errors
/// Something is still open; the text says what and what can be done.
pub fn reconnect(
    hypervisor: &mut dyn Hypervisor,
    wire: &mut Wire<'_>,
    out: &mut dyn Output,
    boot_nonce: u64,
    limit_ns: u64,
) -> Result<(), Error> {
    give_up_attempts(hypervisor, wire, out)?;
    let at_first = open(hypervisor)?;
    let start = wire.now_ns();
    let (mut asked, mut heard) = (None, None);
    let mut refusal = None;
    loop {
        let now = wire.now_ns();
        let left = open(hypervisor)?.len();
        let quiet = heard.is_some_and(|at| now.saturating_sub(at) > QUIET_NS);
        if left == 0 && quiet || now.saturating_sub(start) > limit_ns {
            break;
        }
        if left != 0 && asked.is_none_or(|at| now.saturating_sub(at) > ASK_NS) {
            ask_all(hypervisor, wire)?;
            asked = Some(now);
        }
        let message = wire
            .message(now.saturating_add(LOOK_NS))?
            .map(|m| detached(&m));
        if let Some(message) = message {
            heard = Some(wire.now_ns());
            if let Err(error) = react(hypervisor, wire, &message, boot_nonce) {
                refusal = Some(error);
            }
        }
    }
    for entry in &at_first {
        tell_end(out, entry, status(hypervisor, entry.id)?);
    }
    let left = open(hypervisor)?;
    if left.is_empty() {
        if at_first.is_empty() {
            let words = if heard.is_some() {
                "the other side's questions were answered"
            } else {
                "nobody asked"
            };
            say!(out, "nothing was open here; {words}");
        }
        return Ok(());
    }
    Err(refusal.unwrap_or_else(|| {
        let text = alloc::format!(
            "{} open after {} s: the other side did not answer (is `reconnect` running there?)",
            left.len(),
            limit_ns / SECOND_NS
        );
        Error::new(Code::ETIMEDOUT, "reconnect", text)
    }))
}

/// How a migration stands, in words that say where the guest runs.
fn tell_end(out: &mut dyn Output, entry: &Open, end: Status) {
    say!(
        out,
        "domain {} ({}), migration {}: {}",
        entry.domain.0,
        entry.name,
        entry.id,
        words(end)
    );
}

/// Where a guest is, by this side's state of its migration.
#[must_use]
pub const fn words(status: Status) -> &'static str {
    use receiver::State as R;
    use source::State as S;
    match status {
        Status::Unknown => "not known here",
        Status::Source(S::Running | S::Aborted) => {
            "the attempt is over; the guest is here and nowhere else"
        }
        Status::Source(S::Sending | S::Accepted | S::Offered) => {
            "the guest is here, stopped while it is sent"
        }
        Status::Source(S::Committed) => {
            "the right to run was given up; a stopped copy is kept here until the other side confirms"
        }
        Status::Source(S::Done) => "the guest runs on the other host",
        Status::Receiver(R::Receiving | R::Accepted) => {
            "the guest is arriving and does not run here"
        }
        Status::Receiver(R::Ready) => {
            "the guest is here, whole and stopped, and waits for the source's COMMIT"
        }
        Status::Receiver(R::Running | R::Done) => "the guest runs here",
        Status::Receiver(R::Discarded) => "dropped here; the guest is at the source",
    }
}
