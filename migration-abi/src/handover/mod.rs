//! Who may run the domain: the right to run moves from source to receiver at
//! one point, and no failure of a link or a toolstack doubles or loses it.
//!
//! # Invariants
//!
//! `tests/handover_edges.rs` drives every edge; `tests/handover_search/`
//! searches source × receiver × everything that can be on a wire that loses,
//! repeats, delays and re-orders.
//!
//! 1. **Never two runners.** At no time do both sides run the domain.
//! 2. **Never lost.** At all times one side has the domain whole; the source's
//!    copy is freed only when the receiver has said that it runs.
//! 3. **One commit point.** Before [`source::Event::Release`] every failure
//!    means that the source runs on; after it, that the receiver runs or waits.
//! 4. **Silence wakes nobody.** A peer that does not know the migration id
//!    (it crashed, or it is another machine) never makes the source run again.
//! 5. **READY binds.** A receiver that said READY can no longer drop the domain
//!    of its own will: the source may have committed meanwhile.
//! 6. **Ends are ends.** Done, Aborted and Discarded are left by no event. Each
//!    stays as a tombstone under its migration id, and an id that has one is
//!    never begun again; so a late question has an answer that stays true.
//! 7. **Act, then say.** A transition is made by the hypervisor before its
//!    message leaves: what is on the wire has happened.
//! 8. **It settles.** From every state, once the link works again, asking
//!    ([`Lost`]) leads to one runner, unless a machine died.
//!
//! # Who does what
//!
//! The hypervisor owns the states and calls [`source::next`] and
//! [`receiver::next`] on each privileged call; it carries out the [`Effect`].
//! The toolstack carries messages: [`source::event_for`] and
//! [`receiver::event_for`] say which call a message asks for, [`Action::say`]
//! which message a call that succeeded owes the peer. Neither decides.
//!
//! Only an operator may go beyond: [`source::Event::Reclaim`] and
//! [`receiver::Event::ForceTake`] are for a peer that is dead for ever, and
//! void invariant 1 if it is not.

pub mod message;
pub mod receiver;
pub mod source;
mod tombstones;

pub use message::{Body, HANDOVER_VERSION, MAX_TEXT_BYTES, Message, Reason, Role};
pub use tombstones::Tombstones;

use crate::stream::RecordType;

/// What the hypervisor does with the domain when a transition is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Nothing.
    None,
    /// Source: the domain is paused, and stays so until the handover ends.
    Pause,
    /// The domain runs, here.
    Run,
    /// Receiver: the domain is complete; nothing may alter it from here on.
    Freeze,
    /// The copy here is freed; the migration id stays, as a tombstone.
    Free,
}

/// What a transition asks for: first the effect, then the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Action {
    /// What the hypervisor does.
    pub effect: Effect,
    /// What the toolstack then tells the peer, as well as the link allows.
    pub say: Option<RecordType>,
}

impl Action {
    /// Nothing to do.
    pub const NOTHING: Self = Self {
        effect: Effect::None,
        say: None,
    };

    const fn new(effect: Effect, say: RecordType) -> Self {
        Self {
            effect,
            say: Some(say),
        }
    }
}

/// What a side does when its link was lost, once there is one again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// Give up this attempt: the event Abort.
    Abort,
    /// Send QUERY, and take the STATUS as the event `PeerStatus`.
    Query,
    /// Send this message again.
    Repeat(RecordType),
    /// Nothing: this side has ended.
    Nothing,
}

/// What a side knows of a migration id: the answer to QUERY.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// Nothing.
    Unknown,
    /// It is the source, in this state.
    Source(source::State),
    /// It is the receiver, in this state.
    Receiver(receiver::State),
}

impl Status {
    /// Its number on the wire and in a hypercall, stable.
    #[must_use]
    pub const fn code(self) -> u32 {
        match self {
            Self::Unknown => 0,
            Self::Source(state) => 0x100 | state.code(),
            Self::Receiver(state) => 0x200 | state.code(),
        }
    }

    /// The status with this number.
    #[must_use]
    pub const fn from_code(code: u32) -> Option<Self> {
        match (code >> 8, code & 0xff) {
            (0, 0) => Some(Self::Unknown),
            (1, state) => match source::State::from_code(state) {
                Some(state) => Some(Self::Source(state)),
                None => None,
            },
            (2, state) => match receiver::State::from_code(state) {
                Some(state) => Some(Self::Receiver(state)),
                None => None,
            },
            _ => None,
        }
    }

