//! Builds a policy's leaves from its parts: the one place that knows what each leaf holds.
//!
//! Every policy goes through here, one from the wire too: a stranger's leaves
//! are taken apart, put together again, and must come out the same.

use core::ops::RangeInclusive;

use super::CpuPolicy;
use super::leaves::{LeafTable, register};
use super::place::Word;
use super::set::{Bit, FeatureSet};
use crate::component::ComponentSet;
use crate::cpuid::CpuidResult;
use crate::layout::{Form, Geometry};
use crate::masks::XstatePolicy;

/// What a policy follows from, besides the leaves that only inform.
pub(super) struct Parts<'a> {
    /// Closed under needs.
    pub features: FeatureSet,
    /// Whole groups; all of it in `geometry`.
    pub mask: ComponentSet,
    pub deferred: ComponentSet,
    /// May know more than `mask`.
    pub geometry: &'a Geometry,
}

const XSAVE: Bit = Bit::of("xsave");
const XSAVES: Bit = Bit::of("xsaves");
const AMX: Bit = Bit::of("amx-tile");

/// Bits of CPUID 0x80000001:EDX that repeat CPUID 1:EDX on AMD's processors.
pub(super) const MIRRORED: u32 = 0x0183_f3ff;

/// Caps on address widths. 39 bits of guest-physical address are 512 GiB, and
/// nearly every machine has them: a wider promise would only forbid moves. 57
/// bits of linear address need LA57, which is not offered.
const PHYSICAL_BITS: RangeInclusive<u32> = 32..=39;
const LINEAR_BITS: u32 = 48;

/// Whether the vendor is AMD or Hygon, by EBX of leaf 0.
const fn is_amd(vendor: &CpuidResult) -> bool {
    matches!(vendor.ebx, 0x6874_7541 | 0x6f67_7948)
}

/// Builds the policy. `info` answers for leaves that only inform (vendor,
/// signature, caches, names, widths): a host's CPUID, or an older policy's.
pub(super) fn assemble(info: &impl Fn(u32, u32) -> CpuidResult, parts: &Parts<'_>) -> CpuPolicy {
    let mut features = parts.features;
    // What follows the guest's CR4 is not the policy's.
    for live in [const { Bit::of("osxsave") }, const { Bit::of("ospke") }] {
        features = features.without(live);
    }
    features.set_word(Word::E1Edx, features.word(Word::E1Edx) & !MIRRORED);

    let geometry = only(parts.geometry, parts.mask);
    let xstate = if features.has(XSAVE) {
        XstatePolicy {
            xfd: features.has(const { Bit::of("xfd") }),
            ..XstatePolicy::new(parts.mask, parts.deferred)
        }
    } else {
        XstatePolicy::without_xsave()
    };

    let mut table = LeafTable::new();
    basic(info, &features, &geometry, &xstate, &mut table);
    extended(info, &features, &mut table);
    CpuPolicy {
        table,
        features,
        xstate,
        geometry,
        worse: features.inverse(),
    }
}

/// The geometry of just these components.
fn only(geometry: &Geometry, mask: ComponentSet) -> Geometry {
    let mut reduced = Geometry::new();
    for component in mask.difference(ComponentSet::LEGACY) {
        if let Some(facts) = geometry.get(component) {
            // Part of a geometry that was checked is one.
            let _ = reduced.insert(component, *facts);
        }
    }
    reduced
}

/// The answer with the feature words of its leaf put in.
fn featured(
    mut answer: CpuidResult,
    leaf: u32,
    subleaf: u32,
    features: &FeatureSet,
) -> CpuidResult {
    for word in Word::ALL {
        let (l, s, place) = word.place();
        if (l, s) == (leaf, subleaf) {
            *register(&mut answer, place) = features.word(word);
        }
    }
    answer
}

