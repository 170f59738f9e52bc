//! From a vCPU's state to a foreign form: a zeroed standard image, and the registers that go with it.

use zerocopy::FromBytes;

use super::Unholdable;
use crate::component::{ComponentIndex, ComponentSet};
use crate::convert::{Target, canonical_size, canonicalise, transfer_whole};
use crate::header::{COMPACTED, XsaveHeader};
use crate::hw::Hardware;
use crate::image::Image;
use crate::layout::{Form, Geometry, LEGACY_BYTES, MIN_IMAGE_BYTES};
use crate::mutants::rule;
use crate::owner::VcpuXstate;
use crate::percpu::PcpuXstate;
use crate::transit::{ExportError, Exported};
use crate::validate::{Claims, TrustedImage};
use crate::xcr0::Xcr0;

/// Bytes of Linux's `struct kvm_xsave`.
const KVM_XSAVE_BYTES: usize = 4096;

/// What a form is like that an image is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Components of the image: as many as the accumulated XCR0 has (Xen), or
    /// as many as fit in a buffer of the interface's size (KVM).
    sized_by_accum: bool,
    /// XCR0 goes with it.
    xcr0: bool,
    /// IA32_XSS, IA32_XFD and IA32_XFD_ERR have a way of their own.
    msrs: bool,
    /// Components that have a way of their own.
    elsewhere: ComponentSet,
    /// Components whose XSTATE_BV bit is set although they are INIT.
    spelled_out: ComponentSet,
    /// The interface's smallest buffer, in bytes: what reads it reads as many.
    least_bytes: usize,
}

impl Destination {
    /// Xen's PV and HVM records: as long as the accumulated XCR0 makes it, and
    /// nothing beside it.
    pub const XEN: Self = Self {
        sized_by_accum: true,
        xcr0: true,
        msrs: false,
        elsewhere: ComponentSet::EMPTY,
        spelled_out: ComponentSet::EMPTY,
        least_bytes: MIN_IMAGE_BYTES,
    };

    /// KVM's buffers: as long as KVM says (KVM_CHECK_EXTENSION of
    /// KVM_CAP_XSAVE2), never below the 4096 bytes of `struct kvm_xsave`, which
    /// KVM_SET_XSAVE reads whatever is in them ([`with_buffer`](Self::with_buffer)
    /// says how long this VM's are); IA32_XSS, IA32_XFD and IA32_XFD_ERR go
    /// by KVM_SET_MSRS. PKRU is spelled out, because KVM leaves the
    /// vCPU's PKRU as it was where its bit is clear.
    pub const KVM: Self = Self {
        sized_by_accum: false,
        xcr0: true,
        msrs: true,
        elsewhere: ComponentSet::EMPTY,
        spelled_out: ComponentSet::only(ComponentIndex::PKRU),
        least_bytes: KVM_XSAVE_BYTES,
    };

    /// The same, for an interface that reads `bytes` bytes whatever is in them: of
    /// KVM, what KVM_CHECK_EXTENSION(KVM_CAP_XSAVE2) says of the VM.
    #[must_use]
    pub const fn with_buffer(self, bytes: usize) -> Self {
        let least_bytes = if bytes > self.least_bytes {
            bytes
        } else {
            self.least_bytes
        };
        Self {
            least_bytes,
            ..self
        }
    }

    /// The same, for a caller who moves the registers of `components` in
    /// another way, and with them what IA32_XSS has of these: CET's MSRs by
    /// KVM_SET_MSRS or Xen's CPU_MSR record, say.
    #[must_use]
    pub const fn with_elsewhere(self, components: ComponentSet) -> Self {
        Self {
            elsewhere: components,
            ..self
        }
    }
}

/// What goes with a standard image that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standard {
    /// XCR0.
    pub xcr0: u64,
    /// User components that may hold state, groups whole: Xen's `xcr0_accum`.
    pub accum: u64,
    /// Bytes of the image, up to the end of the last component that its header
    /// names; those after it in the buffer are zero.
    pub len_bytes: usize,
}

