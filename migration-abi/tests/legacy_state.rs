//! Other hypervisors' records as state: read, made into a blob, taken on another host, and written again.

mod samples;

use migration_abi::blob;
use migration_abi::legacy::kvm::{Xcrs, Xsave};
use migration_abi::legacy::xen::{HvmRecord, PvRecord};
use migration_abi::legacy::{Area, Form};
use migration_abi::xstate;
use proptest::prelude::*;
use samples::legacy::{self, INTEL, content, kvm_xsave, standard, standard_len};
use samples::machine::{AMD, cpuid, intel, policy};
use vcpu_xstate::foreign::{
    Destination, Excess, ForeignImage, ForeignRegisters, Taken, Unholdable, read,
};
use vcpu_xstate::validate::TrustedImage;
use vcpu_xstate::{ComponentIndex, ComponentSet, HostXstate, Rejection, validate};

fn golden(name: &str) -> Vec<u8> {
    let all = legacy::all();
    let (_, written) = all.iter().find(|(n, _)| *n == name).expect("a golden file");
    samples::golden(name, written)
}

fn take<'a>(
    foreign: &ForeignImage<'a>,
    host: &'a HostXstate,
    mask: u64,
    excess: Excess,
) -> Taken<'a> {
    read(foreign, host.geometry(), host, &policy(mask), excess).expect("a legal image")
}

fn blob_of(image: &TrustedImage<'_>) -> Vec<u8> {
    let mut out = vec![0xcc; xstate::blob_len(image, true)];
    assert_eq!(xstate::write_blob(image, true, &mut out), Ok(out.len()));
    out
}

