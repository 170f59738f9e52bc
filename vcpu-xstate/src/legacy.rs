//! The 512-byte legacy region as a type: x87, MXCSR, XMM, and what their INIT values are.
//!
//! SDM Vol. 1, 13.4.1 Legacy Region of an XSAVE Area and 13.6 Processor
//! Tracking of XSAVE-Managed State (initial configurations). The layout is
//! that of XSAVE64: 64-bit FIP and FDP, no FCS and FDS.

use core::mem::{offset_of, size_of};

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// MXCSR after reset and wherever SSE is INIT.
pub const MXCSR_INIT: u32 = 0x1f80;
/// x87 control word where x87 is INIT.
pub const FCW_INIT: u16 = 0x037f;

/// Legacy region of an image.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct LegacyRegion {
    /// x87 control word.
    pub fcw: U16,
    /// x87 status word.
    pub fsw: U16,
    /// Abridged tag word: a set bit is a register in use.
    pub ftw: u8,
    reserved0: u8,
    /// Last x87 opcode.
    pub fop: U16,
    /// Last x87 instruction pointer.
    pub fip: U64,
    /// Last x87 operand pointer.
    pub fdp: U64,
    /// MXCSR. Belongs to SSE and AVX both.
    pub mxcsr: U32,
    /// Written by the processor, ignored when restored.
    pub mxcsr_mask: U32,
    /// ST0–7, 10 bytes each and 6 reserved.
    pub st: [[u8; 16]; 8],
    /// XMM0–15.
    pub xmm: [[u8; 16]; 16],
    /// Reserved, and 48 bytes that the processor leaves to software.
    reserved1: [u8; 96],
}

const _: () = assert!(size_of::<LegacyRegion>() == 512);
const _: () = assert!(offset_of!(LegacyRegion, fip) == 8);
const _: () = assert!(offset_of!(LegacyRegion, mxcsr) == 24);
const _: () = assert!(offset_of!(LegacyRegion, st) == 32);
const _: () = assert!(offset_of!(LegacyRegion, xmm) == 160);
const _: () = assert!(offset_of!(LegacyRegion, reserved1) == 416);

/// The region in words: FCW, FSW, FTW, FOP in the first; FIP; FDP; MXCSR and
/// MXCSR_MASK; two for each ST; two for each XMM; reserved.
pub(crate) mod words {
    use zerocopy::little_endian::U64;

    pub(crate) type Words = [U64; 64];

    /// Of the first word, everything but the reserved byte beside FTW.
    pub(crate) const CONTROL: u64 = !0xff00_0000_0000;
    pub(crate) const MXCSR: usize = 3;
    pub(crate) const ST: usize = 4;
    pub(crate) const XMM: core::ops::Range<usize> = 20..52;
    /// Of an ST's second word, what belongs to its 80 bits.
    pub(crate) const ST_HIGH: u64 = 0xffff;
}

impl LegacyRegion {
    /// What x87 and SSE hold in their initial configuration.
    pub const INIT: Self = Self {
        fcw: U16::new(FCW_INIT),
        fsw: U16::new(0),
        ftw: 0,
        reserved0: 0,
        fop: U16::new(0),
        fip: U64::new(0),
        fdp: U64::new(0),
        mxcsr: U32::new(MXCSR_INIT),
        mxcsr_mask: U32::new(0),
        st: [[0; 16]; 8],
        xmm: [[0; 16]; 16],
        reserved1: [0; 96],
    };

    /// The region in words.
    #[inline(always)]
    pub(crate) fn words(&self) -> &words::Words {
        let Ok(words) = words::Words::ref_from_bytes(self.as_bytes()) else {
            unreachable!("a legacy region has 512 bytes");
        };
        words
    }

    /// Whether x87 holds its initial configuration, by content. Reserved bytes
    /// do not count.
    #[inline(always)]
    pub fn x87_is_init(&self) -> bool {
        use words::{CONTROL, ST, ST_HIGH, XMM};
        let words = self.words();
        // Of x87 in use mostly the first word tells, FTW being in it.
        if words[0].get() & CONTROL != FCW_INIT as u64 {
            return false;
        }
        let (registers, _) = words[ST..XMM.start].as_chunks::<2>();
        let pointers = words[1].get() | words[2].get();
        registers.iter().fold(pointers, |all, st| {
            all | st[0].get() | st[1].get() & ST_HIGH
        }) == 0
    }

    /// Whether an x87 exception is pending: FSW.ES.
    pub const fn exception_pending(&self) -> bool {
        self.fsw.get() & 0x80 != 0
    }

    /// Whether every XMM register is zero. MXCSR is judged apart, because
    /// whether this region's MXCSR counts depends on the form of the image.
    #[inline(always)]
    pub fn xmm_is_init(&self) -> bool {
        crate::bytes::is_zero(self.xmm.as_bytes())
    }

    /// Takes x87 from `other`, reserved bytes as zero.
    pub fn copy_x87(&mut self, other: &Self) {
        self.fcw = other.fcw;
        self.fsw = other.fsw;
        self.ftw = other.ftw;
        self.reserved0 = 0;
        self.fop = other.fop;
        self.fip = other.fip;
        self.fdp = other.fdp;
        for (to, from) in self.st.iter_mut().zip(&other.st) {
            to[..10].copy_from_slice(&from[..10]);
            to[10..].fill(0);
        }
    }

    /// The region without what is no state: MXCSR_MASK and reserved bytes.
    pub fn clear_reserved(&mut self) {
        self.reserved0 = 0;
        self.mxcsr_mask = U32::new(0);
        self.reserved1 = [0; 96];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn init_is_a_table_and_not_zero() {
        assert!(LegacyRegion::INIT.x87_is_init());
        assert!(LegacyRegion::INIT.xmm_is_init());
        let zero = LegacyRegion::read_from_bytes(&[0; 512]).unwrap();
        assert!(!zero.x87_is_init(), "FCW 0 is a value, INIT has 037F");
    }

    /// Every byte of x87 and XMM matters, every other does not.
    #[test]
    fn each_byte_counts_where_it_should() {
        for offset in 0..512 {
            let mut bytes = [0; 512];
            bytes.copy_from_slice(LegacyRegion::INIT.as_bytes());
            bytes[offset] ^= 0x40;
            let region = LegacyRegion::read_from_bytes(&bytes).unwrap();
            let x87 = matches!(offset, 0..=4 | 6..=23)
                || ((32..160).contains(&offset) && offset % 16 < 10);
            let sse = (160..416).contains(&offset);
            assert_eq!(region.x87_is_init(), !x87, "byte {offset}");
            assert_eq!(region.xmm_is_init(), !sse, "byte {offset}");
            let mut copy = LegacyRegion::INIT;
            copy.copy_x87(&region);
            assert_eq!(copy.x87_is_init(), !x87, "byte {offset}");
            assert_eq!(copy.as_bytes() == region.as_bytes(), x87, "byte {offset}");
        }
    }
}
