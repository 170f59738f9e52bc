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

use core::fmt::Write;
use core::panic::PanicInfo;

/// The hypervisor proper: takes the machine as `boot` left it, interrupts off.
pub fn start(boot: boot::BootInfo) -> ! {
    let modules = boot.modules().count();
    ::log::info!("{modules} modules and no virtualization backend: nothing to run");
    cpu::power::stop_done()
}

/// Last words of a broken host invariant, and the end.
pub fn panic(info: &PanicInfo<'_>) -> ! {
    cpu::interrupts::disable();
    let mut out = log::emergency();
    // The emergency writer cannot fail, and there is nobody left to tell.
    let _ = writeln!(out, "{info}");
    let _ = cpu::exceptions::backtrace_from_here(&mut out);
    cpu::power::stop_failed()
}
