//! The bridge to `vcpu-xstate`: blobs and other hypervisors' forms to and from its types.
//!
//! This crate knows bytes, `vcpu-xstate` what they mean; neither needs the
//! other. Who uses both has these few lines for it (feature `xstate`):
//!
//! ```text
//!  Xen's record, KVM's buffer ──foreign()──► vcpu_xstate::foreign::read ─┐
//!  blob ──claims(), geometry()─────────────► vcpu_xstate::validate ──────┴─► TrustedImage
//!  TrustedImage ──write_blob()──► blob
//! ```

use vcpu_xstate::component::{ComponentIndex, ComponentSet};
use vcpu_xstate::foreign::{ForeignImage, ForeignRegisters};
use vcpu_xstate::layout::{ComponentFacts, Geometry, GeometryError};
use vcpu_xstate::validate::{Claims, TrustedImage};

use crate::blob::latest::{self, EntryFlags, Fields};
use crate::blob::{Blob, BlobError, DirectoryEntry};
use crate::legacy::kvm::{Xcrs, Xsave};
use crate::legacy::xen::{HvmRecord, PvRecord};

/// Where x87 and SSE stand in the directory, which CPUID tells nothing of:
/// offset and size in the legacy region.
const LEGACY_PLACES: [(u32, u32); 2] = [(0, 160), (160, 256)];

/// Bit 63 of XCOMP_BV.
const COMPACTED: u64 = 1 << 63;

/// What a blob's header says of a vCPU with these claims.
#[must_use]
#[inline(always)]
pub const fn fields(claims: &Claims, crc: bool) -> Fields {
    Fields {
        xstate_mask: claims.xstate_mask,
        xcr0: claims.xcr0,
        xss: claims.xss,
        xfd: claims.xfd,
        xfd_err: claims.xfd_err,
        accum: claims.accum,
        xcomp_bv: claims.xcomp_bv,
        no_xsave: !claims.xsave,
        crc,
    }
}

/// What a blob claims.
#[must_use]
pub const fn claims(blob: &Blob<'_>) -> Claims {
    claimed(&Fields::of(blob))
}

/// What a blob with these fields claims.
#[inline(always)]
const fn claimed(fields: &Fields) -> Claims {
    Claims {
        xstate_mask: fields.xstate_mask,
        xcr0: fields.xcr0,
        xss: fields.xss,
        xfd: fields.xfd,
        xfd_err: fields.xfd_err,
        accum: fields.accum,
        xcomp_bv: fields.xcomp_bv,
        xsave: !fields.no_xsave,
    }
}

/// The directory of a machine with `geometry` for the components of `mask`,
/// all of which it knows.
pub fn directory(geometry: &Geometry, mask: ComponentSet) -> impl Iterator<Item = DirectoryEntry> {
    mask.iter().map(|component| {
        let index = u32::from(component.get());
        if let Some((standard_offset, size)) = LEGACY_PLACES.get(index as usize) {
            return DirectoryEntry {
                index,
                size: *size,
                flags: 0,
                standard_offset: *standard_offset,
            };
        }
        // One that is not known is an entry of zeros, which no reader takes.
        let facts = geometry.get(component);
        let flag = |on: Option<bool>, flag: EntryFlags| match on {
            Some(true) => flag.bits(),
            _ => 0,
        };
        DirectoryEntry {
            index,
            size: facts.map_or(0, |facts| facts.size_bytes),
            flags: flag(facts.map(|facts| facts.supervisor), EntryFlags::SUPERVISOR)
                | flag(facts.map(|facts| facts.aligned64), EntryFlags::ALIGN64)
                | flag(facts.map(|facts| facts.xfd), EntryFlags::XFD),
            standard_offset: facts.map_or(0, |facts| facts.standard_offset),
        }
    })
}

/// The layout that a blob's own directory tells.
///
/// # Errors
/// The directory describes what no machine can have.
pub fn geometry(blob: &Blob<'_>) -> Result<Geometry, GeometryError> {
    let mut geometry = Geometry::new();
    for entry in blob.directory().iter() {
        let index = u8::try_from(entry.index).ok().and_then(ComponentIndex::new);
        let Some(component) = index.filter(|c| !ComponentSet::LEGACY.has(*c)) else {
            continue;
        };
        let flags = EntryFlags::from_bits_retain(entry.flags);
        let facts = ComponentFacts {
            size_bytes: entry.size,
            standard_offset: entry.standard_offset,
            supervisor: flags.contains(EntryFlags::SUPERVISOR),
            aligned64: flags.contains(EntryFlags::ALIGN64),
            xfd: flags.contains(EntryFlags::XFD),
        };
        geometry.insert(component, facts)?;
    }
    Ok(geometry)
}

mod vcpu;

pub use vcpu::{HostLayouts, XstateError, export, import};

/// Bytes of the blob that [`write_blob`] makes.
#[must_use]
pub fn blob_len(image: &TrustedImage<'_>, crc: bool) -> usize {
    let mask = image.claims().xstate_mask;
    latest::encoded_len(mask, image.export_size(), crc).unwrap_or(usize::MAX)
}

/// Writes an image that was validated as a blob at the start of `out`; gives
/// the blob's length. What is INIT is left out.
///
/// # Errors
/// `out` is too small; what it holds then is unspecified.
pub fn write_blob(image: &TrustedImage<'_>, crc: bool, out: &mut [u8]) -> Result<usize, BlobError> {
    let in_use = image.image().in_use();
    let claims = Claims {
        xcomp_bv: in_use.bits() | COMPACTED,
        ..image.claims()
    };
    let mask = ComponentSet::from_bits_retain(claims.xstate_mask);
    let directory = directory(image.image().geometry(), mask);
    let place = latest::prepare(out, &fields(&claims, crc), directory, image.export_size())?;
    let written = image.export(place);
    debug_assert!(written.is_ok(), "the place has been measured");
    let len = blob_len(image, crc);
    latest::seal(out.get_mut(..len).unwrap_or_default())?;
    Ok(len)
}

impl<'a> PvRecord<'a> {
    /// The image with its registers; `None` where the record has none.
    #[must_use]
    pub fn foreign(&self) -> Option<ForeignImage<'a>> {
        let area = self.area?;
        let bytes = area.bytes();
        Some(ForeignImage::xen_pv(bytes, self.xcr0, self.xcr0_accum))
    }
}

impl<'a> HvmRecord<'a> {
    /// The image with its registers; `None` where the record has none.
    #[must_use]
    pub fn foreign(&self) -> Option<ForeignImage<'a>> {
        let area = self.area?;
        let bytes = area.bytes();
        Some(ForeignImage::xen_hvm(bytes, self.xcr0, self.xcr0_accum))
    }
}

impl<'a> Xsave<'a> {
    /// The image with XCR0. IA32_XSS, IA32_XFD and IA32_XFD_ERR, where the
    /// guest has them, are to be filled in from KVM_GET_MSRS.
    #[must_use]
    pub const fn foreign(&self, xcrs: Xcrs) -> ForeignImage<'a> {
        let registers = ForeignRegisters::xcr0(xcrs.xcr0_or_reset());
        ForeignImage::kvm(self.area().bytes(), registers)
    }
}
