//! The handover's messages: ten records of the stream's frames, with a version of their own.

use core::mem::{offset_of, size_of};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Status;
use crate::error::{Allowed, ParseError, Rule};
use crate::mutants::rule;
use crate::stream::{MigrationId, RecordType, StreamError};

/// Version of the messages, independent of the stream's.
pub const HANDOVER_VERSION: u16 = 1;
/// Longest text of REFUSE and ABORT in bytes.
pub const MAX_TEXT_BYTES: usize = 512;

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Role {
    /// The side that has the domain.
    Source = 1,
    /// The side that is to have it.
    Receiver = 2,
}

/// Why a side gives up, for the peer's log and its operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason<'a> {
    /// Errno of the hypercall that failed, 0 for none.
    pub errno: u32,
    /// Code of the rule that was broken, 0 for none.
    pub reason: u32,
    /// What it says; at most [`MAX_TEXT_BYTES`], no control characters.
    pub text: &'a str,
}

/// What a message says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body<'a> {
    /// Who speaks, and from which boot; first in each direction.
    Hello {
        /// The speaker's side.
        role: Role,
        /// The number that its hypervisor drew when it booted.
        boot_nonce: u64,
    },
    /// The receiver can take this domain.
    Accept,
    /// The receiver will not take it.
    Refuse(Reason<'a>),
    /// The receiver has built it.
    Ready,
    /// The source gave up the right to run.
    Commit,
    /// The receiver took it.
    Running,
    /// The source freed its copy.
    Done,
    /// The side that speaks gave up this attempt.
    Abort(Reason<'a>),
    /// What became of this migration?
    Query,
    /// This, by the hypervisor's word.
    Status {
        /// The speaker's state.
        status: Status,
        /// The number that its hypervisor drew when it booted: [`Status::Unknown`]
        /// from another boot than HELLO's means that it lost its memory.
        boot_nonce: u64,
    },
}

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// The migration that it speaks of.
    pub migration_id: MigrationId,
    /// What it says.
    pub body: Body<'a>,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Prefix {
    version: u16,
    reserved: u16,
    reserved2: u32,
    migration_id: [u8; 16],
}

/// HELLO's and STATUS's.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Speaker {
    code: u32,
    reserved: u32,
    boot_nonce: u64,
}

/// REFUSE's and ABORT's; the text follows.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct WireReason {
    errno: u32,
    reason: u32,
    text_len: u32,
    reserved: u32,
}

const PREFIX_BYTES: usize = 24;
const TAIL_BYTES: usize = 16;
const _: () = assert!(
    size_of::<Prefix>() == PREFIX_BYTES
        && size_of::<Speaker>() == TAIL_BYTES
        && size_of::<WireReason>() == TAIL_BYTES
);

impl<'a> Message<'a> {
    /// Its record's type.
    #[must_use]
    pub const fn record_type(&self) -> RecordType {
        match self.body {
            Body::Hello { .. } => RecordType::Hello,
            Body::Accept => RecordType::Accept,
            Body::Refuse(_) => RecordType::Refuse,
            Body::Ready => RecordType::Ready,
            Body::Commit => RecordType::Commit,
            Body::Running => RecordType::Running,
            Body::Done => RecordType::Done,
            Body::Abort(_) => RecordType::Abort,
            Body::Query => RecordType::Query,
            Body::Status { .. } => RecordType::Status,
        }
    }

    /// The migration that it speaks of.
    #[must_use]
    pub const fn migration_id(&self) -> MigrationId {
        self.migration_id
    }

