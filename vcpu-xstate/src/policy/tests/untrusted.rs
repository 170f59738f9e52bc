//! Leaves that a stranger sent.

use super::super::{LeavesError, MAX_LEAVES};
use super::*;
use proptest::prelude::*;

/// The leaves of a policy with a change.
fn refused(machine: &Machine, change: impl FnOnce(&mut Vec<CpuidLeaf>)) -> LeavesError {
    let policy = machine.policy();
    let mut leaves = policy.leaves().to_vec();
    change(&mut leaves);
    CpuPolicy::from_leaves(&leaves, policy.deferred()).unwrap_err()
}

fn row(leaves: &mut [CpuidLeaf], leaf: u32, subleaf: u32) -> &mut CpuidLeaf {
    leaves
        .iter_mut()
        .find(|row| (row.leaf, row.subleaf) == (leaf, subleaf))
        .unwrap()
}

#[test]
fn round_trip_is_identity() {
    for (name, machine) in machines() {
        for config in ["host", "host:avx=0", "host:xsave=0", "host:xsavec=0"] {
            let policy = machine.policy().with_config(config).unwrap();
            let again = CpuPolicy::from_leaves(policy.leaves(), policy.deferred());
            assert_eq!(again.as_ref(), Ok(&policy), "{name} {config}");
        }
    }
}

#[test]
fn every_rule_is_reached() {
    type Change = fn(&mut Vec<CpuidLeaf>);
    let table: [(&str, Change); 21] = [
        ("policy-leaf-count", |l| l.clear()),
        ("policy-leaf-count", |l| l.resize(MAX_LEAVES + 1, l[0])),
        ("policy-leaf-order", |l| l.swap(0, 1)),
        ("policy-leaf-order", |l| l.insert(1, l[0])),
        ("policy-feature-required", |l| {
            row(l, 1, 0).ecx &= !(1 << 31)
        }),
        ("policy-feature-needs", |l| row(l, 1, 0).ecx &= !(1 << 28)),
        ("policy-feature-without-component", |l| {
            row(l, 0xd, 0).eax &= !0x1_0200
        }),
        ("policy-component-without-feature", |l| {
            row(l, 7, 0).ecx &= !(1 << 3)
        }),
        ("policy-legacy", |l| row(l, 0xd, 0).eax = 0x6_02e5),
        ("policy-bit-63", |l| row(l, 0xd, 0).edx = 1 << 31),
        ("policy-component-kind", |l| row(l, 0xd, 1).ecx = 1 << 9),
        ("policy-component-kind", |l| row(l, 0xd, 9).ecx = 1),
        ("policy-component-group", |l| row(l, 0xd, 0).eax = 0x2_02e7),
        ("policy-component-size", |l| row(l, 0xd, 9).eax = 3),
        ("layout-size", |l| row(l, 0xd, 9).eax = 0x1_0001),
        ("layout-overlap", |l| row(l, 0xd, 9).ebx = 2684),
        ("policy-leaf-missing", |l| {
            l.retain(|row| (row.leaf, row.subleaf) != (0xd, 9))
        }),
        ("policy-leaf-missing", |l| {
            l.retain(|row| row.leaf != 0x8000_0000)
        }),
        // Between two that belong there.
        ("policy-leaf-surplus", |l| {
            let at = l.iter().position(|row| row.leaf >= 0x8000_0000).unwrap();
            l.insert(
                at,
                CpuidLeaf {
                    leaf: 0x7fff_ffff,
                    ..l[0]
                },
            )
        }),
        ("policy-leaf-surplus", |l| {
            l.push(CpuidLeaf {
                leaf: 0xffff_ffff,
                ..l[0]
            })
        }),
        ("policy-leaf-contradiction", |l| row(l, 0xd, 0).ecx += 8),
    ];
    for (rule, change) in table {
        assert_eq!(refused(&sapphire_rapids(), change).rule(), rule);
    }
    let policy = skylake().policy().with_config("host:xsave=0").unwrap();
    let mut leaves = policy.leaves().to_vec();
    let at = leaves.iter().position(|row| row.leaf > 0xd).unwrap();
    let d = CpuidLeaf {
        leaf: 0xd,
        eax: 3,
        ..CpuidLeaf::default()
    };
    leaves.insert(at, d);
    let error = CpuPolicy::from_leaves(&leaves, ComponentSet::EMPTY).unwrap_err();
    assert_eq!(error, LeavesError::LeafDWithoutXsave(3));
}

#[test]
fn deferred_is_judged() {
    let policy = skylake().policy();
    let from = |bits| {
        CpuPolicy::from_leaves(policy.leaves(), ComponentSet::from_bits_retain(bits))
            .map(|policy| policy.deferred().bits())
            .map_err(|error| error.rule())
    };
    assert_eq!(from(0x1c), Ok(0xfc));
    assert_eq!(from(0), Ok(0xe0));
    for bits in [1, 2, 1 << 9, 1 << 17, 1 << 62, 1 << 63] {
        assert_eq!(from(bits), Err("policy-deferred"), "{bits:#x}");
    }
}

