//! `import`: a blob from anywhere becomes a vCPU's state, or is refused by name.

use migration_abi::blob::{self, latest};
use vcpu_xstate::convert::{canonical_size, canonicalise};
use vcpu_xstate::layout::{ComponentFacts, Form, Geometry};
use vcpu_xstate::{Claims, ComponentIndex, ComponentSet, Image, Rejection, XstatePolicy, validate};

use crate::machines::{Machine, machine};
use crate::mend;

/// One input: what is mended, the machine, a blob.
///
/// # Panics
/// Where something accepted is not what it must be.
pub fn run(data: &[u8]) {
    let Some((&[bits, number], bytes)) = data.split_first_chunk() else {
        return;
    };
    let machine = machine(number);
    let mut bytes = bytes.to_vec();
    mend::blob(
        &mut bytes,
        bits,
        machine.host.geometry(),
        machine.host.offered(),
    );
    // Refused bytes are `decode`'s.
    if let Ok(blob) = blob::parse(&bytes) {
        take(&blob, machine);
    }
}

/// Judges a blob, and holds what is accepted to its promises. Says whether it was.
///
/// # Panics
/// Where something accepted is not what it must be.
pub fn take(blob: &latest::Blob<'_>, machine: &Machine) -> bool {
    let host = &machine.host;
    let Some(geometry) = geometry(blob) else {
        return false;
    };
    let claims = claims(blob);
    let policy = if claims.xsave {
        XstatePolicy::new(host.offered(), ComponentSet::EMPTY)
    } else {
        XstatePolicy::without_xsave()
    };
    if let Err(rejection) = validate(&claims, &geometry, blob.image(), host, &policy) {
        assert_ne!(rejection.code(), 0, "{}", rejection.rule());
        return false;
    }
    // The canonical image of what was accepted is accepted, and is its own.
    let image = Image::new(blob.image(), host.geometry(), Form::Compacted).expect("accepted");
    let first = canonical(&image, host.geometry());
    let again = Image::new(&first, host.geometry(), Form::Compacted).expect("canonical");
    assert_eq!(again.in_use(), image.in_use());
    assert_eq!(again.mxcsr(), image.mxcsr());
    assert_eq!(canonical(&again, host.geometry()), first);
    let claims = Claims {
        xcomp_bv: image.in_use().bits() | 1 << 63,
        accum: claims.accum | image.in_use().bits(),
        ..claims
    };
    let verdict: Result<(), Rejection> =
        validate(&claims, &geometry, &first, host, &policy).map(|_| ());
    assert_eq!(verdict, Ok(()), "the canonical image is refused");
    true
}

fn canonical(image: &Image<'_>, geometry: &Geometry) -> Vec<u8> {
    let mut out = vec![0xa5; canonical_size(image, geometry, ComponentSet::EMPTY)];
    let written = canonicalise(image, geometry, ComponentSet::EMPTY, &mut out).expect("room");
    assert_eq!(written.len_bytes, out.len());
    out
}

/// What the blob's header claims.
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

/// The layout of the blob's directory, where a machine can have it.
fn geometry(blob: &latest::Blob<'_>) -> Option<Geometry> {
    let mut geometry = Geometry::new();
    for entry in blob.directory().iter().filter(|entry| entry.index >= 2) {
        let flags = latest::EntryFlags::from_bits_retain(entry.flags);
        let facts = ComponentFacts {
            size_bytes: entry.size,
            standard_offset: entry.standard_offset,
            supervisor: flags.contains(latest::EntryFlags::SUPERVISOR),
            aligned64: flags.contains(latest::EntryFlags::ALIGN64),
            xfd: flags.contains(latest::EntryFlags::XFD),
        };
        let component = ComponentIndex::new(u8::try_from(entry.index).ok()?)?;
        geometry.insert(component, facts).ok()?;
    }
    Some(geometry)
}
