//! May this host take that policy? The first thing that it lacks, by name.
//!
//! Asked by a receiver before the first page is sent. The host's side is its
//! own [`CpuPolicy::host_default`]: what it would not give to a domain of its
//! own, it does not accept from elsewhere.

use core::fmt;

use super::CpuPolicy;
use super::features::Feature;
use super::place::{Location, Register};
use super::set::{Bit, by_bit};
use crate::component::ComponentIndex;
use crate::error::Broken;
use crate::layout::LayoutDifference;
use crate::mutants::rule;

/// Why a host cannot take a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// The policy has a feature that the host does not offer.
    Feature(&'static Feature),
    /// The policy has a feature bit that nobody here knows by name.
    Unknown(Location),
    /// The host lacks something that the policy was promised, as this bit says.
    Inverse(&'static Feature),
    /// The host leaves a component out (it did not survive its own round trip).
    Component(ComponentIndex),
    /// A component has another layout on the host. The standard layout is
    /// guest ABI: registers could be converted, the guest's memory cannot.
    Layout(LayoutDifference),
    /// A number that the policy states and the host does not reach: its name,
    /// where it stands, the policy's and the host's value.
    Number(&'static str, Location, u32, u32),
}

impl Misfit {
    /// The rule that was broken, with the values seen (in the policy) and
    /// allowed (on the host). Where the rule is about a feature, `seen` is
    /// [`Location::packed`].
    pub fn broken(&self) -> Broken {
        let (rule, code, seen, allowed) = match *self {
            Self::Feature(f) => ("fits-feature", 0xe01, f.location().packed(), 0),
            Self::Unknown(place) => ("fits-unknown-feature", 0xe02, place.packed(), 0),
            Self::Inverse(f) => ("fits-inverse-feature", 0xe03, 0, f.location().packed()),
            Self::Component(c) => ("fits-component", 0xe04, c.bit(), 0),
            Self::Layout(difference) => {
                let (_, there, here) = difference.values();
                ("fits-layout", 0xe05, there, here)
            }
            Self::Number(_, _, seen, allowed) => {
                ("fits-number", 0xe06, seen.into(), allowed.into())
            }
        };
        Broken {
            rule,
            code,
            seen,
            allowed,
        }
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Feature(feature) => write!(f, "{feature} missing here"),
            Self::Unknown(place) => write!(f, "unknown feature ({place}) missing here"),
            Self::Inverse(feature) => {
                write!(f, "{feature} set here, not there: it takes something away")
            }
            Self::Component(component) => {
                write!(
                    f,
                    "{component} (CPUID 0xD.{}) not offered here",
                    component.get()
                )
            }
            Self::Layout(difference) => {
                let index = difference.component.get();
                write!(f, "{difference} (CPUID 0xD.{index})")
            }
            Self::Number(what, place, there, here) => {
                write!(f, "{what} {there} there, {here} here ({place})")
            }
        }
    }
}

impl core::error::Error for Misfit {}

/// Whether a host's number serves a policy that states another.
#[derive(Clone, Copy)]
enum Serves {
    /// The host's may be larger.
    AtLeast,
    /// It must be the same.
    Exactly,
}

impl CpuPolicy {
    /// Whether a host whose [`host_default`](Self::host_default) is `host` may
    /// take a domain of this policy. Vendor, family, names and caches may
    /// differ: they only inform.
    ///
    /// # Errors
    /// The first thing that stands against it.
    pub fn fits(&self, host: &Self) -> Result<(), Misfit> {
        // State before features: what a guest cannot do without is named first.
        let missing = self.xstate.mask.difference(host.xstate.mask);
        if let Some(component) = missing.iter().next()
            && rule!("fits-component")
        {
            return Err(Misfit::Component(component));
        }
        if let Some(difference) = host
            .geometry
            .first_difference(&self.geometry, self.xstate.mask)
            && rule!("fits-layout")
        {
            return Err(Misfit::Layout(difference));
        }
        let asked = self.features.difference(&self.features.inverse());
        if let Some(bit) = asked.first_beyond(&host.features) {
            return Err(match by_bit(bit) {
                Some(_) if !rule!("fits-feature") => return Ok(()),
                None if !rule!("fits-unknown-feature") => return Ok(()),
                Some(feature) => Misfit::Feature(feature),
                None => Misfit::Unknown(bit.location()),
            });
        }
        // A guest that was told the worst finds it no worse here; one that was
        // promised better would, if it is worse on the machine itself.
        let worse = host.worse.first_beyond(&self.features);
        if let Some(feature) = worse.and_then(by_bit)
            && rule!("fits-inverse-feature")
        {
            return Err(Misfit::Inverse(feature));
        }
        self.numbers_fit(host)
    }

    fn numbers_fit(&self, host: &Self) -> Result<(), Misfit> {
        let line = |p: &Self| (p.raw(1, 0).ebx >> 8 & 0xff) * 8;
        let widths = |p: &Self| p.raw(0x8000_0008, 0).eax;
        // Palette 1 and TMUL, where tiles are in the policy.
        let tile = |p: &Self, subleaf: u32| p.raw(0x1d, subleaf);
        let tiles = self.has(const { Bit::of("amx-tile") });
        let both = |value: &dyn Fn(&Self) -> u32| (value(self), value(host));
        use Register::{Eax, Ebx, Ecx};
        use Serves::{AtLeast, Exactly};
        let rules = [
            ("clflush line bytes", (1, 0, Ebx, 8), AtLeast, both(&line)),
            (
                "physical address bits",
                (0x8000_0008, 0, Eax, 0),
                AtLeast,
                both(&|p| widths(p) & 0xff),
            ),
            (
                "tile bytes",
                (0x1d, 1, Eax, 0),
                Exactly,
                both(&|p| tile(p, 1).eax),
            ),
            (
                "tile row bytes",
                (0x1d, 1, Ebx, 0),
                Exactly,
                both(&|p| tile(p, 1).ebx),
            ),
            (
                "tile rows",
                (0x1d, 1, Ecx, 0),
                Exactly,
                both(&|p| tile(p, 1).ecx),
            ),
            (
                "tmul limits",
                (0x1e, 0, Ebx, 0),
                Exactly,
                both(&|p| p.raw(0x1e, 0).ebx),
            ),
        ];
        for (what, (leaf, subleaf, register, bit), serves, (seen, allowed)) in rules {
            let good = match serves {
                AtLeast => seen <= allowed,
                Exactly => seen == allowed || !tiles,
            };
            if rule!("fits-number") && !good {
                let place = Location {
                    leaf,
                    subleaf,
                    register,
                    bit,
                };
                return Err(Misfit::Number(what, place, seen, allowed));
            }
        }
        Ok(())
    }
}
