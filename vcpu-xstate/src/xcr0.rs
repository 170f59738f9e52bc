//! What a guest may write to XCR0, as a pure verdict; which XCRs there are.
//!
//! SDM Vol. 1, 13.3 Enabling the XSAVE Feature Set and XSAVE-Enabled Features;
//! Vol. 2, XSETBV and XGETBV.

use crate::component::ComponentSet;
use crate::error::broken_rules;
use crate::judge::judge;
use crate::mutants::rule;

/// A value of XCR0 that the architecture and the policy allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Xcr0(u64);

impl Xcr0 {
    /// After reset: x87 alone (SDM Vol. 3, Table 10-1).
    pub const RESET: Self = Self(1);

    /// The register's value.
    #[inline(always)]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The components that it enables.
    #[inline(always)]
    pub const fn components(self) -> ComponentSet {
        ComponentSet::from_bits_retain(self.0)
    }
}

/// Why a write to XCR0 gets #GP(0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Xcr0Error {
    /// XSETBV above CPL 0.
    Cpl(u8),
    /// There is no such XCR, or it cannot be written.
    Index(u32),
    /// x87 cannot be disabled.
    X87(u64),
    /// Bits outside the policy, reserved ones among them: seen, allowed.
    Policy(u64, u64),
    /// AVX needs SSE.
    AvxNeedsSse(u64),
    /// AVX-512 needs AVX, and its three components come together.
    Avx512(u64),
    /// The two components of MPX come together.
    Mpx(u64),
    /// The two components of AMX come together.
    Amx(u64),
    /// APX and MPX exclude each other.
    ApxWithMpx(u64),
    /// A policy without XSAVE leaves XCR0 at its reset value.
    WithoutXsave(u64),
}

broken_rules!(Xcr0Error,
    Self::Cpl(cpl) => ("xcr0-cpl", 0x401, cpl as u64, 0),
    Self::Index(index) => ("xcr0-index", 0x402, index as u64, 0),
    Self::X87(v) => ("xcr0-x87", 0x403, v, v | 1),
    Self::Policy(v, allowed) => ("xcr0-policy", 0x404, v, allowed),
    Self::AvxNeedsSse(v) => ("xcr0-avx-needs-sse", 0x405, v, v | 2),
    Self::Avx512(v) => ("xcr0-avx512-group", 0x406, v, v | 0xe6),
    Self::Mpx(v) => ("xcr0-mpx-group", 0x407, v, v | 0x18),
    Self::Amx(v) => ("xcr0-amx-group", 0x408, v, v | 0x6_0000),
    Self::ApxWithMpx(v) => ("xcr0-apx-or-mpx", 0x409, v, v & !0x18),
    Self::WithoutXsave(v) => ("xcr0-without-xsave", 0x40a, v, 1),
);

/// Whether a guest may write `value` to XCR0 at privilege level `cpl`, where
/// its policy has the user components `policy`. Every error is #GP(0).
#[inline(always)]
pub fn xcr0_verdict(value: u64, cpl: u8, policy: ComponentSet) -> Result<Xcr0, Xcr0Error> {
    use Xcr0Error as E;
    let allowed = policy.intersection(ComponentSet::ALL).bits();
    let has = |bit: u32| value >> bit & 1;
    // A set bit is a component that is there without the next one, or the other
    // way about.
    let unlike_next = value ^ value >> 1;
    judge! {
        // XSETBV is privileged. (Under SVM and VMX the exit comes before this check.)
        rule!("xcr0-cpl"), u64::from(cpl) => E::Cpl(cpl);

        // Bit 0 must be 1.
        rule!("xcr0-x87"), !value & 1 => E::X87(value);

        // Nothing but what the policy has; bit 63 and supervisor components never are.
        rule!("xcr0-policy"), value & !allowed => E::Policy(value, allowed);

        // AVX state includes the low halves, which are SSE's (XSA-54).
        rule!("xcr0-avx-needs-sse"), has(2) & !has(1) => E::AvxNeedsSse(value);

        // AVX-512: all three and AVX below them.
        rule!("xcr0-avx512-group"),
            unlike_next & (1 << 5 | 1 << 6) | has(5) & !has(2) => E::Avx512(value);

        // MPX: both or none.
        rule!("xcr0-mpx-group"), unlike_next & 1 << 3 => E::Mpx(value);

        // AMX: both or none.
        rule!("xcr0-amx-group"), unlike_next & 1 << 17 => E::Amx(value);

        // APX re-used MPX's place in the standard form.
        rule!("xcr0-apx-or-mpx"), has(19) & (has(3) | has(4)) => E::ApxWithMpx(value);
    }?;
    Ok(Xcr0(value))
}

