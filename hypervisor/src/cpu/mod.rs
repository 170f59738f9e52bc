//! One processor: its own data, descriptor tables, exceptions, interrupts,
//! timer and clock. Nothing here knows of guests.

pub mod apic;
pub mod exceptions;
pub mod features;
pub mod fixup;
pub mod gdt;
pub mod idt;
pub mod interrupts;
pub mod irq;
pub mod last_words;
pub mod msr;
pub mod percpu;
pub mod pic;
pub mod pit;
pub mod power;
pub mod stacks;
pub mod tsc;
