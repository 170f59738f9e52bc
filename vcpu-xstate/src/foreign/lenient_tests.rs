//! Lenient reads: what no policy has is left out and named, and the rest stays what it was.

use super::read_tests::{canonical, compacted, policy, refused, set, standard, taken, xstate_bv};
use super::*;
use crate::component::ComponentIndex;
use crate::layout::Form;

/// Linux ad856280dd, 8647c52e95: an older KVM saves the host's PKRU with a
/// guest that has none.
#[test]
fn host_pkru_in_a_guests_image() {
    let bytes = standard(0x2e7, 0x207);
    let foreign = ForeignImage::kvm(&bytes, ForeignRegisters::xcr0(7));
    let error = taken(&foreign, &policy(7), Excess::Refuse).unwrap_err();
    assert_eq!(error, ForeignError::Beyond(0x207, 7));
    assert_eq!(
        error.to_string(),
        "foreign-policy: XSTATE_BV has pkru, the policy has not"
    );

    let (read, dropped) = taken(&foreign, &policy(7), Excess::Drop).unwrap();
    assert_eq!(dropped.state, set(0x200));
    assert_eq!(dropped.to_string(), "pkru (in use)");
    assert_eq!(read, canonical(&standard(0x7, 0x7), Form::Standard));

    // One that it holds as INIT is dropped as such.
    let mut init = bytes.clone();
    init[2688..].fill(0);
    let foreign = ForeignImage::kvm(&init, ForeignRegisters::xcr0(7));
    let (_, dropped) = taken(&foreign, &policy(7), Excess::Drop).unwrap();
    assert_eq!(
        (dropped.state, dropped.in_use),
        (set(0x200), ComponentSet::EMPTY)
    );

    // A guest that has PKRU keeps it, whatever its XCR0 says.
    let foreign = ForeignImage::kvm(&bytes, ForeignRegisters::xcr0(7));
    let (read, dropped) = taken(&foreign, &policy(0x207), Excess::Drop).unwrap();
    assert!(dropped.is_empty());
    assert_eq!(xstate_bv(&read), 0x207);
}

/// Linux d7876f1be4. In the standard form nothing lies behind such a bit; in
/// the compacted one every later offset depends on a size that nobody knows.
#[test]
fn bits_beyond_leaf_d() {
    let bytes = standard(0x7, 0x7 | 1 << 40);
    let foreign = ForeignImage::kvm(&bytes, ForeignRegisters::xcr0(7));
    assert_eq!(
        refused(&foreign, &policy(7), Excess::Refuse),
        "foreign-policy"
    );
    let (read, dropped) = taken(&foreign, &policy(7), Excess::Drop).unwrap();
    assert_eq!(dropped.to_string(), "component 40");
    assert_eq!(read, canonical(&standard(0x7, 0x7), Form::Standard));

    let bit_63 = standard(0x7, 0x7 | 1 << 63);
    let foreign = ForeignImage::kvm(&bit_63, ForeignRegisters::xcr0(7));
    assert_eq!(
        refused(&foreign, &policy(7), Excess::Drop),
        "foreign-policy"
    );

    let bytes = compacted(0x7 | 1 << 40, 0x7);
    let foreign = ForeignImage::raw(&bytes, ForeignRegisters::xcr0(7));
    assert_eq!(
        refused(&foreign, &policy(7), Excess::Refuse),
        "xcomp-bv-policy"
    );
    let error = taken(&foreign, &policy(7), Excess::Drop).unwrap_err();
    assert_eq!(error.component(), ComponentIndex::new(40));
    assert_eq!(error.rule(), "foreign-unplaced");
}

/// A compacted image's layout counts with what is dropped in it.
#[test]
fn what_is_dropped_keeps_its_place() {
    let bytes = compacted(0x2e7, 0x2e7);
    let foreign = ForeignImage::raw(&bytes, ForeignRegisters::xcr0(7));
    let (read, dropped) = taken(&foreign, &policy(0x207), Excess::Drop).unwrap();
    assert_eq!((dropped.state, dropped.in_use), (set(0xe0), set(0xe0)));
    assert_eq!(
        read,
        canonical(&compacted(0x207, 0x207), Form::Compacted),
        "pkru lies behind AVX-512"
    );
    let beyond_layout = compacted(0x7, 0x27);
    let foreign = ForeignImage::raw(&beyond_layout, ForeignRegisters::xcr0(7));
    assert_eq!(
        refused(&foreign, &policy(7), Excess::Drop),
        "xstate-bv-xcomp-bv"
    );
}

/// Only state is dropped: what the guest enabled, and what it has, stays.
#[test]
fn a_lenient_read_changes_no_register() {
    let bytes = standard(0x7, 0x7);
    let foreign = ForeignImage::raw(&bytes, ForeignRegisters::xcr0(7));
    for excess in [Excess::Refuse, Excess::Drop] {
        assert_eq!(refused(&foreign, &policy(0x3), excess), {
            if excess == Excess::Refuse {
                "foreign-policy"
            } else {
                "xcr0-policy"
            }
        });
    }
    let bytes = standard(0x7, 0x3);
    let foreign = ForeignImage::xen_pv(&bytes, 3, 5);
    assert_eq!(
        refused(&foreign, &policy(0x3), Excess::Refuse),
        "accum-policy"
    );
    let (_, dropped) = taken(&foreign, &policy(0x3), Excess::Drop).unwrap();
    assert_eq!((dropped.state, dropped.accum), (set(0), set(4)));
    assert_eq!(dropped.to_string(), "avx");
    // What is said to hold no state holds none.
    let bytes = standard(0x7, 0x7);
    let foreign = ForeignImage::xen_pv(&bytes[..576], 3, 3);
    assert_eq!(
        refused(&foreign, &policy(0x7), Excess::Drop),
        "xstate-bv-accum"
    );
    let foreign = ForeignImage::xen_pv(&bytes[..576], 7, 3);
    assert_eq!(
        refused(&foreign, &policy(0x7), Excess::Drop),
        "accum-enabled"
    );
}
