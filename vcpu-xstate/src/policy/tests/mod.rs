//! Machines that the policy's tests share: layouts and feature words of the field, as facts.

mod carried;
mod closure;
mod config;
mod corpus;
mod explain;
mod fits;
mod guest;
mod level;
mod quirks;
mod take;
mod untrusted;

use super::place::Word;
use super::{CpuPolicy, CpuidLeaf, Dynamic};
use crate::component::ComponentSet;
use crate::cpuid::{CpuidResult, HostXstate};
use crate::policy::leaves::register;

/// What a test knows of a machine.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    pub leaves: Vec<CpuidLeaf>,
    pub mxcsr_mask: u32,
}

impl Machine {
    /// Its CPUID; zeros for what is not known of it.
    pub fn cpuid(&self, leaf: u32, subleaf: u32) -> CpuidResult {
        let answer = self
            .leaves
            .iter()
            .find(|row| (row.leaf, row.subleaf) == (leaf, subleaf))
            .map(CpuidLeaf::answer);
        match answer {
            Some(answer) => answer,
            // Dumps lack it; what is the highest follows from the rest.
            None if leaf == 0x8000_0000 => CpuidResult {
                eax: self.leaves.iter().map(|row| row.leaf).max().unwrap_or(0),
                ..CpuidResult::default()
            },
            None => CpuidResult::default(),
        }
    }

    pub fn put(&mut self, leaf: u32, subleaf: u32, [eax, ebx, ecx, edx]: [u32; 4]) {
        let answer = CpuidResult { eax, ebx, ecx, edx };
        self.leaves
            .retain(|row| (row.leaf, row.subleaf) != (leaf, subleaf));
        self.leaves.push(CpuidLeaf::new(leaf, subleaf, answer));
    }

    pub fn word(&mut self, word: Word, value: u32) {
        let (leaf, subleaf, place) = word.place();
        let mut answer = self.cpuid(leaf, subleaf);
        *register(&mut answer, place) = value;
        self.put(
            leaf,
            subleaf,
            [answer.eax, answer.ebx, answer.ecx, answer.edx],
        );
    }

    pub fn host(&self) -> HostXstate {
        HostXstate::read(&|l, s| self.cpuid(l, s), self.mxcsr_mask).unwrap()
    }

    pub fn policy(&self) -> CpuPolicy {
        CpuPolicy::host_default(&|l, s| self.cpuid(l, s), &self.host())
    }
}

/// One row of leaf 0xD: component, size, offset, ECX.
type Row = (u32, u32, u32, u32);

const AVX: Row = (2, 256, 576, 0);
const MPX: [Row; 2] = [(3, 64, 960, 0), (4, 64, 1024, 0)];
const AVX512: [Row; 3] = [(5, 64, 1088, 0), (6, 512, 1152, 0), (7, 1024, 1664, 0)];
const PKRU: Row = (9, 8, 2688, 0);
const CET: [Row; 2] = [(11, 16, 0, 1), (12, 24, 0, 1)];

const INTEL: [u32; 3] = [0x756e_6547, 0x6c65_746e, 0x4965_6e69];
const AMD: [u32; 3] = [0x6874_7541, 0x444d_4163, 0x6974_6e65];

/// A machine of this vendor, signature, XCR0, XSS, CPUID.(0xD,1):EAX and
/// components, with the features of a plain 64-bit processor.
fn machine(
    [ebx, ecx, edx]: [u32; 3],
    signature: u32,
    user: u64,
    instructions: u32,
    rows: &[Row],
) -> Machine {
    let mut m = Machine {
        mxcsr_mask: if ebx == AMD[0] { 0x2_ffff } else { 0xffff },
        ..Machine::default()
    };
    let supervisor: u64 = rows.iter().filter(|r| r.3 & 1 != 0).map(|r| 1 << r.0).sum();
    m.put(0, 0, [0x20, ebx, ecx, edx]);
    m.put(1, 0, [signature, 0x0510_0800, 0x7ed8_320b, 0x178b_fbff]);
    m.put(7, 0, [1, 0, 0, 0]);
    m.put(0xd, 0, [user as u32, 0, 0, (user >> 32) as u32]);
    m.put(0xd, 1, [instructions, 0, supervisor as u32, 0]);
    for (component, size, offset, ecx) in rows {
        m.put(0xd, *component, [*size, *offset, *ecx, 0]);
    }
    m.put(0x8000_0001, 0, [0, 0, 0x121, 0x2c10_0800]);
    m.put(0x8000_0002, 0, [0x6548_2041, 0x6f72, 0, 0]);
    m.put(0x8000_0008, 0, [0x302e, 0, 0, 0]);
    m
}

/// Skylake server: MPX, AVX-512, PKRU at 2688.
pub fn skylake() -> Machine {
    let rows = [&[AVX][..], &MPX, &AVX512, &[PKRU, (8, 128, 0, 1)]].concat();
    let mut m = machine(INTEL, 0x5_0654, 0x2ff, 0xf, &rows);
    m.word(Word::L1Ecx, 0x7ffe_fbff);
    m.word(Word::L1Edx, 0xbfeb_fbff);
    m.word(Word::L7Ebx, 0xd39f_fffb);
    m.word(Word::L7Ecx, 0x18);
    m
}

/// AMD Zen 3: PKRU 8 bytes at 2432, CET.
pub fn zen3() -> Machine {
    let rows = [&[AVX, (9, 8, 2432, 0)][..], &CET].concat();
    let mut m = machine(AMD, 0xa2_0f10, 0x207, 0xf, &rows);
    m.word(Word::L7Ebx, 0x219c_97a9);
    m.word(Word::L7Ecx, 0x40_068c);
    m.word(Word::L7Edx, 0x10);
    m.word(Word::E1Ecx, 0x75c2_37ff);
    m.word(Word::E1Edx, 0x2fd3_fbff);
    m
}

