//! Each rule of the register record, by its name.

use super::*;
use crate::testing::{DATA, Guest, PAGES, segment};
use migration_abi::registers::{EventKind as Kind, NONE};

/// A guest in 64-bit mode, whose record is legal.
fn guest() -> (Guest, VcpuRegisters) {
    let guest = Guest::new("host:pku=0");
    let record = guest.registers();
    (guest, record)
}

fn take(guest: &Guest, record: &VcpuRegisters) -> Result<(), RecordError> {
    import(&mut guest.vcpu(), record, &guest.domain.memory, 0)
}

const fn pending(kind: Kind, vector: u8, has_error: u8) -> PendingEvent {
    PendingEvent {
        kind: kind as u8,
        vector,
        has_error,
        insn_len: 0,
        error_code: 0,
    }
}

#[test]
fn every_rule_refuses_by_its_name_and_changes_nothing() {
    type Break = fn(&mut VcpuRegisters);
    let rules: &[(&str, &[Break])] = &[
        (
            "record-form",
            &[
                |r| r.cr8 = 16,
                |r| r.reserved[4] = 1,
                |r| r.cs.attributes = 1 << 17,
                |r| r.gdtr.limit = 0x1_0000,
                |r| r.pending_event = pending(Kind::Nmi, 3, 0),
                |r| r.pending_event.kind = 6,
                |r| r.event_vectors[7] = 31,
                |r| r.pending_events = 1 << 8,
            ],
        ),
        (
            "record-cr0",
            &[
                |r| r.cr0 |= 1 << 32,
                |r| r.cr0 |= 1 << 6,
                |r| r.cr0 &= !cr::CR0_PE,
                |r| r.cr0 |= cr::CR0_NW,
            ],
        ),
        (
            "record-cr4",
            // VMXE; PKE, which this policy lacks.
            &[|r| r.cr4 |= 1 << 13, |r| r.cr4 |= cr::CR4_PKE],
        ),
        (
            "record-efer",
            &[
                |r| r.efer |= 1 << 12,
                |r| r.efer &= !cr::EFER_LMA,
                |r| r.efer &= !cr::EFER_LME,
                |r| (r.cr0, r.efer) = (0x11, cr::EFER_LME | cr::EFER_LMA),
            ],
        ),
        (
            "record-mode",
            &[
                |r| r.cr4 &= !cr::CR4_PAE,
                |r| r.cs.attributes |= attributes::DB,
                // Virtual-8086 mode without protection.
                |r| (r.cr0, r.efer, r.rflags) = (0x10, 0, 2 | 1 << 17),
            ],
        ),
        ("record-cr3", &[|r| r.cr3 |= 1 << 52]),
        (
            "record-rflags",
            &[|r| r.rflags = 0, |r| r.rflags |= 8, |r| r.rflags |= 1 << 22],
        ),
        (
            "record-canonical",
            &[
                |r| r.fs.base = 1 << 47,
                |r| r.gs.base = 1 << 63,
                |r| r.kernel_gs_base = 1 << 48,
                |r| r.lstar = 1 << 56,
                |r| r.cstar = 1 << 56,
                |r| r.sysenter_esp = 1 << 60,
                |r| r.sysenter_eip = 1 << 60,
                |r| r.gdtr.base = 1 << 47,
                |r| r.idtr.base = 1 << 47,
                |r| r.ldtr.base = 1 << 47,
                |r| r.tr.base = 1 << 47,
            ],
        ),
        (
            "record-debug-registers",
            &[|r| r.dr6 |= 1 << 32, |r| r.dr7 |= 1 << 63],
        ),
        (
            "record-pat",
            &[|r| r.pat = 2, |r| r.pat = 0x0800_0000_0000_0000],
        ),
        (
            "record-not-offered",
            &[
                |r| r.s_cet = 1,
                |r| r.ssp = 8,
                |r| r.isst = 8,
                |r| r.debugctl = 1,
            ],
        ),
        ("record-tsc-aux", &[|r| r.tsc_aux = 1 << 32]),
        // Waiting for a SIPI; shut down.
        ("record-activity", &[|r| r.activity = 2, |r| r.activity = 3]),
        (
            "record-event",
            &[
                // #UD with an error code, #GP without.
                |r| r.pending_event = pending(Kind::Exception, 6, 1),
                |r| r.pending_event = pending(Kind::Exception, 13, 0),
            ],
        ),
        (
            "record-clock-page",
            &[
                |r| r.clock_page_gpa = DATA + 4,
                |r| r.clock_page_gpa = DATA + 0xfe8,
                |r| r.clock_page_gpa = PAGES * 4096,
                |r| r.clock_page_gpa = u64::MAX - 7,
            ],
        ),
    ];
    let (guest, legal) = guest();
    assert_eq!(take(&guest, &legal), Ok(()));
    for (name, breaks) in rules {
        for (index, change) in breaks.iter().enumerate() {
            let mut record = legal;
            // What would be seen if some of it were taken.
            (record.gpr[3], record.rip, record.dr0) = (0xbad, 0xbad, 0xbad);
            change(&mut record);
            let refused = take(&guest, &record);
            let rule = refused.map_err(|error| error.rule());
            assert_eq!(rule, Err(*name), "{name} {index}");
            assert!(guest.registers() == legal, "{name} {index}");
        }
    }
}

