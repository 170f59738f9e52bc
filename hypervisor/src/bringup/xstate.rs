//! The processor's extended state: read from CPUID, held against what CPUID
//! says for every XCR0, and tried component by component.
#![allow(unsafe_code)] // XSETBV

use crate::domain::xstate_memory::XstateMemory;
use core::fmt;
use vcpu_xstate::area::OutOfMemory;
use vcpu_xstate::component::ComponentSet;
use vcpu_xstate::cpuid::{CpuidError, HostXstate};
use vcpu_xstate::hw::{Hardware, Silicon};
use vcpu_xstate::layout::Form;
use vcpu_xstate::percpu::{CpuId, PcpuXstate};
use vcpu_xstate::xcr0::xcr0_verdict;

/// Memory that the self-test may take, bytes.
const SELF_TEST_BYTES: u64 = 256 << 10;

/// Why the processor's extended state cannot be used.
#[derive(Debug)]
pub enum XstateFault {
    /// CPUID.
    Cpuid(CpuidError),
    /// The computed size of an image is not CPUID's.
    Size {
        /// XCR0.
        xcr0: u64,
        /// What leaf 0xD says, bytes.
        said: u32,
        /// What the layout gives, bytes.
        computed: usize,
    },
    /// x87 or SSE do not survive a restore and a save.
    RoundTrip(ComponentSet),
    /// No memory for the self-test.
    Memory(OutOfMemory),
}

impl fmt::Display for XstateFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpuid(error) => write!(f, "extended state by CPUID: {error}"),
            Self::Size {
                xcr0,
                said,
                computed,
            } => write!(
                f,
                "with XCR0 = {xcr0:#x} CPUID 0xD says {said} bytes and the layout gives {computed}"
            ),
            Self::RoundTrip(lost) => write!(f, "{lost} does not survive a restore and a save"),
            Self::Memory(error) => write!(f, "no memory for the self-test: {error}"),
        }
    }
}

/// Finds out and tries what this processor has.
///
/// # Errors
/// Something is wrong that cannot be left out.
pub fn bring_up() -> Result<PcpuXstate<Silicon>, XstateFault> {
    let mask = vcpu_xstate::hw::mxcsr_mask();
    let host = HostXstate::read(&super::cpuid, mask).map_err(XstateFault::Cpuid)?;
    let checked = check_sizes(&host)?;
    // SAFETY: this is the processor that answered, it runs the hypervisor at CPL 0
    // with the CR0 and CR4 that it has brought up; the hypervisor is compiled
    // without vector registers and maps no user pages.
    let silicon = unsafe { Silicon::new() };
    let mut xstate = PcpuXstate::new(CpuId(0), silicon, host);
    let mut memory = XstateMemory::new(SELF_TEST_BYTES);
    let report = xstate.self_test(&mut memory).map_err(XstateFault::Memory)?;
    if report.failed().intersects(ComponentSet::LEGACY) {
        return Err(XstateFault::RoundTrip(report.failed()));
    }
    if !report.failed().is_empty() {
        ::log::warn!(
            "not offered to guests, for it does not survive a restore and a save: {}",
            report.failed()
        );
    }
    let host = xstate.host();
    ::log::info!(
        "extended state: {} ({:#x}), saved by {:?}, {checked} sizes as CPUID says",
        host.offered(),
        host.offered().bits(),
        host.save_instruction()
    );
    Ok(xstate)
}

/// Holds the computed size of a standard image against leaf 0xD for every legal
/// XCR0. Returns how many there are.
fn check_sizes(host: &HostXstate) -> Result<usize, XstateFault> {
    let user = host.user();
    // SAFETY: as in `bring_up`.
    let mut silicon = unsafe { Silicon::new() };
    let mut checked = 0;
    let mut subset = 0u64;
    loop {
        // All subsets of the mask, ascending.
        subset = subset.wrapping_sub(user.bits()) & user.bits();
        if xcr0_verdict(subset, 0, user).is_ok() {
            // SAFETY: the verdict passed it: the processor takes it without a
            // fault, CR4.OSXSAVE is set, and the hypervisor uses none of the
            // registers that it enables or disables.
            unsafe { silicon.write_xcr0(subset) };
            let said = super::cpuid(0xd, 0).ebx;
            let set = ComponentSet::from_bits_retain(subset);
            let computed = host.geometry().image_size(Form::Standard, set);
            if said as usize != computed {
                return Err(XstateFault::Size {
                    xcr0: subset,
                    said,
                    computed,
                });
            }
            checked += 1;
        }
        if subset == user.bits() {
            return Ok(checked);
        }
    }
}
