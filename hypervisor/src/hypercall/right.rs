//! The right to run: the handover's events, their steps, and what they do to
//! the domain.

#[cfg(test)]
#[path = "right_tests.rs"]
mod tests;

use super::control::settle;
use super::create::remove;
use super::refusal::{Refusal, call};
use crate::domain::Domain;
use crate::domain::table::DOMAINS;
use crate::migrate::registry::{self, Event, REGISTRY};
use alloc::sync::Arc;
use migration_abi::handover::{Action, Effect, Status, receiver, source};
use migration_abi::stream::MigrationId;
use xferry_abi::{DomainId, Errno, Reason, RightAction, RightAnswer};

/// Serves [`xferry_abi::Request::Right`].
pub fn act(domain: DomainId, action: RightAction, peer: u64, id: [u8; 16]) -> Result<u64, Refusal> {
    let id = MigrationId::new(id)
        .ok_or_else(|| call::argument("migration id, which is zero", 0, u64::MAX))?;
    if action == RightAction::Query {
        return Ok(u64::from(REGISTRY.lock().status(id).code()));
    }
    let peer = status(peer)?;
    let event = event(action, peer);
    let mut registry = REGISTRY.lock();
    let begun = action == RightAction::SourceBegin;
    if begun {
        let target = movable(domain)?;
        if let Some(other) = registry.of_domain(target.id) {
            return Err(busy(other.status));
        }
        // It must not end between the look and the pause.
        target.status.set_may_run(false);
        settle(&target);
        let begun = if target.status.has_ended() {
            Err(ended(domain))
        } else {
            registry
                .begin(id, domain, Status::Source(source::State::Running))
                .map_err(|r| refused(&r))
        };
        if begun.is_err() {
            target.status.set_may_run(true);
        }
        begun?;
    }
    let step = registry.step(id, event);
    if step.is_err() && begun {
        registry.forget(id);
    }
    let (concerned, status, action) = step.map_err(|r| refused(&r))?;
    let freed = carry_out(concerned, status, action);
    drop(registry);
    // Its memory goes when no lock is held.
    if let Some(domain) = freed {
        remove(&domain);
    }
    Ok(answer(status, action))
}

/// An incoming domain will exist: the receiver's machine begins.
pub fn begin_receiving(domain: DomainId, id: MigrationId) -> Result<(), Refusal> {
    REGISTRY
        .lock()
        .begin(id, domain, Status::Receiver(receiver::State::INITIAL))
        .map_err(|r| refused(&r))
}

/// It could not be made after all.
pub fn forget_receiving(id: MigrationId) {
    REGISTRY.lock().forget(id);
}

/// What a domain's migration is, for its information.
pub fn of_domain(domain: DomainId) -> (u32, [u8; 16]) {
    match REGISTRY.lock().of_domain(domain) {
        Some(entry) => (entry.status.code(), *entry.id.bytes()),
        None => (0, [0; 16]),
    }
}

/// Before a domain is destroyed by the toolstack: refuses where its migration
/// forbids that, and lets the migration know where it ends with the domain.
pub fn before_destroy(domain: &Domain) -> Result<(), Refusal> {
    let mut registry = REGISTRY.lock();
    let Some(entry) = registry.of_domain(domain.id) else {
        return Ok(());
    };
    let may = match entry.status {
        Status::Unknown => true,
        Status::Source(state) => state.may_destroy(),
        Status::Receiver(state) => state.may_destroy(),
    };
    if !may {
        return Err(busy(entry.status));
    }
    if let Status::Receiver(_) = entry.status {
        registry
            .step(entry.id, Event::Receiver(receiver::Event::DomainEnded))
            .map_err(|r| refused(&r))?;
    }
    Ok(())
}

/// The domain that a migration may begin with: it has run here, or could.
fn movable(id: DomainId) -> Result<Arc<Domain>, Refusal> {
    DOMAINS
        .lock()
        .get(id)
        .filter(|domain| !domain.is_privileged())
        .ok_or_else(|| {
            Refusal::new(
                Errno::ENOENT,
                Reason::CLASS_DOMAIN,
                1,
                u64::from(id.0),
                0,
                format_args!("there is no domain {} that can be moved", id.0),
            )
        })
}

