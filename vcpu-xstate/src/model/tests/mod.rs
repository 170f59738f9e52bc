//! Tests of the model against the words of the manual, section by section.

mod faults;
mod optimizations;
mod restores;
mod saves;

use super::*;
use crate::cpuid::CpuidResult;
use crate::testing::TILES_CUT;

/// An area's address.
const AT: u64 = 0x4_0000;

/// A made-up machine that has everything: each instruction, AVX to APX and
/// LWP, every supervisor component, an unknown one (number 40, 24 bytes).
/// Standard offsets are those of processors where there is one.
pub(super) fn everything(leaf: u32, subleaf: u32) -> CpuidResult {
    const PARTS: [(u32, u32, u32, u32); 20] = [
        (2, 256, 576, 0),
        (3, 64, 960, 0),
        (4, 64, 1024, 0),
        (5, 64, 1088, 0),
        (6, 512, 1152, 0),
        (7, 1024, 1664, 0),
        (8, 128, 0, 1),
        (9, 8, 2688, 0),
        (10, 8, 0, 1),
        (11, 16, 0, 1),
        (12, 24, 0, 1),
        (13, 8, 0, 1),
        (14, 48, 0, 1),
        (15, 808, 0, 1),
        (16, 8, 0, 1),
        (17, 64, 2752, 2),
        (18, 8192 - TILES_CUT as u32, 2816, 6),
        (19, 128, 11008, 0),
        (40, 24, 11136, 2),
        (62, 128, 11200, 0),
    ];
    let mask = |supervisor: u32| {
        PARTS
            .iter()
            .filter(|(.., ecx)| ecx & 1 == supervisor)
            .fold(0u64, |set, (i, ..)| set | 1 << i)
    };
    let (user, supervisor) = (mask(0) | 3, mask(1));
    let (eax, ebx, ecx, edx) = match (leaf, subleaf) {
        (0, _) => (0x1f, 0, 0, 0),
        (1, _) => (0, 0, 1 << 26, 0),
        (7, 0) => (0, 0, 1 << 3 | 1 << 7, 1 << 20),
        (0xd, 0) => (user as u32, 0, 0, (user >> 32) as u32),
        (0xd, 1) => (0x1f, 0, supervisor as u32, (supervisor >> 32) as u32),
        (0xd, i) => PARTS
            .iter()
            .find(|(number, ..)| *number == i)
            .map_or((0, 0, 0, 0), |(_, size, offset, ecx)| {
                (*size, *offset, *ecx, 0)
            }),
        (0x1c, 0) => (0xf, 0, 0, 0),
        (0x8000_0000, _) => (0x8000_0008, 0, 0, 0),
        (0x8000_0008, _) => (48 << 8, 1 << 2, 0, 0),
        _ => (0, 0, 0, 0),
    };
    CpuidResult { eax, ebx, ecx, edx }
}

/// A processor of that machine with XCR0 and IA32_XSS as full as can be (no
/// APX beside MPX).
fn cpu() -> Cpu {
    let mut cpu = Cpu::new(Machine::read(&everything, 0xffff), InitTracking::ByContent);
    let user = cpu.machine().user() & !ComponentIndex::APX.bit();
    cpu.xsetbv(0, user).unwrap();
    cpu.wrmsr(0xda0, cpu.machine().supervisor()).unwrap();
    cpu
}

/// That processor with every component in use that is enabled.
fn busy(seed: u8) -> Cpu {
    let mut cpu = cpu();
    let enabled = cpu.xcr0() | cpu.xss();
    for i in (0..63).filter(|i| enabled & 1 << i != 0) {
        cpu.put_pattern(component(i), seed);
    }
    cpu
}

/// The processor of the machine that `change` makes of that one.
fn cpu_without(change: impl Fn(u32, u32, &mut CpuidResult)) -> Cpu {
    let cpuid = |leaf, subleaf| {
        let mut r = everything(leaf, subleaf);
        change(leaf, subleaf, &mut r);
        r
    };
    Cpu::new(Machine::read(&cpuid, 0xffff), InitTracking::ByContent)
}

fn component(index: u8) -> ComponentIndex {
    ComponentIndex::new(index).unwrap()
}

/// An area of that machine with this header and nothing else in it.
fn area(xstate_bv: u64, xcomp_bv: u64) -> Vec<u8> {
    let mut bytes = vec![0; 12 * 1024];
    put(&mut bytes, 24, &0x1f80_u32.to_le_bytes());
    put(&mut bytes, 512, &xstate_bv.to_le_bytes());
    put(&mut bytes, 520, &xcomp_bv.to_le_bytes());
    bytes
}

fn put(area: &mut [u8], at: usize, bytes: &[u8]) {
    area[at..at + bytes.len()].copy_from_slice(bytes);
}

fn word(area: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(area[at..at + 8].try_into().unwrap())
}