    /// Reads the payload of a record of type `record`.
    pub fn parse(record: RecordType, payload: &'a [u8]) -> Result<Self, StreamError> {
        let Ok((prefix, rest)) = Prefix::read_from_prefix(payload) else {
            return Err(length(payload.len(), Allowed::AtLeast(PREFIX_BYTES as u64)));
        };
        if rule!("handover-version") && prefix.version != HANDOVER_VERSION {
            let (seen, allowed) = (
                u64::from(prefix.version),
                Allowed::Exactly(u64::from(HANDOVER_VERSION)),
            );
            return Err(ParseError::new(Rule::HandoverVersion, 0, seen, allowed));
        }
        zero(offset_of!(Prefix, reserved), u64::from(prefix.reserved))?;
        zero(offset_of!(Prefix, reserved2), u64::from(prefix.reserved2))?;
        let Some(migration_id) = MigrationId::new(prefix.migration_id) else {
            let allowed = Allowed::Words("any id but zero");
            return Err(ParseError::new(
                Rule::MigrationIdZero,
                offset_of!(Prefix, migration_id),
                0,
                allowed,
            ));
        };
        let body = match record {
            RecordType::Hello => hello(rest)?,
            RecordType::Status => status(rest)?,
            RecordType::Refuse => Body::Refuse(reason(rest)?),
            RecordType::Abort => Body::Abort(reason(rest)?),
            RecordType::Accept => bare(rest, Body::Accept)?,
            RecordType::Ready => bare(rest, Body::Ready)?,
            RecordType::Commit => bare(rest, Body::Commit)?,
            RecordType::Running => bare(rest, Body::Running)?,
            RecordType::Done => bare(rest, Body::Done)?,
            RecordType::Query => bare(rest, Body::Query)?,
            other if rule!("handover-type") => {
                let allowed = Allowed::Between(0x100, 0x109);
                return Err(ParseError::new(
                    Rule::HandoverType,
                    0,
                    u64::from(other.code()),
                    allowed,
                ));
            }
            _ => bare(rest, Body::Query)?,
        };
        Ok(Self { migration_id, body })
    }

    /// Length of the payload in bytes.
    #[must_use]
    pub const fn payload_len(&self) -> usize {
        PREFIX_BYTES
            + match self.body {
                Body::Hello { .. } | Body::Status { .. } => TAIL_BYTES,
                Body::Refuse(reason) | Body::Abort(reason) => TAIL_BYTES + reason.text.len(),
                _ => 0,
            }
    }

    /// Writes into a payload of exactly [`Message::payload_len`] bytes.
    pub(crate) fn fill(&self, payload: &mut [u8]) -> Result<(), StreamError> {
        let prefix = Prefix {
            version: HANDOVER_VERSION,
            reserved: 0,
            reserved2: 0,
            migration_id: *self.migration_id.bytes(),
        };
        let speaker = |code, boot_nonce| Speaker {
            code,
            reserved: 0,
            boot_nonce,
        };
        let fill = crate::stream::records::fill;
        match &self.body {
            Body::Hello { role, boot_nonce } => fill(
                payload,
                &[
                    prefix.as_bytes(),
                    speaker(*role as u32, *boot_nonce).as_bytes(),
                ],
            ),
            Body::Status { status, boot_nonce } => fill(
                payload,
                &[
                    prefix.as_bytes(),
                    speaker(status.code(), *boot_nonce).as_bytes(),
                ],
            ),
            Body::Refuse(reason) | Body::Abort(reason) => {
                let text_len = u32::try_from(reason.text.len()).unwrap_or(u32::MAX);
                let wire = WireReason {
                    errno: reason.errno,
                    reason: reason.reason,
                    text_len,
                    reserved: 0,
                };
                fill(
                    payload,
                    &[prefix.as_bytes(), wire.as_bytes(), reason.text.as_bytes()],
                )
            }
            Body::Accept
            | Body::Ready
            | Body::Commit
            | Body::Running
            | Body::Done
            | Body::Query => fill(payload, &[prefix.as_bytes()]),
        }
    }
}

fn speaker(rest: &[u8]) -> Result<Speaker, StreamError> {
    let wrong = || {
        length(
            rest.len() + PREFIX_BYTES,
            Allowed::Exactly((PREFIX_BYTES + TAIL_BYTES) as u64),
        )
    };
    let speaker = Speaker::read_from_bytes(rest).map_err(|_| wrong())?;
    zero(
        PREFIX_BYTES + offset_of!(Speaker, reserved),
        u64::from(speaker.reserved),
    )?;
    Ok(speaker)
}

