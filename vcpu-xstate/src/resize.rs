//! Re-sizing under a paused vCPU: a new policy, and giving memory back.
//!
//! A domain changes its policy on all of its vCPUs or on none: each vCPU
//! *prepares*, which takes the memory and may fail, and when all have, each
//! *commits*, which cannot.

use crate::area::{Area, AreaMemory, OutOfMemory};
use crate::component::ComponentSet;
use crate::error::broken_rules;
use crate::hw::Hardware;
use crate::masks::{XstatePolicy, needs_room};
use crate::mutants::rule;
use crate::owner::VcpuXstate;
use crate::percpu::PcpuXstate;
use crate::switch::Version;
use crate::xcr0::Xcr0;

/// Why a vCPU cannot take a policy; it keeps what it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyError {
    /// The host does not offer these components: seen, allowed.
    Host(ComponentSet, ComponentSet),
    /// XCR0, IA32_XSS, IA32_XFD or IA32_XFD_ERR names these components, which
    /// the policy lacks (or has, without that register); the registers are never changed under a guest.
    Enabled(ComponentSet, ComponentSet),
    /// These components hold state that the policy has no place for, and the
    /// caller did not drop them by name.
    InUse(ComponentSet, ComponentSet),
    /// No memory for the area.
    OutOfMemory(OutOfMemory),
}

broken_rules!(PolicyError,
    Self::Host(seen, allowed) => ("policy-host", 0x701, seen.bits(), allowed.bits()),
    Self::Enabled(seen, allowed) => ("policy-enabled", 0x702, seen.bits(), allowed.bits()),
    Self::InUse(seen, allowed) => ("policy-in-use", 0x703, seen.bits(), allowed.bits()),
    Self::OutOfMemory(e) => (OutOfMemory::RULE, OutOfMemory::CODE, e.bytes as u64, 0),
);

/// What a re-size did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resized {
    /// Size of the area before, in bytes.
    pub before_bytes: usize,
    /// Size of the area now, in bytes.
    pub after_bytes: usize,
}

/// A policy change that has all that it needs.
#[must_use = "commit it, or give its memory back with `release`"]
#[derive(Debug)]
pub struct PreparedPolicy {
    policy: XstatePolicy,
    accum: ComponentSet,
    /// `None` where the area stays as it is.
    area: Option<Area>,
    made_from: Basis,
}

/// All of a vCPU that a prepared change depends on. The guest's registers are
/// no part of the state's version, as they are not in the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Basis {
    version: Version,
    accum: ComponentSet,
    /// XCR0, IA32_XSS, IA32_XFD, IA32_XFD_ERR.
    registers: [u64; 4],
}

impl PreparedPolicy {
    /// Gives up the change.
    pub fn release(self, memory: &mut impl AreaMemory) {
        if let Some(area) = self.area {
            area.release(memory);
        }
    }
}

impl VcpuXstate {
    /// Takes what a change of policy needs. `drop` names components whose
    /// state may be lost, where the new policy has no place for them.
    ///
    /// # Errors
    /// The change is not possible; the vCPU is as it was.
    pub fn prepare_policy<H: Hardware>(
        &mut self,
        new: &XstatePolicy,
        drop: ComponentSet,
        cpu: &mut PcpuXstate<H>,
        memory: &mut impl AreaMemory,
    ) -> Result<PreparedPolicy, PolicyError> {
        let offered = cpu.host().offered();
        if rule!("policy-host") && !offered.contains(new.mask) {
            return Err(PolicyError::Host(new.mask.difference(offered), offered));
        }

        // Its fields may say what no policy can.
        let new = &new.within(offered);

        // Registers that the guest has written stay valid under the new policy.
        let capable = cpu.host().geometry().xfd_capable();
        let may_enable = if new.xsave {
            new.mask
        } else {
            Xcr0::RESET.components()
        };
        let disabled = self.xfd.components().union(self.xfd_err.components());
        for (named, may_name) in [
            (self.enabled(), may_enable),
            (disabled, new.disableable(capable)),
        ] {
            if rule!("policy-enabled") && !may_name.contains(named) {
                return Err(PolicyError::Enabled(named.difference(may_name), may_name));
            }
        }

        let in_use = self.in_use(cpu).difference(new.mask).difference(drop);
        if rule!("policy-in-use") && !in_use.is_empty() {
            return Err(PolicyError::InUse(in_use, new.mask.union(drop)));
        }

        let geometry = cpu.host().geometry();
        let accum = self
            .accum
            .intersection(new.mask)
            .union(new.initial_accum(geometry.supervisor()))
            .union(needs_room(self.enabled(), capable));
        let mask = if rule!("area-follows-policy") {
            new.area(accum)
        } else {
            self.area.mask()
        };
        let area = if mask == self.area.mask() {
            None
        } else {
            let area = self.area.relaid(geometry, mask, memory);
            Some(area.map_err(PolicyError::OutOfMemory)?)
        };
        Ok(PreparedPolicy {
            policy: *new,
            accum,
            area,
            made_from: self.basis(),
        })
    }

