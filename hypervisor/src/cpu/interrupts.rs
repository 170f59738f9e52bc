//! Interrupt vectors: what each is for, and who handles it.

use super::{apic, irq, percpu};
use core::fmt;
use spin::Once;

/// The legacy controllers' sixteen lines, masked; only their spurious
/// interrupts can still come.
pub const LEGACY_FIRST: u8 = 0x20;
/// The local APIC timer.
pub const TIMER: u8 = 0xf0;
/// One processor wants another's attention.
pub const WAKE: u8 = 0xf1;
/// The local APIC's own errors.
pub const APIC_ERROR: u8 = 0xfe;
/// The local APIC's spurious interrupt: it is not acknowledged.
pub const SPURIOUS: u8 = 0xff;

/// Runs with interrupts off, on the stack of what it interrupted: notes what
/// happened and returns.
pub type Handler = fn();

static HANDLERS: [Once<Handler>; 256] = [const { Once::new() }; 256];

/// A vector that cannot be registered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RegisterError {
    /// Exceptions, legacy and spurious interrupts are not for handlers.
    Reserved(u8),
    /// It has a handler already.
    Taken(u8),
}

impl fmt::Display for RegisterError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reserved(vector) => write!(out, "vector {vector:#x} is reserved"),
            Self::Taken(vector) => write!(out, "vector {vector:#x} has a handler already"),
        }
    }
}

/// Makes `handler` the one for `vector`, on all processors, for ever. The
/// interrupt is acknowledged after the handler returned.
pub fn register(vector: u8, handler: Handler) -> Result<(), RegisterError> {
    if vector < LEGACY_FIRST + 16 || vector == SPURIOUS {
        return Err(RegisterError::Reserved(vector));
    }
    let slot = &HANDLERS[usize::from(vector)];
    let mut ours = false;
    slot.call_once(|| {
        ours = true;
        handler
    });
    if ours {
        Ok(())
    } else {
        Err(RegisterError::Taken(vector))
    }
}

/// Lets interrupts in.
pub fn enable() {
    irq::enable();
}

/// Keeps interrupts out.
pub fn disable() {
    irq::disable();
}

/// Lets one pending interrupt in, and keeps the next out. Interrupts are off
/// before and after.
pub fn let_in() {
    irq::enable();
    // STI holds interrupts back for one instruction more.
    core::hint::spin_loop();
    irq::disable();
}

/// Waits for an interrupt, which is let in. Interrupts are off before and after;
/// one that is pending already ends the wait at once.
#[allow(unsafe_code)] // HLT
pub fn wait() {
    #[cfg(target_os = "none")]
    // SAFETY: at CPL 0. Interrupts come in at the HLT and not before it, since
    // STI holds them back for one instruction; handlers only note things.
    unsafe {
        core::arch::asm!("sti", "hlt", "cli", options(nostack));
    }
}

/// Whether interrupts can come.
pub fn enabled() -> bool {
    irq::enabled()
}

/// Called by the exception path for every vector from 32 up.
pub(super) fn dispatch(vector: u8) {
    let cpu = percpu::current();
    cpu.interrupts.set(cpu.interrupts.get().wrapping_add(1));
    // Neither kind sets an in-service bit in the local APIC (SDM Vol. 3, 12.9
    // Spurious Interrupt): acknowledging one would acknowledge another.
    if vector == SPURIOUS || (LEGACY_FIRST..LEGACY_FIRST + 16).contains(&vector) {
        return;
    }
    match HANDLERS[usize::from(vector)].get() {
        Some(handler) => handler(),
        None => cpu
            .unclaimed_interrupts
            .set(cpu.unclaimed_interrupts.get().wrapping_add(1)),
    }
    apic::acknowledge();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_has_one_handler_and_some_have_none() {
        assert_eq!(register(WAKE, || ()), Ok(()));
        assert_eq!(register(WAKE, || ()), Err(RegisterError::Taken(WAKE)));
        for reserved in [0, 14, 31, 0x20, 0x2f, SPURIOUS] {
            assert_eq!(
                register(reserved, || ()),
                Err(RegisterError::Reserved(reserved))
            );
        }
    }
}
