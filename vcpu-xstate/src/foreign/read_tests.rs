//! Tests of reading foreign images: each quirk of the hypervisors that make them, and any bytes at all.

use proptest::prelude::*;
use zerocopy::{FromBytes, IntoBytes};

use super::*;
use crate::component::ComponentIndex;
use crate::convert::canonicalise;
use crate::cpuid::HostXstate;
use crate::image::{Image, payload};
use crate::layout::{Form, Geometry};
use crate::legacy::LegacyRegion;
use crate::masks::XstatePolicy;
use crate::testing::{any_geometry, bochs_sapphire_rapids, geometry, host, stride, user};

pub(super) fn set(bits: u64) -> ComponentSet {
    ComponentSet::from_bits_retain(bits)
}

/// x87 to AVX-512, PKRU, AMX, CET and UINTR; XSAVES and XFD.
pub(super) fn machine() -> HostXstate {
    host(bochs_sapphire_rapids(), 0x1f)
}

pub(super) fn policy(mask: u64) -> XstatePolicy {
    XstatePolicy::new(set(mask), ComponentSet::EMPTY)
}

/// An image that holds `held` and has room for `layout`, each component filled
/// with its number, MXCSR 1FA5, and what no restore reads filled with 0xcc.
pub(super) fn image(geometry: &Geometry, form: Form, layout: u64, held: u64) -> Vec<u8> {
    let (layout, held) = (set(layout), set(held));
    let mut bytes = vec![0xcc; geometry.image_size(form, layout)];
    let header = match form {
        Form::Standard => XsaveHeader::standard(held),
        Form::Compacted => XsaveHeader::compacted(held, layout),
    };
    bytes[LEGACY_BYTES..MIN_IMAGE_BYTES].copy_from_slice(header.as_bytes());
    bytes[24..28].copy_from_slice(&0x1fa5_u32.to_le_bytes());
    for place in geometry.placements(form, layout) {
        if held.has(place.component) {
            let bytes = &mut bytes[payload(place)];
            bytes.fill(place.component.get());
            if place.component == ComponentIndex::TILECFG {
                bytes.fill(0);
                (bytes[0], bytes[16], bytes[48]) = (1, 64, 16);
            }
        }
    }
    bytes
}

pub(super) fn standard(layout: u64, held: u64) -> Vec<u8> {
    image(machine().geometry(), Form::Standard, layout, held)
}

pub(super) fn compacted(layout: u64, held: u64) -> Vec<u8> {
    image(machine().geometry(), Form::Compacted, layout, held)
}

/// The canonical image of what was read, and what was dropped.
pub(super) fn taken(
    foreign: &ForeignImage<'_>,
    policy: &XstatePolicy,
    excess: Excess,
) -> Result<(Vec<u8>, Dropped), ForeignError> {
    let host = machine();
    let taken = read(foreign, host.geometry(), &host, policy, excess)?;
    let mut out = vec![0; taken.image.export_size()];
    let exported = taken.image.export(&mut out).unwrap();
    assert_eq!(exported.image_len, out.len());
    assert_eq!(exported.claims.xcr0, foreign.registers.xcr0);
    Ok((out, taken.dropped))
}

pub(super) fn refused(
    foreign: &ForeignImage<'_>,
    policy: &XstatePolicy,
    excess: Excess,
) -> &'static str {
    taken(foreign, policy, excess).unwrap_err().rule()
}

pub(super) fn canonical(bytes: &[u8], form: Form) -> Vec<u8> {
    let host = machine();
    let image = Image::new(bytes, host.geometry(), form).unwrap();
    let mut out = vec![0; 20_000];
    let written = canonicalise(&image, set(0), &mut out).unwrap();
    out.truncate(written.len_bytes);
    out
}

pub(super) fn mxcsr(bytes: &[u8]) -> u32 {
    LegacyRegion::ref_from_prefix(bytes).unwrap().0.mxcsr.get()
}

pub(super) fn xstate_bv(bytes: &[u8]) -> u64 {
    let (header, _) = XsaveHeader::ref_from_prefix(&bytes[LEGACY_BYTES..]).unwrap();
    header.xstate_bv().bits()
}

