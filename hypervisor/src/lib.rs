//! Xferry: a small type-1 hypervisor whose speciality is the extended state of
//! virtual CPUs.
//!
//! A library, so that all of its logic is tested on a development machine; the
//! binary adds a panic handler.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod boot;
pub mod bringup;
pub mod console;
pub mod cpu;
pub mod domain;
pub mod exits;
pub mod host;
pub mod hypercall;
pub mod log;
pub mod migrate;
pub mod mm;
pub mod sched;
#[cfg(test)]
mod testing;
pub mod vcpu;
pub mod virt;

pub use cpu::last_words::panic;

/// The hypervisor proper: takes the machine as `boot` left it, interrupts off.
pub fn start(boot: boot::BootInfo) -> ! {
    bringup::start(&boot)
}

/// The toolstack domain has stopped, and with it the machine.
pub(crate) fn power_off(stop: domain::status::Stop) -> ! {
    let wanted = stop.state == xferry_abi::info::state::SHUT_DOWN
        && stop.cause == xferry_abi::ShutdownReason::PowerOff as u64 as u32;
    if wanted {
        cpu::power::stop_done()
    }
    ::log::error!(
        "the toolstack domain stopped: {}",
        domain::status::words(stop)
    );
    cpu::power::stop_failed()
}
