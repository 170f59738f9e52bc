//! Memory that ends, at every call of every operation that takes some: what fails has changed nothing.

use super::tests::{Cpu, cpu_of, model, policy, set, vcpu};
use super::*;
use crate::ComponentIndex;
use crate::model::Registers;
use crate::testing::{INSTRUCTIONS, TestMemory, bochs_sapphire_rapids, host};
use crate::update::Update;
use crate::validate::{Claims, validate};

/// All that there is to see of a vCPU, but for where it is.
#[derive(Debug, PartialEq)]
struct Seen {
    claims: Claims,
    image: Vec<u8>,
    policy: XstatePolicy,
    area: ComponentSet,
    area_bytes: usize,
    hardware_xfd: ComponentSet,
    live_blocks: usize,
}

fn seen(vcpu: &mut VcpuXstate, cpu: &mut Cpu, memory: &TestMemory) -> Seen {
    let mut image = vec![0; vcpu.export_size(cpu)];
    let exported = vcpu.export(cpu, &mut image).unwrap();
    Seen {
        claims: exported.claims,
        image,
        policy: *vcpu.policy(),
        area: vcpu.area_mask(),
        area_bytes: vcpu.area_size_bytes(),
        hardware_xfd: vcpu.hardware_xfd(cpu.host()),
        live_blocks: memory.live_blocks,
    }
}

/// What an operation came to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Done,
    /// No memory, by the stable number of the rule.
    NoMemory(u32),
}

type Operation = fn(&mut VcpuXstate, &mut Cpu, &mut TestMemory) -> Outcome;

fn outcome<T>(result: Result<T, u32>) -> Outcome {
    result.map_or_else(Outcome::NoMemory, |_| Outcome::Done)
}

/// Every operation that may take memory. Each takes one area, at most.
const OPERATIONS: [(&str, Operation); 9] = [
    ("XSETBV", |vcpu, cpu, memory| {
        let set = vcpu.set_xcr0(0xe7, 0, cpu, memory);
        outcome(set.map_err(|error| match error {
            XsetbvError::NeedsMemory(_) => OutOfMemory::CODE,
            XsetbvError::Fault(fault) => fault.code(),
        }))
    }),
    ("IA32_XSS", |vcpu, cpu, memory| {
        let set = vcpu.set_xss(0x1800, cpu, memory);
        outcome(set.map_err(|error| match error {
            WriteXssError::NeedsMemory(_) => OutOfMemory::CODE,
            WriteXssError::Fault(fault) => fault.code(),
        }))
    }),
    ("first use", |vcpu, cpu, memory| {
        let tiles = ComponentSet::only(ComponentIndex::TILEDATA);
        match vcpu.first_use(tiles, cpu, memory) {
            FirstUse::Grow(_) => Outcome::Done,
            FirstUse::Wait(_) => Outcome::NoMemory(OutOfMemory::CODE),
            FirstUse::Reflect => panic!("it was armed"),
        }
    }),
    ("update of what has no room", |vcpu, cpu, memory| {
        let update = vcpu.begin_update(ComponentIndex::OPMASK, cpu, memory);
        outcome(update.map_err(|error| error.code()).map(|mut update| {
            update.bytes_mut()[0] = 1;
            update.finish().unwrap();
        }))
    }),
    ("update of tiles, given up", |vcpu, cpu, memory| {
        let update = vcpu.begin_update(ComponentIndex::TILEDATA, cpu, memory);
        outcome(update.map_err(|error| error.code()).map(drop))
    }),
    ("larger policy", |vcpu, cpu, memory| {
        let all = policy(cpu.host().offered().bits());
        let changed = vcpu.set_policy(&all, set(0), cpu, memory);
        outcome(changed.map_err(|error| error.code()))
    }),
    ("smaller policy", |vcpu, cpu, memory| {
        let mask = vcpu.policy.mask.difference(set(1 << 14));
        let changed = vcpu.set_policy(&policy(mask.bits()), set(1 << 14), cpu, memory);
        outcome(changed.map_err(|error| error.code()))
    }),
    ("reclaim", |vcpu, cpu, memory| {
        outcome(vcpu.reclaim(cpu, memory).map_err(|_| OutOfMemory::CODE))
    }),
    ("import", |vcpu, cpu, memory| {
        let host = cpu.host().clone();
        let (claims, image) = other(cpu);
        let trusted = validate(&claims, host.geometry(), &image, &host, vcpu.policy()).unwrap();
        let imported = vcpu.import(&trusted, cpu, memory);
        outcome(imported.map_err(|error| error.code()))
    }),
];

