//! A handful of machines as facts, so that each command works without a table.
//!
//! Registers of CPUID as these processors and emulators answer it; where a
//! layout is announced and not yet measured, the model says so.

use std::collections::BTreeMap;

use vcpu_xstate::layout::{ComponentFacts, Form};
use vcpu_xstate::{ComponentIndex, CpuidResult, Geometry};

use super::{Answers, Machine};

/// Component, size and standard offset in bytes, ECX of its subleaf (1:
/// supervisor, 2: aligned to 64 when compacted, 4: under XFD).
type Row = (u8, u32, u32, u32);

const AVX: Row = (2, 256, 576, 0);
const MPX: [Row; 2] = [(3, 64, 960, 0), (4, 64, 1024, 0)];
const PT: Row = (8, 128, 0, 1);
const CET: [Row; 2] = [(11, 16, 0, 1), (12, 24, 0, 1)];
const LBR: Row = (15, 808, 0, 1);
const HWP: Row = (16, 8, 0, 1);
/// Intel's places: MPX between AVX and these, used or not.
const AVX512_INTEL: [Row; 3] = [(5, 64, 1088, 0), (6, 512, 1152, 0), (7, 1024, 1664, 0)];
const PKRU_INTEL: Row = (9, 8, 2688, 0);
/// AMD never had MPX; its AVX-512 lies where LWP was.
const AVX512_AMD: [Row; 3] = [(5, 64, 832, 0), (6, 512, 896, 0), (7, 1024, 1408, 0)];
const PKRU_AMD: Row = (9, 8, 2432, 0);
const AMX: [Row; 2] = [(17, 64, 2752, 2), (18, 8192, 2816, 6)];
/// PASID, UINTR: what Sapphire Rapids has besides.
const SERVER: [Row; 2] = [(10, 8, 0, 1), (14, 48, 0, 1)];
const APX: Row = (19, 128, 960, 0);
const LWP: Row = (62, 128, 832, 0);

const INTEL: [u32; 3] = [0x756e_6547, 0x6c65_746e, 0x4965_6e69];
const AMD: [u32; 3] = [0x6874_7541, 0x444d_4163, 0x6974_6e65];

/// Feature words: leaf 1 ECX and EDX, leaf 7 EBX, ECX and EDX, leaf 7.1 EAX and
/// EDX, leaf 0x80000001 ECX and EDX.
type Words = [u32; 9];

struct Facts {
    name: &'static str,
    model: &'static str,
    vendor: [u32; 3],
    /// Highest basic leaf; CPUID.1:EAX; CPUID.(0xD,1):EAX; CPUID.80000008:EAX.
    numbers: [u32; 4],
    words: Words,
    rows: Vec<Row>,
}

/// The machines, oldest first by vendor.
pub fn machines() -> Vec<Machine> {
    facts().into_iter().map(machine).collect()
}

