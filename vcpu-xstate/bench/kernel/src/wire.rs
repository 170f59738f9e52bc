//! A vCPU's blob, written and read as `hypervisor/src/migrate` does it.

use migration_abi::blob::latest::{self, EntryFlags, Incompatible};
use vcpu_xstate::component::{ComponentIndex, ComponentSet};
use vcpu_xstate::hw::Silicon;
use vcpu_xstate::layout::{ComponentFacts, Geometry};
use vcpu_xstate::owner::VcpuXstate;
use vcpu_xstate::percpu::PcpuXstate;
use vcpu_xstate::{Claims, validate};

use crate::heap::AreaHeap;

/// What the architecture says of x87 and SSE: offset and size.
const LEGACY_PLACES: [(u32, u32); 2] = [(0, 160), (160, 256)];

/// Header fields of a blob with these claims.
pub fn fields(claims: &Claims) -> latest::Fields {
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
        xsave: !blob.flags().contains(Incompatible::NO_XSAVE),
    }
}

/// The directory of a machine with `geometry`, for the components of `mask`.
pub fn directory(
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

fn geometry(blob: &latest::Blob<'_>) -> Option<Geometry> {
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
        geometry.insert(component, facts).ok()?;
    }
    Some(geometry)
}

/// Writes the vCPU's blob, image and all; gives its length.
pub fn export(
    vcpu: &mut VcpuXstate,
    cpu: &mut PcpuXstate<Silicon>,
    image: &mut [u8],
    out: &mut [u8],
) -> Option<usize> {
    let exported = vcpu.export(cpu, image).ok()?;
    let mask = vcpu.policy().mask;
    let directory = directory(cpu.host().geometry(), mask);
    let image = image.get(..exported.image_len)?;
    latest::encode(out, &fields(&exported.claims), directory, image).ok()
}

/// Makes the blob's state the vCPU's, if every rule is kept.
pub fn import(
    bytes: &[u8],
    vcpu: &mut VcpuXstate,
    cpu: &mut PcpuXstate<Silicon>,
    memory: &mut AreaHeap,
) -> Option<()> {
    let blob = migration_abi::blob::parse(bytes).ok()?;
    let geometry = geometry(&blob)?;
    let claims = claims(&blob);
    let trusted = validate(&claims, &geometry, blob.image(), cpu.host(), vcpu.policy());
    vcpu.import(&trusted.ok()?, cpu, memory).ok()
}