#[test]
fn each_form_gives_the_state_that_it_holds() {
    let all = policy(0x6_5ae7);
    let each = [0, 0x3, 0x4, 0xe6, 0x2e7, 0x6_02e7];
    for held in each.into_iter().step_by(stride(4)) {
        let std = standard(0x6_02e7, held);
        let expected = canonical(&std, Form::Standard);
        let mut kvm = std.clone();
        kvm.resize(12_288, 0xee);
        let mut long = std.clone();
        long.resize(12_288, 0);
        let xcr0 = ForeignRegisters::xcr0(0x6_02e7);
        for foreign in [
            ForeignImage::raw(&std, xcr0),
            ForeignImage::kvm(&kvm, xcr0),
            ForeignImage::xen_pv(&std, 0x6_02e7, 0x6_02e7),
            ForeignImage::xen_hvm(&std, 0x6_02e7, 0x6_02e7),
            ForeignImage::xen_hvm(&long, 0x6_02e7, 0x6_02e7),
        ] {
            let (bytes, dropped) = taken(&foreign, &all, Excess::Refuse).unwrap();
            assert_eq!(bytes, expected, "held {held:#x}");
            assert!(dropped.is_empty());
        }
        let bytes = compacted(0x6_02e7, held);
        let foreign = ForeignImage::raw(&bytes, xcr0);
        let (read, _) = taken(&foreign, &all, Excess::Refuse).unwrap();
        assert_eq!(read, canonical(&bytes, Form::Compacted), "held {held:#x}");
    }
}

/// A compacted image may hold supervisor state, enabled by the IA32_XSS that
/// came with it.
#[test]
fn a_raw_compacted_image_holds_supervisor_state() {
    let mut bytes = compacted(0x1807, 0x1807);
    let cet_u = bytes.len() - 40;
    bytes[cet_u..].fill(0);
    bytes[cet_u] = 1;
    let registers = ForeignRegisters {
        xss: 0x1800,
        ..ForeignRegisters::xcr0(7)
    };
    let foreign = ForeignImage::raw(&bytes, registers);
    let (read, _) = taken(&foreign, &policy(0x1807), Excess::Refuse).unwrap();
    assert_eq!(xstate_bv(&read), 0x807, "cet_s is INIT by content");
}

/// Xen 773522000c.
#[test]
fn header_read_before_the_length_check() {
    let bytes = standard(0x7, 0x7);
    for len in (0..MIN_IMAGE_BYTES).step_by(stride(191)) {
        let bytes = &bytes[..len];
        for foreign in [
            ForeignImage::raw(bytes, ForeignRegisters::xcr0(7)),
            ForeignImage::kvm(bytes, ForeignRegisters::xcr0(7)),
            ForeignImage::xen_pv(bytes, 7, 7),
            ForeignImage::xen_hvm(bytes, 7, 7),
        ] {
            assert_eq!(
                refused(&foreign, &policy(7), Excess::Drop),
                "image-too-short",
                "{len} bytes"
            );
        }
    }
}

#[test]
fn lengths_are_exact() {
    let (long, short) = (standard(0x2e7, 0x7), standard(0x7, 0x7));
    for bytes in [&short[..short.len() - 1], &long[..short.len() + 1], &long] {
        let xcr0 = ForeignRegisters::xcr0(7);
        for foreign in [
            ForeignImage::raw(bytes, xcr0),
            ForeignImage::xen_pv(bytes, 7, 7),
        ] {
            let error = taken(&foreign, &policy(0x2e7), Excess::Drop).unwrap_err();
            assert_eq!(error.rule(), "image-length");
            assert_eq!((error.seen(), error.allowed()), (bytes.len() as u64, 832));
        }
    }
    // Xen sizes by what was ever enabled, not by what is.
    let foreign = ForeignImage::xen_pv(&long, 7, 0x2e7);
    assert!(taken(&foreign, &policy(0x2e7), Excess::Refuse).is_ok());
    let one_more = [&compacted(0x7, 0x7)[..], &[0]].concat();
    let foreign = ForeignImage::raw(&one_more, ForeignRegisters::xcr0(7));
    assert_eq!(
        refused(&foreign, &policy(7), Excess::Refuse),
        "image-length"
    );
}

