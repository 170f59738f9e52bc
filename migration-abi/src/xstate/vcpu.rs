//! A vCPU's state straight into a blob and out of it: one pass, no copy between.

use vcpu_xstate::area::AreaMemory;
use vcpu_xstate::hw::Hardware;
use vcpu_xstate::layout::{Form, Geometry, GeometryError};
use vcpu_xstate::owner::{ExportError, ImportError, NativeError, VcpuXstate};
use vcpu_xstate::percpu::PcpuXstate;
use vcpu_xstate::validate::{Rejection, validate};

use super::{claimed, claims, directory, fields, geometry};
use crate::blob::latest::{Layouts, Own, head_len, seal, write_head};
use crate::blob::{Blob, BlobError};

/// Why a blob was not made, or not taken. The vCPU is as it was.
#[derive(Clone, Copy, Debug)]
pub enum XstateError {
    /// Its form, or the buffer is too small for header and directory.
    Form(BlobError),
    /// Its directory describes what no machine can have.
    Directory(GeometryError),
    /// What it says.
    Content(Rejection),
    /// The vCPU has another policy, or there is no memory.
    Import(ImportError),
    /// The buffer is too small for the image.
    Export(ExportError),
}

/// What a host says of its layouts in every blob that it writes. Made once.
#[derive(Clone, Debug)]
pub struct HostLayouts {
    layouts: Layouts,
    /// Of the geometry that it was made of.
    id: u64,
}

impl HostLayouts {
    /// That of a host with `geometry`.
    ///
    /// # Errors
    /// A component has a layout that the format cannot tell.
    pub fn new(geometry: &Geometry) -> Result<Self, BlobError> {
        Ok(Self {
            layouts: Layouts::new(directory(geometry, geometry.known()))?,
            id: geometry.id(Form::Standard),
        })
    }

    /// Panics where this is another host's: its blobs would lie about their
    /// layouts, and those of others would be believed.
    #[inline(always)]
    fn of(&self, host: &Geometry) -> &Layouts {
        assert_eq!(self.id, host.id(Form::Standard), "another host's layouts");
        &self.layouts
    }
}

/// Writes the vCPU's blob at the start of `out`; gives its length. The image
/// lies at [`head_len`]: it is copied fastest where that is a multiple of 64.
///
/// # Errors
/// `out` is too small; what it holds then is unspecified.
#[inline(always)]
pub fn export<H: Hardware>(
    vcpu: &mut VcpuXstate,
    cpu: &mut PcpuXstate<H>,
    layouts: &HostLayouts,
    crc: bool,
    out: &mut [u8],
) -> Result<usize, XstateError> {
    let place = head_len(vcpu.policy().mask.bits());
    let image = out.get_mut(place..).unwrap_or_default();
    let exported = vcpu.export(cpu, image).map_err(XstateError::Export)?;
    let layouts = layouts.of(cpu.host().geometry());
    let fields = fields(&exported.claims, crc);
    let len = write_head(out, &fields, layouts, exported.image_len).map_err(XstateError::Form)?;
    if crc {
        seal(out.get_mut(..len).unwrap_or_default()).map_err(XstateError::Form)?;
    }
    Ok(len)
}

/// Makes a blob's state the vCPU's, all of it or nothing. `bytes` are the blob,
/// and no more.
///
/// # Errors
/// The first rule that it breaks.
#[inline(always)]
pub fn import<H: Hardware>(
    bytes: &[u8],
    vcpu: &mut VcpuXstate,
    cpu: &mut PcpuXstate<H>,
    layouts: &HostLayouts,
    memory: &mut impl AreaMemory,
) -> Result<(), XstateError> {
    let layouts = layouts.of(cpu.host().geometry());
    match Own::parse(bytes, layouts) {
        // It says the same as this host in every word of its directory: there is
        // nothing to compare any more.
        Some(own) => {
            let taken = vcpu.import_native(&claimed(&own.fields), own.image, cpu, memory);
            taken.map_err(native)
        }
        None => import_any(bytes, vcpu, cpu, layouts, memory),
    }
}

/// A blob with a checksum, or of a machine whose directory is not, word for
/// word, this host's.
#[cold]
#[inline(never)]
fn import_any<H: Hardware>(
    bytes: &[u8],
    vcpu: &mut VcpuXstate,
    cpu: &mut PcpuXstate<H>,
    layouts: &Layouts,
    memory: &mut impl AreaMemory,
) -> Result<(), XstateError> {
    let (blob, same_layouts) = Blob::parse_on(bytes, layouts).map_err(XstateError::Form)?;
    let claims = claims(&blob);
    if same_layouts {
        let taken = vcpu.import_native(&claims, blob.image(), cpu, memory);
        return taken.map_err(native);
    }
    let geometry = geometry(&blob).map_err(XstateError::Directory)?;
    let (host, policy) = (cpu.host(), vcpu.policy());
    let trusted = validate(&claims, &geometry, blob.image(), host, policy);
    let trusted = trusted.map_err(XstateError::Content)?;
    vcpu.import(&trusted, cpu, memory)
        .map_err(XstateError::Import)
}

const fn native(error: NativeError) -> XstateError {
    match error {
        NativeError::Content(rejection) => XstateError::Content(rejection),
        NativeError::Import(error) => XstateError::Import(error),
    }
}
