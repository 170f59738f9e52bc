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
pub mod cpu;
pub mod log;
pub mod mm;

pub use cpu::last_words::panic;

/// The hypervisor proper: takes the machine as `boot` left it, interrupts off.
pub fn start(boot: boot::BootInfo) -> ! {
    let modules = boot.modules().count();
    ::log::info!("{modules} modules and no virtualization backend: nothing to run");
    cpu::power::stop_done()
}
