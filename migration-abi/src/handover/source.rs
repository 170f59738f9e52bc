//! The source's side: holds the right to run until it says COMMIT.

use super::message::{Body, Message};
use super::{Action, Effect, Lost, Refused, receiver};
use crate::mutants::rule;
use crate::stream::RecordType;

/// Where the source stands with one migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum State {
    /// The domain runs; no migration has begun.
    Running = 1,
    /// Paused; HEADER and DOMAIN go out. The right is here.
    Sending = 2,
    /// Paused; the receiver can take the domain, pages go out. The right is here.
    Accepted = 3,
    /// Paused; the receiver said READY. The right is still here.
    Offered = 4,
    /// The right was given up. A paused copy is kept.
    Committed = 5,
    /// The receiver runs; the copy is freed. Tombstone.
    Done = 6,
    /// The attempt is over and the domain runs on here. Tombstone.
    Aborted = 7,
}

/// What happens to the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// A migration begins, under an id that no side has seen.
    Begin,
    /// ACCEPT came.
    Accept,
    /// READY came.
    Ready,
    /// Give up the right: the commit point.
    Release,
    /// RUNNING came.
    Confirm,
    /// The attempt failed (the link, the toolstack, the operator, the receiver's REFUSE or ABORT).
    Abort,
    /// STATUS came: the receiver's state by its hypervisor's word, `None` = unknown id.
    PeerStatus(Option<receiver::State>),
    /// An operator vouches that the receiver is dead for ever.
    Reclaim,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Running,
        Self::Sending,
        Self::Accepted,
        Self::Offered,
        Self::Committed,
        Self::Done,
        Self::Aborted,
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
            1 => Self::Running,
            2 => Self::Sending,
            3 => Self::Accepted,
            4 => Self::Offered,
            5 => Self::Committed,
            6 => Self::Done,
            7 => Self::Aborted,
            _ => return None,
        })
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Sending => "sending",
            Self::Accepted => "accepted",
            Self::Offered => "offered",
            Self::Committed => "committed",
            Self::Done => "done",
            Self::Aborted => "aborted",
        }
    }

    /// Whether the domain may execute here.
    #[must_use]
    pub const fn may_run(self) -> bool {
        matches!(self, Self::Running | Self::Aborted)
    }

    /// Whether the right to run is here, used or not.
    #[must_use]
    pub const fn holds_right(self) -> bool {
        !matches!(self, Self::Committed | Self::Done)
    }

    /// Whether the domain is here, whole.
    #[must_use]
    pub const fn has_copy(self) -> bool {
        !matches!(self, Self::Done)
    }

    /// Whether the domain may be destroyed by whoever may destroy domains.
    /// Between Begin and Release: abort first. Committed: nobody but an
    /// operator, by [`Event::Reclaim`].
    #[must_use]
    pub const fn may_destroy(self) -> bool {
        self.may_run()
    }

    /// Whether only the tombstone is left of this migration.
    #[must_use]
    pub const fn has_ended(self) -> bool {
        matches!(self, Self::Done | Self::Aborted)
    }

    /// What to do when the link was lost.
    #[must_use]
    pub const fn when_link_lost(self) -> Lost {
        match self {
            Self::Sending | Self::Accepted | Self::Offered => Lost::Abort,
            Self::Committed => Lost::Query,
            Self::Running | Self::Done | Self::Aborted => Lost::Nothing,
        }
    }
}

