//! The stream: golden file, round trips, order, every truncation, a man in the middle.

mod samples;

use migration_abi::handover::{Body, Message};
use migration_abi::stream::records::{RegistersRecord, XstateRecord};
use migration_abi::stream::{
    Console, Decoder, End, FRAME_HEADER_BYTES, Frame, FrameHeader, PAGE_BYTES, Pages, Record,
    RecordType, Sequencer, Step, StreamHeader, Uart, Writer, ZeroPages, frame,
};
use migration_abi::{ParseError, Rule};
use proptest::prelude::*;
use samples::{Wire, domain, id, messages, registers, stream};

/// All that a receiver does with bytes, up to the first stop.
fn receive(bytes: &[u8]) -> Result<(Vec<RecordType>, bool), ParseError> {
    let (mut decoder, mut sequencer, mut seen) =
        (Decoder::new(bytes), Sequencer::new(), Vec::new());
    while let Step::Frame(frame) = decoder.step()? {
        seen.extend(sequencer.accept(&frame)?.map(|record| record.record_type()));
    }
    Ok((seen, sequencer.is_complete()))
}

fn stopped(bytes: &[u8]) -> Rule {
    receive(bytes).expect_err("must be refused").rule
}

/// The stream in frames, to be re-ordered and edited.
fn frames(bytes: &[u8]) -> Vec<(FrameHeader, Vec<u8>)> {
    let (mut rest, mut frames) = (bytes, Vec::new());
    while let Some((header, payload, behind)) = FrameHeader::split(rest) {
        frames.push((header, payload.to_vec()));
        rest = behind;
    }
    assert!(rest.is_empty());
    frames
}

