//! The segments that 64-bit mode still asks for, and the task state with the
//! interrupt stacks (SDM Vol. 3, 9.7 Task Management in 64-bit Mode).
#![allow(unsafe_code)] // loads descriptor tables and segment registers

use super::stacks::IST_STACKS;
use core::arch::asm;
use x86::bits64::task::TaskStateSegment;
use x86::dtables::{DescriptorTablePointer, lgdt};
use x86::segmentation::{SegmentSelector, load_cs, load_ds, load_es, load_fs, load_gs, load_ss};
use x86::task::load_tr;

/// Selector of the 64-bit code segment.
pub const CODE_SELECTOR: u16 = 0x08;
/// Selector of the data segment: SS, since nothing else needs one.
pub const DATA_SELECTOR: u16 = 0x10;
/// Selector of the task state segment (two entries).
pub const TASK_SELECTOR: u16 = 0x18;

const CODE: u64 = 0x00af_9b00_0000_ffff;
const DATA: u64 = 0x00cf_9300_0000_ffff;
const TASK_LIMIT: u64 = size_of::<TaskStateSegment>() as u64 - 1;

const _: () = assert!(size_of::<TaskStateSegment>() == 104);

/// One processor's GDT and TSS.
#[repr(C)]
pub struct DescriptorTables {
    gdt: [u64; 5],
    task: TaskStateSegment,
}

impl DescriptorTables {
    /// Tables without interrupt stacks.
    pub const fn new() -> Self {
        let mut task = TaskStateSegment::new();
        // Beyond the limit: no I/O permission map.
        task.iomap_base = size_of::<TaskStateSegment>() as u16;
        Self {
            gdt: [0, CODE, DATA, 0, 0],
            task,
        }
    }

    /// Sets the tops of the interrupt stacks, in the order of `stacks::Ist`.
    pub(super) fn set_interrupt_stacks(&mut self, tops: [u64; IST_STACKS]) {
        let mut ist = self.task.ist;
        for (slot, top) in ist.iter_mut().zip(tops) {
            *slot = top;
        }
        self.task.ist = ist;
        let (low, high) = task_descriptor(self.task_base());
        self.gdt[usize::from(TASK_SELECTOR) / 8] = low;
        self.gdt[usize::from(TASK_SELECTOR) / 8 + 1] = high;
    }

    /// Address of the GDT: host state for a backend that has to name it.
    pub fn gdt_base(&self) -> u64 {
        core::ptr::from_ref(&self.gdt).expose_provenance() as u64
    }

    /// Address of the TSS: host state for a backend that has to name it.
    pub fn task_base(&self) -> u64 {
        (&raw const self.task).expose_provenance() as u64
    }

    /// Loads GDTR, every segment register and TR. GS base is 0 afterwards.
    ///
    /// # Safety
    /// The tables stay where they are while the processor runs, and interrupts
    /// are off.
    pub(super) unsafe fn load(&'static self) {
        let null = SegmentSelector::from_raw(0);
        // SAFETY: at CPL 0; the GDT holds a 64-bit code segment, a data segment
        // and an available TSS at these selectors and lives for ever by
        // contract. Null is allowed in 64-bit mode for all but CS and SS at
        // CPL 0.
        unsafe {
            lgdt(&DescriptorTablePointer::new(&self.gdt));
            load_cs(SegmentSelector::from_raw(CODE_SELECTOR));
            load_ss(SegmentSelector::from_raw(DATA_SELECTOR));
            load_ds(null);
            load_es(null);
            load_fs(null);
            load_gs(null);
            asm!("lldt {0:x}", in(reg) 0u16, options(nostack, preserves_flags));
            load_tr(SegmentSelector::from_raw(TASK_SELECTOR));
        }
    }
}

impl Default for DescriptorTables {
    fn default() -> Self {
        Self::new()
    }
}

/// An available 64-bit TSS at `base` (SDM Vol. 3, Figure 9-4).
const fn task_descriptor(base: u64) -> (u64, u64) {
    let low = TASK_LIMIT | (base & 0x00ff_ffff) << 16 | 0x89 << 40 | (base >> 24 & 0xff) << 56;
    (low, base >> 32)
}

#[cfg(test)]
mod tests {
    use super::task_descriptor;

    #[test]
    fn a_task_descriptor_holds_every_bit_of_its_base() {
        let (low, high) = task_descriptor(0x1122_3344_5566_7788);
        assert_eq!(high, 0x1122_3344);
        assert_eq!(low, 0x5500_8966_7788_0067);
    }
}
