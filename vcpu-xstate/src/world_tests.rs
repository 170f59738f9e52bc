//! A random walk over processors and vCPUs: every vCPU always finds every register as it left it.

use proptest::prelude::*;

use super::*;
use crate::ComponentIndex;
use crate::CpuId;
use crate::XstatePolicy;
use crate::hw::Modelled;
use crate::model::{InitTracking, Registers};
use crate::testing::{INSTRUCTIONS, TestMemory, bochs_sapphire_rapids, host, modelled};
use crate::validate::validate;

/// One step. Numbers are taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    /// Run a vCPU on a processor, and let it write a component or MXCSR.
    Run {
        vcpu: usize,
        cpu: usize,
        component: u8,
        seed: u8,
        mxcsr: bool,
    },
    SetXcr0 {
        vcpu: usize,
        bits: u64,
    },
    SetXss {
        vcpu: usize,
        bits: u64,
    },
    SetPolicy {
        vcpu: usize,
        mask: u64,
        drop: bool,
    },
    Reclaim {
        vcpu: usize,
    },
    /// Export one and import it into another (or itself).
    Copy {
        from: usize,
        to: usize,
    },
    /// A vCPU goes for good while its state is in a processor, and a new one comes.
    Replace {
        vcpu: usize,
    },
    /// The next allocation fails.
    NoMemory,
}

struct Guest {
    state: VcpuXstate,
    /// What it must find.
    expected: Registers,
}

struct World {
    cpus: Vec<PcpuXstate<Modelled>>,
    guests: Vec<Guest>,
    memory: TestMemory,
    next_tag: u64,
}

fn set(bits: u64) -> ComponentSet {
    ComponentSet::from_bits_retain(bits)
}

impl World {
    fn new(instructions: u32, tracking: InitTracking) -> Self {
        let host = host(bochs_sapphire_rapids(), instructions);
        let mut world = Self {
            cpus: (0..2)
                .map(|i| PcpuXstate::new(CpuId(i), modelled(&host, tracking), host.clone()))
                .collect(),
            guests: Vec::new(),
            memory: TestMemory::default(),
            next_tag: 0,
        };
        for mask in [0x3, 0x6_5ae7, 0x2e7] {
            let guest = world.guest(mask);
            world.guests.push(guest);
        }
        world
    }

    fn guest(&mut self, mask: u64) -> Guest {
        self.next_tag += 1;
        let policy = XstatePolicy::new(set(mask), ComponentSet::EMPTY);
        let host = self.cpus[0].host();
        Guest {
            state: VcpuXstate::new(self.next_tag, &policy, host, &mut self.memory).unwrap(),
            expected: Registers::init(self.cpus[0].hardware().cpu.machine()),
        }
    }

    /// The processor that has the vCPU, or the first.
    fn at(&self, vcpu: usize) -> usize {
        match self.guests[vcpu].state.home() {
            Home::Registers(CpuId(cpu)) => cpu as usize,
            Home::Memory => 0,
        }
    }

    fn bring_home(&mut self, vcpu: usize) {
        let cpu = self.at(vcpu);
        self.cpus[cpu].save(&mut self.guests[vcpu].state);
    }

    /// Loads and enters, and compares every register there is.
    fn enter(&mut self, vcpu: usize, cpu: usize) {
        for other in 0..self.guests.len() {
            let home = self.guests[other].state.home();
            let in_the_way = home == Home::Registers(CpuId(cpu as u32)) && other != vcpu;
            let elsewhere = other == vcpu && home != Home::Registers(CpuId(cpu as u32));
            if in_the_way || elsewhere {
                self.bring_home(other);
            }
        }
        let guest = &mut self.guests[vcpu];
        self.cpus[cpu].load(&mut guest.state).expect("no fault");
        self.cpus[cpu].enter(&guest.state);
        let offered = self.cpus[cpu].host().offered();
        let model = &self.cpus[cpu].hardware().cpu;
        let differ = model
            .registers()
            .differences(&guest.expected, offered.bits());
        let differ = set(differ);
        assert!(differ.is_empty(), "{differ}: not as {vcpu} left them");
        assert_eq!(
            (model.xcr0(), model.xss()),
            (guest.state.xcr0(), guest.state.xss())
        );
    }

