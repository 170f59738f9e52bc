//! Decoding an SVM exit into the neutral [`Exit`] (APM Vol. 2, Appendix C).

use super::vmcb::{ControlArea, exit_code as code};
use crate::mm::addr::GuestPhys;
use crate::virt::{Event, EventKind, Exit, Intercepted, IoExit};

/// The exit that the control area tells of.
pub fn decode(control: &ControlArea) -> Exit {
    use Intercepted as I;
    let instruction = |i| Exit::Instruction(i);
    match control.exit_code {
        code::INTR => Exit::Interrupt,
        code::NMI | code::SMI | code::INIT => Exit::HostEvent,
        code::VINTR => Exit::InterruptWindow,
        code::CPUID => instruction(I::Cpuid),
        code::HLT => instruction(I::Hlt),
        code::XSETBV => instruction(I::Xsetbv),
        code::VMMCALL => instruction(I::Hypercall),
        code::MSR if control.exit_info1 & 1 == 0 => instruction(I::Rdmsr),
        code::MSR => instruction(I::Wrmsr),
        code::INVD => instruction(I::Invd),
        code::WBINVD => instruction(I::Wbinvd),
        code::RDPMC
        | code::MONITOR
        | code::MWAIT
        | code::MWAIT_ARMED
        | code::RDPRU
        | code::RSM
        | code::INVLPGA
        | code::VMRUN
        | code::VMLOAD
        | code::VMSAVE
        | code::STGI
        | code::CLGI
        | code::SKINIT => instruction(I::NotOffered),
        cr @ code::CR_WRITE_0..=code::CR_WRITE_15 => {
            // 0x10..=0x1f: the difference fits.
            instruction(I::WriteCr((cr - code::CR_WRITE_0) as u8))
        }
        code::IOIO => Exit::Io(io(control.exit_info1, control.exit_info2)),
        exception @ code::EXCEPTION_0..=code::EXCEPTION_31 => {
            let vector = (exception - code::EXCEPTION_0) as u8;
            Exit::Exception {
                vector,
                // Of the vectors that are intercepted only #AC pushes one.
                error_code: (vector == 17).then_some(control.exit_info1 as u32),
            }
        }
        code::NESTED_PAGE_FAULT => Exit::NestedFault {
            address: GuestPhys::new(control.exit_info2),
            write: control.exit_info1 & 2 != 0,
            fetch: control.exit_info1 & 16 != 0,
        },
        code::SHUTDOWN => Exit::Shutdown,
        code::TASK_SWITCH => Exit::TaskSwitch,
        code::INVALID => Exit::InvalidState,
        other => Exit::Unexpected {
            code: other,
            info: control.exit_info1,
        },
    }
}

/// EXITINFO1 of an IOIO intercept (APM Vol. 2, 15.10.2). Its address-size and
/// segment bits are left to the instruction's own bytes: QEMU does not set
/// them.
fn io(info1: u64, next_rip: u64) -> IoExit {
    let width = if info1 & (1 << 6) != 0 {
        4
    } else if info1 & (1 << 5) != 0 {
        2
    } else {
        1
    };
    IoExit {
        port: (info1 >> 16) as u16,
        width,
        input: info1 & 1 != 0,
        string: info1 & 4 != 0,
        repeat: info1 & 8 != 0,
        next_rip,
    }
}

const VALID: u64 = 1 << 31;
const HAS_ERROR: u64 = 1 << 11;

/// The event in EXITINTINFO, if the exit cut one short (APM Vol. 2, 15.7.2).
pub fn interrupted(info: u64) -> Option<Event> {
    if info & VALID == 0 {
        return None;
    }
    let vector = info as u8;
    let kind = match (info >> 8) & 7 {
        0 => EventKind::Interrupt,
        2 => EventKind::Nmi,
        // INT3 and INTO arrive as exceptions 3 and 4; RIP is still theirs.
        3 if matches!(vector, 3 | 4) => EventKind::SoftwareException,
        3 => EventKind::Exception,
        _ => EventKind::SoftwareInterrupt,
    };
    Some(Event {
        kind,
        vector,
        error_code: (info & HAS_ERROR != 0).then_some((info >> 32) as u32),
    })
}

/// EVENTINJ for `event` (APM Vol. 2, 15.20). Software events are never
/// injected: RIP stands at their instruction, which raises them again.
pub fn injection(event: Event) -> u64 {
    let kind: u64 = match event.kind {
        EventKind::Interrupt => 0,
        EventKind::Nmi => 2,
        EventKind::Exception => 3,
        EventKind::SoftwareInterrupt | EventKind::SoftwareException => return 0,
    };
    let error = match event.error_code {
        Some(error_code) => HAS_ERROR | u64::from(error_code) << 32,
        None => 0,
    };
    VALID | kind << 8 | u64::from(event.vector) | error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_survives_injection_and_interruption() {
        for event in [
            Event::interrupt(0x81),
            Event::GENERAL_PROTECTION,
            Event::INVALID_OPCODE,
            Event::exception(14, Some(0x17)),
        ] {
            assert_eq!(interrupted(injection(event)), Some(event));
        }
        assert_eq!(interrupted(0x0000_0e00_0000_030d), None);
    }

    #[test]
    fn a_breakpoint_cut_short_is_raised_by_its_instruction_again() {
        let event = interrupted(VALID | 3 << 8 | 3).unwrap();
        assert_eq!(event.kind, EventKind::SoftwareException);
        assert_eq!(injection(event), 0);
    }

    #[test]
    fn io_widths_and_directions() {
        let out_byte = io(0x3f8 << 16 | 1 << 4, 7);
        assert_eq!((out_byte.port, out_byte.width), (0x3f8, 1));
        assert!(!out_byte.input && !out_byte.string);
        let rep_insd = io(0x60 << 16 | 1 << 6 | 8 | 4 | 1, 7);
        assert!(rep_insd.input && rep_insd.string && rep_insd.repeat);
        assert_eq!(rep_insd.width, 4);
    }
}
