//! Stacks with a page below them that is never mapped.
//!
//! An overflow meets the guard page and is a page fault with a register dump
//! instead of a silent write into whatever lies below. (The fault itself cannot
//! be pushed on the full stack, so it arrives as a double fault, on its own
//! stack, with CR2 in the guard page.)
#![allow(unsafe_code)] // statics that only the processor writes

use crate::mm::addr::{HostPhys, PAGE_BYTES};
use core::cell::UnsafeCell;
use core::mem::offset_of;

/// How many exceptions have a stack of their own: see [`Ist`].
pub const IST_STACKS: usize = 3;

/// Bytes of the boot processor's run-loop stack.
pub const BOOT_STACK_BYTES: usize = 256 << 10;

/// Bytes of each interrupt stack.
pub const IST_STACK_BYTES: usize = 16 << 10;

/// Which interrupt stack an exception uses (1-based, as in an IDT gate).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Ist {
    /// #DF: whatever happened, the current stack may be the reason.
    DoubleFault = 1,
    /// NMI: can come between any two instructions.
    Nmi = 2,
    /// #MC: as NMI, and may interrupt that.
    MachineCheck = 3,
}

/// A stack of `BYTES` bytes above its guard page.
#[repr(C, align(4096))]
pub struct GuardedStack<const BYTES: usize> {
    guard: [u8; PAGE_BYTES as usize],
    stack: UnsafeCell<[u8; BYTES]>,
}

// SAFETY: no Rust code reads or writes the bytes; the one processor whose stack
// it is does, through RSP.
unsafe impl<const BYTES: usize> Sync for GuardedStack<BYTES> {}

impl<const BYTES: usize> GuardedStack<BYTES> {
    /// Bytes from its start to where a stack pointer starts.
    pub const TOP_OFFSET: usize = offset_of!(Self, stack) + BYTES;

    const fn new() -> Self {
        assert!(BYTES.is_multiple_of(PAGE_BYTES as usize));
        Self {
            guard: [0; PAGE_BYTES as usize],
            stack: UnsafeCell::new([0; BYTES]),
        }
    }

    fn guard_page(&'static self) -> HostPhys {
        HostPhys::of(&self.guard)
    }

    fn top(&'static self) -> u64 {
        HostPhys::of(self).as_u64() + Self::TOP_OFFSET as u64
    }
}

/// The stack that `boot.S` starts on and the boot processor's run loop keeps.
pub static BOOT_STACK: GuardedStack<BOOT_STACK_BYTES> = GuardedStack::new();

static BOOT_INTERRUPT_STACKS: [GuardedStack<IST_STACK_BYTES>; IST_STACKS] =
    [const { GuardedStack::new() }; IST_STACKS];

/// Where the boot stack starts.
pub fn boot_stack_top() -> u64 {
    BOOT_STACK.top()
}

/// Where the boot processor's interrupt stacks start, in the order of [`Ist`].
pub fn boot_interrupt_stacks() -> [u64; IST_STACKS] {
    BOOT_INTERRUPT_STACKS.each_ref().map(|stack| stack.top())
}

/// The guard pages of the boot processor's stacks.
pub fn boot_guard_pages() -> [HostPhys; 1 + IST_STACKS] {
    let [first, second, third] = BOOT_INTERRUPT_STACKS
        .each_ref()
        .map(|stack| stack.guard_page());
    [BOOT_STACK.guard_page(), first, second, third]
}
