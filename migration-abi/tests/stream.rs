//! The stream: golden file, round trips, order, every truncation, a man in the middle.

mod samples;

use migration_abi::Rule;
use migration_abi::stream::{
    Decoder, FRAME_HEADER_BYTES, Frame, FrameHeader, PAGE_BYTES, Record, RecordType, Sequencer,
    Step, StreamHeader, Writer, ZeroPages, frame,
};
use proptest::prelude::*;
use samples::wire::{frames, rebuilt, receive, stopped};
use samples::{Wire, domain, id, messages, registers, stream};

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
    for length in (0..bytes.len()).step_by(if cfg!(miri) { 997 } else { 1 }) {
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
