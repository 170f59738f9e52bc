//! The update of a component in a plain image: a buffer of a stopped vCPU that is no area of this crate.

use alloc::vec::Vec;

use zerocopy::FromBytes;

use super::bytes::{self, COPY_BYTES, WorkingCopy};
use super::{Update, UpdateError, Viewed};
use crate::area::OutOfMemory;
use crate::component::{ComponentIndex, ComponentSet};
use crate::header::{COMPACTED, XsaveHeader};
use crate::image::Image;
use crate::layout::{Form, Geometry, LEGACY_BYTES, MIN_IMAGE_BYTES, Placement};
use crate::mutants::rule;
use crate::values::Limits;
use crate::views::View;

/// An update of a component in a plain image.
#[derive(Debug)]
#[must_use = "without `finish` nothing changes"]
pub struct ImageUpdate<'a> {
    image: &'a mut [u8],
    limits: Limits,
    component: ComponentIndex,
    place: Option<Placement>,
    copy: WorkingCopy,
    /// The bytes of a component that is too large for a working copy.
    large: Option<Vec<u8>>,
}

/// Begins an update of one component in `image`, which has `form` and the
/// layout of a machine with `geometry`. `limits` are those of the machine that
/// is to restore it ([`HostXstate::limits`](crate::HostXstate::limits)).
///
/// Finishing marks the component in XSTATE_BV. What stands beside the image
/// (XCR0, IA32_XFD, the masks of a blob) is the caller's.
///
/// # Errors
/// The bytes are no image, have no room for the component, or it is larger
/// than 1024 bytes and there is no memory for a copy; nothing has changed.
pub fn begin_image<'a>(
    image: &'a mut [u8],
    geometry: &Geometry,
    form: Form,
    limits: &Limits,
    component: ComponentIndex,
) -> Result<ImageUpdate<'a>, UpdateError> {
    let view = Image::new(image, geometry, form).ok_or_else(|| no_image(image, geometry, form))?;
    let known = geometry.known();
    let len = bytes::len(geometry, component).ok_or(UpdateError::Policy(component, known))?;
    let legacy = matches!(component, ComponentIndex::X87 | ComponentIndex::SSE);
    let layout = match form {
        Form::Standard => known,
        Form::Compacted => view.layout(),
    };
    let place = bytes::place(geometry, form, layout, component);
    let has_room = place.is_some_and(|place| place.range().end <= image.len());
    if rule!("update-room") && !legacy && !has_room {
        let there = geometry
            .placements(form, layout)
            .filter(|place| place.range().end <= image.len())
            .fold(ComponentSet::LEGACY, |all, place| {
                all.union(ComponentSet::only(place.component))
            });
        return Err(UpdateError::Room(component, there));
    }
    let (mut copy, mut large) = (WorkingCopy::new(len), None);
    if len <= COPY_BYTES {
        bytes::read(&view, component, limits, copy.get_mut());
    } else {
        let mut all = Vec::new();
        all.try_reserve_exact(len)
            .map_err(|_| UpdateError::NeedsMemory(OutOfMemory { bytes: len }))?;
        all.resize(len, 0);
        bytes::read(&view, component, limits, &mut all);
        large = Some(all);
    }
    Ok(ImageUpdate {
        image,
        limits: *limits,
        component,
        place,
        copy,
        large,
    })
}

/// Why `image` is none of this form and machine.
#[cold]
fn no_image(image: &[u8], geometry: &Geometry, form: Form) -> UpdateError {
    let len = image.len() as u64;
    let header = image.get(LEGACY_BYTES..).unwrap_or_default();
    let Ok((header, _)) = XsaveHeader::ref_from_prefix(header) else {
        return UpdateError::Image(len, MIN_IMAGE_BYTES as u64);
    };
    let (xcomp_bv, xstate_bv) = (header.xcomp_bv(), header.xstate_bv());
    let (placeable, layout) = match form {
        Form::Standard if xcomp_bv != 0 => return UpdateError::Image(xcomp_bv, 0),
        Form::Compacted if xcomp_bv & COMPACTED == 0 => {
            return UpdateError::Image(xcomp_bv, xcomp_bv | COMPACTED);
        }
        Form::Standard => (
            geometry.known().difference(geometry.supervisor()),
            xstate_bv,
        ),
        Form::Compacted => (geometry.known(), header.layout()),
    };
    let held = layout.union(ComponentSet::LEGACY);
    if !placeable.contains(layout) {
        UpdateError::Image(layout.bits(), placeable.bits())
    } else if !held.contains(xstate_bv) {
        UpdateError::Image(xstate_bv.bits(), held.bits())
    } else {
        UpdateError::Image(len, geometry.image_size(form, layout) as u64)
    }
}