impl TrustedImage<'_> {
    /// What was claimed and believed: what a blob's header has. XCOMP_BV is
    /// that of the image as it stands; 0 in the standard form.
    pub fn claims(&self) -> Claims {
        let (registers, image) = (&self.values().registers, self.image());
        Claims {
            xstate_mask: registers.policy_mask.bits(),
            xcr0: registers.xcr0.bits(),
            xss: registers.xss.bits(),
            xfd: registers.xfd.bits(),
            xfd_err: registers.xfd_err.bits(),
            accum: registers.accum.bits(),
            xcomp_bv: image.xcomp_bv(),
            xsave: registers.xsave,
        }
    }

    /// Bytes of the canonical image that [`export`](Self::export) writes.
    pub fn export_size(&self) -> usize {
        let image = self.image();
        canonical_size(image, ComponentSet::EMPTY)
    }

    /// Writes its canonical image, as a blob wants it: compacted, what is in
    /// use and no more.
    ///
    /// # Errors
    /// `out` is too small; nothing was written.
    pub fn export(&self, out: &mut [u8]) -> Result<Exported, ExportError> {
        let image = self.image();
        let written =
            canonicalise(image, ComponentSet::EMPTY, out).map_err(ExportError::TooSmall)?;
        Ok(Exported {
            claims: Claims {
                xcomp_bv: written.components.bits() | COMPACTED,
                ..self.claims()
            },
            image_len: written.len_bytes,
        })
    }

    /// Bytes of the buffer that [`write_standard`](Self::write_standard) needs:
    /// the image, and at least as many as `to` says that its interface reads.
    pub fn standard_size(&self, to: Destination) -> usize {
        standard_size(self.image(), &self.claims(), to)
    }

    /// Writes it as a zeroed standard image at the start of `out`, the rest of
    /// which is zeroed too.
    ///
    /// # Errors
    /// What `to` cannot hold; nothing was written.
    pub fn write_standard(&self, to: Destination, out: &mut [u8]) -> Result<Standard, Unholdable> {
        write_standard(self.image(), &self.claims(), to, out)
    }

    /// The FXSAVE region: x87 and SSE alone, for interfaces without XSAVE.
    ///
    /// # Errors
    /// A component beyond x87 and SSE is in use, or a control register is not as
    /// it is at reset: XCR0 too, which goes nowhere with it.
    pub fn write_fxsave(&self) -> Result<[u8; LEGACY_BYTES], Unholdable> {
        let mut image = [0; MIN_IMAGE_BYTES];
        let buffer = Destination {
            sized_by_accum: false,
            xcr0: false,
            msrs: false,
            elsewhere: ComponentSet::EMPTY,
            spelled_out: ComponentSet::EMPTY,
            least_bytes: MIN_IMAGE_BYTES,
        };
        write_standard(self.image(), &self.claims(), buffer, &mut image)?;
        let (region, _) = image
            .split_first_chunk()
            .unwrap_or_else(|| unreachable!("576 bytes begin with 512"));
        Ok(*region)
    }
}

impl VcpuXstate {
    /// Bytes of the buffer that [`export_standard`](Self::export_standard) needs:
    /// the image, and at least as many as `to` says that its interface reads.
    pub fn standard_size<H: Hardware>(
        &mut self,
        cpu: &mut PcpuXstate<H>,
        to: Destination,
    ) -> usize {
        let claims = self.claims(cpu);
        standard_size(&self.area.image(cpu.host().geometry()), &claims, to)
    }

    /// Writes the state as a zeroed standard image at the start of `out`, the
    /// rest of which is zeroed too.
    ///
    /// # Errors
    /// What `to` cannot hold; nothing was written.
    pub fn export_standard<H: Hardware>(
        &mut self,
        cpu: &mut PcpuXstate<H>,
        to: Destination,
        out: &mut [u8],
    ) -> Result<Standard, Unholdable> {
        let claims = self.claims(cpu);
        write_standard(&self.area.image(cpu.host().geometry()), &claims, to, out)
    }

    fn claims<H: Hardware>(&mut self, cpu: &mut PcpuXstate<H>) -> Claims {
        cpu.save(self);
        Claims {
            xstate_mask: self.policy.mask.bits(),
            xcr0: self.xcr0(),
            xss: self.xss(),
            xfd: self.xfd(),
            xfd_err: self.xfd_err(),
            accum: self.accum.bits(),
            xcomp_bv: 0,
            xsave: self.policy.xsave,
        }
    }
}

/// What the image is to hold: what is in use, is not disabled by the guest's
/// XFD, and has no other way.
fn moved(image: &Image<'_>, claims: &Claims, to: Destination) -> ComponentSet {
    let disabled = ComponentSet::from_bits_retain(claims.xfd);
    image.in_use().difference(disabled).difference(to.elsewhere)
}

