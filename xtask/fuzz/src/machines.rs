//! The machines of the targets: layouts of the field, each with every feature that is offered.

use std::sync::LazyLock;

use vcpu_xstate::component::ComponentSet;
use vcpu_xstate::cpuid::{CpuidResult, HostXstate};
use vcpu_xstate::policy::CpuPolicy;

/// One row of leaf 0xD: component, size, offset in the standard form, ECX.
type Row = (u32, u32, u32, u32);

/// What CPUID says of a machine, as far as the libraries ask.
struct Facts {
    amd: bool,
    /// CPUID.(0xD,1):EAX.
    instructions: u32,
    mxcsr_mask: u32,
    linear_address_bits: u32,
    rows: &'static [Row],
}

const AVX: Row = (2, 256, 576, 0);
const BNDREGS: Row = (3, 64, 960, 0);
const BNDCSR: Row = (4, 64, 1024, 0);
const OPMASK: Row = (5, 64, 1088, 0);
const ZMM: Row = (6, 512, 1152, 0);
const HI16: Row = (7, 1024, 1664, 0);
const PKRU: Row = (9, 8, 2688, 0);
const CET_U: Row = (11, 16, 0, 1);
const CET_S: Row = (12, 24, 0, 1);
const UINTR: Row = (14, 48, 0, 1);
const TILECFG: Row = (17, 64, 2752, 2);
const TILEDATA: Row = (18, 8192, 2816, 6);

const FACTS: [Facts; 8] = [
    // An emulator: standard form alone, MPX, no supervisor state.
    Facts {
        amd: true,
        instructions: 0x5,
        mxcsr_mask: 0x2_ffff,
        linear_address_bits: 48,
        rows: &[AVX, BNDREGS, BNDCSR, PKRU],
    },
    // Intel servers with MPX and AVX-512.
    Facts {
        amd: false,
        instructions: 0xf,
        mxcsr_mask: 0xffff,
        linear_address_bits: 48,
        rows: &[
            AVX,
            BNDREGS,
            BNDCSR,
            OPMASK,
            ZMM,
            HI16,
            (8, 128, 0, 1),
            PKRU,
        ],
    },
    // AMX with XFD, and every supervisor component that has a rule.
    Facts {
        amd: false,
        instructions: 0x1f,
        mxcsr_mask: 0xffff,
        linear_address_bits: 57,
        rows: &[
            AVX,
            OPMASK,
            ZMM,
            HI16,
            PKRU,
            (10, 8, 0, 1),
            CET_U,
            CET_S,
            UINTR,
            (15, 808, 0, 1),
            TILECFG,
            TILEDATA,
        ],
    },
    // AMD with PKRU of 64 bytes where LWP had been.
    Facts {
        amd: true,
        instructions: 0xf,
        mxcsr_mask: 0x2_ffff,
        linear_address_bits: 48,
        rows: &[AVX, (9, 64, 832, 0), CET_U, CET_S],
    },
    // AMD with AVX-512, whose offsets are not Intel's.
    Facts {
        amd: true,
        instructions: 0xf,
        mxcsr_mask: 0x2_ffff,
        linear_address_bits: 48,
        rows: &[
            AVX,
            (5, 64, 832, 0),
            (6, 512, 896, 0),
            (7, 1024, 1408, 0),
            (9, 8, 2432, 0),
            CET_U,
            CET_S,
        ],
    },
    // LWP: component 62, not offered, in the way.
    Facts {
        amd: true,
        instructions: 0x1,
        mxcsr_mask: 0,
        linear_address_bits: 48,
        rows: &[AVX, (62, 128, 832, 0)],
    },
    // APX below components of lower number, and AMX.
    Facts {
        amd: false,
        instructions: 0x1f,
        mxcsr_mask: 0xffff,
        linear_address_bits: 57,
        rows: &[
            AVX,
            OPMASK,
            ZMM,
            HI16,
            PKRU,
            CET_U,
            CET_S,
            TILECFG,
            TILEDATA,
            (19, 128, 960, 0),
        ],
    },
    // XSAVEC without XSAVES.
    Facts {
        amd: false,
        instructions: 0x3,
        mxcsr_mask: 0xffff,
        linear_address_bits: 48,
        rows: &[AVX, OPMASK, ZMM, HI16, PKRU],
    },
];

impl Facts {
    fn mask(&self, supervisor: u32) -> u64 {
        let own = self.rows.iter().filter(|row| row.3 & 1 == supervisor);
        own.fold(0, |mask, row| mask | 1 << row.0)
    }

    fn cpuid(&self, leaf: u32, subleaf: u32) -> CpuidResult {
        let [eax, ebx, ecx, edx] = match (leaf, subleaf) {
            (0, _) if self.amd => [0x20, 0x6874_7541, 0x444d_4163, 0x6974_6e65],
            (0, _) => [0x20, 0x756e_6547, 0x6c65_746e, 0x4965_6e69],
            (1, _) => [0x8_06f8, 0x0010_0800, !0, !0],
            (7, 0) => [1, !0, !0, !0],
            (7, 1) => [!0, !0, !0, !0],
            (0xd, 0) => {
                let user = self.mask(0) | 3;
                [user as u32, 0, 0, (user >> 32) as u32]
            }
            (0xd, 1) => [self.instructions, 0, self.mask(1) as u32, 0],
            (0xd, component) => {
                let row = self.rows.iter().find(|row| row.0 == component);
                row.map_or([0; 4], |row| [row.1, row.2, row.3, 0])
            }
            (0x1d, 0) => [1, 0, 0, 0],
            (0x1d, 1) => [0x0400_2000, 0x0008_0040, 0x10, 0],
            (0x1e, 0) => [0, 0x4010, 0, 0],
            (0x8000_0000, _) => [0x8000_0021, 0, 0, 0],
            (0x8000_0001 | 0x8000_0007, _) => [0, !0, !0, !0],
            (0x8000_0008, _) => [self.linear_address_bits << 8 | 46, !0, 0, 0],
            (0x8000_0021, _) => [!0, 0, 0, 0],
            _ => [0; 4],
        };
        CpuidResult { eax, ebx, ecx, edx }
    }
}

/// A machine, read.
pub struct Machine {
    /// Its number.
    pub number: u8,
    facts: &'static Facts,
    /// What it has and offers.
    pub host: HostXstate,
    /// The most that a domain may have there.
    pub policy: CpuPolicy,
}

impl Machine {
    /// Its CPUID.
    #[must_use]
    pub fn cpuid(&self, leaf: u32, subleaf: u32) -> CpuidResult {
        self.facts.cpuid(leaf, subleaf)
    }
}

static MACHINES: LazyLock<Vec<Machine>> = LazyLock::new(|| {
    (0u8..)
        .zip(&FACTS)
        .map(|(number, facts)| {
            let cpuid = |leaf, subleaf| facts.cpuid(leaf, subleaf);
            let mut host = HostXstate::read(&cpuid, facts.mxcsr_mask).expect("a machine");
            host.permit(ComponentSet::ALL);
            let policy = CpuPolicy::host_default(&cpuid, &host);
            Machine {
                number,
                facts,
                host,
                policy,
            }
        })
        .collect()
});

/// How many there are.
pub const COUNT: u8 = FACTS.len() as u8;

/// The machine of a number; every number is one's.
#[must_use]
pub fn machine(number: u8) -> &'static Machine {
    &MACHINES[usize::from(number % COUNT)]
}