/// AMD Zen 2 server: PKRU 64 bytes at 832, where LWP had been, without the PKU bit.
pub fn zen2() -> Machine {
    let mut m = machine(AMD, 0x83_0f10, 0x207, 0xf, &[AVX, (9, 64, 832, 0)]);
    m.word(Word::L7Ebx, 0x219c_91a9);
    m.word(Word::L7Ecx, 0x40_0004);
    m.word(Word::E1Ecx, 0x75c2_37ff);
    m.word(Word::E1Edx, 0x2fd3_fbff);
    m
}

/// AMD family 15h: LWP, component 62, 128 bytes at 832.
pub fn family_15h() -> Machine {
    let mut m = machine(AMD, 0x61_0f01, 1 << 62 | 7, 0, &[AVX, (62, 128, 832, 0)]);
    m.word(Word::L1Ecx, 0x3e98_320b);
    m.word(Word::L7Ebx, 8);
    m.word(Word::E1Ecx, 0x01eb_bfff);
    m.word(Word::E1Edx, 0x2fd3_fbff);
    m
}

/// Sapphire Rapids: AVX-512, PKRU, AMX with XFD, and supervisor components.
pub fn sapphire_rapids() -> Machine {
    let supervisor = [
        (8, 128, 0, 1),
        (10, 8, 0, 1),
        (14, 48, 0, 1),
        (15, 808, 0, 1),
    ];
    let amx = [(17, 64, 2752, 2), (18, 8192, 2816, 6)];
    let rows = [&[AVX, PKRU][..], &AVX512, &CET, &supervisor, &amx].concat();
    let mut m = machine(INTEL, 0x8_06f8, 0x6_02e7, 0x1f, &rows);
    m.word(Word::L1Ecx, 0x7ffe_fbff);
    m.word(Word::L1Edx, 0xbfeb_fbff);
    m.word(Word::L7Ebx, 0xf3bf_bffb);
    m.word(Word::L7Ecx, 0xbb41_7fee);
    m.word(Word::L7Edx, 0xffdd_4430);
    m.word(Word::L71Eax, 0x1c30);
    m.put(0x1d, 0, [1, 0, 0, 0]);
    m.put(0x1d, 1, [0x0400_2000, 0x0008_0040, 0x10, 0]);
    m.put(0x1e, 0, [0, 0x4010, 0, 0]);
    m
}

/// Diamond Rapids as announced: Sapphire Rapids' with APX, component 19, in
/// MPX's place of the standard form.
pub fn apx() -> Machine {
    let mut m = sapphire_rapids();
    m.put(0xd, 0, [0xe_02e7, 0, 0, 0]);
    m.put(0xd, 19, [128, 960, 0, 0]);
    m.word(Word::L71Edx, 1 << 21);
    m
}

/// QEMU 10 `-cpu max`: MPX and PKRU, standard form only.
pub fn qemu_max() -> Machine {
    let rows = [&[AVX, PKRU][..], &MPX].concat();
    let mut m = machine(AMD, 0x60_0fb1, 0x21f, 0x5, &rows);
    m.word(Word::L7Ebx, 0x0180_4529 | 1 << 14 | 1 << 20 | 1 << 7);
    m.word(Word::L7Ecx, 0x40_060c);
    m.put(0x8000_0008, 0, [0x3928, 0, 0, 0]);
    m
}

/// QEMU 10 `-cpu EPYC-Rome`: x87, SSE, AVX.
pub fn epyc_rome() -> Machine {
    let mut m = machine(AMD, 0x83_0f10, 0x7, 0x5, &[AVX]);
    m.word(Word::L7Ebx, 0x219c_91a9);
    m
}

/// A machine with XSAVE that has nothing to save but x87 and SSE.
pub fn atom() -> Machine {
    let mut m = machine(INTEL, 0x8_0665, 0x3, 0xf, &[]);
    m.word(Word::L1Ecx, 0x4ed8_320b);
    m
}

/// All of them.
pub fn machines() -> [(&'static str, Machine); 9] {
    [
        ("skylake", skylake()),
        ("zen3", zen3()),
        ("zen2", zen2()),
        ("family_15h", family_15h()),
        ("sapphire_rapids", sapphire_rapids()),
        ("apx", apx()),
        ("qemu_max", qemu_max()),
        ("epyc_rome", epyc_rome()),
        ("atom", atom()),
    ]
}

/// A vCPU that has enabled all that its policy has.
pub fn all_enabled(policy: &CpuPolicy) -> Dynamic {
    let supervisor = policy.geometry().supervisor();
    let mask = policy.xstate().mask;
    Dynamic {
        cr4_osxsave: true,
        cr4_pke: true,
        xcr0: mask.difference(supervisor).bits(),
        xss: mask.intersection(supervisor).bits(),
        apic_id: 3,
    }
}

/// Checks what is true of every policy.
pub fn assert_closed(policy: &CpuPolicy) {
    assert_eq!(
        super::set::first_gap(
            policy.features(),
            policy.xstate().mask,
            policy.geometry().supervisor()
        ),
        None
    );
    assert!(policy.xstate().mask.contains(ComponentSet::LEGACY));
    assert!(policy.xstate().mask.contains(policy.deferred()));
    let again = CpuPolicy::from_leaves(policy.leaves(), policy.deferred());
    assert_eq!(again.as_ref(), Ok(policy));
    assert_eq!(policy.fits(policy), Ok(()));
}
