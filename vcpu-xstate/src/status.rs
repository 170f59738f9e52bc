//! What a vCPU uses, component by component, for whoever looks at a domain.

use crate::component::{ComponentIndex, ComponentSet};
use crate::hw::Hardware;
use crate::mutants::rule;
use crate::owner::VcpuXstate;
use crate::percpu::PcpuXstate;

/// Whether a component holds state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// It holds its initial configuration.
    Init,
    /// It holds something else.
    InUse,
}

/// One component of a vCPU's policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ComponentStatus {
    /// Which.
    pub index: ComponentIndex,
    /// Its size on this machine, in bytes.
    pub size_bytes: usize,
    /// Whether it has room in the area.
    pub area: bool,
    /// Whether it may hold state.
    pub accum: bool,
    /// Whether it does.
    pub state: Use,
}

impl VcpuXstate {
    /// What is not INIT, by content.
    pub fn in_use<H: Hardware>(&mut self, cpu: &mut PcpuXstate<H>) -> ComponentSet {
        if rule!("in-use-saves-first") {
            cpu.save(self);
        }
        self.area.image(cpu.host().geometry()).in_use()
    }

    /// Every component of the policy, ascending.
    pub fn status<'a, H: Hardware>(
        &mut self,
        cpu: &'a mut PcpuXstate<H>,
    ) -> impl Iterator<Item = ComponentStatus> + use<'a, H> {
        let in_use = self.in_use(cpu);
        let (area, accum) = (self.area.mask(), self.accum);
        let geometry = cpu.host().geometry();
        self.policy.mask.iter().map(move |index| ComponentStatus {
            index,
            size_bytes: match geometry.get(index) {
                Some(facts) => facts.size_bytes as usize,
                None => index.payload_bytes().unwrap_or(0),
            },
            area: area.has(index),
            accum: accum.has(index),
            state: if in_use.has(index) {
                Use::InUse
            } else {
                Use::Init
            },
        })
    }
}
