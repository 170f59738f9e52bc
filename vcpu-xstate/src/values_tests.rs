//! Tests of the legal values inside components.

use super::*;

const HOLE: u64 = 0x0000_8000_0000_0000;
const LIMITS: Limits = Limits {
    mxcsr_mask: 0xffff,
    linear_address_bits: 48,
    shadow_stacks: true,
    branch_tracking: true,
    lbr_control: 0x7f_000f,
    lbr_info: 0xff00_0000_0000_ffff,
    lbr_depth: 32,
};

/// The component with `value` at `offset`, else zero.
fn with(component: ComponentIndex, offset: usize, value: u64) -> Result<(), BadValue> {
    let mut bytes = vec![0; component.payload_bytes().unwrap()];
    bytes[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
    check(component, &bytes, &LIMITS)
}

#[test]
fn init_and_the_self_test_patterns_are_legal() {
    for component in ComponentSet::ALL {
        let Some(len) = component.payload_bytes() else {
            continue;
        };
        let mut bytes = vec![0; len];
        bytes[..4].copy_from_slice(&(component.init_word() as u32).to_le_bytes());
        assert_eq!(
            check(component, &bytes, &LIMITS),
            Ok(()),
            "{component} INIT"
        );
        for seed in [0, 0x5a, 0xff] {
            bytes.fill(0);
            crate::selftest::pattern(component, seed, &mut bytes);
            assert_eq!(
                check(component, &bytes, &LIMITS),
                Ok(()),
                "{component} {seed}"
            );
            let init = crate::image::is_init(component, &bytes);
            assert!(!init, "{component} pattern is INIT");
        }
    }
}

#[test]
fn what_has_no_rule_takes_any_bytes() {
    for component in ComponentSet::ALL {
        let len = component.payload_bytes().unwrap_or(64);
        let takes = |byte| check(component, &vec![byte; len], &LIMITS).is_ok();
        let any = [0x55, 0xaa, 0xff].into_iter().all(takes);
        assert_eq!(any, !RULED.has(component), "{component}");
    }
}

#[test]
fn every_address_must_be_canonical() {
    use ComponentIndex as C;
    let addresses = [
        (C::BNDCSR, 0),
        (C::CET_U, 0),
        (C::CET_U, 8),
        (C::CET_S, 0),
        (C::CET_S, 8),
        (C::CET_S, 16),
        (C::UINTR, 0),
        (C::UINTR, 8),
        (C::UINTR, 24),
        (C::UINTR, 40),
        (C::LBR, 16),
        (C::LBR, 24),
        (C::LBR, 784),
        (C::LBR, 792),
    ];
    for (component, offset) in addresses {
        assert_eq!(
            with(component, offset, HOLE),
            Err(BadValue::Address(HOLE, 0x7fff_ffff_ffff)),
            "{component} at {offset}"
        );
        assert_eq!(with(component, offset, 0xffff_8000_0000_1000), Ok(()));
    }
    // 57 bits reach further.
    let mut bytes = [0; 16];
    bytes[8..].copy_from_slice(&HOLE.to_le_bytes());
    let wide = Limits {
        linear_address_bits: 57,
        ..LIMITS
    };
    assert_eq!(check(C::CET_U, &bytes, &wide), Ok(()));
    bytes[8..].copy_from_slice(&(1u64 << 56).to_le_bytes());
    assert!(check(C::CET_U, &bytes, &wide).is_err());
}

#[test]
fn reserved_bits_are_refused() {
    use ComponentIndex as C;
    let reserved = [
        (C::BNDCSR, 0, 1 << 2),
        (C::PASID, 0, 1 << 20),
        (C::PASID, 0, 1 << 32),
        (C::CET_U, 0, 1 << 6),
        (C::CET_U, 8, 1),
        (C::CET_S, 16, 2),
        (C::UINTR, 8, 2),
        (C::UINTR, 16, 1 << 40),
        (C::UINTR, 24, 1 << 5),
        (C::UINTR, 40, 1 << 3),
        (C::LBR, 0, 1 << 4),
        (C::LBR, 32, 1 << 16),
    ];
    for (component, offset, value) in reserved {
        let error = with(component, offset, value).unwrap_err();
        assert!(
            matches!(error, BadValue::Reserved(seen, allowed)
                if seen == value && seen & !allowed != 0),
            "{component} at {offset}: {error:?}"
        );
    }
    assert_eq!(
        with(C::CET_U, 0, 0xc00),
        Err(BadValue::CetTracker(0xc00, 0x800))
    );
    assert_eq!(with(C::LBR, 8, 12), Err(BadValue::LbrDepth(12, 64)));
    assert_eq!(with(C::LBR, 8, 72), Err(BadValue::LbrDepth(72, 64)));
}

/// WRMSR and XRSTORS of IA32_U_CET fault on the bits of a feature that the
/// processor lacks: AMD has shadow stacks without branch tracking.
#[test]
fn cet_bits_of_a_feature_that_the_processor_lacks() {
    use ComponentIndex as C;
    let amd = Limits {
        branch_tracking: false,
        ..LIMITS
    };
    let neither = Limits {
        shadow_stacks: false,
        ..amd
    };
    let user = |value: u64, stack: u64| [value.to_le_bytes(), stack.to_le_bytes()].concat();
    for (bytes, here, on_amd, without) in [
        (user(0, 0), true, true, true),
        (user(3, 0x1000), true, true, false),
        (user(4, 0x1000), true, false, false),
        (user(0x1004, 0), true, false, false),
        (user(0, 0x1000), true, true, false),
    ] {
        for (limits, legal) in [(&LIMITS, here), (&amd, on_amd), (&neither, without)] {
            assert_eq!(
                check(C::CET_U, &bytes, limits).is_ok(),
                legal,
                "{bytes:x?} {limits:?}"
            );
        }
    }
    let stacks = user(0x1000, 0);
    assert!(check(C::CET_S, &stacks, &amd).is_ok());
    assert!(check(C::CET_S, &stacks, &neither).is_err());
}

fn limits_by(eax: u32, ebx: u32, ecx: u32) -> Limits {
    LIMITS.with_leaf_1c(&CpuidResult {
        eax,
        ebx,
        ecx,
        edx: 0,
    })
}

/// One branch-record register with this value, on this machine.
fn lbr(offset: usize, value: u64, limits: &Limits) -> Result<(), BadValue> {
    let mut bytes = [0; 808];
    bytes[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
    check(ComponentIndex::LBR, &bytes, limits)
}

/// Bits of IA32_LBR_CTL that the machine's leaf 1CH does not list were
/// accepted: XRSTORS faults on them.
#[test]
fn lbr_ctl_by_leaf_1c() {
    for ebx in 0..8 {
        let limits = limits_by(0x8, ebx, 0);
        for (bit, needs) in [(0, 0), (1, 1), (2, 1), (3, 4), (16, 2), (22, 2)] {
            let legal = ebx & needs == needs;
            let verdict = lbr(0, 1 << bit, &limits);
            assert_eq!(verdict.is_ok(), legal, "EBX {ebx}, bit {bit}");
        }
        for bit in [4, 15, 23, 32] {
            assert!(lbr(0, 1 << bit, &limits).is_err(), "EBX {ebx}, bit {bit}");
        }
    }
    // The depth after reset is the largest.
    let depth = |eax| limits_by(eax, 0, 0).lbr_depth;
    assert_eq!(
        (depth(0), depth(1), depth(0xb), depth(0x80)),
        (32, 8, 32, 64)
    );
}

/// Bits 39:32 of IA32_LBR_x_INFO are counters (LBR event logging): they were
/// refused as reserved.
#[test]
fn lbr_counters_are_legal() {
    for offset in [32, 56, 800] {
        for logged in 0..16u32 {
            let limits = limits_by(0x8, 7, logged << 16);
            for bit in 0..64 {
                let legal = match bit {
                    0..16 | 56..64 => true,
                    32..40 => logged & 1 << ((bit - 32) / 2) != 0,
                    _ => false,
                };
                let verdict = lbr(offset, 1 << bit, &limits);
                assert_eq!(verdict.is_ok(), legal, "{logged:#x}, bit {bit}");
            }
        }
    }
}

#[test]
fn tile_configurations_as_ldtilecfg_has_them() {
    let refused = |edits: &[(usize, u8)]| {
        let mut bytes = [0; 64];
        crate::selftest::pattern(ComponentIndex::TILECFG, 15, &mut bytes);
        for (offset, value) in edits {
            bytes[*offset] = *value;
        }
        check(ComponentIndex::TILECFG, &bytes, &LIMITS).is_err()
    };
    assert!(!refused(&[]));
    assert!(!refused(&[(16, 0), (48, 0)]));
    for edits in [
        &[(0, 2)][..],
        &[(0, 0)],
        &[(2, 1)],
        &[(15, 1)],
        &[(16, 65)],
        &[(17, 1)],
        &[(48, 17)],
        &[(48, 0)],
        &[(32, 4), (56, 1)],
    ] {
        assert!(refused(edits), "{edits:?}");
    }
}