    fn write(&mut self, vcpu: usize, cpu: usize, component: ComponentIndex, seed: u8) {
        let guest = &self.guests[vcpu];
        let only = ComponentSet::only(component);
        if !guest.state.accum().contains(only) {
            if !guest.state.enabled().contains(only) {
                return;
            }
            // Enabled without room: XFD is armed, and this is the #NM.
            assert!(self.cpus[cpu].hardware().cpu.xfd() & only.bits() != 0);
            let state = &mut self.guests[vcpu].state;
            let first = state.first_use(only, &mut self.cpus[cpu], &mut self.memory);
            if first != FirstUse::Grow(only) {
                assert!(matches!(first, FirstUse::Wait(_)), "{first:?}");
                return;
            }
            self.enter(vcpu, cpu);
        }
        self.cpus[cpu]
            .hardware_mut()
            .cpu
            .put_pattern(component, seed);
    }

    fn step(&mut self, step: Step) {
        let count = self.guests.len();
        match step {
            Step::Run {
                vcpu,
                cpu,
                component,
                seed,
                mxcsr,
            } => {
                let (vcpu, cpu) = (vcpu % count, cpu % 2);
                self.enter(vcpu, cpu);
                if let Some(component) = ComponentIndex::new(component)
                    && self.guests[vcpu].state.policy().mask.has(component)
                {
                    self.write(vcpu, cpu, component, seed);
                }
                if self.guests[vcpu].state.home() == Home::Memory {
                    // It waits for memory before its instruction.
                    return;
                }
                let model = &mut self.cpus[cpu].hardware_mut().cpu;
                if mxcsr {
                    model.ldmxcsr(0x1f80 | u32::from(seed & 0x3f)).unwrap();
                }
                self.guests[vcpu].expected = model.registers().clone();
            }
            Step::SetXcr0 { vcpu, bits } => {
                let (vcpu, cpu) = (vcpu % count, self.at(vcpu % count));
                let state = &mut self.guests[vcpu].state;
                let value = set(bits | 1)
                    .intersection(state.policy().mask)
                    .intersection(self.cpus[cpu].host().user())
                    .whole_groups();
                let before = state.xcr0();
                match state.set_xcr0(value.bits(), 0, &mut self.cpus[cpu], &mut self.memory) {
                    Ok(()) => assert_eq!(state.xcr0(), value.bits()),
                    Err(error) => {
                        assert!(matches!(error, XsetbvError::NeedsMemory(_)), "{error:?}");
                        assert_eq!(state.xcr0(), before);
                    }
                }
            }
            Step::SetXss { vcpu, bits } => {
                let (vcpu, cpu) = (vcpu % count, self.at(vcpu % count));
                let state = &mut self.guests[vcpu].state;
                let value = state.policy().mask.bits() & self.cpus[cpu].host().supervisor().bits();
                let written = state.set_xss(bits & value, &mut self.cpus[cpu], &mut self.memory);
                assert!(!matches!(written, Err(WriteXssError::Fault(_))));
            }
            Step::SetPolicy { vcpu, mask, drop } => {
                let (vcpu, cpu) = (vcpu % count, self.at(vcpu % count));
                let guest = &mut self.guests[vcpu];
                let mask = set(mask).intersection(self.cpus[cpu].host().offered());
                let new = XstatePolicy::new(mask, ComponentSet::EMPTY);
                let drop = if drop {
                    ComponentSet::ALL
                } else {
                    ComponentSet::EMPTY
                };
                let changed =
                    guest
                        .state
                        .set_policy(&new, drop, &mut self.cpus[cpu], &mut self.memory);
                if changed.is_ok() {
                    for component in ComponentSet::ALL.difference(new.mask) {
                        guest.expected.component_mut(component).fill(0);
                    }
                }
            }
            Step::Reclaim { vcpu } => {
                let (vcpu, cpu) = (vcpu % count, self.at(vcpu % count));
                let state = &mut self.guests[vcpu].state;
                if let Ok(resized) = state.reclaim(&mut self.cpus[cpu], &mut self.memory) {
                    assert!(resized.after_bytes <= resized.before_bytes);
                }
            }
            Step::Copy { from, to } => {
                let (from, to) = (from % count, to % count);
                self.bring_home(from);
                // The other one's registers are given up where they are.
                let cpu = self.at(to);
                let host = self.cpus[cpu].host().clone();
                let cpu = &mut self.cpus[cpu];
                let source = &mut self.guests[from];
                let mut out = vec![0xaa; source.state.export_size(cpu)];
                let exported = source.state.export(cpu, &mut out).unwrap();
                assert_eq!(exported.image_len, out.len());
                let expected = source.expected.clone();
                let target = &mut self.guests[to];
                let policy = *target.state.policy();
                let trusted = validate(&exported.claims, host.geometry(), &out, &host, &policy);
                match trusted {
                    Ok(image) => {
                        if target.state.import(&image, cpu, &mut self.memory).is_ok() {
                            target.expected = expected;
                        }
                    }
                    Err(refused) => assert_eq!(refused.rule(), "xstate-mask-policy"),
                }
            }
            Step::Replace { vcpu } => {
                let vcpu = vcpu % count;
                let mask = self.guests[vcpu].state.policy().mask.bits();
                let fail_at = self.memory.fail_at.take();
                let new = self.guest(mask);
                let old = core::mem::replace(&mut self.guests[vcpu], new);
                match old.state.home() {
                    Home::Registers(CpuId(cpu)) => {
                        self.cpus[cpu as usize].discard(old.state, &mut self.memory);
                    }
                    Home::Memory => old.state.release(&mut self.memory).unwrap(),
                }
                self.memory.fail_at = fail_at.map(|_| self.memory.calls);
            }
            Step::NoMemory => self.memory.fail_at = Some(self.memory.calls),
        }
        let blocks: usize = self
            .guests
            .iter()
            .map(|guest| guest.state.area_size_bytes().div_ceil(64))
            .sum();
        assert_eq!(self.memory.live_blocks, blocks, "memory lost or used twice");
        for guest in &self.guests {
            let state = &guest.state;
            assert!(state.policy.mask.contains(state.area_mask()));
            assert!(state.area_mask().contains(state.accum));
        }
    }
}

