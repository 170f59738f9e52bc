//! `stream`: any bytes as frames, as records in their order, as messages and registers.

use migration_abi::handover::{self, Message};
use migration_abi::registers::VcpuRegisters;
use migration_abi::stream::{
    Decoder, FrameHeader, Pages, Record, RecordType, Sequencer, Step, Writer, XstateRecord, frame,
};

/// What is mended, by the bits of an input's first byte; with neither, frames
/// are taken as they are.
const SEALED: u8 = 1 << 0;
const NUMBERED: u8 = 1 << 1;
/// The bytes are one payload, of the type that follows.
const PAYLOAD: u8 = 1 << 2;

/// One input: what is mended, then frames; or a type and a payload.
///
/// # Panics
/// Where reader and writer disagree.
pub fn run(data: &[u8]) {
    let Some((&bits, bytes)) = data.split_first() else {
        return;
    };
    if bits & PAYLOAD != 0 {
        payload(bytes);
        return;
    }
    let mut bytes = bytes.to_vec();
    mend(&mut bytes, bits);
    receive(&bytes, Sequencer::new());
    receive(&bytes, Sequencer::messages());
}

fn mend(bytes: &mut [u8], bits: u8) {
    let (mut rest, mut sequence) = (bytes, 0u32);
    while let Some((frame, behind)) = FrameHeader::split_mut(rest) {
        if bits & NUMBERED != 0 {
            frame[8..12].copy_from_slice(&sequence.to_le_bytes());
        }
        if bits & SEALED != 0 {
            // Longer than a frame can be stays damaged.
            let _ = frame::seal(frame);
        }
        sequence = sequence.wrapping_add(1);
        rest = behind;
    }
}

/// All that a receiver does with bytes, up to the first stop.
fn receive(bytes: &[u8], mut sequencer: Sequencer) {
    let mut decoder = Decoder::new(bytes);
    loop {
        let before = decoder.consumed();
        match decoder.step() {
            Ok(Step::Frame(frame)) => {
                assert_eq!(frame.offset, before);
                assert_eq!(decoder.consumed(), before + frame.header.frame_len());
                let stood = sequencer.clone();
                match sequencer.accept(&frame) {
                    Ok(Some(record)) => written(&record, frame.payload),
                    Ok(None) => assert!(frame.header.is_optional()),
                    Err(error) => {
                        assert!(error.offset <= bytes.len(), "{error}");
                        let again = stood.clone().accept(&frame).map(|_| ());
                        assert_eq!(again, Err(error), "a stop changed something");
                        return;
                    }
                }
            }
            Ok(Step::NeedMore(more)) => {
                assert!(more > 0 && decoder.consumed() == before);
                return;
            }
            Ok(Step::End) => {
                assert_eq!(decoder.consumed(), bytes.len());
                return;
            }
            Err(error) => {
                assert_eq!(decoder.consumed(), before, "a stop moved the decoder");
                assert_eq!(decoder.step(), Err(error));
                return;
            }
        }
    }
}

/// One payload of any type, without the order of a stream.
fn payload(bytes: &[u8]) {
    let Some((code, payload)) = bytes.split_first_chunk() else {
        return;
    };
    if let Ok(registers) = VcpuRegisters::parse(payload) {
        assert_eq!(registers.check(), Ok(()));
    }
    let Some(record) = RecordType::from_code(u16::from_le_bytes(*code)) else {
        return;
    };
    match Record::parse_payload(record, payload) {
        Ok(read) => {
            assert_eq!(read.record_type(), record);
            written(&read, payload);
        }
        Err(error) => assert!(error.offset <= payload.len().max(128), "{error}"),
    }
    if let Ok(message) = Message::parse(record, payload) {
        // What a message asks for is an event of one side alone.
        let asked = (
            handover::source::event_for(&message),
            handover::receiver::event_for(&message),
        );
        let common = matches!(asked, (Some(handover::source::Event::Abort), Some(_)));
        let unknown = matches!(
            asked,
            (
                Some(handover::source::Event::PeerStatus(None)),
                Some(handover::receiver::Event::PeerStatus(None))
            )
        );
        assert!(asked.0.is_none() || asked.1.is_none() || common || unknown);
    }
}

/// What was read is written as the same payload, but for what a later version
/// appended.
fn written(record: &Record<'_>, payload: &[u8]) {
    let mut out = vec![0; payload.len().max(1024) + 64];
    let writer = &mut Writer::new();
    let length = match record {
        Record::Header(header) => header.write(writer, &mut out),
        Record::Domain(domain) => domain.write(writer, &mut out),
        Record::Pages(pages) => Pages::write(pages, writer, &mut out),
        Record::ZeroPages(pages) => pages.write(writer, &mut out),
        Record::Console(console) => console.write(writer, &mut out),
        Record::VcpuRegisters(registers) => registers.write(writer, &mut out),
        Record::VcpuXstate(xstate) => {
            XstateRecord::write(writer, &mut out, xstate.vcpu, xstate.bytes)
        }
        Record::End(end) => end.write(writer, &mut out),
        Record::Handover(message) => message.write(writer, &mut out),
    };
    let length = length.expect("what was read is written");
    let again = &out[frame::FRAME_HEADER_BYTES..length];
    if matches!(record, Record::Header(_)) {
        // Compatible flags and what a later version appended are skipped.
        assert!(again.len() <= payload.len());
    } else {
        assert_eq!(again, payload, "{:?}", record.record_type());
    }
}
