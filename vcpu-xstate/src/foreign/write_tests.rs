//! Tests of writing foreign forms: what comes back when they are read again, and what they cannot hold.

use proptest::prelude::*;
use zerocopy::FromBytes;

use super::read_tests::{image, machine, policy, set};
use super::*;
use crate::component::ComponentIndex;
use crate::header::COMPACTED;
use crate::layout::{Form, Geometry};
use crate::masks::XstatePolicy;
use crate::validate::{Claims, TrustedImage, validate};

const ALL: u64 = 0x6_5ae7;
const XCR0: u64 = 0x6_02e7;

fn claims(xcr0: u64, layout: u64) -> Claims {
    Claims {
        xstate_mask: ALL,
        xcr0,
        xss: 0,
        xfd: 0,
        xfd_err: 0,
        accum: xcr0 | layout | 0x203,
        xcomp_bv: layout | COMPACTED,
        xsave: true,
    }
}

/// Runs `check` on the trusted image of `held`.
fn with_trusted<T>(
    claims: &Claims,
    held: u64,
    policy: &XstatePolicy,
    check: impl FnOnce(&TrustedImage<'_>) -> T,
) -> T {
    let host = machine();
    let layout = claims.xcomp_bv & !COMPACTED;
    let mut bytes = image(host.geometry(), Form::Compacted, layout, held);
    for (component, value) in [(ComponentIndex::CET_U, 1), (ComponentIndex::CET_S, 0)] {
        for place in host.geometry().placements(Form::Compacted, set(layout)) {
            if place.component == component {
                bytes[place.range()].fill(0);
                bytes[place.offset_bytes] = value;
            }
        }
    }
    let trusted = validate(claims, host.geometry(), &bytes, &host, policy).unwrap();
    check(&trusted)
}

fn header(bytes: &[u8]) -> (u64, u64) {
    let (header, _) = XsaveHeader::ref_from_prefix(&bytes[LEGACY_BYTES..]).unwrap();
    (header.xstate_bv().bits(), header.xcomp_bv())
}

fn canonical(image: &TrustedImage<'_>) -> Vec<u8> {
    let mut out = vec![0; image.export_size()];
    image.export(&mut out).unwrap();
    out
}

/// Written for each destination and read again: the same state, the same XCR0.
fn comes_back(image: &TrustedImage<'_>, policy: &XstatePolicy) {
    let host = machine();
    for (to, len) in [
        (Destination::XEN, image.standard_size(Destination::XEN)),
        (Destination::KVM, 12_288),
        (Destination::KVM, image.standard_size(Destination::KVM)),
    ] {
        let mut out = vec![0xcc; len];
        let written = image.write_standard(to, &mut out).unwrap();
        let xcr0 = ForeignRegisters::xcr0(written.xcr0);
        let foreign = if to == Destination::XEN {
            assert_eq!(written.len_bytes, len);
            ForeignImage::xen_pv(&out, written.xcr0, written.accum)
        } else {
            ForeignImage::kvm(&out, xcr0)
        };
        let taken = read(&foreign, host.geometry(), &host, policy, Excess::Refuse).unwrap();
        assert_eq!(taken.image.claims().xcr0, image.claims().xcr0);
        assert!(canonical(&taken.image) == canonical(image), "{to:?}");
        let end = written.len_bytes;
        assert!(out[end..].iter().all(|b| *b == 0), "the rest is zeroed");
    }
}

#[test]
fn what_is_written_is_read_again() {
    let all = policy(ALL);
    for held in [0, 0x1, 0x2, 0x4, 0x7, 0xe6, 0x2e7, XCR0] {
        with_trusted(&claims(XCR0, XCR0), held, &all, |image| {
            comes_back(image, &all);
        });
    }
}

/// No byte of what was in the buffer stays, and none that is no state is written.
#[test]
fn a_standard_image_has_no_stale_bytes() {
    let all = policy(ALL);
    with_trusted(&claims(XCR0, XCR0), 0xe4, &all, |image| {
        let write = |fill| {
            let mut out = vec![fill; 12_288];
            image.write_standard(Destination::KVM, &mut out).unwrap();
            out
        };
        let (a, b) = (write(0xcc), write(0x33));
        assert!(a == b);
        assert!(a[28..32].iter().chain(&a[416..512]).all(|byte| *byte == 0));
        assert_eq!(header(&a), (0x2e4, 0), "INIT legacy, PKRU spelled out");
        assert_eq!(a[..2], 0x37f_u16.to_le_bytes());
    });
}

/// KVM takes MXCSR with XSTATE_BV\[1\] or \[2\] alone and makes it 1F80 otherwise.
#[test]
fn kvm_is_told_of_mxcsr() {
    let avx = policy(7);
    let claims = Claims {
        xstate_mask: 7,
        ..claims(7, 7)
    };
    let claims = Claims { accum: 7, ..claims };
    with_trusted(&claims, 0x2, &avx, |image| {
        let mut out = vec![0; 4096];
        image.write_standard(Destination::KVM, &mut out).unwrap();
        assert_eq!(header(&out), (2, 0));
        assert_eq!(out[24..28], 0x1fa5_u32.to_le_bytes());
    });
}

/// KVM_SET_XSAVE leaves PKRU alone where its bit is clear: a
/// guest that has 0 would run on with whatever was there.
#[test]
fn kvm_keeps_its_pkru_where_the_bit_is_clear() {
    let all = policy(ALL);
    with_trusted(&claims(XCR0, XCR0), 0, &all, |image| {
        let mut out = vec![0xcc; 12_288];
        image.write_standard(Destination::KVM, &mut out).unwrap();
        assert_eq!(header(&out).0, 0x200);
        assert_eq!(out[2688..2696], [0; 8]);
        // Xen goes by the architecture.
        let mut out = vec![0xcc; image.standard_size(Destination::XEN)];
        image.write_standard(Destination::XEN, &mut out).unwrap();
        assert_eq!(header(&out).0, 0);
    });
}

/// Xen wants XCR0 within the accumulated one, and legal groups in both.
#[test]
fn xens_accumulated_xcr0_is_one_that_xcr0_could_be() {
    let all = policy(ALL);
    // XFD holds the tiles back: enabled, and never used.
    let held_back = Claims {
        accum: 0x2_0203 | 0x4 | 0xe0,
        ..claims(XCR0, 0x203)
    };
    with_trusted(&held_back, 0x3, &all, |image| {
        let mut out = vec![0; 12_288];
        let written = image.write_standard(Destination::XEN, &mut out).unwrap();
        assert_eq!((written.accum, written.len_bytes), (XCR0, 11_008));
    });
    let partly = Claims {
        accum: 0x2_0023 | 0x800,
        ..claims(3, 3)
    };
    with_trusted(&partly, 0x3, &all, |image| {
        let mut out = vec![0; 12_288];
        let written = image.write_standard(Destination::XEN, &mut out).unwrap();
        assert_eq!(written.accum, 0x6_00e7, "no supervisor bits, groups whole");
    });
}

#[test]
fn supervisor_state_in_use_is_named() {
    let all = policy(ALL);
    let cet = Claims {
        xss: 0x1800,
        ..claims(7, 0x1807)
    };
    with_trusted(&cet, 0x1807, &all, |image| {
        let mut out = vec![0xcc; 12_288];
        let kvm = image.write_standard(Destination::KVM, &mut out);
        assert_eq!(kvm, Err(Unholdable::Supervisor(ComponentIndex::CET_U)));
        assert_eq!(
            kvm.unwrap_err().to_string(),
            "unholdable-supervisor: cet_u is in use, a standard image has no place for it"
        );
        assert!(out.iter().all(|b| *b == 0xcc), "nothing was written");
        let xen = image.write_standard(Destination::XEN, &mut out);
        assert_eq!(xen, Err(Unholdable::Supervisor(ComponentIndex::CET_U)));
        // Who moves its MSRs says so.
        let by_msr = Destination::KVM.with_elsewhere(ComponentSet::CET);
        let written = image.write_standard(by_msr, &mut out).unwrap();
        assert_eq!(
            (written.len_bytes, image.standard_size(by_msr)),
            (2696, 4096)
        );
        assert_eq!(header(&out).0 & 0x1800, 0);
    });
    // Enabled and INIT: KVM has an MSR for that, Xen has nothing.
    with_trusted(&cet, 0x7, &all, |image| {
        let mut out = vec![0; 12_288];
        assert!(image.write_standard(Destination::KVM, &mut out).is_ok());
        let xen = image.write_standard(Destination::XEN, &mut out);
        assert_eq!(xen, Err(Unholdable::Xss(0x1800)));
    });
}

/// Whoever moved CET in another record could still not write Xen's, for IA32_XSS.
#[test]
fn a_guest_with_cet_was_refused_for_xen_whatever_went_elsewhere() {
    let all = policy(ALL);
    let cet = Claims {
        xss: 0x1800,
        ..claims(7, 0x1807)
    };
    with_trusted(&cet, 0x807, &all, |image| {
        let mut out = vec![0; 12_288];
        let elsewhere = |components| Destination::XEN.with_elsewhere(components);
        let written = image.write_standard(elsewhere(ComponentSet::CET), &mut out);
        assert_eq!(written.map(|standard| standard.xcr0), Ok(7));
        assert_eq!(header(&out).0 & 0x1800, 0);
        let half = image.write_standard(elsewhere(set(0x800)), &mut out);
        assert_eq!(half, Err(Unholdable::Xss(0x1000)));
    });
}

#[test]
fn xfd_goes_by_msr_or_not_at_all() {
    let all = policy(ALL);
    let xfd = Claims {
        xfd: 1 << 18,
        ..claims(XCR0, XCR0)
    };
    let err = Claims {
        xfd_err: 1 << 18,
        ..claims(XCR0, XCR0)
    };
    for (claims, refusal) in [
        (xfd, Unholdable::Xfd(1 << 18)),
        (err, Unholdable::XfdErr(1 << 18)),
    ] {
        with_trusted(&claims, 0x3, &all, |image| {
            let mut out = vec![0; 12_288];
            assert!(image.write_standard(Destination::KVM, &mut out).is_ok());
            let xen = image.write_standard(Destination::XEN, &mut out);
            assert_eq!(xen, Err(refusal));
        });
    }
}

/// CRIU #1448, Cloud Hypervisor #7533: the state of AMX cut off at 4096.
#[test]
fn tiles_in_use_do_not_fit_in_4096_bytes() {
    let all = policy(ALL);
    with_trusted(&claims(XCR0, XCR0), XCR0, &all, |image| {
        let mut out = vec![0xcc; 4096];
        let written = image.write_standard(Destination::KVM, &mut out);
        assert_eq!(
            written,
            Err(Unholdable::NoRoom(ComponentIndex::TILEDATA, 4096, 11_008))
        );
        assert!(out.iter().all(|b| *b == 0xcc), "nothing was written");
    });
    // In use is what counts, not what is enabled.
    with_trusted(&claims(XCR0, XCR0), 0x2e7, &all, |image| {
        let mut out = vec![0; 4096];
        assert!(image.write_standard(Destination::KVM, &mut out).is_ok());
        let short = image.write_standard(Destination::XEN, &mut out);
        assert_eq!(short, Err(Unholdable::TooSmall(4096, 11_008)));
        let mut out = [0; 575];
        let short = image.write_standard(Destination::KVM, &mut out);
        assert_eq!(short.unwrap_err().rule(), "unholdable-room");
    });
    with_trusted(&claims(XCR0, XCR0), 0, &all, |image| {
        let mut out = [0; 575];
        let short = image.write_standard(Destination::KVM, &mut out);
        assert_eq!(short, Err(Unholdable::TooSmall(575, 4096)));
    });
}

/// x87 and SSE of a guest without XSAVE go where FXSAVE's do.
#[test]
fn a_guest_without_xsave() {
    let without = XstatePolicy::without_xsave();
    let claims = Claims {
        xstate_mask: 3,
        xsave: false,
        accum: 3,
        ..claims(1, 3)
    };
    with_trusted(&claims, 0x3, &without, |image| {
        let mut out = vec![0; 4096];
        let xen = image.write_standard(Destination::XEN, &mut out);
        assert_eq!(xen, Err(Unholdable::WithoutXsave));
        image.write_standard(Destination::KVM, &mut out).unwrap();
        assert_eq!(header(&out), (3, 0));
        let region = image.write_fxsave().unwrap();
        let host = machine();
        let again = image_of_fxsave(&region);
        let foreign = ForeignImage::fxsave(&again);
        let taken = read(&foreign, host.geometry(), &host, &without, Excess::Refuse);
        assert!(canonical(&taken.unwrap().image) == canonical(image));
    });
    let avx = policy(7);
    with_trusted(
        &Claims {
            xstate_mask: 7,
            accum: 7,
            ..self::claims(7, 7)
        },
        7,
        &avx,
        |image| {
            let refusal = image.write_fxsave().unwrap_err();
            assert_eq!(refusal.component(), Some(ComponentIndex::AVX));
        },
    );
    // XCR0 went nowhere: the guest's next instruction with VEX would have been #UD.
    let enabled = self::claims(7, 7);
    with_trusted(&enabled, 3, &policy(ALL), |image| {
        let refusal = image.write_fxsave().unwrap_err();
        assert_eq!(refusal, Unholdable::Xcr0(7));
        assert_eq!(
            refusal.to_string(),
            "unholdable-xcr0: nothing carries XCR0, which is 0x7"
        );
    });
    with_trusted(&self::claims(1, 7), 3, &policy(ALL), |image| {
        assert!(image.write_fxsave().is_ok());
    });
}

/// What a machine calls a size is what is written: no geometry is assumed.
fn subsets(geometry: &Geometry) -> impl Strategy<Value = (u64, u64)> + use<> {
    let user = geometry.known().difference(geometry.supervisor()).bits();
    (any::<u64>(), any::<u64>()).prop_map(move |(held, room)| {
        let room = (room | held) & user;
        (held & room, room)
    })
}

proptest! {
    #[test]
    fn any_subset_comes_back(
        (held, room) in subsets(machine().geometry()),
    ) {
        let all = policy(ALL);
        let claims = claims(XCR0, room);
        with_trusted(&claims, held, &all, |image| comes_back(image, &all));
    }
}

/// The size counted what goes by another way, too.
#[test]
fn what_goes_elsewhere_takes_no_room() {
    let all = policy(ALL);
    with_trusted(&claims(XCR0, XCR0), 0x207, &all, |image| {
        let elsewhere = Destination::KVM.with_elsewhere(set(0x204));
        let mut out = vec![0xcc; 4096];
        let written = image.write_standard(Destination::KVM, &mut out).unwrap();
        assert_eq!((written.len_bytes, header(&out).0 & 0x207), (2696, 0x207));
        // PKRU that goes by itself was spelled out all the same, as 0.
        let written = image.write_standard(elsewhere, &mut out).unwrap();
        assert_eq!((written.len_bytes, header(&out).0 & 0x207), (576, 3));
    });
}

/// A buffer of the size that was asked for lost the mark of an INIT PKRU, and
/// with it the guest's PKRU: KVM keeps the vCPU's own where the bit is clear.
#[test]
fn pkru_spelled_out_is_within_the_length() {
    let all = policy(ALL);
    with_trusted(&claims(XCR0, XCR0), 0x3, &all, |image| {
        assert_eq!(image.standard_size(Destination::KVM), 4096);
        let mut out = vec![0xcc; 4096];
        // KVM_SET_XSAVE reads 4096 bytes, whatever is in them.
        for short in [576, 2696, 4095] {
            let refused = image.write_standard(Destination::KVM, &mut out[..short]);
            assert_eq!(refused, Err(Unholdable::TooSmall(short as u64, 4096)));
        }
        assert!(out.iter().all(|byte| *byte == 0xcc), "nothing was written");
        let written = image.write_standard(Destination::KVM, &mut out).unwrap();
        assert_eq!((written.len_bytes, header(&out).0), (2696, 0x203));
        assert!(out[written.len_bytes..].iter().all(|byte| *byte == 0));
        let mine = ForeignImage::raw(&out[..written.len_bytes], ForeignRegisters::xcr0(0x207));
        let host = machine();
        assert!(read(&mine, host.geometry(), &host, &all, Excess::Refuse).is_ok());
    });
}