/// The user components of `accum` and XCR0, groups whole: Xen checks both as
/// it would check XCR0, and that the one has what the other has.
fn accumulated(geometry: &Geometry, claims: &Claims) -> ComponentSet {
    let mut accum = ComponentSet::from_bits_retain(claims.accum | claims.xcr0)
        .difference(geometry.supervisor())
        .union(ComponentSet::LEGACY);
    for group in [ComponentSet::AVX512, ComponentSet::MPX, ComponentSet::AMX] {
        if accum.intersects(group) {
            accum.insert(group);
        }
    }
    if accum.intersects(ComponentSet::AVX512) {
        accum.insert(ComponentSet::UP_TO_AVX);
    }
    accum
}

/// What is INIT, but has to be said: of what the guest may have and its XFD
/// does not disable.
fn said(image: &Image<'_>, claims: &Claims, to: Destination) -> ComponentSet {
    to.spelled_out
        .intersection(ComponentSet::from_bits_retain(claims.xstate_mask))
        .intersection(image.geometry().known())
        .difference(to.elsewhere)
        .difference(ComponentSet::from_bits_retain(claims.xfd))
}

/// Up to the end of the last component that the header will name.
fn image_bytes(image: &Image<'_>, claims: &Claims, to: Destination) -> usize {
    let geometry = image.geometry();
    let room = if to.sized_by_accum {
        accumulated(geometry, claims)
    } else {
        moved(image, claims, to).union(said(image, claims, to))
    };
    geometry.image_size(Form::Standard, room)
}

fn standard_size(image: &Image<'_>, claims: &Claims, to: Destination) -> usize {
    image_bytes(image, claims, to).max(to.least_bytes)
}

fn write_standard(
    image: &Image<'_>,
    claims: &Claims,
    to: Destination,
    out: &mut [u8],
) -> Result<Standard, Unholdable> {
    let geometry = image.geometry();
    let (moved, said) = (moved(image, claims, to), said(image, claims, to));
    check(geometry, claims, to, moved, out.len())?;
    let needed = standard_size(image, claims, to);
    if out.len() < needed {
        return Err(Unholdable::TooSmall(out.len() as u64, needed as u64));
    }

    if rule!("write-zeroed") {
        out.fill(0);
    }
    let target = Target {
        geometry,
        form: Form::Standard,
        layout: moved,
    };
    let written = transfer_whole(image, moved, target, out);
    debug_assert!(written.is_ok(), "the buffer has been measured");
    if let Some(place) = out.get_mut(LEGACY_BYTES..MIN_IMAGE_BYTES)
        && let Ok(header) = XsaveHeader::mut_from_bytes(place)
    {
        *header = XsaveHeader::standard(header.xstate_bv().union(said));
    }
    Ok(Standard {
        xcr0: claims.xcr0,
        accum: accumulated(geometry, claims).bits(),
        len_bytes: image_bytes(image, claims, to),
    })
}

/// Everything that the form cannot hold, before a byte is written.
fn check(
    geometry: &Geometry,
    claims: &Claims,
    to: Destination,
    moved: ComponentSet,
    given: usize,
) -> Result<(), Unholdable> {
    // Xen has no record of a guest without XSAVE.
    if rule!("unholdable-without-xsave") && to.sized_by_accum && !claims.xsave {
        return Err(Unholdable::WithoutXsave);
    }

    // A standard image has no place for supervisor state.
    let supervisor = moved.intersection(geometry.supervisor());
    if let Some(component) = supervisor.iter().next()
        && rule!("unholdable-supervisor")
    {
        return Err(Unholdable::Supervisor(component));
    }

    // Registers that nothing carries are at their reset values.
    if !to.msrs {
        for (value, error) in [
            (
                claims.xss & !to.elsewhere.bits(),
                Unholdable::Xss as fn(u64) -> Unholdable,
            ),
            (claims.xfd, Unholdable::Xfd),
            (claims.xfd_err, Unholdable::XfdErr),
        ] {
            if rule!(error(value).rule()) && value != 0 {
                return Err(error(value));
            }
        }
    }

    // What is in use ends within the buffer (4096 bytes do not hold AMX).
    for place in geometry.placements(Form::Standard, moved) {
        let end = place.range().end;
        if rule!("unholdable-room") && end > given {
            return Err(Unholdable::NoRoom(
                place.component,
                given as u64,
                end as u64,
            ));
        }
    }

    // Without its XCR0 the guest would run on with what it has at reset.
    if rule!("unholdable-xcr0") && !to.xcr0 && claims.xcr0 != Xcr0::RESET.bits() {
        return Err(Unholdable::Xcr0(claims.xcr0));
    }
    Ok(())
}
