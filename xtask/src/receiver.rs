//! A machine as the receiver of a state: what is offered there, and whether it takes what a file holds.
//!
//! Every command that answers "can this machine take that" asks here, so that
//! all of them give one answer in the same words.

use std::fmt;

use anyhow::{Context, Result};
use clap::Args as ClapArgs;
use migration_abi::blob::latest::Incompatible;
use migration_abi::stream::{Domain, PolicyLeaf};
use serde_json::{Value, json};
use vcpu_xstate::foreign::{self, Excess, ForeignError, ForeignImage};
use vcpu_xstate::layout::GeometryError;
use vcpu_xstate::policy::features::{Rule, TABLE};
use vcpu_xstate::policy::set::by_name;
use vcpu_xstate::policy::{Arrival, CannotTake, CpuPolicy, CpuidLeaf, FeatureSet, LeavesError};
use vcpu_xstate::withheld::Withheld;
use vcpu_xstate::{
    Claims, ComponentIndex, ComponentSet, Geometry, HostXstate, Rejection, XstatePolicy,
};

use crate::machines::Machine;

/// What a hypervisor offers beyond its default.
#[derive(ClapArgs, Clone, Debug, Default)]
pub struct Offer {
    /// Features whose state the hypervisor switches beside the image: cet-ss,
    /// cet-ibt, cet-sss, uintr, uiret-uif, enqcmd, apx-f.
    #[arg(long, value_name = "FEATURE", value_delimiter = ',')]
    pub grant: Vec<String>,

    /// Components to permit: pasid, uintr, lbr, or the number of one without a name.
    #[arg(long, value_name = "COMPONENT", value_delimiter = ',')]
    pub permit: Vec<String>,
}

impl Offer {
    /// Whether nothing is offered beyond the default.
    pub const fn is_empty(&self) -> bool {
        self.grant.is_empty() && self.permit.is_empty()
    }

    /// The features by their names.
    pub fn granted(&self) -> Result<FeatureSet> {
        self.grant.iter().try_fold(FeatureSet::EMPTY, |all, name| {
            let feature = by_name(name).filter(|feature| feature.rule == Rule::Granted);
            let feature = feature.with_context(|| {
                let grants = TABLE.iter().filter(|feature| feature.rule == Rule::Granted);
                let grants: Vec<&str> = grants.map(|feature| feature.name).collect();
                let why = match by_name(name) {
                    Some(feature) if feature.rule == Rule::Never => "is never offered",
                    Some(_) => "needs no grant",
                    None => "is no feature",
                };
                format!(
                    "--grant {name}: {name:?} {why}; there are {}",
                    grants.join(", ")
                )
            })?;
            Ok(all.with(feature.bit()))
        })
    }

    /// The components by their names or numbers.
    pub fn permitted(&self) -> Result<ComponentSet> {
        self.permit
            .iter()
            .try_fold(ComponentSet::EMPTY, |all, name| {
                // One with a name is called by it: 10 may be meant as a mask.
                let number = name.parse().ok().and_then(ComponentIndex::new);
                let nameless = number.filter(|index| index.name().is_none());
                let component = ComponentIndex::from_name(name).or(nameless);
                let permit = component.filter(|component| by_permission(*component));
                let permit = permit.with_context(|| {
                    let why = match (component, number) {
                        (Some(_), _) => "needs no permission".to_owned(),
                        (None, Some(named)) => format!("is the number of {named}"),
                        (None, None) => "is no component".to_owned(),
                    };
                    format!(
                        "--permit {name}: {name:?} {why}; there are pasid, uintr, lbr, and the \
                         numbers of components without a name"
                    )
                })?;
                Ok(all.union(ComponentSet::only(permit)))
            })
    }

    /// What is permitted and no machine of these has, in words.
    pub fn permitted_in_vain(&self, machines: &[&Machine]) -> Result<Option<String>> {
        let listed = machines.iter().map(|machine| machine.listed());
        let listed = listed.fold(ComponentSet::EMPTY, ComponentSet::union);
        let vain = self.permitted()?.difference(listed);
        let whose = match machines {
            [machine] => format!("{} does not have it", machine.name()),
            _ => "none of these machines has it".into(),
        };
        Ok((!vain.is_empty()).then(|| format!("--permit {vain}: {whose}")))
    }

