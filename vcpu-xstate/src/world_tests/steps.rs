//! What each step of the walk does to the world, and what must come of it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Step;
use super::world::{World, bytes_of, set};
use crate::component::{ComponentIndex, ComponentSet};
use crate::masks::XstatePolicy;
use crate::model::{Machine, Registers};
use crate::owner::{Home, ImportError, WriteXssError, XsetbvError};
use crate::percpu::CpuId;
use crate::update::{Update, UpdateError};
use crate::validate::validate;
use crate::xcr0::Xcr0Error;

impl World {
    pub fn step(&mut self, step: Step) {
        let count = self.guests.len();
        match step {
            Step::Run {
                vcpu,
                cpu,
                component,
                seed,
                mxcsr,
            } => self.run(vcpu % count, cpu % 2, component, seed, mxcsr),
            Step::SetXcr0 { vcpu, bits } => self.set_xcr0(vcpu % count, bits),
            Step::SetXss { vcpu, bits } => self.set_xss(vcpu % count, bits),
            Step::SetXfd { vcpu, bits, error } => self.set_xfd(vcpu % count, bits, error),
            Step::Update {
                vcpu,
                component,
                seed,
                finish,
            } => {
                if let Some(component) = ComponentIndex::new(component) {
                    self.update(vcpu % count, component, seed, finish);
                }
            }
            Step::SetPolicy {
                vcpu,
                mask,
                drop,
                deferred,
                meanwhile,
            } => self.set_policy(vcpu % count, mask, drop, deferred, meanwhile),
            Step::Reclaim { vcpu } => {
                let (vcpu, cpu) = (vcpu % count, self.at(vcpu % count));
                let state = &mut self.guests[vcpu].state;
                if let Ok(resized) = state.reclaim(&mut self.cpus[cpu], &mut self.memory) {
                    assert!(resized.after_bytes <= resized.before_bytes);
                }
            }
            Step::Copy {
                from,
                to,
                meanwhile,
            } => self.copy(from % count, to % count, meanwhile),
            Step::Reset { vcpu } => self.reset(vcpu % count),
            Step::Suspend { cpu, xfd } => {
                let cpu = cpu % 2;
                for vcpu in 0..count {
                    if self.guests[vcpu].state.home() == Home::Registers(CpuId(cpu as u32)) {
                        self.bring_home(vcpu);
                    }
                }
                let model = self.model(cpu);
                let xfd = xfd & model.machine().xfd_capable();
                model.reset(xfd);
                self.cpus[cpu].reset();
            }
            Step::NoMemory => self.memory.fail_at = Some(self.memory.calls),
        }
        self.settle();
        self.check();
    }

    fn run(&mut self, vcpu: usize, cpu: usize, component: u8, seed: u8, mxcsr: bool) {
        self.enter(vcpu, cpu);
        if let Some(component) = ComponentIndex::new(component)
            && self.guests[vcpu].state.policy().mask.has(component)
            && self.can_use(vcpu, cpu, component)
        {
            let model = self.model(cpu);
            let mut registers = model.registers().clone();
            pattern(&mut registers, model.machine(), component, seed);
            let bytes = bytes_of(&registers, component);
            model.put(component, &bytes);
            if component == ComponentIndex::SSE {
                model.ldmxcsr(registers.mxcsr).unwrap();
            }
        }
        if self.guests[vcpu].state.home() == Home::Memory {
            // It waits for memory before its instruction.
            return;
        }
        let model = self.model(cpu);
        if mxcsr {
            model.ldmxcsr(0x1f80 | u32::from(seed & 0x3f)).unwrap();
        }
        self.guests[vcpu].expected = self.cpus[cpu].hardware().cpu.registers().clone();
    }

    fn set_xcr0(&mut self, vcpu: usize, bits: u64) {
        let cpu = self.at(vcpu);
        let guest = &mut self.guests[vcpu];
        let value = set(bits | 1)
            .intersection(guest.state.policy().mask)
            .intersection(self.cpus[cpu].host().user())
            .whole_groups()
            .bits();
        let set = guest
            .state
            .set_xcr0(value, 0, &mut self.cpus[cpu], &mut self.memory);
        match set {
            Ok(()) => {
                assert!(guest.state.policy().xsave);
                guest.controls.xcr0 = value;
            }
            Err(XsetbvError::NeedsMemory(_)) => {}
            Err(XsetbvError::Fault(error)) => assert_eq!(error, Xcr0Error::WithoutXsave(value)),
        }
    }

