//! A policy from leaves that a stranger sent: well formed or refused, nothing in between.
//!
//! The leaves are taken apart, each part is judged, and then they are put
//! together again by the same code that makes a policy on this host. What does
//! not come out as it went in contradicts itself somewhere, and is refused. So
//! every accepted policy is canonical, and sending it on sends the same bytes.
//!
//! Well formed is not permitted: whether this host may take it is asked of
//! [`CpuPolicy::fits`].

use super::CpuPolicy;
use super::assemble::{MIRRORED, Parts, assemble};
use super::features::{Rule, TABLE};
use super::leaves::{CpuidLeaf, MAX_LEAVES, feature_word};
use super::place::{Location, Register, Word};
use super::set::{FeatureSet, Gap, first_gap};
use crate::component::{ComponentIndex, ComponentSet};
use crate::cpuid::CpuidResult;
use crate::error::broken_rules;
use crate::layout::{ComponentFacts, Geometry, GeometryError};
use crate::masks::WITHOUT_ASKING;
use crate::mutants::rule;

/// Why leaves are no policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeavesError {
    /// No leaf, or more than [`MAX_LEAVES`]: how many.
    Count(usize),
    /// Not ascending by leaf and subleaf, or one twice: the place in the list,
    /// its leaf and subleaf, and those before it.
    Order(usize, (u32, u32), (u32, u32)),
    /// A feature that every policy has is missing.
    Required(Location),
    /// A feature without one that it needs: both.
    Needs(Location, Location),
    /// A feature without its state component, in the masks of leaf 0xD.
    FeatureWithoutComponent(Location, ComponentIndex),
    /// A component for which no feature stands, or one without a name where
    /// the instructions that move it are missing.
    ComponentWithoutFeature(ComponentIndex),
    /// Leaf 0xD without XSAVE.
    LeafDWithoutXsave(u64),
    /// x87 or SSE is missing from the user mask.
    Legacy(u64),
    /// Bit 63, which is no component, in either mask.
    Bit63(u64),
    /// A component in both masks, or flagged other than the mask it is in:
    /// the component, and the masks' overlap.
    Kind(ComponentIndex),
    /// Parts of a group without the rest: the mask, and what may stand of it.
    Group(u64, u64),
    /// A component that is smaller than its registers: it, and its size.
    TooSmall(ComponentIndex, u32),
    /// A layout that no machine can have.
    Layout(GeometryError),
    /// `deferred` names what is not in the policy, or what a guest can use
    /// without asking.
    Deferred(u64, u64),
    /// A leaf that the rest implies is missing: leaf and subleaf.
    Missing(u32, u32),
    /// A leaf that no such policy has: leaf and subleaf.
    Surplus(u32, u32),
    /// A register that contradicts the other leaves, or has reserved bits: the
    /// place, the value, and what the rest implies.
    Contradiction(Location, u32, u32),
}

/// Leaf and subleaf in one number, as [`Location::packed`] has them.
const fn place(leaf: u32, subleaf: u32) -> u64 {
    (leaf as u64) << 32 | (subleaf as u64) << 16
}

broken_rules!(LeavesError,
    Self::Count(n) => ("policy-leaf-count", 0xd01, n as u64, MAX_LEAVES as u64),
    Self::Order(_, seen, before) =>
        ("policy-leaf-order", 0xd02, place(seen.0, seen.1), place(before.0, before.1)),
    Self::Required(bit) => ("policy-feature-required", 0xd03, 0, bit.packed()),
    Self::Needs(bit, need) => ("policy-feature-needs", 0xd04, bit.packed(), need.packed()),
    Self::FeatureWithoutComponent(bit, component) =>
        ("policy-feature-without-component", 0xd05, bit.packed(), component.bit()),
    Self::ComponentWithoutFeature(component) =>
        ("policy-component-without-feature", 0xd06, component.bit(), 0),
    Self::LeafDWithoutXsave(mask) => ("policy-leaf-d-without-xsave", 0xd07, mask, 0),
    Self::Legacy(mask) => ("policy-legacy", 0xd08, mask, mask | 3),
    Self::Bit63(mask) => ("policy-bit-63", 0xd09, mask, mask & u64::MAX >> 1),
    Self::Kind(component) => ("policy-component-kind", 0xd0a, component.bit(), 0),
    Self::Group(mask, whole) => ("policy-component-group", 0xd0b, mask, whole),
    Self::TooSmall(component, size) => (
        "policy-component-size",
        0xd0c,
        size as u64,
        component.payload_bytes().unwrap_or(0) as u64
    ),
    Self::Layout(error) => (error.rule(), error.code(), error.seen(), error.allowed()),
    Self::Deferred(seen, allowed) => ("policy-deferred", 0xd0e, seen, allowed),
    Self::Missing(leaf, subleaf) => ("policy-leaf-missing", 0xd0f, 0, place(leaf, subleaf)),
    Self::Surplus(leaf, subleaf) => ("policy-leaf-surplus", 0xd10, place(leaf, subleaf), 0),
    Self::Contradiction(_, seen, allowed) =>
        ("policy-leaf-contradiction", 0xd11, seen as u64, allowed as u64),
);

