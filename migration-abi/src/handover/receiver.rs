//! The receiver's side: has no right to run until it takes the one that the source gave up.

use super::message::{Body, Message};
use super::{Action, Effect, Lost, Refused, Status, source};
use crate::mutants::rule;
use crate::stream::RecordType;

/// Where the receiver stands with one migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum State {
    /// Begun; nothing is promised.
    Receiving = 1,
    /// This host can take the domain; pages come in.
    Accepted = 2,
    /// Built, checked, paused, frozen. Waits for COMMIT as long as it takes.
    Ready = 3,
    /// The right was taken; the domain runs.
    Running = 4,
    /// The source knows, or the domain ended its life here. Tombstone.
    Done = 5,
    /// Dropped; never ran here and never will. Tombstone.
    Discarded = 6,
}

/// What happens to the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// HEADER and DOMAIN were checked against this host.
    Accept,
    /// All records were checked and the domain is built.
    Ready,
    /// COMMIT came: take the right.
    Take,
    /// DONE came.
    Confirm,
    /// The domain that runs here was shut down or destroyed before DONE came.
    DomainEnded,
    /// The attempt failed on this side (the stream, the memory, the link, the operator).
    Abort,
    /// STATUS or ABORT came: the source's state, `None` = unknown id.
    PeerStatus(Option<source::State>),
    /// An operator drops a domain that waits. Safe, whatever the source does.
    Discard,
    /// An operator vouches that the source is dead for ever.
    ForceTake,
}

impl State {
    /// A receiver begins here.
    pub const INITIAL: Self = Self::Receiving;

    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Receiving,
        Self::Accepted,
        Self::Ready,
        Self::Running,
        Self::Done,
        Self::Discarded,
    ];

    /// Stable number.
    #[must_use]
    pub const fn code(self) -> u32 {
        self as u32
    }

    /// The state with this number.
    #[must_use]
    pub const fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            1 => Self::Receiving,
            2 => Self::Accepted,
            3 => Self::Ready,
            4 => Self::Running,
            5 => Self::Done,
            6 => Self::Discarded,
            _ => return None,
        })
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Receiving => "receiving",
            Self::Accepted => "accepted",
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Done => "done",
            Self::Discarded => "discarded",
        }
    }

    /// Whether the domain may execute here.
    #[must_use]
    pub const fn may_run(self) -> bool {
        matches!(self, Self::Running | Self::Done)
    }

    /// Whether the right to run is here.
    #[must_use]
    pub const fn holds_right(self) -> bool {
        self.may_run()
    }

    /// Whether the domain is here, whole.
    #[must_use]
    pub const fn has_copy(self) -> bool {
        matches!(self, Self::Ready | Self::Running | Self::Done)
    }

    /// Whether the domain may still be built and altered by the toolstack as an
    /// unfinished one.
    #[must_use]
    pub const fn may_build(self) -> bool {
        matches!(self, Self::Receiving | Self::Accepted)
    }

    /// Whether the domain may be destroyed by whoever may destroy domains:
    /// unfinished ones are aborted first, one that waits only by [`Event::Discard`].
    #[must_use]
    pub const fn may_destroy(self) -> bool {
        self.may_run()
    }

    /// Whether only the tombstone is left of this migration.
    #[must_use]
    pub const fn has_ended(self) -> bool {
        matches!(self, Self::Done | Self::Discarded)
    }

    /// What to do when the link was lost.
    #[must_use]
    pub const fn when_link_lost(self) -> Lost {
        match self {
            Self::Receiving | Self::Accepted => Lost::Abort,
            Self::Ready => Lost::Query,
            Self::Running => Lost::Repeat(RecordType::Running),
            Self::Done | Self::Discarded => Lost::Nothing,
        }
    }
}

