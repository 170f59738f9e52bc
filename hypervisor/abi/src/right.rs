//! The right to run: the events of a handover that the toolstack reports, and what
//! the hypervisor answers.

macro_rules! right_actions {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// An event of the handover, as `migration_abi::handover` has them: the
        /// toolstack reports it, the hypervisor steps its state machine and does
        /// what that asks for. The migration's id (16 bytes) is in the request's
        /// buffer.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u64)]
        pub enum RightAction { $($(#[$doc])* $name = $number,)* }

        impl RightAction {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The action with this number.
            #[must_use]
            pub const fn from_number(number: u64) -> Option<Self> {
                Some(match number { $($number => Self::$name,)* _ => return None })
            }
        }
    };
}

right_actions! {
    /// What is known of the migration. Changes nothing; returns its status code.
    Query = 0,
    /// Source: a migration of `domain` begins, under an id that is new.
    SourceBegin = 0x101,
    /// Source: ACCEPT came.
    SourceAccept = 0x102,
    /// Source: READY came.
    SourceReady = 0x103,
    /// Source: give up the right to run; COMMIT may be said when this returned.
    SourceRelease = 0x104,
    /// Source: RUNNING came; the paused copy is freed.
    SourceConfirm = 0x105,
    /// Source: the attempt failed.
    SourceAbort = 0x106,
    /// Source: STATUS came, in `peer`.
    SourcePeerStatus = 0x107,
    /// Source: an operator vouches that the receiver is dead for ever.
    SourceReclaim = 0x108,
    /// Receiver: HEADER and DOMAIN were checked against this host.
    ReceiverAccept = 0x201,
    /// Receiver: the domain is whole; nothing alters it from here on.
    ReceiverReady = 0x202,
    /// Receiver: COMMIT came; the right is taken and the domain runs.
    ReceiverTake = 0x203,
    /// Receiver: DONE came.
    ReceiverConfirm = 0x204,
    /// Receiver: the attempt failed.
    ReceiverAbort = 0x206,
    /// Receiver: STATUS or ABORT came, in `peer`.
    ReceiverPeerStatus = 0x207,
    /// Receiver: an operator drops a domain that waits.
    ReceiverDiscard = 0x208,
    /// Receiver: an operator vouches that the source is dead for ever.
    ReceiverForceTake = 0x209,
}

/// What [`Request::Right`] returns: the migration's status after the action, and
/// the message that the peer is now owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RightAnswer {
    /// `migration_abi::handover::Status`, by its code.
    pub status: u32,
    /// The record type of the message to send, 0 for none.
    pub say: u16,
}

impl RightAnswer {
    /// The form in which it is returned.
    #[must_use]
    pub const fn encode(self) -> u64 {
        (self.say as u64) << 32 | self.status as u64
    }

    /// The answer that was returned.
    #[must_use]
    pub const fn decode(value: u64) -> Self {
        Self {
            status: value as u32,
            say: (value >> 32) as u16,
        }
    }
}
