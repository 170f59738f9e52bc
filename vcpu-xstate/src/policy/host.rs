//! The most that a domain may have on a host, and why it is not more.

use alloc::vec::Vec;

use super::CpuPolicy;
use super::assemble::{MIRRORED, Parts, assemble};
use super::features::{Rule, TABLE};
use super::leaves::feature_word;
use super::place::Word;
use super::report::{LeftOut, Listener, Subject, Why};
use super::set::{self, Bit, FeatureSet, by_bit};
use crate::component::ComponentSet;
use crate::cpuid::{CpuidResult, HostXstate};
use crate::mutants::rule;

/// MXCSR.MM, which `misalignsse` is about.
const MXCSR_MM: u32 = 1 << 17;

impl CpuPolicy {
    /// The most that a domain may have on this host: what the host has, as far
    /// as it is offered. `cpuid` executes CPUID on the host; `host` is what of
    /// its extended state is offered.
    pub fn host_default(cpuid: &impl Fn(u32, u32) -> CpuidResult, host: &HostXstate) -> Self {
        Self::of_host(cpuid, host, &FeatureSet::EMPTY, &mut ())
    }

    /// The same for a hypervisor that switches and migrates more than the
    /// image: of the features that are [`Rule::Granted`], those in `granted`
    /// are offered (CET with IA32_S_CET, SSP and ISST_ADDR, say).
    pub fn host_granting(
        cpuid: &impl Fn(u32, u32) -> CpuidResult,
        host: &HostXstate,
        granted: &FeatureSet,
    ) -> Self {
        Self::of_host(cpuid, host, granted, &mut ())
    }

    /// What the machine has and [`host_granting`](Self::host_granting) leaves
    /// out, each with the reason.
    pub fn explain_host(
        cpuid: &impl Fn(u32, u32) -> CpuidResult,
        host: &HostXstate,
        granted: &FeatureSet,
    ) -> Vec<LeftOut> {
        let mut report = Vec::new();
        Self::of_host(cpuid, host, granted, &mut report);
        report
    }

    fn of_host(
        cpuid: &impl Fn(u32, u32) -> CpuidResult,
        host: &HostXstate,
        granted: &FeatureSet,
        listener: &mut impl Listener,
    ) -> Self {
        // Beyond its maximum, Intel answers with its highest leaf: garbage here.
        let basic = cpuid(0, 0).eax;
        let extended = cpuid(0x8000_0000, 0).eax;
        let subleaves_of_7 = if basic >= 7 { cpuid(7, 0).eax } else { 0 };
        let bounded = |leaf: u32, subleaf: u32| {
            let there = match leaf {
                _ if !rule!("host-highest-leaf") => true,
                7 => basic >= 7 && subleaf <= subleaves_of_7,
                0x8000_0000.. => leaf <= extended,
                _ => leaf <= basic,
            };
            if there {
                cpuid(leaf, subleaf)
            } else {
                CpuidResult::default()
            }
        };

        let mut raw = FeatureSet::EMPTY;
        for word in Word::ALL {
            raw.set_word(word, feature_word(&bounded, word));
        }
        raw.set_word(Word::LD1Eax, instruction_bits(host));
        let mut features = offered(&raw, granted, listener);

        let misaligned = const { Bit::of("misalignsse") };
        if rule!("host-misaligned-sse")
            && features.has(misaligned)
            && host.mxcsr_mask() & MXCSR_MM == 0
        {
            let why = Why::MxcsrMask(host.mxcsr_mask());
            set::remove(&mut features, misaligned, why, listener);
        }
        // Tiles cannot be used by who does not know their palette.
        let tiles = const { Bit::of("amx-tile") };
        let no_palette = bounded(0x1d, 0).eax == 0 || bounded(0x1d, 1) == CpuidResult::default();
        if rule!("host-tile-palette") && features.has(tiles) && no_palette {
            set::remove(&mut features, tiles, Why::NoPalette, listener);
        }

        for component in ComponentSet::ALL {
            if let Some(why) = host.withheld(component) {
                listener.gone(Subject::Component(component), Why::Withheld(why));
            }
        }
        let mut mask = host.offered();
        let geometry = host.geometry();
        set::settle(&mut features, &mut mask, geometry.supervisor(), listener);
        let policy = assemble(
            &bounded,
            &Parts {
                features,
                mask,
                deferred: ComponentSet::EMPTY,
                geometry,
            },
        );
        CpuPolicy {
            worse: raw.inverse(),
            ..policy
        }
    }
}

/// What of a machine's features has leave to be in a policy.
fn offered(raw: &FeatureSet, granted: &FeatureSet, listener: &mut impl Listener) -> FeatureSet {
    let mut features = FeatureSet::EMPTY;
    for feature in TABLE {
        let bit = feature.bit();
        let denied = match feature.rule {
            // In every policy, whatever the machine has.
            Rule::Required | Rule::Inverse => {
                features = features.with(bit);
                continue;
            }
            Rule::Offered => None,
            Rule::Granted if granted.has(bit) => None,
            Rule::Granted => Some(Why::NotGranted),
            Rule::Never => Some(Why::Never),
            Rule::Live => continue,
        };
        match denied {
            _ if !raw.has(bit) => {}
            None => features = features.with(bit),
            Some(why) => listener.gone(Subject::Feature(feature), why),
        }
    }
    let mut unnamed = *raw;
    unnamed.set_word(Word::E1Edx, raw.word(Word::E1Edx) & !MIRRORED);
    for bit in unnamed.iter().filter(|bit| by_bit(*bit).is_none()) {
        listener.gone(Subject::Bit(bit.location()), Why::Unknown);
    }
    features
}

/// CPUID.(0xD,1):EAX of what the host was found to have.
fn instruction_bits(host: &HostXstate) -> u32 {
    let has = host.instructions();
    u32::from(has.xsaveopt)
        | u32::from(has.xsavec) << 1
        | u32::from(has.xgetbv1) << 2
        | u32::from(has.xsaves) << 3
        | u32::from(has.xfd) << 4
}
