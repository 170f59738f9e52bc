//! From a machine that is up to one that runs guests: what its processor has is
//! found out and tried, and the toolstack is built.

pub mod probe;
pub mod toolstack;
pub mod xstate;

use crate::boot::BootInfo;
use crate::cpu::{features::Features, tsc};
use crate::host::{self, Host};
use crate::sched::pcpu::Pcpu;
use crate::sched::run;
use crate::virt::{ActiveBackend, Backend};
use migration_abi::xstate::HostLayouts;
use vcpu_xstate::cpuid::CpuidResult;
use vcpu_xstate::policy::CpuPolicy;

/// Takes the machine as `boot` left it, interrupts off, and runs it for ever.
pub fn start(boot: &BootInfo) -> ! {
    let backend = ActiveBackend::enable(0).unwrap_or_else(|error| refuse(&error));
    let xstate = xstate::bring_up().unwrap_or_else(|error| refuse(&error));
    let policy = CpuPolicy::host_default(&cpuid, xstate.host());
    let layouts = HostLayouts::new(xstate.host().geometry()).unwrap_or_else(|error| refuse(&error));
    host::set(Host {
        xstate: xstate.host().clone(),
        layouts,
        policy,
        tsc_khz: u32::try_from(tsc::khz()).unwrap_or(u32::MAX),
        boot_nonce: nonce(),
        #[cfg(feature = "import-fault")]
        import_fault: import_fault(boot),
    });
    let features = Features::read();
    let mut pcpu = Pcpu::new(backend, xstate, features.rdtscp || features.rdpid);
    probe::intercepts(&mut pcpu).unwrap_or_else(|error| refuse(&error));
    toolstack::build(boot).unwrap_or_else(|error| refuse(&error));
    run::run(pcpu)
}

/// This machine cannot be used: said in a line, not by a register dump.
fn refuse(error: &dyn core::fmt::Display) -> ! {
    ::log::error!("this machine is refused: {error}");
    crate::cpu::power::stop_failed()
}

fn cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
    core::arch::x86_64::__cpuid_count(leaf, subleaf).into()
}

/// Tells this run of the host from others: the time-stamp counter when it came
/// up, stirred, which an emulator started twice does not repeat.
fn nonce() -> u64 {
    let mut x = tsc::now() | 1;
    // SplitMix64's finalizer: every bit of the counter reaches every bit.
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(feature = "import-fault")]
fn import_fault(boot: &BootInfo) -> crate::migrate::fault::ImportFault {
    use crate::migrate::fault::ImportFault;
    match boot.option("import-fault") {
        None => ImportFault::None,
        Some(name) => {
            let fault = ImportFault::from_name(name)
                .unwrap_or_else(|| refuse(&"import-fault names no component and not mxcsr"));
            ::log::warn!("this build loses {name} on import");
            fault
        }
    }
}