/// Frames again as a stream, numbered and sealed anew.
fn rebuilt(frames: &[(FrameHeader, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (sequence, (header, payload)) in frames.iter().enumerate() {
        let mut out = vec![0; payload.len() + 16];
        let header = FrameHeader {
            sequence: sequence as u32,
            ..*header
        };
        assert_eq!(header.write(payload, &mut out), Ok(out.len()));
        bytes.extend(out);
    }
    bytes
}

#[test]
fn golden_v1_reads_for_ever() {
    let golden = samples::golden("stream-v1.bin", &stream());
    assert_eq!(golden, stream(), "the writer of version 1 has changed");
    let (types, complete) = receive(&golden).expect("golden");
    use RecordType as T;
    let vcpu = [T::VcpuRegisters, T::VcpuXstate];
    let mut expected = vec![
        T::Hello,
        T::Header,
        T::Domain,
        T::Pages,
        T::ZeroPages,
        T::Pages,
        T::Console,
    ];
    expected.extend(vcpu.iter().chain(&vcpu));
    expected.push(T::End);
    assert_eq!(types, expected);
    assert!(complete);
}

#[test]
fn every_record_says_what_was_written() {
    let bytes = stream();
    let mut decoder = Decoder::new(&bytes);
    let mut sequencer = Sequencer::new();
    let mut output = Vec::new();
    while let Step::Frame(frame) = decoder.step().expect("a frame") {
        match sequencer.accept(&frame).expect("in order").expect("known") {
            Record::Header(header) => assert_eq!(
                header,
                StreamHeader {
                    migration_id: id(),
                    boot_nonce: 7
                }
            ),
            Record::Domain(read) => {
                assert_eq!((read, read.name()), (domain(), "torture"));
                assert!(read.leaves.iter().eq(samples::LEAVES));
            }
            Record::Pages(pages) => {
                assert!([(0, 2), (69, 1)].contains(&(pages.first_gfn, pages.count())));
                output.extend_from_slice(pages.data);
            }
            Record::ZeroPages(pages) => assert_eq!(
                pages,
                ZeroPages {
                    first_gfn: 2,
                    count: 67
                }
            ),
            Record::Console(console) => {
                assert_eq!(
                    (console.uart.scr, console.output),
                    (0x5a, &b"pass 17\n"[..])
                );
            }
            Record::VcpuRegisters(record) => assert_eq!(record.registers, registers()),
            Record::VcpuXstate(record) => {
                let blob = if record.vcpu == 0 {
                    samples::blob_sse()
                } else {
                    samples::blob_avx512()
                };
                assert_eq!(record.bytes, blob);
            }
            Record::End(end) => assert_eq!((end.data_pages, end.zero_pages, end.vcpus), (3, 67, 2)),
            Record::Handover(message) => assert_eq!(message, messages()[0]),
        }
    }
    assert!(
        output
            .iter()
            .enumerate()
            .all(|(index, &byte)| byte == (index % 251) as u8)
    );
    assert_eq!(output.len(), 3 * PAGE_BYTES);
    assert_eq!(decoder.consumed(), bytes.len());
    assert_eq!(sequencer.migration_id(), Some(id()));
}

#[test]
fn messages_round_trip_both_ways() {
    let mut wire = Wire::default();
    for message in messages() {
        wire.put(|w, out| message.write(w, out));
    }
    let (mut decoder, mut sequencer) = (Decoder::new(&wire.bytes), Sequencer::messages());
    for expected in messages() {
        let Ok(Step::Frame(frame)) = decoder.step() else {
            panic!("no frame")
        };
        let Ok(Some(Record::Handover(read))) = sequencer.accept(&frame) else {
            panic!("no message")
        };
        assert_eq!(read, expected);
    }
    assert_eq!(decoder.step(), Ok(Step::End));
}

/// A stream that breaks off is never taken for whole, nor for wrong.
#[test]
fn truncated_at_every_byte() {
    let bytes = stream();
    let whole = receive(&bytes).expect("whole").0.len();
    for length in 0..bytes.len() {
        let (types, complete) =
            receive(&bytes[..length]).unwrap_or_else(|error| panic!("{length}: {error}"));
        assert!(!complete && types.len() < whole, "{length}");
    }
    // What is missing is said, and is enough to go on.
    let mut decoder = Decoder::new(&bytes[..3]);
    assert_eq!(decoder.step(), Ok(Step::NeedMore(13)));
    let mut decoder = Decoder::new(&bytes[..16]);
    assert_eq!(decoder.step(), Ok(Step::NeedMore(40)));
}

#[test]
fn order_is_kept() {
    let whole = frames(&stream());
    // Any two neighbours swapped, any record left out or sent twice.
    for index in 1..whole.len() {
        let mut twice = whole.clone();
        twice.insert(index, whole[index].clone());
        assert!(receive(&rebuilt(&twice)).is_err(), "record {index} twice");
        let console = whole[index].0.record_type() == Some(RecordType::Console);
        let mut without = whole.clone();
        without.remove(index);
        match receive(&rebuilt(&without)) {
            Ok((_, complete)) => assert!(
                console || (index + 1 == whole.len() && !complete),
                "without {index}"
            ),
            Err(_) => assert!(!console),
        }
    }
    let swapped = |a: usize, b: usize| {
        let mut swapped = whole.clone();
        swapped.swap(a, b);
        stopped(&rebuilt(&swapped))
    };
    assert_eq!(swapped(1, 2), Rule::RecordOrder);
    assert_eq!(swapped(3, 4), Rule::PagesOrder);
    assert_eq!(swapped(7, 8), Rule::RecordOrder);
    assert_eq!(swapped(7, 9), Rule::VcpuOrder);
    assert_eq!(swapped(5, 7), Rule::PagesMissing);
    assert_eq!(swapped(9, 11), Rule::VcpuMissing);
    // Numbers of another stream, or a frame lost on the way.
    let mut lost = Vec::new();
    for (header, payload) in whole.iter().filter(|(header, _)| header.sequence != 6) {
        let mut out = vec![0; payload.len() + 16];
        header.write(payload, &mut out).expect("room");
        lost.extend(out);
    }
    assert_eq!(stopped(&lost), Rule::SequenceNumber);
}

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
        (T::Domain, 84, 1, Rule::RecordReserved),
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
            "blob-version: {} (at byte {}: 0x9 seen, allowed: 0x1)",
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
fn messages_alone_carry_no_domain() {
    let bytes = stream();
    let mut sequencer = Sequencer::messages();
    let mut decoder = Decoder::new(&bytes);
    let mut next = || match decoder.step() {
        Ok(Step::Frame(frame)) => sequencer.accept(&frame).map(|_| ()),
        other => panic!("{other:?}"),
    };
    assert_eq!(next(), Ok(()));
    assert_eq!(next().expect_err("HEADER").rule, Rule::RecordOrder);
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

/// What a proxy does: find frames, flip bits in them, seal them, pass them on.
#[test]
fn man_in_the_middle() {
    let mut bytes = stream();
    let (mut left, mut frames) = (bytes.len(), 0);
    let mut rest = &mut bytes[..];
    while let Some((whole, behind)) = FrameHeader::split_mut(rest) {
        let header = FrameHeader::parse(whole).expect("a header");
        if header.record_type() == Some(RecordType::Pages) {
            whole[FRAME_HEADER_BYTES + 16] ^= 0xff;
            let error = Decoder::new(whole).step().expect_err("tampering unseen");
            assert_eq!(error.rule, Rule::FrameCrc);
        }
        frame::seal(whole).expect("sealed");
        (left, frames) = (left - whole.len(), frames + 1);
        rest = behind;
    }
    assert_eq!((left, frames), (0, 12));
    assert!(receive(&bytes).expect("sealed again").1);
    assert_ne!(bytes, stream());
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

fn any_record() -> impl Strategy<Value = RecordType> {
    prop::sample::select(
        (1..9)
            .chain(0x100..0x10a)
            .filter_map(RecordType::from_code)
            .collect::<Vec<_>>(),
    )
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = receive(&bytes);
        let _ = FrameHeader::split(&bytes);
        let mut bytes = bytes;
        let _ = frame::seal(&mut bytes);
    }

    #[test]
    fn any_payload_is_read_or_refused(record in any_record(), bytes in prop::collection::vec(any::<u8>(), 0..800)) {
        let _ = Record::parse_payload(record, &bytes);
    }

    /// Past the checksum, and shaped enough to go deep.
    #[test]
    fn any_edit_of_a_payload_is_read_or_refused(index in 0usize..12, edits in prop::collection::vec((0usize..700, any::<u8>()), 1..4)) {
        let mut all = frames(&stream());
        let payload = &mut all[index].1;
        for (at, value) in edits {
            let at = at % payload.len();
            payload[at] = value;
        }
        let _ = receive(&rebuilt(&all));
    }

    /// One damaged byte anywhere: an error, or a frame that waits for more. Never a whole domain.
    #[test]
    fn one_damaged_byte_is_seen(at in any::<prop::sample::Index>(), flip in 1u8..) {
        let mut bytes = stream();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert!(!matches!(receive(&bytes), Ok((_, true))));
    }

    #[test]
    fn frames_come_out_as_they_went_in(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..10)) {
        let (mut writer, mut bytes) = (Writer::new(), Vec::new());
        for payload in &payloads {
            let mut out = [0; 66];
            let length = writer.frame(&mut out, RecordType::Console, payload.len(), |place| {
                place.copy_from_slice(payload);
                Ok(())
            }).expect("room");
            bytes.extend_from_slice(&out[..length]);
        }
        let mut decoder = Decoder::new(&bytes);
        for (sequence, payload) in payloads.iter().enumerate() {
            let step = decoder.step().expect("undamaged");
            let Step::Frame(Frame { header, payload: read, .. }) = step else { panic!("{step:?}") };
            prop_assert_eq!(header.sequence, sequence as u32);
            prop_assert_eq!(read, &payload[..]);
        }
        prop_assert_eq!(decoder.step(), Ok(Step::End));
    }
}