    const fn basis(&self) -> Basis {
        Basis {
            version: self.version(),
            accum: self.accum,
            registers: [self.xcr0(), self.xss(), self.xfd(), self.xfd_err()],
        }
    }

    /// Carries a prepared change out. The vCPU must not have run since, nor
    /// have been changed in any other way: that would be a broken invariant of
    /// the host, and panics.
    pub fn commit_policy(
        &mut self,
        prepared: PreparedPolicy,
        memory: &mut impl AreaMemory,
    ) -> Resized {
        if rule!("policy-change-of-this-state") {
            assert_eq!(prepared.made_from, self.basis(), "changed since: {self:?}");
        }
        let before_bytes = self.area.size_bytes();
        if let Some(area) = prepared.area {
            self.replace_area(area, memory);
        }
        self.policy = prepared.policy;
        self.accum = prepared.accum;
        Resized {
            before_bytes,
            after_bytes: self.area.size_bytes(),
        }
    }

    /// Changes the policy of a vCPU alone.
    ///
    /// # Errors
    /// As [`prepare_policy`](Self::prepare_policy).
    pub fn set_policy<H: Hardware>(
        &mut self,
        new: &XstatePolicy,
        drop: ComponentSet,
        cpu: &mut PcpuXstate<H>,
        memory: &mut impl AreaMemory,
    ) -> Result<Resized, PolicyError> {
        let prepared = self.prepare_policy(new, drop, cpu, memory)?;
        Ok(self.commit_policy(prepared, memory))
    }

    /// Gives back the room of deferred components that are INIT and cannot be
    /// dirtied unnoticed: disabled in XCR0 and IA32_XSS, or under XFD, which is
    /// armed for them from then on.
    ///
    /// # Errors
    /// No memory for the smaller area, which must exist before the larger one
    /// goes; nothing changed.
    pub fn reclaim<H: Hardware>(
        &mut self,
        cpu: &mut PcpuXstate<H>,
        memory: &mut impl AreaMemory,
    ) -> Result<Resized, OutOfMemory> {
        let before_bytes = self.area.size_bytes();
        let held = self.in_use(cpu);
        let geometry = cpu.host().geometry();
        let dirtied_unnoticed = needs_room(self.enabled(), geometry.xfd_capable());
        let idle = self
            .policy
            .deferred
            .difference(if rule!("reclaim-keeps-state") {
                held
            } else {
                ComponentSet::EMPTY
            })
            .difference(if rule!("reclaim-keeps-enabled") {
                dirtied_unnoticed
            } else {
                ComponentSet::EMPTY
            });
        let accum = self.accum.difference(idle);
        let mask = self.policy.area(accum);
        if mask != self.area.mask() {
            let smaller = self.area.relaid(geometry, mask, memory)?;
            self.replace_area(smaller, memory);
        }
        self.accum = accum;
        Ok(Resized {
            before_bytes,
            after_bytes: self.area.size_bytes(),
        })
    }
}
