//! Saved by any instruction, brought into a vCPU, loaded by the library's own switch code: the same registers.

use std::cell::RefCell;
use std::collections::BTreeMap;

use proptest::prelude::*;
use vcpu_xstate::convert::{Target, canonicalise, transfer};
use vcpu_xstate::model::{Cpu, InitTracking};
use vcpu_xstate::{
    Claims, ComponentIndex, ComponentSet, CpuId, Form, Image, PcpuXstate, VcpuXstate, validate,
};

use crate::machine::{HOSTS, Heap, host, runner};

#[derive(Clone, Debug)]
struct Case {
    host: usize,
    policy: u64,
    in_use: u64,
    seed: u8,
    mxcsr: Option<u32>,
    save: usize,
    tracking: [InitTracking; 2],
}

fn any_tracking() -> impl Strategy<Value = InitTracking> {
    prop_oneof![
        Just(InitTracking::ByContent),
        Just(InitTracking::Never),
        Just(InitTracking::ExceptPkru),
        Just(InitTracking::AsRestored),
    ]
}

fn any_case() -> impl Strategy<Value = Case> {
    let mask = || prop_oneof![1 => Just(u64::MAX), 3 => any::<u64>()];
    let mxcsr = proptest::option::of((0..64u32).prop_map(|flags| 0x1f80 | flags));
    let tracking = [any_tracking(), any_tracking()];
    (
        any::<usize>(),
        mask(),
        mask(),
        any::<u8>(),
        mxcsr,
        0..4usize,
        tracking,
    )
        .prop_map(|(host, policy, in_use, seed, mxcsr, save, tracking)| Case {
            host,
            policy,
            in_use,
            seed,
            mxcsr,
            save,
            tracking,
        })
}

/// Saves with the instruction of that number, or the best that the machine
/// has below it; says its form.
fn save(cpu: &mut Cpu, number: usize, mask: ComponentSet) -> (&'static str, Form, Vec<u8>) {
    let machine = cpu.machine();
    let standard = machine.standard_bytes(mask.bits()) as usize;
    let compacted = machine.compacted_bytes(mask.bits()) as usize;
    // The header is zero, all else was something before.
    let area = |len| {
        let mut area = vec![0xcc; len];
        area[512..576].fill(0);
        area
    };
    let mask = mask.bits();
    let mut image = area(compacted);
    if number == 3 && cpu.xsaves(0, &mut image, mask).is_ok() {
        return ("xsaves", Form::Compacted, image);
    }
    if number >= 2 && cpu.xsavec(0, &mut image, mask).is_ok() {
        return ("xsavec", Form::Compacted, image);
    }
    let mut image = area(standard);
    if number >= 1 && cpu.xsaveopt(0, &mut image, mask).is_ok() {
        return ("xsaveopt", Form::Standard, image);
    }
    cpu.xsave(0, &mut image, mask)
        .expect("every machine has it");
    ("xsave", Form::Standard, image)
}

