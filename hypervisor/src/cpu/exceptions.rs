//! What happens on an exception: a fixup, if the instruction has one;
//! otherwise everything that is known is printed and the machine stops.
#![allow(unsafe_code)] // the assembly stubs, control registers, the frame chain

use super::{fixup, interrupts, last_words};
use core::fmt::{self, Write};

core::arch::global_asm!(include_str!("exceptions.S"), dispatch = sym dispatch);

/// The registers at an exception or interrupt, as `exceptions.S` pushes them.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the architecture's names")]
pub struct TrapFrame {
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

const _: () = assert!(size_of::<TrapFrame>() == 22 * 8);

/// Vectors below this one are exceptions.
const EXCEPTIONS: u64 = 32;
const PAGE_FAULT: u64 = 14;
const DOUBLE_FAULT: u64 = 8;

const NAMES: [&str; EXCEPTIONS as usize] = [
    "#DE divide error",
    "#DB debug",
    "NMI",
    "#BP breakpoint",
    "#OF overflow",
    "#BR bound range",
    "#UD invalid opcode",
    "#NM device not available",
    "#DF double fault",
    "coprocessor segment overrun",
    "#TS invalid TSS",
    "#NP segment not present",
    "#SS stack segment",
    "#GP general protection",
    "#PF page fault",
    "reserved 15",
    "#MF x87 floating point",
    "#AC alignment check",
    "#MC machine check",
    "#XM SIMD floating point",
    "#VE virtualization",
    "#CP control protection",
    "reserved 22",
    "reserved 23",
    "reserved 24",
    "reserved 25",
    "reserved 26",
    "reserved 27",
    "#HV hypervisor injection",
    "#VC VMM communication",
    "#SX security",
    "reserved 31",
];

/// Called by the stubs with every exception and interrupt.
extern "C" fn dispatch(frame: &mut TrapFrame) {
    if frame.vector >= EXCEPTIONS {
        // The stubs push 0..=255.
        interrupts::dispatch(frame.vector as u8);
        return;
    }
    if is_fault(frame.vector)
        && let Some(target) =
            fixup::target_of(frame.rip).or_else(|| vcpu_xstate::hw::fixup(frame.rip))
    {
        frame.rip = target;
        return;
    }
    last_words::speak_and_stop(|out| print(out, frame))
}

/// Whether an exception is the fault of the instruction at RIP: an NMI or a
/// machine check that comes there by chance is not.
const fn is_fault(vector: u64) -> bool {
    matches!(vector, 0 | 5..=7 | 10..=14 | 16 | 17 | 19 | 21)
}

fn print(out: &mut dyn Write, frame: &TrapFrame) -> fmt::Result {
    // SAFETY: at CPL 0, reading control registers changes nothing.
    let (cr0, cr2, cr3, cr4) = unsafe {
        use x86::controlregs::{cr0, cr2, cr3, cr4};
        (cr0().bits(), cr2(), cr3(), cr4().bits())
    };
    let name = usize::try_from(frame.vector)
        .ok()
        .and_then(|vector| NAMES.get(vector));
    writeln!(
        out,
        "exception {} error code {:#x}",
        name.unwrap_or(&"?"),
        frame.error_code
    )?;
    if frame.vector == PAGE_FAULT {
        writeln!(out, "{} at {cr2:#x}", PageFaultCode(frame.error_code))?;
    }
    if frame.vector == PAGE_FAULT || frame.vector == DOUBLE_FAULT {
        let page = cr2 as u64 & !0xfff;
        if super::stacks::boot_guard_pages()
            .iter()
            .any(|guard| guard.as_u64() == page)
        {
            writeln!(out, "stack overflow: {cr2:#x} is in a guard page")?;
        }
    }
    let f = frame;
    writeln!(
        out,
        "rip {:016x} rflags {:08x} cs {:04x} ss {:04x}",
        f.rip, f.rflags, f.cs, f.ss
    )?;
    writeln!(
        out,
        "rax {:016x} rcx {:016x} rdx {:016x} rbx {:016x}",
        f.rax, f.rcx, f.rdx, f.rbx
    )?;
    writeln!(
        out,
        "rsp {:016x} rbp {:016x} rsi {:016x} rdi {:016x}",
        f.rsp, f.rbp, f.rsi, f.rdi
    )?;
    writeln!(
        out,
        "r8  {:016x} r9  {:016x} r10 {:016x} r11 {:016x}",
        f.r8, f.r9, f.r10, f.r11
    )?;
    writeln!(
        out,
        "r12 {:016x} r13 {:016x} r14 {:016x} r15 {:016x}",
        f.r12, f.r13, f.r14, f.r15
    )?;
    writeln!(
        out,
        "cr0 {cr0:016x} cr2 {cr2:016x} cr3 {cr3:016x} cr4 {cr4:016x}"
    )?;
    backtrace(out, frame.rbp)
}

/// Return addresses by the chain of frame pointers, as far as it lies in
/// mapped memory and goes upward.
pub fn backtrace(out: &mut dyn Write, mut frame_pointer: u64) -> fmt::Result {
    const LONGEST: usize = 24;
    for _ in 0..LONGEST {
        let readable = frame_pointer.is_multiple_of(8)
            && frame_pointer != 0
            && crate::mm::paging::is_mapped(frame_pointer)
            && crate::mm::paging::is_mapped(frame_pointer.saturating_add(8));
        if !readable {
            break;
        }
        let pair: *const [u64; 2] = core::ptr::with_exposed_provenance(frame_pointer as usize);
        // SAFETY: 8-byte aligned, and both words are in mapped memory, which
        // holds RAM only. What they say is printed, never trusted.
        let [next, return_address] = unsafe { pair.read_volatile() };
        if return_address == 0 {
            break;
        }
        writeln!(out, "  from {return_address:#x}")?;
        if next <= frame_pointer {
            break;
        }
        frame_pointer = next;
    }
    Ok(())
}

/// [`backtrace`] of whoever calls this.
pub fn backtrace_from_here(out: &mut dyn Write) -> fmt::Result {
    let frame_pointer: u64;
    // SAFETY: copies a register.
    unsafe { core::arch::asm!("mov {}, rbp", out(reg) frame_pointer, options(nomem, nostack)) };
    backtrace(out, frame_pointer)
}

/// Says in words what a page fault's error code means (SDM Vol. 3, 5.7).
struct PageFaultCode(u64);

impl fmt::Display for PageFaultCode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = match self.0 {
            code if code & 0x10 != 0 => "instruction fetch",
            code if code & 2 != 0 => "write",
            _ => "read",
        };
        let reason = match self.0 {
            code if code & 8 != 0 => "reserved bit in a table",
            code if code & 0x20 != 0 => "protection key",
            code if code & 1 != 0 => "not allowed by the page",
            _ => "no page",
        };
        write!(out, "{access}, {reason}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn page_fault_codes_read_as_the_manual_has_them() {
        assert_eq!(PageFaultCode(0x00).to_string(), "read, no page");
        assert_eq!(
            PageFaultCode(0x03).to_string(),
            "write, not allowed by the page"
        );
        assert_eq!(
            PageFaultCode(0x11).to_string(),
            "instruction fetch, not allowed by the page"
        );
        assert_eq!(
            PageFaultCode(0x09).to_string(),
            "read, reserved bit in a table"
        );
    }
}