fn hello<'a>(rest: &[u8]) -> Result<Body<'a>, StreamError> {
    let Speaker {
        code, boot_nonce, ..
    } = speaker(rest)?;
    let role = match code {
        1 => Role::Source,
        2 => Role::Receiver,
        other if rule!("handover-role") => {
            let allowed = Allowed::Between(1, 2);
            return Err(ParseError::new(
                Rule::HandoverRole,
                PREFIX_BYTES,
                u64::from(other),
                allowed,
            ));
        }
        _ => Role::Receiver,
    };
    Ok(Body::Hello { role, boot_nonce })
}

fn status<'a>(rest: &[u8]) -> Result<Body<'a>, StreamError> {
    let Speaker {
        code, boot_nonce, ..
    } = speaker(rest)?;
    let known = Status::from_code(code);
    let Some(status) = known.or((!rule!("handover-state")).then_some(Status::Unknown)) else {
        let allowed = Allowed::Words("0, 0x101 to 0x107, or 0x201 to 0x206");
        return Err(ParseError::new(
            Rule::HandoverState,
            PREFIX_BYTES,
            u64::from(code),
            allowed,
        ));
    };
    Ok(Body::Status { status, boot_nonce })
}

fn reason(rest: &[u8]) -> Result<Reason<'_>, StreamError> {
    let Ok((wire, text)) = WireReason::read_from_prefix(rest) else {
        let allowed = Allowed::AtLeast((PREFIX_BYTES + TAIL_BYTES) as u64);
        return Err(length(rest.len() + PREFIX_BYTES, allowed));
    };
    zero(
        PREFIX_BYTES + offset_of!(WireReason, reserved),
        u64::from(wire.reserved),
    )?;
    let refused = |seen: u64, allowed| {
        ParseError::new(Rule::HandoverText, PREFIX_BYTES + TAIL_BYTES, seen, allowed)
    };
    if rule!("handover-text") && text.len() > MAX_TEXT_BYTES {
        return Err(refused(
            text.len() as u64,
            Allowed::AtMost(MAX_TEXT_BYTES as u64),
        ));
    }
    if rule!("record-length") && u64::from(wire.text_len) != text.len() as u64 {
        let offset = PREFIX_BYTES + offset_of!(WireReason, text_len);
        let allowed = Allowed::Exactly(text.len() as u64);
        return Err(ParseError::new(
            Rule::RecordLength,
            offset,
            u64::from(wire.text_len),
            allowed,
        ));
    }
    let words = Allowed::Words("UTF-8 without control characters");
    let text =
        core::str::from_utf8(text).map_err(|error| refused(error.valid_up_to() as u64, words))?;
    // It ends on an operator's terminal.
    if let Some(control) = text.chars().find(|character| character.is_control())
        && rule!("handover-text")
    {
        return Err(refused(u64::from(u32::from(control)), words));
    }
    Ok(Reason {
        errno: wire.errno,
        reason: wire.reason,
        text,
    })
}

fn bare<'a>(rest: &[u8], body: Body<'a>) -> Result<Body<'a>, StreamError> {
    if !rule!("record-length") || rest.is_empty() {
        return Ok(body);
    }
    Err(length(
        rest.len() + PREFIX_BYTES,
        Allowed::Exactly(PREFIX_BYTES as u64),
    ))
}

fn zero(offset: usize, seen: u64) -> Result<(), StreamError> {
    if !rule!("record-reserved") || seen == 0 {
        return Ok(());
    }
    Err(ParseError::new(
        Rule::RecordReserved,
        offset,
        seen,
        Allowed::Exactly(0),
    ))
}

const fn length(seen: usize, allowed: Allowed) -> ParseError {
    ParseError::new(Rule::RecordLength, 0, seen as u64, allowed)
}
