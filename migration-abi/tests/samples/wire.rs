//! What tests do with a whole stream: receive it, take it apart, put it together again.

use migration_abi::stream::{Decoder, FrameHeader, RecordType, Sequencer, Step};
use migration_abi::{ParseError, Rule};

/// All that a receiver does with bytes, up to the first stop.
pub fn receive(bytes: &[u8]) -> Result<(Vec<RecordType>, bool), ParseError> {
    let (mut decoder, mut sequencer, mut seen) =
        (Decoder::new(bytes), Sequencer::new(), Vec::new());
    while let Step::Frame(frame) = decoder.step()? {
        seen.extend(sequencer.accept(&frame)?.map(|record| record.record_type()));
    }
    Ok((seen, sequencer.is_complete()))
}

pub fn stopped(bytes: &[u8]) -> Rule {
    receive(bytes).expect_err("must be refused").rule
}

/// The stream in frames, to be re-ordered and edited.
pub fn frames(bytes: &[u8]) -> Vec<(FrameHeader, Vec<u8>)> {
    let (mut rest, mut frames) = (bytes, Vec::new());
    while let Some((header, payload, behind)) = FrameHeader::split(rest) {
        frames.push((header, payload.to_vec()));
        rest = behind;
    }
    assert!(rest.is_empty());
    frames
}

/// Frames again as a stream, numbered and sealed anew.
pub fn rebuilt(frames: &[(FrameHeader, Vec<u8>)]) -> Vec<u8> {
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
