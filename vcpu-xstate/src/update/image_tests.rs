//! Updates of plain images: what is written validates and is restored, and what cannot be is named.

use super::tests::set;
use super::update_tests::{Where, bench, change, machine};
use super::*;
use crate::ComponentIndex;
use crate::layout::{Form, Geometry};
use crate::model::{InitTracking, Registers};
use crate::testing::{host, modelled, user};
use crate::update::{Update, UpdateError, begin_image, begin_image_view};
use crate::validate::{Claims, validate};
use crate::views::{CetUser, Mxcsr, Pkru, Xmm};

/// A canonical image of all components in use but those of `without`.
fn exported(without: u64) -> (HostXstate, Claims, Vec<u8>) {
    let mut bench = bench(0xf, InitTracking::ByContent, Where::Init);
    let mask = bench.vcpu.policy.mask.difference(set(without | 3));
    bench.cpu.load(&mut bench.vcpu).unwrap();
    for component in mask {
        bench.cpu.save(&mut bench.vcpu);
        let mut update = bench
            .vcpu
            .begin_update(component, &mut bench.cpu, &mut bench.memory)
            .unwrap();
        change(&mut update, &mut bench.expected);
        update.finish().unwrap();
    }
    let mut out = vec![0; bench.vcpu.export_size(&mut bench.cpu)];
    let exported = bench.vcpu.export(&mut bench.cpu, &mut out).unwrap();
    assert_eq!(exported.claims.xcomp_bv & !(1 << 63), mask.bits());
    (bench.cpu.host().clone(), exported.claims, out)
}

/// A stopped vCPU of another VMM: the same update of an image in a buffer. A
/// validated image stays one that validates.
#[test]
fn components_of_a_plain_image() {
    let (host, claims, image) = exported(0x200);
    let (geometry, form, limits) = (host.geometry(), Form::Compacted, host.limits());
    let policy = XstatePolicy::new(host.offered(), ComponentSet::EMPTY);
    let layout = set(claims.xcomp_bv & !(1 << 63));
    let machine = modelled(&host, InitTracking::ByContent);
    let mut scratch = Registers::init(machine.cpu.machine());
    for component in layout.union(ComponentSet::LEGACY) {
        let mut copy = image.clone();
        let mut update = begin_image(&mut copy, geometry, form, &limits, component).unwrap();
        update.bytes_mut().fill(0xff);
        drop(update);
        assert!(copy == image, "{component} was dropped");
        let mut update = begin_image(&mut copy, geometry, form, &limits, component).unwrap();
        change(&mut update, &mut scratch);
        let wanted = update.bytes().to_vec();
        update.finish().unwrap();
        let update = begin_image(&mut copy, geometry, form, &limits, component).unwrap();
        assert_eq!(update.bytes(), wanted, "{component}");
        drop(update);
        let claims = Claims {
            accum: claims.accum | component.bit(),
            xcomp_bv: claims.xcomp_bv | component.bit(),
            ..claims
        };
        let valid = validate(&claims, geometry, &copy, &host, &policy);
        assert!(valid.is_ok(), "{component}: {valid:?}");
    }
    // No room: named, with what has room.
    let mut copy = image;
    let error = begin_image_view::<Pkru>(&mut copy, geometry, form, &limits).unwrap_err();
    let room = layout.union(ComponentSet::LEGACY);
    assert_eq!(error, UpdateError::Room(ComponentIndex::PKRU, room));
    let error = begin_image(
        &mut copy[..600],
        geometry,
        form,
        &limits,
        ComponentIndex::SSE,
    );
    assert_eq!(
        error.unwrap_err(),
        UpdateError::Image(600, copy.len() as u64)
    );
    let error = begin_image(
        &mut copy,
        geometry,
        Form::Standard,
        &limits,
        ComponentIndex::SSE,
    );
    assert_eq!(error.unwrap_err().rule(), "update-image");
}

/// Bytes 24 to 27 of a compacted image are MXCSR only with XSTATE_BV[1]: where
/// SSE is INIT, so is MXCSR, whatever an older save left there.
#[test]
fn mxcsr_of_a_compacted_image_whose_sse_is_init() {
    let (host, _, mut image) = exported(0x203);
    image[24..28].copy_from_slice(&0x1fa5_u32.to_le_bytes());
    let (geometry, limits) = (host.geometry(), host.limits());
    let begin = |image| begin_image_view::<Mxcsr>(image, geometry, Form::Compacted, &limits);
    let mxcsr = begin(&mut image).unwrap();
    assert_eq!(*mxcsr, Mxcsr::INIT);
    mxcsr.finish().unwrap();
    let image = crate::Image::new(&image, geometry, Form::Compacted).unwrap();
    assert_eq!(image.mxcsr(), 0x1f80, "the restore gives what was shown");
    assert!(image.xstate_bv().has(ComponentIndex::SSE));
}

