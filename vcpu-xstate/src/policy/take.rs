//! Can this host take that state, and where not, which rule stands against it.
//!
//! The one question of a receiver, of a scheduler that looks for a host, and of
//! whoever holds a file: policy first, where it came along, and then the state
//! itself, by the rules under which it would be restored.

use core::fmt;

use super::{CpuPolicy, Misfit, XstatePolicy};
use crate::component::ComponentSet;
use crate::cpuid::HostXstate;
use crate::error::Broken;
use crate::layout::Geometry;
use crate::validate::{Claims, Rejection, TrustedImage, validate};

/// What came of one vCPU's extended state. All of it is allegations.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// The registers and masks that came with the image.
    pub claims: &'a Claims,
    /// The layout of the machine that it was taken on, by its own directory.
    pub geometry: &'a Geometry,
    /// The compacted image.
    pub image: &'a [u8],
    /// Its domain's policy, where that came along. Without it, what the guest
    /// was told of features cannot be judged, only its state.
    pub policy: Option<&'a CpuPolicy>,
}

/// Why a host cannot take a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CannotTake {
    /// The domain's policy does not fit the host.
    Policy(Misfit),
    /// The state breaks a rule there.
    State(Rejection),
}

impl CannotTake {
    /// The rule that was broken.
    pub fn broken(&self) -> Broken {
        match self {
            Self::Policy(misfit) => misfit.broken(),
            Self::State(rejection) => rejection.broken(),
        }
    }
}

/// The rule's name and the words for it: `component-layout: opmask at 832
/// there, 1088 here`.
impl fmt::Display for CannotTake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = self.broken().rule;
        match self {
            Self::Policy(misfit) => write!(f, "{rule}: {misfit}"),
            Self::State(rejection) => write!(f, "{rule}: {}", rejection.words()),
        }
    }
}

impl core::error::Error for CannotTake {}

impl<'a> Arrival<'a> {
    /// Judges the state for a machine whose extended state is `host` and whose
    /// default policy is `offered`.
    ///
    /// # Errors
    /// The first thing that stands against it.
    pub fn fits(
        &self,
        host: &HostXstate,
        offered: &CpuPolicy,
    ) -> Result<TrustedImage<'a>, CannotTake> {
        let policy = match self.policy {
            Some(policy) => {
                policy.fits(offered).map_err(CannotTake::Policy)?;
                policy.xstate
            }
            None => self.implied(offered).map_err(CannotTake::State)?,
        };
        validate(self.claims, self.geometry, self.image, host, &policy).map_err(CannotTake::State)
    }

    /// The policy that the state itself speaks of, if the host offers as much.
    fn implied(&self, offered: &CpuPolicy) -> Result<XstatePolicy, Rejection> {
        if !self.claims.xsave {
            return Ok(XstatePolicy::without_xsave());
        }
        let mask = ComponentSet::from_bits_retain(self.claims.xstate_mask);
        let limit = offered.xstate.mask;
        if !limit.contains(mask) {
            return Err(Rejection::MaskHost(mask.bits(), limit.bits()));
        }
        let policy = XstatePolicy {
            xfd: offered.xstate.xfd,
            ..XstatePolicy::new(mask, ComponentSet::EMPTY)
        };
        if policy.mask != mask.union(ComponentSet::LEGACY) {
            return Err(Rejection::MaskGroup(mask.bits(), policy.mask.bits()));
        }
        Ok(policy)
    }
}
