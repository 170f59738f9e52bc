//! The stream: every rule by name, and what a writer refuses to write.

mod samples;

use migration_abi::Rule;
use migration_abi::handover::{Body, Message, Status};
use migration_abi::stream::{
    Console, End, FrameHeader, Pages, RecordType, RegistersRecord, Uart, Writer, XstateRecord,
    frame,
};
use samples::wire::{frames, rebuilt, receive, stopped};
use samples::{id, registers, stream};

/// Edits a payload, seals it as a man in the middle does, and names the rule that stops it.
fn edited(record: RecordType, edit: impl Fn(&mut Vec<u8>)) -> Rule {
    let mut all = frames(&stream());
    let found = all
        .iter_mut()
        .rfind(|(header, _)| header.record == record.code())
        .expect("in the stream");
    edit(&mut found.1);
    stopped(&rebuilt(&all))
}

#[test]
fn every_rule_by_name() {
    use RecordType as T;
    for (record, at, value, rule) in [
        (T::Hello, 0, 2, Rule::HandoverVersion),
        (T::Hello, 2, 1, Rule::RecordReserved),
        (T::Hello, 24, 3, Rule::HandoverRole),
        (T::Header, 0, 0, Rule::StreamMagic),
        (T::Header, 8, 2, Rule::StreamVersion),
        (T::Header, 10, 47, Rule::RecordLength),
        (T::Header, 13, 0x20, Rule::StreamPageSize),
        (T::Header, 20, 1, Rule::StreamIncompatible),
        (T::Header, 24, 0x31, Rule::MigrationIdOther),
        (T::Domain, 16, 7, Rule::DomainName),
        (T::Domain, 40, b'x', Rule::DomainName),
        (T::Domain, 55, 1, Rule::DomainMemory),
        (T::Domain, 74, 1, Rule::DomainVcpus),
        (T::Domain, 80, 3, Rule::RecordLength),
        (T::Domain, 80, 0, Rule::DomainLeaves),
        (T::Domain, 81, 1, Rule::DomainLeaves),
        (T::Domain, 84, 2, Rule::RecordReserved),
        (T::Pages, 0, 68, Rule::PagesOrder),
        (T::Pages, 6, 1, Rule::PagesRange),
        (T::Pages, 8, 2, Rule::RecordLength),
        (T::Pages, 8, 0, Rule::PagesCount),
        (T::Pages, 8, 65, Rule::PagesCount),
        (T::Pages, 12, 1, Rule::RecordReserved),
        (T::ZeroPages, 0, 1, Rule::PagesOrder),
        (T::ZeroPages, 8, 0, Rule::PagesCount),
        (T::ZeroPages, 8, 69, Rule::PagesBeyond),
        (T::ZeroPages, 14, 1, Rule::PagesCount),
        (T::Console, 7, 1, Rule::RecordReserved),
        (T::Console, 8, 9, Rule::RecordLength),
        (T::Console, 9, 0x11, Rule::ConsoleOutput),
        (T::VcpuRegisters, 0, 0, Rule::VcpuOrder),
        (T::VcpuRegisters, 4, 2, Rule::RegistersVersion),
        (T::VcpuRegisters, 6, 0, Rule::RegistersLength),
        (T::VcpuRegisters, 8 + 594, 4, Rule::Activity),
        (T::VcpuXstate, 0, 7, Rule::VcpuOrder),
        (T::VcpuXstate, 4, 1, Rule::RecordReserved),
        (T::VcpuXstate, 8, 0, Rule::BlobMagic),
        (T::VcpuXstate, 8 + 300, 9, Rule::BlobCrc),
        (T::End, 0, 4, Rule::EndCounts),
        (T::End, 8, 4, Rule::EndCounts),
        (T::End, 16, 4, Rule::EndCounts),
        (T::End, 20, 4, Rule::RecordReserved),
    ] {
        assert_eq!(
            edited(record, |payload| payload[at] = value),
            rule,
            "{record:?} byte {at} = {value}"
        );
    }
    for record in [
        T::Domain,
        T::Pages,
        T::ZeroPages,
        T::Console,
        T::VcpuRegisters,
        T::End,
        T::Hello,
        T::Header,
    ] {
        assert_eq!(
            edited(record, |payload| payload.push(0)),
            Rule::RecordLength,
            "{record:?} longer"
        );
        assert_eq!(
            edited(record, |payload| payload.truncate(payload.len() - 1)),
            Rule::RecordLength,
            "{record:?} shorter"
        );
    }
    assert_eq!(
        edited(T::Header, |payload| payload[24..40].fill(0)),
        Rule::MigrationIdZero
    );
    assert_eq!(
        edited(T::Domain, |payload| payload[72..76].fill(0)),
        Rule::DomainVcpus
    );
    assert_eq!(
        edited(T::Domain, |payload| payload[76..80].fill(0)),
        Rule::DomainTsc
    );
    assert_eq!(
        edited(T::VcpuXstate, |payload| payload.truncate(payload.len() - 1)),
        Rule::BlobLength
    );
}

