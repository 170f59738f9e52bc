//! The machines whose layouts are measured, as their CPUID answers.

use vcpu_xstate::cpuid::CpuidResult;
use vcpu_xstate::{ComponentSet, HostXstate};

/// What a machine's leaf 0xD says of one component: number, size, offset, ECX.
type Subleaf = (u32, u32, u32, u32);

/// Supervisor component.
const SUPERVISOR: u32 = 1;
/// Aligned to 64 bytes in the compacted form.
const ALIGN64: u32 = 2;
/// Under IA32_XFD.
const XFD: u32 = 4;

const AVX: Subleaf = (2, 256, 576, 0);
const CET_U: Subleaf = (11, 16, 0, SUPERVISOR);
const CET_S: Subleaf = (12, 24, 0, SUPERVISOR);

/// AMD's: AVX-512 follows AVX without a hole.
const AMD: &[Subleaf] = &[
    AVX,
    (5, 64, 832, 0),
    (6, 512, 896, 0),
    (7, 1024, 1408, 0),
    CET_U,
    CET_S,
];

/// Intel's: MPX left a hole behind AVX.
const INTEL: &[Subleaf] = &[
    AVX,
    (5, 64, 1088, 0),
    (6, 512, 1152, 0),
    (7, 1024, 1664, 0),
    (9, 8, 2688, 0),
    CET_U,
    CET_S,
];

/// Intel's with AMX.
const AMX: &[Subleaf] = &[
    AVX,
    (5, 64, 1088, 0),
    (6, 512, 1152, 0),
    (7, 1024, 1664, 0),
    (9, 8, 2688, 0),
    CET_U,
    CET_S,
    (17, 64, 2752, ALIGN64),
    (18, 8192, 2816, ALIGN64 | XFD),
];

/// The machine whose user components are `layout`.
pub fn host(layout: u64) -> Option<HostXstate> {
    let subleaves = match layout {
        0xe7 => AMD,
        0x2e7 => INTEL,
        0x6_02e7 => AMX,
        _ => return None,
    };
    let cpuid = |leaf: u32, subleaf: u32| {
        let mut r = CpuidResult::default();
        match (leaf, subleaf) {
            (0, _) => r.eax = 0xd,
            (1, _) => r.ecx = 1 << 26,
            (7, 0) => r.ecx = 1 << 3,
            (0xd, 0) => r.eax = layout as u32,
            // XSAVEOPT, XSAVEC, XGETBV(1), XSAVES, XFD; CET in IA32_XSS.
            (0xd, 1) => (r.eax, r.ecx) = (0x1f, 0x1800),
            (0xd, i) => {
                let known = subleaves.iter().find(|(number, ..)| *number == i);
                if let Some(&(_, size, offset, flags)) = known {
                    (r.eax, r.ebx, r.ecx) = (size, offset, flags);
                }
            }
            _ => {}
        }
        r
    };
    let host = HostXstate::read(&cpuid, 0xffff).ok()?;
    let layout = ComponentSet::from_bits_retain(layout);
    host.offered().contains(layout).then_some(host)
}