/// The machine: the state after `event`, and what is to be done; or why nothing was changed.
pub fn next(state: State, event: Event) -> Result<(State, Action), Refused> {
    match event {
        Event::Begin => match state {
            State::Running => Ok((
                State::Sending,
                Action {
                    effect: Effect::Pause,
                    say: None,
                },
            )),
            State::Done | State::Aborted if rule!("handover-ended") => Err(Refused::Ended),
            State::Done | State::Aborted => Ok((State::Sending, Action::NOTHING)),
            _ => Err(Refused::OutOfOrder),
        },
        Event::Accept => step(state, State::Sending, State::Accepted),
        Event::Ready => step(state, State::Accepted, State::Offered),
        // Giving up the right is the first half; COMMIT is said of what has
        // happened. Again: the COMMIT may have been lost.
        Event::Release => match state {
            State::Accepted if !rule!("handover-commit-point") => {
                Ok((State::Committed, Action::NOTHING))
            }
            State::Offered | State::Committed => Ok((
                State::Committed,
                Action::new(Effect::None, RecordType::Commit),
            )),
            State::Done | State::Aborted => Err(Refused::Ended),
            _ => Err(Refused::OutOfOrder),
        },
        Event::Confirm => confirm(state),
        // The whole difference that the commit point makes.
        Event::Abort => match state {
            State::Sending | State::Accepted | State::Offered => {
                Ok((State::Aborted, Action::new(Effect::Run, RecordType::Abort)))
            }
            State::Aborted => Ok((State::Aborted, Action::new(Effect::None, RecordType::Abort))),
            State::Committed if rule!("handover-right-given-up") => Err(Refused::RightGivenUp),
            State::Committed => Ok((State::Aborted, Action::new(Effect::Run, RecordType::Abort))),
            State::Done => Err(Refused::Ended),
            State::Running => Err(Refused::OutOfOrder),
        },
        Event::PeerStatus(peer) => peer_status(state, peer),
        Event::Reclaim => match state {
            State::Committed => Ok((State::Aborted, Action::new(Effect::Run, RecordType::Abort))),
            State::Done | State::Aborted => Err(Refused::Ended),
            _ => Err(Refused::OutOfOrder),
        },
    }
}

/// A step that is due in one state alone.
fn step(state: State, from: State, to: State) -> Result<(State, Action), Refused> {
    if !rule!("handover-out-of-order") || state.code() == from.code() {
        Ok((to, Action::NOTHING))
    } else if state.has_ended() {
        Err(Refused::Ended)
    } else {
        Err(Refused::OutOfOrder)
    }
}

/// The receiver runs. Again: the DONE may have been lost.
fn confirm(state: State) -> Result<(State, Action), Refused> {
    match state {
        State::Committed => Ok((State::Done, Action::new(Effect::Free, RecordType::Done))),
        State::Done => Ok((State::Done, Action::new(Effect::None, RecordType::Done))),
        _ if rule!("handover-contradiction") => Err(Refused::Contradiction),
        _ => Ok((State::Done, Action::NOTHING)),
    }
}

/// What the receiver says of itself, by its hypervisor's word. Only a committed
/// source has anything to learn: before, the right is here whatever is there.
fn peer_status(state: State, peer: Option<receiver::State>) -> Result<(State, Action), Refused> {
    match (state, peer) {
        (_, Some(receiver::State::Running | receiver::State::Done)) => confirm(state),
        (State::Committed, Some(receiver::State::Ready)) => next(state, Event::Release),
        // Discarded is an end: it will never run there, so it may run here.
        (State::Committed, Some(receiver::State::Discarded)) => {
            Ok((State::Aborted, Action::new(Effect::Run, RecordType::Abort)))
        }
        (State::Committed, None) if rule!("handover-receiver-unknown") => {
            Err(Refused::ReceiverUnknown)
        }
        (State::Committed, None) => {
            Ok((State::Aborted, Action::new(Effect::Run, RecordType::Abort)))
        }
        // It said READY before we committed, and cannot have gone back. A late
        // STATUS from before then looks the same, and is as worthless.
        (State::Committed, Some(receiver::State::Receiving | receiver::State::Accepted)) => {
            Err(Refused::Contradiction)
        }
        (State::Sending | State::Accepted | State::Offered, Some(receiver::State::Discarded)) => {
            next(state, Event::Abort)
        }
        // Aborted, and it waits: it has not heard.
        (
            State::Aborted,
            Some(receiver::State::Receiving | receiver::State::Accepted | receiver::State::Ready),
        ) => next(state, Event::Abort),
        (State::Done, Some(_)) => Err(Refused::Contradiction),
        _ => Ok((state, Action::NOTHING)),
    }
}

/// The event that a message from the receiver asks for; `None` where it asks
/// for none (HELLO, QUERY) or is not the receiver's to send.
#[must_use]
pub const fn event_for(message: &Message<'_>) -> Option<Event> {
    match message.body {
        Body::Accept => Some(Event::Accept),
        Body::Ready => Some(Event::Ready),
        Body::Running => Some(Event::Confirm),
        // Not as good as a STATUS: a receiver that never got to begin refuses
        // too, so this wakes nobody after the commit point.
        Body::Refuse(_) | Body::Abort(_) => Some(Event::Abort),
        Body::Status {
            status: super::Status::Source(_),
            ..
        } => None,
        Body::Status { status, .. } => Some(Event::PeerStatus(status.of_receiver())),
        Body::Hello { .. } | Body::Commit | Body::Done | Body::Query => None,
    }
}
