//! The IDT, exceptions that end the guest, and handlers for events.
#![allow(unsafe_code)] // IDT, handlers called from assembly

use crate::{hypercall, power, println};
use core::sync::atomic::{AtomicUsize, Ordering};
use xferry_abi::{Event, error::Failure};

/// First vector for events; below are the processor's exceptions.
pub const FIRST_EVENT_VECTOR: u8 = 32;
/// How many vectors have stubs in vectors.S.
const VECTORS: usize = 48;
/// How many of those are for events.
const EVENT_VECTORS: usize = VECTORS - FIRST_EVENT_VECTOR as usize;

/// What was interrupted, as vectors.S lays it on the stack.
#[derive(Debug)]
#[repr(C)]
#[allow(missing_docs)] // named as the manuals name them
pub struct Frame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub rdx: u64,
    pub rcx: u64,
    pub rax: u64,
    pub vector: u64,
    pub error_code: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

const _: () = assert!(size_of::<Frame>() == 22 * 8);

/// A handler; runs with interrupts off. 0 in the table is none.
pub type Handler = fn(&mut Frame);

static HANDLERS: [AtomicUsize; EVENT_VECTORS] = [const { AtomicUsize::new(0) }; EVENT_VECTORS];

/// Has `handler` called for `event` from now on. Interrupts must be enabled
/// for it to come ([`crate::cpu::enable_interrupts`]).
///
/// # Errors
/// What the hypervisor answered.
pub fn on_event(event: Event, handler: Handler) -> Result<(), Failure> {
    let index = event as usize % EVENT_VECTORS;
    if let Some(place) = HANDLERS.get(index) {
        place.store(handler as usize, Ordering::Relaxed);
    }
    hypercall::set_vector(event, Some(FIRST_EVENT_VECTOR + index as u8))
}

#[cfg(target_os = "none")]
pub use table::init;

#[cfg(target_os = "none")]
mod table {
    use super::{Frame, VECTORS};
    use core::arch::{asm, global_asm};

    global_asm!(include_str!("vectors.S"), options(att_syntax));

    unsafe extern "C" {
        /// The stubs, 16 bytes each.
        static guest_vectors: [[u8; 16]; VECTORS];
    }

    /// A 64-bit gate (SDM Vol. 3, 6.14.1 64-Bit Mode IDT).
    #[derive(Clone, Copy)]
    #[repr(C)]
    struct Gate {
        offset_low: u16,
        selector: u16,
        ist: u8,
        kind: u8,
        offset_middle: u16,
        offset_high: u32,
        reserved: u32,
    }

    const _: () = assert!(size_of::<Gate>() == 16);

    #[repr(C, packed)]
    struct TablePointer {
        limit: u16,
        base: u64,
    }

    static mut IDT: [Gate; VECTORS] = [Gate {
        offset_low: 0,
        selector: 0x08,
        ist: 0,
        kind: 0x8e, // present, DPL 0, interrupt gate
        offset_middle: 0,
        offset_high: 0,
        reserved: 0,
    }; VECTORS];

    /// Loads the IDT. Called once at start.
    pub fn init() {
        let pointer = TablePointer {
            limit: (size_of::<[Gate; VECTORS]>() - 1) as u16,
            base: &raw const IDT as u64,
        };
        // SAFETY: interrupts are off and nobody else looks at IDT; the gates
        // point at stubs that keep to the contract in vectors.S.
        unsafe {
            let idt = &raw mut IDT;
            for (gate, stub) in (*idt).iter_mut().zip(&guest_vectors) {
                let offset = stub.as_ptr() as u64;
                gate.offset_low = offset as u16;
                gate.offset_middle = (offset >> 16) as u16;
                gate.offset_high = (offset >> 32) as u32;
            }
            asm!("lidt [{}]", in(reg) &raw const pointer, options(nostack, preserves_flags));
        }
    }

    #[unsafe(no_mangle)]
    extern "C" fn guest_interrupt(frame: &mut Frame) {
        super::dispatch(frame);
    }
}

/// Calls the handler of the frame's vector; without one, the guest ends.
#[cfg_attr(not(target_os = "none"), allow(dead_code))]
fn dispatch(frame: &mut Frame) {
    let handler = usize::try_from(frame.vector)
        .ok()
        .and_then(|vector| vector.checked_sub(usize::from(FIRST_EVENT_VECTOR)))
        .and_then(|index| HANDLERS.get(index))
        .map_or(0, |place| place.load(Ordering::Relaxed));
    if handler == 0 {
        unexpected(frame);
    }
    // SAFETY: only `on_event` stores into HANDLERS, and only a `Handler`.
    let handler: Handler = unsafe { core::mem::transmute::<usize, Handler>(handler) };
    handler(frame);
}

/// Prints what there is to know and ends the guest.
fn unexpected(frame: &Frame) -> ! {
    let cr2: u64;
    // SAFETY: reading CR2 has no effect.
    unsafe { core::arch::asm!("mov {}, cr2", out(reg) cr2, options(nostack, preserves_flags)) }
    println!(
        "guest exception {} ({}) error {:#x} at {:#018x} cr2 {cr2:#x}",
        name(frame.vector),
        frame.vector,
        frame.error_code,
        frame.rip
    );
    let Frame {
        rax,
        rcx,
        rdx,
        rbx,
        rsp,
        rbp,
        rsi,
        rdi,
        ..
    } = frame;
    println!(" rax {rax:016x} rcx {rcx:016x} rdx {rdx:016x} rbx {rbx:016x}");
    println!(" rsp {rsp:016x} rbp {rbp:016x} rsi {rsi:016x} rdi {rdi:016x}");
    let Frame {
        r8,
        r9,
        r10,
        r11,
        r12,
        r13,
        r14,
        r15,
        ..
    } = frame;
    println!(" r8  {r8:016x} r9  {r9:016x} r10 {r10:016x} r11 {r11:016x}");
    println!(" r12 {r12:016x} r13 {r13:016x} r14 {r14:016x} r15 {r15:016x}");
    println!(
        " cs {:04x} ss {:04x} rflags {:08x}",
        frame.cs, frame.ss, frame.rflags
    );
    power::crash()
}

/// The vector as the manuals write it.
fn name(vector: u64) -> &'static str {
    const NAMES: [&str; 22] = [
        "#DE",
        "#DB",
        "NMI",
        "#BP",
        "#OF",
        "#BR",
        "#UD",
        "#NM",
        "#DF",
        "coprocessor overrun",
        "#TS",
        "#NP",
        "#SS",
        "#GP",
        "#PF",
        "15",
        "#MF",
        "#AC",
        "#MC",
        "#XM",
        "#VE",
        "#CP",
    ];
    usize::try_from(vector)
        .ok()
        .and_then(|vector| NAMES.get(vector).copied())
        .unwrap_or("without a handler")
}
