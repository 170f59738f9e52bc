//! The buffer of one vCPU: allocated by its owner's rules, sized by a mask, 64-byte aligned by its type.
//!
//! An area always holds an image that its own host can restore: the header is
//! written when the buffer is made, the form never changes, and a re-size
//! makes a new buffer and moves the state before the old one goes. So a
//! re-size either happened or did not, and memory that was freed is never the
//! image that the processor remembers (XSAVEOPT and XSAVES skip what did not
//! change since the last XRSTOR from the same address).

use alloc::vec::Vec;
use core::fmt;
use core::ptr::{slice_from_raw_parts, slice_from_raw_parts_mut};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::component::ComponentSet;
use crate::convert::{Target, transfer};
use crate::cpuid::Format;
use crate::header::XsaveHeader;
use crate::image::Image;
use crate::layout::{Form, Geometry, LEGACY_BYTES, MIN_IMAGE_BYTES};
use crate::legacy::LegacyRegion;
use crate::mutants::rule;

/// The grain of areas: 64 bytes at a multiple of 64, as XSAVE wants it.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct Block([u8; 64]);

impl Block {
    /// A block of zeros.
    pub const ZERO: Self = Self([0; 64]);
}

/// Where areas come from. The implementation accounts for what it gives, to
/// the domain that the vCPU belongs to.
pub trait AreaMemory {
    /// `blocks` blocks of zeros, or `None` where there is no memory.
    fn allocate(&mut self, blocks: usize) -> Option<Vec<Block>>;

    /// Takes back what [`allocate`](Self::allocate) gave.
    fn release(&mut self, blocks: Vec<Block>);
}

/// An area could not be allocated; nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory {
    /// Size of the area that was asked for, in bytes.
    pub bytes: usize,
}

impl OutOfMemory {
    /// Name of the rule, as other errors have it.
    pub const RULE: &'static str = "area-memory";
    /// Stable number of the rule.
    pub const CODE: u32 = 0x801;
}

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} bytes are missing", Self::RULE, self.bytes)
    }
}

impl core::error::Error for OutOfMemory {}

/// A vCPU's extended-state buffer.
pub struct Area {
    buffer: Vec<Block>,
    mask: ComponentSet,
    format: Format,
    size_bytes: usize,
    layout_id: u64,
    label: u64,
}

impl Area {
    /// An area with room for `mask`, everything INIT.
    ///
    /// # Errors
    /// No memory.
    pub fn new(
        geometry: &Geometry,
        format: Format,
        mask: ComponentSet,
        memory: &mut impl AreaMemory,
    ) -> Result<Self, OutOfMemory> {
        let size_bytes = geometry.image_size(format, mask);
        let blocks = size_bytes.div_ceil(size_of::<Block>());
        let buffer = memory
            .allocate(blocks)
            .ok_or(OutOfMemory { bytes: size_bytes })?;
        assert_eq!(buffer.len(), blocks, "AreaMemory gave another size");
        let mut area = Self {
            buffer,
            mask,
            format,
            size_bytes,
            layout_id: geometry.id(format),
            label: geometry.label(format),
        };
        if rule!("new-area-is-init") {
            area.set_init();
        }
        Ok(area)
    }

    /// Makes everything INIT. The bytes of components stay, unread.
    pub fn set_init(&mut self) {
        let header = match self.format {
            Form::Standard => XsaveHeader::standard(ComponentSet::EMPTY),
            Form::Compacted => XsaveHeader::compacted(ComponentSet::EMPTY, self.mask),
        };
        let bytes = self.bytes_mut();
        bytes[..LEGACY_BYTES].copy_from_slice(LegacyRegion::INIT.as_bytes());
        bytes[LEGACY_BYTES..MIN_IMAGE_BYTES].copy_from_slice(header.as_bytes());
    }

    /// A second area, for `mask`, with the state of this one that fits.
    ///
    /// # Errors
    /// No memory; this area is untouched in any case.
    pub fn relaid(
        &self,
        geometry: &Geometry,
        mask: ComponentSet,
        memory: &mut impl AreaMemory,
    ) -> Result<Self, OutOfMemory> {
        let mut area = Self::new(geometry, self.format, mask, memory)?;
        area.fill(geometry, &self.image(geometry), mask);
        Ok(area)
    }

