//! Properties of what has one form of its own: FXSAVE regions, Xen's pointers, a vCPU's standard image, one component of an image.

use proptest::array::uniform;
use proptest::prelude::*;

use super::read_tests::{image, machine, policy, set};
use super::*;
use crate::hw::Modelled;
use crate::image::{Image, payload};
use crate::layout::Form;
use crate::masks::XstatePolicy;
use crate::model::InitTracking;
use crate::testing::{TestMemory, modelled};
use crate::update::{Update, begin_image};
use crate::validate::{Claims, validate};
use crate::{CpuId, PcpuXstate, VcpuXstate};

const ALL: u64 = 0x6_5ae7;
const FIP: usize = 8;
const FDP: usize = 16;
/// Where Xen says whether FIP and FDP have selectors behind them.
const WORD_SIZE: usize = 511;

/// A region with any bytes, and an MXCSR that every processor takes.
fn any_region() -> impl Strategy<Value = [u8; LEGACY_BYTES]> {
    let word_size = prop_oneof![Just(0_u8), Just(2), Just(4), Just(8), any::<u8>()];
    let wide = any::<bool>();
    (uniform::<_, LEGACY_BYTES>(any::<u8>()), word_size, wide).prop_map(
        |(mut region, word_size, wide)| {
            (region[26], region[27], region[WORD_SIZE]) = (0, 0, word_size);
            if wide {
                region[FIP + 4..FIP + 8].fill(0);
                region[FDP + 4..FDP + 8].fill(0);
            }
            region
        },
    )
}

/// The bytes of a region that a processor loads: not MXCSR_MASK, not what is
/// reserved (SDM Vol. 1, Table 10-2).
fn registers(region: &[u8; LEGACY_BYTES]) -> Vec<u8> {
    let reserved = |at: usize| {
        let behind_st = (32..160).contains(&at) && at % 16 >= 10;
        at == 5 || (28..32).contains(&at) || behind_st || at >= 416
    };
    let kept = (0..LEGACY_BYTES).filter(|at| !reserved(*at));
    kept.map(|at| region[at]).collect()
}

/// Whether there is a selector, written down once more.
fn has_selector(region: &[u8; LEGACY_BYTES]) -> bool {
    let behind = |at: usize| region[at + 4..at + 8].iter().any(|byte| *byte != 0);
    matches!(region[WORD_SIZE], 2 | 4) && (behind(FIP) || behind(FDP))
}

fn is_taken(region: &[u8; LEGACY_BYTES]) -> Result<[u8; LEGACY_BYTES], ForeignError> {
    let (host, image) = (machine(), image_of_fxsave(region));
    let policy = XstatePolicy::without_xsave();
    let foreign = ForeignImage::fxsave(&image);
    let taken = read(&foreign, host.geometry(), &host, &policy, Excess::Refuse)?;
    Ok(taken.image.write_fxsave().unwrap())
}

/// What a vCPU gives, and what the image of its export gives, for Xen or KVM.
type Written = (Result<Standard, Unholdable>, Vec<u8>);

/// Both ways from a vCPU with `held` of `layout` in use to a standard image.
fn both_ways(held: u64, layout: u64, xfd: u64, to: Destination) -> [Written; 2] {
    let (host, policy) = (machine(), policy(ALL));
    let claims = Claims {
        xstate_mask: ALL,
        xcr0: 0x6_02e7,
        xss: 0,
        xfd,
        xfd_err: 0,
        accum: 0x6_02e7 | layout | 3,
        xcomp_bv: layout | 1 << 63,
        xsave: true,
    };
    let bytes = image(host.geometry(), Form::Compacted, layout, held);
    let trusted = validate(&claims, host.geometry(), &bytes, &host, &policy).unwrap();
    let mut cpu: PcpuXstate<Modelled> = PcpuXstate::new(
        CpuId(0),
        modelled(&host, InitTracking::ByContent),
        host.clone(),
    );
    let mut memory = TestMemory::default();
    let mut vcpu = VcpuXstate::new(1, &policy, &host, &mut memory).unwrap();
    vcpu.import(&trusted, &mut cpu, &mut memory).unwrap();
    // The registers are what is exported.
    cpu.load(&mut vcpu).unwrap();
    let mut out = vec![0x5a; 12_288];
    let of_vcpu = vcpu.export_standard(&mut cpu, to, &mut out);
    let mut other = vec![0xa5; 12_288];
    let of_image = trusted.write_standard(to, &mut other);
    cpu.discard(vcpu, &mut memory);
    [(of_vcpu, out), (of_image, other)]
}