/// Linux df1daba7d1.
#[test]
fn a_compacted_image_handed_to_a_standard_format_interface() {
    let bytes = compacted(0x7, 0x7);
    for foreign in [
        ForeignImage::kvm(&bytes, ForeignRegisters::xcr0(7)),
        ForeignImage::xen_pv(&bytes, 7, 7),
        ForeignImage::xen_hvm(&bytes, 7, 7),
    ] {
        let error = taken(&foreign, &policy(7), Excess::Drop).unwrap_err();
        assert_eq!(error, ForeignError::Compacted(1 << 63 | 7));
    }
    let mut neither = standard(0x7, 0x7);
    neither[520] = 7;
    let foreign = ForeignImage::raw(&neither, ForeignRegisters::xcr0(7));
    assert_eq!(
        refused(&foreign, &policy(7), Excess::Drop),
        "xcomp-bv-bit-63"
    );
    neither[520] = 0;
    neither[530] = 1;
    assert_eq!(
        refused(
            &ForeignImage::raw(&neither, ForeignRegisters::xcr0(7)),
            &policy(7),
            Excess::Drop
        ),
        "header-reserved"
    );
}

/// A standard-form XRSTOR loads MXCSR whatever XSTATE_BV says, a compacted one
/// with XSTATE_BV\[1\] alone. Xen, Linux and OpenVMM turn 1FA5 into 1F80.
#[test]
fn mxcsr_lost_in_conversion() {
    for held in 0..8 {
        let bytes = standard(0x7, held);
        let xcr0 = ForeignRegisters::xcr0(7);
        for foreign in [
            ForeignImage::raw(&bytes, xcr0),
            ForeignImage::kvm(&bytes, xcr0),
            ForeignImage::xen_pv(&bytes, 7, 7),
        ] {
            let (read, _) = taken(&foreign, &policy(7), Excess::Refuse).unwrap();
            assert_eq!(mxcsr(&read), 0x1fa5, "standard, held {held:#x}");
            assert_eq!(xstate_bv(&read) & 2, 2, "or XRSTORS makes it 1F80");
        }
        let bytes = compacted(0x7, held);
        let (read, _) =
            taken(&ForeignImage::raw(&bytes, xcr0), &policy(7), Excess::Refuse).unwrap();
        let expected = if held & 2 != 0 { 0x1fa5 } else { 0x1f80 };
        assert_eq!(mxcsr(&read), expected, "compacted, held {held:#x}");
    }
}

#[test]
fn an_mxcsr_that_would_fault_is_refused_where_it_counts() {
    for (held, form, refusal) in [
        (0, Form::Standard, true),
        (4, Form::Standard, true),
        (4, Form::Compacted, false),
        (2, Form::Compacted, true),
    ] {
        let mut bytes = image(machine().geometry(), form, 7, held);
        bytes[26] = 1;
        let foreign = ForeignImage::raw(&bytes, ForeignRegisters::xcr0(7));
        let rule = taken(&foreign, &policy(7), Excess::Drop).map_err(|e| e.rule());
        assert_eq!(rule.err(), refusal.then_some("mxcsr"), "{form:?} {held:#x}");
    }
}

/// KVM leaves a mask and magics at 464, processors MXCSR_MASK at 28.
#[test]
fn what_software_leaves_in_the_legacy_region_is_no_state() {
    let bytes = standard(0x7, 0x7);
    let (expected, _) = taken(
        &ForeignImage::kvm(&bytes, ForeignRegisters::xcr0(7)),
        &policy(7),
        Excess::Refuse,
    )
    .unwrap();
    for at in (28..32).chain(416..512) {
        let mut other = bytes.clone();
        other[at] ^= 0xff;
        let foreign = ForeignImage::kvm(&other, ForeignRegisters::xcr0(7));
        let (read, _) = taken(&foreign, &policy(7), Excess::Refuse).unwrap();
        assert!(read == expected, "byte {at}");
    }
}

/// Linux b45f721775.
#[test]
fn xstate_bv_with_what_xfd_disables() {
    let bytes = standard(0x6_02e7, 0x6_0003);
    let registers = ForeignRegisters {
        xfd: 1 << 18,
        ..ForeignRegisters::xcr0(0x6_02e7)
    };
    let foreign = ForeignImage::raw(&bytes, registers);
    assert_eq!(
        refused(&foreign, &policy(0x6_02e7), Excess::Drop),
        "xstate-bv-xfd"
    );
}

