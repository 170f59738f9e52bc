//! IA32_XFD of one vCPU: the guest's own, what the hypervisor arms besides, and whose a #NM is.

use crate::area::AreaMemory;
use crate::component::ComponentSet;
use crate::cpuid::HostXstate;
use crate::hw::Hardware;
use crate::masks::armed;
use crate::mutants::rule;
use crate::owner::{FirstUse, Home, VcpuXstate};
use crate::percpu::PcpuXstate;
use crate::xfd::{HeldBack, XfdError, first_use_verdict, xfd_verdict};

impl VcpuXstate {
    /// Carries out a write of IA32_XFD by the guest, which is always
    /// intercepted: passed through, it could not be armed. It needs no memory:
    /// what it enables without having room stays armed until its first use.
    /// What it disables is INIT in memory: at once, or at the next save.
    ///
    /// What [`intercepts_nm`](Self::intercepts_nm) says may be new after it.
    ///
    /// # Errors
    /// #GP for the guest.
    pub fn set_xfd(&mut self, value: u64, host: &HostXstate) -> Result<(), XfdError> {
        self.xfd = xfd_verdict(value, self.xfd_capable(host))?;
        if rule!("xfd-forgets-in-memory") && self.home == Home::Memory {
            self.forget_disabled();
        }
        Ok(())
    }

    /// Carries out a write of IA32_XFD_ERR by the guest.
    ///
    /// # Errors
    /// #GP for the guest.
    pub fn set_xfd_err(&mut self, value: u64, host: &HostXstate) -> Result<(), XfdError> {
        self.xfd_err = xfd_verdict(value, self.xfd_capable(host))?;
        Ok(())
    }

    /// Handles a first use that the hypervisor may have held back: a #NM with
    /// these components in IA32_XFD_ERR, or the first write of an intercepted
    /// MSR of a deferred supervisor component. What the verdict says to grow
    /// has grown when this returns, unless it has to wait for memory. Of a #NM
    /// that is the guest's own, IA32_XFD_ERR is the guest's from here on: the
    /// handler reads what the processor noted.
    pub fn first_use<H: Hardware>(
        &mut self,
        components: ComponentSet,
        cpu: &mut PcpuXstate<H>,
        memory: &mut impl AreaMemory,
    ) -> FirstUse {
        let supervisor = cpu.host().geometry().supervisor();
        let deferred = self.policy.deferred.intersection(supervisor);
        let held = HeldBack {
            by_guest: self.xfd.components(),
            armed: self.armed(cpu.host()),
            intercepted: deferred.difference(self.accum),
        };
        let verdict = if rule!("first-use-grows") {
            first_use_verdict(components, &held)
        } else {
            FirstUse::Reflect
        };
        let FirstUse::Grow(first) = verdict else {
            // The processor noted components that XFD can disable, or nothing
            // (CR0.TS); an MSR's component is none of them.
            let noted = components.intersection(self.xfd_capable(cpu.host()));
            if rule!("xfd-err-of-the-guests-own-nm")
                && !noted.is_empty()
                && let Ok(xfd_err) = xfd_verdict(noted.bits(), noted)
            {
                self.xfd_err = xfd_err;
            }
            return verdict;
        };
        match self.grow(self.accum.union(first), cpu, memory) {
            Ok(()) => verdict,
            Err(missing) => FirstUse::Wait(missing),
        }
    }

    /// What IA32_XFD must be while this vCPU runs: the guest's value and what
    /// the hypervisor arms.
    pub fn hardware_xfd(&self, host: &HostXstate) -> ComponentSet {
        self.xfd.components().union(self.armed(host))
    }

    /// Whether #NM must exit while this vCPU runs: wherever a bit of the
    /// hardware's IA32_XFD is set. Such a #NM writes IA32_XFD_ERR, whose value
    /// is otherwise known without reading it, and may be the hypervisor's own.
    pub fn intercepts_nm(&self, host: &HostXstate) -> bool {
        !self.hardware_xfd(host).is_empty()
    }

    fn armed(&self, host: &HostXstate) -> ComponentSet {
        armed(self.enabled(), host.geometry().xfd_capable(), self.accum)
    }

    fn xfd_capable(&self, host: &HostXstate) -> ComponentSet {
        self.policy.disableable(host.geometry().xfd_capable())
    }

    /// What was there and is not any more makes another state of it: a copy in
    /// registers that still have it must not be taken.
    pub(crate) fn forget_disabled(&mut self) {
        if self.area.forget(self.xfd.components()) && rule!("xfd-forgets-new-generation") {
            self.generation += 1;
        }
    }
}