impl CpuPolicy {
    /// The policy of these leaves, with `deferred` as
    /// [`deferred`](Self::deferred) gave it. Believes nothing.
    ///
    /// # Errors
    /// The first rule that the leaves break.
    pub fn from_leaves(leaves: &[CpuidLeaf], deferred: ComponentSet) -> Result<Self, LeavesError> {
        check_order(leaves)?;
        let find = |leaf: u32, subleaf: u32| {
            leaves
                .binary_search_by_key(&(leaf, subleaf), |row| (row.leaf, row.subleaf))
                .ok()
                .and_then(|at| leaves.get(at))
                .map_or(CpuidResult::default(), CpuidLeaf::answer)
        };

        let features = read_features(&find)?;
        let (mask, geometry) = read_xstate(&features, &find)?;
        check_closed(&features, mask, geometry.supervisor())?;
        let allowed = mask.difference(WITHOUT_ASKING);
        if rule!("policy-deferred") && !allowed.contains(deferred) {
            return Err(LeavesError::Deferred(deferred.bits(), allowed.bits()));
        }

        let policy = assemble(
            &find,
            &Parts {
                features,
                mask,
                deferred,
                geometry: &geometry,
            },
        );
        check_same(leaves, policy.leaves())?;
        Ok(policy)
    }
}

fn check_order(leaves: &[CpuidLeaf]) -> Result<(), LeavesError> {
    if rule!("policy-leaf-count") && (leaves.is_empty() || leaves.len() > MAX_LEAVES) {
        return Err(LeavesError::Count(leaves.len()));
    }
    let key = |row: &CpuidLeaf| (row.leaf, row.subleaf);
    for (at, pair) in leaves.windows(2).enumerate() {
        if let [before, row] = pair
            && rule!("policy-leaf-order")
            && key(before) >= key(row)
        {
            return Err(LeavesError::Order(at + 1, key(row), key(before)));
        }
    }
    Ok(())
}

fn read_features(find: &impl Fn(u32, u32) -> CpuidResult) -> Result<FeatureSet, LeavesError> {
    let mut features = FeatureSet::EMPTY;
    for word in Word::ALL {
        // AMD's copies of leaf 1 are no features of their own; whether they
        // are true copies comes out at the end.
        let copies = if word == Word::E1Edx { MIRRORED } else { 0 };
        features.set_word(word, feature_word(find, word) & !copies);
    }
    let missing =
        |f: &&super::features::Feature| f.rule == Rule::Required && !features.has(f.bit());
    match TABLE.iter().find(missing) {
        Some(feature) if rule!("policy-feature-required") => {
            Err(LeavesError::Required(feature.location()))
        }
        _ => Ok(features),
    }
}

