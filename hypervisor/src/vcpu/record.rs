//! A vCPU to and from the register record: what may be trusted of a record
//! that came from elsewhere, and the order in which it takes effect.

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;

use super::{Activity, Vcpu, clock};
use crate::domain::memory::GuestMemory;
use crate::exits::{cr, msr};
use crate::mm::addr::GuestPhys;
use crate::virt::{Backend, Event, EventKind, Register, gpr};
use core::fmt;
use migration_abi::registers::{
    self as wire, INTERRUPTED_DELIVERY, PendingEvent, VcpuRegisters, attributes,
};
use vcpu_xstate::policy::CpuPolicy;

/// A record that a vCPU cannot take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordError {
    rule: Rule,
    /// What stands there.
    pub seen: u64,
    /// What may.
    pub allowed: u64,
}

macro_rules! rules {
    ($($rule:ident = $code:literal, $name:literal;)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum Rule { $($rule),* }

        impl RecordError {
            /// The rule's number, the same for ever.
            #[must_use]
            pub const fn code(&self) -> u32 {
                match self.rule { $(Rule::$rule => $code),* }
            }

            /// The rule's name, the same for ever.
            #[must_use]
            pub const fn rule(&self) -> &'static str {
                match self.rule { $(Rule::$rule => $name),* }
            }
        }
    };
}

rules! {
    Form = 1, "record-form";
    Cr0 = 2, "record-cr0";
    Cr4 = 3, "record-cr4";
    Efer = 4, "record-efer";
    Mode = 5, "record-mode";
    Rflags = 6, "record-rflags";
    Canonical = 7, "record-canonical";
    Debug = 8, "record-debug-registers";
    Pat = 9, "record-pat";
    NotOffered = 10, "record-not-offered";
    TscAux = 11, "record-tsc-aux";
    Activity = 12, "record-activity";
    Event = 13, "record-event";
    Vector = 14, "record-event-vector";
    ClockPage = 15, "record-clock-page";
    Cr3 = 16, "record-cr3";
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: saw {:#x}, allowed {:#x}",
            self.rule(),
            self.seen,
            self.allowed
        )
    }
}

fn broken(rule: Rule, seen: u64, allowed: u64) -> RecordError {
    RecordError {
        rule,
        seen,
        allowed,
    }
}

/// A vCPU's record, when the host's TSC is `host_tsc`.
#[must_use]
pub fn export(vcpu: &Vcpu, host_tsc: u64) -> VcpuRegisters {
    let mut record = VcpuRegisters::ZERO;
    record.gpr = vcpu.gprs.0;
    vcpu.backend.export(&mut record);
    [record.dr0, record.dr1, record.dr2, record.dr3] = vcpu.live.breakpoints;
    record.tsc_aux = vcpu.live.tsc_aux;
    record.tsc = host_tsc.wrapping_add(vcpu.tsc_offset);
    record.pending_event = vcpu.events.recorded().map_or(PendingEvent::NONE, pending);
    record.nmi_blocked = u8::from(vcpu.nmi_blocked);
    record.pending_debug = vcpu.pending_debug;
    record.activity = match vcpu.activity {
        Activity::Running => wire::Activity::Running as u8,
        Activity::Halted => wire::Activity::Halted as u8,
    };
    record.clock_page_gpa = vcpu.clock_page.map_or(wire::NONE, GuestPhys::as_u64);
    record.timer_deadline_ns = vcpu.events.timer_deadline_ns;
    record.event_vectors = vcpu.events.vectors;
    record.pending_events = vcpu.events.pending;
    record
}

/// Makes the record the vCPU's registers, all of it or nothing.
///
/// # Errors
/// The first rule that it breaks.
pub fn import(
    vcpu: &mut Vcpu,
    record: &VcpuRegisters,
    memory: &GuestMemory,
    host_tsc: u64,
) -> Result<(), RecordError> {
    let event = check(record, &vcpu.policy, memory)?;
    vcpu.set_registers(record, host_tsc);
    vcpu.events.set_recorded(event);
    if let Some(at) = vcpu.clock_page {
        // The guest may be between two looks at the version: it has to change,
        // so it counts on from what stands in the page.
        let mut version = [0; 4];
        if memory.read(at, &mut version).is_ok() {
            vcpu.clock_version = u32::from_le_bytes(version);
        }
        vcpu.clock_version =
            clock::publish(memory, at, &vcpu.clock, vcpu.tsc_offset, vcpu.clock_version);
    }
    Ok(())
}

