//! Tests of the register file: which areas it takes, and what runs on it after a component was left out.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::area::AreaMemory;
use crate::layout::{ComponentFacts, Geometry};
use crate::masks::XstatePolicy;
use crate::model::InitTracking;
use crate::testing::{TestMemory, bochs_sapphire_rapids, geometry, host, modelled, supervisor};
use crate::{CpuId, PcpuXstate, VcpuXstate};

/// XSAVES and all that it includes.
const XSAVES: u32 = 0xf;

/// One supervisor component of this size, alone.
fn single(component: u8, size_bytes: u32) -> Geometry {
    geometry(&[(component, supervisor(size_bytes))])
}

/// Two geometries with the same hash, by elimination: of each of 61 components
/// many sizes, until a set of changes of size cancels out.
fn collision() -> (Geometry, Geometry) {
    let mut basis: Vec<(u64, u64)> = Vec::new();
    for extra in 1u32.. {
        basis.clear();
        let sizes: Vec<[u32; 2]> = (2..63u32).map(|c| [64 * c, 64 * c + extra]).collect();
        for (i, [small, large]) in sizes.iter().enumerate() {
            let component = i as u8 + 2;
            let id = |size| single(component, size).id(Form::Compacted) >> 2;
            let (mut change, mut changed) = (id(*small) ^ id(*large), 1u64 << i);
            for (pivot, with) in &basis {
                if change ^ pivot < change {
                    (change, changed) = (change ^ pivot, changed ^ with);
                }
            }
            if change != 0 {
                basis.push((change, changed));
                basis.sort_unstable_by_key(|(change, _)| core::cmp::Reverse(*change));
                continue;
            }
            let all = |large: bool| {
                let facts = |(i, sizes): (usize, &[u32; 2])| -> (u8, ComponentFacts) {
                    let changed = changed >> i & 1 == 1;
                    (
                        i as u8 + 2,
                        supervisor(sizes[usize::from(changed && large)]),
                    )
                };
                geometry(&sizes.iter().enumerate().map(facts).collect::<Vec<_>>())
            };
            return (all(false), all(true));
        }
    }
    unreachable!("61 of 62 dimensions: every second try finds one")
}

/// Two layouts whose hashes collide: a save wrote beyond the area that was made
/// for the smaller one.
#[test]
fn colliding_layouts_are_another_machines() {
    let (small, large) = collision();
    assert_ne!(small, large);
    let all = ComponentSet::ALL;
    let size = |geometry: &Geometry| geometry.image_size(Form::Compacted, all);
    assert!(size(&small) < size(&large));
    assert_eq!(small.id(Form::Compacted), large.id(Form::Compacted));

    let mut memory = TestMemory::default();
    let mut area = Area::new(&small, Form::Compacted, all, &mut memory).unwrap();
    let host = host(large, XSAVES);
    let model = modelled(&host, InitTracking::ByContent);
    let mut registers = RegisterFile::new(model, host);
    registers.set_host();
    assert!(!registers.is_ready(&area, &area));
    assert!(catch_unwind(AssertUnwindSafe(|| registers.save(&mut area))).is_err());
    assert!(catch_unwind(AssertUnwindSafe(|| registers.restore(&area))).is_err());
}

/// A geometry without a number is ready for nobody, even before anything is live.
#[test]
fn areas_without_a_number_are_never_ready() {
    let host = host(bochs_sapphire_rapids(), XSAVES);
    let mut memory = TestMemory::default();
    let plain = bochs_sapphire_rapids();
    let area = Area::new(&plain, Form::Compacted, host.offered(), &mut memory).unwrap();
    let model = modelled(&host, InitTracking::ByContent);
    let mut registers = RegisterFile::new(model, host);
    assert!(!registers.is_ready(&area, &area));
    registers.set_host();
    assert!(!registers.is_ready(&area, &area));
}

/// Each processor reads its own CPUID: areas go from one to the other, and are
/// known there after the first save.
#[test]
fn a_processor_that_read_the_same_takes_the_area() {
    let (first, second) = (
        host(bochs_sapphire_rapids(), XSAVES),
        host(bochs_sapphire_rapids(), XSAVES),
    );
    assert_eq!(first, second);
    let mut memory = TestMemory::default();
    let geometry = first.geometry();
    let mut area = Area::new(geometry, Form::Compacted, first.offered(), &mut memory).unwrap();
    let model = modelled(&second, InitTracking::ByContent);
    let mut registers = RegisterFile::new(model, second);
    registers.restore(&area).unwrap();
    assert!(!registers.is_ready(&area, &area));
    registers.save(&mut area);
    assert!(registers.is_ready(&area, &area));
    assert!(memory.allocate(1).is_some());
}

/// The model held a host to the values of before the self-test.
#[test]
fn a_vcpu_runs_after_the_self_test_left_a_component_out() {
    for instructions in crate::testing::INSTRUCTIONS {
        let mut memory = TestMemory::default();
        let host = host(bochs_sapphire_rapids(), instructions);
        let mut model = modelled(&host, InitTracking::ByContent);
        model.broken = Some(ComponentIndex::TILEDATA);
        let mut cpu = PcpuXstate::new(CpuId(0), model, host);
        let report = cpu.self_test(&mut memory).unwrap();
        assert_eq!(report.failed().to_string(), "tiledata");

        let policy = XstatePolicy::new(cpu.host().offered(), ComponentSet::EMPTY);
        let mut vcpu = VcpuXstate::new(1, &policy, cpu.host(), &mut memory).unwrap();
        cpu.load(&mut vcpu).unwrap();
        cpu.enter(&vcpu);
        cpu.hardware_mut().cpu.put_pattern(ComponentIndex::SSE, 7);
        let loaded = cpu.hardware().cpu.registers().clone();
        cpu.save(&mut vcpu);
        cpu.discard_gone(vcpu.number());
        cpu.load(&mut vcpu).unwrap();
        assert_eq!(cpu.hardware().cpu.registers(), &loaded);
    }
}
