//! The right to run: every edge of both machines, and a search of source ×
//! receiver × everything that a bad link can have in store.

use std::collections::{HashMap, HashSet};

use migration_abi::handover::{Action, Effect, Refused, Status, Tombstones, receiver, source};
use migration_abi::stream::{MigrationId, RecordType};
use receiver::{Event as Re, State as R};
use source::{Event as Se, State as S};

fn source_events() -> Vec<Se> {
    let mut events = vec![
        Se::Begin,
        Se::Accept,
        Se::Ready,
        Se::Release,
        Se::Confirm,
        Se::Abort,
        Se::Reclaim,
    ];
    events.push(Se::PeerStatus(None));
    events.extend(R::ALL.map(|state| Se::PeerStatus(Some(state))));
    events
}

fn receiver_events() -> Vec<Re> {
    let mut events = vec![
        Re::Accept,
        Re::Ready,
        Re::Take,
        Re::Confirm,
        Re::DomainEnded,
        Re::Abort,
    ];
    events.extend([Re::Discard, Re::ForceTake, Re::PeerStatus(None)]);
    events.extend(S::ALL.map(|state| Re::PeerStatus(Some(state))));
    events
}

fn act(effect: Effect, say: RecordType) -> Action {
    Action {
        effect,
        say: Some(say),
    }
}

