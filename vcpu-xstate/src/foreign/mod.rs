//! Images of hypervisors that have no blob: what is taken from them, and what can be given to them.
//!
//! ```text
//!  Xen's records, KVM's buffer, a raw image
//!        │ ForeignImage: bytes, and the registers that came with them
//!        ▼
//!      read ──────────── the rules of `validate` ────► TrustedImage ──export──► blob
//!        └─► Dropped: what a lenient read left out          │
//!                                                     write_standard
//!                                                           ▼
//!                                          standard image, XCR0, accumulated XCR0
//! ```
//!
//! A blob says whose layout it has and what its vCPU may use. These forms do
//! not: the geometry is whoever's machine made the image (the host's own,
//! unless another is given) and the policy is that of the vCPU that takes it.
//! All else is as with a blob: nothing is believed, and only what has passed
//! becomes a [`TrustedImage`](crate::TrustedImage).
//!
//! **MXCSR.** A standard image's counts whatever its XSTATE_BV says, as
//! standard-form XRSTOR has it (SDM Vol. 1, 13.8.1); a compacted image's counts
//! with XSTATE_BV\[1\]. An image that is written has that bit wherever MXCSR is
//! not 1F80, because KVM takes MXCSR only with it. MXCSR_MASK and bytes 416 to
//! 511, where Linux leaves words of its own, are not state and are not read.

mod error;
mod read;
mod write;

#[cfg(test)]
mod lenient_tests;
#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod quirk_tests;
#[cfg(test)]
mod read_tests;
#[cfg(test)]
mod write_tests;

pub use error::{ForeignError, Unholdable};
pub use read::{Dropped, Taken, read};
pub use write::{Destination, Standard};

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, IntoBytes};

use crate::component::ComponentSet;
use crate::header::XsaveHeader;
use crate::layout::{LEGACY_BYTES, MIN_IMAGE_BYTES};
use crate::legacy::LegacyRegion;

/// Which forms of an image an interface has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepts {
    /// The standard form. A compacted image handed over there would be read at
    /// wrong offsets (Linux df1daba7d1), and is refused by name.
    Standard,
    /// Either; its own XCOMP_BV tells which.
    Either,
}

/// What may follow an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Nothing: the length is exact.
    None,
    /// Zeros, as in the records of Xen 4.3.0, 4.2.3 and older, which were as
    /// long as the host's largest image.
    Zeros,
    /// Anything: the bytes are a buffer of the interface's size.
    Unread,
}

/// What it means that an image holds what its IA32_XFD disables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnderXfd {
    /// That it is no image: no save leaves XSTATE_BV so (SDM Vol. 1, 13.14).
    Refused,
    /// Nothing: KVM's buffers have anything there, and a load of one makes it
    /// INIT. It is left out, and reported.
    Init,
}

/// How FIP and FDP stand in the legacy region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FpPointers {
    /// 64 bits each, as XSAVE64 and FXSAVE64 write them.
    Wide,
    /// As byte 511 says, which is Xen's own: 2 or 4 for an offset of 32 bits with
    /// the selector behind it, which it restores by XRSTOR without REX.W where
    /// a processor keeps selectors; else wide.
    ByWordSize,
}

/// What to do with state of components that the vCPU's policy does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excess {
    /// Refuse the image.
    Refuse,
    /// Leave those components out and report each. For images of a host that
    /// saves more than the guest has, as older KVMs do with PKRU and with
    /// whatever the host kernel uses (Linux ad856280dd, 8647c52e95). Only what
    /// is outside the policy is ever dropped, and XCR0 is never changed.
    Drop,
}

/// The registers that came with an image. Untrusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForeignRegisters {
    /// XCR0.
    pub xcr0: u64,
    /// What may hold state (Xen's `xcr0_accum`), where the form has it. It also
    /// is what the length of a standard image follows; where it is missing,
    /// that is XCR0.
    pub accum: Option<u64>,
    /// IA32_XSS.
    pub xss: u64,
    /// IA32_XFD.
    pub xfd: u64,
    /// IA32_XFD_ERR.
    pub xfd_err: u64,
}

impl ForeignRegisters {
    /// XCR0 alone, the others at their reset values.
    pub const fn xcr0(xcr0: u64) -> Self {
        Self {
            xcr0,
            accum: None,
            xss: 0,
            xfd: 0,
            xfd_err: 0,
        }
    }
}

/// An image with what came with it. Untrusted.
#[derive(Clone, Copy, Debug)]
pub struct ForeignImage<'a> {
    /// Legacy region, header and components.
    pub bytes: &'a [u8],
    /// The forms that its interface has.
    pub accepts: Accepts,
    /// What may follow it.
    pub tail: Tail,
    /// What it may hold of components that its IA32_XFD disables.
    pub under_xfd: UnderXfd,
    /// How x87's pointers stand in it.
    pub fp_pointers: FpPointers,
    /// Supervisor components that the caller moves in another way, of an image
    /// in the standard form, which has no place for them.
    pub elsewhere: ComponentSet,
    /// Its registers.
    pub registers: ForeignRegisters,
}

