//! The world of the walk: two processors, vCPUs, what each vCPU must find, and what is always so.

use crate::area::AreaMemory;
use crate::component::{ComponentIndex, ComponentSet};
use crate::cpuid::HostXstate;
use crate::hw::Modelled;
use crate::masks::XstatePolicy;
use crate::model::{Cpu, InitTracking, Reason, Registers};
use crate::owner::{FirstUse, Home, VcpuXstate};
use crate::percpu::{CpuId, PcpuXstate};
use crate::testing::{TestMemory, amd_host, bochs_sapphire_rapids, host, modelled};
use crate::update::Update;

/// The registers that the guest writes by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Controls {
    pub xcr0: u64,
    pub xss: u64,
    pub xfd: u64,
    pub xfd_err: u64,
}

pub struct Guest {
    pub state: VcpuXstate,
    /// What it must find.
    pub expected: Registers,
    pub controls: Controls,
    /// Whether its image is a processor's save, not somebody's update or import.
    pub saved: bool,
    /// Whether its state was in registers when last looked at.
    pub was_live: bool,
}

impl Guest {
    /// What its image holds.
    pub fn in_image(&self, host: &HostXstate) -> Registers {
        let mut registers = self.expected.clone();
        if self.saved {
            lose_pointers(&mut registers, host);
        }
        registers
    }
}

pub struct World {
    pub cpus: Vec<PcpuXstate<Modelled>>,
    pub guests: Vec<Guest>,
    pub memory: TestMemory,
    /// Blocks of areas that no vCPU has yet.
    pub set_aside: usize,
    next_tag: u64,
}

pub fn set(bits: u64) -> ComponentSet {
    ComponentSet::from_bits_retain(bits)
}

impl World {
    pub fn new(instructions: u32, amd: bool, tracking: InitTracking) -> Self {
        let host = if amd {
            amd_host(bochs_sapphire_rapids(), instructions)
        } else {
            host(bochs_sapphire_rapids(), instructions)
        };
        let mut world = Self {
            cpus: (0..2)
                .map(|i| PcpuXstate::new(CpuId(i), modelled(&host, tracking), host.clone()))
                .collect(),
            guests: Vec::new(),
            memory: TestMemory::default(),
            set_aside: 0,
            next_tag: 0,
        };
        let policy = |mask| XstatePolicy::new(set(mask), ComponentSet::EMPTY);
        for policy in [
            XstatePolicy::without_xsave(),
            policy(0x3),
            policy(0x6_5ae7),
            policy(0x2e7),
            XstatePolicy::new(set(0x6_1a07), ComponentSet::CET),
        ] {
            let guest = world.guest(&policy);
            world.guests.push(guest);
        }
        world
    }

    pub fn guest(&mut self, policy: &XstatePolicy) -> Guest {
        self.next_tag += 1;
        let host = self.cpus[0].host();
        Guest {
            state: VcpuXstate::new(self.next_tag, policy, host, &mut self.memory).unwrap(),
            expected: Registers::init(self.cpus[0].hardware().cpu.machine()),
            controls: Controls {
                xcr0: 1,
                xss: 0,
                xfd: 0,
                xfd_err: 0,
            },
            saved: false,
            was_live: false,
        }
    }

    pub fn host(&self) -> &HostXstate {
        self.cpus[0].host()
    }

    /// The processor that has the vCPU, or the first.
    pub fn at(&self, vcpu: usize) -> usize {
        match self.guests[vcpu].state.home() {
            Home::Registers(CpuId(cpu)) => cpu as usize,
            Home::Memory => 0,
        }
    }

    pub fn bring_home(&mut self, vcpu: usize) {
        let cpu = self.at(vcpu);
        self.cpus[cpu].save(&mut self.guests[vcpu].state);
        self.settle();
    }

    /// What a guest's IA32_XFD disables is INIT once its state is in memory.
    pub fn settle(&mut self) {
        for guest in &mut self.guests {
            let live = guest.state.home() != Home::Memory;
            guest.saved |= guest.was_live && !live;
            guest.was_live = live;
            if !live {
                for component in set(guest.controls.xfd) {
                    guest.expected.set_init(component);
                }
            }
        }
    }

    /// Loads and enters, and compares every register there is.
    pub fn enter(&mut self, vcpu: usize, cpu: usize) {
        let here = Home::Registers(CpuId(cpu as u32));
        if self.guests[vcpu].state.home() != here {
            self.bring_home(vcpu);
        }
        let before = self.cpus[cpu].hardware().restores();
        let in_the_way = (0..self.guests.len())
            .find(|other| *other != vcpu && self.guests[*other].state.home() == here);
        if let Some(other) = in_the_way {
            let pair = self.guests.get_disjoint_mut([other, vcpu]);
            let [other, guest] = pair.expect("two vCPUs");
            let switched = self.cpus[cpu].switch(&mut other.state, &mut guest.state);
            switched.expect("no fault");
            self.settle();
        } else {
            let loaded = self.cpus[cpu].load(&mut self.guests[vcpu].state);
            loaded.expect("no fault");
        }
        let host = self.cpus[cpu].host().clone();
        let model = &self.cpus[cpu].hardware();
        let guest = &mut self.guests[vcpu];
        if model.restores() != before {
            lose_pointers(&mut guest.expected, &host);
        }
        guest.was_live = true;
        self.cpus[cpu].enter(&guest.state);
        let model = &self.cpus[cpu].hardware().cpu;
        let differ = model
            .registers()
            .differences(&guest.expected, host.offered().bits());
        let differ = set(differ);
        assert!(differ.is_empty(), "{differ}: not as {vcpu} left them");
        // Held back besides: what is enabled and has no room.
        let enabled = set(guest.controls.xcr0 | guest.controls.xss);
        let capable = host.geometry().xfd_capable();
        let armed = enabled
            .intersection(capable)
            .difference(guest.state.area_mask());
        let found = Controls {
            xcr0: model.xcr0(),
            xss: model.xss(),
            xfd: model.xfd(),
            xfd_err: model.xfd_err(),
        };
        let wanted = Controls {
            xfd: guest.controls.xfd | armed.bits(),
            ..guest.controls
        };
        assert_eq!(found, wanted, "control registers of {vcpu}");
    }

