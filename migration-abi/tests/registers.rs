//! The register record: its golden file, and every rule of its check.

mod samples;

use core::mem::offset_of;

use migration_abi::registers::{
    EventKind, INTERRUPTED_DELIVERY, PendingEvent, REGISTERS_BYTES, VcpuRegisters, attributes,
};
use migration_abi::{ParseError, Rule};
use proptest::prelude::*;
use samples::registers;
use zerocopy::IntoBytes;

#[test]
fn golden_v1_reads_for_ever() {
    let golden = samples::golden("registers-v1.bin", registers().as_bytes());
    assert_eq!(VcpuRegisters::parse(&golden), Ok(registers()));
    assert_eq!(golden, registers().as_bytes());
    // The table in the book, without this crate's structs.
    let u64_at = |at: usize| u64::from_le_bytes(golden[at..at + 8].try_into().expect("8 bytes"));
    assert_eq!(u64_at(8), 0x0101_0101_0101_0101, "rcx");
    assert_eq!(u64_at(128), 0xffff_ffff_8100_0000, "rip");
    assert_eq!(u64_at(184), 0xd01, "efer");
    assert_eq!(golden[240 + 24 + 12..][..2], [8, 0], "cs selector");
    assert_eq!(u64_at(528), 0x0007_0406_0007_0406, "pat");
    assert_eq!(golden[584..588], [0x83, 14, 1, 0], "pending event");
    assert_eq!(u64_at(608), 0x7000, "clock page");
}

#[test]
fn zero_is_legal_and_lengths_are_exact() {
    assert_eq!(VcpuRegisters::default().check(), Ok(()));
    let bytes = [registers().as_bytes(), &[0]].concat();
    for length in (0..=REGISTERS_BYTES + 1).filter(|&length| length != REGISTERS_BYTES) {
        let error = VcpuRegisters::parse(&bytes[..length]).expect_err("wrong length");
        assert_eq!(
            (error.rule, error.seen),
            (Rule::RegistersLength, length as u64)
        );
    }
}

fn refused(edit: impl FnOnce(&mut VcpuRegisters)) -> ParseError {
    let mut record = registers();
    edit(&mut record);
    record.check().expect_err("must be refused")
}

#[test]
fn every_rule_by_name_and_place() {
    use VcpuRegisters as V;
    type Edit = fn(&mut V);
    let cases: [(Edit, Rule, usize); 14] = [
        (
            |r| r.es.reserved = 1,
            Rule::RegistersReserved,
            offset_of!(V, es) + 14,
        ),
        (
            |r| r.tr.reserved2 = 1,
            Rule::RegistersReserved,
            offset_of!(V, tr) + 20,
        ),
        (
            |r| r.cs.attributes |= 1 << 8,
            Rule::SegmentAttributes,
            offset_of!(V, cs) + 16,
        ),
        (
            |r| r.ss.attributes |= 1 << 17,
            Rule::SegmentAttributes,
            offset_of!(V, ss) + 16,
        ),
        (
            |r| r.gdtr.limit = 0x1_0000,
            Rule::TableLimit,
            offset_of!(V, gdtr) + 8,
        ),
        (
            |r| r.idtr.reserved = 1,
            Rule::RegistersReserved,
            offset_of!(V, idtr) + 12,
        ),
        (|r| r.cr8 = 16, Rule::TaskPriority, offset_of!(V, cr8)),
        (
            |r| r.interrupt_shadow = 3,
            Rule::InterruptShadow,
            offset_of!(V, interrupt_shadow),
        ),
        (
            |r| r.nmi_blocked = 2,
            Rule::NmiBlocked,
            offset_of!(V, nmi_blocked),
        ),
        (|r| r.activity = 4, Rule::Activity, offset_of!(V, activity)),
        (
            |r| r.reserved[4] = 1,
            Rule::RegistersReserved,
            offset_of!(V, reserved) + 4,
        ),
        (
            |r| r.event_vectors[7] = 31,
            Rule::ParavirtualVector,
            offset_of!(V, event_vectors) + 7,
        ),
        (
            |r| r.event_vectors[0] = 1,
            Rule::ParavirtualVector,
            offset_of!(V, event_vectors),
        ),
        (
            |r| r.pending_events = 0x100,
            Rule::ParavirtualPending,
            offset_of!(V, pending_events),
        ),
    ];
    for (index, (edit, rule, offset)) in cases.into_iter().enumerate() {
        let error = refused(edit);
        assert_eq!(
            (error.rule, error.offset),
            (rule, offset),
            "case {index}: {error}"
        );
    }
    // All that is legal of what was just refused.
    let mut record = registers();
    record.cs.attributes = attributes::ALL;
    record.gdtr.limit = 0xffff;
    record.cr8 = 15;
    record.interrupt_shadow = 2;
    record.activity = 3;
    record.event_vectors = [0, 32, 255, 0, 0, 0, 0, 0];
    record.pending_events = 0xff;
    assert_eq!(record.check(), Ok(()));
}