fn basic(
    info: &impl Fn(u32, u32) -> CpuidResult,
    features: &FeatureSet,
    geometry: &Geometry,
    xstate: &XstatePolicy,
    table: &mut LeafTable,
) {
    let none = CpuidResult::default();
    table.push(
        0,
        0,
        CpuidResult {
            eax: 0,
            ..info(0, 0)
        },
    );

    // Family, model and stepping; the line size of CLFLUSH; one logical
    // processor. The initial APIC ID is the vCPU's own.
    let one = info(1, 0);
    let answer = CpuidResult {
        eax: one.eax & 0x0fff_3fff,
        ebx: one.ebx & 0xff00 | 1 << 16,
        ..none
    };
    table.push(1, 0, featured(answer, 1, 0, features));

    // Caches, shared with nobody.
    for subleaf in 0..4 {
        let cache = info(4, subleaf);
        if cache.eax & 0x1f == 0 {
            break;
        }
        let alone = CpuidResult {
            eax: cache.eax & 0x3ff,
            edx: cache.edx & 0x7,
            ..cache
        };
        table.push(4, subleaf, alone);
    }

    let second = featured(none, 7, 1, features);
    let answer = CpuidResult {
        eax: u32::from(second != none),
        ..none
    };
    table.push(7, 0, featured(answer, 7, 0, features));
    if second != none {
        table.push(7, 1, second);
    }

    // Topology: a thread in a core in a package of its own.
    let level = |kind: u32, subleaf| CpuidResult {
        ebx: 1,
        ecx: kind << 8 | subleaf,
        ..none
    };
    table.push(0xb, 0, level(1, 0));
    table.push(0xb, 1, level(2, 1));

    if features.has(XSAVE) {
        leaf_d(features, geometry, xstate, table);
    }

    if features.has(AMX) {
        let palette = info(0x1d, 1);
        table.push(0x1d, 0, CpuidResult { eax: 1, ..none });
        table.push(
            0x1d,
            1,
            CpuidResult {
                ecx: palette.ecx & 0xffff,
                edx: 0,
                ..palette
            },
        );
        let tmul = CpuidResult {
            ebx: info(0x1e, 0).ebx & 0x00ff_ffff,
            ..none
        };
        table.push(0x1e, 0, tmul);
    }
    let last = table.rows().last().map_or(0, |row| row.leaf);
    if let Some(first) = table.find_mut(0) {
        first.eax = last;
    }
}

/// Leaf 0xD but for the two sizes that follow XCR0 and IA32_XSS.
fn leaf_d(
    features: &FeatureSet,
    geometry: &Geometry,
    xstate: &XstatePolicy,
    table: &mut LeafTable,
) {
    let halves = |set: ComponentSet| (set.bits() as u32, (set.bits() >> 32) as u32);
    let user = xstate.mask.difference(geometry.supervisor());
    let supervisor = xstate.mask.intersection(geometry.supervisor());

    let (eax, edx) = halves(user);
    let most = geometry.image_size(Form::Standard, user);
    let answer = CpuidResult {
        eax,
        ebx: 0,
        // 1 MiB at most, by the geometry's invariants.
        ecx: u32::try_from(most).unwrap_or(u32::MAX),
        edx,
    };
    table.push(0xd, 0, answer);

    let (ecx, edx) = if features.has(XSAVES) {
        halves(supervisor)
    } else {
        (0, 0)
    };
    let answer = CpuidResult {
        ecx,
        edx,
        ..CpuidResult::default()
    };
    table.push(0xd, 1, featured(answer, 0xd, 1, features));

    for component in xstate.mask.difference(ComponentSet::LEGACY) {
        let Some(facts) = geometry.get(component) else {
            continue;
        };
        let answer = CpuidResult {
            eax: facts.size_bytes,
            ebx: facts.standard_offset,
            ecx: u32::from(facts.supervisor)
                | u32::from(facts.aligned64) << 1
                | u32::from(facts.xfd) << 2,
            edx: 0,
        };
        table.push(0xd, component.get().into(), answer);
    }
}

fn extended(info: &impl Fn(u32, u32) -> CpuidResult, features: &FeatureSet, table: &mut LeafTable) {
    let none = CpuidResult::default();
    let vendor = info(0, 0);
    let amd = is_amd(&vendor);
    // AMD repeats the vendor, the signature and part of leaf 1 here.
    let first = if amd {
        CpuidResult { eax: 0, ..vendor }
    } else {
        none
    };
    table.push(0x8000_0000, 0, first);
    let mut answer = featured(none, 0x8000_0001, 0, features);
    if amd {
        answer.eax = info(1, 0).eax & 0x0fff_3fff;
        answer.edx |= features.word(Word::L1Edx) & MIRRORED;
    }
    table.push(0x8000_0001, 0, answer);
    for brand in 0x8000_0002..=0x8000_0004 {
        table.push(brand, 0, info(brand, 0));
    }
    // AMD's first-level caches and TLBs; the second level, which Intel has too.
    if amd {
        table.push(0x8000_0005, 0, info(0x8000_0005, 0));
    }
    table.push(0x8000_0006, 0, info(0x8000_0006, 0));
    let seven = featured(none, 0x8000_0007, 0, features);
    if seven != none {
        table.push(0x8000_0007, 0, seven);
    }

    let widths = info(0x8000_0008, 0).eax;
    let physical = match widths & 0xff {
        0 => 36,
        bits => bits.clamp(*PHYSICAL_BITS.start(), *PHYSICAL_BITS.end()),
    };
    let answer = CpuidResult {
        eax: physical | LINEAR_BITS << 8,
        ..none
    };
    table.push(0x8000_0008, 0, featured(answer, 0x8000_0008, 0, features));
    let more = featured(none, 0x8000_0021, 0, features);
    if more != none {
        table.push(0x8000_0021, 0, more);
    }
    let last = table.rows().last().map_or(0, |row| row.leaf);
    if let Some(first) = table.find_mut(0x8000_0000) {
        first.eax = last;
    }
}
