//! `send`: a domain goes out. Before COMMIT every failure means that it stays.

use super::pages;
use super::settle::{react, settle};
use super::{Patience, detached, peer_gave_up, silence, status, step, tell};
use crate::error::{Code, Error};
use crate::hypervisor::Hypervisor;
use crate::link::{MILLISECOND_NS, SECOND_NS, Wire};
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use migration_abi::blob::{self, latest};
use migration_abi::handover::{Body, Role, Status, source::State};
use migration_abi::stream::records::{MAX_OUTPUT_BYTES, RegistersRecord, XstateRecord};
use migration_abi::stream::{Console, Domain, End, Leaves, MigrationId, PolicyLeaf, StreamHeader};
use xferry_abi::info::{DomainInfo, state};
use xferry_abi::{DomainId, Errno, RightAction};

const HELLO_AGAIN_NS: u64 = 100 * MILLISECOND_NS;

/// What a move took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Bytes of the whole stream.
    pub stream_bytes: u64,
    /// Bytes of the vCPUs' extended-state blobs together.
    pub blob_bytes: u64,
    /// Pages with content.
    pub data_pages: u64,
    /// Pages of zeros.
    pub zero_pages: u64,
    /// How long the guest stood still, as far as it can be seen from here.
    pub pause_ns: u64,
}

/// What is to be moved.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// The domain.
    pub domain: DomainId,
    /// Names the attempt.
    pub id: MigrationId,
    /// This host's.
    pub boot_nonce: u64,
    /// How long the receiver is waited for.
    pub patience: Patience,
    /// Output of the domain that was read from its console and shown to nobody.
    pub unshown: &'a [u8],
}

/// Moves it.
///
/// # Errors
/// It was not moved, or this side does not know; the text says where the guest
/// is.
pub fn send(
    hypervisor: &mut dyn Hypervisor,
    wire: &mut Wire<'_>,
    plan: &Plan<'_>,
) -> Result<Sent, Error> {
    let info = hypervisor.domain_info(plan.domain)?;
    if matches!(info.state, state::SHUT_DOWN | state::CRASHED) {
        let text = "saw one that has ended, allowed one that runs, is paused or waits for memory";
        return Err(Error::new(Errno::EILSEQ, "domain-ended", text));
    }
    hello(hypervisor, wire, plan)?;

    let start = wire.now_ns();
    hypervisor.right(plan.domain, RightAction::SourceBegin, 0, plan.id.bytes())?;
    let mut sent = Sent::default();
    match stream(hypervisor, wire, plan, &info, &mut sent) {
        Ok(()) => {}
        Err(error) => return Err(abort(hypervisor, wire, plan, &error, &info)),
    }
    // The commit point: after this only the peer's word counts.
    if let Err(error) = step(hypervisor, wire, plan.id, RightAction::SourceRelease, 0) {
        match status(hypervisor, plan.id) {
            Ok(Status::Source(State::Committed)) => return Err(unconfirmed(&error)),
            _ => return Err(abort(hypervisor, wire, plan, &error, &info)),
        }
    }
    let ended = |status| matches!(status, Status::Source(state) if state.has_ended());
    match settle(
        hypervisor,
        wire,
        plan.id,
        plan.boot_nonce,
        plan.patience.silence_ns,
        ended,
    ) {
        Ok(Status::Source(State::Done)) => {}
        Ok(Status::Source(State::Aborted)) => {
            let text = "the receiver dropped the domain after COMMIT, before it ran there; it runs on here";
            return Err(Error::new(Code::EPROTO, "peer-aborted", text));
        }
        Ok(_) => return Err(unconfirmed(&silence("RUNNING", plan.patience.silence_ns))),
        Err(error) => return Err(unconfirmed(&error)),
    }
    sent.pause_ns = wire.now_ns().saturating_sub(start);
    sent.stream_bytes = wire.sent_bytes();
    Ok(sent)
}