#[test]
fn pending_events_that_can_and_cannot_be() {
    let event = |kind: EventKind, vector, has_error, insn_len, error_code| PendingEvent {
        kind: kind as u8,
        vector,
        has_error,
        insn_len,
        error_code,
    };
    use EventKind as K;
    let verdict = |pending: PendingEvent| {
        let mut record = registers();
        record.pending_event = pending;
        record.check().map_err(|error| error.rule)
    };
    for (pending, expected) in [
        (event(K::None, 0, 0, 0, 0), Ok(())),
        (event(K::None, 1, 0, 0, 0), Err(Rule::EventResidue)),
        (
            PendingEvent {
                kind: INTERRUPTED_DELIVERY,
                ..PendingEvent::NONE
            },
            Err(Rule::EventResidue),
        ),
        (
            PendingEvent {
                kind: 6,
                ..PendingEvent::NONE
            },
            Err(Rule::EventKind),
        ),
        (
            PendingEvent {
                kind: 0x43,
                ..PendingEvent::NONE
            },
            Err(Rule::EventKind),
        ),
        (event(K::Interrupt, 255, 0, 0, 0), Ok(())),
        (event(K::Interrupt, 255, 0, 1, 0), Err(Rule::EventLength)),
        (event(K::Interrupt, 255, 1, 0, 0), Err(Rule::EventError)),
        (event(K::Nmi, 2, 0, 0, 0), Ok(())),
        (event(K::Nmi, 3, 0, 0, 0), Err(Rule::EventVector)),
        (event(K::Exception, 14, 1, 0, 7), Ok(())),
        (event(K::Exception, 14, 2, 0, 7), Err(Rule::EventError)),
        (event(K::Exception, 14, 0, 0, 7), Err(Rule::EventError)),
        (event(K::Exception, 32, 0, 0, 0), Err(Rule::EventVector)),
        (event(K::SoftwareInterrupt, 0x80, 0, 2, 0), Ok(())),
        (
            event(K::SoftwareInterrupt, 0x80, 0, 0, 0),
            Err(Rule::EventLength),
        ),
        (event(K::SoftwareException, 3, 0, 15, 0), Ok(())),
        (
            event(K::SoftwareException, 3, 0, 16, 0),
            Err(Rule::EventLength),
        ),
        (
            event(K::SoftwareException, 3, 1, 1, 0),
            Err(Rule::EventError),
        ),
    ] {
        assert_eq!(verdict(pending), expected, "{pending:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), REGISTERS_BYTES)) {
        if let Ok(record) = VcpuRegisters::parse(&bytes) {
            prop_assert_eq!(record.as_bytes(), &bytes[..]);
        }
    }

    /// Whatever the wide fields hold, they come back.
    #[test]
    fn wide_fields_round_trip(values in any::<[u64; 20]>()) {
        let mut record = registers();
        record.gpr.copy_from_slice(&values[..16]);
        [record.rip, record.cr2, record.tsc, record.ssp] = [values[16], values[17], values[18], values[19]];
        prop_assert_eq!(VcpuRegisters::parse(record.as_bytes()), Ok(record));
    }
}
