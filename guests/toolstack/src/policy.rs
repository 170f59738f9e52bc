//! CPUID policies between their two homes: leaves in control calls, and
//! `vcpu-xstate`'s judgement of them.

use crate::error::Error;
use crate::hypervisor::Policy;
use alloc::vec::Vec;
use vcpu_xstate::component::{ComponentIndex, ComponentSet};
use vcpu_xstate::error::Broken;
use vcpu_xstate::policy::{CpuPolicy, CpuidLeaf};
use xferry_abi::Errno;
use xferry_abi::error::Reason;

impl Policy {
    /// What it means.
    ///
    /// # Errors
    /// The leaves are no policy.
    pub fn read(&self) -> Result<CpuPolicy, Error> {
        let leaves: Vec<CpuidLeaf> = self
            .leaves
            .iter()
            .map(|leaf| zerocopy::transmute!(*leaf))
            .collect();
        CpuPolicy::from_leaves(&leaves, ComponentSet::from_bits_retain(self.deferred))
            .map_err(|error| broken(&error.broken()))
    }

    /// As control calls carry it.
    #[must_use]
    pub fn of(policy: &CpuPolicy) -> Self {
        Self {
            deferred: policy.deferred().bits(),
            leaves: policy
                .leaves()
                .iter()
                .map(|leaf| zerocopy::transmute!(*leaf))
                .collect(),
        }
    }

    /// This, the host's default, changed as `spec` says (`host:avx=0`).
    ///
    /// # Errors
    /// The setting that cannot be had, and why.
    pub fn configured(&self, spec: &str) -> Result<Self, Error> {
        let configured = self.read()?;
        let configured = configured.with_config(spec).map_err(|error| {
            let rule = error.broken();
            Error {
                reason: rule.rule.into(),
                reason_code: Reason::new(Reason::CLASS_POLICY, rule.code).0,
                ..Error::new(Errno::EINVAL, "config", alloc::format!("{error}"))
            }
        })?;
        Ok(Self::of(&configured))
    }

    /// Whether a host whose default is `host` can take a domain of this policy.
    ///
    /// # Errors
    /// The first thing that the host lacks, by name.
    pub fn fits(&self, host: &Self) -> Result<(), Error> {
        self.read()?.fits(&host.read()?).map_err(|misfit| {
            let rule = misfit.broken();
            Error {
                reason: rule.rule.into(),
                reason_code: Reason::new(Reason::CLASS_POLICY, rule.code).0,
                ..Error::new(Errno::EOPNOTSUPP, "policy", alloc::format!("{misfit}"))
            }
        })
    }
}

fn broken(rule: &Broken) -> Error {
    let text = alloc::format!("saw {:#x}, allowed {:#x}", rule.seen, rule.allowed);
    Error {
        reason: rule.rule.into(),
        reason_code: Reason::new(Reason::CLASS_POLICY, rule.code).0,
        ..Error::new(Errno::EINVAL, "policy", text)
    }
}

/// A component by its name or its number.
#[must_use]
pub fn component(name: &str) -> Option<ComponentIndex> {
    ComponentIndex::from_name(name).or_else(|| ComponentIndex::new(name.parse().ok()?))
}