    /// Lets the vCPU, which runs on `cpu`, use a component, if it can: whether
    /// it can. What the hypervisor held back gets room by the way.
    pub fn can_use(&mut self, vcpu: usize, cpu: usize, component: ComponentIndex) -> bool {
        let only = ComponentSet::only(component);
        let state = &self.guests[vcpu].state;
        // WRMSR is intercepted.
        let intercepted = state.policy().deferred.has(component)
            && self.host().supervisor().has(component)
            && !state.accum().has(component);
        if intercepted && self.first_use(vcpu, cpu, only) != FirstUse::Grow(only) {
            return false;
        }
        let Err(fault) = self.model(cpu).use_component(component) else {
            return true;
        };
        let Reason::XfdUse(_) = fault.reason else {
            let disabled = Reason::Disabled(component);
            assert_eq!(fault.reason, disabled, "a use by {vcpu}");
            return false;
        };
        let (guest, host) = (&self.guests[vcpu], self.host());
        assert!(guest.state.intercepts_nm(host), "#NM goes to {vcpu}");
        let noted = set(self.cpus[cpu].read_xfd_err());
        assert_eq!(noted, only);
        let own = set(self.guests[vcpu].controls.xfd).has(component);
        match self.first_use(vcpu, cpu, noted) {
            FirstUse::Reflect => {
                assert!(own, "{vcpu} learned of what the hypervisor held back");
                self.guests[vcpu].controls.xfd_err = noted.bits();
                false
            }
            FirstUse::Grow(grown) => {
                assert_eq!((own, grown), (false, only));
                true
            }
            FirstUse::Wait(_) => false,
        }
    }

    fn first_use(&mut self, vcpu: usize, cpu: usize, used: ComponentSet) -> FirstUse {
        let state = &mut self.guests[vcpu].state;
        let first = state.first_use(used, &mut self.cpus[cpu], &mut self.memory);
        self.settle();
        if let FirstUse::Grow(_) = first {
            // It tries its instruction again.
            self.enter(vcpu, cpu);
        }
        first
    }

    pub fn model(&mut self, cpu: usize) -> &mut Cpu {
        &mut self.cpus[cpu].hardware_mut().cpu
    }

    /// The canonical image of these registers, written into an area that never
    /// held any other.
    pub fn canonical(&self, policy: &XstatePolicy, registers: &Registers) -> Vec<u8> {
        let host = self.host().clone();
        let mut memory = TestMemory::default();
        let hardware = modelled(&host, InitTracking::ByContent);
        let mut cpu = PcpuXstate::new(CpuId(2), hardware, host);
        let mut vcpu = VcpuXstate::new(0, policy, cpu.host(), &mut memory).unwrap();
        for component in policy.mask {
            let begun = vcpu.begin_update(component, &mut cpu, &mut memory);
            let mut update = begun.unwrap();
            let bytes = bytes_of(registers, component);
            update.bytes_mut().copy_from_slice(&bytes);
            update.finish().unwrap();
        }
        let mut image = vec![0x55; vcpu.export_size(&mut cpu)];
        vcpu.export(&mut cpu, &mut image).unwrap();
        vcpu.release(&mut memory).unwrap();
        image
    }

    /// What is so after every step.
    pub fn check(&self) {
        let blocks: usize = self
            .guests
            .iter()
            .map(|guest| guest.state.area_size_bytes().div_ceil(64))
            .sum();
        let live = self.memory.live_blocks;
        assert_eq!(live, blocks + self.set_aside, "memory lost or used twice");
        for guest in &self.guests {
            let state = &guest.state;
            assert!(state.policy().mask.contains(state.area_mask()));
            assert!(state.area_mask().contains(state.accum()));
            assert!(state.policy().mask.contains(state.enabled()));
            let controls = Controls {
                xcr0: state.xcr0(),
                xss: state.xss(),
                xfd: state.xfd(),
                xfd_err: state.xfd_err(),
            };
            assert_eq!(controls, guest.controls);
        }
    }

    /// Gives up what a prepared change had, which went in a panic.
    pub fn take_back(&mut self, blocks: usize) {
        self.memory.release(vec![crate::area::Block::ZERO; blocks]);
    }
}

/// FOP, FIP and FDP, where neither a save nor a restore has them without an
/// exception pending: a loss of the machine's.
fn lose_pointers(registers: &mut Registers, host: &HostXstate) {
    let x87 = &mut registers.x87;
    if host.leaks_fp_pointers() && !x87.exception_pending() {
        (x87.fop, x87.fip, x87.fdp) = (0, 0, 0);
    }
}

/// A component's bytes as an update shows them.
pub fn bytes_of(registers: &Registers, component: ComponentIndex) -> Vec<u8> {
    match component {
        ComponentIndex::X87 => registers.x87.to_bytes().to_vec(),
        ComponentIndex::SSE => {
            let mxcsr = registers.mxcsr.to_le_bytes();
            [registers.xmm.as_flattened(), &mxcsr].concat()
        }
        _ => registers.component(component).to_vec(),
    }
}
