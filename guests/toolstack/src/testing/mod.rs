//! What stands for the machine in tests: a hypervisor, a link, and what they hold.

mod cable;
mod host;
mod right;

pub use cable::{Cable, End};
pub use host::{Host, Runners};

use crate::hypervisor::Policy;
use crate::report::Output;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use migration_abi::blob::latest;
use vcpu_xstate::cpuid::{CpuidResult, HostXstate};
use vcpu_xstate::policy::CpuPolicy;

/// A machine with XSAVE, and AVX where `avx`.
pub fn machine(avx: bool) -> Policy {
    let xcr0: u32 = if avx { 7 } else { 3 };
    let size: u32 = if avx { 832 } else { 576 };
    let cpuid = move |leaf: u32, subleaf: u32| {
        let (eax, ebx, ecx, edx) = match (leaf, subleaf) {
            (0, _) => (
                0xd,
                u32::from_le_bytes(*b"Auth"),
                u32::from_le_bytes(*b"cAMD"),
                u32::from_le_bytes(*b"enti"),
            ),
            // XSAVE, AVX; FPU, TSC, MSR, CX8, FXSR, SSE, SSE2.
            (1, _) => (
                0x00a2_0f10,
                0,
                1 << 26 | u32::from(avx) << 28,
                1 | 1 << 4 | 1 << 5 | 1 << 8 | 7 << 24,
            ),
            (0xd, 0) => (xcr0, size, size, 0),
            (0xd, 2) if avx => (256, 576, 0, 0),
            (0x8000_0000, _) => (0x8000_0008, 0, 0, 0),
            (0x8000_0001, _) => (0, 0, 0, 1 << 29 | 1 << 20),
            (0x8000_0008, _) => (0x3028, 0, 0, 0),
            _ => (0, 0, 0, 0),
        };
        CpuidResult { eax, ebx, ecx, edx }
    };
    let host = HostXstate::read(&cpuid, 0xffff).unwrap();
    Policy::of(&CpuPolicy::host_default(&cpuid, &host))
}

/// An extended-state blob without a checksum, of x87 and SSE.
pub fn blob() -> Vec<u8> {
    let fields = latest::Fields {
        xstate_mask: 3,
        xcr0: 3,
        accum: 3,
        xcomp_bv: 1 << 63 | 3,
        ..latest::Fields::default()
    };
    let mut image = vec![0; 576];
    image[0] = 0x7f;
    image[520..528].copy_from_slice(&fields.xcomp_bv.to_le_bytes());
    let entry = |index, size, standard_offset| latest::DirectoryEntry {
        index,
        size,
        flags: 0,
        standard_offset,
    };
    let mut out = vec![0; 2048];
    let directory = [entry(0, 160, 0), entry(1, 256, 160)];
    let length = latest::encode(&mut out, &fields, directory, &image).unwrap();
    out.truncate(length);
    out
}

/// CONSOLE's payload with this output: 16 bytes of registers and length first.
pub fn console_record(output: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 16];
    bytes[8..12].copy_from_slice(&(output.len() as u32).to_le_bytes());
    bytes.extend_from_slice(output);
    bytes
}

/// Lines that a command printed.
#[derive(Default, Debug)]
pub struct Lines(pub Vec<String>);

impl Output for Lines {
    fn line(&mut self, text: core::fmt::Arguments<'_>) {
        self.0.push(text.to_string());
    }
}