    /// Replaces the content by what `image` holds of `components`.
    #[inline(always)]
    pub fn fill(&mut self, geometry: &Geometry, image: &Image<'_>, components: ComponentSet) {
        let target = Target {
            geometry,
            form: self.format,
            layout: self.mask,
        };
        let written = transfer(image, components, target, self.bytes_mut());
        assert!(written.is_ok(), "an area has the size of its own mask");
    }

    /// The image that it holds; `geometry` is the host's that it was made with.
    #[inline(always)]
    pub fn image<'a>(&'a self, geometry: &'a Geometry) -> Image<'a> {
        let Some(image) = Image::new(self.bytes(), geometry, self.format) else {
            panic!("the image of an area is the host's own: {self:?}");
        };
        image
    }

    /// Marks components INIT in the header; says whether one of them was not.
    pub fn forget(&mut self, components: ComponentSet) -> bool {
        let header = &mut self.bytes_mut()[LEGACY_BYTES..MIN_IMAGE_BYTES];
        let Ok(header) = XsaveHeader::mut_from_bytes(header) else {
            unreachable!("64 bytes are a header");
        };
        let held = header.xstate_bv();
        let kept = held.difference(components);
        *header = match self_form(header) {
            Form::Standard => XsaveHeader::standard(kept),
            Form::Compacted => XsaveHeader::compacted(kept, header.layout()),
        };
        kept != held
    }

    /// Zeroes FOP, FIP and FDP where no exception is pending, after a save of a
    /// processor that leaves them unwritten then (XSA-52): what stands there is of
    /// an older exception, and no state.
    #[cold]
    pub(crate) fn clear_stale_fp_pointers(&mut self) {
        let Ok((legacy, _)) = LegacyRegion::mut_from_prefix(self.bytes_mut()) else {
            unreachable!("an area has a legacy region");
        };
        if !legacy.exception_pending() {
            (legacy.fop, legacy.fip, legacy.fdp) = Default::default();
        }
    }

    /// Gives the buffer back.
    pub fn release(self, memory: &mut impl AreaMemory) {
        memory.release(self.buffer);
    }

    /// The components that have room.
    pub const fn mask(&self) -> ComponentSet {
        self.mask
    }

    /// The form of its image.
    pub const fn format(&self) -> Format {
        self.format
    }

    /// Bytes of the image: the buffer is this, rounded up to 64.
    pub const fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// The layout that it was made for: [`Geometry::id`].
    pub const fn layout_id(&self) -> u64 {
        self.layout_id
    }

    /// [`Geometry::label`] of what it was made for, or of what it was found to
    /// have room for.
    #[inline(always)]
    pub(crate) const fn label(&self) -> u64 {
        self.label
    }

    /// `label` is that of a geometry whose image of this mask has room here.
    pub(crate) const fn set_label(&mut self, label: u64) {
        self.label = label;
    }

    /// Its image, aligned to 64; valid for all of it.
    #[inline(always)]
    pub(crate) const fn start(&self) -> *const [u8] {
        slice_from_raw_parts(self.buffer.as_ptr().cast(), self.size_bytes)
    }

    /// As [`start`](Self::start), to be written.
    #[inline(always)]
    pub(crate) const fn start_mut(&mut self) -> *mut [u8] {
        slice_from_raw_parts_mut(self.buffer.as_mut_ptr().cast(), self.size_bytes)
    }

    /// The image's bytes.
    #[inline(always)]
    pub fn bytes(&self) -> &[u8] {
        &self.buffer.as_slice().as_bytes()[..self.size_bytes]
    }

    #[inline(always)]
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buffer.as_mut_slice().as_mut_bytes()[..self.size_bytes]
    }
}

fn self_form(header: &XsaveHeader) -> Form {
    if header.xcomp_bv() == 0 {
        Form::Standard
    } else {
        Form::Compacted
    }
}

impl fmt::Debug for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Area")
            .field("mask", &self.mask)
            .field("format", &self.format)
            .field("size_bytes", &self.size_bytes)
            .finish_non_exhaustive()
    }
}
