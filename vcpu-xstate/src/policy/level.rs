//! Levelling: the policy that two hosts share, so that a domain may move between them.

use super::CpuPolicy;
use super::assemble::{Parts, assemble};
use super::features::{Rule, TABLE};
use super::set::{Bit, settle};
use crate::component::ComponentSet;
use crate::layout::Geometry;

impl CpuPolicy {
    /// The most that fits both: features of both, components whose layout is
    /// the same on both, the narrower of their numbers. Vendor and names are
    /// this one's. Fold over all hosts of a pool.
    #[must_use]
    pub fn level(&self, other: &Self) -> Self {
        let mut features = self.features.intersection(&other.features);
        for feature in TABLE.iter().filter(|f| f.rule == Rule::Inverse) {
            if self.has(feature.bit()) || other.has(feature.bit()) {
                features = features.with(feature.bit());
            }
        }
        let same_tiles =
            self.raw(0x1d, 1) == other.raw(0x1d, 1) && self.raw(0x1e, 0) == other.raw(0x1e, 0);
        if !same_tiles {
            features = features.without(const { Bit::of("amx-tile") });
        }
        let mut mask = self
            .xstate
            .mask
            .intersection(other.xstate.mask)
            .difference(differing(&self.geometry, &other.geometry));
        settle(&mut features, &mut mask);

        let info = |leaf, subleaf| {
            let mut answer = self.raw(leaf, subleaf);
            let theirs = other.raw(leaf, subleaf);
            match leaf {
                1 => answer.ebx = (answer.ebx & 0xff00).min(theirs.ebx & 0xff00),
                0x8000_0008 => answer.eax = (answer.eax & 0xff).min(theirs.eax & 0xff),
                _ => {}
            }
            answer
        };
        assemble(
            &info,
            &Parts {
                features,
                mask,
                deferred: self.xstate.deferred.union(other.xstate.deferred),
                geometry: &self.geometry,
            },
        )
    }
}

/// The components that two machines lay out differently.
fn differing(one: &Geometry, other: &Geometry) -> ComponentSet {
    one.known()
        .iter()
        .filter(|component| one.get(*component) != other.get(*component))
        .fold(ComponentSet::EMPTY, |all, component| {
            all.union(ComponentSet::only(component))
        })
}
