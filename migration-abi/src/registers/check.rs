//! Whether a register record is well-formed: reserved fields zero, enumerations
//! known, narrow fields narrow. Whether a CPU may be in this state (CR0 against
//! EFER, canonical addresses) is the hypervisor's to judge.

use core::mem::offset_of;

use super::{
    Activity, DescriptorTable, EVENTS, EventKind, PendingEvent, SHADOW_MOV_SS, Segment,
    VcpuRegisters, attributes,
};
use crate::error::{Allowed, ParseError, Rule};
use crate::mutants::rule;

impl VcpuRegisters {
    /// The eight segment registers with their offsets in the record.
    #[must_use]
    pub const fn segments(&self) -> [(usize, &Segment); 8] {
        [
            (offset_of!(Self, es), &self.es),
            (offset_of!(Self, cs), &self.cs),
            (offset_of!(Self, ss), &self.ss),
            (offset_of!(Self, ds), &self.ds),
            (offset_of!(Self, fs), &self.fs),
            (offset_of!(Self, gs), &self.gs),
            (offset_of!(Self, ldtr), &self.ldtr),
            (offset_of!(Self, tr), &self.tr),
        ]
    }

    /// Whether the record is well-formed: reserved fields zero, enumerations
    /// known, narrow fields narrow. Whether a CPU may be in this state (CR0
    /// against EFER, canonical addresses) is the hypervisor's to judge.
    pub fn check(&self) -> Result<(), ParseError> {
        use Allowed::{AtMost, Bits, Exactly};
        let stop = |rule, offset, seen, allowed| Err(ParseError::new(rule, offset, seen, allowed));

        for (offset, segment) in self.segments() {
            segment.check().map_err(|error| error.within(offset))?;
        }
        for (offset, table) in [
            (offset_of!(Self, gdtr), &self.gdtr),
            (offset_of!(Self, idtr), &self.idtr),
        ] {
            table.check().map_err(|error| error.within(offset))?;
        }
        if rule!("task-priority") && self.cr8 > 15 {
            return stop(
                Rule::TaskPriority,
                offset_of!(Self, cr8),
                self.cr8,
                AtMost(15),
            );
        }
        self.pending_event
            .check()
            .map_err(|error| error.within(offset_of!(Self, pending_event)))?;
        if rule!("interrupt-shadow") && self.interrupt_shadow > SHADOW_MOV_SS {
            let seen = u64::from(self.interrupt_shadow);
            return stop(
                Rule::InterruptShadow,
                offset_of!(Self, interrupt_shadow),
                seen,
                AtMost(2),
            );
        }
        if rule!("nmi-blocked") && self.nmi_blocked > 1 {
            return stop(
                Rule::NmiBlocked,
                offset_of!(Self, nmi_blocked),
                u64::from(self.nmi_blocked),
                AtMost(1),
            );
        }
        if rule!("activity") && Activity::from_code(self.activity).is_none() {
            return stop(
                Rule::Activity,
                offset_of!(Self, activity),
                u64::from(self.activity),
                AtMost(3),
            );
        }
        for (index, &byte) in self.reserved.iter().enumerate() {
            if rule!("registers-reserved") && byte != 0 {
                let offset = offset_of!(Self, reserved) + index;
                return stop(Rule::RegistersReserved, offset, u64::from(byte), Exactly(0));
            }
        }
        for (index, &vector) in self.event_vectors.iter().enumerate() {
            if rule!("paravirtual-vector") && (1..32).contains(&vector) {
                let words = Allowed::Words("0, or 0x20 to 0xff");
                let offset = offset_of!(Self, event_vectors) + index;
                return stop(Rule::ParavirtualVector, offset, u64::from(vector), words);
            }
        }
        if rule!("paravirtual-pending") && self.pending_events >= 1 << EVENTS {
            let offset = offset_of!(Self, pending_events);
            return stop(
                Rule::ParavirtualPending,
                offset,
                self.pending_events,
                Bits((1 << EVENTS) - 1),
            );
        }
        Ok(())
    }
}

