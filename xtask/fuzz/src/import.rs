//! `import`: a blob from anywhere becomes a vCPU's state, or is refused by name.

use migration_abi::blob::{self, Blob};
use migration_abi::xstate;
use vcpu_xstate::layout::{Form, Geometry};
use vcpu_xstate::{ComponentSet, Image, TrustedImage, XstatePolicy, validate};

use crate::machines::{Machine, machine};
use crate::mend;
use crate::processor::{canonical, through_registers};

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
    let (geometry, offered) = (machine.host.geometry(), machine.host.offered());
    mend::blob(&mut bytes, bits, geometry, offered);
    // Refused bytes are `decode`'s.
    if let Ok(blob) = blob::parse(&bytes) {
        take(&blob, machine);
    }
}

/// Judges a blob, and holds what is accepted to its promises. Says whether it was.
///
/// # Panics
/// Where something accepted is not what it must be.
pub fn take(blob: &Blob<'_>, machine: &Machine) -> bool {
    let Ok(geometry) = xstate::geometry(blob) else {
        return false;
    };
    let claims = xstate::claims(blob);
    let policy = if claims.xsave {
        XstatePolicy::new(machine.host.offered(), ComponentSet::EMPTY)
    } else {
        XstatePolicy::without_xsave()
    };
    match validate(&claims, &geometry, blob.image(), &machine.host, &policy) {
        Ok(trusted) => {
            keeps_its_promises(&trusted, machine, &policy);
            true
        }
        Err(rejection) => {
            assert_ne!(rejection.code(), 0, "{}", rejection.rule());
            false
        }
    }
}

/// What is always so of a trusted image of this machine's layout: no restore
/// of it faults, the registers then hold what it says, and as a blob it is
/// accepted again and written as the same bytes.
///
/// # Panics
/// Where it is not so.
pub fn keeps_its_promises(trusted: &TrustedImage<'_>, machine: &Machine, policy: &XstatePolicy) {
    let host = &machine.host;
    let first = exported(trusted);
    let blob = blob::parse(&first).expect("what was exported is a blob");
    let geometry: Geometry = xstate::geometry(&blob).expect("of this machine");
    let claims = xstate::claims(&blob);
    let again = validate(&claims, &geometry, blob.image(), host, policy)
        .unwrap_or_else(|rejection| panic!("the export is refused: {rejection}"));
    same(&exported(&again), &first, "exported twice");

    let image = Image::new(blob.image(), host.geometry(), Form::Compacted).expect("trusted");
    same(
        &canonical(&image, host.geometry()),
        blob.image(),
        "canonical",
    );
    same(
        &through_registers(machine, &image),
        blob.image(),
        "the registers",
    );
}

fn exported(trusted: &TrustedImage<'_>) -> Vec<u8> {
    let mut out = vec![0xa5; xstate::blob_len(trusted, true)];
    let written = xstate::write_blob(trusted, true, &mut out);
    assert_eq!(written, Ok(out.len()));
    out
}

/// Panics where two images differ, and says where.
///
/// # Panics
/// They do.
pub fn same(one: &[u8], other: &[u8], what: &str) {
    let at = one.iter().zip(other).position(|(a, b)| a != b);
    assert_eq!(at, None, "{what}: {} and {} bytes", one.len(), other.len());
    assert_eq!(one.len(), other.len(), "{what}");
}
