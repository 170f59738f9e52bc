//! KVM's buffers as `kvm-bindings` has them, for who calls the ioctls.

use kvm_bindings::{kvm_xcr, kvm_xcrs, kvm_xsave};
use zerocopy::IntoBytes;

use super::kvm::{MAX_XCRS, Xcrs, Xsave};
use crate::error::{Allowed, ParseError, Rule};

impl<'a> Xsave<'a> {
    /// Reads what KVM_GET_XSAVE filled in.
    ///
    /// Errors: as [`Xsave::parse`].
    pub fn from_kvm(xsave: &'a kvm_xsave) -> Result<Self, ParseError> {
        Self::parse(xsave.region.as_bytes())
    }

    /// Reads what KVM_GET_XSAVE2 filled in: the first 4096 bytes, and the words
    /// behind them (`as_slice` of `kvm_bindings::Xsave`). `bytes` is filled with
    /// both, one behind the other.
    ///
    /// Errors: as [`Xsave::parse`], or `bytes` is too small.
    pub fn from_kvm2(
        xsave: &kvm_xsave,
        extra: &[u32],
        bytes: &'a mut [u8],
    ) -> Result<Self, ParseError> {
        let (region, extra) = (xsave.region.as_bytes(), extra.as_bytes());
        let (given, needed) = (bytes.len(), region.len() + extra.len());
        let Some(bytes) = bytes.get_mut(..needed) else {
            let least = Allowed::AtLeast(needed as u64);
            return Err(ParseError::new(Rule::LegacyRoom, 0, given as u64, least));
        };
        let (first, second) = bytes.split_at_mut(region.len());
        first.copy_from_slice(region);
        second.copy_from_slice(extra);
        Self::parse(bytes)
    }

    /// Puts a standard image into the buffer of KVM_SET_XSAVE; with XSAVE2,
    /// into the words behind it too.
    ///
    /// Errors: as [`Xsave::encode`].
    pub fn to_kvm(
        image: &[u8],
        xsave: &mut kvm_xsave,
        extra: &mut [u32],
    ) -> Result<(), ParseError> {
        let (region, behind) = (xsave.region.as_mut_bytes(), extra.as_mut_bytes());
        let room = region.len() + behind.len();
        let (first, second) = image.split_at_checked(region.len()).unwrap_or((image, &[]));
        let Some((place, rest)) = behind.split_at_mut_checked(second.len()) else {
            let least = Allowed::AtLeast(image.len() as u64);
            return Err(ParseError::new(Rule::LegacyRoom, 0, room as u64, least));
        };
        Self::encode(first, region)?;
        place.copy_from_slice(second);
        rest.fill(0);
        Ok(())
    }
}

impl TryFrom<&kvm_xcrs> for Xcrs {
    type Error = ParseError;

    fn try_from(xcrs: &kvm_xcrs) -> Result<Self, ParseError> {
        let mut bytes = Self { xcr0: None }.encode();
        bytes[..4].copy_from_slice(&xcrs.nr_xcrs.to_le_bytes());
        bytes[4..8].copy_from_slice(&xcrs.flags.to_le_bytes());
        for (place, xcr) in bytes[8..].chunks_exact_mut(16).zip(&xcrs.xcrs) {
            place[..4].copy_from_slice(&xcr.xcr.to_le_bytes());
            place[8..].copy_from_slice(&xcr.value.to_le_bytes());
        }
        Self::parse(&bytes)
    }
}

impl From<Xcrs> for kvm_xcrs {
    fn from(xcrs: Xcrs) -> Self {
        let mut raw = Self::default();
        if let Some(value) = xcrs.xcr0 {
            raw.nr_xcrs = 1;
            raw.xcrs[0] = kvm_xcr {
                value,
                ..kvm_xcr::default()
            };
        }
        raw
    }
}

const _: () = assert!(size_of::<kvm_xcrs>() == super::kvm::XCRS_BYTES);
const _: () = assert!(kvm_bindings::KVM_MAX_XCRS as usize == MAX_XCRS);
const _: () = assert!(size_of::<kvm_xsave>() == super::kvm::XSAVE_BYTES);
