//! What Xen's records and KVM's buffers have of their own.

use super::read_tests::{machine, mxcsr, policy, refused, set, standard, taken, xstate_bv};
use super::*;
use crate::component::ComponentIndex;
use crate::convert::{Target, transfer};
use crate::layout::Form;
use crate::masks::XstatePolicy;
use crate::update::begin_image_view;
use crate::views::{CetUser, UserCet};

/// Xen 4.3.0, 4.2.3 and older sent the host's largest size.
#[test]
fn over_long_hvm_records_end_in_zeros() {
    let mut bytes = standard(0x7, 0x7);
    bytes.resize(2696, 0);
    let hvm = |bytes: &[u8]| {
        taken(
            &ForeignImage::xen_hvm(bytes, 7, 7),
            &policy(7),
            Excess::Refuse,
        )
    };
    assert!(hvm(&bytes).is_ok());
    bytes[2695] = 1;
    let error = hvm(&bytes).unwrap_err();
    assert_eq!(error, ForeignError::Tail(2695, 832));
    assert_eq!(hvm(&bytes[..831]).unwrap_err().rule(), "image-length");
}

/// CRIU #1448, Cloud Hypervisor #7533.
#[test]
#[cfg_attr(miri, ignore = "tiles are small under Miri")]
fn hard_coded_4096_with_amx() {
    let bytes = &standard(0x6_02e7, 0x6_0003)[..4096];
    let foreign = ForeignImage::kvm(bytes, ForeignRegisters::xcr0(0x6_02e7));
    let error = taken(&foreign, &policy(0x6_02e7), Excess::Refuse).unwrap_err();
    assert_eq!(
        error,
        ForeignError::Truncated(ComponentIndex::TILEDATA, 4096, 11008)
    );
    assert_eq!(
        error.to_string(),
        "foreign-truncated: tiledata ends at 11008, the bytes at 4096"
    );
    // Where the tiles are INIT nothing is missing.
    let bytes = &standard(0x6_02e7, 0x2_0003)[..4096];
    let foreign = ForeignImage::kvm(bytes, ForeignRegisters::xcr0(0x6_02e7));
    assert!(taken(&foreign, &policy(0x6_02e7), Excess::Refuse).is_ok());
}

/// A buffer that KVM gave was refused: state under XFD is undefined there, and
/// KVM itself makes it INIT when it is loaded.
#[test]
fn kvm_buffer_with_tiles_under_xfd() {
    let bytes = standard(0x6_02e7, 0x6_0003);
    let registers = ForeignRegisters {
        xfd: 1 << 18,
        ..ForeignRegisters::xcr0(0x6_02e7)
    };
    let foreign = ForeignImage::kvm(&bytes, registers);
    for excess in [Excess::Refuse, Excess::Drop] {
        let (read, dropped) = taken(&foreign, &policy(0x6_02e7), excess).unwrap();
        assert_eq!(xstate_bv(&read), 0x2_0003);
        assert_eq!(
            dropped.disabled,
            ComponentSet::only(ComponentIndex::TILEDATA)
        );
        assert!(dropped.state.is_empty() && dropped.in_use.is_empty());
        assert_eq!(dropped.to_string(), "tiledata (disabled by IA32_XFD)");
    }
    // Enabled, the same bytes are state.
    let foreign = ForeignImage::kvm(&bytes, ForeignRegisters::xcr0(0x6_02e7));
    let (read, dropped) = taken(&foreign, &policy(0x6_02e7), Excess::Refuse).unwrap();
    assert_eq!((xstate_bv(&read), dropped.is_empty()), (0x6_0003, true));
}

/// Linux a1020a25e6, and Xen's `{0, 0}`.
#[test]
fn fp_and_sse_without_xsave() {
    let mut region = [0; LEGACY_BYTES];
    region.copy_from_slice(&standard(0x3, 0x3)[..LEGACY_BYTES]);
    let image = image_of_fxsave(&region);
    let foreign = ForeignImage::fxsave(&image);
    let without = XstatePolicy::without_xsave();
    let (read, _) = taken(&foreign, &without, Excess::Refuse).unwrap();
    assert_eq!((xstate_bv(&read), mxcsr(&read)), (3, 0x1fa5));
    let with = ForeignImage::raw(&image, ForeignRegisters::xcr0(3));
    assert_eq!(refused(&with, &without, Excess::Drop), "xcr0-without-xsave");
}

