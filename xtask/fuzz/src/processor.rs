//! The software CPU under the targets: what is accepted must restore, and be saved again as the same.

use std::cell::RefCell;
use std::collections::BTreeMap;

use vcpu_xstate::convert::{Target, canonical_size, canonicalise, transfer};
use vcpu_xstate::layout::{Form, Geometry};
use vcpu_xstate::model::{Cpu, InitTracking};
use vcpu_xstate::{ComponentIndex, ComponentSet, Image, model};

use crate::machines::Machine;

const IA32_XSS: u32 = 0xda0;
/// Where images are, as far as the processor is concerned.
const ADDRESS: u64 = 0x1000;

thread_local! {
    /// One processor for each machine, by its number.
    static PROCESSORS: RefCell<BTreeMap<u8, Cpu>> = const { RefCell::new(BTreeMap::new()) };
}

/// A processor with everything enabled that its host offers.
fn processor(machine: &Machine) -> Cpu {
    let cpuid = |leaf, subleaf| machine.cpuid(leaf, subleaf);
    let host = &machine.host;
    let read = model::Machine::read(&cpuid, host.mxcsr_mask());
    let mut cpu = Cpu::new(read, InitTracking::ByContent);
    cpu.xsetbv(0, host.user().bits()).expect("the host's XCR0");
    if host.instructions().xsaves {
        cpu.wrmsr(IA32_XSS, host.supervisor().bits())
            .expect("the host's IA32_XSS");
    }
    cpu
}

/// Restores a validated image (compacted, of this machine's layout) as its
/// host would, saves what the registers hold, and gives that in the canonical
/// form.
///
/// # Panics
/// The processor faults.
pub fn through_registers(machine: &Machine, image: &Image<'_>) -> Vec<u8> {
    PROCESSORS.with_borrow_mut(|all| {
        let cpu = all
            .entry(machine.number)
            .or_insert_with(|| processor(machine));
        switch(cpu, machine, image)
    })
}

fn switch(cpu: &mut Cpu, machine: &Machine, image: &Image<'_>) -> Vec<u8> {
    let host = &machine.host;
    let (geometry, form) = (host.geometry(), host.format());
    let offered = host.offered();
    // A live UINV is cleared by who ran last (XRSTORS faults with it).
    if offered.has(ComponentIndex::UINTR) {
        cpu.registers_mut().set_init(ComponentIndex::UINTR);
    }
    switch_lbr_depth(cpu, image);
    let mut area = vec![0xcc; geometry.image_size(form, offered)];
    let target = Target {
        geometry,
        form,
        layout: offered,
    };
    transfer(image, ComponentSet::ALL, target, &mut area).expect("room for all");
    let restored = if host.instructions().xsaves {
        cpu.xrstors(ADDRESS, &area, u64::MAX)
    } else {
        cpu.xrstor(ADDRESS, &area, u64::MAX)
    };
    assert_eq!(restored, Ok(()), "accepted, and the processor faults");

    let mut saved = vec![0; area.len()];
    let all = u64::MAX;
    match host.instructions() {
        has if has.xsaves => cpu.xsaves(ADDRESS + 0x10000, &mut saved, all),
        has if has.xsavec => cpu.xsavec(ADDRESS + 0x10000, &mut saved, all),
        _ => cpu.xsave(ADDRESS + 0x10000, &mut saved, all),
    }
    .expect("the host's own save");
    let saved = Image::new(&saved, geometry, form).expect("what a processor wrote");
    canonical(&saved, geometry)
}

/// Gives IA32_LBR_DEPTH the value of the image, as whoever permits branch
/// records must: XRSTORS does not load it, and clears the records where it is
/// another (SDM Vol. 1, 13.5.12).
fn switch_lbr_depth(cpu: &mut Cpu, image: &Image<'_>) {
    let lbr = image.held().find(|(held, _)| *held == ComponentIndex::LBR);
    let depth = lbr.and_then(|(_, bytes)| bytes.get(8..16));
    let there = cpu.registers_mut().component_mut(ComponentIndex::LBR);
    if let (Some(depth), Some(there)) = (depth, there.get_mut(8..16)) {
        there.copy_from_slice(depth);
    }
}

/// The canonical image of all that is in use.
///
/// # Panics
/// Where its size was told wrongly.
#[must_use]
pub fn canonical(image: &Image<'_>, geometry: &Geometry) -> Vec<u8> {
    let mut out = vec![0xa5; canonical_size(image, ComponentSet::EMPTY)];
    let written = canonicalise(image, ComponentSet::EMPTY, &mut out).expect("room");
    assert_eq!(written.len_bytes, out.len());
    let compacted = Image::new(&out, geometry, Form::Compacted).expect("canonical");
    assert_eq!(compacted.in_use(), written.components);
    out
}
