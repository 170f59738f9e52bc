//! A policy as words: the string by which a host's default becomes it.

use alloc::string::String;
use core::fmt::Write as _;

use super::CpuPolicy;
use super::set::{Bit, by_name};
use crate::component::{ComponentIndex, ComponentSet};

impl CpuPolicy {
    /// The shortest policy string with which this host's default has just the
    /// features, the components and the deferral of `wanted` (a levelled
    /// policy, say): what is built on what the string removes is not named.
    /// `None` where no string does that. Numbers, as the width of physical
    /// addresses, and names are not in a policy's words.
    pub fn config_for(&self, wanted: &Self) -> Option<String> {
        let mut config = String::from("host");
        let mut settings = 0;
        let mut say = |name: &dyn core::fmt::Display, value: u8| {
            let separator = if settings == 0 { ':' } else { ',' };
            settings += 1;
            // A string takes what is written to it.
            let _ = write!(config, "{separator}{name}={value}");
        };

        let stays = |name: &&'static str| by_name(name).is_some_and(|need| wanted.has(need.bit()));
        for feature in self.features.named() {
            if !wanted.has(feature.bit()) && feature.needs.iter().all(stays) {
                say(&feature.name, 0);
            }
        }
        let unnamed = ComponentSet::ALL.difference(ComponentSet::NAMED);
        let lost = self.xstate.mask.difference(wanted.xstate.mask);
        for component in lost.intersection(unnamed) {
            let moved_by = match self.geometry.supervisor().has(component) {
                true => const { Bit::of("xsaves") },
                false => const { Bit::of("xsave") },
            };
            if wanted.has(moved_by) {
                say(&format_args!("carry-{}", component.get()), 0);
            }
        }
        let deferrable = [
            ("defer-avx", ComponentSet::only(ComponentIndex::AVX)),
            ("defer-mpx", ComponentSet::MPX),
        ];
        for (name, components) in deferrable {
            let deferred = |policy: &Self| policy.xstate.deferred.contains(components);
            let there = wanted.xstate.mask.contains(components);
            if there && deferred(wanted) != deferred(self) {
                say(&name, u8::from(deferred(wanted)));
            }
        }

        let became = self.with_config(&config).ok()?;
        let same = became.features == wanted.features && became.xstate == wanted.xstate;
        same.then_some(config)
    }
}