/// Takes a blob as another host would, and hands the trusted image on.
fn arrive<T>(
    bytes: &[u8],
    host: &HostXstate,
    mask: u64,
    then: impl FnOnce(&TrustedImage<'_>) -> T,
) -> Result<T, Rejection> {
    let blob = blob::parse(bytes).expect("a blob");
    let geometry = xstate::geometry(&blob).expect("a directory");
    let claims = xstate::claims(&blob);
    let image = validate(&claims, &geometry, blob.image(), host, &policy(mask))?;
    Ok(then(&image))
}

#[test]
fn a_kvm_buffer_becomes_a_blob_and_a_buffer_again() {
    let host = intel();
    for (bytes, mask, blob_bytes) in [
        // 4096 bytes; x87, SSE, AVX and PKRU are in use.
        (golden("legacy-kvm-xsave.bin"), 0x207, 96 + 4 * 16 + 840 + 4),
        // 11008 bytes, all of it in use.
        (
            golden("legacy-kvm-xsave2.bin"),
            0x6_02e7,
            96 + 9 * 16 + 10_752 + 4,
        ),
    ] {
        let xcrs = Xcrs { xcr0: Some(mask) };
        let buffer = Xsave::parse(&bytes).expect("golden");
        let taken = take(&buffer.foreign(xcrs), &host, mask, Excess::Refuse);
        assert!(taken.dropped.is_empty());
        let blob = blob_of(&taken.image);
        assert_eq!(blob.len(), blob_bytes);
        let mut back = vec![0xcc; bytes.len()];
        arrive(&blob, &host, mask, |image| {
            let written = image.write_standard(Destination::KVM, &mut back);
            assert_eq!(written.expect("room").xcr0, mask);
        })
        .expect("the same machine");
        // What is no state is gone: MXCSR_MASK and the kernel's words.
        let mut expected = bytes.clone();
        expected[28..32].fill(0);
        expected[464..472].fill(0);
        assert!(back == expected);
    }
}

#[test]
fn xen_records_become_blobs_and_records_again() {
    let host = intel();
    let mask = 0x2e7;
    let pv_bytes = golden("legacy-xen-pv-stream.bin");
    let (_, pv, _) = PvRecord::parse_stream(&pv_bytes).expect("golden");
    let hvm_bytes = golden("legacy-xen-hvm-long.bin");
    let (_, hvm, _) = HvmRecord::parse_save(&hvm_bytes).expect("golden");
    let (pv_image, hvm_image) = (pv.foreign().expect("one"), hvm.foreign().expect("one"));
    for (foreign, accum) in [(pv_image, 0xe7), (hvm_image, 7)] {
        let taken = take(&foreign, &host, mask, Excess::Refuse);
        let blob = blob_of(&taken.image);
        let image = arrive(&blob, &host, mask, |image| {
            let mut out = vec![0xcc; image.standard_size(Destination::XEN)];
            let written = image
                .write_standard(Destination::XEN, &mut out)
                .expect("Xen holds it");
            // PKRU can be used without being enabled.
            assert_eq!((written.xcr0, written.accum), (7, accum | 0x200));
            assert_eq!(out.len(), standard_len(accum | 0x200));
            out
        })
        .expect("the same machine");
        let record = PvRecord {
            xcr0: 7,
            xcr0_accum: accum | 0x200,
            area: Some(Area::parse(&image).expect("an image")),
        };
        let mut bytes = vec![0; record.encoded_len()];
        record.encode(&mut bytes).expect("a record");
        let again = PvRecord::parse(&bytes).expect("a record");
        let again = again.foreign().expect("an image");
        let again = take(&again, &host, mask, Excess::Refuse);
        assert!(blob_of(&again.image) == blob);
    }
}

#[test]
fn no_record_of_state_is_no_image() {
    let empty = golden("legacy-xen-pv-empty.bin");
    let record = PvRecord::parse(&empty).expect("golden");
    assert!(record.foreign().is_none());
    assert!(HvmRecord::default().foreign().is_none());
}

/// The golden standard image has x87 and AVX-512 in use and XSTATE_BV\[1\] clear,
/// with MXCSR 1FA5: XSAVE does that where all XMM are zero.
#[test]
fn mxcsr_of_a_standard_image_goes_into_the_blob() {
    let host = intel();
    let bytes = golden("legacy-raw-standard.bin");
    let xcr0 = ForeignRegisters::xcr0(0x2e7);
    let taken = take(
        &ForeignImage::raw(&bytes, xcr0),
        &host,
        0x2e7,
        Excess::Refuse,
    );
    let bytes = blob_of(&taken.image);
    let blob = blob::parse(&bytes).expect("a blob");
    let area = Area::parse(blob.image()).expect("an image");
    assert_eq!((area.form(), area.mxcsr()), (Form::Compacted, 0x1fa5));
    assert_eq!(area.xstate_bv(), 0x2e7);
    let pkru = blob.image().len() - 8;
    assert_eq!(blob.image()[pkru..], content(9, 8));
}

/// A host that saves more than its guest has (Linux ad856280dd).
#[test]
fn an_over_saved_buffer_arrives_without_what_the_guest_has_not() {
    let host = intel();
    let bytes = kvm_xsave(4096, 0x2e7);
    let buffer = Xsave::parse(&bytes).expect("a buffer");
    let foreign = buffer.foreign(Xcrs { xcr0: Some(7) });
    let refused = read(&foreign, host.geometry(), &host, &policy(7), Excess::Refuse);
    assert_eq!(refused.unwrap_err().rule(), "foreign-policy");
    let taken = take(&foreign, &host, 7, Excess::Drop);
    assert_eq!(
        taken.dropped.to_string(),
        "opmask (in use), zmm_hi256 (in use), hi16_zmm (in use), pkru (in use)"
    );
    let blob = blob_of(&taken.image);
    let xstate_bv = arrive(&blob, &host, 7, |image| image.image().xstate_bv());
    assert_eq!(xstate_bv.map(ComponentSet::bits), Ok(7));
}

/// Registers could be converted, the guest's own images could not.
#[test]
fn another_standard_layout_is_refused_by_name() {
    let (host, other) = (
        intel(),
        HostXstate::read(&cpuid(&AMD), 0xffff).expect("it has XSAVE"),
    );
    let bytes = golden("legacy-kvm-xsave.bin");
    let buffer = Xsave::parse(&bytes).expect("golden");
    let foreign = buffer.foreign(Xcrs { xcr0: Some(0x207) });
    let taken = take(&foreign, &host, 0x207, Excess::Refuse);
    let blob = blob_of(&taken.image);
    match arrive(&blob, &other, 0x207, |_| ()) {
        Err(Rejection::Layout(difference)) => {
            assert_eq!(difference.component, ComponentIndex::PKRU);
            let text = difference.to_string();
            assert_eq!(text, "pkru 8 bytes there, 64 bytes here");
        }
        other => panic!("{other:?}"),
    }
}

/// CRIU #1448, Cloud Hypervisor #7533: 4096 bytes, and AMX in use.
#[test]
fn tiles_cut_off_at_4096_are_missed() {
    let host = intel();
    let mask = 0x6_02e7;
    let cut = kvm_xsave(4096, mask);
    let xcrs = Xcrs { xcr0: Some(mask) };
    let foreign = Xsave::parse(&cut).expect("a buffer").foreign(xcrs);
    let error = read(
        &foreign,
        host.geometry(),
        &host,
        &policy(mask),
        Excess::Refuse,
    );
    let error = error.unwrap_err();
    assert_eq!(error.component(), Some(ComponentIndex::TILEDATA));
    assert_eq!((error.seen(), error.allowed()), (4096, 11_008));

    let whole = kvm_xsave(11_008, mask);
    let foreign = Xsave::parse(&whole).expect("a buffer").foreign(xcrs);
    let taken = take(&foreign, &host, mask, Excess::Refuse);
    let mut small = vec![0; 4096];
    let written = taken.image.write_standard(Destination::KVM, &mut small);
    assert_eq!(
        written,
        Err(Unholdable::NoRoom(ComponentIndex::TILEDATA, 4096, 11_008))
    );
}

proptest! {
    /// Any components in use, through a blob and every form: the same state.
    #[test]
    fn any_state_goes_through_every_form(held in any::<u64>(), enabled in any::<u64>()) {
        let host = intel();
        let mask = 0x6_02e7;
        let held = held & mask;
        // Groups come together in XCR0.
        let enabled = [0x4, 0xe4, 0x200, 0x6_0000]
            .into_iter()
            .filter(|group| (enabled | held) & group & !0x203 != 0)
            .fold(3, |all, group| all | group);
        let bytes = standard(standard_len(enabled | held), held);
        let foreign = ForeignImage::xen_pv(&bytes, enabled, enabled | held);
        let taken = take(&foreign, &host, mask, Excess::Refuse);
        let blob = blob_of(&taken.image);
        let (xen, kvm) = arrive(&blob, &host, mask, |image| {
            let mut xen = vec![0xcc; image.standard_size(Destination::XEN)];
            let written = image.write_standard(Destination::XEN, &mut xen).expect("Xen");
            let mut kvm = vec![0xcc; 11_008];
            image.write_standard(Destination::KVM, &mut kvm).expect("KVM");
            ((xen, written), kvm)
        }).expect("the same machine");
        let (xen, written) = xen;
        let from_xen = ForeignImage::xen_pv(&xen, written.xcr0, written.accum);
        let from_xen = take(&from_xen, &host, mask, Excess::Refuse);
        let from_kvm = Xsave::parse(&kvm).expect("a buffer");
        let from_kvm = from_kvm.foreign(Xcrs { xcr0: Some(enabled) });
        let from_kvm = take(&from_kvm, &host, mask, Excess::Refuse);
        let state = |image: &TrustedImage<'_>| {
            let mut out = vec![0; image.export_size()];
            image.export(&mut out).expect("room");
            out
        };
        let expected = state(&taken.image);
        prop_assert!(state(&from_xen.image) == expected);
        prop_assert!(state(&from_kvm.image) == expected);
        for (index, size, offset) in INTEL {
            if held >> index & 1 != 0 {
                prop_assert!(kvm[offset..offset + size] == content(index, size)[..]);
            }
        }
    }
}
