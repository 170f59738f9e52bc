//! What this host is: found out once at boot, the same for every domain.

use core::sync::atomic::{AtomicU64, Ordering};
use migration_abi::xstate::HostLayouts;
use spin::Once;
use vcpu_xstate::cpuid::HostXstate;
use vcpu_xstate::policy::CpuPolicy;

/// The host's facts.
pub struct Host {
    /// Extended state that it offers, after the self-test left out what failed.
    pub xstate: HostXstate,
    /// What its blobs say of its layouts.
    pub layouts: HostLayouts,
    /// What a guest gets where its configuration says nothing.
    pub policy: CpuPolicy,
    /// Frequency of the TSC, kHz.
    pub tsc_khz: u32,
    /// Drawn at boot, to tell this run from the next.
    pub boot_nonce: u64,
    /// Options that only a test build of the import has.
    #[cfg(feature = "import-fault")]
    pub import_fault: crate::migrate::fault::ImportFault,
}

static HOST: Once<Host> = Once::new();

/// Sets the facts. Once, at boot.
pub fn set(host: Host) {
    HOST.call_once(|| host);
}

/// The facts.
///
/// # Panics
/// Before boot has set them, which nothing precedes that could ask.
pub fn get() -> &'static Host {
    HOST.get()
        .expect("the host's facts are set before the first domain is built")
}

/// A number that no vCPU of this host had before.
pub fn vcpu_tag() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
