//! The frame table against memory maps as machines report them.

use super::*;
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

fn range(start: u64, end: u64) -> PhysRange {
    PhysRange::between(HostPhys::new(start), HostPhys::new(end))
}

/// Conventional memory, a hole, and 1 MiB above it whose end is no page's end.
fn map() -> [PhysRange; 2] {
    [range(0, 0x9_fc00), range(0x10_0000, 0x20_0800)]
}

fn storage() -> Vec<u8> {
    vec![0xff; FrameTable::storage_bytes(map().into_iter()) as usize]
}

const GUEST: Owner = Owner::domain(0).unwrap();
const OTHER: Owner = Owner::domain(1).unwrap();

#[test]
fn only_whole_usable_frames_count_and_frame_zero_is_not_one() {
    let mut storage = storage();
    assert_eq!(storage.len(), 0x200);
    let table = FrameTable::new(&mut storage, map().into_iter());
    assert_eq!(
        table.counts(),
        FrameCounts {
            total: 0x9e + 0x100,
            free: 0x9e + 0x100
        }
    );
}

#[test]
fn low_frames_are_given_only_to_who_asks_for_them() {
    let mut storage = storage();
    let mut table = FrameTable::new(&mut storage, map().into_iter());
    assert_eq!(table.allocate(GUEST, 1, 1), Ok(HostPhys::new(0x10_0000)));
    assert_eq!(table.allocate_low(GUEST), Ok(HostPhys::new(0x1000)));
    assert!(table.allocate(GUEST, 0xff, 1).is_ok());
    let left = table.counts().free;
    assert_eq!(
        table.allocate(GUEST, 1, 1),
        Err(OutOfFrames {
            wanted: 1,
            free: left
        })
    );
}

#[test]
fn a_claimed_range_is_never_allocated() {
    let mut storage = storage();
    let mut table = FrameTable::new(&mut storage, map().into_iter());
    assert_eq!(table.claim(range(0x10_0800, 0x10_2001), Owner::IMAGE), 3);
    assert_eq!(table.allocate(GUEST, 1, 1), Ok(HostPhys::new(0x10_3000)));
    assert_eq!(table.held_by(Owner::IMAGE), 3);
}

#[test]
fn what_firmware_reports_twice_is_not_used() {
    let mut storage = storage();
    let mut table = FrameTable::new(&mut storage, map().into_iter());
    let before = table.counts();
    table.withhold(range(0x10_0000, 0x10_0001));
    let after = FrameCounts {
        total: before.total - 1,
        free: before.free - 1,
    };
    assert_eq!(table.counts(), after);
    assert_eq!(table.allocate(GUEST, 1, 1), Ok(HostPhys::new(0x10_1000)));
}

#[test]
fn aligned_runs_start_where_they_were_asked_to() {
    let mut storage = storage();
    let mut table = FrameTable::new(&mut storage, map().into_iter());
    table.claim(range(0x10_0000, 0x10_1000), Owner::IMAGE);
    assert_eq!(table.allocate(GUEST, 16, 16), Ok(HostPhys::new(0x11_0000)));
    assert_eq!(table.allocate(GUEST, 1, 1), Ok(HostPhys::new(0x10_1000)));
    assert!(table.allocate(GUEST, 0, 1).is_err());
    assert!(table.allocate(GUEST, 1, 3).is_err());
    assert!(table.allocate(GUEST, usize::MAX, 1).is_err());
}

#[test]
fn a_frame_goes_back_only_from_its_owner_and_all_or_nothing() {
    let mut storage = storage();
    let mut table = FrameTable::new(&mut storage, map().into_iter());
    let first = table.allocate(GUEST, 2, 1).unwrap();
    let next = table.allocate(OTHER, 1, 1).unwrap();
    assert_eq!(
        table.free_frames(GUEST, first, 3),
        Err(NotOwned { frame: next })
    );
    assert_eq!(table.held_by(GUEST), 2);
    assert_eq!(table.free_frames(GUEST, first, 2), Ok(()));
    assert_eq!(
        table.free_frames(GUEST, first, 1),
        Err(NotOwned { frame: first })
    );
    let beyond = HostPhys::new(1 << 40);
    assert_eq!(
        table.free_frames(GUEST, beyond, 1),
        Err(NotOwned { frame: beyond })
    );
    assert_eq!(table.allocate(OTHER, 1, 1), Ok(first));
}

#[test]
fn a_destroyed_domain_leaves_nothing_behind() {
    let mut storage = storage();
    let mut table = FrameTable::new(&mut storage, map().into_iter());
    let before = table.counts();
    for frames in [1, 3, 7] {
        table.allocate(GUEST, frames, 1).unwrap();
    }
    table.allocate_low(GUEST).unwrap();
    table.allocate(OTHER, 5, 1).unwrap();
    assert_eq!(table.free_all(GUEST), 12);
    assert_eq!(table.held_by(GUEST), 0);
    assert_eq!(table.free_all(OTHER), 5);
    assert_eq!(table.counts(), before);
}

#[test]
fn an_overlong_map_entry_is_cut_to_the_table() {
    let mut storage = vec![0; 4];
    let table = FrameTable::new(&mut storage, [range(0, u64::MAX)].into_iter());
    assert_eq!(table.counts().total, 3);
}

proptest! {
    /// Whatever is done, no frame has two holders and the counts are those of
    /// a plain model.
    #[test]
    fn no_frame_has_two_holders(steps in prop::collection::vec((0u8..3, 1usize..20, 0u32..4), 1..60)) {
        let mut storage = storage();
        let mut table = FrameTable::new(&mut storage, map().into_iter());
        let before = table.counts();
        let mut held: Vec<(Owner, u64, usize)> = Vec::new();
        for (what, frames, choice) in steps {
            let owner = if choice % 2 == 0 { GUEST } else { OTHER };
            if what < 2 {
                let Ok(start) = table.allocate(owner, frames, 1 << choice) else { continue };
                prop_assert!(start.is_aligned_to(PAGE_BYTES << choice));
                let start = start.page_number();
                for (_, other, count) in &held {
                    prop_assert!(start + frames as u64 <= *other || other + *count as u64 <= start);
                }
                held.push((owner, start, frames));
            } else if !held.is_empty() {
                let (owner, start, count) = held.remove(frames % held.len());
                let first = HostPhys::from_page_number(start).unwrap();
                prop_assert_eq!(table.free_frames(owner, first, count), Ok(()));
            }
            let sum: usize = held.iter().map(|(_, _, count)| count).sum();
            prop_assert_eq!(table.counts().free, before.free - sum);
            prop_assert_eq!(table.held_by(GUEST) + table.held_by(OTHER), sum);
        }
    }
}

/// A domain of 16384 pages took four seconds to build: the hint stood at a
/// frame that was taken, and every search began there.
#[test]
fn single_frames_are_not_searched_for_from_the_start_each_time() {
    let memory = range(0, 0x100_0000);
    let mut storage = vec![0; FrameTable::storage_bytes([memory].into_iter()) as usize];
    let mut table = FrameTable::new(&mut storage, [memory].into_iter());
    table.claim(range(0x10_0000, 0x20_0000), Owner::IMAGE);
    for expected in 0x200..0x300 {
        let frame = table.allocate(Owner::HEAP, 1, 1).unwrap();
        assert_eq!(frame.page_number(), expected);
        assert_eq!(table.lowest_free as u64, expected + 1);
    }
}
