//! Update PKRU of a stopped vCPU, wherever it lives: registers, memory, or nowhere because it is INIT.
//!
//! `cargo run -p vcpu-xstate --example update_pkru`
//!
//! Two vCPUs: one that a hypervisor switches through this library, on a
//! processor in software here, and one of a VMM that has no more than the
//! buffer that KVM gave it. The edit is the same.

use std::error::Error;
use std::io::Write;

use vcpu_xstate::hw::Modelled;
use vcpu_xstate::model::InitTracking;
use vcpu_xstate::update::{Update, begin_image, begin_image_view};
use vcpu_xstate::views::{Access, Pkru, ProtectionKey};
use vcpu_xstate::{
    AreaMemory, Block, ComponentIndex, ComponentSet, CpuId, CpuidResult, Form, HostXstate,
    PcpuXstate, VcpuXstate, XstatePolicy,
};

/// A machine with AVX and PKRU, and with XSAVES.
fn cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
    let (eax, ebx, ecx, edx) = match (leaf, subleaf) {
        (0, _) => (0xd, 0, 0, 0),
        (1, _) => (0, 0, 1 << 26, 0x0700_0000),
        (7, 0) => (0, 0, 1 << 3, 0),
        (0xd, 0) => (0x207, 2696, 2696, 0),
        (0xd, 1) => (0xf, 0, 0, 0),
        (0xd, 2) => (256, 576, 0, 0),
        (0xd, 9) => (8, 2688, 0, 0),
        _ => (0, 0, 0, 0),
    };
    CpuidResult { eax, ebx, ecx, edx }
}

/// Where areas come from: a hypervisor's own allocator.
struct Heap;

impl AreaMemory for Heap {
    fn allocate(&mut self, blocks: usize) -> Option<Vec<Block>> {
        Some(vec![Block::ZERO; blocks])
    }

    fn release(&mut self, _: Vec<Block>) {}
}

/// Writes what happens to `out`.
pub fn run(out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let host = HostXstate::read(&cpuid, 0xffff)?;
    let mut heap = Heap;
    let key = ProtectionKey::new(3).ok_or("a key below 16")?;

    // A vCPU of a hypervisor. It has run here last, so its state is in the
    // registers; PKRU is changed there, and nothing is saved for it.
    let processor = Modelled::new(&cpuid, host.clone(), InitTracking::ByContent);
    let mut cpu = PcpuXstate::new(CpuId(0), processor, host.clone());
    let policy = XstatePolicy::new(host.user(), ComponentSet::EMPTY);
    let mut vcpu = VcpuXstate::new(1, &policy, &host, &mut heap)?;
    cpu.load(&mut vcpu)?;
    let mut pkru = vcpu.begin_view::<Pkru, _, _>(&mut cpu, &mut heap)?;
    writeln!(out, "vCPU: key 3 has {:?}", pkru.get(key))?;
    pkru.set(key, Access::ReadOnly);
    // Nothing has changed until here; `finish` judges the value first.
    pkru.finish()?;
    let pkru = vcpu.view::<Pkru>(&mut cpu)?;
    writeln!(out, "vCPU: key 3 has {:?}", pkru.get(key))?;

    // A stopped vCPU of somebody else: the buffer of KVM_GET_XSAVE2, in which
    // everything is INIT. The INIT value is filled in, and the bit is set.
    let mut buffer = vec![0; 4096];
    let (geometry, limits) = (host.geometry(), host.limits());
    let mut pkru = begin_image_view::<Pkru>(&mut buffer, geometry, Form::Standard, &limits)?;
    pkru.set(key, Access::None);
    pkru.finish()?;
    writeln!(
        out,
        "KVM: XSTATE_BV {:02x?}, PKRU {:02x?}",
        &buffer[512..514],
        &buffer[2688..2692]
    )?;

    // Bytes that a restore would fault on do not get in: here MXCSR (the last
    // four of SSE's) with a bit that this processor lacks.
    let mut sse = begin_image(
        &mut buffer,
        geometry,
        Form::Standard,
        &limits,
        ComponentIndex::SSE,
    )?;
    sse.bytes_mut()[256..].copy_from_slice(&0x1_1f80_u32.to_le_bytes());
    if let Err(error) = sse.finish() {
        writeln!(out, "KVM: {error}")?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    run(&mut std::io::stdout())
}