/// Whether XSETBV with this ECX names a register: XCR0 is the only one.
pub fn xsetbv_index(ecx: u32) -> Result<(), Xcr0Error> {
    if !rule!("xcr0-index") || ecx == 0 {
        Ok(())
    } else {
        Err(Xcr0Error::Index(ecx))
    }
}

/// Whether XGETBV with this ECX names a register: XCR0, and XCR0 & XINUSE as
/// number 1 where the policy has that feature (CPUID.(0xD,1):EAX bit 2).
pub fn xgetbv_index(ecx: u32, has_xgetbv1: bool) -> Result<(), Xcr0Error> {
    if !rule!("xgetbv-index") || ecx == 0 || (ecx == 1 && has_xgetbv1) {
        Ok(())
    } else {
        Err(Xcr0Error::Index(ecx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: ComponentSet = ComponentSet::from_bits_retain(0x6_02ff);

    fn says(value: u64) -> Result<u64, &'static str> {
        xcr0_verdict(value, 0, ALL)
            .map(Xcr0::bits)
            .map_err(|e| e.rule())
    }

    #[test]
    fn legal_values_pass_as_they_are() {
        for value in [
            1, 3, 7, 0x1f, 0xe7, 0xff, 0x207, 0x201, 0x2e7, 0x6_0001, 0x6_02ff,
        ] {
            assert_eq!(says(value), Ok(value));
        }
    }

    #[test]
    fn every_rule_is_reached() {
        assert_eq!(says(0), Err("xcr0-x87"));
        assert_eq!(says(6), Err("xcr0-x87"));
        assert_eq!(says(0x101), Err("xcr0-policy"));
        assert_eq!(says(0x27), Err("xcr0-avx512-group"));
        assert_eq!(says(0xe3), Err("xcr0-avx512-group"));
        assert_eq!(says(0x47), Err("xcr0-avx512-group"));
        assert_eq!(says(0xb), Err("xcr0-mpx-group"));
        assert_eq!(says(0x2_0007), Err("xcr0-amx-group"));
        assert_eq!(says(0x4_0007), Err("xcr0-amx-group"));
        let apx = ComponentSet::from_bits_retain(0x8_001f);
        let error = xcr0_verdict(0x8_001f, 0, apx).unwrap_err();
        assert_eq!(error, Xcr0Error::ApxWithMpx(0x8_001f));
        assert_eq!(error.allowed(), 0x8_0007);
        assert_eq!(xcr0_verdict(7, 3, ALL), Err(Xcr0Error::Cpl(3)));
    }

    /// XSA-54: YMM without SSE went to the hardware, which faulted in the host.
    #[test]
    fn xsa_54_ymm_without_sse() {
        assert_eq!(says(5), Err("xcr0-avx-needs-sse"));
    }

    /// Bits 32 to 63 are judged too.
    #[test]
    fn masks_cut_to_32_bits() {
        for bit in 32..64 {
            assert_eq!(says(1 << bit | 7), Err("xcr0-policy"), "bit {bit}");
        }
        let lying = ComponentSet::from_bits_retain(u64::MAX);
        assert_eq!(
            xcr0_verdict(1 << 63 | 7, 0, lying),
            Err(Xcr0Error::Policy(1 << 63 | 7, u64::MAX >> 1))
        );
    }

    #[test]
    fn indices() {
        assert_eq!(xsetbv_index(0), Ok(()));
        assert_eq!(xsetbv_index(1), Err(Xcr0Error::Index(1)));
        assert_eq!(xgetbv_index(1, true), Ok(()));
        assert_eq!(xgetbv_index(1, false), Err(Xcr0Error::Index(1)));
        assert_eq!(xgetbv_index(2, true), Err(Xcr0Error::Index(2)));
    }
}
