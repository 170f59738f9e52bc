//! The right to run: every edge of both machines, and a search of source ×
//! receiver × everything that a bad link can have in store.

use std::collections::{HashMap, HashSet, VecDeque};

use migration_abi::handover::{
    Action, Effect, Lost, Refused, Status, Tombstones, receiver, source,
};
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
                None => match got {
                    Ok(stays) => {
                        assert_eq!(stays, (state, Action::NOTHING), "{state:?} {event:?}");
                        assert!(
                            matches!(event, Se::PeerStatus(_)),
                            "{state:?} {event:?} is silently ignored"
                        );
                    }
                    Err(_) => {}
                },
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
                None => match got {
                    Ok(stays) => {
                        assert_eq!(stays, (state, Action::NOTHING), "{state:?} {event:?}");
                        assert!(
                            matches!(event, Re::PeerStatus(_)),
                            "{state:?} {event:?} is silently ignored"
                        );
                    }
                    Err(_) => {}
                },
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

// ---------------------------------------------------------------------------
// The search. A wire keeps all that was ever said: delivering a word or not, in
// any order, any number of times, as late as one likes, is losing, re-ordering,
// repeating and delaying. So one set of words per direction is every bad link.

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Word {
    /// HEADER and DOMAIN.
    Stream,
    /// END: the state was sent whole.
    End,
    Say(RecordType),
    Status(Status),
}

