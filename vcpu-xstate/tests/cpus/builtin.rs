//! A handful of machines as facts, so that the test means something without a table.

use std::collections::BTreeMap;

use super::table::Dump;

/// One component: number, size, offset in the standard form, ECX.
type Part = (u32, u32, u32, u32);

/// A machine: name, vendor's first letters, CPUID.(0xD,1):EAX, features
/// (PKU, shadow stacks, branch tracking), recorded sizes, components.
struct Facts {
    name: &'static str,
    vendor: &'static [u8; 4],
    instructions: u32,
    features: [bool; 3],
    /// CPUID.(0xD,0):EBX and ECX, CPUID.(0xD,1):EBX as they were read (as they
    /// must be, where the machine is a specification).
    sizes: [u32; 3],
    parts: &'static [Part],
}

const AVX: Part = (2, 256, 576, 0);
const MPX: [Part; 2] = [(3, 64, 960, 0), (4, 64, 1024, 0)];
const INTEL_AVX512: [Part; 3] = [(5, 64, 1088, 0), (6, 512, 1152, 0), (7, 1024, 1664, 0)];
const AMD_AVX512: [Part; 3] = [(5, 64, 832, 0), (6, 512, 896, 0), (7, 1024, 1408, 0)];
const PT: Part = (8, 128, 0, 1);
const INTEL_PKRU: Part = (9, 8, 2688, 0);
const CET: [Part; 2] = [(11, 16, 0, 1), (12, 24, 0, 1)];

const MACHINES: [Facts; 10] = [
    Facts {
        name: "Sandy Bridge: XSAVEOPT, AVX",
        vendor: b"Genu",
        instructions: 0x1,
        features: [false; 3],
        sizes: [832, 832, 0],
        parts: &[AVX],
    },
    Facts {
        name: "Piledriver: XSAVE alone, LWP is bit 62",
        vendor: b"Auth",
        instructions: 0,
        features: [false; 3],
        sizes: [832, 960, 0],
        parts: &[AVX, (62, 128, 832, 0)],
    },
    Facts {
        name: "Skylake server: MPX, AVX-512, PT, PKRU",
        vendor: b"Genu",
        instructions: 0xf,
        features: [true, false, false],
        sizes: [2696, 2696, 2568],
        parts: &[
            AVX,
            MPX[0],
            MPX[1],
            INTEL_AVX512[0],
            INTEL_AVX512[1],
            INTEL_AVX512[2],
            PT,
            INTEL_PKRU,
        ],
    },
    Facts {
        name: "Zen 2: PKRU of 64 bytes where LWP had been, without PKU",
        vendor: b"Auth",
        instructions: 0xf,
        features: [false; 3],
        sizes: [832, 896, 832],
        parts: &[AVX, (9, 64, 832, 0)],
    },
    Facts {
        name: "Zen 3: PKRU behind a hole, shadow stacks without tracking",
        vendor: b"Auth",
        instructions: 0xf,
        features: [true, true, false],
        sizes: [832, 2440, 848],
        parts: &[AVX, (9, 8, 2432, 0), CET[0], CET[1]],
    },
    Facts {
        name: "Zen 4: AVX-512 right behind AVX",
        vendor: b"Auth",
        instructions: 0xf,
        features: [true, true, false],
        sizes: [2432, 2440, 2448],
        parts: &[
            AVX,
            AMD_AVX512[0],
            AMD_AVX512[1],
            AMD_AVX512[2],
            (9, 8, 2432, 0),
            CET[0],
            CET[1],
        ],
    },
    Facts {
        name: "Alder Lake: LBR and HWP, no AVX-512",
        vendor: b"Genu",
        instructions: 0xf,
        features: [true; 3],
        sizes: [832, 2696, 976],
        parts: &[
            AVX,
            PT,
            INTEL_PKRU,
            CET[0],
            CET[1],
            (15, 808, 0, 1),
            (16, 8, 0, 1),
        ],
    },
    Facts {
        name: "Tiger Lake: HDC",
        vendor: b"Genu",
        instructions: 0xf,
        features: [true; 3],
        sizes: [2688, 2696, 2576],
        parts: &[
            AVX,
            INTEL_AVX512[0],
            INTEL_AVX512[1],
            INTEL_AVX512[2],
            PT,
            INTEL_PKRU,
            CET[0],
            CET[1],
            (13, 8, 0, 1),
        ],
    },
    Facts {
        name: "Sapphire Rapids: AMX, PASID, UINTR, LBR",
        vendor: b"Genu",
        instructions: 0x1f,
        features: [true; 3],
        sizes: [11008, 11008, 10880],
        parts: &[
            AVX,
            INTEL_AVX512[0],
            INTEL_AVX512[1],
            INTEL_AVX512[2],
            PT,
            INTEL_PKRU,
            (10, 8, 0, 1),
            CET[0],
            CET[1],
            (14, 48, 0, 1),
            (15, 808, 0, 1),
            (17, 64, 2752, 2),
            (18, 8192, 2816, 6),
        ],
    },
    Facts {
        name: "APX in the place of MPX, by its specification",
        vendor: b"Genu",
        instructions: 0xf,
        features: [true; 3],
        sizes: [2696, 2696, 2584],
        parts: &[
            AVX,
            INTEL_AVX512[0],
            INTEL_AVX512[1],
            INTEL_AVX512[2],
            INTEL_PKRU,
            CET[0],
            CET[1],
            (19, 128, 960, 0),
        ],
    },
];

/// The facts as the CPUID of those machines.
pub fn machines() -> BTreeMap<String, Dump> {
    MACHINES
        .iter()
        .map(|facts| (facts.name.to_owned(), dump(facts)))
        .collect()
}

fn dump(facts: &Facts) -> Dump {
    let mask = |supervisor: u32| {
        facts
            .parts
            .iter()
            .filter(|(.., ecx)| ecx & 1 == supervisor)
            .fold(0u64, |set, (i, ..)| set | 1 << i)
    };
    let halves = |mask: u64| (mask as u32, (mask >> 32) as u32);
    let ((user_low, user_high), (low, high)) = (halves(mask(0) | 3), halves(mask(1)));
    let [standard, largest, compacted] = facts.sizes;
    let [pku, stacks, tracking] = facts.features.map(u32::from);
    let mut dump = Dump::default();
    dump.put(0, 0, [0xd, u32::from_le_bytes(*facts.vendor), 0, 0]);
    dump.put(1, 0, [0, 0, 1 << 26, 0]);
    dump.put(7, 0, [0, 0, pku << 3 | stacks << 7, tracking << 20]);
    dump.put(0xd, 0, [user_low, standard, largest, user_high]);
    dump.put(0xd, 1, [facts.instructions, compacted, low, high]);
    for (i, size, offset, ecx) in facts.parts {
        dump.put(0xd, *i, [*size, *offset, *ecx, 0]);
    }
    dump
}
