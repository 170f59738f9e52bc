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
    forget_lbr_depth(&mut saved, geometry, form);
    let saved = Image::new(&saved, geometry, form).expect("what a processor wrote");
    canonical(&saved, geometry)
}

/// Zeroes IA32_LBR_DEPTH in an image: it is saved and never restored (SDM
/// Vol. 3, Last Branch Records, XSAVES support), so registers do not keep it.
pub fn forget_lbr_depth(bytes: &mut [u8], geometry: &Geometry, form: Form) {
    let held = Image::new(bytes, geometry, form).map(|image| image.xstate_bv());
    let Some(held) = held.filter(|held| held.has(ComponentIndex::LBR)) else {
        return;
    };
    let xcomp_bv = bytes[520..528].try_into().map_or(0, u64::from_le_bytes);
    let layout = ComponentSet::from_bits_retain(xcomp_bv).union(held);
    for place in geometry.placements(form, layout) {
        if place.component == ComponentIndex::LBR {
            bytes[place.range()][8..16].fill(0);
        }
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
