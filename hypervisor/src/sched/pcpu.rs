//! What one physical CPU keeps for running vCPUs: the backend's own things, the
//! extended state that its registers hold, and whose that is.

use super::VcpuRef;
use crate::domain::Domain;
use crate::vcpu::Vcpu;
use crate::virt::ActiveCpu;
use alloc::sync::{Arc, Weak};
use vcpu_xstate::hw::{RestoreFault, Silicon};
use vcpu_xstate::percpu::PcpuXstate;

/// The owner of what this CPU's registers hold. It does not keep the domain
/// alive: registers of a domain that is gone belong to nobody.
struct Holder {
    domain: Weak<Domain>,
    index: usize,
    /// Of its extended state.
    number: u64,
}

/// One physical CPU.
pub struct Pcpu {
    /// The backend's.
    pub backend: ActiveCpu,
    /// Extended state in this CPU's registers.
    pub xstate: PcpuXstate<Silicon>,
    /// RDTSCP or RDPID is there, and TSC_AUX with it.
    pub has_tsc_aux: bool,
    holder: Option<Holder>,
}

impl Pcpu {
    /// A CPU whose registers hold nobody's state.
    #[must_use]
    pub const fn new(backend: ActiveCpu, xstate: PcpuXstate<Silicon>, has_tsc_aux: bool) -> Self {
        Self {
            backend,
            xstate,
            has_tsc_aux,
            holder: None,
        }
    }

    /// Makes `vcpu`, which is `target`, the owner of this CPU's registers. Where
    /// it is already, and nobody touched its image, nothing is moved.
    ///
    /// # Errors
    /// The processor refused the state: the vCPU must not run.
    pub fn switch_to(&mut self, target: &VcpuRef, vcpu: &mut Vcpu) -> Result<(), RestoreFault> {
        if let Some(holder) = &self.holder
            && holder.index == target.index
            && core::ptr::eq(holder.domain.as_ptr(), Arc::as_ptr(&target.domain))
        {
            return self.xstate.load(&mut vcpu.xstate);
        }
        self.change(Some(vcpu))?;
        vcpu.live.load(self.has_tsc_aux);
        self.holder = Some(Holder {
            domain: Arc::downgrade(&target.domain),
            index: target.index,
            number: vcpu.xstate.number(),
        });
        Ok(())
    }

    /// Saves what the registers hold into its owner's memory. Returns when
    /// nobody owns them.
    pub fn release(&mut self) {
        let saved = self.change(None);
        debug_assert!(saved.is_ok(), "nothing was restored");
    }

    /// Saves whoever the registers belong to, and restores `next`.
    fn change(&mut self, next: Option<&mut Vcpu>) -> Result<(), RestoreFault> {
        let holder = self.holder.take();
        let domain = holder.as_ref().map(|holder| holder.domain.upgrade());
        let (index, number) = holder.map_or((0, 0), |holder| (holder.index, holder.number));
        let cell = match &domain {
            Some(Some(domain)) => domain.vcpus.get(index),
            Some(None) => {
                // A domain that is gone: its registers are nobody's.
                self.xstate.discard_gone(number);
                None
            }
            None => None,
        };
        match (cell, next) {
            (Some(cell), next) => {
                // Nobody else runs it: its state is in these registers.
                let mut last = cell.vcpu.lock();
                last.live.save();
                match next {
                    Some(next) => self.xstate.switch(&mut last.xstate, &mut next.xstate),
                    None => {
                        self.xstate.save(&mut last.xstate);
                        Ok(())
                    }
                }
            }
            (None, Some(next)) => self.xstate.load(&mut next.xstate),
            (None, None) => Ok(()),
        }
    }
}
