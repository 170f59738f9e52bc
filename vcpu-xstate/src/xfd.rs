//! What a guest may write to IA32_XFD and IA32_XFD_ERR, as pure verdicts.
//!
//! SDM Vol. 1, 13.14 Extended Feature Disable (XFD): a bit may be set only for
//! a component that CPUID marks as able to be disabled; others give #GP(0).

use crate::component::ComponentSet;
use crate::error::broken_rules;

/// A value of IA32_XFD or IA32_XFD_ERR that the policy allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Xfd(u64);

impl Xfd {
    /// After reset: nothing is disabled.
    pub const RESET: Self = Self(0);

    /// The register's value.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The components that it disables.
    pub const fn components(self) -> ComponentSet {
        ComponentSet::from_bits_retain(self.0)
    }
}

/// Why a write to IA32_XFD or IA32_XFD_ERR gets #GP(0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XfdError {
    /// Bits that are no XFD-capable component of the policy: seen, allowed.
    Policy(u64, u64),
}

broken_rules!(XfdError,
    Self::Policy(seen, allowed) => ("xfd-policy", 0x601, seen, allowed),
);

/// Whether a guest may write `value` to either register, where `capable` are
/// the components of its policy that XFD can disable.
pub const fn xfd_verdict(value: u64, capable: ComponentSet) -> Result<Xfd, XfdError> {
    let allowed = capable.intersection(ComponentSet::ALL);
    if allowed.contains(ComponentSet::from_bits_retain(value)) {
        Ok(Xfd(value))
    } else {
        Err(XfdError::Policy(value, allowed.bits()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_disabled() {
        let capable = ComponentSet::from_bits_retain(1 << 18);
        assert_eq!(xfd_verdict(0, capable).map(Xfd::bits), Ok(0));
        assert_eq!(xfd_verdict(1 << 18, capable).map(Xfd::bits), Ok(1 << 18));
        for bit in (0..64).filter(|bit| *bit != 18) {
            let error = xfd_verdict(1 << bit, capable).unwrap_err();
            assert_eq!(error, XfdError::Policy(1 << bit, 1 << 18));
        }
    }
}