fn facts() -> Vec<Facts> {
    let intel = |name, model, numbers, words, rows: &[&[Row]]| Facts {
        name,
        model,
        vendor: INTEL,
        numbers,
        words,
        rows: rows.concat(),
    };
    let amd = |name, model, numbers, words, rows: &[&[Row]]| Facts {
        vendor: AMD,
        ..intel(name, model, numbers, words, rows)
    };
    const SPR: Words = [
        0x7ffe_fbff,
        0xbfeb_fbff,
        0xf3bf_bffb,
        0xbb41_7fee,
        0xffdd_4430,
        0x1c30,
        0,
        0x121,
        0x2c10_0800,
    ];
    let mut gnr = SPR;
    (gnr[5], gnr[6]) = (0x4020_1d30, 0xe_4000);
    let mut diamond = gnr;
    diamond[6] |= 1 << 21;
    let amx: &[&[Row]] = &[
        &[AVX],
        &AVX512_INTEL,
        &[PT, PKRU_INTEL],
        &SERVER,
        &CET,
        &[LBR],
        &AMX,
    ];
    vec![
        intel(
            "core2",
            "Core 2 Quad: XSAVE with x87 and SSE alone",
            [0xd, 0x1_067a, 0, 0x3024],
            [0x0c08_e3bd, 0xbfeb_fbff, 0, 0, 0, 0, 0, 0x1, 0x2010_0800],
            &[],
        ),
        intel(
            "haswell",
            "Xeon E3 v3: AVX2, XSAVEOPT",
            [0xd, 0x3_06c3, 0x1, 0x3027],
            [
                0x7ffa_fbff,
                0xbfeb_fbff,
                0x2fbb,
                0,
                0,
                0,
                0,
                0x21,
                0x2c10_0800,
            ],
            &[&[AVX]],
        ),
        intel(
            "skylake-sp",
            "Xeon Gold 61xx: MPX, AVX-512, PKRU",
            [0x16, 0x5_0654, 0xf, 0x302e],
            [
                0x7ffe_fbff,
                0xbfeb_fbff,
                0xd39f_fffb,
                0x8,
                0,
                0,
                0,
                0x121,
                0x2c10_0800,
            ],
            &[&[AVX], &MPX, &AVX512_INTEL, &[PT, PKRU_INTEL]],
        ),
        intel(
            "icelake-sp",
            "Ice Lake server: AVX-512, PKRU",
            [0x1b, 0x6_06a6, 0xf, 0x392e],
            [
                0x7ffe_fbff,
                0xbfeb_fbff,
                0xf3bf_bfff,
                0x4041_7f5e,
                0xbc00_0012,
                0,
                0,
                0x121,
                0x2c10_0800,
            ],
            &[&[AVX], &AVX512_INTEL, &[PT, PKRU_INTEL]],
        ),
        intel(
            "alder-lake",
            "12th generation Core: PKRU, CET, LBR",
            [0x20, 0x9_0672, 0xf, 0x3027],
            [
                0x7ffa_fbff,
                0xbfeb_fbff,
                0x239c_a7eb,
                0x98c0_27ac,
                0xfc1c_c410,
                0x40_0810,
                0,
                0x121,
                0x2c10_0800,
            ],
            &[&[AVX, PT, PKRU_INTEL], &CET, &[LBR, HWP]],
        ),
        intel(
            "sapphire-rapids",
            "Sapphire Rapids: AVX-512, AMX, CET, UINTR, LBR",
            [0x20, 0x8_06f8, 0x1f, 0x3934],
            SPR,
            amx,
        ),
        intel(
            "granite-rapids",
            "Granite Rapids: Sapphire Rapids' and HWP",
            [0x24, 0xa_06d1, 0x1f, 0x3934],
            gnr,
            &[amx.concat().as_slice(), &[HWP]],
        ),
        intel(
            "diamond-rapids",
            "Diamond Rapids as announced: APX where MPX was",
            [0x24, 0x13_0610, 0x1f, 0x3934],
            diamond,
            &[amx.concat().as_slice(), &[HWP, APX]],
        ),
        amd(
            "piledriver",
            "family 15h: LWP, component 62, after AVX",
            [0xd, 0x61_0f01, 0, 0x3030],
            [
                0x3e98_320b,
                0x178b_fbff,
                0x8,
                0,
                0,
                0,
                0,
                0x01eb_bfff,
                0x2fd3_fbff,
            ],
            &[&[AVX, LWP]],
        ),
        amd(
            "zen1",
            "EPYC 7xx1: AVX2, XSAVES",
            [0xd, 0x80_0f12, 0xf, 0x3030],
            [
                0x7ed8_320b,
                0x178b_fbff,
                0x209c_01a9,
                0,
                0,
                0,
                0,
                0x35c2_33ff,
                0x2fd3_fbff,
            ],
            &[&[AVX]],
        ),
        amd(
            "zen2",
            "EPYC 7xx2: a PKRU component of 64 bytes where LWP was, without PKU",
            [0x10, 0x83_0f10, 0xf, 0x3030],
            [
                0x7ed8_320b,
                0x178b_fbff,
                0x219c_91a9,
                0x40_0004,
                0,
                0,
                0,
                0x75c2_37ff,
                0x2fd3_fbff,
            ],
            &[&[AVX, (9, 64, 832, 0)]],
        ),
        amd(
            "zen3",
            "EPYC 7xx3: PKRU behind a hole, CET",
            [0x10, 0xa0_0f11, 0xf, 0x3030],
            [
                0x7efa_320b,
                0x178b_fbff,
                0x219c_97a9,
                0x40_068c,
                0x10,
                0,
                0,
                0x75c2_37ff,
                0x2fd3_fbff,
            ],
            &[&[AVX, PKRU_AMD], &CET],
        ),
        amd(
            "zen4",
            "EPYC 9xx4: AVX-512 at AMD's places",
            [0x10, 0xa1_0f11, 0xf, 0x3934],
            [
                0x7efa_320b,
                0x178b_fbff,
                0xf1bf_97a9,
                0x41_5fce,
                0x1000_0010,
                0x20,
                0,
                0x75c2_37ff,
                0x2fd3_fbff,
            ],
            &[&[AVX], &AVX512_AMD, &[PKRU_AMD], &CET],
        ),
        amd(
            "zen5",
            "EPYC 9xx5: as Zen 4",
            [0x10, 0xb1_0f10, 0xf, 0x3934],
            [
                0x7efa_320b,
                0x178b_fbff,
                0xf1bf_97ab,
                0x1941_5fce,
                0x1000_0110,
                0x30,
                0,
                0x75c2_37ff,
                0x2fd3_fbff,
            ],
            &[&[AVX], &AVX512_AMD, &[PKRU_AMD], &CET],
        ),
        amd(
            "qemu-max",
            "QEMU 10 -cpu max: MPX, PKRU, the standard form alone",
            [0xd, 0x6_0fb1, 0x5, 0x3028],
            [
                0x7ed8_320b,
                0x178b_fbff,
                0x0190_45a9,
                0x40_060c,
                0,
                0,
                0,
                0x121,
                0x2c10_0800,
            ],
            &[&[AVX], &MPX, &[PKRU_INTEL]],
        ),
        amd(
            "qemu-epyc-rome",
            "QEMU 10 -cpu EPYC-Rome: x87, SSE, AVX",
            [0xd, 0x83_0f10, 0x5, 0x3028],
            [
                0x7ed8_320b,
                0x178b_fbff,
                0x219c_91a9,
                0,
                0,
                0,
                0,
                0x121,
                0x2c10_0800,
            ],
            &[&[AVX]],
        ),
    ]
}