fn any_step() -> impl Strategy<Value = Step> {
    let component = prop_oneof![0u8..8, Just(9), Just(11), Just(12), Just(14), 17u8..19];
    let masks = || prop_oneof![any::<u64>(), Just(u64::MAX), Just(0xe7), Just(0x207)];
    prop_oneof![
        8 => (0usize..3, 0usize..2, component, any::<u8>(), any::<bool>()).prop_map(
            |(vcpu, cpu, component, seed, mxcsr)| Step::Run { vcpu, cpu, component, seed, mxcsr }
        ),
        3 => (0usize..3, masks()).prop_map(|(vcpu, bits)| Step::SetXcr0 { vcpu, bits }),
        1 => (0usize..3, masks()).prop_map(|(vcpu, bits)| Step::SetXss { vcpu, bits }),
        1 => (0usize..3, masks(), any::<bool>())
            .prop_map(|(vcpu, mask, drop)| Step::SetPolicy { vcpu, mask, drop }),
        1 => (0usize..3).prop_map(|vcpu| Step::Reclaim { vcpu }),
        2 => (0usize..3, 0usize..3).prop_map(|(from, to)| Step::Copy { from, to }),
        1 => (0usize..3).prop_map(|vcpu| Step::Replace { vcpu }),
        1 => Just(Step::NoMemory),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Saved in full and restored in part (Xen 0129e1ee0d), lost by a re-size,
    /// leaked from the last owner: none of it, with any instruction set.
    #[test]
    fn switches_between_vcpus_never_leak(
        instructions in proptest::sample::select(&INSTRUCTIONS[..]),
        always_one in any::<bool>(),
        steps in proptest::collection::vec(any_step(), 1..60),
    ) {
        let tracking = if always_one { InitTracking::Never } else { InitTracking::ByContent };
        let mut world = World::new(instructions, tracking);
        for step in steps {
            world.step(step);
        }
        for vcpu in 0..world.guests.len() {
            world.enter(vcpu, 1);
        }
    }
}