/// Where in the whole buffer, not in some inner part.
#[test]
fn offsets_are_the_buffers() {
    let mut all = frames(&stream());
    let before: usize = all[..8].iter().map(|(_, payload)| payload.len() + 16).sum();
    all[8].1[8 + 8] = 9; // the version of vCPU 0's blob
    let error = receive(&rebuilt(&all)).expect_err("version 9");
    assert_eq!(
        (error.rule, error.offset, error.seen),
        (Rule::BlobVersion, before + 16 + 8 + 8, 9)
    );
    assert_eq!(error.code(), 0x0203);
    assert_eq!(
        error.to_string(),
        format!(
            "blob-version: {} (at byte {}: 9 seen, allowed: 1)",
            error.rule.text(),
            error.offset
        )
    );
}

#[test]
fn unknown_records() {
    let mut all = frames(&stream());
    let unknown = FrameHeader {
        length: 0,
        record: 0x77,
        flags: 0,
        sequence: 0,
        crc: 0,
    };
    all.insert(3, (unknown, b"of a later version".to_vec()));
    assert_eq!(stopped(&rebuilt(&all)), Rule::RecordUnknown);
    all[3].0.flags = frame::OPTIONAL;
    let (types, complete) = receive(&rebuilt(&all)).expect("optional records are skipped");
    assert!(complete);
    assert_eq!(types.len(), all.len() - 1);
    all[3].0.flags = 2;
    assert_eq!(stopped(&rebuilt(&all)), Rule::FrameFlags);
}

#[test]
fn text_of_a_refusal_is_fit_for_a_terminal() {
    let put = |text: &str| {
        let reason = migration_abi::handover::Reason {
            errno: 1,
            reason: 2,
            text,
        };
        let message = Message {
            migration_id: id(),
            body: Body::Refuse(reason),
        };
        let mut out = vec![0; 2048];
        message
            .write(&mut Writer::new(), &mut out)
            .map(|_| ())
            .map_err(|error| error.rule)
    };
    assert_eq!(put(&"x".repeat(512)), Ok(()));
    assert_eq!(put(&"x".repeat(513)), Err(Rule::HandoverText));
    assert_eq!(put("\x1b[2J"), Err(Rule::HandoverText));
    assert_eq!(put("two\nlines"), Err(Rule::HandoverText));
}

/// A message as a receiver of the handover gets it: its record's type and payload.
fn payload(body: Body<'_>) -> (RecordType, Vec<u8>) {
    let message = Message {
        migration_id: id(),
        body,
    };
    let mut out = vec![0; 2048];
    let length = message.write(&mut Writer::new(), &mut out).expect("room");
    (message.record_type(), out[16..length].to_vec())
}

/// Records of the domain are no messages, whatever their payload looks like.
#[test]
fn a_message_has_a_type_of_the_handovers() {
    let (_, payload) = payload(Body::Query);
    let mut messages = 0;
    for record in (0..=u16::MAX).filter_map(RecordType::from_code) {
        match Message::parse(record, &payload) {
            Ok(message) => {
                assert_eq!(message.record_type(), record);
                messages += 1;
            }
            Err(error) if (0x100..0x10a).contains(&record.code()) => {
                assert_eq!(error.rule, Rule::RecordLength, "{record:?}");
                messages += 1;
            }
            Err(error) => assert_eq!(error.rule, Rule::HandoverType, "{record:?}"),
        }
    }
    assert_eq!(messages, 10);
}