impl<'a> ForeignImage<'a> {
    /// A raw image of either form, exactly as long as its XCOMP_BV makes it,
    /// or in the standard form as `accum` (else XCR0) makes it.
    pub const fn raw(bytes: &'a [u8], registers: ForeignRegisters) -> Self {
        Self {
            bytes,
            accepts: Accepts::Either,
            tail: Tail::None,
            under_xfd: UnderXfd::Refused,
            fp_pointers: FpPointers::Wide,
            elsewhere: ComponentSet::EMPTY,
            registers,
        }
    }

    /// The image of a KVM buffer (KVM_GET_XSAVE, KVM_GET_XSAVE2), all of it;
    /// XCR0 is KVM_GET_XCRS's, IA32_XSS, IA32_XFD and IA32_XFD_ERR KVM_GET_MSRS's.
    ///
    /// A guest with CET has its registers in MSRs, so an IA32_XSS that enables it
    /// is refused until the caller says so ([`with_elsewhere`](Self::with_elsewhere));
    /// then CET is INIT in what is read. A vCPU that has taken it gets them by
    /// [`begin_view`](crate::VcpuXstate::begin_view). For a blob they are put in:
    /// [`transfer`](crate::convert::transfer) of what was read to the compacted
    /// form with room for them, [`begin_image_view`](crate::update::begin_image_view),
    /// and the result is read once more, as [`raw`](Self::raw).
    pub const fn kvm(bytes: &'a [u8], registers: ForeignRegisters) -> Self {
        Self {
            bytes,
            accepts: Accepts::Standard,
            tail: Tail::Unread,
            under_xfd: UnderXfd::Init,
            fp_pointers: FpPointers::Wide,
            elsewhere: ComponentSet::EMPTY,
            registers,
        }
    }

    /// The image of a Xen PV record, with the record's XCR0 and accumulated XCR0.
    pub const fn xen_pv(bytes: &'a [u8], xcr0: u64, xcr0_accum: u64) -> Self {
        Self {
            bytes,
            accepts: Accepts::Standard,
            tail: Tail::None,
            under_xfd: UnderXfd::Refused,
            fp_pointers: FpPointers::ByWordSize,
            elsewhere: ComponentSet::EMPTY,
            registers: ForeignRegisters {
                accum: Some(xcr0_accum),
                ..ForeignRegisters::xcr0(xcr0)
            },
        }
    }

    /// The image of a Xen HVM record, which may be longer by zeros.
    pub const fn xen_hvm(bytes: &'a [u8], xcr0: u64, xcr0_accum: u64) -> Self {
        Self {
            tail: Tail::Zeros,
            ..Self::xen_pv(bytes, xcr0, xcr0_accum)
        }
    }

    /// The image of a vCPU that has no XSAVE state (Xen's `{0, 0}`, a guest
    /// without XSAVE): what [`image_of_fxsave`] made of its FXSAVE region.
    pub const fn fxsave(image: &'a [u8; MIN_IMAGE_BYTES]) -> Self {
        Self {
            fp_pointers: FpPointers::ByWordSize,
            ..Self::raw(image, ForeignRegisters::xcr0(1))
        }
    }

    /// The same, for a caller who moves the registers of `components` in
    /// another way: CET's by KVM_GET_MSRS, say. They are INIT in what is read.
    #[must_use]
    pub const fn with_elsewhere(self, components: ComponentSet) -> Self {
        Self {
            elsewhere: components,
            ..self
        }
    }
}

/// Makes x87's pointers wide in an image of Xen's whose byte 511 says that they
/// are not: the offsets stay, the selectors are lost, as they are in every image
/// of a guest in 64-bit mode. Says whether anything was lost. For images that
/// [`read`] refuses by `foreign-fp-selectors`: the image, not the record around it.
///
/// Bytes that are too few for a legacy region stay as they are.
pub fn drop_fp_selectors(image: &mut [u8]) -> bool {
    let Ok((legacy, _)) = LegacyRegion::mut_from_prefix(image) else {
        return false;
    };
    if !read::has_selectors(legacy) {
        return false;
    }
    legacy.fip = U64::new(legacy.fip.get() & read::OFFSET);
    legacy.fdp = U64::new(legacy.fdp.get() & read::OFFSET);
    true
}

/// The image of an FXSAVE region: x87 and SSE are state without XSAVE too
/// (Linux a1020a25e6).
pub fn image_of_fxsave(region: &[u8; LEGACY_BYTES]) -> [u8; MIN_IMAGE_BYTES] {
    let mut image = [0; MIN_IMAGE_BYTES];
    let (legacy, header) = image.split_at_mut(LEGACY_BYTES);
    legacy.copy_from_slice(region);
    header.copy_from_slice(XsaveHeader::standard(ComponentSet::LEGACY).as_bytes());
    image
}
