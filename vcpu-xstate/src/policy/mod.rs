//! CPUID policies: what a domain may ever use, and what CPUID says to it.
//!
//! A [`CpuPolicy`] is a small table of CPUID leaves. It is made in one of three
//! ways, and every one yields the same form, so two policies are equal if they
//! say the same:
//!
//! ```text
//!  host's CPUID ∩ feature table ──host_default──┐
//!  "host:avx=0,defer-mpx=1" ─────with_config────┼─> CpuPolicy ──cpuid──> the guest
//!  leaves off the wire ──────────from_leaves────┘      │
//!                     (well formed, not yet permitted) └──fits──> may this host take it?
//! ```
//!
//! Two things are always true of it: what a feature needs is there too, and a
//! state component is in the policy exactly where a feature stands for it. So
//! the extended state follows from the features and is never configured
//! beside them.
//!
//! Everything is default-deny ([`features`]): levelling, fitting and
//! configuring work on what is offered, and what a guest asks of any other
//! leaf is answered with zeros. Nothing here allocates, and the lookup at a
//! CPUID exit is an index and a short scan.

mod assemble;
pub mod config;
pub mod features;
pub mod fits;
pub mod guest;
mod leaves;
mod level;
pub mod place;
pub mod set;
#[cfg(test)]
mod tests;
pub mod untrusted;

pub use config::ConfigError;
pub use fits::Misfit;
pub use guest::Dynamic;
pub use leaves::{CpuidLeaf, MAX_LEAVES};
pub use place::Location;
pub use set::{Bit, FeatureSet};
pub use untrusted::LeavesError;

pub use crate::masks::XstatePolicy;

use self::assemble::Parts;
use self::features::{Rule, TABLE};
use self::leaves::{LeafTable, feature_word};
use self::place::Word;
use crate::component::ComponentSet;
use crate::cpuid::{CpuidResult, HostXstate};
use crate::layout::Geometry;

/// What a domain may use of its processor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuPolicy {
    table: LeafTable,
    features: FeatureSet,
    xstate: XstatePolicy,
    geometry: Geometry,
}

/// MXCSR.MM, which `misalignsse` is about.
const MXCSR_MM: u32 = 1 << 17;

impl CpuPolicy {
    /// The most that a domain may have on this host: what the host has, as far
    /// as it is offered. `cpuid` executes CPUID on the host; `host` is what of
    /// its extended state is offered.
    pub fn host_default(cpuid: &impl Fn(u32, u32) -> CpuidResult, host: &HostXstate) -> Self {
        // Beyond its maximum, Intel answers with its highest leaf: garbage here.
        let basic = cpuid(0, 0).eax;
        let extended = cpuid(0x8000_0000, 0).eax;
        let subleaves_of_7 = if basic >= 7 { cpuid(7, 0).eax } else { 0 };
        let bounded = |leaf: u32, subleaf: u32| {
            let there = match leaf {
                7 => basic >= 7 && subleaf <= subleaves_of_7,
                0x8000_0000.. => leaf <= extended,
                _ => leaf <= basic,
            };
            if there {
                cpuid(leaf, subleaf)
            } else {
                CpuidResult::default()
            }
        };

        let mut raw = FeatureSet::EMPTY;
        for word in Word::ALL {
            raw.set_word(word, feature_word(&bounded, word));
        }
        raw.set_word(Word::LD1Eax, instruction_bits(host));
        let mut features = FeatureSet::EMPTY;
        for feature in TABLE {
            let given = match feature.rule {
                Rule::Offered => raw.has(feature.bit()),
                Rule::Required | Rule::Inverse => true,
                Rule::Never | Rule::Live => false,
            };
            if given {
                features = features.with(feature.bit());
            }
        }
        if host.mxcsr_mask() & MXCSR_MM == 0 {
            features = features.without(Bit::of("misalignsse"));
        }
        // Tiles cannot be used by who does not know their palette.
        if bounded(0x1d, 0).eax == 0 || bounded(0x1d, 1) == CpuidResult::default() {
            features = features.without(Bit::of("amx-tile"));
        }

        let mut mask = host.offered();
        set::settle(&mut features, &mut mask);
        assemble::assemble(
            &bounded,
            &Parts {
                features,
                mask,
                deferred: ComponentSet::EMPTY,
                geometry: host.geometry(),
            },
        )
    }

    /// Its leaves, ascending by leaf and subleaf: the wire form, together with
    /// [`deferred`](Self::deferred).
    pub fn leaves(&self) -> &[CpuidLeaf] {
        self.table.rows()
    }

    /// The components that get room when first enabled.
    pub const fn deferred(&self) -> ComponentSet {
        self.xstate.deferred
    }

    /// What it says of extended state.
    pub const fn xstate(&self) -> &XstatePolicy {
        &self.xstate
    }

    /// The layout of its components: that of the machine it was made on.
    pub const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Its feature bits.
    pub const fn features(&self) -> &FeatureSet {
        &self.features
    }

    /// Whether it has the feature: `policy.has(const { Bit::of("rdtscp") })`.
    pub const fn has(&self, bit: Bit) -> bool {
        self.features.has(bit)
    }

    /// Width of guest-physical addresses that the guest is told, in bits.
    pub fn physical_address_bits(&self) -> u8 {
        self.widths().0
    }

    /// Width of linear addresses that the guest is told, in bits.
    pub fn linear_address_bits(&self) -> u8 {
        self.widths().1
    }

    fn widths(&self) -> (u8, u8) {
        let row = self.table.find(0x8000_0008, 0);
        let [physical, linear, ..] = row.map_or([36, 48, 0, 0], |row| row.eax.to_le_bytes());
        (physical, linear)
    }

    /// The same policy with other features, components and deferral; what
    /// cannot stand then goes.
    fn reduced(
        &self,
        mut features: FeatureSet,
        mut mask: ComponentSet,
        deferred: ComponentSet,
    ) -> Self {
        set::settle(&mut features, &mut mask);
        assemble::assemble(
            &|leaf, subleaf| self.raw(leaf, subleaf),
            &Parts {
                features,
                mask,
                deferred,
                geometry: &self.geometry,
            },
        )
    }

    /// A leaf as it stands in the table.
    fn raw(&self, leaf: u32, subleaf: u32) -> CpuidResult {
        self.table
            .find(leaf, subleaf)
            .map_or(CpuidResult::default(), CpuidLeaf::answer)
    }
}

/// CPUID.(0xD,1):EAX of what the host was found to have.
fn instruction_bits(host: &HostXstate) -> u32 {
    let has = host.instructions();
    u32::from(has.xsaveopt)
        | u32::from(has.xsavec) << 1
        | u32::from(has.xgetbv1) << 2
        | u32::from(has.xsaves) << 3
        | u32::from(has.xfd) << 4
}
