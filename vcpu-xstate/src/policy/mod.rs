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
//! state component that has a name is in the policy exactly where a feature
//! stands for it. So the extended state follows from the features and is never
//! configured beside them. A component without a name, which a newer processor
//! may have, is carried where the host permits it
//! ([`HostXstate::permit`](crate::HostXstate::permit)): no feature stands for
//! it but XSAVE (or XSAVES, for supervisor state), and its state is all of the
//! bytes that CPUID gives it.
//!
//! Everything is default-deny ([`features`]): levelling, fitting and
//! configuring work on what is offered, and what a guest asks of any other
//! leaf is answered with zeros. What is left out, and why, is told to whoever
//! asks ([`report`]). Nothing else here allocates, and the lookup at a CPUID
//! exit is an index and a short scan.

mod assemble;
pub mod config;
pub mod features;
pub mod fits;
pub mod guest;
mod host;
mod leaves;
pub mod level;
mod phrase;
pub mod place;
pub mod report;
pub mod set;
pub mod take;
#[cfg(test)]
mod tests;
pub mod untrusted;

pub use config::ConfigError;
pub use fits::Misfit;
pub use guest::Dynamic;
pub use leaves::{CpuidLeaf, MAX_LEAVES};
pub use level::{Levelled, level_all};
pub use place::Location;
pub use report::{LeftOut, Subject, Why};
pub use set::{Bit, FeatureSet};
pub use take::{Arrival, CannotTake};
pub use untrusted::LeavesError;

pub use crate::masks::XstatePolicy;

use self::assemble::Parts;
use self::leaves::LeafTable;
use self::report::Listener;
use crate::component::ComponentSet;
use crate::cpuid::CpuidResult;
use crate::layout::Geometry;

/// What a domain may use of its processor.
#[derive(Clone, Debug)]
pub struct CpuPolicy {
    table: LeafTable,
    features: FeatureSet,
    xstate: XstatePolicy,
    geometry: Geometry,
    /// Features that take something away, as the machine itself has them. A
    /// host's default tells its guests the worst whether it is so or not; what
    /// another guest finds here is the machine's.
    worse: FeatureSet,
}

impl PartialEq for CpuPolicy {
    /// Whether a guest is told the same.
    fn eq(&self, other: &Self) -> bool {
        let told = |policy: &Self| (policy.features, policy.xstate);
        told(self) == told(other) && self.table == other.table && self.geometry == other.geometry
    }
}

impl Eq for CpuPolicy {}

impl CpuPolicy {
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
        listener: &mut impl Listener,
    ) -> Self {
        let supervisor = self.geometry.supervisor();
        set::settle(&mut features, &mut mask, supervisor, listener);
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
