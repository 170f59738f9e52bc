//! The three masks of a vCPU as pure functions: `policy` ⊇ `area` ⊇ `accum`.
//!
//! - *policy*: what may ever be used.
//! - *accum*: what may hold state by now. It starts with what a guest can use
//!   without asking and grows with what it enables.
//! - *area*: what the buffer has room for: `accum` and everything eager.
//!
//! AVX-512 and AMX are large and rarely used, so they are *deferred*: they get
//! room when first enabled. A component under IA32_XFD waits longer still:
//! until its first use, which the hypervisor catches by arming XFD.

use crate::component::{ComponentIndex, ComponentSet};
use crate::mutants::rule;

/// What a vCPU may use of extended state, by its CPUID policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XstatePolicy {
    /// Components that may ever be used; x87 and SSE always.
    pub mask: ComponentSet,
    /// Components of `mask` that get room when first enabled. For a supervisor
    /// component this means that the hypervisor intercepts its MSRs.
    pub deferred: ComponentSet,
    /// Whether the guest has XSAVE at all. Without it, it still has x87 and
    /// SSE: a 576-byte image.
    pub xsave: bool,
    /// Whether it has IA32_XFD, for what of `mask` that can disable
    /// (CPUID.(0xD,1):EAX bit 4). Without it the guest's IA32_XFD and
    /// IA32_XFD_ERR are 0 for ever; the hypervisor may still arm the
    /// processor's.
    pub xfd: bool,
}

/// What a guest can use without XCR0: x87 and SSE need CR4 only, PKRU is read
/// and written by RDPKRU and WRPKRU whatever XCR0 says, and of a component
/// without a name nobody can tell.
pub(crate) const WITHOUT_ASKING: ComponentSet = ComponentSet::LEGACY
    .union(ComponentSet::only(ComponentIndex::PKRU))
    .union(ComponentSet::ALL.difference(ComponentSet::NAMED));

impl XstatePolicy {
    /// A policy over `mask`; `deferred` names what is deferred besides AVX-512
    /// and AMX. x87 and SSE are added, bit 63 is dropped and so are parts of
    /// groups (TILECFG without TILEDATA, say: no XCR0 has them), and nothing
    /// that a guest can use without asking is deferred.
    pub fn new(mask: ComponentSet, deferred: ComponentSet) -> Self {
        let mask = mask
            .union(ComponentSet::LEGACY)
            .intersection(ComponentSet::ALL)
            .whole_groups();
        let by_default = if rule!("policy-defers-large") {
            ComponentSet::AVX512.union(ComponentSet::AMX)
        } else {
            ComponentSet::EMPTY
        };
        Self {
            mask,
            deferred: deferred
                .union(by_default)
                .intersection(mask)
                .difference(WITHOUT_ASKING),
            xsave: true,
            xfd: true,
        }
    }

    /// The policy of a guest that has no XSAVE: x87 and SSE.
    pub const fn without_xsave() -> Self {
        Self {
            mask: ComponentSet::LEGACY,
            deferred: ComponentSet::EMPTY,
            xsave: false,
            xfd: false,
        }
    }

    /// The policy without what `offered` lacks, and as [`new`](Self::new) would
    /// have it, whatever its fields were set to: with x87 and SSE (and no more
    /// where the guest has no XSAVE), whole groups, and nothing deferred that it
    /// lacks or that a guest uses without asking.
    #[must_use]
    pub fn within(&self, offered: ComponentSet) -> Self {
        let mask = self
            .mask
            .intersection(offered)
            .union(ComponentSet::LEGACY)
            .intersection(ComponentSet::ALL)
            .whole_groups();
        let mask = if self.xsave || !rule!("policy-without-xsave") {
            mask
        } else {
            ComponentSet::LEGACY
        };
        Self {
            mask,
            deferred: self.deferred.intersection(mask).difference(WITHOUT_ASKING),
            xsave: self.xsave,
            xfd: self.xfd,
        }
    }

