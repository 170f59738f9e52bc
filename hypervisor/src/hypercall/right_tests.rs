//! What the steps of a handover do to the domain.

use super::*;
use crate::testing::Toolstack;
use core::sync::atomic::{AtomicU8, Ordering};
use xferry_abi::{Buffer, Failure, Request};

/// An id that no other test has.
fn new_id() -> [u8; 16] {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let mut id = [0x77; 16];
    id[0] = NEXT.fetch_add(1, Ordering::Relaxed);
    id
}

struct Handover {
    toolstack: Toolstack,
    domain: Arc<Domain>,
    id: [u8; 16],
}

impl Handover {
    fn source() -> Self {
        let toolstack = Toolstack::new();
        let domain = toolstack.domain("host", 2, 0);
        domain.status.set_paused(false);
        Self {
            toolstack,
            domain,
            id: new_id(),
        }
    }

    /// As `create` makes an incoming domain.
    fn receiver() -> Self {
        let this = Self::source();
        this.domain.status.set_paused(true);
        this.domain.status.set_may_run(false);
        let id = MigrationId::new(this.id).unwrap();
        assert!(begin_receiving(this.domain.id, id).is_ok());
        this
    }

    fn act(&mut self, action: RightAction) -> Result<RightAnswer, Failure> {
        self.act_with(action, 0).map(RightAnswer::decode)
    }

    fn act_with(&mut self, action: RightAction, peer: u32) -> Result<u64, Failure> {
        let buffer = self.toolstack.give(&self.id);
        self.toolstack.call(Request::Right {
            domain: self.domain.id,
            action,
            peer: u64::from(peer),
            buffer,
        })
    }

    /// Each leads to its status, and the domain then is so.
    fn steps(&mut self, steps: &[(RightAction, Status, State)]) {
        for (action, status, state) in steps {
            let answer = self.act(*action).unwrap();
            assert_eq!(Status::from_code(answer.status), Some(*status));
            assert_eq!(self.state(), *state, "{action:?}");
        }
    }

    fn state(&self) -> State {
        let status = &self.domain.status;
        if DOMAINS.lock().get(self.domain.id).is_none() {
            assert!(!status.runnable());
            return State::Freed;
        }
        match (status.runnable(), status.is_frozen()) {
            (true, false) => State::Runs,
            (false, true) => State::Frozen,
            (false, false) => State::Stands,
            (true, true) => State::RunsFrozen,
        }
    }

    fn destroy(&mut self) -> Result<u64, Failure> {
        let domain = self.domain.id;
        self.toolstack.call(Request::Destroy { domain })
    }