impl Segment {
    fn check(&self) -> Result<(), ParseError> {
        let reserved = [
            (offset_of!(Self, reserved), u64::from(self.reserved)),
            (offset_of!(Self, reserved2), u64::from(self.reserved2)),
        ];
        for (offset, seen) in reserved {
            if rule!("registers-reserved") && seen != 0 {
                return Err(ParseError::new(
                    Rule::RegistersReserved,
                    offset,
                    seen,
                    Allowed::Exactly(0),
                ));
            }
        }
        if rule!("segment-attributes") && self.attributes & !attributes::ALL != 0 {
            return Err(ParseError::new(
                Rule::SegmentAttributes,
                offset_of!(Self, attributes),
                u64::from(self.attributes),
                Allowed::Bits(attributes::ALL as u64),
            ));
        }
        Ok(())
    }
}

impl DescriptorTable {
    fn check(&self) -> Result<(), ParseError> {
        if rule!("table-limit") && self.limit > 0xffff {
            let (offset, seen) = (offset_of!(Self, limit), u64::from(self.limit));
            return Err(ParseError::new(
                Rule::TableLimit,
                offset,
                seen,
                Allowed::AtMost(0xffff),
            ));
        }
        if rule!("registers-reserved") && self.reserved != 0 {
            let (offset, seen) = (offset_of!(Self, reserved), u64::from(self.reserved));
            return Err(ParseError::new(
                Rule::RegistersReserved,
                offset,
                seen,
                Allowed::Exactly(0),
            ));
        }
        Ok(())
    }
}

impl PendingEvent {
    fn check(&self) -> Result<(), ParseError> {
        use Allowed::{AtMost, Between, Exactly, Words};
        let stop = |rule, offset, seen, allowed| Err(ParseError::new(rule, offset, seen, allowed));

        let known = self.event_kind();
        let Some(kind) = known.or((!rule!("event-kind")).then_some(EventKind::Interrupt)) else {
            let known = Words("0 to 5, with or without 0x80");
            return stop(
                Rule::EventKind,
                offset_of!(Self, kind),
                u64::from(self.kind),
                known,
            );
        };
        // "No event, interrupted in delivery" contradicts itself, and old bytes
        // behind a "none" would make two records of one state differ.
        if kind == EventKind::None {
            return if !rule!("event-residue") || *self == Self::NONE {
                Ok(())
            } else {
                let seen = u64::from_le_bytes(zerocopy::transmute!(*self));
                stop(Rule::EventResidue, offset_of!(Self, kind), seen, Exactly(0))
            };
        }
        let vectors = match kind {
            EventKind::Nmi => Exactly(2),
            EventKind::Exception | EventKind::SoftwareException => AtMost(31),
            // INT n takes any vector, and a guest that programs its interrupt
            // source badly is delivered what it asked for.
            EventKind::None | EventKind::Interrupt | EventKind::SoftwareInterrupt => AtMost(255),
        };
        let fits = match vectors {
            Exactly(value) => u64::from(self.vector) == value,
            AtMost(value) => u64::from(self.vector) <= value,
            _ => true,
        };
        if rule!("event-vector") && !fits {
            return stop(
                Rule::EventVector,
                offset_of!(Self, vector),
                u64::from(self.vector),
                vectors,
            );
        }
        let may_have_error = u8::from(kind == EventKind::Exception);
        if rule!("event-error") && self.has_error > may_have_error {
            let allowed = AtMost(u64::from(may_have_error));
            return stop(
                Rule::EventError,
                offset_of!(Self, has_error),
                u64::from(self.has_error),
                allowed,
            );
        }
        if rule!("event-error") && self.has_error == 0 && self.error_code != 0 {
            return stop(
                Rule::EventError,
                offset_of!(Self, error_code),
                u64::from(self.error_code),
                Exactly(0),
            );
        }
        let software = matches!(
            kind,
            EventKind::SoftwareInterrupt | EventKind::SoftwareException
        );
        let lengths = if software { 1..=15 } else { 0..=0 };
        if rule!("event-length") && !lengths.contains(&self.insn_len) {
            let allowed = Between(u64::from(*lengths.start()), u64::from(*lengths.end()));
            return stop(
                Rule::EventLength,
                offset_of!(Self, insn_len),
                u64::from(self.insn_len),
                allowed,
            );
        }
        Ok(())
    }
}
