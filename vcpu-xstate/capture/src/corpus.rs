//! The file of stored images: reading and writing.
//!
//! Little-endian throughout.
//!
//! ```text
//! file    "XSVEC001"  u64 XCR0  u32 n  u32 0
//!         n x { u32 component, u32 size, u32 standard offset, u32 traits }
//! record  u32 "SREC"  u32 state  u64 loaded XSTATE_BV  u64 RFBM
//!         u64 XINUSE (XGETBV 1)  u32 loaded MXCSR  u32 flags
//!         u32 std_len  u32 cmp_len  u32 crc32(R1)  u32 crc32(R2)
//!         u32 MXCSR of R1  u32 MXCSR of R2
//!         std_len bytes: the image of XSAVE64
//!         cmp_len bytes: the image of XSAVEC64
//! ```
//!
//! Traits are ECX of the component's subleaf of CPUID leaf 0xD (bit 1: aligned
//! to 64 in the compacted form, bit 2: under IA32_XFD). R1 and R2 are what the
//! registers hold after INIT and a restore of the standard and of the
//! compacted image: see [`crate::restored`].

use std::fmt;

const MAGIC: &[u8; 8] = b"XSVEC001";
const RECORD: u32 = u32::from_le_bytes(*b"SREC");
/// No image of 63 components of at most 64 KiB is larger.
const LARGEST_IMAGE: u32 = 8 << 20;

/// What CPUID leaf 0xD says of one component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Component {
    /// Its number, 2 to 62.
    pub index: u32,
    /// Its size in bytes (EAX).
    pub size: u32,
    /// Its offset in the standard form, in bytes (EBX).
    pub offset: u32,
    /// ECX of its subleaf: bit 1 aligned, bit 2 under IA32_XFD.
    pub traits: u32,
}

impl Component {
    /// Its bit in XCR0, XSTATE_BV and XCOMP_BV.
    pub const fn bit(&self) -> u64 {
        1 << self.index
    }

    /// Whether it starts at a multiple of 64 bytes in the compacted form.
    pub const fn aligned(&self) -> bool {
        self.traits & 2 != 0
    }
}

/// R1 and R2 are not the same registers.
pub const DIFFER: u32 = 1;
/// They are not, and MXCSR is among what differs.
pub const DIFFER_IN_MXCSR: u32 = 2;
/// XSAVE and XSAVEC wrote another XSTATE_BV.
pub const DIFFER_IN_XSTATE_BV: u32 = 4;

/// A pair of images of the same registers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Number of the register contents that were loaded.
    pub state: u32,
    /// XSTATE_BV of the image that they were loaded from.
    pub loaded_bv: u64,
    /// RFBM of both saves and both restores.
    pub rfbm: u64,
    /// XGETBV with ECX = 1 before the saves.
    pub xinuse: u64,
    /// MXCSR that was loaded.
    pub loaded_mxcsr: u32,
    /// [`DIFFER`], [`DIFFER_IN_MXCSR`], [`DIFFER_IN_XSTATE_BV`].
    pub flags: u32,
    /// Checksums of R1 and R2.
    pub crc: [u32; 2],
    /// MXCSR in R1 and R2.
    pub mxcsr: [u32; 2],
    /// What XSAVE64 wrote.
    pub standard: Vec<u8>,
    /// What XSAVEC64 wrote.
    pub compacted: Vec<u8>,
}

/// A machine's images.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Corpus {
    /// XCR0 of the system that they were taken on.
    pub xcr0: u64,
    /// The components of XCR0 above SSE.
    pub components: Vec<Component>,
    /// The pairs.
    pub records: Vec<Record>,
}

/// Why bytes are no corpus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadCorpus {
    /// Offset in the file, in bytes.
    pub at: usize,
    /// What is wrong there.
    pub what: &'static str,
}

impl fmt::Display for BadCorpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.what, self.at)
    }
}

impl std::error::Error for BadCorpus {}

impl Corpus {
    /// Reads a file.
    ///
    /// # Errors
    /// Where and why it is not one.
    pub fn read(bytes: &[u8]) -> Result<Self, BadCorpus> {
        let mut reader = Reader { bytes, at: 0 };
        if reader.take(8)? != MAGIC {
            return Err(reader.bad("no XSVEC001"));
        }
        let xcr0 = reader.u64()?;
        let count = reader.u32()?;
        reader.u32()?;
        let mut components = Vec::new();
        for _ in 0..count {
            let component = Component {
                index: reader.u32()?,
                size: reader.u32()?,
                offset: reader.u32()?,
                traits: reader.u32()?,
            };
            let end = u64::from(component.offset) + u64::from(component.size);
            if !(2..63).contains(&component.index) || component.offset < 576 {
                return Err(reader.bad("a component that has no place"));
            }
            if end > u64::from(LARGEST_IMAGE) {
                return Err(reader.bad("a component that is too large"));
            }
            components.push(component);
        }
        let mut records = Vec::new();
        while reader.at < bytes.len() {
            records.push(reader.record()?);
        }
        Ok(Self {
            xcr0,
            components,
            records,
        })
    }

