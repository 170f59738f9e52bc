//! Which register contents a restore accepts: the legal values inside components.
//!
//! XRSTORS checks what WRMSR would check and faults, some parts XRSTOR too
//! (SDM Vol. 1, 13.5 XSAVE-Managed State; 13.12 Operation of XRSTORS). A rule
//! here is never wider than the processor's. Two are narrower: BNDCFGU and
//! TILECFG never fault, the processor mends what it does not like. But then the
//! guest would find another state than the one in the image, and no processor
//! saves such an image.

use crate::component::{ComponentIndex, ComponentSet};
use crate::error::broken_rules;
use crate::mutants::rule;

mod tile;

/// What of a machine decides which contents it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bits of MXCSR that can be set without #GP (AMD's bit 17 faults on Intel).
    pub mxcsr_mask: u32,
    /// Width of linear addresses, 48 to 57 bits: what "canonical" means.
    pub linear_address_bits: u8,
    /// CPUID.(7,0):ECX.CET_SS\[7\]: IA32_U_CET has its bits 1:0, and there are
    /// shadow-stack pointers.
    pub shadow_stacks: bool,
    /// CPUID.(7,0):EDX.CET_IBT\[20\]: IA32_U_CET has its other bits. No AMD
    /// processor has them: an Intel guest's would fault there.
    pub branch_tracking: bool,
}

impl Limits {
    /// Whether IA32_U_CET takes `value`: canonical (the upper bits are the
    /// legacy bitmap's address), no bit of a feature that is not there, and
    /// not both TRACKER and SUPPRESS (SDM Vol. 1, 17.2.4).
    pub(crate) fn user_cet(&self, value: u64) -> Result<(), BadValue> {
        let stacks = if self.shadow_stacks { 0x3 } else { 0 };
        let tracking = if self.branch_tracking { !0x3c3 } else { 0 };
        canonical(value, self.linear_address_bits)?;
        only(value, stacks | tracking)?;
        if rule!("cet-tracker") && value & 0xc00 == 0xc00 {
            return Err(BadValue::CetTracker(value, value & !0x400));
        }
        Ok(())
    }

    /// Whether a shadow-stack pointer is one: a canonical multiple of 4.
    pub(crate) fn shadow_stack_pointer(&self, value: u64) -> Result<(), BadValue> {
        canonical(value, self.linear_address_bits)?;
        only(value, if self.shadow_stacks { !0x3 } else { 0 })
    }
}

/// What is wrong with the contents of a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadValue {
    /// MXCSR has bits that this processor faults on: the value, what may be set.
    Mxcsr(u64, u64),
    /// A linear address that is not canonical: the address, its legal low half.
    Address(u64, u64),
    /// Reserved bits of a register are set: the value, what may be set.
    Reserved(u64, u64),
    /// IA32_U_CET has both TRACKER and SUPPRESS: the value, what may be set.
    CetTracker(u64, u64),
    /// A depth of the branch records that no processor has: depth, largest.
    LbrDepth(u64, u64),
    /// AMX tile configuration that LDTILECFG would refuse: value, largest.
    TileConfig(u64, u64),
}

broken_rules!(BadValue,
    Self::Mxcsr(seen, allowed) => ("mxcsr", 0x313, seen, allowed),
    Self::Address(seen, allowed) => ("component-address", 0x314, seen, allowed),
    Self::Reserved(seen, allowed) => ("component-reserved", 0x315, seen, allowed),
    Self::CetTracker(seen, allowed) => ("cet-tracker", 0x316, seen, allowed),
    Self::LbrDepth(seen, largest) => ("lbr-depth", 0x317, seen, largest),
    Self::TileConfig(seen, largest) => ("tile-config", 0x318, seen, largest),
);

/// The components that [`check`] has a rule for.
pub(crate) const RULED: ComponentSet = ComponentSet::only(ComponentIndex::BNDCSR)
    .union(ComponentSet::only(ComponentIndex::PASID))
    .union(ComponentSet::CET)
    .union(ComponentSet::only(ComponentIndex::UINTR))
    .union(ComponentSet::only(ComponentIndex::LBR))
    .union(ComponentSet::only(ComponentIndex::TILECFG));

