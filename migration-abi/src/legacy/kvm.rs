//! KVM's buffers: `kvm_xsave` of 4096 bytes or of XSAVE2's size, and `kvm_xcrs`.
//!
//! KVM_GET_XSAVE gives 4096 bytes and cuts off what lies behind; with
//! KVM_CAP_XSAVE2 the size is what KVM_CHECK_EXTENSION says of the VM, 4096 at
//! least, and KVM_SET_XSAVE then reads as many. The image is in the standard
//! form always. Bytes 464 to 511 are the kernel's own (a mask and zeros); they
//! are no state.

use core::mem::{offset_of, size_of};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::area::Area;
use crate::error::{Allowed, ParseError, Rule};
use crate::mutants::rule;

/// Length of the buffer of KVM_GET_XSAVE, and least length of XSAVE2's.
pub const XSAVE_BYTES: usize = 4096;
/// Length of `kvm_xcrs`.
pub const XCRS_BYTES: usize = size_of::<RawXcrs>();
/// XCRs that `kvm_xcrs` has room for.
pub const MAX_XCRS: usize = 16;

/// A buffer with a standard image in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Xsave<'a>(Area<'a>);

impl<'a> Xsave<'a> {
    /// Reads a buffer, all of it.
    ///
    /// Errors: shorter than 4096 bytes, or XCOMP_BV is not 0.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        if rule!("legacy-kvm-length") && bytes.len() < XSAVE_BYTES {
            return Err(too_short(bytes.len()));
        }
        Area::parse_standard(bytes).map(Self)
    }

    /// The image, to the buffer's end.
    #[must_use]
    pub const fn area(&self) -> Area<'a> {
        self.0
    }

    /// Puts a standard image into a buffer of KVM's size and zeroes the rest.
    ///
    /// Errors: the buffer is shorter than 4096 bytes or than the image, or the
    /// image is not a standard one. Nothing is written then.
    pub fn encode(image: &[u8], buffer: &mut [u8]) -> Result<(), ParseError> {
        Area::parse_standard(image)?;
        if rule!("legacy-kvm-length") && buffer.len() < XSAVE_BYTES {
            return Err(too_short(buffer.len()));
        }
        let given = buffer.len() as u64;
        let Some((place, rest)) = buffer.split_at_mut_checked(image.len()) else {
            let least = Allowed::AtLeast(image.len() as u64);
            return Err(ParseError::new(Rule::LegacyRoom, 0, given, least));
        };
        place.copy_from_slice(image);
        rest.fill(0);
        Ok(())
    }
}

fn too_short(seen: usize) -> ParseError {
    let least = Allowed::AtLeast(XSAVE_BYTES as u64);
    ParseError::new(Rule::LegacyKvmLength, 0, seen as u64, least)
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawXcr {
    xcr: u32,
    reserved: u32,
    value: u64,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawXcrs {
    nr_xcrs: u32,
    flags: u32,
    xcrs: [RawXcr; MAX_XCRS],
    padding: [u64; 16],
}

const _: () = assert!(size_of::<RawXcrs>() == 392);
const _: () = assert!(offset_of!(RawXcrs, xcrs) == 8);

/// What `kvm_xcrs` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Xcrs {
    /// XCR0; `None` where the host has no XSAVE and KVM tells no XCR.
    pub xcr0: Option<u64>,
}

impl Xcrs {
    /// Reads a `kvm_xcrs`.
    ///
    /// Errors: not its length, more than 16 XCRs, flags, an XCR other than
    /// XCR0, or XCR0 twice.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let stop = |rule, at, seen, allowed| Err(ParseError::new(rule, at, seen, allowed));
        let Ok(raw) = RawXcrs::read_from_bytes(bytes) else {
            let exactly = Allowed::Exactly(XCRS_BYTES as u64);
            return stop(Rule::LegacyXcrsLength, 0, bytes.len() as u64, exactly);
        };
        if rule!("legacy-xcrs-flags") && raw.flags != 0 {
            let (at, seen) = (offset_of!(RawXcrs, flags), raw.flags.into());
            return stop(Rule::LegacyXcrsFlags, at, seen, Allowed::Exactly(0));
        }
        let Some(xcrs) = raw.xcrs.get(..raw.nr_xcrs as usize) else {
            let most = Allowed::AtMost(MAX_XCRS as u64);
            return stop(Rule::LegacyXcrsCount, 0, raw.nr_xcrs.into(), most);
        };
        let mut xcr0 = None;
        for (index, xcr) in xcrs.iter().enumerate() {
            if rule!("legacy-xcr") && (xcr.xcr != 0 || xcr0.is_some()) {
                let at = offset_of!(RawXcrs, xcrs) + index * size_of::<RawXcr>();
                let words = Allowed::Words("XCR0, once");
                return stop(Rule::LegacyXcr, at, xcr.xcr.into(), words);
            }
            xcr0 = Some(xcr.value);
        }
        Ok(Self { xcr0 })
    }

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; XCRS_BYTES] {
        let none = RawXcr {
            xcr: 0,
            reserved: 0,
            value: 0,
        };
        let mut raw = RawXcrs {
            nr_xcrs: 0,
            flags: 0,
            xcrs: [none; MAX_XCRS],
            padding: [0; 16],
        };
        if let Some(value) = self.xcr0 {
            raw.nr_xcrs = 1;
            raw.xcrs[0].value = value;
        }
        zerocopy::transmute!(raw)
    }

    /// XCR0, its reset value where KVM tells none.
    #[must_use]
    pub const fn xcr0_or_reset(&self) -> u64 {
        match self.xcr0 {
            Some(value) => value,
            None => 1,
        }
    }
}