    fn set_xss(&mut self, vcpu: usize, bits: u64) {
        let cpu = self.at(vcpu);
        let guest = &mut self.guests[vcpu];
        let supervisor = self.cpus[cpu].host().supervisor();
        let value = set(bits)
            .intersection(guest.state.policy().mask)
            .intersection(supervisor)
            .bits();
        let written = guest
            .state
            .set_xss(value, &mut self.cpus[cpu], &mut self.memory);
        match written {
            Ok(()) => guest.controls.xss = value,
            Err(error) => assert!(matches!(error, WriteXssError::NeedsMemory(_)), "{error:?}"),
        }
    }

    fn set_xfd(&mut self, vcpu: usize, bits: u64, error: bool) {
        let host = self.host().clone();
        let guest = &mut self.guests[vcpu];
        let capable = host.geometry().xfd_capable();
        let value = set(bits)
            .intersection(guest.state.policy().mask)
            .intersection(capable)
            .bits();
        if error {
            guest.state.set_xfd_err(value, &host).unwrap();
            guest.controls.xfd_err = value;
        } else {
            guest.state.set_xfd(value, &host).unwrap();
            guest.controls.xfd = value;
        }
    }

    fn update(&mut self, vcpu: usize, component: ComponentIndex, seed: u8, finish: bool) {
        let cpu = self.at(vcpu);
        let in_policy = self.guests[vcpu].state.policy().mask.has(component);
        let machine = self.model(cpu).machine().clone();
        let host = self.host().clone();
        let guest = &mut self.guests[vcpu];
        let disabled = set(guest.controls.xfd).has(component);
        let mut new = guest.expected.clone();
        if component == ComponentIndex::X87 {
            // It is saved for this.
            guest.saved |= guest.state.home() != Home::Memory;
            new = guest.in_image(&host);
        }
        let begun = guest
            .state
            .begin_update(component, &mut self.cpus[cpu], &mut self.memory);
        let mut update = match begun {
            Ok(update) => update,
            Err(UpdateError::Policy(..)) => return assert!(!in_policy),
            Err(UpdateError::Xfd(..)) => return assert!(disabled),
            Err(error) => return assert!(matches!(error, UpdateError::NeedsMemory(_)), "{error}"),
        };
        assert!(in_policy && !disabled);
        assert_eq!(
            update.bytes(),
            bytes_of(&new, component),
            "{component} of {vcpu}"
        );
        pattern(&mut new, &machine, component, seed);
        let bytes = bytes_of(&new, component);
        update.bytes_mut().copy_from_slice(&bytes);
        if finish {
            update.finish().unwrap();
            guest.expected = new;
            if component == ComponentIndex::X87 {
                (guest.saved, guest.was_live) = (false, false);
            }
        }
    }

    fn set_policy(
        &mut self,
        vcpu: usize,
        mask: u64,
        drop: bool,
        deferred: bool,
        meanwhile: Option<Box<Step>>,
    ) {
        let cpu = self.at(vcpu);
        let mask = set(mask).intersection(self.host().offered());
        let deferred = if deferred {
            ComponentSet::CET
        } else {
            ComponentSet::EMPTY
        };
        let new = XstatePolicy::new(mask, deferred);
        let drop = if drop {
            ComponentSet::ALL
        } else {
            ComponentSet::EMPTY
        };
        let lost = ComponentSet::ALL.difference(new.mask);
        let had = self.memory.live_blocks;
        let state = &mut self.guests[vcpu].state;
        let prepared = state.prepare_policy(&new, drop, &mut self.cpus[cpu], &mut self.memory);
        let Ok(prepared) = prepared else {
            return;
        };
        let blocks = self.memory.live_blocks - had;
        self.set_aside += blocks;
        self.settle();
        let before = self.basis(vcpu);
        if let Some(step) = meanwhile {
            self.step(*step);
        }
        self.set_aside -= blocks;
        let changed = before != self.basis(vcpu);
        let state = &mut self.guests[vcpu].state;
        let memory = &mut self.memory;
        let committed = catch_unwind(AssertUnwindSafe(|| state.commit_policy(prepared, memory)));
        assert_eq!(committed.is_err(), changed, "made for another state");
        if changed {
            self.take_back(blocks);
            return;
        }
        let expected = &mut self.guests[vcpu].expected;
        for component in lost {
            assert!(drop.has(component) || expected.is_init(component));
            expected.set_init(component);
        }
    }

