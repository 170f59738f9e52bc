//! The worlds of the search: two machines, and what is on the wire between them.
//!
//! A wire keeps all that was ever said: delivering a word or not, in
//! any order, any number of times, as late as one likes, is losing, re-ordering,
//! repeating and delaying. So one set of words per direction is every bad link.

use std::collections::{HashSet, VecDeque};

use migration_abi::handover::{Effect, Status, receiver, source};
use migration_abi::stream::RecordType;
use receiver::{Event as Re, State as R};
use source::{Event as Se, State as S};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Word {
    /// HEADER and DOMAIN.
    Stream,
    /// END: the state was sent whole.
    End,
    Say(RecordType),
    Status(Status),
}

impl Word {
    pub fn bit(self) -> u64 {
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
pub struct World {
    pub source: S,
    /// `None`: has not begun, or the machine died and forgot.
    pub receiver: Option<R>,
    pub to_receiver: u64,
    pub to_source: u64,
    pub receiver_died: bool,
    /// The domain was destroyed or ended its life.
    pub ended: bool,
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
pub enum Model {
    /// Links and toolstacks fail, in every way.
    Correct,
    /// And the receiver's machine may die.
    ReceiverDies,
    /// And operators force, which is what the invariant does not survive.
    OperatorsForce,
}

pub fn source_does(world: World, event: Se) -> Option<World> {
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

pub fn receiver_does(world: World, event: Re) -> Option<World> {
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

pub fn status_of(receiver: Option<R>) -> Status {
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

pub fn reachable(model: Model) -> HashSet<World> {
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