fn machine(facts: Facts) -> Machine {
    let mut leaves = BTreeMap::new();
    let mut put = |leaf: u32, subleaf: u32, [eax, ebx, ecx, edx]: [u32; 4]| {
        leaves.insert((leaf, subleaf), CpuidResult { eax, ebx, ecx, edx });
    };
    let [ebx, ecx, edx] = facts.vendor;
    let [highest, signature, instructions, widths] = facts.numbers;
    let [c1, d1, b7, c7, d7, a71, d71, ce, de] = facts.words;
    put(0, 0, [highest, ebx, ecx, edx]);
    // Lines of 64 bytes for CLFLUSH.
    put(1, 0, [signature, 0x0800, c1, d1]);
    put(7, 0, [u32::from(a71 | d71 != 0), b7, c7, d7]);
    put(7, 1, [a71, 0, 0, d71]);

    let mut geometry = Geometry::new();
    let (mut user, mut supervisor) = (3u64, 0u64);
    for (number, size_bytes, standard_offset, ecx) in facts.rows {
        put(0xd, number.into(), [size_bytes, standard_offset, ecx, 0]);
        let mask = if ecx & 1 == 0 {
            &mut user
        } else {
            &mut supervisor
        };
        *mask |= 1 << number;
        let component = ComponentFacts {
            size_bytes,
            standard_offset,
            supervisor: ecx & 1 != 0,
            aligned64: ecx & 2 != 0,
            xfd: ecx & 4 != 0,
        };
        let inserted = ComponentIndex::new(number).map(|index| geometry.insert(index, component));
        assert_eq!(inserted, Some(Ok(())), "{} {number}", facts.name);
    }
    // The sizes with everything enabled, as leaf 0xD tells them to who has.
    let size = |form| u32::try_from(geometry.image_size(form, geometry.known())).unwrap_or(0);
    let standard = size(Form::Standard);
    let compacted = if instructions & 2 != 0 {
        size(Form::Compacted)
    } else {
        0
    };
    put(
        0xd,
        0,
        [user as u32, standard, standard, (user >> 32) as u32],
    );
    let high = (supervisor >> 32) as u32;
    put(0xd, 1, [instructions, compacted, supervisor as u32, high]);
    if user & 1 << 18 != 0 {
        // Palette 1: 8 tiles of 16 rows of 64 bytes.
        put(0x1d, 0, [1, 0, 0, 0]);
        put(0x1d, 1, [0x0400_2000, 0x0008_0040, 0x10, 0]);
        put(0x1e, 0, [0, 0x4010, 0, 0]);
    }
    put(0x8000_0000, 0, [0x8000_0008, 0, 0, 0]);
    put(0x8000_0001, 0, [0, 0, ce, de]);
    put(0x8000_0008, 0, [widths, 0, 0, 0]);
    Machine {
        name: facts.name.to_owned(),
        model: facts.model.to_owned(),
        answers: Answers::Leaves(leaves),
    }
}
