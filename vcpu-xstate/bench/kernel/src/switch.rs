//! Two vCPUs on the processor that runs this, and the switch between them, in ring 3.
#![allow(unsafe_code)] // instructions, exported names, and the caller's pointers

use alloc::boxed::Box;
use core::arch::naked_asm;
use core::arch::x86_64::{__cpuid_count, _xgetbv};
use core::hint::black_box;

use vcpu_xstate::cpuid::{CpuidResult, SaveInstruction};
use vcpu_xstate::hw::{
    ComponentMsr, Exchange, Hardware, RestoreFault, RestoreInstruction, Silicon,
};
use vcpu_xstate::update::Update;
use vcpu_xstate::{
    Block, ComponentIndex, ComponentSet, CpuId, HostXstate, PcpuXstate, VcpuXstate, XstatePolicy,
};
use zerocopy::IntoBytes;

use crate::heap::AreaHeap;

/// `Silicon` as far as ring 3 goes: state moves, and what needs ring 0 is only
/// counted (the system's own XCR0 has all that is offered here).
pub struct Ring3 {
    silicon: Silicon,
    control_writes: u64,
}

impl Hardware for Ring3 {
    unsafe fn write_xcr0(&mut self, _: u64) {
        self.control_writes += 1;
    }

    unsafe fn write_xss(&mut self, _: u64) {
        self.control_writes += 1;
    }

    unsafe fn write_xfd(&mut self, _: u64) {
        self.control_writes += 1;
    }

    unsafe fn write_xfd_err(&mut self, _: u64) {
        self.control_writes += 1;
    }

    unsafe fn read_xfd_err(&mut self) -> u64 {
        0
    }

    unsafe fn read_pkru(&mut self) -> u32 {
        0
    }

    unsafe fn write_pkru(&mut self, _: u32) {}

    unsafe fn read_msr(&mut self, _: ComponentMsr) -> u64 {
        0
    }

    unsafe fn write_msr(&mut self, _: ComponentMsr, _: u64) {}

    #[inline(always)]
    unsafe fn save(&mut self, instruction: SaveInstruction, image: *mut [u8], rfbm: u64) {
        // SAFETY: as the caller promises.
        unsafe { self.silicon.save(instruction, image, rfbm) }
    }

    #[inline(always)]
    unsafe fn restore(
        &mut self,
        instruction: RestoreInstruction,
        image: *const [u8],
        rfbm: u64,
    ) -> Result<(), RestoreFault> {
        // SAFETY: as the caller promises.
        unsafe { self.silicon.restore(instruction, image, rfbm) }
    }

    #[inline(always)]
    unsafe fn exchange(
        &mut self,
        exchange: Exchange,
        from: *mut [u8],
        rfbm: u64,
        to: *const [u8],
    ) -> Result<(), RestoreFault> {
        // SAFETY: as the caller promises.
        unsafe { self.silicon.exchange(exchange, from, rfbm, to) }
    }

    unsafe fn clear_fp_pointers(&mut self) {
        // SAFETY: as the caller promises.
        unsafe { self.silicon.clear_fp_pointers() }
    }
}

/// The processor that runs this.
const fn silicon() -> Silicon {
    // SAFETY: it is used with `host`, which is this processor's own without what
    // the system has not enabled. Of what takes CPL 0, `Ring3` executes nothing.
    // What is restored is what was saved here, but for components that no code
    // around a switch keeps anything in.
    unsafe { Silicon::new() }
}

/// A processor and two vCPUs, of which the first is loaded between calls.
pub struct Scene {
    cpu: PcpuXstate<Ring3>,
    a: VcpuXstate,
    b: VcpuXstate,
    /// Images for the bare pair, with the same contents.
    bare: [*mut u8; 2],
    mask: u64,
}

/// The machine that runs this, without what ring 3 cannot use (XSAVES, tiles
/// before one asks); `None` where the system has not enabled XSAVE, or there is
/// no XSAVEC.
fn host() -> Option<HostXstate> {
    if __cpuid_count(1, 0).ecx & 1 << 27 == 0 {
        return None;
    }
    // SAFETY: CPUID says that the system has set CR4.OSXSAVE.
    let enabled = unsafe { xcr0() } & !ComponentSet::AMX.bits();
    let cpuid = |leaf, subleaf| {
        let mut r = CpuidResult::from(__cpuid_count(leaf, subleaf));
        match (leaf, subleaf) {
            (0xd, 0) => (r.eax, r.edx) = (r.eax & enabled as u32, 0),
            (0xd, 1) => (r.eax, r.ecx, r.edx) = (r.eax & 0x7, 0, 0),
            _ => {}
        }
        r
    };
    let host = HostXstate::read(&cpuid, 0).ok()?;
    (host.save_instruction() == SaveInstruction::Xsavec).then_some(host)
}

#[target_feature(enable = "xsave")]
unsafe fn xcr0() -> u64 {
    // SAFETY: the caller has checked CR4.OSXSAVE.
    unsafe { _xgetbv(0) }
}

