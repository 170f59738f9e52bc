//! Structures that control calls fill in or take. Little-endian, no padding.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What [`crate::Request::PhysicalInfo`] returns.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct PhysicalInfo {
    /// Frames of 4 KiB that the machine has for domains.
    pub total_pages: u64,
    /// How many of them are free.
    pub free_pages: u64,
    /// Bytes of the hypervisor's heap, and how many of them are free.
    pub heap_bytes: u64,
    /// See `heap_bytes`.
    pub heap_free_bytes: u64,
    /// Drawn at boot: tells one run of a host from the next.
    pub boot_nonce: u64,
    /// Extended-state components that the host offers to guests.
    pub xstate_offered: u64,
    /// Frequency of the TSC, kHz.
    pub tsc_khz: u32,
    /// Physical CPUs that run guests.
    pub cpus: u32,
    /// Host time since boot, ns.
    pub uptime_ns: u64,
}

/// What [`crate::Request::Create`] takes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct CreateParameters {
    /// The domain's name for machines.
    pub uuid: [u8; 16],
    /// The domain's name for people: UTF-8, padded with zeros.
    pub name: [u8; 32],
    /// Memory from guest-physical address 0, in pages.
    pub memory_pages: u64,
    /// vCPUs, 1 to [`MAX_VCPUS`].
    pub vcpus: u32,
    /// Bits of [`CREATE_INCOMING`] and [`CREATE_STAYS_PAUSED`].
    pub flags: u32,
    /// Bytes of hypervisor memory that its vCPUs' extended state may take;
    /// 0 for enough to hold all of the policy.
    pub xstate_limit_bytes: u64,
    /// With [`CREATE_INCOMING`], the migration that it arrives by; else zero.
    pub migration_id: [u8; 16],
}

/// The domain arrives by migration: it is created without the right to run.
pub const CREATE_INCOMING: u32 = 1;

/// With [`CREATE_INCOMING`]: its toolstack had paused it, and it stays so when
/// the right to run is taken.
pub const CREATE_STAYS_PAUSED: u32 = 2;

/// The most vCPUs of a domain.
pub const MAX_VCPUS: u32 = 8;

/// What [`crate::Request::DomainInfo`] returns.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct DomainInfo {
    /// The domain's name for machines.
    pub uuid: [u8; 16],
    /// The domain's name for people.
    pub name: [u8; 32],
    /// Memory, pages.
    pub memory_pages: u64,
    /// Guest system time, ns.
    pub clock_ns: u64,
    /// Time that its vCPUs have run here, ns.
    pub cpu_time_ns: u64,
    /// Exits of its vCPUs here.
    pub exits: u64,
    /// Bytes that its vCPUs' extended state takes now.
    pub xstate_bytes: u64,
    /// The most that it may take.
    pub xstate_limit_bytes: u64,
    /// Where `state` is [`state::NEEDS_MEMORY`]: bytes missing.
    pub missing_bytes: u64,
    /// Detail of a crash: for a nested page fault the address, for an
    /// exception its vector, else 0.
    pub crash_detail: u64,
    /// vCPUs.
    pub vcpus: u32,
    /// One of [`state`].
    pub state: u32,
    /// Where `state` is [`state::CRASHED`], one of [`crash`]; where
    /// [`state::SHUT_DOWN`], a [`crate::ShutdownReason`].
    pub cause: u32,
    /// The migration that it is part of, as `migration_abi::handover::Status` by
    /// its code; 0 where none, and this host has the right to run it.
    pub migration: u32,
    /// That migration's id, zero where none.
    pub migration_id: [u8; 16],
}

/// Values of [`DomainInfo::state`].
pub mod state {
    /// Its vCPUs run or wait for an event.
    pub const RUNNING: u32 = 0;
    /// Paused by the toolstack.
    pub const PAUSED: u32 = 1;
    /// It shut itself down.
    pub const SHUT_DOWN: u32 = 2;
    /// It was stopped for what it did.
    pub const CRASHED: u32 = 3;
    /// A vCPU is stopped before an instruction that enables state for which
    /// there is no memory.
    pub const NEEDS_MEMORY: u32 = 4;
}

/// Values of [`DomainInfo::cause`] of a crash.
pub mod crash {
    /// Triple fault.
    pub const TRIPLE_FAULT: u32 = 1;
    /// Access outside its memory.
    pub const NESTED_FAULT: u32 = 2;
    /// An exit that it should not be able to cause.
    pub const UNEXPECTED_EXIT: u32 = 3;
    /// Its state was refused by the processor on entry.
    pub const INVALID_STATE: u32 = 4;
    /// An instruction that it was stopped at could not be fetched or is not
    /// the one that the exit tells of.
    pub const INSTRUCTION: u32 = 5;
    /// Its extended state could not be restored; it was set to INIT.
    pub const XSTATE_LOST: u32 = 6;

    /// The cause's name.
    #[must_use]
    pub const fn name(cause: u32) -> &'static str {
        match cause {
            TRIPLE_FAULT => "triple fault",
            NESTED_FAULT => "access outside its memory",
            UNEXPECTED_EXIT => "unexpected exit",
            INVALID_STATE => "state refused on entry",
            INSTRUCTION => "instruction not recognised",
            XSTATE_LOST => "extended state lost",
            _ => "unknown cause",
        }
    }
}

/// One row of what [`crate::Request::XstateStatus`] returns; before the rows
/// stands an [`XstateSummary`].
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct XstateRow {
    /// Component index.
    pub index: u32,
    /// Size, bytes.
    pub size_bytes: u32,
    /// Offset in the area, bytes; `u32::MAX` where the area has no room.
    pub offset_bytes: u32,
    /// Bits of [`xstate_row`].
    pub flags: u32,
}

/// Bits of [`XstateRow::flags`].
pub mod xstate_row {
    /// The area has room for it.
    pub const IN_AREA: u32 = 1;
    /// It may hold state.
    pub const IN_ACCUM: u32 = 2;
    /// It differs from INIT.
    pub const IN_USE: u32 = 4;
    /// Enabled in the guest's XCR0 or XSS.
    pub const ENABLED: u32 = 8;
    /// A supervisor component.
    pub const SUPERVISOR: u32 = 16;
    /// Added to the area when first enabled.
    pub const DEFERRED: u32 = 32;
}

/// A vCPU's extended state as a whole.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct XstateSummary {
    /// Size of its area, bytes.
    pub area_bytes: u64,
    /// Size of its blob if it were exported now, bytes.
    pub blob_bytes: u64,
    /// Components that its policy lets it use.
    pub policy: u64,
    /// Its XCR0.
    pub xcr0: u64,
    /// Its IA32_XSS.
    pub xss: u64,
    /// 1 where the area is in compacted form, else 0.
    pub compacted: u32,
    /// CPU whose registers own it, or `u32::MAX` for memory.
    pub owner: u32,
    /// How many rows follow.
    pub rows: u64,
}
