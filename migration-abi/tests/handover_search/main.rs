//! The right to run: a search of source × receiver × everything that a bad link
//! can have in store proves what the handover promises.
#![cfg(not(miri))] // a search of millions of states, in safe code

mod model;

use migration_abi::handover::{Lost, receiver, source};
use migration_abi::stream::RecordType;
use model::{Model, Word, World, reachable, receiver_does, source_does, status_of};
use receiver::{Event as Re, State as R};
use source::{Event as Se, State as S};

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
