//! The two legacy interrupt controllers: moved out of the way and masked.
#![allow(unsafe_code)] // port output

use super::interrupts::LEGACY_FIRST;
use x86::io::outb;

/// Command ports; the data port is the next one.
const FIRST: u16 = 0x20;
const SECOND: u16 = 0xa0;

/// Masks all sixteen lines. Their vectors leave the exceptions' range all the
/// same: a spurious interrupt (line 7 or 15) can come from a masked controller.
pub fn disable() {
    // ICW1 (edge, cascade, ICW4 follows), ICW2 (vectors), ICW3 (cascade on line
    // 2), ICW4 (8086 mode), then the mask (8259A data sheet, Initialization
    // Command Words).
    let initialize = [(FIRST, LEGACY_FIRST, 4), (SECOND, LEGACY_FIRST + 8, 2)];
    for (port, vectors, cascade) in initialize {
        // SAFETY: at CPL 0; the controllers touch no memory, and while they are
        // programmed interrupts are off (boot) and afterwards masked.
        unsafe {
            outb(port, 0x11);
            outb(port + 1, vectors);
            outb(port + 1, cascade);
            outb(port + 1, 0x01);
            outb(port + 1, 0xff);
        }
    }
}