/// A domain that has ended has nothing to run elsewhere.
fn ended(id: DomainId) -> Refusal {
    Refusal::new(
        Errno::EILSEQ,
        Reason::CLASS_DOMAIN,
        8,
        u64::from(id.0),
        0,
        format_args!("domain-ended: domain {} has shut down or crashed", id.0),
    )
}

/// Does what a step asks for. A domain that is to be freed is returned.
fn carry_out(domain: DomainId, status: Status, action: Action) -> Option<Arc<Domain>> {
    let domain = DOMAINS.lock().get(domain)?;
    match action.effect {
        Effect::None => None,
        Effect::Pause => {
            domain.status.set_may_run(false);
            domain.status.set_frozen(true);
            settle(&domain);
            None
        }
        Effect::Freeze => {
            domain.status.set_frozen(true);
            None
        }
        Effect::Run => {
            domain.status.set_frozen(false);
            // At the source it is again what it was before, running or paused
            // by the toolstack; at the receiver it was made paused, and runs unless
            // it was sent so.
            if matches!(status, Status::Receiver(_)) && !domain.stays_paused {
                domain.status.set_paused(false);
            }
            domain.status.set_may_run(true);
            None
        }
        Effect::Free => Some(domain),
    }
}

fn event(action: RightAction, peer: Status) -> Event {
    use RightAction as A;
    use receiver::Event as R;
    use source::Event as S;
    match action {
        A::Query | A::SourcePeerStatus => Event::Source(S::PeerStatus(peer.of_receiver())),
        A::SourceBegin => Event::Source(S::Begin),
        A::SourceAccept => Event::Source(S::Accept),
        A::SourceReady => Event::Source(S::Ready),
        A::SourceRelease => Event::Source(S::Release),
        A::SourceConfirm => Event::Source(S::Confirm),
        A::SourceAbort => Event::Source(S::Abort),
        A::SourceReclaim => Event::Source(S::Reclaim),
        A::ReceiverAccept => Event::Receiver(R::Accept),
        A::ReceiverReady => Event::Receiver(R::Ready),
        A::ReceiverTake => Event::Receiver(R::Take),
        A::ReceiverConfirm => Event::Receiver(R::Confirm),
        A::ReceiverAbort => Event::Receiver(R::Abort),
        A::ReceiverPeerStatus => Event::Receiver(R::PeerStatus(peer.of_source())),
        A::ReceiverDiscard => Event::Receiver(R::Discard),
        A::ReceiverForceTake => Event::Receiver(R::ForceTake),
    }
}

fn status(code: u64) -> Result<Status, Refusal> {
    u32::try_from(code)
        .ok()
        .and_then(Status::from_code)
        .ok_or_else(|| call::argument("peer status code", code, 0x206))
}

fn answer(status: Status, action: Action) -> u64 {
    RightAnswer {
        status: status.code(),
        say: action.say.map_or(0, |record| record.code()),
    }
    .encode()
}

fn busy(status: Status) -> Refusal {
    Refusal::new(
        Errno::EBUSY,
        Reason::CLASS_RIGHT,
        1,
        u64::from(status.code()),
        0,
        format_args!("the domain is part of a migration ({status}) that must be settled first"),
    )
}

fn refused(refusal: &registry::Refusal) -> Refusal {
    use registry::Refusal as R;
    let class = Reason::CLASS_RIGHT;
    match refusal {
        R::Machine(refused) => Refusal::new(
            Errno::EILSEQ,
            class,
            refused.code(),
            0,
            0,
            format_args!("{refused}"),
        ),
        R::NotHere(status) => Refusal::new(
            Errno::ENOENT,
            class,
            2,
            u64::from(status.code()),
            0,
            format_args!("no such migration is under way here (it is {status})"),
        ),
        R::Known(status) => Refusal::new(
            Errno::EEXIST,
            class,
            3,
            u64::from(status.code()),
            0,
            format_args!("a migration with this id is known here already ({status})"),
        ),
        R::OtherSide(status) => Refusal::new(
            Errno::EINVAL,
            class,
            4,
            u64::from(status.code()),
            0,
            format_args!("this host is the other side of the migration ({status})"),
        ),
        R::OutOfMemory => call::memory(0),
    }
}
