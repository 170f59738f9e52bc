//! What is not in a policy, and why: one reason for each, in words that name both sides.
//!
//! A reason is the first cause where there is one (the machine lacks it, the
//! configuration removed it, the layouts differ) and else the next thing on
//! which it was built, which has an entry of its own. Nobody has to ask for
//! the reasons: policies are made by the same code, without allocation, where
//! nobody listens.

use alloc::vec::Vec;
use core::fmt;

use super::features::Feature;
use super::place::Location;
use super::set::{Bit, by_bit};
use crate::component::{ComponentIndex, ComponentSet};
use crate::layout::LayoutDifference;
use crate::withheld::Withheld;

/// What a policy can be without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A feature that has a name.
    Feature(&'static Feature),
    /// A feature bit that has none.
    Bit(Location),
    /// A state component.
    Component(ComponentIndex),
}

impl Subject {
    pub(super) fn of(bit: Bit) -> Self {
        by_bit(bit).map_or(Self::Bit(bit.location()), Self::Feature)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Feature(feature) => feature.fmt(f),
            Self::Bit(place) => write!(f, "unknown feature ({place})"),
            Self::Component(component) => {
                write!(f, "{component} (CPUID 0xD.{})", component.get())
            }
        }
    }
}

/// Why something is not in a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Known, and never offered.
    Never,
    /// Offered by who switches what belongs to it beside the image; see
    /// [`CpuPolicy::host_granting`](super::CpuPolicy::host_granting).
    NotGranted,
    /// Nothing is known of it, so it is denied.
    Unknown,
    /// The machine lists it and does not offer it.
    Withheld(Withheld),
    /// MXCSR has no bit for it on the machine: the mask.
    MxcsrMask(u32),
    /// The machine does not describe its palette of tiles.
    NoPalette,
    /// Removed by the configuration.
    Configuration,
    /// Built on a feature that is not there.
    Needs(&'static Feature),
    /// Its state component is not there.
    WithoutState(ComponentIndex),
    /// No feature that is there stands for it.
    WithoutFeature,
    /// XCR0 can hold it only together with all of these.
    Group(ComponentSet),
    /// Of several machines, this one does not offer it.
    Missing,
    /// Of several machines, this one lays it out differently: "there" is this
    /// one and "here" is the first.
    Layout(LayoutDifference),
    /// Of several machines, this one's palette of tiles, or its limits of
    /// multiplication, are not the first one's.
    Palette,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Never => f.write_str("never offered"),
            Self::NotGranted => f.write_str("not granted by this hypervisor"),
            Self::Unknown => f.write_str("not known here, so denied"),
            Self::Withheld(why) => why.fmt(f),
            Self::MxcsrMask(mask) => write!(f, "MXCSR_MASK is {mask:#x}"),
            Self::NoPalette => f.write_str("the machine describes no palette of tiles"),
            Self::Configuration => f.write_str("=0 by configuration"),
            Self::Needs(need) => write!(f, "needs {need}"),
            Self::WithoutState(component) => write!(f, "needs the component {component}"),
            Self::WithoutFeature => f.write_str("no feature of the policy stands for it"),
            Self::Group(group) => write!(f, "part of the group {group} is missing"),
            Self::Missing => f.write_str("not offered"),
            Self::Layout(difference) => difference.fmt(f),
            Self::Palette => f.write_str("other tiles"),
        }
    }
}

/// One thing that is not in a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// What.
    pub subject: Subject,
    /// Why.
    pub why: Why,
    /// Of several machines, the one that stands against it: its place in the
    /// list. The same subject may stand once for each.
    pub machine: Option<usize>,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.why)
    }
}

/// What hears of each thing that is left out, at once.
pub(super) trait Listener {
    fn left_out(&mut self, subject: Subject, why: Why, machine: Option<usize>);

    fn gone(&mut self, subject: Subject, why: Why) {
        self.left_out(subject, why, None);
    }
}

/// Nobody listens.
impl Listener for () {
    fn left_out(&mut self, _: Subject, _: Why, _: Option<usize>) {}
}

impl Listener for Vec<LeftOut> {
    fn left_out(&mut self, subject: Subject, why: Why, machine: Option<usize>) {
        self.push(LeftOut {
            subject,
            why,
            machine,
        });
    }
}
