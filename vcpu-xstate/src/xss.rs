//! What a guest may write to IA32_XSS, as a pure verdict.
//!
//! SDM Vol. 1, 13.3: a bit set for what is not supported gives #GP(0). There
//! are no dependencies between supervisor components.

use crate::component::ComponentSet;
use crate::error::broken_rules;
use crate::mutants::rule;

/// A value of IA32_XSS that the policy allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Xss(u64);

impl Xss {
    /// After reset.
    pub const RESET: Self = Self(0);

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

/// Why a write to IA32_XSS gets #GP(0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XssError {
    /// Bits that are no supervisor component of the policy: seen, allowed.
    Policy(u64, u64),
}

broken_rules!(XssError,
    Self::Policy(seen, allowed) => ("xss-policy", 0x501, seen, allowed),
);

/// Whether a guest may write `value`, where its policy has the supervisor
/// components `policy`.
#[inline(always)]
pub fn xss_verdict(value: u64, policy: ComponentSet) -> Result<Xss, XssError> {
    let allowed = policy.intersection(ComponentSet::ALL);
    if !rule!("xss-policy") || allowed.contains(ComponentSet::from_bits_retain(value)) {
        Ok(Xss(value))
    } else {
        Err(XssError::Policy(value, allowed.bits()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_policy_has() {
        let cet = ComponentSet::CET;
        assert_eq!(xss_verdict(0, cet).map(Xss::bits), Ok(0));
        assert_eq!(xss_verdict(0x800, cet).map(Xss::bits), Ok(0x800));
        assert_eq!(xss_verdict(0x1800, cet).map(Xss::bits), Ok(0x1800));
        for bit in (0..64).filter(|bit| 0x1800u64 & 1 << bit == 0) {
            let error = xss_verdict(1 << bit | 0x800, cet).unwrap_err();
            assert_eq!(error, XssError::Policy(1 << bit | 0x800, 0x1800));
        }
    }
}