/// Says HELLO until the peer does. What else comes is answered: the peer may
/// have an older move to settle first.
fn hello(
    hypervisor: &mut dyn Hypervisor,
    wire: &mut Wire<'_>,
    plan: &Plan<'_>,
) -> Result<(), Error> {
    let deadline = wire.now_ns().saturating_add(plan.patience.hello_ns);
    loop {
        wire.connect(plan.id);
        wire.say(
            plan.id,
            Body::Hello {
                role: Role::Source,
                boot_nonce: plan.boot_nonce,
            },
        )?;
        let again = wire.now_ns().saturating_add(HELLO_AGAIN_NS);
        while let Some(message) = wire.message(again)?.map(|m| detached(&m)) {
            let ours = message.migration_id == plan.id;
            match message.body {
                Body::Hello {
                    role: Role::Receiver,
                    ..
                } if ours => return Ok(()),
                Body::Hello {
                    role: Role::Source, ..
                } => {
                    let text = "the other host is sending too; one of them has to receive";
                    return Err(Error::new(Code::EPROTO, "peer-role", text));
                }
                Body::Hello { .. } => {}
                _ => drop(react(hypervisor, wire, &message, plan.boot_nonce)),
            }
        }
        if wire.now_ns() >= deadline {
            let text = alloc::format!(
                "nobody answered on COM2 for {} s (is `receive` running there?); nothing was changed here",
                plan.patience.hello_ns / SECOND_NS
            );
            return Err(Error::new(Code::ETIMEDOUT, "link-silent", text));
        }
    }
}

/// Sends all of the domain and waits for READY.
fn stream(
    hypervisor: &mut dyn Hypervisor,
    wire: &mut Wire<'_>,
    plan: &Plan<'_>,
    info: &DomainInfo,
    sent: &mut Sent,
) -> Result<(), Error> {
    let header = StreamHeader {
        migration_id: plan.id,
        boot_nonce: plan.boot_nonce,
    };
    wire.send(|writer, out| header.write(writer, out))?;
    domain_record(hypervisor, wire, plan.domain, info)?;
    await_answer(
        hypervisor,
        wire,
        plan,
        Body::Accept,
        RightAction::SourceAccept,
    )?;

    pages::memory(hypervisor, wire, plan, info.memory_pages, sent)?;
    console(hypervisor, wire, plan)?;
    for vcpu in 0..info.vcpus {
        let registers = hypervisor.registers(plan.domain, vcpu)?;
        let record = RegistersRecord { vcpu, registers };
        wire.send(|writer, out| record.write(writer, out))?;
        let blob = with_checksum(&hypervisor.xstate(plan.domain, vcpu)?)?;
        wire.send(|writer, out| XstateRecord::write(writer, out, vcpu, &blob))?;
        sent.blob_bytes = sent.blob_bytes.saturating_add(blob.len() as u64);
    }
    let end = End {
        data_pages: sent.data_pages,
        zero_pages: sent.zero_pages,
        vcpus: info.vcpus,
        reserved: 0,
    };
    wire.send(|writer, out| end.write(writer, out))?;
    await_answer(
        hypervisor,
        wire,
        plan,
        Body::Ready,
        RightAction::SourceReady,
    )
}

fn domain_record(
    hypervisor: &mut dyn Hypervisor,
    wire: &mut Wire<'_>,
    domain: DomainId,
    info: &DomainInfo,
) -> Result<(), Error> {
    // Asked again: the guest stands now, and has seen no later time than this.
    let clock_ns = hypervisor.domain_info(domain)?.clock_ns;
    let policy = hypervisor.policy(domain)?;
    let leaves: Vec<PolicyLeaf> = policy
        .leaves
        .iter()
        .map(|leaf| zerocopy::transmute!(*leaf))
        .collect();
    let record = Domain {
        uuid: info.uuid,
        name: info.name,
        memory_pages: info.memory_pages,
        clock_ns,
        xstate_deferred: policy.deferred,
        vcpus: info.vcpus,
        tsc_khz: hypervisor.physical_info()?.tsc_khz,
        paused: info.state == state::PAUSED,
        leaves: Leaves::new(&leaves),
    };
    wire.send(|writer, out| record.write(writer, out))
}