/// The masks of leaf 0xD and the layout.
fn read_xstate(
    features: &FeatureSet,
    find: &impl Fn(u32, u32) -> CpuidResult,
) -> Result<(ComponentSet, Geometry), LeavesError> {
    use LeavesError as E;
    let join = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
    let (first, second) = (find(0xd, 0), find(0xd, 1));
    let user = join(first.eax, first.edx);
    let supervisor = join(second.ecx, second.edx);
    let mut geometry = Geometry::new();
    if !features.has(const { super::Bit::of("xsave") }) {
        return match user | supervisor {
            mask if rule!("policy-leaf-d-without-xsave") && mask != 0 => {
                Err(E::LeafDWithoutXsave(mask))
            }
            _ => Ok((ComponentSet::LEGACY, geometry)),
        };
    }
    if rule!("policy-legacy") && user & 3 != 3 {
        return Err(E::Legacy(user));
    }
    for mask in [user, supervisor] {
        if rule!("policy-bit-63") && mask >> 63 != 0 {
            return Err(E::Bit63(mask));
        }
    }
    let supervisor = ComponentSet::from_bits_retain(supervisor);
    let user = ComponentSet::from_bits_retain(user);
    if let Some(component) = user.intersection(supervisor).iter().next() {
        return Err(E::Kind(component));
    }
    let mask = user.union(supervisor);
    for component in mask.difference(ComponentSet::LEGACY) {
        let subleaf = component.get().into();
        let row = find(0xd, subleaf);
        if rule!("policy-leaf-missing") && row == CpuidResult::default() {
            return Err(E::Missing(0xd, subleaf));
        }
        let facts = ComponentFacts {
            size_bytes: row.eax,
            standard_offset: row.ebx,
            supervisor: row.ecx & 1 != 0,
            aligned64: row.ecx & 2 != 0,
            xfd: row.ecx & 4 != 0,
        };
        if rule!("policy-component-kind") && facts.supervisor != supervisor.has(component) {
            return Err(E::Kind(component));
        }
        let payload = component.payload_bytes().unwrap_or(0);
        if rule!("policy-component-size") && (facts.size_bytes as usize) < payload {
            return Err(E::TooSmall(component, facts.size_bytes));
        }
        geometry.insert(component, facts).map_err(E::Layout)?;
    }
    Ok((mask, geometry))
}

fn check_closed(
    features: &FeatureSet,
    mask: ComponentSet,
    supervisor: ComponentSet,
) -> Result<(), LeavesError> {
    use LeavesError as E;
    Err(match first_gap(features, mask, supervisor) {
        None => return Ok(()),
        Some(Gap::Needs(..)) if !rule!("policy-feature-needs") => return Ok(()),
        Some(Gap::Component(..)) if !rule!("policy-feature-without-component") => return Ok(()),
        Some(Gap::Unclaimed(_)) if !rule!("policy-component-without-feature") => return Ok(()),
        Some(Gap::Group(..)) if !rule!("policy-component-group") => return Ok(()),
        Some(Gap::Needs(feature, need)) => E::Needs(feature.location(), need.location()),
        Some(Gap::Component(feature, component)) => {
            E::FeatureWithoutComponent(feature.location(), component)
        }
        Some(Gap::Unclaimed(component)) => E::ComponentWithoutFeature(component),
        Some(Gap::Group(mask, whole)) => E::Group(mask.bits(), whole.bits()),
    })
}

/// Whether the leaves are what their own parts imply.
fn check_same(seen: &[CpuidLeaf], implied: &[CpuidLeaf]) -> Result<(), LeavesError> {
    use LeavesError as E;
    let key = |row: &CpuidLeaf| (row.leaf, row.subleaf);
    let surplus = |row: Option<&CpuidLeaf>| match row {
        Some(row) if rule!("policy-leaf-surplus") => Err(E::Surplus(row.leaf, row.subleaf)),
        _ => Ok(()),
    };
    let mut seen = seen.iter().peekable();
    for due in implied {
        while let Some(row) = seen.next_if(|row| key(row) < key(due)) {
            surplus(Some(row))?;
        }
        let Some(row) = seen.next_if(|row| key(row) == key(due)) else {
            if rule!("policy-leaf-missing") {
                return Err(E::Missing(due.leaf, due.subleaf));
            }
            continue;
        };
        let registers = [
            (Register::Eax, row.eax, due.eax),
            (Register::Ebx, row.ebx, due.ebx),
            (Register::Ecx, row.ecx, due.ecx),
            (Register::Edx, row.edx, due.edx),
        ];
        for (register, seen, implied) in registers {
            let differing = seen ^ implied;
            if rule!("policy-leaf-contradiction") && differing != 0 {
                let location = Location {
                    leaf: row.leaf,
                    subleaf: row.subleaf,
                    register,
                    // At most 31, for it is not 0.
                    bit: differing.trailing_zeros() as u8,
                };
                return Err(E::Contradiction(location, seen, implied));
            }
        }
    }
    surplus(seen.next())
}
