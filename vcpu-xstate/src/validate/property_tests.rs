//! Whatever is done to an image: what validates is restored, and everything else is refused without a panic.

use proptest::prelude::*;

use super::tests::{MASK, Sample, set};
use super::*;
use crate::convert::canonicalise;
use crate::model::InitTracking;
use crate::testing::{INSTRUCTIONS, TestMemory, bochs_sapphire_rapids, host, modelled};
use crate::{CpuId, PcpuXstate, VcpuXstate, XstatePolicy};

/// One change to a sample.
#[derive(Clone, Debug)]
enum Change {
    Byte(usize, u8),
    HeaderBit(usize),
    Claim(usize, u64),
    ClaimBit(usize, u32),
    Cut(usize),
}

fn claim(claims: &mut Claims, index: usize) -> &mut u64 {
    match index % 7 {
        0 => &mut claims.xstate_mask,
        1 => &mut claims.xcr0,
        2 => &mut claims.xss,
        3 => &mut claims.xfd,
        4 => &mut claims.xfd_err,
        5 => &mut claims.accum,
        _ => &mut claims.xcomp_bv,
    }
}

fn apply(sample: &mut Sample, change: &Change) {
    let len = sample.image.len();
    match *change {
        Change::Byte(at, value) => sample.image[at % len] = value,
        // Header and image agree, so that more than the comparison is tested.
        Change::HeaderBit(bit) => sample.image[512 + bit / 8] ^= 1 << (bit % 8),
        Change::Claim(which, value) => *claim(&mut sample.claims, which) = value,
        Change::ClaimBit(which, bit) => *claim(&mut sample.claims, which) ^= 1 << (bit % 64),
        Change::Cut(by) => sample.image.truncate(len - by % 3),
    }
}

fn any_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => (any::<usize>(), any::<u8>()).prop_map(|(at, value)| Change::Byte(at, value)),
        3 => (0usize..128).prop_map(Change::HeaderBit),
        1 => (any::<usize>(), any::<u64>()).prop_map(|(i, value)| Change::Claim(i, value)),
        3 => (any::<usize>(), any::<u32>()).prop_map(|(i, bit)| Change::ClaimBit(i, bit)),
        1 => any::<usize>().prop_map(Change::Cut),
    ]
}

fn round_trip(sample: &Sample, trusted: &TrustedImage<'_>) {
    let mut memory = TestMemory::default();
    let host = sample.host.clone();
    let model = modelled(&host, InitTracking::ByContent);
    let mut cpu = PcpuXstate::new(CpuId(0), model, host);
    let mut vcpu = VcpuXstate::new(1, &sample.policy, cpu.host(), &mut memory).unwrap();
    vcpu.import(trusted, &mut cpu, &mut memory).unwrap();
    cpu.load(&mut vcpu).expect("what validates is restored");
    cpu.enter(&vcpu);
    // The guest's own values are in place, and what comes back is the same.
    assert_eq!(vcpu.xcr0(), sample.claims.xcr0);
    assert_eq!(vcpu.xss(), sample.claims.xss);
    let mut out = vec![0; 20_000];
    let exported = vcpu.export(&mut cpu, &mut out).unwrap();
    let mut direct = vec![0; 20_000];
    let left_out = set(sample.claims.xfd);
    let canonical = canonicalise(trusted.image(), left_out, &mut direct).unwrap();
    assert_eq!(exported.image_len, canonical.len_bytes);
    assert!(out == direct, "the state changed on its way");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// What validate accepts can be restored, on every kind of host, and comes
    /// back as it was; whatever else is done to it is refused without a panic.
    #[test]
    fn what_validates_is_restorable(
        instructions in proptest::sample::select(&INSTRUCTIONS[..]),
        mask in any::<u64>(),
        held in any::<u64>(),
        changes in proptest::collection::vec(any_change(), 0..3),
    ) {
        let offered = host(bochs_sapphire_rapids(), instructions).offered();
        let mask = set(mask).union(set(3)).intersection(offered);
        let user = mask.difference(set(0x5800)).whole_groups();
        let mask = user.union(mask.intersection(set(0x5800)));
        let held = set(held).intersection(mask);
        let geometry = host(bochs_sapphire_rapids(), instructions).geometry().clone();
        let mut sample = Sample::new(geometry, instructions, mask.bits(), held.bits());
        prop_assert!(sample.validate().is_ok(), "{:?}", sample.validate());
        for change in &changes {
            if !sample.image.is_empty() {
                apply(&mut sample, change);
            }
        }
        if let Ok(trusted) = sample.validate() {
            round_trip(&sample, &trusted);
        }
    }

    /// Any bytes, any claims, any geometry: a verdict, never a panic.
    #[test]
    fn any_bytes_get_a_verdict(
        bytes in proptest::collection::vec(any::<u8>(), 0..1500),
        words in any::<[u64; 7]>(),
        g in crate::testing::any_geometry(),
        xsave in any::<bool>(),
    ) {
        let host = host(bochs_sapphire_rapids(), 0x1f);
        let [xstate_mask, xcr0, xss, xfd, xfd_err, accum, xcomp_bv] = words;
        let claims = Claims { xstate_mask, xcr0, xss, xfd, xfd_err, accum, xcomp_bv, xsave };
        let policy = XstatePolicy::new(set(MASK), ComponentSet::EMPTY);
        prop_assert!(validate(&claims, &g, &bytes, &host, &policy).is_err());
    }
}