    /// As an event of the source's: what the receiver says of itself.
    #[must_use]
    pub const fn of_receiver(self) -> Option<receiver::State> {
        match self {
            Self::Receiver(state) => Some(state),
            Self::Unknown | Self::Source(_) => None,
        }
    }

    /// As an event of the receiver's: what the source says of itself.
    #[must_use]
    pub const fn of_source(self) -> Option<source::State> {
        match self {
            Self::Source(state) => Some(state),
            Self::Unknown | Self::Receiver(_) => None,
        }
    }
}

impl core::fmt::Display for Status {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Unknown => f.write_str("unknown"),
            Self::Source(state) => write!(f, "source {}", state.name()),
            Self::Receiver(state) => write!(f, "receiver {}", state.name()),
        }
    }
}

/// Why an event changed nothing. Codes and names are stable, and the text holds
/// the words for the operator where only one can decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Refused {
    /// The event has no place in this state.
    OutOfOrder = 0x0701,
    /// Source: the right to run was given up.
    RightGivenUp = 0x0702,
    /// Source: the receiver does not know this migration.
    ReceiverUnknown = 0x0703,
    /// Receiver: READY was said.
    ReadyWasSaid = 0x0704,
    /// Receiver: the source does not know this migration.
    SourceUnknown = 0x0705,
    /// This migration has ended on this side.
    Ended = 0x0706,
    /// What the peer says cannot be.
    Contradiction = 0x0707,
}

impl Refused {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::OutOfOrder,
        Self::RightGivenUp,
        Self::ReceiverUnknown,
        Self::ReadyWasSaid,
        Self::SourceUnknown,
        Self::Ended,
        Self::Contradiction,
    ];

    /// Stable number.
    #[must_use]
    pub const fn code(self) -> u32 {
        self as u32
    }

    /// The refusal with this number.
    #[must_use]
    pub const fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            0x0701 => Self::OutOfOrder,
            0x0702 => Self::RightGivenUp,
            0x0703 => Self::ReceiverUnknown,
            0x0704 => Self::ReadyWasSaid,
            0x0705 => Self::SourceUnknown,
            0x0706 => Self::Ended,
            0x0707 => Self::Contradiction,
            _ => return None,
        })
    }

    /// Kebab-case name, stable.
    #[must_use]
    pub const fn rule(self) -> &'static str {
        match self {
            Self::OutOfOrder => "handover-out-of-order",
            Self::RightGivenUp => "handover-right-given-up",
            Self::ReceiverUnknown => "handover-receiver-unknown",
            Self::ReadyWasSaid => "handover-ready-was-said",
            Self::SourceUnknown => "handover-source-unknown",
            Self::Ended => "handover-ended",
            Self::Contradiction => "handover-contradiction",
        }
    }

    /// What happened, and what can be done.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::OutOfOrder => "this step is not due in this state; nothing was changed",
            Self::RightGivenUp => {
                "this side gave up the right to run with COMMIT and keeps a paused copy: reconnect and ask the \
                 receiver; if it is dead for ever, and only then, an operator may reclaim the copy"
            }
            Self::ReceiverUnknown => {
                "the receiver does not know this migration (it lost its memory, or is another machine), which is no \
                 proof that the domain runs nowhere: make sure that the receiver is dead for ever, then reclaim the \
                 paused copy here"
            }
            Self::ReadyWasSaid => {
                "this side said READY, so the source may have given up the right to run: reconnect and ask the \
                 source; an operator may discard the domain here, and the source runs on when it is told"
            }
            Self::SourceUnknown => {
                "the source does not know this migration (it lost its memory, or is another machine), which is no \
                 proof that the domain runs nowhere: discard the domain here if the source runs it, or make sure \
                 that the source is dead for ever, then force it to run here"
            }
            Self::Ended => "this migration has ended here; what became of it is in its status",
            Self::Contradiction => {
                "the peer claims a state that it cannot be in: nothing was changed; an operator forced a side to \
                 run, or one side speaks of another domain under the same migration id"
            }
        }
    }
}

impl core::fmt::Display for Refused {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}: {}", self.rule(), self.text())
    }
}

impl core::error::Error for Refused {}