    /// The file of this corpus.
    pub fn write(&self) -> Vec<u8> {
        let mut out = Writer(MAGIC.to_vec());
        out.u64(self.xcr0);
        out.length(self.components.len());
        out.u32(0);
        for component in &self.components {
            out.u32(component.index);
            out.u32(component.size);
            out.u32(component.offset);
            out.u32(component.traits);
        }
        for record in &self.records {
            out.u32(RECORD);
            out.u32(record.state);
            out.u64(record.loaded_bv);
            out.u64(record.rfbm);
            out.u64(record.xinuse);
            out.u32(record.loaded_mxcsr);
            out.u32(record.flags);
            out.length(record.standard.len());
            out.length(record.compacted.len());
            record.crc.iter().for_each(|crc| out.u32(*crc));
            record.mxcsr.iter().for_each(|mxcsr| out.u32(*mxcsr));
            out.0.extend_from_slice(&record.standard);
            out.0.extend_from_slice(&record.compacted);
        }
        out.0
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn length(&mut self, length: usize) {
        // Images and component lists are far below 4 GiB.
        self.u32(u32::try_from(length).expect("a length of 32 bits"));
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn bad(&self, what: &'static str) -> BadCorpus {
        BadCorpus { at: self.at, what }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], BadCorpus> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = rest.get(..count).ok_or(self.bad("the file ends"))?;
        self.at += count;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32, BadCorpus> {
        let bytes = self.take(4)?.first_chunk();
        bytes
            .map(|bytes| u32::from_le_bytes(*bytes))
            .ok_or(self.bad("the file ends"))
    }

    fn u64(&mut self) -> Result<u64, BadCorpus> {
        Ok(u64::from(self.u32()?) | u64::from(self.u32()?) << 32)
    }

    fn record(&mut self) -> Result<Record, BadCorpus> {
        if self.u32()? != RECORD {
            return Err(self.bad("no SREC"));
        }
        let mut record = Record {
            state: self.u32()?,
            loaded_bv: self.u64()?,
            rfbm: self.u64()?,
            xinuse: self.u64()?,
            loaded_mxcsr: self.u32()?,
            flags: self.u32()?,
            ..Record::default()
        };
        let lengths = [self.u32()?, self.u32()?];
        record.crc = [self.u32()?, self.u32()?];
        record.mxcsr = [self.u32()?, self.u32()?];
        if lengths
            .iter()
            .any(|len| !(576..=LARGEST_IMAGE).contains(len))
        {
            return Err(self.bad("an image of no possible length"));
        }
        record.standard = self.take(lengths[0] as usize)?.to_vec();
        record.compacted = self.take(lengths[1] as usize)?.to_vec();
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Corpus {
        Corpus {
            xcr0: 0x6_0007,
            components: vec![Component {
                index: 17,
                size: 64,
                offset: 2752,
                traits: 2,
            }],
            records: vec![Record {
                state: 1,
                loaded_bv: 2,
                rfbm: 3,
                xinuse: 4,
                loaded_mxcsr: 5,
                flags: 6,
                crc: [7, 8],
                mxcsr: [9, 10],
                standard: vec![11; 576],
                compacted: vec![12; 640],
            }],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = sample().write();
        assert_eq!(bytes.len(), 24 + 16 + 64 + 576 + 640);
        assert_eq!(Corpus::read(&bytes), Ok(sample()));
        assert_eq!(&bytes[40..44], b"SREC");
    }

    /// Every cut but the one before the record is noticed, wherever it is.
    #[test]
    fn a_file_that_ends_early_is_refused() {
        let bytes = sample().write();
        for len in (0..bytes.len()).filter(|len| *len != 40) {
            let read = Corpus::read(&bytes[..len]);
            assert_eq!(read.unwrap_err().what, "the file ends", "{len} bytes");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_place() {
        for (at, value, what) in [
            (0, 0, "no XSVEC001"),
            (24, 1, "a component that has no place"),
            (24, 63, "a component that has no place"),
            (32, 575, "a component that has no place"),
            (28, u32::MAX, "a component that is too large"),
            (40, 0, "no SREC"),
            (80, 575, "an image of no possible length"),
            (84, u32::MAX, "an image of no possible length"),
        ] {
            let mut bytes = sample().write();
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            assert_eq!(Corpus::read(&bytes).unwrap_err().what, what, "{at}");
        }
    }
}
