//! Machines under the oracle: one description, read by the library and by the model.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use proptest::test_runner::{Config, TestRunner};
use vcpu_xstate::area::{AreaMemory, Block};
use vcpu_xstate::hw::Modelled;
use vcpu_xstate::model::{Cpu, InitTracking, Machine};
use vcpu_xstate::{ComponentSet, HostXstate, XstatePolicy};

use crate::table::Dump;
use crate::{builtin, table};

/// A machine that has XSAVE.
pub struct Host {
    pub name: String,
    dump: Dump,
    pub host: HostXstate,
}

/// One of each layout.
pub static HOSTS: LazyLock<Vec<Host>> = LazyLock::new(|| {
    let machines: BTreeMap<String, Dump> = table::load().unwrap_or_else(builtin::machines);
    let mut seen = BTreeSet::new();
    let mut hosts = Vec::new();
    for (name, dump) in machines {
        let host = HostXstate::read(&|leaf, subleaf| dump.cpuid(leaf, subleaf), 0xffff);
        if let Ok(mut host) = host
            && seen.insert(dump.layout())
        {
            host.permit(ComponentSet::ALL);
            hosts.push(Host { name, dump, host });
        }
    }
    assert!(hosts.len() >= 8, "{} machines", hosts.len());
    hosts
});

/// The machine with this number, taken modulo how many there are.
pub fn host(number: usize) -> &'static Host {
    &HOSTS[number % HOSTS.len()]
}

impl Host {
    fn machine(&self) -> Machine {
        Machine::read(&|leaf, subleaf| self.dump.cpuid(leaf, subleaf), 0xffff)
    }

    /// Its processor, with what the host offers enabled.
    pub fn cpu(&self, tracking: InitTracking) -> Cpu {
        let mut cpu = Cpu::new(self.machine(), tracking);
        let (user, supervisor) = (self.host.user().bits(), self.host.supervisor().bits());
        cpu.xsetbv(0, user).expect("the host's own XCR0");
        if supervisor != 0 {
            cpu.wrmsr(0xda0, supervisor).expect("the host's own XSS");
        }
        cpu
    }

    /// Its processor under the library's switch code.
    pub fn modelled(&self, tracking: InitTracking) -> Modelled {
        let cpuid = |leaf, subleaf| self.dump.cpuid(leaf, subleaf);
        Modelled::new(&cpuid, self.host.clone(), tracking)
    }

    /// The largest policy within `bits`.
    pub fn policy(&self, bits: u64) -> XstatePolicy {
        let offered = self.host.offered();
        let mask = offered.intersection(ComponentSet::from_bits_retain(bits | 3));
        let user = mask.intersection(self.host.user()).whole_groups();
        let mask = user.union(mask.intersection(self.host.supervisor()));
        XstatePolicy::new(mask, ComponentSet::EMPTY)
    }
}

/// Memory without end.
pub struct Heap;

impl AreaMemory for Heap {
    fn allocate(&mut self, blocks: usize) -> Option<Vec<Block>> {
        Some(vec![Block::ZERO; blocks])
    }

    fn release(&mut self, blocks: Vec<Block>) {
        drop(blocks);
    }
}

/// Runs cases without writing what failed to a file beside the test.
pub fn runner(cases: u32) -> TestRunner {
    TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    })
}
