//! What each processor has for itself, found through its GS base.
//!
//! GS base points at the processor's own [`PerCpu`] from the first line of Rust
//! on, whenever an interrupt can come: assembly reads `gs:[OFFSET]`, Rust calls
//! [`current`]. A backend that lets a guest use GS puts the base back before it
//! lets interrupts in again.
#![allow(unsafe_code)] // GS base, and a reference made from what it holds

use super::gdt::DescriptorTables;
use super::stacks;
use core::cell::{Cell, UnsafeCell};
use core::mem::offset_of;
use x86::msr::{IA32_GS_BASE, wrmsr};

/// One processor's own data.
///
/// Never shared: fields that change are `Cell`s, so a `&PerCpu` cannot be sent
/// to another processor.
#[repr(C)]
pub struct PerCpu {
    /// Its own address, so that one load through GS finds it.
    this: Cell<*const Self>,
    /// The top of the stack that this processor's run loop uses.
    pub stack_top: Cell<u64>,
    /// 0 for the boot processor, then counted up.
    id: Cell<u32>,
    /// The local APIC's ID.
    apic_id: Cell<u32>,
    /// Interrupts taken, and how many of them nobody had registered for.
    pub interrupts: Cell<u64>,
    /// See `interrupts`.
    pub unclaimed_interrupts: Cell<u64>,
    tables: DescriptorTables,
}

/// Offset of the pointer to itself, for `mov reg, gs:[…]`.
pub const SELF_OFFSET: usize = offset_of!(PerCpu, this);
/// Offset of [`PerCpu::stack_top`].
pub const STACK_TOP_OFFSET: usize = offset_of!(PerCpu, stack_top);

const _: () = assert!(SELF_OFFSET == 0);

impl PerCpu {
    /// A processor's data before it was brought up.
    pub const fn new() -> Self {
        Self {
            this: Cell::new(core::ptr::null()),
            stack_top: Cell::new(0),
            id: Cell::new(0),
            apic_id: Cell::new(0),
            interrupts: Cell::new(0),
            unclaimed_interrupts: Cell::new(0),
            tables: DescriptorTables::new(),
        }
    }

    /// This processor's number: 0 for the boot processor, without gaps.
    pub fn id(&self) -> u32 {
        self.id.get()
    }

    /// The ID of this processor's local APIC.
    pub fn apic_id(&self) -> u32 {
        self.apic_id.get()
    }

    pub(super) fn set_apic_id(&self, id: u32) {
        self.apic_id.set(id);
    }

    /// This processor's GDT and TSS.
    pub fn tables(&self) -> &DescriptorTables {
        &self.tables
    }
}

impl Default for PerCpu {
    fn default() -> Self {
        Self::new()
    }
}

struct BootCpu(UnsafeCell<PerCpu>);

// SAFETY: only the boot processor uses it: `init_boot_cpu` puts its address
// into that processor's GS base and hands out no other reference.
unsafe impl Sync for BootCpu {}

static BOOT_CPU: BootCpu = BootCpu(UnsafeCell::new(PerCpu::new()));

/// Gives the boot processor its data and its descriptor tables.
///
/// # Safety
/// Called once, on the boot processor, on the boot stack, with interrupts off,
/// before anything that uses [`current`].
pub unsafe fn init_boot_cpu() {
    // SAFETY: called once by contract, so no reference exists yet.
    let cpu = unsafe { &mut *BOOT_CPU.0.get() };
    cpu.stack_top.set(stacks::boot_stack_top());
    // SAFETY: `cpu` is a static, on its own processor, with the stacks that
    // were made for it; interrupts are off by contract.
    unsafe { install(cpu, 0, stacks::boot_interrupt_stacks()) }
}

/// Makes `cpu` this processor's data, number `id`, and loads its tables.
///
/// # Safety
/// On the processor that `cpu` is for, once, with interrupts off; `interrupt_stacks`
/// are the tops of stacks that nothing else uses.
pub unsafe fn install(
    cpu: &'static mut PerCpu,
    id: u32,
    interrupt_stacks: [u64; stacks::IST_STACKS],
) {
    cpu.id.set(id);
    cpu.tables.set_interrupt_stacks(interrupt_stacks);
    let cpu: &'static PerCpu = cpu;
    cpu.this.set(cpu);
    // SAFETY: the tables live as long as the processor runs. Loading segments
    // clears GS base, hence before it is written; it is written with the
    // address of a PerCpu that nobody else refers to.
    unsafe {
        cpu.tables.load();
        wrmsr(
            IA32_GS_BASE,
            core::ptr::from_ref(cpu).expose_provenance() as u64,
        );
    }
}

/// This processor's data.
pub fn current() -> &'static PerCpu {
    let cpu: *const PerCpu;
    // SAFETY: GS base is a PerCpu's address, and that begins with a pointer to
    // itself (asserted above); see the module's first lines. A processor's
    // PerCpu is never freed, and `!Sync` keeps the reference here.
    unsafe {
        core::arch::asm!(
            "mov {}, gs:[{offset}]",
            out(reg) cpu,
            offset = const SELF_OFFSET,
            options(nostack, preserves_flags, readonly, pure)
        );
        &*cpu
    }
}
