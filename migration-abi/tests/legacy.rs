//! Other hypervisors' forms as bytes: golden files, every rule, every quirk, any bytes at all.

mod samples;

use migration_abi::legacy::kvm::{XSAVE_BYTES, Xcrs, Xsave};
use migration_abi::legacy::xen::{HvmRecord, PvRecord};
use migration_abi::legacy::{Area, Form};
use migration_abi::{Allowed, ParseError, Rule};
use proptest::prelude::*;
use samples::legacy::{
    self, compacted, kvm_xcrs, kvm_xsave, standard, xen_hvm, xen_hvm_body, xen_pv, xen_pv_stream,
};

fn golden(name: &str) -> Vec<u8> {
    let all = legacy::all();
    let (_, written) = all.iter().find(|(n, _)| *n == name).expect("a golden file");
    samples::golden(name, written)
}

#[test]
fn golden_files_are_what_the_tables_say() {
    for (name, written) in legacy::all() {
        assert!(samples::golden(name, &written) == written, "{name}");
    }
}

#[test]
fn golden_xen_records_are_read_and_written_again() {
    let bytes = golden("legacy-xen-pv.bin");
    let record = PvRecord::parse(&bytes).expect("golden");
    assert_eq!((record.xcr0, record.xcr0_accum), (7, 7));
    let area = record.area.expect("an image");
    assert_eq!(
        (area.bytes().len(), area.xstate_bv(), area.mxcsr()),
        (832, 7, 0x1fa5)
    );
    let mut out = vec![0xcc; record.encoded_len()];
    assert_eq!(record.encode(&mut out), Ok(bytes.len()));
    assert!(out == bytes);

    let bytes = golden("legacy-xen-pv-stream.bin");
    let (vcpu, record, read) = PvRecord::parse_stream(&bytes).expect("golden");
    assert_eq!(
        (vcpu, record.xcr0, record.xcr0_accum, read),
        (3, 7, 0xe7, bytes.len())
    );
    let mut out = vec![0xcc; record.stream_len()];
    assert_eq!(record.encode_stream(3, &mut out), Ok(bytes.len()));
    assert!(out == bytes);

    for name in ["legacy-xen-hvm.bin", "legacy-xen-hvm-long.bin"] {
        let bytes = golden(name);
        let (vcpu, record, read) = HvmRecord::parse_save(&bytes).expect("golden");
        assert_eq!((vcpu, read), (1, bytes.len()), "{name}");
        assert_eq!(record.xfeature_mask, 0x2e7);
        assert_eq!((record.xcr0, record.xcr0_accum), (7, 7));
        let mut out = vec![0xcc; bytes.len()];
        assert_eq!(record.encode_save(1, &mut out), Ok(bytes.len()));
        assert!(out == bytes, "{name}");
        let body = HvmRecord::parse(&bytes[8..]).expect("its body");
        assert_eq!(body, record);
        assert_eq!(body.encode(&mut out), Ok(bytes.len() - 8));
        assert!(out[..bytes.len() - 8] == bytes[8..]);
    }
}

#[test]
fn golden_kvm_buffers_are_read_and_written_again() {
    for (name, xstate_bv) in [
        ("legacy-kvm-xsave.bin", 0x207),
        ("legacy-kvm-xsave2.bin", 0x6_02e7),
    ] {
        let bytes = golden(name);
        let area = Xsave::parse(&bytes).expect("golden").area();
        assert_eq!((area.xstate_bv(), area.mxcsr()), (xstate_bv, 0x1fa5));
        assert_eq!(area.bytes(), bytes);
        let mut buffer = vec![0xcc; bytes.len() + 64];
        Xsave::encode(&bytes, &mut buffer).expect("a standard image");
        assert!(buffer[..bytes.len()] == bytes && buffer[bytes.len()..] == [0; 64]);
    }
    let bytes = golden("legacy-kvm-xcrs.bin");
    let xcrs = Xcrs::parse(&bytes).expect("golden");
    assert_eq!((xcrs.xcr0, xcrs.xcr0_or_reset()), (Some(7), 7));
    assert_eq!(xcrs.encode()[..], bytes[..]);
}

#[test]
fn raw_images_tell_their_form() {
    for (name, form, mxcsr) in [
        ("legacy-raw-standard.bin", Form::Standard, 0x1fa5),
        ("legacy-raw-compacted.bin", Form::Compacted, 0x1fa5),
    ] {
        let bytes = golden(name);
        let area = Area::parse(&bytes).expect("golden");
        assert_eq!((area.form(), area.mxcsr()), (form, mxcsr));
        assert_eq!(area.bytes(), bytes);
    }
    let mut neither = standard(576, 3);
    neither[520] = 3;
    let area = Area::parse(&neither).expect("long enough");
    assert_eq!((area.form(), area.xcomp_bv()), (Form::Neither, 3));
}