/// The machine: the state after `event`, and what is to be done; or why nothing was changed.
pub fn next(state: State, event: Event) -> Result<(State, Action), Refused> {
    match event {
        Event::Accept => match state {
            State::Receiving => Ok((
                State::Accepted,
                Action::new(Effect::None, RecordType::Accept),
            )),
            _ => out_of_order(state),
        },
        Event::Ready => match state {
            State::Accepted => Ok((State::Ready, Action::new(Effect::Freeze, RecordType::Ready))),
            _ => out_of_order(state),
        },
        Event::Take => match state {
            State::Ready => Ok((
                State::Running,
                Action::new(Effect::Run, RecordType::Running),
            )),
            // The RUNNING may have been lost, and so the source asks again.
            State::Running | State::Done => {
                Ok((state, Action::new(Effect::None, RecordType::Running)))
            }
            State::Receiving | State::Accepted if rule!("handover-take-when-ready") => {
                Err(Refused::OutOfOrder)
            }
            State::Receiving | State::Accepted => Ok((State::Running, Action::NOTHING)),
            State::Discarded => Err(Refused::Ended),
        },
        Event::Confirm => match state {
            State::Running | State::Done => Ok((State::Done, Action::NOTHING)),
            // The source frees its copy only when it was told that we run.
            _ => Err(Refused::Contradiction),
        },
        // The tombstone must go on saying that it ran here, or the source would
        // wait for ever for a domain that has ended its life.
        Event::DomainEnded => match state {
            State::Running => Ok((State::Done, Action::new(Effect::Free, RecordType::Running))),
            _ => out_of_order(state),
        },
        Event::Abort => match state {
            State::Receiving | State::Accepted => discard(),
            State::Discarded => Ok((
                State::Discarded,
                Action::new(Effect::None, RecordType::Abort),
            )),
            State::Ready if rule!("handover-ready-was-said") => Err(Refused::ReadyWasSaid),
            State::Ready => discard(),
            State::Running | State::Done => Err(Refused::OutOfOrder),
        },
        Event::PeerStatus(peer) => peer_status(state, peer),
        Event::Discard => match state {
            State::Receiving | State::Accepted | State::Ready => discard(),
            _ => out_of_order(state),
        },
        Event::ForceTake => match state {
            State::Ready => Ok((
                State::Running,
                Action::new(Effect::Run, RecordType::Running),
            )),
            _ => out_of_order(state),
        },
    }
}

const fn discard() -> Result<(State, Action), Refused> {
    Ok((
        State::Discarded,
        Action::new(Effect::Free, RecordType::Abort),
    ))
}

const fn out_of_order(state: State) -> Result<(State, Action), Refused> {
    if state.has_ended() {
        Err(Refused::Ended)
    } else {
        Err(Refused::OutOfOrder)
    }
}

/// What the source says of itself. Only a receiver that waits has much to learn.
fn peer_status(state: State, peer: Option<source::State>) -> Result<(State, Action), Refused> {
    match (state, peer) {
        // It runs on there, and never commits this attempt: an end is an end.
        (State::Receiving | State::Accepted | State::Ready, Some(source::State::Aborted)) => {
            discard()
        }
        (State::Running, Some(source::State::Aborted)) => Err(Refused::Contradiction),
        (State::Ready, Some(source::State::Committed)) => next(state, Event::Take),
        (State::Ready, None) if rule!("handover-source-unknown") => Err(Refused::SourceUnknown),
        (State::Ready, None) => next(state, Event::Take),
        // Freed there without having run here: only force can have done that.
        (State::Receiving | State::Accepted | State::Ready, Some(source::State::Done)) => {
            Err(Refused::Contradiction)
        }
        (State::Running, Some(source::State::Committed)) => next(state, Event::Take),
        (State::Running, Some(source::State::Done)) => next(state, Event::Confirm),
        // Everything else is a source that has not committed, or a late word.
        _ => Ok((state, Action::NOTHING)),
    }
}

/// The event that a message from the source asks for; `None` where it asks for
/// none (HELLO, QUERY) or is not the source's to send.
#[must_use]
pub const fn event_for(message: &Message<'_>) -> Option<Event> {
    match message.body {
        Body::Commit => Some(Event::Take),
        Body::Done => Some(Event::Confirm),
        Body::Abort(_) => Some(Event::PeerStatus(Some(source::State::Aborted))),
        Body::Status {
            status: Status::Receiver(_),
            ..
        } => None,
        Body::Status { status, .. } => Some(Event::PeerStatus(status.of_source())),
        Body::Hello { .. }
        | Body::Accept
        | Body::Refuse(_)
        | Body::Ready
        | Body::Running
        | Body::Query => None,
    }
}
