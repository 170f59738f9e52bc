//! Tests of validation, each named after what was wrong: policies that no guest can have, tails of supervisor state.

use super::tests::{MASK, Sample, everything, set};
use super::*;
use crate::testing::supervisor;
use crate::{ComponentIndex, ComponentSet};

/// TILECFG without TILEDATA was taken as a policy that no XCR0 can have: the
/// guest's CPUID would offer what its XSETBV refuses (Firecracker's bug).
#[test]
fn half_a_group_in_the_policy_is_refused() {
    for part in [1 << 17, 1 << 18, 0x20, 0xc0] {
        let mut sample = Sample::new(everything(), 0x1f, MASK, 3);
        let group = if part < 1 << 17 { 0xe0 } else { 0x6_0000 };
        sample.claims.xstate_mask = MASK & !group | part;
        sample.claims.accum = 3;
        let rejection = sample.validate().expect_err("half a group");
        assert_eq!(rejection.rule(), "xstate-mask-group", "{part:#x}");
        // Nor is there a vCPU of such a policy.
        let policy = XstatePolicy::new(set(MASK & !group | part), set(0));
        assert_eq!(policy.mask, set(MASK & !group), "{part:#x}");
        assert_eq!(policy.within(set(MASK & !part)).mask, set(MASK & !group));
    }
}

/// A guest that has no IA32_XFD could never clear a bit that came with its
/// image: every use of its tiles would have been its own #NM for ever.
#[test]
fn xfd_of_a_guest_without_xfd() {
    let mut sample = Sample::new(everything(), 0x1f, MASK, 3);
    (sample.claims.xfd, sample.claims.accum) = (1 << 18, MASK & !(1 << 18));
    assert!(sample.validate().is_ok());
    sample.policy.xfd = false;
    assert_eq!(sample.validate().unwrap_err().rule(), "xfd-policy");
    (sample.claims.xfd, sample.claims.xfd_err) = (0, 1 << 18);
    assert_eq!(sample.validate().unwrap_err().rule(), "xfd-err-policy");
    // The hypervisor's own arming goes on: tiles without room are no error.
    sample.claims.xfd_err = 0;
    assert!(sample.validate().is_ok());
}

/// SDM Vol. 1, 13.12: XRSTORS faults on a bit in a reserved portion of a
/// component, and the bytes behind what is defined of it were not looked at.
#[test]
fn reserved_tail_of_a_supervisor_component() {
    let mut machine = Geometry::new();
    machine
        .insert(ComponentIndex::CET_U, supervisor(32))
        .unwrap();
    let mut sample = Sample::new(machine, 0x1f, 0x803, 0x803);
    assert!(sample.validate().is_ok());
    let tail = sample.offset(ComponentIndex::CET_U) + 20;
    sample.image[tail] = 0x80;
    let rejection = sample.validate().unwrap_err();
    let expected = Rejection::Reserved(ComponentIndex::CET_U, 0x80, 0);
    assert_eq!(rejection, expected);
    // Where CET_U is INIT nothing of it is read.
    let xstate_bv = 3_u64;
    sample.image[512..520].copy_from_slice(&xstate_bv.to_le_bytes());
    assert!(sample.validate().is_ok());
    assert!(!ComponentSet::from_bits_retain(xstate_bv).has(ComponentIndex::CET_U));
}