impl Scene {
    fn new(in_use: ComponentSet) -> Option<Self> {
        let host = host()?;
        let policy = XstatePolicy::new(host.user(), ComponentSet::EMPTY);
        let ring3 = Ring3 {
            silicon: silicon(),
            control_writes: 0,
        };
        let mut cpu = PcpuXstate::new(CpuId(0), ring3, host);
        let mut memory = AreaHeap;
        let mut vcpu = |tag| {
            let mut vcpu = VcpuXstate::new(tag, &policy, cpu.host(), &mut memory).ok()?;
            let enabled = policy.mask.bits();
            vcpu.set_xcr0(enabled, 0, &mut cpu, &mut memory).ok()?;
            for component in in_use.intersection(policy.mask) {
                let mut update = vcpu.begin_update(component, &mut cpu, &mut memory).ok()?;
                // MXCSR and x87's control and tag words stay: they are the
                // program's. PKRU keeps the program's memory open.
                let (bytes, seed) = match component {
                    ComponentIndex::X87 => (&mut update.bytes_mut()[32..], 0x40),
                    ComponentIndex::SSE => (&mut update.bytes_mut()[..256], 0x41),
                    ComponentIndex::PKRU => (update.bytes_mut(), 0x54),
                    _ => (update.bytes_mut(), 0x42),
                };
                bytes.fill(seed);
                update.finish().ok()?;
            }
            Some(vcpu)
        };
        let (mut a, mut b) = (vcpu(0)?, vcpu(1)?);
        let mask = policy.mask.bits();
        cpu.load(&mut b).ok()?;
        let second = image(&b, mask);
        cpu.switch(&mut b, &mut a).ok()?;
        let bare = [image(&a, mask), second];
        cpu.enter(&a);
        Some(Self {
            cpu,
            a,
            b,
            bare,
            mask,
        })
    }
}

/// What the registers hold, which are this vCPU's, in an image that is leaked.
fn image(loaded: &VcpuXstate, mask: u64) -> *mut u8 {
    let blocks = loaded.area_size_bytes().div_ceil(64);
    let image = alloc::vec![Block::ZERO; blocks].leak().as_mut_bytes() as *mut [u8];
    // SAFETY: as large as the vCPU's area, which has the same components, and
    // aligned by its type.
    unsafe { silicon().save(SaveInstruction::Xsavec, image, mask) };
    image.cast()
}

/// Makes a scene of the machine that runs this, which lives for ever; null
/// where it lacks XSAVEC.
#[unsafe(no_mangle)]
extern "C" fn xstate_bench_switch_scene(in_use: u64) -> *mut Scene {
    Scene::new(ComponentSet::from_bits_retain(in_use))
        .map_or(core::ptr::null_mut(), |scene| Box::leak(Box::new(scene)))
}

/// The components that are switched.
///
/// # Safety
/// `scene` is of `xstate_bench_switch_scene`.
#[unsafe(no_mangle)]
unsafe extern "C" fn xstate_bench_switch_mask(scene: *const Scene) -> u64 {
    // SAFETY: as the caller promises.
    unsafe { (*scene).mask }
}

type Switch =
    fn(&mut PcpuXstate<Ring3>, &mut VcpuXstate, &mut VcpuXstate) -> Result<(), RestoreFault>;
type Save = fn(&mut PcpuXstate<Ring3>, &mut VcpuXstate);
type Load = fn(&mut PcpuXstate<Ring3>, &mut VcpuXstate) -> Result<(), RestoreFault>;

const SWITCH: Switch = PcpuXstate::<Ring3>::switch;
const SAVE: Save = PcpuXstate::<Ring3>::save;
const LOAD: Load = PcpuXstate::<Ring3>::load;

/// Where the library's functions begin, whose instructions are counted: switch
/// (0), save (1), load (2); and the bare pair (3).
#[unsafe(no_mangle)]
extern "C" fn xstate_bench_address(of: u64) -> usize {
    match of {
        0 => SWITCH as usize,
        1 => SAVE as usize,
        2 => LOAD as usize,
        _ => xstate_bench_pair_once as *const () as usize,
    }
}

/// The bare pair: XSAVEC to `from`, XRSTOR from `to`, of all in `mask`.
///
/// # Safety
/// Both images are aligned, of this machine, with room for `mask`.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn xstate_bench_pair_once(from: *mut u8, to: *const u8, mask: u64) -> u64 {
    naked_asm!(
        "mov eax, edx",
        "shr rdx, 32",
        "xsavec64 [rdi]",
        "xrstor64 [rsi]",
        "xor eax, eax",
        "ret",
    )
}

/// To the second vCPU and back, by a switch each (0) or by a save and a load
/// each (1). Gives 1, or 0 if it failed.
///
/// # Safety
/// `scene` is of `xstate_bench_switch_scene`, and nobody else has it now.
#[unsafe(no_mangle)]
unsafe extern "C" fn xstate_bench_switch(scene: *mut Scene, how: u64) -> usize {
    // SAFETY: as the caller promises.
    let Scene { cpu, a, b, .. } = unsafe { &mut *scene };
    // Called where they lie, as a hypervisor's object code has them.
    let (switch, save, load) = black_box((SWITCH, SAVE, LOAD));
    let switched = if how == 0 {
        switch(cpu, a, b).and_then(|()| switch(cpu, b, a))
    } else {
        save(cpu, a);
        load(cpu, b).and_then(|()| {
            save(cpu, b);
            load(cpu, a)
        })
    };
    switched.is_ok().into()
}

/// There and back by the bare pair. Gives 1.
///
/// # Safety
/// As [`xstate_bench_switch`].
#[unsafe(no_mangle)]
unsafe extern "C" fn xstate_bench_pair(scene: *mut Scene) -> usize {
    // SAFETY: as the caller promises; the images are as large as the areas.
    unsafe {
        let Scene { bare, mask, .. } = &*scene;
        xstate_bench_pair_once(bare[0], bare[1], *mask);
        xstate_bench_pair_once(bare[1], bare[0], *mask);
    }
    1
}
