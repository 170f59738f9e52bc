//! Which host can take it? A guest's policy against three machines, and the policy that all of them can run.
//!
//! `cargo run -p vcpu-xstate --example which_host_can_take_it`
//!
//! Three machines with the same XCR0 bits, in part, and three layouts. The
//! standard layout is guest ABI: a guest keeps XSAVE images in its own memory,
//! so a machine that has PKRU elsewhere cannot take a guest that uses it,
//! although its registers could be converted.

use std::error::Error;
use std::io::Write;

use vcpu_xstate::policy::{CpuPolicy, level_all};
use vcpu_xstate::{CpuidResult, HostXstate};

/// A machine by what matters here: CPUID.7:EBX, and leaf 0xD as component,
/// size, offset.
struct Machine {
    name: &'static str,
    leaf7_ebx: u32,
    components: &'static [(u32, u32, u32)],
}

const MACHINES: [Machine; 3] = [
    Machine {
        name: "Ice Lake",
        // AVX2, AVX-512F.
        leaf7_ebx: 1 << 5 | 1 << 16,
        components: &[
            (2, 256, 576),
            (5, 64, 1088),
            (6, 512, 1152),
            (7, 1024, 1664),
            (9, 8, 2688),
        ],
    },
    Machine {
        name: "Alder Lake",
        leaf7_ebx: 1 << 5,
        components: &[(2, 256, 576), (9, 8, 2688)],
    },
    Machine {
        name: "Zen 3",
        leaf7_ebx: 1 << 5,
        components: &[(2, 256, 576), (9, 8, 2432)],
    },
];

impl Machine {
    fn cpuid(&self, leaf: u32, subleaf: u32) -> CpuidResult {
        let place = self.components.iter().find(|(index, ..)| *index == subleaf);
        let mask = self.components.iter().fold(3, |all, (i, ..)| all | 1 << i);
        let (eax, ebx, ecx, edx) = match (leaf, subleaf) {
            (0, _) => (0xd, 0, 0, 0),
            // SSE3 to SSE4.2, XSAVE, AVX; FPU to SSE2.
            (1, _) => (0, 0, 0x1498_0201, 0x0781_a1ff),
            (7, 0) => (0, self.leaf7_ebx, 1 << 3, 0),
            (0xd, 0) => (mask, 0, 0, 0),
            (0xd, 1) => (0xf, 0, 0, 0),
            (0xd, _) => place.map_or((0, 0, 0, 0), |(_, size, offset)| (*size, *offset, 0, 0)),
            (0x8000_0000, _) => (0x8000_0008, 0, 0, 0),
            (0x8000_0001, _) => (0, 0, 1, 1 << 29 | 1 << 20 | 1 << 11),
            (0x8000_0008, _) => (0x3028, 0, 0, 0),
            _ => (0, 0, 0, 0),
        };
        CpuidResult { eax, ebx, ecx, edx }
    }

    /// The most that a guest may have there.
    fn default_policy(&self) -> Result<CpuPolicy, Box<dyn Error>> {
        let cpuid = |leaf, subleaf| self.cpuid(leaf, subleaf);
        let host = HostXstate::read(&cpuid, 0xffff)?;
        Ok(CpuPolicy::host_default(&cpuid, &host))
    }
}

/// Writes what happens to `out`.
pub fn run(out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let policies = MACHINES
        .iter()
        .map(Machine::default_policy)
        .collect::<Result<Vec<_>, _>>()?;

    // A guest that was given all of the first machine, and one that was told
    // at its start to leave AVX-512 out (Xen's way of saying it).
    let all = &policies[0];
    let modest = all
        .with_config("host:avx512f=0")
        .map_err(|error| error.to_string())?;
    // One that every machine can run, found by the library.
    let hosts: Vec<_> = policies.iter().collect();
    let level = level_all(&hosts).ok_or("there are machines")?;

    for (guest, policy) in [
        ("all of Ice Lake", all),
        ("without AVX-512", &modest),
        ("levelled", &level.policy),
    ] {
        writeln!(out, "{guest}: {}", policy.xstate().mask)?;
        for (machine, host) in MACHINES.iter().zip(&policies) {
            match policy.fits(host) {
                Ok(()) => writeln!(out, "  {:<10} takes it", machine.name)?,
                Err(misfit) => writeln!(out, "  {:<10} {misfit}", machine.name)?,
            }
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    run(&mut std::io::stdout())
}