proptest! {
    #[test]
    fn an_fxsave_region_comes_back(mut region in any_region()) {
        region[WORD_SIZE] = 0;
        let back = is_taken(&region).unwrap();
        prop_assert_eq!(registers(&back), registers(&region));
    }

    /// What is dropped is the selectors, and then nothing is left to refuse.
    #[test]
    fn selectors_are_dropped_and_nothing_else(region in any_region()) {
        let mut dropped = region;
        let there = has_selector(&region);
        prop_assert_eq!(is_taken(&region).is_err(), there);
        prop_assert_eq!(drop_fp_selectors(&mut dropped), there);
        let mut expected = region;
        if there {
            expected[FIP + 4..FIP + 8].fill(0);
            expected[FDP + 4..FDP + 8].fill(0);
        }
        prop_assert_eq!(dropped, expected);
        prop_assert!(!drop_fp_selectors(&mut dropped));
        let back = is_taken(&dropped).unwrap();
        prop_assert_eq!(registers(&back), registers(&dropped));
    }

    /// From registers or from a blob's image, it is the same standard image.
    #[test]
    fn a_vcpu_writes_what_its_image_does(
        (held, room) in any::<(u64, u64)>(),
        (xen, disabled) in any::<(bool, bool)>(),
    ) {
        let xfd = if disabled && !xen { 1 << 18 } else { 0 };
        let layout = (held | room) & 0x6_02e7 & !xfd;
        let to = if xen { Destination::XEN } else { Destination::KVM };
        let [vcpu, image] = both_ways(held & layout, layout, xfd, to);
        prop_assert!(vcpu.0.is_ok());
        prop_assert_eq!(vcpu.0.map(|s| (s.xcr0, s.len_bytes)), image.0.map(|s| (s.xcr0, s.len_bytes)));
        prop_assert!(vcpu.1 == image.1);
    }

    /// One component of an image of either form: it is what was written, all
    /// others are what they were, and nothing is changed that is not finished.
    #[test]
    fn one_component_of_an_image_is_updated(
        (held, room, value) in any::<(u64, u64, u8)>(),
        standard in any::<bool>(),
        choice in any::<prop::sample::Index>(),
    ) {
        let host = machine();
        let (geometry, limits) = (host.geometry(), host.limits());
        let form = if standard { Form::Standard } else { Form::Compacted };
        let layout = if standard { 0x6_02e7 } else { (held | room) & 0x6_02e7 | 4 };
        let before = image(geometry, form, layout, held & layout);
        // Those whose bytes are all legal: no MXCSR, no tile configuration.
        let free: Vec<_> = set(layout & 0x400e4).iter().collect();
        let component = free[choice.index(free.len())];
        let mut bytes = before.clone();
        let mut update = begin_image(&mut bytes, geometry, form, &limits, component).unwrap();
        update.bytes_mut().fill(value);
        drop(update);
        prop_assert!(bytes == before, "{component} was not finished");
        let mut update = begin_image(&mut bytes, geometry, form, &limits, component).unwrap();
        update.bytes_mut().fill(value);
        update.finish().unwrap();
        let (old, new) = (
            Image::new(&before, geometry, form).unwrap(),
            Image::new(&bytes, geometry, form).unwrap(),
        );
        let written = new.xstate_bv();
        prop_assert_eq!(written, old.xstate_bv().union(ComponentSet::only(component)));
        for place in geometry.placements(form, set(layout)) {
            let range = payload(place);
            if place.component == component {
                prop_assert!(bytes[range].iter().all(|byte| *byte == value));
            } else if written.has(place.component) {
                prop_assert_eq!(&bytes[range.clone()], &before[range], "{}", place.component);
            }
        }
        prop_assert_eq!(&bytes[..LEGACY_BYTES], &before[..LEGACY_BYTES]);
    }
}
