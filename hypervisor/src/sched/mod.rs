//! Who runs next: one round-robin queue of vCPUs per host.
//!
//! The queue holds every vCPU, whether it can run or not, and the choice walks
//! it from where it last stopped. With the few dozen vCPUs that a host of this
//! kind has, the walk costs less than moving vCPUs between lists on every wake
//! would, and a wake is a store to an atomic.

pub mod pcpu;
pub mod run;

use crate::domain::{Domain, VcpuCell};
use alloc::sync::Arc;
use alloc::vec::Vec;
use spin::mutex::SpinMutex;
use xferry_abi::DomainId;

/// A vCPU by its domain and number.
#[derive(Clone)]
pub struct VcpuRef {
    /// Its domain.
    pub domain: Arc<Domain>,
    /// Its number in it, which the domain has.
    index: usize,
}

impl VcpuRef {
    /// Vcpu `index` of `domain`, if it has one.
    #[must_use]
    pub fn new(domain: &Arc<Domain>, index: usize) -> Option<Self> {
        (index < domain.vcpus.len()).then(|| Self {
            domain: Arc::clone(domain),
            index,
        })
    }

    /// The vCPU.
    #[must_use]
    pub fn cell(&self) -> &VcpuCell {
        // Checked in `new`, and a domain's vCPUs do not change.
        &self.domain.vcpus[self.index]
    }

    /// Whether both are the same vCPU.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.index == other.index && Arc::ptr_eq(&self.domain, &other.domain)
    }
}

/// What to do now.
pub enum Choice {
    /// Run this.
    Run(VcpuRef),
    /// Nothing can run before this host time, ns since boot; `u64::MAX` for
    /// nothing at all.
    IdleUntil(u64),
}

/// The queue.
pub struct Queue {
    entries: Vec<VcpuRef>,
    last: usize,
}

/// The one queue.
pub static QUEUE: SpinMutex<Queue> = SpinMutex::new(Queue::new());

/// There was no memory for a longer queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

impl Queue {
    /// Empty.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            entries: Vec::new(),
            last: 0,
        }
    }

    /// Adds all vCPUs of a domain.
    ///
    /// # Errors
    /// No memory; none was added.
    pub fn add(&mut self, domain: &Arc<Domain>) -> Result<(), OutOfMemory> {
        let vcpus = domain.vcpus.len();
        self.entries.try_reserve(vcpus).map_err(|_| OutOfMemory)?;
        self.entries
            .extend((0..vcpus).filter_map(|index| VcpuRef::new(domain, index)));
        Ok(())
    }

    /// Removes them, in place: a full heap must not keep a domain alive. The
    /// caller holds the domain, so none of these references is its last.
    pub fn remove(&mut self, id: DomainId) {
        self.entries.retain(|entry| entry.domain.id != id);
        self.last = 0;
    }

    /// Chooses the next vCPU at host time `now_ns`, beginning behind the one
    /// that was chosen last.
    pub fn choose(&mut self, now_ns: u64) -> Choice {
        let count = self.entries.len();
        let mut wake = u64::MAX;
        for step in 1..=count {
            let at = (self.last + step) % count;
            let entry = &self.entries[at];
            if !entry.domain.status.runnable() {
                continue;
            }
            let cell = entry.cell();
            if !cell.ready(now_ns) {
                wake = wake.min(cell.blocked_until_ns());
                continue;
            }
            // Somebody else runs it, or a control call holds it.
            if cell.vcpu.is_locked() {
                continue;
            }
            self.last = at;
            return Choice::Run(entry.clone());
        }
        Choice::IdleUntil(wake)
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self::new()
    }
}