#[test]
fn a_standard_image_has_no_place_for_supervisor_state() {
    let bytes = standard(0x7, 0x807);
    let registers = ForeignRegisters {
        xss: 0x800,
        ..ForeignRegisters::xcr0(7)
    };
    let foreign = ForeignImage::kvm(&bytes, registers);
    let error = taken(&foreign, &policy(0x1807), Excess::Drop).unwrap_err();
    assert_eq!(
        error,
        ForeignError::Supervisor(ComponentIndex::CET_U, 0x807)
    );
}

/// Another machine's standard layout is what the guest has in its memory.
#[test]
fn an_image_of_another_machine() {
    let amd = geometry(&[(2, user(256, 576)), (9, user(8, 2432))]);
    let host = machine();
    let bytes = image(&amd, Form::Standard, 0x207, 0x207);
    let foreign = ForeignImage::raw(&bytes, ForeignRegisters::xcr0(0x207));
    let error = read(&foreign, &amd, &host, &policy(0x207), Excess::Drop).unwrap_err();
    assert_eq!(error.rule(), "component-layout");

    // A policy of what both have is taken, at the other's offsets.
    let taken = read(&foreign, &amd, &host, &policy(0x7), Excess::Drop);
    assert_eq!(taken.unwrap_err().rule(), "xcr0-policy");
    let foreign = ForeignImage::xen_pv(&bytes, 7, 0x207);
    let taken = read(&foreign, &amd, &host, &policy(0x7), Excess::Drop).unwrap();
    assert_eq!(taken.dropped.in_use, set(0x200));
    assert_eq!(taken.image.image().xstate_bv(), set(0x7));
}

proptest! {
    /// Whatever comes, it is read or refused; and what is read says nothing
    /// beyond the policy.
    #[test]
    fn any_bytes_are_read_or_refused(
        geometry in any_geometry(),
        fill in prop::collection::vec(any::<u8>(), 0..700),
        words in any::<[u64; 6]>(),
        shifts in any::<[u8; 6]>(),
        len in 0usize..12_000,
        (standard, tail, lenient, told) in (any::<bool>(), 0usize..3, any::<bool>(), any::<bool>()),
    ) {
        // Low bits alone, mostly: else no header ever fits.
        let word = |i: usize| words[i] >> (shifts[i] % 64);
        let mut bytes = vec![0; len];
        for (to, from) in bytes.iter_mut().zip(&fill) {
            *to = *from;
        }
        if len >= MIN_IMAGE_BYTES {
            bytes[24..28].copy_from_slice(&0x1f80_u32.to_le_bytes());
            bytes[512..520].copy_from_slice(&word(0).to_le_bytes());
            let xcomp_bv = if shifts[1] & 1 == 0 { 0 } else { word(1) | 1 << 63 };
            bytes[520..528].copy_from_slice(&xcomp_bv.to_le_bytes());
            bytes[528..576].fill(0);
        }
        let host = host(geometry, 0x1f);
        let policy = XstatePolicy::new(host.offered(), ComponentSet::EMPTY);
        let foreign = ForeignImage {
            bytes: &bytes,
            accepts: if standard { Accepts::Standard } else { Accepts::Either },
            tail: [Tail::None, Tail::Zeros, Tail::Unread][tail],
            under_xfd: UnderXfd::Refused,
            fp_pointers: if told { FpPointers::ByWordSize } else { FpPointers::Wide },
            elsewhere: ComponentSet::EMPTY,
            registers: ForeignRegisters {
                xcr0: word(2) & policy.mask.bits() | 1,
                accum: told.then(|| word(3) | word(2)),
                xss: 0,
                xfd: 0,
                xfd_err: 0,
            },
        };
        let excess = if lenient { Excess::Drop } else { Excess::Refuse };
        if let Ok(taken) = read(&foreign, host.geometry(), &host, &policy, excess) {
            prop_assert!(policy.mask.contains(taken.image.image().xstate_bv()));
            prop_assert!(taken.dropped.is_empty() || lenient);
            let mut out = vec![0; taken.image.export_size()];
            prop_assert!(taken.image.export(&mut out).is_ok());
        }
    }
}