/// Judges a value of MXCSR.
///
/// # Errors
/// It has bits that fault.
#[inline(always)]
pub fn check_mxcsr(mxcsr: u32, limits: &Limits) -> Result<(), BadValue> {
    if !rule!("mxcsr") || mxcsr & !limits.mxcsr_mask == 0 {
        Ok(())
    } else {
        Err(BadValue::Mxcsr(mxcsr as u64, limits.mxcsr_mask as u64))
    }
}

/// Judges the defined bytes of a component for a machine with these limits.
/// Components without a rule here take any bytes.
///
/// # Errors
/// The first rule that is broken.
pub fn check(component: ComponentIndex, bytes: &[u8], limits: &Limits) -> Result<(), BadValue> {
    let at = |offset| word(bytes, offset);
    let address = |offset, reserved: u64| {
        let value = at(offset);
        canonical(value, limits.linear_address_bits)?;
        only(value, !reserved)
    };
    match component {
        // BNDCFGU: base of the directory, BNDPRESERVE, EN. BNDSTATUS is free. A
        // restore does not fault on the rest, it ignores it: our rule.
        ComponentIndex::BNDCSR => address(0, 0xffc),
        // PASID and a valid bit.
        ComponentIndex::PASID => only(at(0), 0x800f_ffff),
        // IA32_U_CET and IA32_PL3_SSP.
        ComponentIndex::CET_U => {
            limits.user_cet(at(0))?;
            limits.shadow_stack_pointer(at(8))
        }
        // IA32_PL0_SSP to IA32_PL2_SSP.
        ComponentIndex::CET_S => (0..3).try_for_each(|i| limits.shadow_stack_pointer(at(8 * i))),
        // UIHANDLER, UISTACKADJUST, UINTR_MISC (size of the table, UINV, UIF),
        // UPIDADDR, UIRR, UITTADDR (SDM Vol. 1, 13.5.11).
        ComponentIndex::UINTR => {
            address(0, 0)?;
            address(8, 0x6)?;
            only(at(16), 0x8000_00ff_ffff_ffff)?;
            address(24, 0x3f)?;
            address(40, 0xe)
        }
        // LBR_CTL, LBR_DEPTH, LER_FROM/TO/INFO, then 32 of FROM/TO/INFO.
        ComponentIndex::LBR => {
            only(at(0), 0x007f_000f)?;
            let depth = at(8);
            if rule!("lbr-depth") && (depth > 64 || depth % 8 != 0) {
                return Err(BadValue::LbrDepth(depth, 64));
            }
            (0..33).try_for_each(|i| {
                address(16 + 24 * i, 0)?;
                address(24 + 24 * i, 0)?;
                only(at(32 + 24 * i), 0xff00_0000_0000_ffff)
            })
        }
        // A bad configuration does not fault: the processor makes it INIT. But
        // then the guest would find another state than it left.
        ComponentIndex::TILECFG if tile::usual(bytes) => Ok(()),
        ComponentIndex::TILECFG => tile::check(bytes),
        // `RULED` has all of the above.
        _ => Ok(()),
    }
}

fn word(bytes: &[u8], offset: usize) -> u64 {
    bytes
        .get(offset..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |word| u64::from_le_bytes(*word))
}

fn only(value: u64, allowed: u64) -> Result<(), BadValue> {
    if !rule!("component-reserved") || value & !allowed == 0 {
        Ok(())
    } else {
        Err(BadValue::Reserved(value, allowed))
    }
}

fn canonical(value: u64, linear_address_bits: u8) -> Result<(), BadValue> {
    // Sign-extended from the top implemented bit; the width is 48 to 57.
    let shift = match linear_address_bits {
        0..48 => 16,
        bits @ 48..=57 => 64 - bits as u32,
        58.. => 7,
    };
    if !rule!("component-address") || ((value << shift) as i64 >> shift) as u64 == value {
        Ok(())
    } else {
        Err(BadValue::Address(value, u64::MAX >> (shift + 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLE: u64 = 0x0000_8000_0000_0000;
    const LIMITS: Limits = Limits {
        mxcsr_mask: 0xffff,
        linear_address_bits: 48,
        shadow_stacks: true,
        branch_tracking: true,
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
                assert!(bytes.iter().any(|b| *b != 0), "{component} pattern is INIT");
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
}
