//! The end after a broken host invariant: what is known is printed, once, and
//! the machine stops.

use super::{exceptions, interrupts, power};
use crate::log::emergency;
use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

/// Somebody is speaking. What fails while it does so, here or on another
/// processor, ends the machine without a word more.
static SPEAKING: AtomicBool = AtomicBool::new(false);

/// Prints what `words` writes, then stops with the failure code.
pub(super) fn speak_and_stop(words: impl FnOnce(&mut dyn Write) -> fmt::Result) -> ! {
    interrupts::disable();
    if !SPEAKING.swap(true, Ordering::Relaxed) {
        // The emergency writer cannot fail, and there is nobody left to tell.
        let _ = words(&mut emergency());
    }
    power::stop_failed()
}

/// What the binary's panic handler does.
pub fn panic(info: &PanicInfo<'_>) -> ! {
    speak_and_stop(|out| {
        writeln!(out, "{info}")?;
        exceptions::backtrace_from_here(out)
    })
}