/// STATUS with a number that is no side's state says nothing, not "unknown": that
/// would let the peer wake a copy.
#[test]
fn a_status_is_one_that_there_is() {
    let (record, sample) = payload(Body::Status {
        status: Status::Unknown,
        boot_nonce: 7,
    });
    let mut known = 0;
    for code in (0..0x400).chain([0x8000_0101, u32::MAX]) {
        let mut payload = sample.clone();
        payload[24..28].copy_from_slice(&code.to_le_bytes());
        match Message::parse(record, &payload) {
            Ok(message) => {
                let Body::Status { status, .. } = message.body else {
                    panic!("{message:?}");
                };
                assert_eq!(status.code(), code);
                known += 1;
            }
            Err(error) => assert_eq!(error.rule, Rule::HandoverState, "{code:#x}"),
        }
    }
    assert_eq!(known, 1 + 7 + 6);
}

/// The checksum is right, and yet it is not the payload that the header tells of.
#[test]
fn a_payload_of_another_length_than_its_header_says() {
    for (said, length) in [(8, 7), (8, 9), (8, 0), (0, 1)] {
        let payload = vec![0x5a; length];
        let unsealed = FrameHeader {
            length: said,
            record: RecordType::Console.code(),
            flags: 0,
            sequence: 0,
            crc: 0,
        };
        let header = FrameHeader {
            crc: unsealed.checksum(&payload),
            ..unsealed
        };
        let error = header.verify(&payload).expect_err("another length");
        assert_eq!(error.rule, Rule::FrameShort, "{length} of {said} bytes");
    }
}

#[test]
fn a_writer_without_room_uses_no_number_up() {
    let mut writer = Writer::new();
    let mut out = [0; 64];
    let end = End::default();
    assert_eq!(
        end.write(&mut writer, &mut out[..39])
            .expect_err("no room")
            .rule,
        Rule::FrameRoom
    );
    assert_eq!(
        end.write(&mut writer, &mut out[..7])
            .expect_err("no room")
            .rule,
        Rule::FrameRoom
    );
    assert_eq!(end.write(&mut writer, &mut out), Ok(40));
    assert_eq!(FrameHeader::parse(&out).expect("a header").sequence, 0);
    let reserved = End { reserved: 1, ..end };
    assert_eq!(
        reserved
            .write(&mut writer, &mut out)
            .expect_err("reserved")
            .rule,
        Rule::RecordReserved
    );
    let long = Console {
        uart: Uart::default(),
        output: &[b'x'; 4097],
    };
    let mut room = vec![0; 8192];
    assert_eq!(
        long.write(&mut writer, &mut room)
            .expect_err("too long")
            .rule,
        Rule::ConsoleOutput
    );
    let odd = Pages {
        first_gfn: 0,
        data: &[0; 4097],
    };
    assert_eq!(
        odd.write(&mut writer, &mut room).expect_err("no page").rule,
        Rule::RecordLength
    );
    let mut bad = RegistersRecord {
        vcpu: 0,
        registers: registers(),
    };
    bad.registers.cr8 = 16;
    assert_eq!(
        bad.write(&mut writer, &mut room).expect_err("cr8").rule,
        Rule::TaskPriority
    );
    assert!(XstateRecord::write(&mut writer, &mut room, 0, b"no blob").is_err());
    let mut big = vec![0; 2 << 20];
    let huge = writer.frame(&mut big, RecordType::Pages, (1 << 20) + 1, |_| Ok(()));
    assert_eq!(huge.expect_err("huge").rule, Rule::FrameLength);
}

#[test]
fn rule_names_and_numbers_are_unique_and_come_back() {
    let names: std::collections::HashSet<_> = Rule::ALL.iter().map(|rule| rule.name()).collect();
    assert_eq!(names.len(), Rule::ALL.len());
    for &rule in Rule::ALL {
        assert_eq!(Rule::from_code(rule.code()), Some(rule));
        assert!(
            rule.name()
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'-'),
            "{}",
            rule.name()
        );
    }
    assert_eq!(Rule::from_code(0x0700), None);
}
