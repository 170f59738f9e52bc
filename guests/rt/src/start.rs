//! The first Rust code of a guest, and what happens when it panics.
#![allow(unsafe_code)] // entered from assembly, calls the guest by symbol

use crate::boot::BootInfo;
use crate::{console, cpu, hypercall, interrupts, power, println};
use core::sync::atomic::{AtomicBool, Ordering};

core::arch::global_asm!(include_str!("entry.S"), options(att_syntax));

unsafe extern "Rust" {
    /// Defined by [`crate::entry!`].
    safe fn guest_main(boot: &'static BootInfo) -> !;
}

/// Where the boot information lives from then on.
static mut BOOT: Option<BootInfo> = None;

/// Called once by entry.S.
#[unsafe(no_mangle)]
extern "C" fn guest_start(start_info: u64) -> ! {
    hypercall::detect();
    if !hypercall::available() {
        // The machine's own timer is still running and its interrupts would
        // arrive on exception vectors.
        cpu::mask_legacy_interrupts();
    }
    console::init();
    interrupts::init();
    match BootInfo::parse(start_info, crate::boot::identity_memory) {
        // SAFETY: this runs once, before anything else could look at BOOT.
        Some(boot) => guest_main(unsafe {
            let place = &raw mut BOOT;
            (*place).insert(boot)
        }),
        None => panic!("no hvm_start_info at {start_info:#x}"),
    }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    static PANICKED: AtomicBool = AtomicBool::new(false);
    cpu::disable_interrupts();
    // A panic while the first one is printed has nothing left to print with.
    if !PANICKED.swap(true, Ordering::Relaxed) {
        println!("guest {info}");
    }
    power::crash()
}
