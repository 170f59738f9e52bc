//! The interrupt descriptor table: 256 gates, the same for all processors.
#![allow(unsafe_code)] // LIDT, and the stubs' address

use super::gdt::CODE_SELECTOR;
use super::stacks::Ist;
use spin::Once;
use x86::dtables::{DescriptorTablePointer, lidt};

/// Bytes of each stub in `exceptions.S`.
const STUB_BYTES: u64 = 16;

/// A 64-bit interrupt gate (SDM Vol. 3, Figure 7-8).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Gate {
    low: u64,
    high: u64,
}

#[repr(C, align(16))]
struct Idt([Gate; 256]);

const _: () = assert!(size_of::<Idt>() == 4096);

static IDT: Once<Idt> = Once::new();

impl Gate {
    /// A present gate for CPL 0 that turns interrupts off.
    const fn new(handler: u64, ist: u8) -> Self {
        let low = handler & 0xffff
            | (CODE_SELECTOR as u64) << 16
            | (ist as u64) << 32
            | 0x8e << 40
            | (handler >> 16 & 0xffff) << 48;
        Self {
            low,
            high: handler >> 32,
        }
    }
}

/// The interrupt stack of a vector; 0 stays on the current one.
const fn ist_of(vector: u8) -> u8 {
    match vector {
        2 => Ist::Nmi as u8,
        8 => Ist::DoubleFault as u8,
        18 => Ist::MachineCheck as u8,
        _ => 0,
    }
}

impl Idt {
    fn new(first_stub: u64) -> Self {
        let mut gates = [Gate { low: 0, high: 0 }; 256];
        for (vector, gate) in (0..=u8::MAX).zip(gates.iter_mut()) {
            *gate = Gate::new(first_stub + u64::from(vector) * STUB_BYTES, ist_of(vector));
        }
        Self(gates)
    }
}

/// Loads the table into this processor.
///
/// # Safety
/// The processor's GDT and TSS are loaded (`percpu::install`).
pub unsafe fn load() {
    unsafe extern "C" {
        safe static xferry_trap_stubs: [u8; 256 * STUB_BYTES as usize];
    }
    let first_stub = (&raw const xferry_trap_stubs).expose_provenance() as u64;
    let idt = IDT.call_once(|| Idt::new(first_stub));
    // SAFETY: at CPL 0; the table is a static, every gate leads to a stub that
    // keeps the interrupted code's registers, and the code selector and
    // interrupt stacks are loaded by contract.
    unsafe { lidt(&DescriptorTablePointer::new(&idt.0)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_holds_every_bit_of_its_handler() {
        let gate = Gate::new(0x1122_3344_5566_7788, 3);
        assert_eq!(
            gate,
            Gate {
                low: 0x5566_8e03_0008_7788,
                high: 0x1122_3344
            }
        );
    }

    #[test]
    fn only_nmi_double_fault_and_machine_check_change_stacks() {
        let own: std::vec::Vec<u8> = (0..=255).filter(|vector| ist_of(*vector) != 0).collect();
        assert_eq!(own, [2, 8, 18]);
    }
}
