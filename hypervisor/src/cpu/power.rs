//! The end of the machine, as far as an emulator listens for it.
#![allow(unsafe_code)] // port output, HLT

use x86::io::{outb, outl};

/// QEMU's `isa-debug-exit`: value `v` ends QEMU with exit code `2v + 1`.
const DEBUG_EXIT_PORT: u16 = 0xf4;
/// Bochs ends when it has seen this word here.
const BOCHS_PORT: u16 = 0x8900;
const FAILED: u32 = 0x10;
const DONE: u32 = 0;

/// Stops after a failure: QEMU exits with 33.
pub fn stop_failed() -> ! {
    stop(FAILED)
}

/// Stops because there is nothing left to do: QEMU exits with 1.
pub fn stop_done() -> ! {
    stop(DONE)
}

fn stop(code: u32) -> ! {
    // SAFETY: at CPL 0; both ports end an emulator and are unused elsewhere.
    unsafe {
        outl(DEBUG_EXIT_PORT, code);
        for byte in *b"Shutdown" {
            outb(BOCHS_PORT, byte);
        }
    }
    loop {
        super::irq::disable();
        // SAFETY: at CPL 0; with interrupts off this waits for ever, as meant.
        unsafe { x86::halt() }
    }
}