/// In the standard form a component lies at its offset whether it is marked or
/// not, its old bytes mean nothing, and MXCSR counts without a mark.
#[test]
fn components_of_a_plain_standard_image() {
    let geometry = machine();
    let limits = host(machine(), 0).limits();
    let form = Form::Standard;
    let mut image = vec![0xee; 2816 + 8192];
    image[512..576].fill(0);
    image[24..32].copy_from_slice(&0x1fa5_u64.to_le_bytes());
    let update = begin_image(&mut image, &geometry, form, &limits, ComponentIndex::AVX).unwrap();
    assert_eq!(update.bytes(), [0; 256], "INIT, not what lies there");
    update.finish().unwrap();
    assert_eq!(image[576..832], [0; 256]);
    let mut xmm = begin_image_view::<Xmm>(&mut image, &geometry, form, &limits).unwrap();
    assert_eq!(*xmm, Xmm::default());
    xmm.0[3] = [7; 16];
    xmm.finish().unwrap();
    let mxcsr = begin_image_view::<Mxcsr>(&mut image, &geometry, form, &limits).unwrap();
    assert_eq!(mxcsr.bits(), 0x1fa5, "kept with XMM");
    assert_eq!(image[512..520], 6_u64.to_le_bytes());
    assert_eq!((image[160 + 48], image[0]), (7, 0xee));
    // A supervisor component has no place there; a short buffer ends before it.
    let cet = begin_image_view::<CetUser>(&mut image, &geometry, form, &limits);
    assert_eq!(cet.unwrap_err().rule(), "update-room");
    let pkru = begin_image_view::<Pkru>(&mut image[..2690], &geometry, form, &limits);
    assert_eq!(pkru.unwrap_err().rule(), "update-room");
    let unknown = ComponentIndex::new(40).unwrap();
    let error = begin_image(&mut image, &geometry, form, &limits, unknown).unwrap_err();
    assert_eq!(error, UpdateError::Policy(unknown, geometry.known()));
}

/// Zen 3 gives PKRU 64 bytes: four are PKRU, the rest is written as zero.
#[test]
fn reserved_tails_are_zeroed() {
    let mut geometry = Geometry::new();
    geometry
        .insert(ComponentIndex::PKRU, user(64, 832))
        .unwrap();
    let limits = host(machine(), 0).limits();
    let mut image = vec![0xee; 896];
    image[512..576].fill(0);
    let pkru = begin_image_view::<Pkru>(&mut image, &geometry, Form::Standard, &limits);
    let mut pkru = pkru.unwrap();
    *pkru = Pkru(0x5555_5554);
    pkru.finish().unwrap();
    assert_eq!(image[832..836], 0x5555_5554_u32.to_le_bytes());
    assert_eq!(image[836..], [0; 60]);
}

/// Lengths were told of a buffer that was long enough, and room was told that
/// was not there.
#[test]
fn what_is_wrong_with_a_plain_image_is_said() {
    let geometry = machine();
    let limits = host(machine(), 0).limits();
    let begun = |image: &mut [u8], form| {
        begin_image(image, &geometry, form, &limits, ComponentIndex::PKRU).map(drop)
    };
    let bits = |image: &mut [u8], at: usize, bits: u64| {
        image[at..at + 8].copy_from_slice(&bits.to_le_bytes());
    };
    let mut image = vec![0; 4096];
    bits(&mut image, 520, 1 << 63);
    let form = Form::Standard;
    assert_eq!(begun(&mut image, form), Err(UpdateError::Image(1 << 63, 0)));
    bits(&mut image, 520, 0);
    let other = UpdateError::Image(0, 1 << 63);
    assert_eq!(begun(&mut image, Form::Compacted), Err(other));
    bits(&mut image, 512, 1 << 40);
    let known = geometry.known().difference(geometry.supervisor());
    let unknown = UpdateError::Image(1 << 40, known.bits());
    assert_eq!(begun(&mut image, form), Err(unknown));
    bits(&mut image, 520, 1 << 63 | 1);
    bits(&mut image, 512, 4);
    let unnamed = UpdateError::Image(4, 3);
    assert_eq!(begun(&mut image, Form::Compacted), Err(unnamed));
    let short = UpdateError::Image(100, 576);
    assert_eq!(begun(&mut image[..100], form), Err(short));
    // PKRU lies behind these bytes; the first components do not.
    bits(&mut image, 520, 0);
    let room = set(0x27);
    let error = UpdateError::Room(ComponentIndex::PKRU, room);
    assert_eq!(begun(&mut image[..1160], form), Err(error));
}
