//! A spin lock that keeps interrupts out while it is held, so that a handler
//! can take the same lock without waiting for the code that it interrupted.
#![allow(unsafe_code)] // CLI and STI

use core::ops::{Deref, DerefMut};
use spin::mutex::{SpinMutex, SpinMutexGuard};

/// A mutex for data that interrupt handlers use too.
pub struct IrqMutex<T> {
    inner: SpinMutex<T>,
}

/// The lock is held, and interrupts are off, while this lives.
pub struct IrqGuard<'a, T> {
    // Dropped first: the lock is open before interrupts come back.
    inner: SpinMutexGuard<'a, T>,
    _interrupts: InterruptsOff,
}

impl<T> IrqMutex<T> {
    /// An open lock around `value`.
    pub const fn new(value: T) -> Self {
        Self {
            inner: SpinMutex::new(value),
        }
    }

    /// Waits for the lock.
    pub fn lock(&self) -> IrqGuard<'_, T> {
        let interrupts = InterruptsOff::new();
        IrqGuard {
            inner: self.inner.lock(),
            _interrupts: interrupts,
        }
    }

    /// Takes the lock if it is open: for who must not wait, because the holder
    /// may be what it interrupted for good.
    pub fn try_lock(&self) -> Option<IrqGuard<'_, T>> {
        let interrupts = InterruptsOff::new();
        let inner = self.inner.try_lock()?;
        Some(IrqGuard {
            inner,
            _interrupts: interrupts,
        })
    }
}

impl<T> Deref for IrqGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for IrqGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

/// Interrupts are off while this lives; afterwards they are as they were.
pub struct InterruptsOff {
    were_on: bool,
    /// RFLAGS belongs to this processor alone: not to be sent to another.
    _here: core::marker::PhantomData<*mut ()>,
}

impl InterruptsOff {
    /// Turns interrupts off.
    pub fn new() -> Self {
        let were_on = enabled();
        disable();
        Self {
            were_on,
            _here: core::marker::PhantomData,
        }
    }
}

impl Default for InterruptsOff {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for InterruptsOff {
    fn drop(&mut self) {
        if self.were_on {
            enable();
        }
    }
}

// On a development machine the tests run in user mode, where CLI faults and
// nothing interrupts them.
#[cfg(not(target_os = "none"))]
mod flag {
    pub(in crate::cpu) fn enabled() -> bool {
        false
    }
    pub(in crate::cpu) fn disable() {}
    pub(in crate::cpu) fn enable() {}
}

#[cfg(target_os = "none")]
mod flag {
    use x86::bits64::rflags::{self, RFlags};

    pub(in crate::cpu) fn enabled() -> bool {
        rflags::read().contains(RFlags::FLAGS_IF)
    }
    pub(in crate::cpu) fn disable() {
        // SAFETY: at CPL 0; to hold interrupts off breaks no memory rule.
        unsafe { x86::irq::disable() }
    }
    pub(in crate::cpu) fn enable() {
        // SAFETY: at CPL 0. Only reached to restore what was, or from
        // `interrupts::enable`, both after the IDT was loaded.
        unsafe { x86::irq::enable() }
    }
}

pub(in crate::cpu) use flag::{disable, enable, enabled};
