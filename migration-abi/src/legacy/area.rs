//! A raw XSAVE image: the part of it that is the same on every machine.

use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::error::{Allowed, ParseError, Rule};
use crate::mutants::rule;

/// Legacy region and header: no image is shorter (SDM Vol. 1, 13.4.1, 13.4.2).
pub const MIN_BYTES: usize = 576;
/// Where XCOMP_BV stands.
pub(crate) const XCOMP_BV_OFFSET: usize = 520;
/// Bit 63 of XCOMP_BV.
const COMPACTED: u64 = 1 << 63;

/// The form that an image has by its own XCOMP_BV.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// XCOMP_BV is 0: components lie where CPUID leaf 0xD says.
    Standard,
    /// Bit 63 is set: components lie one behind the other.
    Compacted,
    /// Neither: no processor takes it.
    Neither,
}

/// The header, and what of the legacy region is read here.
#[derive(FromBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Head {
    x87: [u8; 24],
    mxcsr: u32,
    mxcsr_mask: u32,
    registers: [u8; 480],
    xstate_bv: u64,
    xcomp_bv: u64,
    reserved: [u64; 6],
}

const _: () = assert!(size_of::<Head>() == MIN_BYTES);
const _: () = assert!(core::mem::offset_of!(Head, xcomp_bv) == XCOMP_BV_OFFSET);

/// An image of either form with legacy region and header, and whatever follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Area<'a> {
    bytes: &'a [u8],
    mxcsr: u32,
    xstate_bv: u64,
    xcomp_bv: u64,
}

impl<'a> Area<'a> {
    /// An image that fills `bytes`.
    ///
    /// Errors: fewer than 576 bytes.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let Ok((head, _)) = Head::read_from_prefix(bytes) else {
            let (seen, least) = (bytes.len() as u64, Allowed::AtLeast(MIN_BYTES as u64));
            return Err(ParseError::new(Rule::LegacyImageLength, 0, seen, least));
        };
        Ok(Self {
            bytes,
            mxcsr: head.mxcsr,
            xstate_bv: head.xstate_bv,
            xcomp_bv: head.xcomp_bv,
        })
    }

    /// An image of an interface that has the standard form alone.
    ///
    /// Errors: fewer than 576 bytes, or XCOMP_BV is not 0.
    pub fn parse_standard(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let area = Self::parse(bytes)?;
        if rule!("legacy-image-form") && area.xcomp_bv != 0 {
            let (at, seen) = (XCOMP_BV_OFFSET, area.xcomp_bv);
            let allowed = Allowed::Exactly(0);
            return Err(ParseError::new(Rule::LegacyImageForm, at, seen, allowed));
        }
        Ok(area)
    }

    /// All of it.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The form, by XCOMP_BV.
    #[must_use]
    pub const fn form(&self) -> Form {
        if self.xcomp_bv == 0 {
            Form::Standard
        } else if self.xcomp_bv & COMPACTED != 0 {
            Form::Compacted
        } else {
            Form::Neither
        }
    }

    /// Bytes 24 to 27. Whether they count depends on form and XSTATE_BV.
    #[must_use]
    pub const fn mxcsr(&self) -> u32 {
        self.mxcsr
    }

    /// Components that the image holds; others are INIT.
    #[must_use]
    pub const fn xstate_bv(&self) -> u64 {
        self.xstate_bv
    }

    /// XCOMP_BV as it stands.
    #[must_use]
    pub const fn xcomp_bv(&self) -> u64 {
        self.xcomp_bv
    }
}
