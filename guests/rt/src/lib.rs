//! Runtime of Xferry's own guests: from the PVH entry to a Rust function with
//! a console, a clock, a timer and interrupts.
//!
//! ```text
//! loader ── EBX=hvm_start_info ──> entry.S ──> guest_start ──> your function
//!                                  long mode     IDT, console    (entry!)
//! ```
//!
//! A guest is a `no_std` binary linked by `guest.ld` that names its function
//! with [`entry!`]. Memory is identity-mapped (the first 1 GiB), so an address
//! is its own guest-physical address. The code is soft-float: nothing here,
//! the interrupt handlers included, touches a register of the extended state.
//!
//! Under another loader (`qemu-system-x86_64 -kernel`) there are no hypercalls:
//! the console is then the UART at 0x3f8, the clock is the TSC taken for
//! 1 GHz, and there are no events. [`hypercall::available`] tells.
#![cfg_attr(not(test), no_std)]

pub mod boot;
pub mod clock;
pub mod console;
pub mod cpu;
pub mod heap;
pub mod hypercall;
pub mod interrupts;
pub mod power;
#[cfg(target_os = "none")]
mod start;
pub mod timer;
pub mod uart;

pub use boot::BootInfo;
pub use xferry_abi as abi;

/// Names the function that the guest starts in: `fn(&'static BootInfo) -> !`.
///
/// It runs with interrupts off; the console works.
#[macro_export]
macro_rules! entry {
    ($function:path) => {
        #[allow(unsafe_code)] // the one symbol that the runtime calls
        #[unsafe(no_mangle)]
        extern "Rust" fn guest_main(boot: &'static $crate::BootInfo) -> ! {
            let function: fn(&'static $crate::BootInfo) -> ! = $function;
            function(boot)
        }
    };
}
