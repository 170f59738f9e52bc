//! `decode`: any bytes as a blob. What is read is written again as the same bytes.

use migration_abi::blob::{self, Blob, Fields, v1};

use crate::machines::machine;
use crate::mend;

/// One input: what is mended, the machine that mends, a blob.
///
/// # Panics
/// Where the reader and the writer disagree.
pub fn run(data: &[u8]) {
    let Some((&[bits, number], bytes)) = data.split_first_chunk() else {
        return;
    };
    let host = &machine(number).host;
    let mut bytes = bytes.to_vec();
    mend::blob(&mut bytes, bits, host.geometry(), host.offered());
    check(&bytes);
}

/// Reads `bytes`; says whether they are a blob.
///
/// # Panics
/// Where the reader and the writer disagree.
pub fn check(bytes: &[u8]) -> bool {
    let blob = match blob::parse(bytes) {
        Ok(blob) => blob,
        Err(error) => {
            // A stop is in what was given, or just behind where it is too short.
            assert!(error.offset <= bytes.len().max(v1::HEADER_BYTES), "{error}");
            return false;
        }
    };
    let again = rewritten(&blob);
    let header = blob.header();
    let extended = (
        usize::from(header.header_len),
        usize::from(header.dir_entry_len),
    ) != (v1::HEADER_BYTES, v1::ENTRY_BYTES);
    if extended || header.compatible != 0 {
        // What a later writer appended is skipped, and not written.
        let second = blob::parse(&again).expect("what was written is read");
        assert_eq!(Fields::of(&second), Fields::of(&blob));
        assert_eq!(second.image(), blob.image());
        assert!(second.directory().iter().eq(blob.directory().iter()));
    } else {
        assert_eq!(again, bytes, "read and written again");
    }
    true
}

fn rewritten(blob: &Blob<'_>) -> Vec<u8> {
    let fields = Fields::of(blob);
    let length = v1::encoded_len(fields.xstate_mask, blob.image().len(), fields.crc);
    let mut out = vec![0xa5; length.expect("a blob was read")];
    let written = v1::encode(&mut out, &fields, blob.directory().iter(), blob.image());
    assert_eq!(written, Ok(out.len()));
    out
}
