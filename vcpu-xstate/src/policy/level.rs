//! Levelling: the most that a domain can have and still run on every one of several machines.
//!
//! A policy fits a machine feature by feature and component by component
//! ([`CpuPolicy::fits`]), and what is built on other things needs them
//! (`set::settle`). So there is one greatest policy that fits them all: what
//! all of them offer, without the components that they lay out differently,
//! with each number at its least, without what then has lost its ground. The
//! order of the machines decides nothing but whose vendor, caches and names
//! the guest is told.

use alloc::vec::Vec;

use super::CpuPolicy;
use super::assemble::{Parts, assemble};
use super::report::{LeftOut, Listener, Subject, Why};
use super::set::{self, Bit};
use crate::component::{ComponentIndex, ComponentSet};
use crate::cpuid::CpuidResult;
use crate::layout::LayoutDifference;
use crate::mutants::rule;

/// The policy that several machines can run, and what it lacks of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Levelled {
    /// The policy.
    pub policy: CpuPolicy,
    /// What some machine of the list offers and the policy lacks, with each
    /// machine that stands against it.
    pub left_out: Vec<LeftOut>,
}

/// The greatest policy that fits every host whose default policy is in
/// `hosts`; `None` if there are none. Vendor and names are the first one's.
pub fn level_all(hosts: &[&CpuPolicy]) -> Option<Levelled> {
    let mut left_out = Vec::new();
    let policy = level_over(hosts, &mut left_out)?;
    Some(Levelled { policy, left_out })
}

impl CpuPolicy {
    /// The greatest policy that fits this one and the other: as [`level_all`]
    /// of the two, without a report and without allocation. Folding it over a
    /// list gives what [`level_all`] gives.
    #[must_use]
    pub fn level(&self, other: &Self) -> Self {
        level_over(&[self, other], &mut ()).unwrap_or_else(|| self.clone())
    }
}

const TILES: Bit = Bit::of("amx-tile");

fn level_over(hosts: &[&CpuPolicy], listener: &mut impl Listener) -> Option<CpuPolicy> {
    let (first, _) = hosts.split_first()?;
    let places = || hosts.iter().copied().enumerate();

    // What all of them offer; and what some of them takes away, everywhere.
    let mut features = first.features;
    let mut union = first.features;
    let mut mask = first.xstate.mask;
    let mut any = first.xstate.mask;
    let mut deferred = ComponentSet::EMPTY;
    for (_, host) in places() {
        features = features.intersection(&host.features);
        union = union.union(&host.features);
        mask = mask.intersection(host.xstate.mask);
        any = any.union(host.xstate.mask);
        deferred.insert(host.xstate.deferred);
    }
    if rule!("level-inverse-bits") {
        features = features.union(&union.inverse());
    }
    for bit in union.iter().filter(|bit| !features.has(*bit)) {
        for (place, _) in places().filter(|(_, host)| !host.has(bit)) {
            listener.left_out(Subject::of(bit), Why::Missing, Some(place));
        }
    }
    for component in any.difference(mask) {
        for (place, _) in places().filter(|(_, host)| !host.xstate.mask.has(component)) {
            listener.left_out(Subject::Component(component), Why::Missing, Some(place));
        }
    }

    // The standard layout is the guest's: one place for each component.
    for component in mask {
        let mut same = true;
        for (place, host) in places() {
            if let Some(difference) = differs(component, first, host) {
                same = false;
                let why = Why::Layout(difference);
                listener.left_out(Subject::Component(component), why, Some(place));
            }
        }
        if rule!("level-same-layout") && !same {
            mask.remove(ComponentSet::only(component));
        }
    }
    if features.has(TILES) {
        let tiles = |host: &CpuPolicy| (host.raw(0x1d, 1), host.raw(0x1e, 0));
        let other = |(_, host): &(usize, &CpuPolicy)| tiles(host) != tiles(first);
        for (place, _) in places()
            .filter(other)
            .filter(|_| rule!("level-same-palette"))
        {
            features = features.without(TILES);
            listener.left_out(Subject::of(TILES), Why::Palette, Some(place));
        }
    }

    let supervisor = first.geometry.supervisor();
    set::settle(&mut features, &mut mask, supervisor, listener);
    let info = |leaf, subleaf| {
        let least = |value: &dyn Fn(CpuidResult) -> u32| {
            let values = hosts.iter().map(|host| value(host.raw(leaf, subleaf)));
            values.min().unwrap_or(0)
        };
        let mut answer = first.raw(leaf, subleaf);
        match leaf {
            // The line of CLFLUSH.
            1 if rule!("level-least-line") => answer.ebx = least(&|answer| answer.ebx & 0xff00),
            // Guest-physical addresses.
            0x8000_0008 if rule!("level-least-width") => {
                answer.eax = least(&|answer| answer.eax & 0xff)
            }
            _ => {}
        }
        answer
    };
    Some(assemble(
        &info,
        &Parts {
            features,
            mask,
            deferred,
            geometry: &first.geometry,
        },
    ))
}

/// How `there` lays the component out differently than `here` does.
fn differs(
    component: ComponentIndex,
    here: &CpuPolicy,
    there: &CpuPolicy,
) -> Option<LayoutDifference> {
    let only = ComponentSet::only(component);
    here.geometry.first_difference(&there.geometry, only)
}