#[test]
fn numbers_of_rules_are_the_same_for_ever() {
    let (guest, mut record) = guest();
    record.tsc_aux = u64::MAX;
    let error = take(&guest, &record).unwrap_err();
    assert_eq!((error.code(), error.seen), (11, u64::MAX));
    assert_eq!(error.allowed, u64::from(u32::MAX));
    record.tsc_aux = 0;
    record.cr3 = 1 << 60;
    assert_eq!(take(&guest, &record).unwrap_err().code(), 16);
}

#[test]
fn what_is_legal_in_other_modes_is_taken() {
    let (guest, legal) = guest();
    let modes: [fn(&mut VcpuRegisters); 4] = [
        // Real mode, as after INIT.
        |r| *r = init(0),
        // 32-bit code, paging as ever it was.
        |r| {
            (r.cr0, r.cr4, r.efer) = (0x8000_0011, 0, 0);
            r.cs = segment(0xc09b);
        },
        // Compatibility mode.
        |r| r.cs = segment(0xc0fb),
        // LME waits for paging.
        |r| (r.cr0, r.efer) = (0x11, cr::EFER_LME),
    ];
    for (index, mode) in modes.into_iter().enumerate() {
        let mut record = legal;
        mode(&mut record);
        assert_eq!(take(&guest, &record), Ok(()), "{index}");
        let mut back = guest.registers();
        back.tsc = record.tsc;
        assert!(back == record, "{index}");
    }
}

#[test]
fn events_are_kept_but_those_that_their_instruction_raises_again() {
    let (guest, legal) = guest();
    for (event, expected) in [
        (
            pending(Kind::Interrupt, 0x51, 0),
            Some(Event::interrupt(0x51)),
        ),
        (
            pending(Kind::Exception, 13, 1),
            Some(Event::GENERAL_PROTECTION),
        ),
        (pending(Kind::Exception, 6, 0), Some(Event::INVALID_OPCODE)),
        (pending(Kind::SoftwareInterrupt, 0x80, 0), None),
        (PendingEvent::NONE, None),
    ] {
        let mut record = legal;
        record.pending_event = event;
        if event.kind == Kind::SoftwareInterrupt as u8 {
            record.pending_event.insn_len = 2;
        }
        assert_eq!(take(&guest, &record), Ok(()), "{event:?}");
        assert_eq!(guest.event(), expected);
    }
}

#[test]
fn the_tsc_goes_on_where_the_record_left_it() {
    let (guest, mut record) = guest();
    record.tsc = 1_000_000;
    let memory = &guest.domain.memory;
    assert_eq!(import(&mut guest.vcpu(), &record, memory, 5_000), Ok(()));
    assert_eq!(export(&guest.vcpu(), 5_000).tsc, 1_000_000);
    assert_eq!(export(&guest.vcpu(), 5_300).tsc, 1_000_300);
}

#[test]
fn a_clock_page_that_comes_with_a_record_is_published() {
    let (guest, mut record) = guest();
    record.clock_page_gpa = DATA;
    assert_eq!(take(&guest, &record), Ok(()));
    assert_eq!(guest.take(DATA, 4), [2, 0, 0, 0]);
    record.clock_page_gpa = NONE;
    assert_eq!(take(&guest, &record), Ok(()));
    assert_eq!(guest.vcpu().clock_page, None);
    assert_eq!(guest.take(DATA, 4), [2, 0, 0, 0]);
}

#[test]
fn a_policy_is_held_against_the_registers() {
    let (guest, _) = guest();
    let host = &crate::testing::host().policy;
    assert_eq!(check_policy(&guest.vcpu(), host), Ok(()));
    guest.change(|r| r.efer |= 1);
    for (config, expected) in [
        ("host:syscall=0", "record-efer"),
        ("host:pae=0", "record-cr4"),
    ] {
        let Ok(policy) = host.with_config(config) else {
            continue;
        };
        let refused = check_policy(&guest.vcpu(), &policy);
        assert_eq!(refused.map_err(|error| error.rule()), Err(expected));
    }
}

/// A guest between two looks at the version found the same one before and
/// after a move, and mixed two pages' numbers.
#[test]
fn the_clock_pages_version_changes_with_a_move() {
    let (guest, mut record) = guest();
    record.clock_page_gpa = DATA;
    for written_at_the_source in [2u32, 6, u32::MAX - 1] {
        let at = GuestPhys::new(DATA);
        let version = written_at_the_source.to_le_bytes();
        guest.domain.memory.write(at, &version).unwrap();
        guest.vcpu().clock_version = 0;
        take(&guest, &record).unwrap();
        let mut now = [0; 4];
        guest.domain.memory.read(at, &mut now).unwrap();
        let now = u32::from_le_bytes(now);
        assert_ne!(now, written_at_the_source);
        assert_eq!(now % 2, 0);
    }
}