    /// All that a prepared change of policy depends on.
    fn basis(&self, vcpu: usize) -> impl PartialEq + use<> {
        let guest = &self.guests[vcpu];
        let state = &guest.state;
        (state.version(), state.accum(), guest.controls)
    }

    fn copy(&mut self, from: usize, to: usize, meanwhile: Option<Box<Step>>) {
        let host = self.host().clone();
        let at = self.at(from);
        let (source, cpu) = (&mut self.guests[from], &mut self.cpus[at]);
        // Longer than any image: what is measured afterwards is what was written.
        let mut out = vec![0xaa; 0x4000];
        let exported = source.state.export(cpu, &mut out).unwrap();
        assert_eq!(exported.image_len, source.state.export_size(cpu));
        out.truncate(exported.image_len);
        self.settle();
        let source = &self.guests[from];
        let (expected, controls) = (source.in_image(&host), source.controls);
        let theirs = *source.state.policy();
        let canonical = self.canonical(&theirs, &expected);
        assert!(out == canonical, "the same state is other bytes");

        let policy = *self.guests[to].state.policy();
        let trusted = validate(&exported.claims, host.geometry(), &out, &host, &policy);
        if let Some(step) = meanwhile {
            self.step(*step);
        }
        let image = match trusted {
            Ok(image) => image,
            Err(refused) if theirs.xsave != policy.xsave => {
                return assert_eq!(refused.rule(), "policy-xsave");
            }
            Err(refused) => {
                assert_eq!(refused.rule(), "xstate-mask-policy");
                return assert!(!policy.mask.contains(theirs.mask));
            }
        };
        // The other one's registers are given up where they are.
        let cpu = self.at(to);
        let target = &mut self.guests[to];
        let now = *target.state.policy();
        let taken = target
            .state
            .import(&image, &mut self.cpus[cpu], &mut self.memory);
        match taken {
            Ok(()) => {
                (target.expected, target.controls) = (expected, controls);
                (target.saved, target.was_live) = (false, false);
            }
            // The policy was another one when it was judged.
            Err(ImportError::Policy(..)) => assert!(!now.mask.contains(theirs.mask)),
            Err(ImportError::Xsave(..)) => assert_ne!(now.xsave, theirs.xsave),
            Err(error) => assert!(matches!(error, ImportError::NeedsMemory(_)), "{error:?}"),
        }
    }

    fn reset(&mut self, vcpu: usize) {
        let policy = *self.guests[vcpu].state.policy();
        let fail_at = self.memory.fail_at.take();
        let new = self.guest(&policy);
        let old = core::mem::replace(&mut self.guests[vcpu], new);
        match old.state.home() {
            Home::Registers(CpuId(cpu)) => {
                self.cpus[cpu as usize].discard(old.state, &mut self.memory);
            }
            Home::Memory => old.state.release(&mut self.memory).unwrap(),
        }
        self.memory.fail_at = fail_at.map(|_| self.memory.calls);
    }
}

/// Contents that differ by `seed`: INIT, or a pattern, every other one with what
/// hardware treats in a way of its own: x87 without an exception pending, UINTR
/// with UINV.
fn pattern(registers: &mut Registers, machine: &Machine, component: ComponentIndex, seed: u8) {
    if seed >= 0xc0 {
        registers.set_init(component);
        if component == ComponentIndex::SSE {
            registers.mxcsr = 0x1f80;
        }
        return;
    }
    registers.set_pattern(machine, component, seed);
    if seed.is_multiple_of(2) {
        return;
    }
    match component {
        ComponentIndex::X87 => registers.x87.fsw &= !0x8080,
        ComponentIndex::UINTR => {
            if let Some(uinv) = registers.component_mut(component).get_mut(20) {
                *uinv = seed;
            }
        }
        _ => {}
    }
}
