//! A vCPU's extended state to and from its blob.

use crate::sched::pcpu::Pcpu;
use alloc::vec::Vec;
use migration_abi::blob::{BlobError, latest, latest::EntryFlags};
use vcpu_xstate::area::AreaMemory;
use vcpu_xstate::component::{ComponentIndex, ComponentSet};
use vcpu_xstate::error::Broken;
use vcpu_xstate::layout::{ComponentFacts, Geometry, GeometryError};
use vcpu_xstate::owner::{ImportError, VcpuXstate};
use vcpu_xstate::validate::{Claims, Rejection, validate};

/// Why a blob was not taken, or could not be made. Nothing was changed.
#[derive(Clone, Copy, Debug)]
pub enum XstateError {
    /// Its form.
    Form(BlobError),
    /// Its directory.
    Directory(GeometryError),
    /// What it says.
    Content(Rejection),
    /// The vCPU has another policy, or there is no memory.
    Import(ImportError),
    /// No memory for the bytes.
    OutOfMemory(usize),
}

impl XstateError {
    /// The rule of `vcpu-xstate` that was broken, where it was one of its.
    #[must_use]
    pub fn broken(&self) -> Option<Broken> {
        match self {
            Self::Directory(error) => Some(error.broken()),
            Self::Content(rejection) => Some(rejection.broken()),
            Self::Import(error) => Some(error.broken()),
            Self::Form(_) | Self::OutOfMemory(_) => None,
        }
    }
}

/// What the architecture says of components that leaf 0xD says nothing of:
/// offset and size in the legacy region.
const LEGACY_PLACES: [(u32, u32); 2] = [(0, 160), (160, 256)];

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
    let mut image = zeroed(xstate.export_size(&mut pcpu.xstate))?;
    let exported = xstate
        .export(&mut pcpu.xstate, &mut image)
        .map_err(|error| XstateError::OutOfMemory(error.allowed() as usize))?;
    let fields = fields(&exported.claims);
    let mask = ComponentSet::from_bits_retain(fields.xstate_mask);
    let length = latest::encoded_len(mask.bits(), exported.image_len, false);
    let mut blob = zeroed(length.unwrap_or(0))?;
    let geometry = pcpu.xstate.host().geometry();
    latest::encode(&mut blob, &fields, directory(geometry, mask), &image)
        .map_err(XstateError::Form)?;
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
    let blob = migration_abi::blob::parse(bytes).map_err(XstateError::Form)?;
    let geometry = geometry(&blob).map_err(XstateError::Directory)?;
    let trusted = validate(
        &claims(&blob),
        &geometry,
        blob.image(),
        pcpu.xstate.host(),
        xstate.policy(),
    )
    .map_err(XstateError::Content)?;
    xstate
        .import(&trusted, &mut pcpu.xstate, memory)
        .map_err(XstateError::Import)?;
    Ok(())
}

fn fields(claims: &Claims) -> latest::Fields {
    latest::Fields {
        xstate_mask: claims.xstate_mask,
        xcr0: claims.xcr0,
        xss: claims.xss,
        xfd: claims.xfd,
        xfd_err: claims.xfd_err,
        accum: claims.accum,
        xcomp_bv: claims.xcomp_bv,
        no_xsave: !claims.xsave,
        crc: false,
    }
}

fn claims(blob: &latest::Blob<'_>) -> Claims {
    let header = blob.header();
    Claims {
        xstate_mask: header.xstate_mask,
        xcr0: header.xcr0,
        xss: header.xss,
        xfd: header.xfd,
        xfd_err: header.xfd_err,
        accum: header.accum,
        xcomp_bv: header.xcomp_bv,
        xsave: !blob.flags().contains(latest::Incompatible::NO_XSAVE),
    }
}

/// The directory of a machine with `geometry`, for the components of `mask`.
fn directory(
    geometry: &Geometry,
    mask: ComponentSet,
) -> impl Iterator<Item = latest::DirectoryEntry> {
    mask.iter().map(|component| {
        let index = u32::from(component.get());
        if let Some((offset, size)) = LEGACY_PLACES.get(index as usize) {
            return latest::DirectoryEntry {
                index,
                size: *size,
                flags: 0,
                standard_offset: *offset,
            };
        }
        // A policy has only components that the host has facts of; an entry of
        // zeros would be refused by the writer.
        let facts = geometry.get(component);
        let flag = |on: Option<bool>, flag: EntryFlags| match on {
            Some(true) => flag,
            _ => EntryFlags::empty(),
        };
        let flags = flag(facts.map(|f| f.supervisor), EntryFlags::SUPERVISOR)
            | flag(facts.map(|f| f.aligned64), EntryFlags::ALIGN64)
            | flag(facts.map(|f| f.xfd), EntryFlags::XFD);
        latest::DirectoryEntry {
            index,
            size: facts.map_or(0, |f| f.size_bytes),
            flags: flags.bits(),
            standard_offset: facts.map_or(0, |f| f.standard_offset),
        }
    })
}

/// The layout that the blob's own directory tells.
fn geometry(blob: &latest::Blob<'_>) -> Result<Geometry, GeometryError> {
    let mut geometry = Geometry::new();
    for entry in blob.directory().iter() {
        let index = u8::try_from(entry.index).ok().and_then(ComponentIndex::new);
        let Some(component) = index.filter(|c| !ComponentSet::LEGACY.has(*c)) else {
            continue;
        };
        let flags = EntryFlags::from_bits_retain(entry.flags);
        geometry.insert(
            component,
            ComponentFacts {
                size_bytes: entry.size,
                standard_offset: entry.standard_offset,
                supervisor: flags.contains(EntryFlags::SUPERVISOR),
                aligned64: flags.contains(EntryFlags::ALIGN64),
                xfd: flags.contains(EntryFlags::XFD),
            },
        )?;
    }
    Ok(geometry)
}