/// "Illegitimate" XCR0 0 of PV guests that never touched the state, records
/// without a body of older senders, HVM records of guests without XSAVE.
#[test]
fn xen_records_of_vcpus_without_state() {
    let none = PvRecord::default();
    let empty = golden("legacy-xen-pv-empty.bin");
    assert_eq!(PvRecord::parse(&empty), Ok(none));
    assert_eq!(PvRecord::parse(&[]), Ok(none));
    let mut out = [0xcc; 32];
    assert_eq!(none.encode(&mut out), Ok(16));
    assert_eq!(out[..16], empty);
    assert_eq!(none.encode_stream(5, &mut out), Ok(32));
    assert_eq!(PvRecord::parse_stream(&out), Ok((5, none, 32)));
    let bodyless = [6, 0, 0, 0, 8, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(PvRecord::parse_stream(&bodyless), Ok((5, none, 16)));

    let none = HvmRecord {
        xfeature_mask: 0x2e7,
        ..HvmRecord::default()
    };
    let mut body = vec![0; 24 + 576];
    body[..2].copy_from_slice(&[0xe7, 2]);
    for len in [24, 24 + 576] {
        assert_eq!(HvmRecord::parse(&body[..len]), Ok(none));
    }
    assert_eq!(HvmRecord::parse(&[]), Ok(HvmRecord::default()));
    assert_eq!(none.encode(&mut out), Ok(24));
}

/// Linux df1daba7d1, and Xen's EOPNOTSUPP.
#[test]
fn a_compacted_image_in_a_standard_form_is_refused() {
    let image = compacted(7, 7);
    let xcomp_bv = 1 << 63 | 7;
    let pv = [&xen_pv()[..16], &image].concat();
    let hvm = [&xen_hvm(0)[..32], &image].concat();
    let mut kvm = image.clone();
    kvm.resize(XSAVE_BYTES, 0);
    let mut buffer = vec![0xcc; XSAVE_BYTES];
    for (error, offset) in [
        (PvRecord::parse(&pv).unwrap_err(), 16),
        (HvmRecord::parse_save(&hvm).unwrap_err(), 32),
        (Xsave::parse(&kvm).unwrap_err(), 0),
        (Xsave::encode(&image, &mut buffer).unwrap_err(), 0),
    ] {
        assert_eq!(error.rule(), "legacy-image-form");
        assert_eq!((error.offset, error.seen), (offset + 520, xcomp_bv));
    }
    assert!(buffer.iter().all(|b| *b == 0xcc), "nothing was written");
}

fn with(mut bytes: Vec<u8>, at: usize, value: u8) -> Vec<u8> {
    bytes[at] = value;
    bytes
}

#[test]
fn every_rule_by_name() {
    let pv = |bytes: &[u8]| PvRecord::parse(bytes).map(|_| ());
    let stream = |bytes: &[u8]| PvRecord::parse_stream(bytes).map(|_| ());
    let hvm = |bytes: &[u8]| HvmRecord::parse(bytes).map(|_| ());
    let save = |bytes: &[u8]| HvmRecord::parse_save(bytes).map(|_| ());
    let kvm = |bytes: &[u8]| Xsave::parse(bytes).map(|_| ());
    let xcrs = |bytes: &[u8]| Xcrs::parse(bytes).map(|_| ());
    type Read<'a> = &'a dyn Fn(&[u8]) -> Result<(), ParseError>;
    let many: Vec<_> = (0..17).map(|_| (0, 7)).collect();
    let cases: [(Rule, usize, Read<'_>, Vec<u8>); 23] = [
        (Rule::LegacyXenLength, 0, &pv, xen_pv()[..15].to_vec()),
        (Rule::LegacyXenEmpty, 0, &pv, xen_pv()[..16].to_vec()),
        (
            Rule::LegacyXenEmpty,
            0,
            &pv,
            [&[0; 16][..], &standard(576, 3)].concat(),
        ),
        (
            Rule::LegacyImageLength,
            16,
            &pv,
            xen_pv()[..16 + 575].to_vec(),
        ),
        (
            Rule::LegacyXenLength,
            0,
            &stream,
            xen_pv_stream()[..15].to_vec(),
        ),
        (
            Rule::LegacyXenLength,
            0,
            &stream,
            xen_pv_stream()[..600].to_vec(),
        ),
        (
            Rule::LegacyXenLength,
            4,
            &stream,
            [&[6, 0, 0, 0, 7, 0, 0, 0][..], &[0; 8]].concat(),
        ),
        (Rule::LegacyXenType, 0, &stream, with(xen_pv_stream(), 0, 5)),
        (
            Rule::LegacyXenReserved,
            12,
            &stream,
            with(xen_pv_stream(), 15, 1),
        ),
        (
            Rule::LegacyImageForm,
            32 + 520,
            &stream,
            with(xen_pv_stream(), 32 + 527, 0x80),
        ),
        (
            Rule::LegacyXenLength,
            0,
            &hvm,
            xen_hvm_body(0)[..23].to_vec(),
        ),
        (
            Rule::LegacyXenEmpty,
            8,
            &hvm,
            xen_hvm_body(0)[..24].to_vec(),
        ),
        (
            Rule::LegacyImageLength,
            24,
            &hvm,
            xen_hvm_body(0)[..24 + 575].to_vec(),
        ),
        (Rule::LegacyXenLength, 0, &save, xen_hvm(0)[..7].to_vec()),
        (Rule::LegacyXenLength, 0, &save, xen_hvm(0)[..863].to_vec()),
        (Rule::LegacyXenType, 0, &save, with(xen_hvm(0), 0, 20)),
        (
            Rule::LegacyImageForm,
            32 + 520,
            &save,
            with(xen_hvm(0), 32 + 520, 1),
        ),
        (
            Rule::LegacyKvmLength,
            0,
            &kvm,
            kvm_xsave(4096, 7)[..4095].to_vec(),
        ),
        (
            Rule::LegacyXcrsLength,
            0,
            &xcrs,
            kvm_xcrs(&[(0, 7)])[..391].to_vec(),
        ),
        (
            Rule::LegacyXcrsFlags,
            4,
            &xcrs,
            with(kvm_xcrs(&[(0, 7)]), 4, 1),
        ),
        (Rule::LegacyXcrsCount, 0, &xcrs, kvm_xcrs(&many)),
        (Rule::LegacyXcr, 8, &xcrs, kvm_xcrs(&[(1, 7)])),
        (Rule::LegacyXcr, 24, &xcrs, kvm_xcrs(&[(0, 7), (0, 7)])),
    ];
    for (rule, offset, read, bytes) in cases {
        let error = read(&bytes).expect_err(rule.name());
        assert_eq!((error.rule, error.offset), (rule, offset));
    }
    // KVM of a host without XSAVE tells no XCR.
    let none = Xcrs::parse(&kvm_xcrs(&[])).expect("none");
    assert_eq!((none.xcr0, none.xcr0_or_reset()), (None, 1));
    assert_eq!(none.encode()[..], kvm_xcrs(&[])[..]);
}

#[test]
fn writers_say_where_they_have_no_room() {
    let bytes = xen_pv();
    let record = PvRecord::parse(&bytes).expect("a record");
    let bytes = xen_hvm(0);
    let (_, hvm, _) = HvmRecord::parse_save(&bytes).expect("a record");
    for len in [0, 8, 20, 846] {
        let mut out = vec![0; len];
        for error in [
            record.encode(&mut out).unwrap_err(),
            record.encode_stream(0, &mut out).unwrap_err(),
            hvm.encode(&mut out).unwrap_err(),
            hvm.encode_save(0, &mut out).unwrap_err(),
        ] {
            assert_eq!((error.rule, error.seen), (Rule::LegacyRoom, len as u64));
        }
    }
    let mut buffer = vec![0; 4096];
    let error = Xsave::encode(&standard(11_008, 7), &mut buffer).unwrap_err();
    assert_eq!(
        (error.rule, error.allowed),
        (Rule::LegacyRoom, Allowed::AtLeast(11_008))
    );
    let error = Xsave::encode(&standard(832, 7), &mut buffer[..4095]).unwrap_err();
    assert_eq!(error.rule, Rule::LegacyKvmLength);
    // What no reader would take is not written.
    let no_xcr0 = PvRecord {
        xcr0: 0,
        xcr0_accum: 0,
        ..record
    };
    let error = no_xcr0.encode(&mut buffer).unwrap_err();
    assert_eq!(error.rule, Rule::LegacyXenEmpty);
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..900)) {
        let _ = Area::parse(&bytes);
        let _ = PvRecord::parse(&bytes);
        let _ = PvRecord::parse_stream(&bytes);
        let _ = HvmRecord::parse(&bytes);
        let _ = HvmRecord::parse_save(&bytes);
        let _ = Xsave::parse(&bytes);
        let _ = Xcrs::parse(&bytes);
    }

    /// Edits of true records: what is still taken is written as it was read.
    #[test]
    fn any_edit_of_a_record_is_read_or_refused(
        edits in prop::collection::vec((0usize..64, any::<u8>()), 0..4), cut in 0usize..40,
    ) {
        let edited = |mut bytes: Vec<u8>| {
            for (at, value) in &edits {
                bytes[*at] = *value;
            }
            bytes.truncate(bytes.len() - cut);
            bytes
        };
        let mut out = vec![0; 4096];
        let bytes = edited(xen_pv());
        if let Ok(record) = PvRecord::parse(&bytes) {
            prop_assert_eq!(record.encode(&mut out), Ok(bytes.len()));
            prop_assert!(out[..bytes.len()] == bytes);
        }
        let bytes = edited(xen_pv_stream());
        if let Ok((vcpu, record, read)) = PvRecord::parse_stream(&bytes) {
            prop_assert_eq!(record.encode_stream(vcpu, &mut out), Ok(read));
        }
        let bytes = edited(xen_hvm(100));
        if let Ok((vcpu, record, read)) = HvmRecord::parse_save(&bytes) {
            prop_assert_eq!(record.encode_save(vcpu, &mut out), Ok(read));
            prop_assert!(out[..read] == bytes[..read]);
        }
        let bytes = edited(kvm_xcrs(&[(0, 7)]));
        if let Ok(xcrs) = Xcrs::parse(&bytes) {
            prop_assert_eq!(Xcrs::parse(&xcrs.encode()), Ok(xcrs));
        }
    }
}