impl Vcpu {
    /// Takes every register of a record that has passed [`check`], or that is
    /// [`init`]'s.
    pub(super) fn set_registers(&mut self, record: &VcpuRegisters, host_tsc: u64) {
        self.gprs.0 = record.gpr;
        self.backend.import(record);
        self.live.breakpoints = [record.dr0, record.dr1, record.dr2, record.dr3];
        self.live.tsc_aux = record.tsc_aux;
        self.tsc_offset = record.tsc.wrapping_sub(host_tsc);
        self.backend.set_tsc_offset(self.tsc_offset);
        self.activity = if record.activity == wire::Activity::Halted as u8 {
            Activity::Halted
        } else {
            Activity::Running
        };
        self.events.timer_deadline_ns = record.timer_deadline_ns;
        self.events.vectors = record.event_vectors;
        self.events.pending = record.pending_events;
        self.nmi_blocked = record.nmi_blocked != 0;
        self.pending_debug = record.pending_debug;
        self.clock_page =
            (record.clock_page_gpa != wire::NONE).then_some(GuestPhys::new(record.clock_page_gpa));
    }
}

/// Whether a vCPU's registers are legal under another policy.
///
/// # Errors
/// The first that is not.
pub fn check_policy(vcpu: &Vcpu, policy: &CpuPolicy) -> Result<(), RecordError> {
    let read = |register| vcpu.backend.read(register);
    control_registers(
        read(Register::Cr0),
        read(Register::Cr3),
        read(Register::Cr4),
        read(Register::Efer),
        policy,
    )
}

fn control_registers(
    cr0: u64,
    cr3: u64,
    cr4: u64,
    efer: u64,
    policy: &CpuPolicy,
) -> Result<(), RecordError> {
    if !cr::cr0_is_legal(cr0) {
        return Err(broken(Rule::Cr0, cr0, cr::CR0_BITS));
    }
    if cr4 & !policy.cr4_allowed() != 0 {
        return Err(broken(Rule::Cr4, cr4, policy.cr4_allowed()));
    }
    let efer_bits = policy.efer_allowed() | cr::EFER_LMA;
    if efer & !efer_bits != 0 {
        return Err(broken(Rule::Efer, efer, efer_bits));
    }
    let paging = cr0 & cr::CR0_PG != 0;
    let long = efer & cr::EFER_LME != 0 && paging;
    if (efer & cr::EFER_LMA != 0) != long {
        return Err(broken(Rule::Efer, efer, efer ^ cr::EFER_LMA));
    }
    if long && cr4 & cr::CR4_PAE == 0 {
        return Err(broken(Rule::Mode, cr4, cr4 | cr::CR4_PAE));
    }
    let address = (1u64 << policy.physical_address_bits()) - 1;
    if long && cr3 & !address != 0 {
        return Err(broken(Rule::Cr3, cr3, address));
    }
    Ok(())
}

/// All rules of a record; gives the event that goes before the next
/// instruction.
fn check(
    record: &VcpuRegisters,
    policy: &CpuPolicy,
    memory: &GuestMemory,
) -> Result<Option<Event>, RecordError> {
    record
        .check()
        .map_err(|error| broken(Rule::Form, error.seen, 0))?;
    control_registers(record.cr0, record.cr3, record.cr4, record.efer, policy)?;

    // RFLAGS: bit 1 is one, bits 3, 5, 15 and 22 on are zero (SDM Vol. 1, 3.4.3).
    const RFLAGS: u64 = 0x003f_7fd7;
    if record.rflags & !RFLAGS != 0 || record.rflags & 2 == 0 {
        return Err(broken(Rule::Rflags, record.rflags, RFLAGS));
    }
    if record.cr0 & cr::CR0_PE == 0 && record.rflags & (1 << 17) != 0 {
        return Err(broken(Rule::Mode, record.rflags, RFLAGS & !(1 << 17)));
    }
    // A code segment cannot be 64-bit and 32-bit at once (APM Vol. 2, 15.5.1).
    let code = record.cs.attributes;
    if record.efer & cr::EFER_LMA != 0 && code & attributes::LONG != 0 && code & attributes::DB != 0
    {
        return Err(broken(
            Rule::Mode,
            u64::from(code),
            u64::from(code & !attributes::DB),
        ));
    }
    let bits = policy.linear_address_bits();
    for address in [
        record.kernel_gs_base,
        record.lstar,
        record.cstar,
        record.sysenter_esp,
        record.sysenter_eip,
        record.fs.base,
        record.gs.base,
        record.gdtr.base,
        record.idtr.base,
        record.ldtr.base,
        record.tr.base,
    ] {
        if !msr::is_canonical(address, bits) {
            return Err(broken(Rule::Canonical, address, (1u64 << (bits - 1)) - 1));
        }
    }
    for debug in [record.dr6, record.dr7] {
        if debug >> 32 != 0 {
            return Err(broken(Rule::Debug, debug, u64::from(u32::MAX)));
        }
    }
    if !msr::pat_is_legal(record.pat) {
        return Err(broken(Rule::Pat, record.pat, 0x0707_0707_0707_0707));
    }
    // Shadow stacks are not offered yet, nor is anything of DEBUGCTL.
    for value in [record.s_cet, record.ssp, record.isst, record.debugctl] {
        if value != 0 {
            return Err(broken(Rule::NotOffered, value, 0));
        }
    }
    if record.tsc_aux >> 32 != 0 {
        return Err(broken(Rule::TscAux, record.tsc_aux, u64::from(u32::MAX)));
    }
    if record.activity > wire::Activity::Halted as u8 {
        return Err(broken(Rule::Activity, u64::from(record.activity), 1));
    }
    for vector in record.event_vectors {
        if matches!(vector, 1..=31) {
            return Err(broken(Rule::Vector, u64::from(vector), 255));
        }
    }
    if record.clock_page_gpa != wire::NONE {
        let at = GuestPhys::new(record.clock_page_gpa);
        let bytes = size_of::<xferry_abi::ClockPage>() as u64;
        if !clock::placed(at) || memory.check(at, bytes).is_err() {
            return Err(broken(
                Rule::ClockPage,
                record.clock_page_gpa,
                memory.pages() * 4096 - bytes,
            ));
        }
    }
    event(&record.pending_event)
}

