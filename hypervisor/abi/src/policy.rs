//! A CPUID policy as control calls carry it: a header, then its leaves.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Before the leaves.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct PolicyHeader {
    /// Components for which a vCPU's area gets room only when the guest first
    /// enables them.
    pub deferred: u64,
    /// How many [`PolicyLeaf`] follow.
    pub leaves: u32,
    /// Zero.
    pub reserved: u32,
}

/// One CPUID leaf (Xen's `xen_cpuid_leaf_t`).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct PolicyLeaf {
    /// EAX of the query.
    pub leaf: u32,
    /// ECX of the query.
    pub subleaf: u32,
    /// Answer.
    pub eax: u32,
    /// Answer.
    pub ebx: u32,
    /// Answer.
    pub ecx: u32,
    /// Answer.
    pub edx: u32,
}

/// The most leaves of a policy.
pub const MAX_LEAVES: usize = 96;