/// A KVM buffer has no CET, whose registers are MSRs. One that came with IA32_XSS was
/// read as if they were INIT, and nobody was told.
#[test]
fn ia32_xss_beside_a_standard_image() {
    let (host, all) = (machine(), policy(0x1807));
    let bytes = standard(0x7, 0x7);
    let registers = ForeignRegisters {
        xss: 0x1800,
        ..ForeignRegisters::xcr0(7)
    };
    for excess in [Excess::Refuse, Excess::Drop] {
        let foreign = ForeignImage::kvm(&bytes, registers);
        let error = taken(&foreign, &all, excess).unwrap_err();
        assert_eq!(error, ForeignError::Xss(0x1800, 0));
        assert_eq!(
            error.to_string(),
            "foreign-xss: IA32_XSS has cet_u cet_s, for which a standard image has no place"
        );
        let half = foreign.with_elsewhere(set(0x800));
        assert_eq!(refused(&half, &all, excess), "foreign-xss");
        let whole = foreign.with_elsewhere(ComponentSet::CET);
        let read = read(&whole, host.geometry(), &host, &all, excess).unwrap();
        assert_eq!(read.image.claims().xss, 0x1800);
    }

    // The way to a blob that has them, from a buffer that has anything where
    // IA32_XFD disables it.
    let all = policy(0x6_1807);
    let bytes = standard(0x6_0007, 0x6_0007);
    let registers = ForeignRegisters {
        xfd: 1 << 18,
        ..ForeignRegisters {
            xcr0: 0x6_0007,
            ..registers
        }
    };
    let geometry = host.geometry();
    let foreign = ForeignImage::kvm(&bytes, registers).with_elsewhere(ComponentSet::CET);
    let first = read(&foreign, geometry, &host, &all, Excess::Refuse).unwrap();
    let target = Target {
        geometry,
        form: Form::Compacted,
        layout: set(0x2_1807),
    };
    let mut with_cet = vec![0; target.size_bytes()];
    transfer(
        first.image.image(),
        ComponentSet::ALL,
        target,
        &mut with_cet,
    )
    .unwrap();
    let limits = host.limits();
    let view = begin_image_view::<CetUser>(&mut with_cet, geometry, Form::Compacted, &limits);
    let mut cet = view.unwrap();
    cet.control = UserCet::new(UserCet::SHADOW_STACKS, &limits).unwrap();
    cet.finish().unwrap();
    let foreign = ForeignImage::raw(&with_cet, registers);
    let (read, _) = taken(&foreign, &all, Excess::Refuse).unwrap();
    assert_eq!(xstate_bv(&read), 0x2_0807);
}

/// Xen restores by XRSTOR without REX.W where byte 511 says that a selector is behind
/// each offset of 32 bits; XRSTOR64 took both as one address.
#[test]
fn xen_keeps_selectors_behind_fip_and_fdp() {
    let mut bytes = standard(0x3, 0x3);
    bytes[8..16].copy_from_slice(&0x0033_0040_1234_u64.to_le_bytes());
    bytes[16..24].copy_from_slice(&0x0000_7fff_0010_u64.to_le_bytes());
    for (size, narrow) in [(0, false), (8, false), (2, true), (4, true)] {
        bytes[511] = size;
        for foreign in [
            ForeignImage::xen_pv(&bytes, 3, 3),
            ForeignImage::xen_hvm(&bytes, 3, 3),
            ForeignImage::fxsave(bytes.first_chunk().unwrap()),
        ] {
            let policy = match foreign.registers.xcr0 {
                1 => XstatePolicy::without_xsave(),
                _ => policy(3),
            };
            let read = taken(&foreign, &policy, Excess::Refuse);
            let selectors = ForeignError::Selectors(0x33_0040_1234, 0x7fff_0010);
            let error = Some(selectors).filter(|_| narrow);
            assert_eq!(read.err(), error, "{size}");
        }
        // Nobody else has that byte, and nothing is left of what is INIT.
        let raw = ForeignImage::raw(&bytes, ForeignRegisters::xcr0(3));
        assert!(taken(&raw, &policy(3), Excess::Refuse).is_ok());
        let mut init = bytes.clone();
        init[512] = 2;
        let foreign = ForeignImage::xen_pv(&init, 3, 3);
        assert!(taken(&foreign, &policy(3), Excess::Refuse).is_ok());

        let mut wide = bytes.clone();
        assert_eq!(drop_fp_selectors(&mut wide), narrow);
        assert!(!drop_fp_selectors(&mut wide));
        let foreign = ForeignImage::xen_pv(&wide, 3, 3);
        let (read, _) = taken(&foreign, &policy(3), Excess::Refuse).unwrap();
        let fip = if narrow {
            0x40_1234
        } else {
            0x33_0040_1234_u64
        };
        assert_eq!(read[8..16], fip.to_le_bytes());
        assert_eq!(read[16..24], 0x7fff_0010_u64.to_le_bytes());
    }
    assert!(!drop_fp_selectors(&mut [4; 511]));
}