/// The document's table, edge by edge. What is not in it changes nothing:
/// either it is refused, or it is a word that comes late.
#[test]
fn source_every_edge() {
    let pause = Action {
        effect: Effect::Pause,
        say: None,
    };
    let abort = act(Effect::Run, RecordType::Abort);
    let again = act(Effect::None, RecordType::Abort);
    let commit = act(Effect::None, RecordType::Commit);
    let free = act(Effect::Free, RecordType::Done);
    let done = act(Effect::None, RecordType::Done);
    let mut edges: HashMap<(S, Se), (S, Action)> = HashMap::from([
        ((S::Running, Se::Begin), (S::Sending, pause)),
        ((S::Sending, Se::Accept), (S::Accepted, Action::NOTHING)),
        ((S::Accepted, Se::Ready), (S::Offered, Action::NOTHING)),
        ((S::Offered, Se::Release), (S::Committed, commit)),
        ((S::Committed, Se::Release), (S::Committed, commit)),
        ((S::Committed, Se::Confirm), (S::Done, free)),
        ((S::Done, Se::Confirm), (S::Done, done)),
        ((S::Aborted, Se::Abort), (S::Aborted, again)),
        ((S::Committed, Se::Reclaim), (S::Aborted, abort)),
        (
            (S::Committed, Se::PeerStatus(Some(R::Ready))),
            (S::Committed, commit),
        ),
        (
            (S::Committed, Se::PeerStatus(Some(R::Running))),
            (S::Done, free),
        ),
        (
            (S::Committed, Se::PeerStatus(Some(R::Done))),
            (S::Done, free),
        ),
        (
            (S::Committed, Se::PeerStatus(Some(R::Discarded))),
            (S::Aborted, abort),
        ),
        ((S::Done, Se::PeerStatus(Some(R::Running))), (S::Done, done)),
        ((S::Done, Se::PeerStatus(Some(R::Done))), (S::Done, done)),
    ]);
    for state in [S::Sending, S::Accepted, S::Offered] {
        edges.insert((state, Se::Abort), (S::Aborted, abort));
        edges.insert(
            (state, Se::PeerStatus(Some(R::Discarded))),
            (S::Aborted, abort),
        );
    }
    for waiting in [R::Receiving, R::Accepted, R::Ready] {
        edges.insert(
            (S::Aborted, Se::PeerStatus(Some(waiting))),
            (S::Aborted, again),
        );
    }
    for state in S::ALL {
        for event in source_events() {
            let got = source::next(state, event);
            match edges.get(&(state, event)) {
                Some(edge) => assert_eq!(got, Ok(*edge), "{state:?} {event:?}"),
                None => {
                    if let Ok(stays) = got {
                        assert_eq!(stays, (state, Action::NOTHING), "{state:?} {event:?}");
                        assert!(
                            matches!(event, Se::PeerStatus(_)),
                            "{state:?} {event:?} is silently ignored"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn receiver_every_edge() {
    let run = act(Effect::Run, RecordType::Running);
    let running = act(Effect::None, RecordType::Running);
    let drop = act(Effect::Free, RecordType::Abort);
    let mut edges: HashMap<(R, Re), (R, Action)> = HashMap::from([
        (
            (R::Receiving, Re::Accept),
            (R::Accepted, act(Effect::None, RecordType::Accept)),
        ),
        (
            (R::Accepted, Re::Ready),
            (R::Ready, act(Effect::Freeze, RecordType::Ready)),
        ),
        ((R::Ready, Re::Take), (R::Running, run)),
        ((R::Running, Re::Take), (R::Running, running)),
        ((R::Done, Re::Take), (R::Done, running)),
        ((R::Running, Re::Confirm), (R::Done, Action::NOTHING)),
        ((R::Done, Re::Confirm), (R::Done, Action::NOTHING)),
        (
            (R::Running, Re::DomainEnded),
            (R::Done, act(Effect::Free, RecordType::Running)),
        ),
        (
            (R::Discarded, Re::Abort),
            (R::Discarded, act(Effect::None, RecordType::Abort)),
        ),
        ((R::Ready, Re::ForceTake), (R::Running, run)),
        (
            (R::Ready, Re::PeerStatus(Some(S::Committed))),
            (R::Running, run),
        ),
        (
            (R::Running, Re::PeerStatus(Some(S::Committed))),
            (R::Running, running),
        ),
        (
            (R::Running, Re::PeerStatus(Some(S::Done))),
            (R::Done, Action::NOTHING),
        ),
        ((R::Ready, Re::Discard), (R::Discarded, drop)),
        (
            (R::Ready, Re::PeerStatus(Some(S::Aborted))),
            (R::Discarded, drop),
        ),
    ]);
    for state in [R::Receiving, R::Accepted] {
        for event in [Re::Abort, Re::Discard, Re::PeerStatus(Some(S::Aborted))] {
            edges.insert((state, event), (R::Discarded, drop));
        }
    }
    for state in R::ALL {
        for event in receiver_events() {
            let got = receiver::next(state, event);
            match edges.get(&(state, event)) {
                Some(edge) => assert_eq!(got, Ok(*edge), "{state:?} {event:?}"),
                None => {
                    if let Ok(stays) = got {
                        assert_eq!(stays, (state, Action::NOTHING), "{state:?} {event:?}");
                        assert!(
                            matches!(event, Re::PeerStatus(_)),
                            "{state:?} {event:?} is silently ignored"
                        );
                    }
                }
            }
        }
    }
}

/// Which refusal, where an operator reads the words.
#[test]
fn refusals_by_name() {
    for (state, event, why) in [
        (S::Committed, Se::Abort, Refused::RightGivenUp),
        (S::Committed, Se::PeerStatus(None), Refused::ReceiverUnknown),
        (
            S::Committed,
            Se::PeerStatus(Some(R::Receiving)),
            Refused::Contradiction,
        ),
        (S::Sending, Se::Confirm, Refused::Contradiction),
        (
            S::Aborted,
            Se::PeerStatus(Some(R::Running)),
            Refused::Contradiction,
        ),
        (S::Sending, Se::Release, Refused::OutOfOrder),
        (S::Accepted, Se::Release, Refused::OutOfOrder),
        (S::Offered, Se::Reclaim, Refused::OutOfOrder),
        (S::Done, Se::Reclaim, Refused::Ended),
        (S::Aborted, Se::Release, Refused::Ended),
        (S::Aborted, Se::Begin, Refused::Ended),
    ] {
        assert_eq!(source::next(state, event), Err(why), "{state:?} {event:?}");
    }
    for (state, event, why) in [
        (R::Ready, Re::Abort, Refused::ReadyWasSaid),
        (R::Ready, Re::PeerStatus(None), Refused::SourceUnknown),
        (
            R::Ready,
            Re::PeerStatus(Some(S::Done)),
            Refused::Contradiction,
        ),
        (R::Accepted, Re::Take, Refused::OutOfOrder),
        (R::Receiving, Re::ForceTake, Refused::OutOfOrder),
        (R::Discarded, Re::Take, Refused::Ended),
        (R::Discarded, Re::ForceTake, Refused::Ended),
        (
            R::Running,
            Re::PeerStatus(Some(S::Aborted)),
            Refused::Contradiction,
        ),
        (R::Running, Re::Discard, Refused::OutOfOrder),
        (R::Running, Re::Abort, Refused::OutOfOrder),
    ] {
        assert_eq!(
            receiver::next(state, event),
            Err(why),
            "{state:?} {event:?}"
        );
    }
    for refused in Refused::ALL {
        assert_eq!(Refused::from_code(refused.code()), Some(refused));
        assert!(refused.to_string().starts_with(refused.rule()));
    }
    for words in [
        Refused::RightGivenUp.text(),
        Refused::ReceiverUnknown.text(),
        Refused::SourceUnknown.text(),
    ] {
        assert!(
            words.contains("dead for ever"),
            "no words for the operator: {words}"
        );
    }
}

/// Invariant 4, without a search: no state of the source is woken by an unknown id.
#[test]
fn unknown_id_never_wakes_the_source() {
    for state in S::ALL {
        match source::next(state, Se::PeerStatus(None)) {
            Ok((after, action)) => {
                assert_eq!((after, action), (state, Action::NOTHING), "{state:?}")
            }
            Err(why) => assert_eq!((state, why), (S::Committed, Refused::ReceiverUnknown)),
        }
    }
}

/// Invariant 6, without a search.
#[test]
fn ends_are_ends() {
    for state in S::ALL.into_iter().filter(|state| state.has_ended()) {
        for event in source_events() {
            if let Ok((after, action)) = source::next(state, event) {
                assert_eq!((after, action.effect), (state, Effect::None), "{event:?}");
            }
        }
    }
    for state in R::ALL.into_iter().filter(|state| state.has_ended()) {
        for event in receiver_events() {
            if let Ok((after, action)) = receiver::next(state, event) {
                assert_eq!((after, action.effect), (state, Effect::None), "{event:?}");
            }
        }
    }
}

#[test]
fn numbers_are_stable_and_come_back() {
    let mut codes = HashSet::from([0]);
    for status in S::ALL
        .map(Status::Source)
        .into_iter()
        .chain(R::ALL.map(Status::Receiver))
    {
        assert!(codes.insert(status.code()));
        assert_eq!(Status::from_code(status.code()), Some(status));
    }
    assert_eq!(Status::Source(S::Committed).code(), 0x105);
    assert_eq!(Status::Receiver(R::Discarded).code(), 0x206);
    let unknown: Vec<_> = (0..0x1000).filter(|code| !codes.contains(code)).collect();
    assert!(
        unknown
            .into_iter()
            .all(|code| Status::from_code(code).is_none())
    );
}

#[test]
fn tombstones_answer_late_questions() {
    let id = |byte| MigrationId::new([byte; 16]).expect("not zero");
    let mut graves = Tombstones::<2>::new();
    assert_eq!(graves.find(id(1)), Status::Unknown);
    assert!(
        !graves.bury(id(1), Status::Source(S::Committed)),
        "not an end"
    );
    assert!(graves.bury(id(1), Status::Source(S::Done)));
    assert!(
        !graves.bury(id(1), Status::Source(S::Aborted)),
        "a second end"
    );
    assert!(graves.bury(id(2), Status::Receiver(R::Discarded)));
    assert_eq!(graves.find(id(1)), Status::Source(S::Done));
    assert!(graves.bury(id(3), Status::Receiver(R::Done)));
    assert_eq!(graves.find(id(1)), Status::Unknown, "the oldest made room");
    assert_eq!(graves.find(id(2)), Status::Receiver(R::Discarded));
    assert!(!Tombstones::<0>::new().bury(id(1), Status::Source(S::Done)));
}