/// Bits that follow the guest, reserved fields, lengths and copies.
#[test]
fn contradictions() {
    type Change = fn(&mut [CpuidLeaf]);
    let changes: [Change; 12] = [
        |l| row(l, 0, 0).eax += 1,
        |l| row(l, 1, 0).ecx |= 1 << 27,
        |l| row(l, 1, 0).ebx |= 1 << 24,
        |l| row(l, 1, 0).eax |= 1 << 31,
        |l| row(l, 7, 0).ecx |= 1 << 4,
        |l| row(l, 7, 0).eax = 2,
        |l| row(l, 0xb, 0).edx = 1,
        |l| row(l, 0xd, 0).ebx = 576,
        |l| row(l, 0xd, 9).edx = 1,
        |l| row(l, 0x8000_0001, 0).edx ^= 1,
        |l| row(l, 0x8000_0008, 0).eax = 52 | 48 << 8,
        |l| row(l, 0x8000_0008, 0).eax = 39 | 57 << 8,
    ];
    for change in changes {
        let error = refused(&zen3(), |leaves| change(leaves));
        assert_eq!(error.rule(), "policy-leaf-contradiction", "{error:?}");
    }
}

/// Linux d7876f1be4, Xen fe0d67576e: bits beyond the mask, and above bit 31.
/// LWP is refused, for it has a feature that the leaves lack; what has no name
/// can be carried, but not here.
#[test]
fn masks_cut_to_32_bits() {
    let host = skylake().policy();
    for bit in 0..31 {
        let mut leaves = host.leaves().to_vec();
        let d0 = row(&mut leaves, 0xd, 0);
        (d0.ecx, d0.edx) = (4096 + 128, 1 << bit);
        let at = leaves.iter().position(|row| row.leaf > 0xd).unwrap();
        let facts = CpuidLeaf {
            leaf: 0xd,
            subleaf: 32 + bit,
            eax: 128,
            ebx: 4096,
            ..CpuidLeaf::default()
        };
        leaves.insert(at, facts);
        let taken = CpuPolicy::from_leaves(&leaves, host.deferred());
        if bit == 30 {
            let error = taken.unwrap_err();
            assert_eq!(error.rule(), "policy-component-without-feature");
        } else {
            let policy = taken.unwrap();
            assert_eq!(policy.xstate().mask.bits(), 1 << (32 + bit) | 0x2ff);
            let error = policy.fits(&host).unwrap_err().to_string();
            let number = 32 + bit;
            let text = format!("component {number} (CPUID 0xD.{number}) not offered here");
            assert_eq!(error, text);
        }
    }
}

fn leaf() -> impl Strategy<Value = CpuidLeaf> {
    let leaf = prop_oneof![0u32..0x20, 0x8000_0000u32..0x8000_0022, any::<u32>()];
    (leaf, 0u32..20, any::<[u32; 4]>()).prop_map(|(leaf, subleaf, [eax, ebx, ecx, edx])| {
        CpuidLeaf {
            leaf,
            subleaf,
            eax,
            ebx,
            ecx,
            edx,
        }
    })
}

proptest! {
    #[test]
    fn any_leaves_are_judged_without_panic(
        leaves in proptest::collection::vec(leaf(), 0..70),
        deferred in any::<u64>(),
        sort in any::<bool>(),
    ) {
        let mut leaves = leaves;
        if sort {
            leaves.sort_by_key(|row| (row.leaf, row.subleaf));
        }
        let _ = CpuPolicy::from_leaves(&leaves, ComponentSet::from_bits_retain(deferred));
    }

    /// One field changed: refused by a rule, or a policy that says what it was
    /// given. Nothing in between.
    #[test]
    fn one_change(
        pick in 0usize..9,
        at in any::<proptest::sample::Index>(),
        field in 0usize..6,
        value in prop_oneof![any::<u32>(), (0u32..32).prop_map(|bit| 1 << bit)],
        flip in any::<bool>(),
    ) {
        let policy = machines()[pick].1.policy();
        let mut leaves = policy.leaves().to_vec();
        let row = at.get_mut(&mut leaves);
        let field = match field {
            0 => &mut row.leaf,
            1 => &mut row.subleaf,
            2 => &mut row.eax,
            3 => &mut row.ebx,
            4 => &mut row.ecx,
            _ => &mut row.edx,
        };
        *field = if flip { *field ^ value } else { value };
        match CpuPolicy::from_leaves(&leaves, policy.deferred()) {
            Ok(taken) => {
                prop_assert_eq!(taken.leaves(), &leaves[..]);
                assert_closed(&taken);
                let _ = taken.fits(&policy);
            }
            Err(error) => prop_assert!(!error.rule().is_empty()),
        }
    }
}
