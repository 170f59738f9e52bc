//! A file that somebody names, or standard input: as much of it as such a file can have.

use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result, bail};
use migration_abi::blob::v1;

/// What names standard input.
const STDIN: &str = "-";

/// The longest thing that is no stream: a blob with everything in it.
pub const LONGEST: usize = v1::MAX_HEADER_BYTES
    + v1::MAX_COMPONENTS * v1::MAX_ENTRY_BYTES
    + v1::MAX_IMAGE_BYTES
    + v1::CRC_BYTES;

/// What the file is called.
pub fn name(path: &Path) -> String {
    if path.as_os_str() == STDIN {
        "standard input".into()
    } else {
        path.display().to_string()
    }
}

/// All bytes of the file. What is longer than [`LONGEST`] is read on only if
/// `is_stream` says so of the bytes up to there.
pub fn read(path: &Path, is_stream: impl Fn(&[u8]) -> bool) -> Result<Vec<u8>> {
    let name = name(path);
    let reading = || format!("reading {name}");
    if path.as_os_str() == STDIN {
        return bounded(&mut io::stdin().lock(), &name, is_stream);
    }
    let mut file = std::fs::File::open(path).with_context(reading)?;
    bounded(&mut file, &name, is_stream)
}

fn bounded(from: &mut impl Read, name: &str, is_stream: impl Fn(&[u8]) -> bool) -> Result<Vec<u8>> {
    let reading = || format!("reading {name}");
    let mut bytes = Vec::new();
    let limit = LONGEST as u64 + 1;
    from.by_ref()
        .take(limit)
        .read_to_end(&mut bytes)
        .with_context(reading)?;
    if bytes.len() > LONGEST {
        if !is_stream(&bytes) {
            bail!(
                "{name}: more than {LONGEST} bytes, which is the longest blob, and no migration stream"
            );
        }
        from.read_to_end(&mut bytes).with_context(reading)?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts what is taken from it.
    struct Endless(u64);

    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            buffer.fill(0);
            self.0 += buffer.len() as u64;
            Ok(buffer.len())
        }
    }

    /// `inspect /dev/zero` grew until memory was out, a sparse GiB took a GiB.
    #[test]
    fn what_is_no_stream_is_not_read_to_its_end() {
        let mut endless = Endless(0);
        let error = bounded(&mut endless, "zero", |_| false).unwrap_err();
        assert!(error.to_string().starts_with("zero: more than"), "{error}");
        assert!(endless.0 < 2 * LONGEST as u64, "{} bytes read", endless.0);
    }

    #[test]
    fn a_long_stream_is_read_whole() {
        let long = vec![1; LONGEST + 10];
        let read = bounded(&mut &long[..], "long", |head| head[0] == 1).unwrap();
        assert_eq!(read.len(), long.len());
        let blob = vec![0; LONGEST];
        let read = bounded(&mut &blob[..], "blob", |_| false).unwrap();
        assert_eq!(read.len(), LONGEST);
    }
}