    /// The machines with this offer; what of it is of no use is said on standard error.
    pub fn receivers<'a>(&self, machines: &[&'a Machine]) -> Result<Vec<Receiver<'a>>> {
        if let Some(vain) = self.permitted_in_vain(machines)? {
            eprintln!("note: {vain}");
        }
        machines
            .iter()
            .map(|machine| self.receiver(machine))
            .collect()
    }

    /// What the machine has of extended state, with what is permitted.
    pub fn xstate(&self, machine: &Machine) -> Result<HostXstate> {
        let mut xstate = machine.host(machine.mxcsr_mask())?;
        xstate.permit(self.permitted()?);
        Ok(xstate)
    }

    /// The machine with this offer.
    pub fn receiver<'a>(&self, machine: &'a Machine) -> Result<Receiver<'a>> {
        let xstate = self.xstate(machine)?;
        let cpuid = |leaf, subleaf| machine.cpuid(leaf, subleaf);
        let policy = CpuPolicy::host_granting(&cpuid, &xstate, &self.granted()?);
        Ok(Receiver {
            machine,
            xstate,
            policy,
        })
    }
}

/// Whether the component is offered by permission alone.
fn by_permission(component: ComponentIndex) -> bool {
    use ComponentIndex as C;
    [C::PASID, C::UINTR, C::LBR].contains(&component) || component.name().is_none()
}

/// Which features would offer the component, if they were granted.
fn granting(component: ComponentIndex) -> String {
    let names: Vec<&str> = TABLE
        .iter()
        .filter(|feature| feature.rule == Rule::Granted && feature.components.has(component))
        .map(|feature| feature.name)
        .collect();
    match &names[..] {
        [] => String::new(),
        names => format!("; --grant {} would", names.join(" or ")),
    }
}

/// A machine that could take a state.
pub struct Receiver<'a> {
    pub machine: &'a Machine,
    pub xstate: HostXstate,
    pub policy: CpuPolicy,
}

/// What is judged.
pub enum Judged<'a> {
    /// A blob: a compacted image with what came with it and whose layout it has.
    Blob(Arrival<'a>),
    /// An image of another hypervisor.
    Foreign {
        /// The image with its registers.
        image: &'a ForeignImage<'a>,
        /// The layout of the machine that made it; where it is not known, the
        /// judge's own.
        geometry: Option<&'a Geometry>,
    },
}

/// The rule that stands against a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// The rule's name, stable.
    pub rule: &'static str,
    /// What breaks it.
    pub words: String,
    /// For each component that the machine has and does not offer: what would offer it.
    pub ways: Vec<String>,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.words)
    }
}

impl Why {
    /// Of a blob whose directory is the layout of no machine.
    pub fn directory(error: &GeometryError) -> Self {
        Self::new(error.rule(), &error.to_string(), Vec::new())
    }

    /// Of an error whose text begins with its rule's name.
    fn new(rule: &'static str, text: &str, ways: Vec<String>) -> Self {
        let words = text
            .strip_prefix(rule)
            .and_then(|rest| rest.strip_prefix(": "));
        Self {
            rule,
            words: words.unwrap_or(text).to_owned(),
            ways,
        }
    }
}

impl Receiver<'_> {
    /// Whether the machine takes it, by a receiver's rules.
    pub fn judge(&self, judged: &Judged<'_>) -> Result<(), Why> {
        match judged {
            Judged::Blob(arrival) => {
                let taken = arrival.fits(&self.xstate, &self.policy);
                taken.map(drop).map_err(|why| self.cannot(&why))
            }
            Judged::Foreign { image, geometry } => {
                let rejected = |rejection| self.cannot(&CannotTake::State(rejection));
                let policy = self.policy_of(image).map_err(rejected)?;
                let geometry = geometry.unwrap_or(self.xstate.geometry());
                let read = foreign::read(image, geometry, &self.xstate, &policy, Excess::Refuse);
                read.map(drop).map_err(|error| match error {
                    ForeignError::Rejected(rejection) => rejected(rejection),
                    error => Why::new(error.rule(), &error.to_string(), Vec::new()),
                })
            }
        }
    }

    /// The policy that a foreign image speaks of, if as much is offered.
    fn policy_of(&self, image: &ForeignImage<'_>) -> Result<XstatePolicy, Rejection> {
        let word = |at: usize| {
            let bytes = image.bytes.get(at..).and_then(|rest| rest.first_chunk());
            bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
        };
        let registers = &image.registers;
        let held = word(512) | word(520);
        let mask = registers.xcr0 | registers.xss | registers.accum.unwrap_or(0) | held;
        let mask = ComponentSet::from_bits_retain(mask).intersection(ComponentSet::ALL);
        let limit = self.policy.xstate().mask;
        if !limit.contains(mask) {
            return Err(Rejection::MaskHost(mask.bits(), limit.bits()));
        }
        Ok(XstatePolicy::new(mask, ComponentSet::EMPTY))
    }

    fn cannot(&self, why: &CannotTake) -> Why {
        let ways = match why {
            CannotTake::State(Rejection::MaskHost(seen, allowed)) => {
                self.ways(ComponentSet::from_bits_retain(seen & !allowed))
            }
            _ => Vec::new(),
        };
        Why::new(why.broken().rule, &why.to_string(), ways)
    }

    /// What would offer these, as far as the machine has them.
    fn ways(&self, lacking: ComponentSet) -> Vec<String> {
        let way = |component: ComponentIndex| match self.xstate.withheld(component) {
            Some(Withheld::Permission) => {
                Some(format!("{component}: not permitted there; --permit would"))
            }
            Some(why) => Some(format!("{component}: {why}")),
            None if self.xstate.offered().has(component) => Some(format!(
                "{component}: the machine has it, no feature that is granted stands for it{}",
                granting(component)
            )),
            None => None,
        };
        lacking.iter().filter_map(way).collect()
    }

    /// The verdict for programs.
    pub fn json(&self, verdict: &Result<(), Why>) -> Value {
        let why = verdict.as_ref().err();
        json!({
            "machine": self.machine.name(),
            "takes": verdict.is_ok(),
            "rule": why.map(|why| why.rule),
            "why": why.map(|why| why.words.as_str()),
            "ways": why.map_or(&[][..], |why| &why.ways),
        })
    }
}

