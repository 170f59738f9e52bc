//! A random walk over processors and vCPUs: every vCPU always finds every register as it left it.

use proptest::prelude::*;

use crate::model::InitTracking;
use crate::testing::INSTRUCTIONS;
use world::World;

#[path = "world_tests/steps.rs"]
mod steps;
#[path = "world_tests/world.rs"]
mod world;

/// How many vCPUs there are.
const GUESTS: usize = 5;

/// One step. Numbers are taken modulo what there is.
#[derive(Clone, Debug)]
pub enum Step {
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
    /// The guest writes IA32_XFD, or IA32_XFD_ERR.
    SetXfd {
        vcpu: usize,
        bits: u64,
        error: bool,
    },
    /// Somebody else writes a component, or looks at it and leaves it.
    Update {
        vcpu: usize,
        component: u8,
        seed: u8,
        finish: bool,
    },
    /// Prepare a change of policy, let something else happen, and commit.
    SetPolicy {
        vcpu: usize,
        mask: u64,
        drop: bool,
        deferred: bool,
        meanwhile: Option<Box<Step>>,
    },
    Reclaim {
        vcpu: usize,
    },
    /// Export one, let something else happen, and import it into another (or itself).
    Copy {
        from: usize,
        to: usize,
        meanwhile: Option<Box<Step>>,
    },
    /// A vCPU is reset, or goes for good: one with a new tag comes in its place,
    /// while the old one's state may be in a processor.
    Reset {
        vcpu: usize,
    },
    /// A processor goes and comes up again, with this in IA32_XFD.
    Suspend {
        cpu: usize,
        xfd: u64,
    },
    /// The next allocation fails.
    NoMemory,
}

fn any_component() -> impl Strategy<Value = u8> {
    prop_oneof![2 => 0u8..8, 1 => Just(9), 1 => 11u8..13, 1 => Just(14), 2 => 17u8..19]
}

fn masks() -> impl Strategy<Value = u64> {
    prop_oneof![2 => any::<u64>(), 3 => Just(u64::MAX), 1 => Just(0xe7), 1 => Just(0x207)]
}

/// What a walk comes back to again and again: half of its steps are about this
/// vCPU, half about this component.
#[derive(Clone, Copy)]
struct Focus {
    vcpu: usize,
    component: u8,
}

impl Focus {
    fn vcpu(self) -> impl Strategy<Value = usize> {
        prop_oneof![0..GUESTS, Just(self.vcpu)]
    }

    fn component(self) -> impl Strategy<Value = u8> {
        prop_oneof![any_component(), Just(self.component)]
    }

    fn simple_step(self) -> BoxedStrategy<Step> {
        prop_oneof![
            8 => (self.vcpu(), 0usize..2, self.component(), any::<u8>(), any::<bool>()).prop_map(
                |(vcpu, cpu, component, seed, mxcsr)| {
                    Step::Run { vcpu, cpu, component, seed, mxcsr }
                }
            ),
            3 => (self.vcpu(), masks()).prop_map(|(vcpu, bits)| Step::SetXcr0 { vcpu, bits }),
            1 => (self.vcpu(), masks()).prop_map(|(vcpu, bits)| Step::SetXss { vcpu, bits }),
            2 => (self.vcpu(), prop_oneof![Just(0), Just(u64::MAX)], proptest::bool::weighted(0.2))
                .prop_map(|(vcpu, bits, error)| Step::SetXfd { vcpu, bits, error }),
            3 => (self.vcpu(), self.component(), any::<u8>(), proptest::bool::weighted(0.8))
                .prop_map(|(vcpu, component, seed, finish)| {
                    Step::Update { vcpu, component, seed, finish }
                }),
            1 => (self.vcpu(), masks(), any::<bool>(), any::<bool>()).prop_map(
                |(vcpu, mask, drop, deferred)| {
                    Step::SetPolicy { vcpu, mask, drop, deferred, meanwhile: None }
                }
            ),
            1 => self.vcpu().prop_map(|vcpu| Step::Reclaim { vcpu }),
            1 => self.vcpu().prop_map(|vcpu| Step::Reset { vcpu }),
            1 => (0usize..2, masks()).prop_map(|(cpu, xfd)| Step::Suspend { cpu, xfd }),
            1 => Just(Step::NoMemory),
        ]
        .boxed()
    }

    fn step(self) -> impl Strategy<Value = Step> {
        let meanwhile = move || proptest::option::of(self.simple_step().prop_map(Box::new));
        prop_oneof![
            17 => self.simple_step(),
            1 => (self.vcpu(), masks(), any::<bool>(), any::<bool>(), meanwhile()).prop_map(
                |(vcpu, mask, drop, deferred, meanwhile)| {
                    Step::SetPolicy { vcpu, mask, drop, deferred, meanwhile }
                }
            ),
            3 => (self.vcpu(), self.vcpu(), meanwhile())
                .prop_map(|(from, to, meanwhile)| Step::Copy { from, to, meanwhile }),
        ]
    }
}

fn any_walk() -> impl Strategy<Value = Vec<Step>> {
    (0..GUESTS, any_component()).prop_flat_map(|(vcpu, component)| {
        let focus = Focus { vcpu, component };
        proptest::collection::vec(focus.step(), 1..60)
    })
}

fn any_tracking() -> impl Strategy<Value = InitTracking> {
    prop_oneof![
        Just(InitTracking::ByContent),
        Just(InitTracking::Never),
        Just(InitTracking::ExceptPkru),
        Just(InitTracking::AsRestored),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Saved in full and restored in part (Xen 0129e1ee0d), lost by a re-size,
    /// leaked from the last owner: none of it, with any instruction set, on
    /// processors that leave x87's pointers (XSA-52) and on those that do not.
    #[test]
    fn switches_between_vcpus_never_leak(
        instructions in proptest::sample::select(&INSTRUCTIONS[..]),
        amd in any::<bool>(),
        tracking in any_tracking(),
        steps in any_walk(),
    ) {
        let mut world = World::new(instructions, amd, tracking);
        for step in steps {
            world.step(step);
        }
        for vcpu in 0..GUESTS {
            world.enter(vcpu, 1);
        }
    }
}