/// The state of another vCPU, with AVX-512.
fn other(cpu: &Cpu) -> (Claims, Vec<u8>) {
    let mut memory = TestMemory::default();
    let mut cpu = cpu_of(cpu.host().clone(), 7);
    let mut vcpu = vcpu(99, 0xe7, &cpu, &mut memory);
    vcpu.set_xcr0(0xe7, 0, &mut cpu, &mut memory).unwrap();
    cpu.load(&mut vcpu).unwrap();
    model(&mut cpu).cpu.put_pattern(ComponentIndex::HI16_ZMM, 5);
    let mut image = vec![0; vcpu.export_size(&mut cpu)];
    let exported = vcpu.export(&mut cpu, &mut image).unwrap();
    (exported.claims, image)
}

/// A vCPU with something to lose, loaded: it has x87, SSE, PKRU and, where the
/// machine has it, CET; TILECFG had room once; tiles are armed where they can be.
fn ready(instructions: u32, memory: &mut TestMemory) -> (Cpu, VcpuXstate, Registers) {
    let mut cpu = cpu_of(host(bochs_sapphire_rapids(), instructions), 0);
    let mask = set(0x6_5ae7).intersection(cpu.host().offered());
    let deferred = XstatePolicy::new(mask, ComponentSet::CET);
    let mut vcpu = VcpuXstate::new(1, &deferred, cpu.host(), memory).unwrap();
    vcpu.set_xcr0(0x6_0207, 0, &mut cpu, memory).unwrap();
    cpu.load(&mut vcpu).unwrap();
    cpu.enter(&vcpu);
    for index in [0, 1, 9] {
        let component = ComponentIndex::new(index).unwrap();
        model(&mut cpu).cpu.put_pattern(component, 0x31);
    }
    let expected = model(&mut cpu).cpu.registers().clone();
    (cpu, vcpu, expected)
}

/// Fails the first allocation, then the second, and so on until the operation
/// succeeds: at each failure everything is as before, registers included.
#[test]
fn memory_ends_at_every_call_of_every_operation() {
    let mut failures = 0;
    for instructions in INSTRUCTIONS {
        for (name, operation) in OPERATIONS {
            let xsaves = instructions & 8 != 0;
            let xfd = instructions & 0x10 != 0;
            let possible = match name {
                "IA32_XSS" | "smaller policy" | "larger policy" => xsaves,
                "first use" => xfd,
                _ => true,
            };
            if !possible {
                continue;
            }
            let mut taken = 0;
            loop {
                let what = format!("{name} {instructions:#x}, call {taken} fails");
                let mut memory = TestMemory::default();
                let (mut cpu, mut vcpu, expected) = ready(instructions, &mut memory);
                if name == "reclaim" {
                    vcpu.set_xcr0(0x7, 0, &mut cpu, &mut memory).unwrap();
                }
                let before = seen(&mut vcpu, &mut cpu, &memory);
                cpu.load(&mut vcpu).unwrap();
                cpu.enter(&vcpu);
                memory.fail_at = Some(memory.calls + taken);
                let came = operation(&mut vcpu, &mut cpu, &mut memory);
                if came == Outcome::Done {
                    break;
                }
                assert_eq!(came, Outcome::NoMemory(OutOfMemory::CODE), "{what}");
                failures += 1;
                taken += 1;
                assert_eq!(seen(&mut vcpu, &mut cpu, &memory), before, "{what}");
                cpu.load(&mut vcpu).unwrap();
                cpu.enter(&vcpu);
                let offered = cpu.host().offered().bits();
                let registers = model(&mut cpu).cpu.registers();
                let differ = set(registers.differences(&expected, offered));
                assert!(differ.is_empty(), "{what}: {differ}");
                // When there is memory, it goes on as if nothing had been.
                memory.fail_at = None;
                let came = operation(&mut vcpu, &mut cpu, &mut memory);
                assert_eq!(came, Outcome::Done, "{what}");
                cpu.save(&mut vcpu);
                vcpu.release(&mut memory).unwrap();
                assert_eq!(memory.live_blocks, 0, "{what}");
            }
            assert_eq!(taken, 1, "{name} {instructions:#x}");
        }
    }
    assert!(failures >= 30, "{failures}");
}

/// A vCPU, and the round trip at boot, which takes two buffers.
#[test]
fn memory_ends_while_something_is_made() {
    for instructions in INSTRUCTIONS {
        let mut cpu = cpu_of(host(bochs_sapphire_rapids(), instructions), 0);
        let mut memory = TestMemory::failing_at(0);
        let made = VcpuXstate::new(1, &policy(0x207), cpu.host(), &mut memory);
        assert!(matches!(made, Err(OutOfMemory { bytes: 576.. })));
        for failing in 0..3 {
            let mut memory = TestMemory::failing_at(failing);
            let offered = cpu.host().offered();
            let tested = cpu.self_test(&mut memory);
            assert_eq!(tested.is_ok(), failing == 2);
            assert_eq!((memory.live_blocks, cpu.host().offered()), (0, offered));
        }
    }
}
