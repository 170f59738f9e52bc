//! Tests of component numbers, names and sets.

use super::*;

#[test]
fn names_go_both_ways_and_unknown_numbers_print() {
    for (index, name, _) in KNOWN {
        assert_eq!(ComponentIndex::from_name(name), Some(index));
        assert_eq!(index.to_string(), name);
    }
    assert_eq!(ComponentIndex::new(27).unwrap().to_string(), "component 27");
    assert_eq!(ComponentIndex::from_name("ymm"), None);
    assert_eq!(ComponentIndex::new(63), None);
}

/// Xen fe0d67576e: a mask held in 32 bits lost LWP.
#[test]
fn masks_cut_to_32_bits() {
    let set = ComponentSet::from_bits_retain(1 << 62 | 0x3);
    assert!(set.has(ComponentIndex::LWP));
    assert_eq!(set.iter().last(), Some(ComponentIndex::LWP));
    assert_eq!(set.to_string(), "x87 sse lwp");
}

#[test]
fn bit_63_is_kept_but_is_no_component() {
    let set = ComponentSet::from_bits_retain(1 << 63);
    assert!(!set.is_empty());
    assert_eq!(set.iter().next(), None);
    assert_eq!(set.to_string(), "bit 63");
    assert_eq!(ComponentSet::from_bits(1 << 63), None);
    assert_eq!(ComponentSet::EMPTY.to_string(), "none");
}

/// Firecracker: TILECFG offered without TILEDATA.
#[test]
fn tilecfg_without_tiledata() {
    let whole = |bits| ComponentSet::from_bits_retain(bits).whole_groups().bits();
    assert_eq!(whole(0x2_02e7), 0x2e7);
    assert_eq!(whole(0x6_02e7), 0x6_02e7);
    assert_eq!(whole(0x67), 0x7);
    assert_eq!(whole(0xe3), 0x3);
    assert_eq!(whole(0xb), 0x3);
    assert_eq!(whole(0x5), 0x1);
    assert_eq!(whole(0x8_001f), 0x8_0007);
}

#[test]
fn what_is_named_has_a_payload_and_nothing_else_has() {
    for index in ComponentSet::ALL {
        let named = ComponentSet::NAMED.has(index);
        assert_eq!(index.payload_bytes().is_some(), named, "{index}");
        assert_eq!(index.name().is_some(), named, "{index}");
    }
    assert_eq!(ComponentSet::NAMED.bits(), 1 << 62 | 0xf_ffff);
}
