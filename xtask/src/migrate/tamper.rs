//! Flips bits in a blob on its way, and makes both checksums right again, so
//! that only the rules about its content can notice.

use anyhow::{Context, Result, ensure};
use migration_abi::stream::frame;

use super::decode::{self, IMAGE_START};
use super::frames;

/// Bytes of the trailer.
const TRAILER_BYTES: usize = 4;

/// Where in a blob a bit is flipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// At this offset in the header.
    Header(usize),
    /// At this offset in the directory.
    Directory(usize),
    /// At this offset in the image.
    Image(usize),
}

impl Field {
    fn offset(self, blob: &[u8]) -> Result<usize> {
        let word = |at: usize| -> Result<usize> {
            let bytes = blob.get(at..at + 2).context("the blob has no header")?;
            Ok(usize::from(u16::from_le_bytes([bytes[0], bytes[1]])))
        };
        let (header, entry, entries) = (word(10)?, word(12)?, word(14)?);
        Ok(match self {
            Self::Header(at) => at,
            Self::Directory(at) => header + at,
            Self::Image(at) => header + entry * entries + at,
        })
    }
}

/// Flips bits (0 is the lowest of the field's first byte; from 8 on they are in
/// later bytes) in the blob of a whole VCPU_XSTATE frame, and seals both again.
pub fn flip(frame: &mut [u8], flips: &[(Field, usize)]) -> Result<()> {
    let blob = frames::blob_mut(frame).context("the frame holds no blob")?;
    let end = blob
        .len()
        .checked_sub(TRAILER_BYTES)
        .context("the blob is too short")?;
    for &(field, bit) in flips {
        let at = field.offset(blob)? + bit / 8;
        ensure!(
            end > IMAGE_START && at < end,
            "byte {at} is not in a blob of {end} bytes"
        );
        blob[at] ^= 1 << (bit % 8);
    }
    let crc = decode::crc32c(&blob[..end]);
    blob[end..].copy_from_slice(&crc.to_le_bytes());
    frame::seal(frame).map_err(|error| anyhow::anyhow!("sealing the frame: {error}"))
}

#[cfg(test)]
mod tests {
    use migration_abi::stream::{FrameHeader, RecordType};

    use super::super::decode::tests::sample;
    use super::super::frames::tests::frame;
    use super::*;

    fn xstate() -> Vec<u8> {
        let mut payload = vec![0; 8];
        payload.extend(sample());
        frame(RecordType::VcpuXstate, &payload)
    }

    #[test]
    fn one_bit_changes_and_both_checksums_hold() {
        for (field, bit, at) in [
            (Field::Header(92), 9, 93),
            (Field::Directory(16 + 4), 0, 96 + 20),
            (Field::Image(24), 31, 96 + 96 + 27),
        ] {
            let before = xstate();
            let mut after = before.clone();
            flip(&mut after, &[(field, bit)]).unwrap();
            let (header, payload, _) = FrameHeader::split(&after).unwrap();
            header.verify(payload).unwrap();
            let (old, new) = (
                frames::blob(&before).unwrap(),
                frames::blob(&after).unwrap(),
            );
            let changed: Vec<usize> = (0..old.len() - 4).filter(|&i| old[i] != new[i]).collect();
            assert_eq!(changed, [at]);
            let crc = u32::from_le_bytes(*new.last_chunk().unwrap());
            assert_eq!(crc, decode::crc32c(&new[..new.len() - 4]));
        }
    }

    #[test]
    fn outside_the_blob_is_an_error() {
        assert!(flip(&mut xstate(), &[(Field::Image(968), 0)]).is_err());
        assert!(flip(&mut [0; 30], &[(Field::Header(0), 0)]).is_err());
    }
}
