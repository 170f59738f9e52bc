//! Moving domains: what both sides of a move have in common.
//!
//! ```text
//!  source                                receiver
//!  HELLO ───────────────────────────────▶
//!        ◀─────────────────────────────── HELLO
//!  Begin, HEADER, DOMAIN ───────────────▶ policy checked, domain made, Accept
//!        ◀─────────────────────────────── ACCEPT
//!  PAGES … END ─────────────────────────▶ built, Ready
//!        ◀─────────────────────────────── READY
//!  Release, COMMIT ─────────────────────▶ Take: it runs
//!        ◀─────────────────────────────── RUNNING
//!  Confirm, DONE ───────────────────────▶ Confirm
//! ```
//!
//! Capitalised words are messages; the others are steps of the hypervisor's own
//! state machine, made by control calls before the message that tells of them.

mod pages;
pub mod receiver;
pub mod settle;
pub mod source;

use crate::error::{Code, Error};
use crate::hypervisor::Hypervisor;
use crate::link::{SECOND_NS, Wire};
use alloc::string::String;
use migration_abi::handover::message::MAX_TEXT_BYTES;
use migration_abi::handover::{Body, Message, Reason, Status};
use migration_abi::stream::{MigrationId, RecordType};
use xferry_abi::RightAnswer;
use xferry_abi::{DomainId, RightAction};

/// How long the other side is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Until its HELLO.
    pub hello_ns: u64,
    /// In the middle of a move, from the last byte.
    pub silence_ns: u64,
}

impl Patience {
    /// As long for everything as the user said, or else so long for HELLO.
    #[must_use]
    pub const fn new(timeout_s: Option<u64>, hello_s: u64) -> Self {
        const SILENCE_S: u64 = 5;
        let (hello_s, silence_s) = match timeout_s {
            Some(seconds) => (seconds, seconds),
            None => (hello_s, SILENCE_S),
        };
        Self {
            hello_ns: hello_s.saturating_mul(SECOND_NS),
            silence_ns: silence_s.saturating_mul(SECOND_NS),
        }
    }
}

/// The hypervisor's word on a migration.
///
/// # Errors
/// It gave none that this toolstack knows.
pub fn status(hypervisor: &mut dyn Hypervisor, id: MigrationId) -> Result<Status, Error> {
    let answer = hypervisor.right(DomainId::TOOLSTACK, RightAction::Query, 0, id.bytes())?;
    known(RightAnswer::decode(answer).status)
}

fn known(code: u32) -> Result<Status, Error> {
    Status::from_code(code).ok_or_else(|| {
        Error::rule(
            "migration-status",
            code,
            "a status of this interface version",
        )
    })
}

/// Reports an event to the hypervisor and tells the peer what it is owed then.
///
/// # Errors
/// The hypervisor refused, and nothing was changed; or the link failed, and the
/// step was made all the same.
pub fn step(
    hypervisor: &mut dyn Hypervisor,
    wire: &mut Wire<'_>,
    id: MigrationId,
    action: RightAction,
    peer: u32,
) -> Result<Status, Error> {
    let answer = hypervisor.right(DomainId::TOOLSTACK, action, peer, id.bytes())?;
    let answer = RightAnswer::decode(answer);
    if let Some(body) = owed(answer.say) {
        wire.say(id, body)?;
    }
    known(answer.status)
}

/// The message of a record type, as far as a step can owe one.
fn owed(say: u16) -> Option<Body<'static>> {
    const NO_REASON: Reason<'static> = Reason {
        errno: 0,
        reason: 0,
        text: "",
    };
    Some(match RecordType::from_code(say)? {
        RecordType::Accept => Body::Accept,
        RecordType::Ready => Body::Ready,
        RecordType::Commit => Body::Commit,
        RecordType::Running => Body::Running,
        RecordType::Done => Body::Done,
        RecordType::Abort => Body::Abort(NO_REASON),
        _ => return None,
    })
}

/// A message without its text, so that it does not hold on to the wire.
#[must_use]
pub fn detached(message: &Message<'_>) -> Message<'static> {
    let bare = |reason: &Reason<'_>| Reason {
        errno: reason.errno,
        reason: reason.reason,
        text: "",
    };
    let body = match &message.body {
        Body::Refuse(reason) => Body::Refuse(bare(reason)),
        Body::Abort(reason) => Body::Abort(bare(reason)),
        Body::Hello { role, boot_nonce } => Body::Hello {
            role: *role,
            boot_nonce: *boot_nonce,
        },
        Body::Status { status, boot_nonce } => Body::Status {
            status: *status,
            boot_nonce: *boot_nonce,
        },
        Body::Accept => Body::Accept,
        Body::Ready => Body::Ready,
        Body::Commit => Body::Commit,
        Body::Running => Body::Running,
        Body::Done => Body::Done,
        Body::Query => Body::Query,
    };
    Message {
        migration_id: message.migration_id,
        body,
    }
}

/// Why the peer gave up, as an error of this side's.
#[must_use]
pub fn peer_gave_up(reason: &Reason<'_>) -> Error {
    if reason.errno == 0 && reason.text.is_empty() {
        return Error::new(
            Code::EPROTO,
            "peer-aborted",
            "the other side gave this attempt up",
        );
    }
    Error::refused(reason.errno, reason.reason, reason.text)
}

/// Tells the peer that this side gives up, and why; as well as the link allows.
fn tell<'t>(
    wire: &mut Wire<'_>,
    id: MigrationId,
    error: &Error,
    text: &'t mut String,
    body: impl FnOnce(Reason<'t>) -> Body<'t>,
) {
    *text = alloc::format!("{}: {}", error.reason, error.text);
    let mut end = text.len().min(MAX_TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let reason = Reason {
        errno: error.code.0,
        reason: error.reason_code,
        text: text.get(..end).unwrap_or_default(),
    };
    // The peer finds out by itself where this does not reach it.
    let _ = wire.say(id, body(reason));
}

/// Nothing came for too long.
fn silence(waited_for: &str, silence_ns: u64) -> Error {
    let seconds = silence_ns / SECOND_NS;
    let text = alloc::format!("waited {seconds} s for {waited_for}, and nothing came");
    Error::new(Code::ETIMEDOUT, "link-silent", text)
}

#[cfg(test)]
mod tests;