    fn unpause(&mut self) {
        let domain = self.domain.id;
        self.toolstack.call(Request::Unpause { domain }).unwrap();
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Runs,
    RunsFrozen,
    Frozen,
    Stands,
    Freed,
}

use RightAction as A;
const fn s(state: source::State) -> Status {
    Status::Source(state)
}
const fn r(state: receiver::State) -> Status {
    Status::Receiver(state)
}

fn failure(errno: Errno, code: u32, seen: Status) -> Failure {
    Failure {
        errno,
        reason: Reason::new(Reason::CLASS_RIGHT, code),
        seen: u64::from(seen.code()),
        allowed: 0,
    }
}

#[test]
fn a_source_gives_the_domain_up_step_by_step() {
    use source::State as S;
    let mut handover = Handover::source();
    handover.steps(&[
        (A::SourceBegin, s(S::Sending), State::Frozen),
        (A::SourceAccept, s(S::Accepted), State::Frozen),
        (A::SourceReady, s(S::Offered), State::Frozen),
    ]);
    let answer = handover.act(A::SourceRelease).unwrap();
    assert_eq!(answer.status, s(S::Committed).code());
    // COMMIT is owed to the receiver.
    assert_eq!(answer.say, migration_abi::stream::RecordType::Commit.code());
    // Nobody wakes it any more, and nobody but the handover ends it.
    handover.unpause();
    assert_eq!(handover.state(), State::Frozen);
    let busy = failure(Errno::EBUSY, 1, s(S::Committed));
    assert_eq!(handover.destroy(), Err(busy));
    let refused = handover.act(A::SourceAbort).unwrap_err();
    assert_eq!(
        (refused.errno, refused.reason.code()),
        (Errno::EILSEQ, 0x702)
    );
    assert_eq!(handover.state(), State::Frozen);
    handover.steps(&[(A::SourceConfirm, s(S::Done), State::Freed)]);
    // RUNNING that comes twice is answered again.
    handover.steps(&[(A::SourceConfirm, s(S::Done), State::Freed)]);
}

#[test]
fn a_source_that_aborts_is_what_it_was_before() {
    use source::State as S;
    for paused in [false, true] {
        let mut handover = Handover::source();
        handover.domain.status.set_paused(paused);
        handover.steps(&[
            (A::SourceBegin, s(S::Sending), State::Frozen),
            (A::SourceAccept, s(S::Accepted), State::Frozen),
        ]);
        let busy = failure(Errno::EBUSY, 1, s(S::Accepted));
        assert_eq!(handover.destroy(), Err(busy));
        let after = if paused { State::Stands } else { State::Runs };
        handover.steps(&[(A::SourceAbort, s(S::Aborted), after)]);
        handover.unpause();
        assert_eq!(handover.state(), State::Runs);
        assert_eq!(handover.destroy(), Ok(0));
        assert_eq!(handover.state(), State::Freed);
    }
}

#[test]
fn an_id_is_used_once_and_a_domain_is_in_one_migration() {
    use source::State as S;
    let mut handover = Handover::source();
    handover.steps(&[(A::SourceBegin, s(S::Sending), State::Frozen)]);
    let first = handover.id;
    handover.id = new_id();
    let busy = failure(Errno::EBUSY, 1, s(S::Sending));
    assert_eq!(handover.act(A::SourceBegin), Err(busy));
    // The refused one left nothing behind.
    let query = handover.act_with(A::Query, 0);
    assert_eq!(query, Ok(0));
    handover.id = first;
    handover.steps(&[(A::SourceAbort, s(S::Aborted), State::Runs)]);
    let known = failure(Errno::EEXIST, 3, s(S::Aborted));
    assert_eq!(handover.act(A::SourceBegin), Err(known));
    assert_eq!(handover.state(), State::Runs);
    let query = handover.act_with(A::Query, 0);
    assert_eq!(query, Ok(u64::from(s(S::Aborted).code())));
}

#[test]
fn silence_of_the_peer_wakes_nobody_but_an_operator_may() {
    use source::State as S;
    let mut handover = Handover::source();
    for action in [
        A::SourceBegin,
        A::SourceAccept,
        A::SourceReady,
        A::SourceRelease,
    ] {
        handover.act(action).unwrap();
    }
    let refused = handover.act_with(A::SourcePeerStatus, 0).unwrap_err();
    assert_eq!(
        (refused.errno, refused.reason.code()),
        (Errno::EILSEQ, 0x703)
    );
    assert_eq!(handover.state(), State::Frozen);
    handover.steps(&[(A::SourceReclaim, s(S::Aborted), State::Runs)]);
}

#[test]
fn a_receiver_builds_freezes_and_takes() {
    use receiver::State as R;
    let mut handover = Handover::receiver();
    assert_eq!(handover.state(), State::Stands);
    // Without the right no unpausing helps.
    handover.unpause();
    handover.steps(&[(A::ReceiverAccept, r(R::Accepted), State::Stands)]);
    handover.domain.status.set_paused(true);
    handover.steps(&[(A::ReceiverReady, r(R::Ready), State::Frozen)]);
    let refused = handover.act(A::ReceiverAbort).unwrap_err();
    assert_eq!(
        (refused.errno, refused.reason.code()),
        (Errno::EILSEQ, 0x704)
    );
    let busy = failure(Errno::EBUSY, 1, r(R::Ready));
    assert_eq!(handover.destroy(), Err(busy));
    handover.steps(&[
        (A::ReceiverTake, r(R::Running), State::Runs),
        (A::ReceiverTake, r(R::Running), State::Runs),
    ]);
    // It ends here before DONE came: the source is still told that it ran.
    assert_eq!(handover.destroy(), Ok(0));
    assert_eq!(handover.state(), State::Freed);
    let query = handover.act_with(A::Query, 0);
    assert_eq!(query, Ok(u64::from(r(R::Done).code())));
    handover.steps(&[(A::ReceiverTake, r(R::Done), State::Freed)]);
}

#[test]
fn a_domain_that_was_paused_arrives_paused() {
    use receiver::State as R;
    let mut handover = Handover::receiver();
    drop(DOMAINS.lock().remove(handover.domain.id));
    Arc::get_mut(&mut handover.domain).unwrap().stays_paused = true;
    DOMAINS.lock().insert(Arc::clone(&handover.domain));
    handover.steps(&[
        (A::ReceiverAccept, r(R::Accepted), State::Stands),
        (A::ReceiverReady, r(R::Ready), State::Frozen),
        (A::ReceiverTake, r(R::Running), State::Stands),
    ]);
    handover.unpause();
    assert_eq!(handover.state(), State::Runs);
}

#[test]
fn a_receiver_that_gives_up_in_time_keeps_nothing() {
    use receiver::State as R;
    for before in [&[][..], &[A::ReceiverAccept]] {
        let mut handover = Handover::receiver();
        for action in before {
            handover.act(*action).unwrap();
        }
        handover.steps(&[(A::ReceiverAbort, r(R::Discarded), State::Freed)]);
    }
    let mut handover = Handover::receiver();
    handover.act(A::ReceiverAccept).unwrap();
    handover.act(A::ReceiverReady).unwrap();
    handover.steps(&[(A::ReceiverDiscard, r(R::Discarded), State::Freed)]);
}

#[test]
fn a_receiver_learns_from_the_source_that_it_aborted_or_committed() {
    for (peer, expected) in [
        (source::State::Aborted, State::Freed),
        (source::State::Committed, State::Runs),
        (source::State::Offered, State::Frozen),
    ] {
        let mut handover = Handover::receiver();
        handover.act(A::ReceiverAccept).unwrap();
        handover.act(A::ReceiverReady).unwrap();
        let told = handover.act_with(A::ReceiverPeerStatus, s(peer).code());
        assert!(told.is_ok());
        assert_eq!(handover.state(), expected, "{peer:?}");
    }
}

#[test]
fn arguments_that_are_none_change_nothing() {
    let mut handover = Handover::source();
    handover.id = [0; 16];
    let refused = handover.act(A::SourceBegin).unwrap_err();
    assert_eq!(refused.errno, Errno::EINVAL);
    handover.id = new_id();
    let refused = handover.act_with(A::SourceBegin, 0x999).unwrap_err();
    assert_eq!((refused.errno, refused.seen), (Errno::EINVAL, 0x999));
    let refused = handover.act(A::SourceAbort);
    assert_eq!(refused, Err(failure(Errno::ENOENT, 2, Status::Unknown)));
    handover.act(A::SourceBegin).unwrap();
    let refused = handover.act(A::ReceiverAccept).unwrap_err();
    assert_eq!((refused.errno, refused.reason.code()), (Errno::EINVAL, 4));
    let domain = handover.domain.id;
    let (action, peer, buffer) = (A::Query, 0, Buffer::NULL);
    let request = Request::Right {
        domain,
        action,
        peer,
        buffer,
    };
    let refused = handover.toolstack.call(request).unwrap_err();
    assert_eq!((refused.errno, refused.allowed), (Errno::ENOBUFS, 16));
}

/// A guest that shut down while the source waited for its peer was sent as one
/// that runs, and ran on past its end.
#[test]
fn a_domain_that_has_ended_is_not_moved() {
    let mut handover = Handover::source();
    handover.domain.status.stop(crate::domain::status::Stop {
        state: xferry_abi::info::state::SHUT_DOWN,
        cause: 0,
        detail: 0,
    });
    let refused = handover.act(RightAction::SourceBegin).unwrap_err();
    assert_eq!(refused.errno, Errno::EILSEQ);
    let known = handover.act_with(RightAction::Query, 0);
    assert_eq!(known, Ok(u64::from(Status::Unknown.code())));
    assert!(!handover.domain.status.is_frozen());
}