/// The registers and masks of a blob.
pub fn claims(blob: &migration_abi::blob::Blob<'_>) -> Claims {
    let header = blob.header();
    Claims {
        xstate_mask: header.xstate_mask,
        xcr0: header.xcr0,
        xss: header.xss,
        xfd: header.xfd,
        xfd_err: header.xfd_err,
        accum: header.accum,
        xcomp_bv: header.xcomp_bv,
        xsave: !blob.flags().contains(Incompatible::NO_XSAVE),
    }
}

/// The policy that a stream's domain came with, or what is wrong with it, in words.
pub fn policy_of(domain: &Domain<'_>) -> Result<CpuPolicy, BrokenPolicy> {
    let leaf = |leaf: PolicyLeaf| CpuidLeaf {
        leaf: leaf.leaf,
        subleaf: leaf.subleaf,
        eax: leaf.eax,
        ebx: leaf.ebx,
        ecx: leaf.ecx,
        edx: leaf.edx,
    };
    let leaves: Vec<CpuidLeaf> = domain.leaves.iter().map(leaf).collect();
    let deferred = ComponentSet::from_bits_retain(domain.xstate_deferred);
    CpuPolicy::from_leaves(&leaves, deferred).map_err(|error| BrokenPolicy {
        rule: error.rule(),
        words: leaves_words(&error),
    })
}

/// Why a stream's leaves are no policy.
#[derive(Clone, Debug)]
pub struct BrokenPolicy {
    /// The rule's name, stable.
    pub rule: &'static str,
    /// What breaks it.
    pub words: String,
}

impl fmt::Display for BrokenPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.words)
    }
}

/// What breaks the rule.
fn leaves_words(error: &LeavesError) -> String {
    use LeavesError as L;
    let at = |(leaf, subleaf): (u32, u32)| format!("CPUID {leaf:#x}.{subleaf}");
    match error {
        L::Count(count) => format!("{count} leaves"),
        L::Order(_, seen, before) => format!("{} stands behind {}", at(*seen), at(*before)),
        L::Required(bit) => format!("it lacks {bit}, which every policy has"),
        L::Needs(bit, need) => format!("it has {bit} without {need}"),
        L::FeatureWithoutComponent(bit, component) => {
            format!("it has {bit} without the component {component}")
        }
        L::ComponentWithoutFeature(component) => {
            format!("it has the component {component} and no feature that stands for it")
        }
        L::LeafDWithoutXsave(mask) => format!("leaf 0xd lists {mask:#x}, there is no XSAVE"),
        L::Legacy(mask) => format!("the user mask {mask:#x} lacks x87 or SSE"),
        L::Bit63(_) => "bit 63 of a mask, which is no component".to_owned(),
        L::Kind(component) => {
            format!("{component} is in both masks, or flagged other than the mask that it is in")
        }
        L::Group(mask, _) => {
            let mask = ComponentSet::from_bits_retain(*mask);
            format!("{mask}: a part of a group is missing")
        }
        L::TooSmall(component, size) => {
            format!("{component} of {size} bytes is smaller than its registers")
        }
        L::Missing(leaf, subleaf) => format!("{} is missing", at((*leaf, *subleaf))),
        L::Surplus(leaf, subleaf) => format!("{} is in no such policy", at((*leaf, *subleaf))),
        L::Contradiction(place, seen, allowed) => {
            format!("{place} holds {seen:#x}, the other leaves imply {allowed:#x}")
        }
        L::Layout(_) | L::Deferred(..) => {
            let text = error.to_string();
            let words = text.strip_prefix(&format!("{}: ", error.rule()));
            words.unwrap_or(&text).to_owned()
        }
    }
}