#[test]
fn saved_by_any_instruction_and_imported() {
    let counts = RefCell::new(BTreeMap::<&str, usize>::new());
    let moved = runner(2000).run(&any_case(), |case| {
        let machine = host(case.host);
        let geometry = machine.host.geometry();
        let policy = machine.policy(case.policy);
        let mut from = machine.cpu(case.tracking[0]);
        let in_use = policy
            .mask
            .intersection(ComponentSet::from_bits_retain(case.in_use));
        for component in in_use {
            // Supervisor state is saved by XSAVES alone.
            if case.save == 3 || machine.host.user().has(component) {
                from.put_pattern(component, case.seed);
            }
        }
        if let Some(mxcsr) = case.mxcsr {
            from.ldmxcsr(mxcsr).expect("legal");
        }
        let expected = from.registers().clone();
        let (name, form, image) = save(&mut from, case.save, policy.mask);
        *counts.borrow_mut().entry(name).or_default() += 1;

        let image = Image::new(&image, geometry, form).expect("the processor's own");
        let mut blob = vec![0; 16 << 10];
        let written = canonicalise(&image, ComponentSet::EMPTY, &mut blob);
        let written = written.expect("large enough");
        blob.truncate(written.len_bytes);
        let mask = policy.mask;
        let claims = Claims {
            xstate_mask: mask.bits(),
            xcr0: mask.intersection(machine.host.user()).bits(),
            xss: mask.intersection(machine.host.supervisor()).bits(),
            xfd: 0,
            xfd_err: 0,
            accum: mask.bits(),
            xcomp_bv: written.components.bits() | 1 << 63,
            xsave: true,
        };
        let trusted = validate(&claims, geometry, &blob, &machine.host, &policy);
        let trusted = trusted.map_err(|e| TestCaseError::fail(e.to_string()))?;

        // Into a vCPU, and on a processor that was somebody else's before.
        let hardware = machine.modelled(case.tracking[1]);
        let mut cpu = PcpuXstate::new(CpuId(0), hardware, machine.host.clone());
        let new = |tag| VcpuXstate::new(tag, &policy, &machine.host, &mut Heap).expect("memory");
        let (mut last, mut vcpu) = (new(1), new(2));
        cpu.load(&mut last).expect("no fault");
        for component in mask {
            cpu.hardware_mut().cpu.put_pattern(component, !case.seed);
        }
        cpu.save(&mut last);
        vcpu.import(&trusted, &mut cpu, &mut Heap).expect("memory");
        cpu.load(&mut vcpu).expect("no fault");
        cpu.enter(&vcpu);
        let now = &cpu.hardware().cpu;
        let differ = now.registers().differences(&expected, u64::MAX);
        let differ = ComponentSet::from_bits_retain(differ);
        prop_assert!(differ.is_empty(), "{}: {differ} by {name}", machine.name);
        prop_assert_eq!(now.xcr0(), claims.xcr0);
        Ok(())
    });
    moved.unwrap_or_else(|error| panic!("{error}"));
    let counts = counts.into_inner();
    println!("{counts:#?}");
    for name in ["xsave", "xsaveopt", "xsavec", "xsaves"] {
        assert!(counts.get(name).is_some_and(|seen| *seen > 100), "{name}");
    }
}

/// MXCSR alone keeps SSE in use: an image that is laid out for AVX only must
/// name SSE in XCOMP_BV, or a restore of it takes #GP.
#[test]
fn mxcsr_in_an_image_laid_out_without_sse() {
    for machine in HOSTS.iter().filter(|m| m.host.instructions().xsavec) {
        let avx = ComponentIndex::AVX;
        if !machine.host.user().has(avx) {
            continue;
        }
        let geometry = machine.host.geometry();
        let mut cpu = machine.cpu(InitTracking::ByContent);
        cpu.put_pattern(avx, 1);
        cpu.ldmxcsr(0x1fa5).expect("legal");
        let expected = cpu.registers().clone();
        let mut image = vec![0; 832];
        cpu.xsave(0, &mut image, 7).expect("legal");
        let from = Image::new(&image, geometry, Form::Standard).expect("saved");
        let target = Target {
            geometry,
            form: Form::Compacted,
            layout: ComponentSet::only(avx),
        };
        let mut out = vec![0; target.size_bytes()];
        transfer(&from, ComponentSet::ALL, target, &mut out).expect("large enough");
        let restored = cpu.xrstor(0, &out, u64::MAX);
        assert_eq!(restored, Ok(()), "{}", machine.name);
        assert_eq!(cpu.registers(), &expected, "{}", machine.name);
    }
}

/// Every machine passes the self-test with all that it offers. AMD's shadow
/// stacks come without branch tracking, so IA32_U_CET has fewer bits there.
#[test]
fn self_test_passes_on_every_machine() {
    for machine in HOSTS.iter() {
        let hardware = machine.modelled(InitTracking::ExceptPkru);
        let mut cpu = PcpuXstate::new(CpuId(0), hardware, machine.host.clone());
        let report = cpu.self_test(&mut Heap).expect("memory");
        assert!(report.failed().is_empty(), "{}: {report}", machine.name);
        assert_eq!(report.passed(), machine.host.offered(), "{}", machine.name);
    }
}
