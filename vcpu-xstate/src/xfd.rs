//! What a guest may write to IA32_XFD and IA32_XFD_ERR, and whose a #NM is, as pure verdicts.
//!
//! SDM Vol. 1, 13.14 Extended Feature Disable (XFD): a bit may be set only for
//! a component that CPUID marks as able to be disabled; others give #GP(0).

use crate::area::OutOfMemory;
use crate::component::ComponentSet;
use crate::error::broken_rules;
use crate::mutants::rule;

/// A value of IA32_XFD or IA32_XFD_ERR that the policy allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Xfd(u64);

impl Xfd {
    /// After reset: nothing is disabled.
    pub const RESET: Self = Self(0);

    /// The register's value.
    #[inline(always)]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The components that it disables.
    #[inline(always)]
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
#[inline(always)]
pub fn xfd_verdict(value: u64, capable: ComponentSet) -> Result<Xfd, XfdError> {
    let allowed = capable.intersection(ComponentSet::ALL);
    if !rule!("xfd-policy") || allowed.contains(ComponentSet::from_bits_retain(value)) {
        Ok(Xfd(value))
    } else {
        Err(XfdError::Policy(value, allowed.bits()))
    }
}

/// Whose a first use was, and what follows: of a #NM with components in
/// IA32_XFD_ERR, or of the first write of an intercepted MSR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstUse {
    /// The hypervisor had held these components back. They get room, and the
    /// guest tries its instruction again; it never learns.
    Grow(ComponentSet),
    /// Nothing was held back: the event is the guest's own and goes to it.
    Reflect,
    /// There is no memory for the room; nothing has changed. The vCPU waits
    /// before its instruction until there is.
    Wait(OutOfMemory),
}

/// What stands between a guest and a component's first use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeldBack {
    /// The guest's own IA32_XFD.
    pub by_guest: ComponentSet,
    /// Under IA32_XFD for the hypervisor: enabled, and without room.
    pub armed: ComponentSet,
    /// Supervisor components without room, whose MSRs are intercepted.
    pub intercepted: ComponentSet,
}

/// Judges the use of `used`: to grow or to reflect. (Whether there is memory,
/// or the vCPU has to [`Wait`](FirstUse::Wait), shows when it is taken.)
///
/// What the guest disabled itself is its own, armed or not: the growth waits
/// for the first use after it has enabled the component. A use of both kinds
/// grows first; tried again, it is the guest's.
pub const fn first_use_verdict(used: ComponentSet, held: &HeldBack) -> FirstUse {
    let by_hypervisor = held.armed.difference(held.by_guest);
    let first = used.intersection(by_hypervisor.union(held.intercepted));
    if first.is_empty() {
        FirstUse::Reflect
    } else {
        FirstUse::Grow(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_a_first_use_is() {
        let set = ComponentSet::from_bits_retain;
        const TILES: u64 = 1 << 18;
        const CET: u64 = 1 << 11;
        // (used, the guest's XFD, armed, intercepted) -> grown, 0 for the guest's
        let table = [
            (TILES, 0, TILES, 0, TILES),
            (TILES, TILES, TILES, 0, 0),
            (TILES, TILES, 0, 0, 0),
            (TILES, 0, 0, 0, 0),
            // CR0.TS, or the #NM of x87: IA32_XFD_ERR is 0.
            (0, 0, TILES, CET, 0),
            (CET, 0, TILES, CET, CET),
            (CET, 0, TILES, 0, 0),
            (TILES | 1 << 40, 1 << 40, TILES, 0, TILES),
            (1 << 62, 0, 1 << 62 | TILES, 0, 1 << 62),
        ];
        for (used, by_guest, armed, intercepted, grown) in table {
            let held = HeldBack {
                by_guest: set(by_guest),
                armed: set(armed),
                intercepted: set(intercepted),
            };
            let expected = match grown {
                0 => FirstUse::Reflect,
                grown => FirstUse::Grow(set(grown)),
            };
            assert_eq!(
                first_use_verdict(set(used), &held),
                expected,
                "{used:#x} {held:?}"
            );
        }
    }

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