/// Sends the console, with what this toolstack holds of its output in front.
fn console(
    hypervisor: &mut dyn Hypervisor,
    wire: &mut Wire<'_>,
    plan: &Plan<'_>,
) -> Result<(), Error> {
    let payload = hypervisor.console(plan.domain)?;
    let console = Console::parse(&payload)?;
    let mut output = Vec::from(plan.unshown);
    output.extend_from_slice(console.output);
    let surplus = output.len().saturating_sub(MAX_OUTPUT_BYTES as usize);
    output.drain(..surplus);
    let record = Console {
        output: &output,
        ..console
    };
    wire.send(|writer, out| record.write(writer, out))
}

/// The blob with its CRC trailer, which files and the stream have.
///
/// # Errors
/// It is no blob.
pub fn with_checksum(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let blob = blob::parse(bytes)?;
    let fields = latest::Fields {
        crc: true,
        ..latest::Fields::of(&blob)
    };
    let mut out = vec![0; bytes.len().saturating_add(latest::CRC_BYTES)];
    let length = latest::encode(&mut out, &fields, blob.directory().iter(), blob.image())?;
    out.truncate(length);
    Ok(out)
}

/// Waits for ACCEPT or READY and reports it.
fn await_answer(
    hypervisor: &mut dyn Hypervisor,
    wire: &mut Wire<'_>,
    plan: &Plan<'_>,
    answer: Body<'static>,
    action: RightAction,
) -> Result<(), Error> {
    let deadline = wire.now_ns().saturating_add(plan.patience.silence_ns);
    while !refusals(hypervisor, wire, plan, deadline)?.is_some_and(|body| body == answer) {
        if wire.now_ns() >= deadline {
            let due = if answer == Body::Accept {
                "ACCEPT"
            } else {
                "READY"
            };
            return Err(silence(due, plan.patience.silence_ns));
        }
    }
    step(hypervisor, wire, plan.id, action, 0).map(drop)
}

/// Looks at what the receiver says, until one message of this move came or the
/// deadline. Its refusal is an error; what it says of other moves is settled.
pub fn refusals(
    hypervisor: &mut dyn Hypervisor,
    wire: &mut Wire<'_>,
    plan: &Plan<'_>,
    deadline_ns: u64,
) -> Result<Option<Body<'static>>, Error> {
    loop {
        let Some(message) = wire.message(deadline_ns)? else {
            return Ok(None);
        };
        let ours = message.migration_id == plan.id;
        if let (true, Body::Refuse(reason) | Body::Abort(reason)) = (ours, &message.body) {
            return Err(peer_gave_up(reason));
        }
        let message = detached(&message);
        match message.body {
            Body::Accept | Body::Ready if ours => return Ok(Some(message.body)),
            // A second answer to a HELLO that was said twice.
            Body::Hello { .. } => {}
            _ => drop(react(hypervisor, wire, &message, plan.boot_nonce)),
        }
    }
}

/// Ends the attempt before COMMIT: the guest stays and is what it was.
fn abort(
    hypervisor: &mut dyn Hypervisor,
    wire: &mut Wire<'_>,
    plan: &Plan<'_>,
    error: &Error,
    info: &DomainInfo,
) -> Error {
    let mut text = String::new();
    match hypervisor.right(plan.domain, RightAction::SourceAbort, 0, plan.id.bytes()) {
        Ok(_) => {
            tell(wire, plan.id, error, &mut text, Body::Abort);
            let stays = match info.state {
                state::PAUSED => "it stays here, paused as it was",
                _ => "it runs on here",
            };
            error.clone().and(stays)
        }
        Err(refused) => error
            .clone()
            .and(&alloc::format!("giving up failed: {refused}")),
    }
}

/// The right was given up, and the receiver has not said that it runs.
fn unconfirmed(error: &Error) -> Error {
    let words = "the right to run was given up and the other side has not confirmed; a stopped copy \
                 is kept here, and `reconnect` on both sides settles it";
    error.clone().and(words)
}