impl Word {
    fn bit(self) -> u64 {
        match self {
            Self::Stream => 1,
            Self::End => 2,
            Self::Say(record) => 4 << (record.code() - 0x100),
            Self::Status(Status::Unknown) => 1 << 20,
            Self::Status(Status::Source(state)) => 1 << (20 + state.code()),
            Self::Status(Status::Receiver(state)) => 1 << (30 + state.code()),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct World {
    source: S,
    /// `None`: has not begun, or the machine died and forgot.
    receiver: Option<R>,
    to_receiver: u64,
    to_source: u64,
    receiver_died: bool,
    /// The domain was destroyed or ended its life.
    ended: bool,
}

const START: World = World {
    source: S::Running,
    receiver: None,
    to_receiver: 0,
    to_source: 0,
    receiver_died: false,
    ended: false,
};

#[derive(Clone, Copy, PartialEq)]
enum Model {
    /// Links and toolstacks fail, in every way.
    Correct,
    /// And the receiver's machine may die.
    ReceiverDies,
    /// And operators force, which is what the invariant does not survive.
    OperatorsForce,
}

fn source_does(world: World, event: Se) -> Option<World> {
    let (source, action) = source::next(world.source, event).ok()?;
    check_effect(
        world.source.may_run(),
        source.may_run(),
        action.effect,
        world.source == source,
    );
    let said = action.say.map_or(0, |record| Word::Say(record).bit());
    Some(World {
        source,
        to_receiver: world.to_receiver | said,
        ..world
    })
}

fn receiver_does(world: World, event: Re) -> Option<World> {
    let (receiver, action) = receiver::next(world.receiver?, event).ok()?;
    let ended = world.ended || event == Re::DomainEnded;
    if event != Re::DomainEnded {
        check_effect(
            world.receiver?.may_run(),
            receiver.may_run(),
            action.effect,
            world.receiver == Some(receiver),
        );
    }
    let said = action.say.map_or(0, |record| Word::Say(record).bit());
    Some(World {
        receiver: Some(receiver),
        to_source: world.to_source | said,
        ended,
        ..world
    })
}

/// The effect is what the states say: a domain runs exactly where `may_run` turned true.
fn check_effect(ran: bool, runs: bool, effect: Effect, stays: bool) {
    assert_eq!(effect == Effect::Run, !ran && runs);
    if stays {
        assert_eq!(effect, Effect::None);
    }
    if ran && !runs {
        assert_eq!(effect, Effect::Pause);
    }
}

/// The event that a word on the wire asks the source for.
fn source_hears(word: Word) -> Option<Se> {
    Some(match word {
        Word::Say(RecordType::Accept) => Se::Accept,
        Word::Say(RecordType::Ready) => Se::Ready,
        Word::Say(RecordType::Running) => Se::Confirm,
        Word::Say(RecordType::Abort | RecordType::Refuse) => Se::Abort,
        Word::Status(status) => Se::PeerStatus(status.of_receiver()),
        _ => return None,
    })
}

fn receiver_hears(word: Word) -> Option<Re> {
    Some(match word {
        Word::Say(RecordType::Commit) => Re::Take,
        Word::Say(RecordType::Done) => Re::Confirm,
        Word::Say(RecordType::Abort) => Re::PeerStatus(Some(S::Aborted)),
        Word::Status(status) => Re::PeerStatus(status.of_source()),
        _ => return None,
    })
}

fn words_to_receiver() -> Vec<Word> {
    let mut words = [RecordType::Commit, RecordType::Done, RecordType::Abort]
        .map(Word::Say)
        .to_vec();
    words.push(Word::Status(Status::Unknown));
    words.extend(S::ALL.map(|state| Word::Status(Status::Source(state))));
    words
}

fn words_to_source() -> Vec<Word> {
    let says = [
        RecordType::Accept,
        RecordType::Ready,
        RecordType::Running,
        RecordType::Abort,
        RecordType::Refuse,
    ];
    let mut words = says.map(Word::Say).to_vec();
    words.push(Word::Status(Status::Unknown));
    words.extend(R::ALL.map(|state| Word::Status(Status::Receiver(state))));
    words
}

fn status_of(receiver: Option<R>) -> Status {
    receiver.map_or(Status::Unknown, Status::Receiver)
}

/// All worlds that may follow, whatever links and toolstacks do.
fn followers(world: World, model: Model) -> Vec<World> {
    let mut after = Vec::new();
    // What toolstacks may ask for, however senseless.
    after.extend(source_does(world, Se::Begin).map(|w| World {
        to_receiver: w.to_receiver | Word::Stream.bit(),
        ..w
    }));
    after.extend(
        [Se::Release, Se::Abort]
            .into_iter()
            .filter_map(|event| source_does(world, event)),
    );
    if world.source == S::Accepted {
        after.push(World {
            to_receiver: world.to_receiver | Word::End.bit(),
            ..world
        });
    }
    let mut asked = vec![Re::Accept, Re::Abort, Re::DomainEnded, Re::Discard];
    // The sequencer passes a whole stream only.
    if world.to_receiver & Word::End.bit() != 0 {
        asked.push(Re::Ready);
    }
    after.extend(
        asked
            .into_iter()
            .filter_map(|event| receiver_does(world, event)),
    );
    if world.receiver.is_none() && world.to_receiver & Word::Stream.bit() != 0 {
        // A receiver refuses before it begins, too; and it begins an id once in a boot.
        after.push(World {
            to_source: world.to_source | Word::Say(RecordType::Refuse).bit(),
            ..world
        });
        if !world.receiver_died {
            after.push(World {
                receiver: Some(R::INITIAL),
                ..world
            });
        }
    }
    // QUERY: an answer may be on its way at any time.
    after.push(World {
        to_source: world.to_source | Word::Status(status_of(world.receiver)).bit(),
        ..world
    });
    after.push(World {
        to_receiver: world.to_receiver | Word::Status(Status::Source(world.source)).bit(),
        ..world
    });
    // Anything that was ever said arrives.
    for word in words_to_source()
        .into_iter()
        .filter(|word| world.to_source & word.bit() != 0)
    {
        after.extend(source_hears(word).and_then(|event| source_does(world, event)));
    }
    for word in words_to_receiver()
        .into_iter()
        .filter(|word| world.to_receiver & word.bit() != 0)
    {
        after.extend(receiver_hears(word).and_then(|event| receiver_does(world, event)));
    }
    if model == Model::ReceiverDies && world.receiver.is_some() {
        after.push(World {
            receiver: None,
            receiver_died: true,
            ..world
        });
    }
    if model == Model::OperatorsForce {
        after.extend(source_does(world, Se::Reclaim));
        after.extend(receiver_does(world, Re::ForceTake));
    }
    after
}

fn reachable(model: Model) -> HashSet<World> {
    let mut seen = HashSet::from([START]);
    let mut queue = VecDeque::from([START]);
    while let Some(world) = queue.pop_front() {
        for next in followers(world, model) {
            if seen.insert(next) {
                queue.push_back(next);
            }
        }
    }
    seen
}

fn receiver_runs(world: World) -> bool {
    world.receiver.is_some_and(R::may_run)
}

#[test]
fn never_two_runners_and_never_lost() {
    let worlds = reachable(Model::Correct);
    assert!(
        worlds.len() > 1000,
        "the search went nowhere: {}",
        worlds.len()
    );
    // It reached what it is about, or it proves nothing.
    for state in S::ALL {
        assert!(
            worlds.iter().any(|world| world.source == state),
            "{state:?}"
        );
    }
    for state in R::ALL {
        assert!(
            worlds.iter().any(|world| world.receiver == Some(state)),
            "{state:?}"
        );
    }
    for &world in &worlds {
        let receiver_has = world.receiver.is_some_and(R::has_copy);
        let receiver_right = world.receiver.is_some_and(R::holds_right);
        assert!(
            !(world.source.may_run() && receiver_runs(world)),
            "two run it: {world:?}"
        );
        assert!(
            !(world.source.holds_right() && receiver_right),
            "two may run it: {world:?}"
        );
        assert!(world.source.has_copy() || receiver_has, "lost: {world:?}");
        if !world.source.holds_right() && !receiver_right {
            // In between, it is whole here, and there or not at all.
            assert_eq!(world.source, S::Committed, "{world:?}");
            assert!(
                matches!(world.receiver, Some(R::Ready | R::Discarded)),
                "{world:?}"
            );
        }
    }
}

#[test]
fn a_receiver_that_dies_wakes_nobody() {
    let worlds = reachable(Model::ReceiverDies);
    assert!(
        worlds
            .iter()
            .any(|world| world.receiver_died && world.source == S::Committed)
    );
    for &world in &worlds {
        assert!(
            !(world.source.may_run() && receiver_runs(world)),
            "two run it: {world:?}"
        );
        let receiver_may_run_later =
            matches!(world.receiver, Some(R::Ready)) && world.source == S::Aborted;
        if receiver_may_run_later {
            // Only a COMMIT could, and an aborted source never sent one.
            assert_eq!(
                world.to_receiver & Word::Say(RecordType::Commit).bit(),
                0,
                "{world:?}"
            );
        }
    }
}

/// The search can find two runners: where operators force, it does. And only there.
#[test]
fn force_is_what_breaks_it() {
    let worlds = reachable(Model::OperatorsForce);
    assert!(
        worlds
            .iter()
            .any(|&world| world.source.may_run() && receiver_runs(world))
    );
}

/// What both sides do once the link works again, until nothing is left to do.
fn settle(mut world: World) -> World {
    for _ in 0..8 {
        let before = (world.source, world.receiver);
        world = match world.source.when_link_lost() {
            Lost::Abort => source_does(world, Se::Abort).unwrap_or(world),
            Lost::Query => {
                let peer = status_of(world.receiver).of_receiver();
                source_does(world, Se::PeerStatus(peer)).unwrap_or(world)
            }
            Lost::Repeat(_) | Lost::Nothing => world,
        };
        // Between hypervisors that hear each other, COMMIT sent is COMMIT heard.
        if world.source == S::Committed {
            world = receiver_does(world, Re::Take).unwrap_or(world);
        }
        world = match world.receiver.map(R::when_link_lost) {
            Some(Lost::Abort) => receiver_does(world, Re::Abort).unwrap_or(world),
            Some(Lost::Query) => {
                receiver_does(world, Re::PeerStatus(Some(world.source))).unwrap_or(world)
            }
            Some(Lost::Repeat(RecordType::Running)) => {
                let told = source_does(world, Se::Confirm).unwrap_or(world);
                if told.source == S::Done {
                    receiver_does(told, Re::Confirm).unwrap_or(told)
                } else {
                    told
                }
            }
            _ => world,
        };
        if before == (world.source, world.receiver) {
            break;
        }
    }
    world
}

#[test]
fn a_reconnect_settles_it() {
    for world in reachable(Model::Correct) {
        let settled = settle(world);
        let stays = matches!(
            (settled.source, settled.receiver),
            (S::Running | S::Aborted, None | Some(R::Discarded)) | (S::Done, Some(R::Done))
        );
        assert!(stays, "{world:?} settles in {settled:?}");
        // One runner, unless the guest itself has ended.
        assert_ne!(
            settled.source.may_run(),
            receiver_runs(settled),
            "{world:?}"
        );
    }
    // With a dead receiver nothing settles, and the copy waits for an operator.
    for world in reachable(Model::ReceiverDies)
        .into_iter()
        .filter(|world| world.receiver_died)
    {
        let settled = settle(world);
        if world.source == S::Committed {
            assert_eq!(settled.source, S::Committed);
            assert!(matches!(
                source::next(settled.source, Se::Reclaim),
                Ok((S::Aborted, _))
            ));
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
