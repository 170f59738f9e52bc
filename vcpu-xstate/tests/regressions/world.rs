//! Machines, and vCPUs that run on them in software.

use vcpu_xstate::area::{AreaMemory, Block};
use vcpu_xstate::cpuid::CpuidResult;
use vcpu_xstate::hw::Modelled;
use vcpu_xstate::model::{Cpu, InitTracking};
use vcpu_xstate::{
    Claims, ComponentIndex, ComponentSet, CpuId, HostXstate, PcpuXstate, VcpuXstate, XstatePolicy,
};

/// One row of leaf 0xD: component, size, offset in the standard form, ECX.
pub type Row = (u32, u32, u32, u32);

/// What CPUID says of a machine.
#[derive(Clone, Copy)]
pub struct Facts {
    pub amd: bool,
    /// CPUID.(0xD,1):EAX.
    pub instructions: u32,
    pub mxcsr_mask: u32,
    pub rows: &'static [Row],
}

pub const AVX: Row = (2, 256, 576, 0);
const AVX512: [Row; 3] = [(5, 64, 1088, 0), (6, 512, 1152, 0), (7, 1024, 1664, 0)];
pub const PKRU: Row = (9, 8, 2688, 0);
const TILES: [Row; 2] = [(17, 64, 2752, 2), (18, 8192, 2816, 6)];

/// Intel with AVX-512, PKRU, CET, UINTR and AMX.
pub const AMX: Facts = Facts {
    amd: false,
    instructions: 0x1f,
    mxcsr_mask: 0xffff,
    rows: &[
        AVX,
        AVX512[0],
        AVX512[1],
        AVX512[2],
        PKRU,
        (11, 16, 0, 1),
        (12, 24, 0, 1),
        (14, 48, 0, 1),
        TILES[0],
        TILES[1],
    ],
};
/// AMD without supervisor state, whose XRSTOR leaves FIP, FDP and FOP.
pub const AMD: Facts = Facts {
    amd: true,
    instructions: 0x5,
    mxcsr_mask: 0x2_ffff,
    rows: &[AVX, PKRU],
};
/// An Intel machine of the same components as [`AMD`].
pub const INTEL: Facts = Facts {
    amd: false,
    instructions: 0x3,
    mxcsr_mask: 0xffff,
    rows: &[AVX, PKRU],
};
/// AMD family 15h: LWP, component 62.
pub const LWP: Facts = Facts {
    rows: &[AVX, (62, 128, 832, 0)],
    ..AMD
};
/// TILECFG listed, TILEDATA not.
pub const HALF_AMX: Facts = Facts {
    rows: &[AVX, PKRU, TILES[0]],
    ..AMX
};

impl Facts {
    pub fn cpuid(&self, leaf: u32, subleaf: u32) -> CpuidResult {
        let mask = |supervisor| {
            let own = self.rows.iter().filter(|row| row.3 & 1 == supervisor);
            own.fold(0u64, |mask, row| mask | 1 << row.0)
        };
        let [eax, ebx, ecx, edx] = match (leaf, subleaf) {
            (0, _) if self.amd => [0x20, 0x6874_7541, 0x444d_4163, 0x6974_6e65],
            (0, _) => [0x20, 0x756e_6547, 0x6c65_746e, 0x4965_6e69],
            (1, _) => [0x8_06f8, 0x0010_0800, !0, !0],
            (7, 0) => [1, !0, !0, !0],
            (7, 1) => [!0; 4],
            (0xd, 0) => {
                let user = mask(0) | 3;
                [user as u32, 0, 0, (user >> 32) as u32]
            }
            (0xd, 1) => [self.instructions, 0, mask(1) as u32, 0],
            (0xd, component) => {
                let row = self.rows.iter().find(|row| row.0 == component);
                row.map_or([0; 4], |row| [row.1, row.2, row.3, 0])
            }
            (0x1d, 0) => [1, 0, 0, 0],
            (0x1d, 1) => [0x0400_2000, 0x0008_0040, 0x10, 0],
            (0x1e, 0) => [0, 0x4010, 0, 0],
            (0x8000_0000, _) => [0x8000_0021, 0, 0, 0],
            (0x8000_0001, _) => [0, 0, !0, !0],
            (0x8000_0008, _) => [48 << 8 | 46, 0, 0, 0],
            _ => [0; 4],
        };
        CpuidResult { eax, ebx, ecx, edx }
    }

    pub fn host(&self) -> HostXstate {
        let mut host =
            HostXstate::read(&|leaf, subleaf| self.cpuid(leaf, subleaf), self.mxcsr_mask)
                .expect("a machine");
        host.permit(ComponentSet::from_bits_retain(1 << 14));
        host
    }

    pub fn processor(&self, number: u32) -> PcpuXstate<Modelled> {
        let host = self.host();
        let cpuid = |leaf, subleaf| self.cpuid(leaf, subleaf);
        let hardware = Modelled::new(&cpuid, host.clone(), InitTracking::ByContent);
        PcpuXstate::new(CpuId(number), hardware, host)
    }
}

/// Memory that never ends.
pub struct Memory;

impl AreaMemory for Memory {
    fn allocate(&mut self, blocks: usize) -> Option<Vec<Block>> {
        Some(vec![Block::ZERO; blocks])
    }

    fn release(&mut self, _: Vec<Block>) {}
}

pub fn set(bits: u64) -> ComponentSet {
    ComponentSet::from_bits_retain(bits)
}

/// A vCPU that may use `mask`.
pub fn vcpu(tag: u64, mask: u64, host: &HostXstate) -> VcpuXstate {
    let policy = XstatePolicy::new(set(mask), ComponentSet::EMPTY);
    VcpuXstate::new(tag, &policy, host, &mut Memory).expect("memory")
}

/// Lets the vCPU run: enters it, does what `guest` does, and leaves it in the
/// registers.
pub fn run(vcpu: &mut VcpuXstate, cpu: &mut PcpuXstate<Modelled>, guest: impl FnOnce(&mut Cpu)) {
    cpu.load(vcpu).expect("the processor restores it");
    cpu.enter(vcpu);
    guest(&mut cpu.hardware_mut().cpu);
}

/// Enables `xcr0` as the guest's XSETBV does.
pub fn enable(vcpu: &mut VcpuXstate, cpu: &mut PcpuXstate<Modelled>, xcr0: u64) {
    vcpu.set_xcr0(xcr0, 0, cpu, &mut Memory).expect("legal");
}

/// What is not INIT in the registers, among `mask`.
pub fn in_registers(cpu: &PcpuXstate<Modelled>, mask: u64) -> ComponentSet {
    let registers = cpu.hardware().cpu.registers();
    let used = set(mask).iter().filter(|index| !registers.is_init(*index));
    used.fold(ComponentSet::EMPTY, |all, index| {
        all.union(ComponentSet::only(index))
    })
}

/// The claims and the canonical image of a vCPU.
pub fn export(vcpu: &mut VcpuXstate, cpu: &mut PcpuXstate<Modelled>) -> (Claims, Vec<u8>) {
    let mut image = vec![0; vcpu.export_size(cpu)];
    let exported = vcpu.export(cpu, &mut image).expect("measured");
    (exported.claims, image)
}

pub const SSE: ComponentIndex = ComponentIndex::SSE;
pub const YMM: ComponentIndex = ComponentIndex::AVX;