/// Begins an update of a plain image through a typed view; as [`begin_image`].
///
/// ```
/// use vcpu_xstate::update::begin_image_view;
/// use vcpu_xstate::views::{Access, Pkru, ProtectionKey};
/// # use vcpu_xstate::{ComponentFacts, ComponentIndex, Form, Geometry, values::Limits};
/// # let facts = ComponentFacts { size_bytes: 8, standard_offset: 2688,
/// #     supervisor: false, aligned64: false, xfd: false };
/// # let mut geometry = Geometry::new();
/// # geometry.insert(ComponentIndex::PKRU, facts).unwrap();
/// # let limits = Limits { mxcsr_mask: 0xffff, linear_address_bits: 48,
/// #     shadow_stacks: false, branch_tracking: false, lbr_control: 0, lbr_info: 0,
/// #     lbr_depth: 0 };
/// // A standard image with everything INIT, as KVM_GET_XSAVE2 may give it.
/// let mut image = vec![0; 2696];
/// image[24..28].copy_from_slice(&0x1f80_u32.to_le_bytes()); // MXCSR
/// let mut pkru = begin_image_view::<Pkru>(&mut image, &geometry, Form::Standard, &limits)?;
/// pkru.set(ProtectionKey::new(1).unwrap(), Access::ReadOnly);
/// pkru.finish()?;
/// assert_eq!((image[2688], image[513]), (0b1000, 0b10));
/// # Ok::<(), vcpu_xstate::update::UpdateError>(())
/// ```
///
/// # Errors
/// As [`begin_image`].
pub fn begin_image_view<'a, V: View>(
    image: &'a mut [u8],
    geometry: &Geometry,
    form: Form,
    limits: &Limits,
) -> Result<Viewed<V, ImageUpdate<'a>>, UpdateError> {
    let update = begin_image(image, geometry, form, limits, V::COMPONENT)?;
    Ok(Viewed::new(update))
}

impl Image<'_> {
    /// What the image has in a component, through a typed view: the INIT value
    /// where it holds none. `None` where its machine lacks the component.
    ///
    /// ```
    /// use vcpu_xstate::views::{CetUser, Mxcsr, Pkru};
    /// # use vcpu_xstate::{ComponentFacts, ComponentIndex, Form, Geometry, Image};
    /// # let facts = ComponentFacts { size_bytes: 8, standard_offset: 2688,
    /// #     supervisor: false, aligned64: false, xfd: false };
    /// # let mut geometry = Geometry::new();
    /// # geometry.insert(ComponentIndex::PKRU, facts).unwrap();
    /// let mut bytes = vec![0; 2696];
    /// bytes[24..28].copy_from_slice(&0x1fa0_u32.to_le_bytes()); // MXCSR
    /// let image = Image::new(&bytes, &geometry, Form::Standard).unwrap();
    /// assert_eq!(image.view::<Pkru>(), Some(Pkru(0)));
    /// assert_eq!(image.view::<Mxcsr>().unwrap().bits(), 0x1fa0);
    /// assert!(image.view::<CetUser>().is_none());
    /// ```
    pub fn view<V: View>(&self) -> Option<V> {
        // No view is of branch records, whose INIT alone differs by machine.
        let limits = Limits {
            mxcsr_mask: 0,
            linear_address_bits: 48,
            shadow_stacks: false,
            branch_tracking: false,
            lbr_control: 0,
            lbr_info: 0,
            lbr_depth: 0,
        };
        let len = bytes::len(self.geometry(), V::COMPONENT)?;
        Some(bytes::view(self, &limits, len))
    }
}

impl Update for ImageUpdate<'_> {
    fn component(&self) -> ComponentIndex {
        self.component
    }

    fn bytes(&self) -> &[u8] {
        match &self.large {
            Some(large) => large,
            None => self.copy.get(),
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.large {
            Some(large) => large,
            None => self.copy.get_mut(),
        }
    }

    fn finish(self) -> Result<(), UpdateError> {
        let component = self.component;
        bytes::judge(component, self.bytes(), &self.limits)
            .map_err(|bad| UpdateError::Value(component, bad))?;
        let new = match &self.large {
            Some(large) => large,
            None => self.copy.get(),
        };
        bytes::write(self.image, component, self.place, new);
        Ok(())
    }
}
