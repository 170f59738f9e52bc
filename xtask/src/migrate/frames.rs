//! Finds the frames in bytes as they come over a wire.

use migration_abi::stream::frame::FRAME_HEADER_BYTES;
use migration_abi::stream::{FrameHeader, RecordType};

/// Frames up to this length are held until they are whole, so that they can be
/// looked at and changed. Only pages are longer, and they are carried at once.
pub const HELD_BYTES: usize = 64 * 1024;

/// Bytes before the blob in the payload of a VCPU_XSTATE record: vCPU, reserved.
const BLOB_AT: usize = FRAME_HEADER_BYTES + 8;

/// A part of what came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A whole frame whose checksum is right.
    Whole(RecordType, Vec<u8>),
    /// The beginning of a frame that is too long to hold.
    Begun(RecordType, Vec<u8>),
    /// The rest of such a frame, or bytes that are no frame.
    Loose(Vec<u8>),
}

/// Cuts one direction of a wire into frames.
#[derive(Default)]
pub struct Splitter {
    pending: Vec<u8>,
    streaming: usize,
}

impl Splitter {
    /// Takes the next bytes and gives all pieces that they complete. Joined
    /// together, the pieces are exactly what was fed.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Piece> {
        self.pending.extend_from_slice(bytes);
        let mut pieces = Vec::new();
        let mut loose = Vec::new();
        let mut at = 0;
        loop {
            let rest = &self.pending[at..];
            if self.streaming > 0 {
                let count = self.streaming.min(rest.len());
                loose.extend_from_slice(&rest[..count]);
                self.streaming -= count;
                at += count;
                if self.streaming > 0 {
                    break;
                }
                continue;
            }
            if rest.len() < FRAME_HEADER_BYTES {
                break;
            }
            let header = FrameHeader::parse(rest).ok();
            let known = header.and_then(|header| Some((header, header.record_type()?)));
            let Some((header, kind)) = known else {
                // Not where a frame begins: an emulated serial port may lose or
                // invent a byte when it is set up.
                loose.push(rest[0]);
                at += 1;
                continue;
            };
            if header.frame_len() > HELD_BYTES {
                flush(&mut loose, &mut pieces);
                let (head, _) = rest.split_at(FRAME_HEADER_BYTES);
                pieces.push(Piece::Begun(kind, head.to_vec()));
                self.streaming = header.payload_len();
                at += FRAME_HEADER_BYTES;
                continue;
            }
            let Some((_, payload, _)) = FrameHeader::split(rest) else {
                break;
            };
            if header.verify(payload).is_err() {
                loose.push(rest[0]);
                at += 1;
                continue;
            }
            flush(&mut loose, &mut pieces);
            pieces.push(Piece::Whole(kind, rest[..header.frame_len()].to_vec()));
            at += header.frame_len();
        }
        self.pending.drain(..at);
        flush(&mut loose, &mut pieces);
        pieces
    }
}

fn flush(loose: &mut Vec<u8>, pieces: &mut Vec<Piece>) {
    if !loose.is_empty() {
        pieces.push(Piece::Loose(std::mem::take(loose)));
    }
}

/// The blob in a whole VCPU_XSTATE frame.
pub fn blob(frame: &[u8]) -> Option<&[u8]> {
    frame.get(BLOB_AT..)
}

/// The same, to be changed.
pub fn blob_mut(frame: &mut [u8]) -> Option<&mut [u8]> {
    frame.get_mut(BLOB_AT..)
}

#[cfg(test)]
pub mod tests {
    use migration_abi::stream::Writer;

    use super::*;

    /// A frame with any payload.
    pub fn frame(kind: RecordType, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![0; FRAME_HEADER_BYTES + payload.len()];
        let len = Writer::new()
            .frame(&mut out, kind, payload.len(), |place| {
                place.copy_from_slice(payload);
                Ok(())
            })
            .unwrap();
        assert_eq!(len, out.len());
        out
    }

    fn joined(pieces: &[Piece]) -> Vec<u8> {
        pieces
            .iter()
            .flat_map(|piece| match piece {
                Piece::Whole(_, bytes) | Piece::Begun(_, bytes) | Piece::Loose(bytes) => {
                    bytes.clone()
                }
            })
            .collect()
    }

    #[test]
    fn frames_are_found_however_the_bytes_come() {
        let mut bytes = frame(RecordType::Hello, b"hello");
        bytes.extend(frame(RecordType::Pages, &vec![0x5a; HELD_BYTES]));
        bytes.extend(frame(RecordType::Ready, b""));
        for step in [1, 7, 16, 1000, bytes.len()] {
            let mut splitter = Splitter::default();
            let pieces: Vec<Piece> = bytes
                .chunks(step)
                .flat_map(|chunk| splitter.feed(chunk))
                .collect();
            assert_eq!(joined(&pieces), bytes, "{step}");
            let kinds: Vec<RecordType> = pieces
                .iter()
                .filter_map(|piece| match piece {
                    Piece::Whole(kind, _) | Piece::Begun(kind, _) => Some(*kind),
                    Piece::Loose(_) => None,
                })
                .collect();
            assert_eq!(
                kinds,
                [RecordType::Hello, RecordType::Pages, RecordType::Ready],
                "{step}"
            );
        }
    }

    #[test]
    fn noise_before_a_frame_is_passed_on() {
        let mut bytes = vec![0xff, 0, 0x41];
        let ready = frame(RecordType::Ready, b"");
        bytes.extend(&ready);
        let pieces = Splitter::default().feed(&bytes);
        assert_eq!(joined(&pieces), bytes);
        assert_eq!(pieces.last(), Some(&Piece::Whole(RecordType::Ready, ready)));
    }

    #[test]
    fn a_damaged_frame_is_no_frame() {
        let mut bytes = frame(RecordType::Ready, b"abc");
        bytes[17] ^= 1;
        let pieces = Splitter::default().feed(&bytes);
        assert!(
            pieces.iter().all(|piece| matches!(piece, Piece::Loose(_))),
            "{pieces:?}"
        );
    }
}