    /// What the guest's own IA32_XFD can disable, where `capable` is what the
    /// machine's can.
    #[inline(always)]
    pub fn disableable(&self, capable: ComponentSet) -> ComponentSet {
        if self.xfd || !rule!("xfd-of-a-guest-without-xfd") {
            self.mask.intersection(capable)
        } else {
            ComponentSet::EMPTY
        }
    }

    /// Components that have room from the start.
    pub const fn eager(&self) -> ComponentSet {
        self.mask
            .difference(self.deferred)
            .union(ComponentSet::LEGACY)
    }

    /// Components that may hold state although nothing was ever enabled: x87,
    /// SSE, PKRU, those without a name, and the supervisor components whose MSRs the guest can write
    /// whatever IA32_XSS says.
    pub fn initial_accum(&self, supervisor: ComponentSet) -> ComponentSet {
        self.mask
            .difference(self.deferred)
            .intersection(if rule!("accum-without-asking") {
                supervisor.union(WITHOUT_ASKING.difference(ComponentSet::LEGACY))
            } else {
                ComponentSet::EMPTY
            })
            .union(if rule!("linux-a1020a25e6-legacy-without-xsave") {
                ComponentSet::LEGACY
            } else {
                ComponentSet::EMPTY
            })
    }

    /// What the buffer must have room for.
    pub const fn area(&self, accum: ComponentSet) -> ComponentSet {
        self.eager().union(accum)
    }
}

/// Of what is `enabled` (XCR0 | XSS), the part that needs room now: all but
/// what an XFD armed by the hypervisor can hold back until its first use.
pub const fn needs_room(enabled: ComponentSet, armable: ComponentSet) -> ComponentSet {
    enabled.difference(armable)
}

/// The components for which XFD has to be armed: enabled, able to be held
/// back, and without room.
pub fn armed(enabled: ComponentSet, armable: ComponentSet, accum: ComponentSet) -> ComponentSet {
    if rule!("xfd-armed-without-room") {
        enabled.intersection(armable).difference(accum)
    } else {
        ComponentSet::EMPTY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(bits: u64) -> ComponentSet {
        ComponentSet::from_bits_retain(bits)
    }

    #[test]
    fn masks_nest_at_the_start() {
        // (policy, also deferred, supervisor) -> (area, accum)
        let table = [
            (0x3, 0, 0, 0x3, 0x3),
            (0, 0, 0, 0x3, 0x3),
            (0x21f, 0, 0, 0x21f, 0x203),
            (0x2e7, 0, 0, 0x207, 0x203),
            (0x6_02e7, 0, 0, 0x207, 0x203),
            (0x207, 0x4, 0, 0x203, 0x203),
            (0x207, 0x203, 0, 0x207, 0x203),
            (0x1a07, 0, 0x1800, 0x1a07, 0x1a03),
            (0x1a07, 0x1800, 0x1800, 0x207, 0x203),
            // Without names: room and state from the start, never deferred.
            (
                0x1080_0007,
                0x1080_0000,
                0x1000_0000,
                0x1080_0007,
                0x1080_0003,
            ),
        ];
        for (mask, deferred, supervisor, area, accum) in table {
            let policy = XstatePolicy::new(set(mask), set(deferred));
            let start = policy.initial_accum(set(supervisor));
            assert_eq!(start.bits(), accum, "accum of {mask:#x}");
            assert_eq!(policy.area(start).bits(), area, "area of {mask:#x}");
            assert!(policy.mask.contains(policy.area(start)));
        }
    }

    #[test]
    fn armed_is_what_is_enabled_without_room() {
        let xfd = set(1 << 18);
        assert_eq!(needs_room(set(0x6_0007), xfd).bits(), 0x2_0007);
        assert_eq!(armed(set(0x6_0007), xfd, set(0x2_0007)).bits(), 1 << 18);
        assert!(armed(set(0x6_0007), xfd, set(0x6_0007)).is_empty());
        assert!(armed(set(0x7), xfd, set(0x7)).is_empty());
    }

    /// Linux a1020a25e6: x87 and SSE are state without XSAVE too.
    #[test]
    fn fp_dropped_where_xsave_is_hidden() {
        let policy = XstatePolicy::without_xsave();
        assert_eq!(policy.area(policy.initial_accum(set(0))).bits(), 0x3);
    }
}