/// The record's form of an event.
fn pending(event: Event) -> PendingEvent {
    let kind = match event.kind {
        EventKind::Interrupt => wire::EventKind::Interrupt,
        EventKind::Nmi => wire::EventKind::Nmi,
        EventKind::Exception => wire::EventKind::Exception,
        EventKind::SoftwareInterrupt => wire::EventKind::SoftwareInterrupt,
        EventKind::SoftwareException => wire::EventKind::SoftwareException,
    };
    PendingEvent {
        kind: kind as u8 | INTERRUPTED_DELIVERY,
        vector: event.vector,
        has_error: u8::from(event.error_code.is_some()),
        insn_len: 0,
        error_code: event.error_code.unwrap_or(0),
    }
}

/// The same backwards. A software event is left to its instruction, as SVM
/// leaves it: RIP stands there.
fn event(pending: &PendingEvent) -> Result<Option<Event>, RecordError> {
    let unknown = || broken(Rule::Event, u64::from(pending.kind), 5);
    let kind = match pending.event_kind().ok_or_else(unknown)? {
        wire::EventKind::None
        | wire::EventKind::SoftwareInterrupt
        | wire::EventKind::SoftwareException => return Ok(None),
        wire::EventKind::Interrupt => EventKind::Interrupt,
        wire::EventKind::Nmi => EventKind::Nmi,
        wire::EventKind::Exception => EventKind::Exception,
    };
    let legal = match kind {
        EventKind::Nmi => pending.vector == 2 && pending.has_error == 0,
        EventKind::Exception => {
            pending.vector < 32 && (pending.has_error != 0) == pushes_error_code(pending.vector)
        }
        _ => pending.has_error == 0,
    };
    if !legal {
        return Err(broken(Rule::Event, u64::from(pending.vector), 31));
    }
    Ok(Some(Event {
        kind,
        vector: pending.vector,
        error_code: (pending.has_error != 0).then_some(pending.error_code),
    }))
}

/// SDM Vol. 3A, 7.15, Table "Protected-Mode Exceptions and Interrupts".
const fn pushes_error_code(vector: u8) -> bool {
    matches!(vector, 8 | 10..=14 | 17 | 21)
}

/// A vCPU after INIT (SDM Vol. 3A, Table "IA-32 and Intel 64 Processor States
/// Following Power-up, Reset, or INIT").
#[must_use]
pub fn init(processor_signature: u32) -> VcpuRegisters {
    let data = wire::Segment {
        limit: 0xffff,
        attributes: 0x93,
        ..wire::Segment::ZERO
    };
    let system = |attributes| wire::Segment { attributes, ..data };
    let mut record = VcpuRegisters::ZERO;
    record.gpr[gpr::RDX] = u64::from(processor_signature);
    record.rip = 0xfff0;
    record.rflags = 2;
    record.cr0 = 0x6000_0010;
    record.dr6 = 0xffff_0ff0;
    record.dr7 = 0x400;
    record.cs = wire::Segment {
        base: 0xffff_0000,
        selector: 0xf000,
        ..system(0x9b)
    };
    record.ds = data;
    record.es = data;
    record.fs = data;
    record.gs = data;
    record.ss = data;
    record.ldtr = system(0x82);
    record.tr = system(0x8b);
    record.gdtr.limit = 0xffff;
    record.idtr.limit = 0xffff;
    record.pat = 0x0007_0406_0007_0406;
    record
}
