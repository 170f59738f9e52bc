//! A vCPU's extended state to and from its blob, as the control calls have it.

use crate::host;
use crate::sched::pcpu::Pcpu;
use alloc::vec::Vec;
use migration_abi::blob::{BlobError, latest};
use migration_abi::xstate as bridge;
use vcpu_xstate::area::AreaMemory;
use vcpu_xstate::error::Broken;
use vcpu_xstate::owner::{ImportError, VcpuXstate};

/// Why a blob was not taken, or could not be made. Nothing was changed.
#[derive(Clone, Copy, Debug)]
pub enum XstateError {
    /// Its form.
    Form(BlobError),
    /// A rule of `vcpu-xstate`.
    Content(Broken),
    /// No memory for the area of so many bytes.
    Area(Broken),
    /// No memory for so many bytes of blob.
    OutOfMemory(usize),
}

impl From<bridge::XstateError> for XstateError {
    fn from(error: bridge::XstateError) -> Self {
        use bridge::XstateError as B;
        match error {
            B::Form(error) => Self::Form(error),
            B::Directory(error) => Self::Content(error.broken()),
            B::Content(rejection) => Self::Content(rejection.broken()),
            B::Import(error @ ImportError::NeedsMemory(_)) => Self::Area(error.broken()),
            B::Import(error) => Self::Content(error.broken()),
            B::Export(error) => Self::Content(error.broken()),
        }
    }
}

/// The length of the blob that [`export`] would make now.
#[must_use]
pub fn blob_bytes(xstate: &mut VcpuXstate, pcpu: &mut Pcpu) -> usize {
    let image = xstate.export_size(&mut pcpu.xstate);
    latest::encoded_len(xstate.policy().mask.bits(), image, false).unwrap_or(0)
}

/// The vCPU's blob, without a checksum: it passes through memory only.
///
/// # Errors
/// No memory, or the format cannot hold it.
pub fn export(xstate: &mut VcpuXstate, pcpu: &mut Pcpu) -> Result<Vec<u8>, XstateError> {
    let mut blob = zeroed(blob_bytes(xstate, pcpu))?;
    let layouts = &host::get().layouts;
    bridge::export(xstate, &mut pcpu.xstate, layouts, false, &mut blob)?;
    Ok(blob)
}

fn zeroed(length: usize) -> Result<Vec<u8>, XstateError> {
    let mut bytes = Vec::new();
    bytes
        .try_reserve_exact(length)
        .map_err(|_| XstateError::OutOfMemory(length))?;
    bytes.resize(length, 0);
    Ok(bytes)
}

/// Makes the blob's state the vCPU's, all of it or nothing.
///
/// # Errors
/// See [`XstateError`].
pub fn import(
    bytes: &[u8],
    xstate: &mut VcpuXstate,
    pcpu: &mut Pcpu,
    memory: &mut impl AreaMemory,
) -> Result<(), XstateError> {
    #[cfg(feature = "import-fault")]
    let lossy = super::fault::lose(bytes);
    #[cfg(feature = "import-fault")]
    let bytes = &lossy;
    let layouts = &host::get().layouts;
    bridge::import(bytes, xstate, &mut pcpu.xstate, layouts, memory)?;
    Ok(())
}
