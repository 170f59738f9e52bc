//! Tests of validation: every rule is reached, and what passes can be restored.

use std::collections::BTreeSet;

use zerocopy::IntoBytes;

use super::*;
use crate::ComponentFacts;
use crate::header::XsaveHeader;
use crate::image::payload;
use crate::legacy::LegacyRegion;
use crate::testing::{bochs_sapphire_rapids, geometry, host, qemu_max, stride, supervisor, user};

pub(super) fn set(bits: u64) -> ComponentSet {
    ComponentSet::from_bits_retain(bits)
}

pub(super) const MASK: u64 = 0x6_5ae7;
const XCR0: u64 = 0x6_02e7;

/// A machine with every component that has rules of its own.
pub(super) fn everything() -> Geometry {
    let mut g = bochs_sapphire_rapids();
    for (index, facts) in [(10, supervisor(8)), (15, supervisor(808))] {
        g.insert(ComponentIndex::new(index).unwrap(), facts)
            .unwrap();
    }
    g
}

/// An image that comes with what makes it acceptable.
#[derive(Clone)]
pub(super) struct Sample {
    pub(super) claims: Claims,
    pub(super) geometry: Geometry,
    pub(super) image: Vec<u8>,
    pub(super) host: HostXstate,
    pub(super) policy: XstatePolicy,
}

impl Sample {
    /// An image of `held` from a guest of the policy `mask` that enabled all.
    pub(super) fn new(geometry: Geometry, instructions: u32, mask: u64, held: u64) -> Self {
        let host = host(geometry.clone(), instructions);
        let mask = set(mask);
        let layout = set(held);
        let mut image = vec![0; geometry.image_size(Form::Compacted, layout)];
        image[..512].copy_from_slice(LegacyRegion::INIT.as_bytes());
        image[512..576].copy_from_slice(XsaveHeader::compacted(layout, layout).as_bytes());
        for place in geometry.placements(Form::Compacted, layout) {
            crate::selftest::pattern(place.component, 3, &mut image[payload(place)]);
        }
        let user = mask.intersection(host.user());
        Self {
            claims: Claims {
                xstate_mask: mask.bits(),
                xcr0: user.bits(),
                xss: mask.intersection(host.supervisor()).bits(),
                xfd: 0,
                xfd_err: 0,
                accum: mask.bits(),
                xcomp_bv: COMPACTED | held,
                xsave: true,
            },
            geometry,
            image,
            host,
            policy: XstatePolicy::new(mask, ComponentSet::EMPTY),
        }
    }

    pub(super) fn validate(&self) -> Result<TrustedImage<'_>, Rejection> {
        validate(
            &self.claims,
            &self.geometry,
            &self.image,
            &self.host,
            &self.policy,
        )
    }

    fn put(&mut self, offset: usize, value: u64) {
        self.image[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
    }

    pub(super) fn offset(&self, component: ComponentIndex) -> usize {
        let layout = set(self.claims.xcomp_bv & !COMPACTED);
        self.geometry
            .placements(Form::Compacted, layout)
            .find(|place| place.component == component)
            .unwrap()
            .offset_bytes
    }
}

fn sample() -> Sample {
    Sample::new(bochs_sapphire_rapids(), 0x1f, MASK, MASK)
}

/// What a change to an acceptable sample is refused for.
fn refused(change: impl FnOnce(&mut Sample)) -> Rejection {
    let mut sample = sample();
    assert!(sample.validate().is_ok());
    change(&mut sample);
    sample.validate().expect_err("must be refused")
}

#[test]
fn every_rule_is_reached() {
    use Rejection as R;
    let full = Sample::new(everything(), 0x1f, MASK | 0x8400, MASK | 0x8400);
    assert!(full.validate().is_ok());
    let in_component = |component, offset: usize, value| {
        let mut sample = full.clone();
        let at = sample.offset(component) + offset;
        sample.put(at, value);
        sample.validate().expect_err("must be refused")
    };
    let tiles = 1 << 18;
    let moved = |offset| {
        let mut other = geometry(&[(2, user(256, 576)), (5, user(64, offset))]);
        for component in set(MASK & !0x27) {
            let facts = *bochs_sapphire_rapids().get(component).unwrap();
            other.insert(component, facts).unwrap();
        }
        other
    };
    let cases = [
        (
            refused(|s| s.image.truncate(575)),
            "image-too-short",
            575,
            576,
        ),
        (refused(|s| s.claims.xsave = false), "policy-xsave", 0, 1),
        (
            refused(|s| s.claims.xstate_mask = 1),
            "xstate-mask-legacy",
            1,
            3,
        ),
        (
            refused(|s| s.policy = XstatePolicy::new(set(7), set(0))),
            "xstate-mask-policy",
            MASK,
            7,
        ),
        (
            refused(|s| s.host.restrict(ComponentSet::CET)),
            "xstate-mask-host",
            MASK,
            MASK & !0x1800,
        ),
        (
            refused(|s| s.geometry = qemu_max()),
            "xstate-mask-directory",
            MASK,
            0x21f,
        ),
        (
            refused(|s| s.claims.xstate_mask = MASK & !tiles),
            "xstate-mask-group",
            MASK & !tiles,
            MASK & !0x6_0000,
        ),
        (
            refused(|s| s.geometry = moved(832)),
            "component-layout",
            832,
            1088,
        ),
        (refused(|s| s.claims.xcr0 = 0), "xcr0-x87", 0, 1),
        (
            refused(|s| s.claims.xcr0 = 0x107),
            "xcr0-policy",
            0x107,
            XCR0,
        ),
        (
            refused(|s| s.claims.xss = 0x2000),
            "xss-policy",
            0x2000,
            0x5800,
        ),
        (refused(|s| s.claims.xfd = 4), "xfd-policy", 4, tiles),
        (
            refused(|s| s.claims.xfd_err = 4),
            "xfd-err-policy",
            4,
            tiles,
        ),
        (
            refused(|s| s.claims.accum |= 8),
            "accum-policy",
            MASK | 8,
            MASK,
        ),
        (
            refused(|s| s.claims.accum &= !0x20),
            "accum-enabled",
            MASK & !0x20,
            MASK & !tiles,
        ),
        (
            refused(|s| s.put(520, COMPACTED | MASK & !1)),
            "xcomp-bv-claim",
            COMPACTED | MASK & !1,
            COMPACTED | MASK,
        ),
        (
            refused(|s| s.claims.xcomp_bv = MASK),
            "xcomp-bv-bit-63",
            MASK,
            COMPACTED | MASK,
        ),
        (
            refused(|s| s.claims.xcomp_bv |= 8),
            "xcomp-bv-policy",
            COMPACTED | MASK | 8,
            COMPACTED | MASK,
        ),
        (refused(|s| s.image.push(0)), "image-length", 0x2a41, 0x2a40),
        (
            refused(|s| s.image[575] = 0x80),
            "header-reserved",
            0x80 << 56,
            0,
        ),
        (
            refused(|s| s.put(512, MASK | 8)),
            "xstate-bv-xcomp-bv",
            MASK | 8,
            MASK,
        ),
        (
            refused(|s| s.claims.accum &= !tiles),
            "xstate-bv-accum",
            MASK,
            MASK & !tiles,
        ),
        (
            refused(|s| s.claims.xfd = tiles),
            "xstate-bv-xfd",
            MASK,
            ComponentSet::ALL.bits() & !tiles,
        ),
        (refused(|s| s.image[26] = 1), "mxcsr", 0x1_1f80, 0xffff),
        (
            in_component(ComponentIndex::CET_U, 8, 1 << 47),
            "component-address",
            1 << 47,
            (1 << 47) - 1,
        ),
        (
            in_component(ComponentIndex::PASID, 0, 1 << 63),
            "component-reserved",
            1 << 63,
            0x800f_ffff,
        ),
        (
            in_component(ComponentIndex::CET_U, 0, 0xc00),
            "cet-tracker",
            0xc00,
            0x800,
        ),
        (in_component(ComponentIndex::LBR, 8, 7), "lbr-depth", 7, 64),
        (
            in_component(ComponentIndex::TILECFG, 0, 2),
            "tile-config",
            2,
            1,
        ),
    ];
    let mut codes = BTreeSet::new();
    for (rejection, rule, seen, allowed) in cases {
        assert_eq!(rejection.rule(), rule);
        assert_eq!(
            (rejection.seen(), rejection.allowed()),
            (seen, allowed),
            "{rule}"
        );
        assert!(codes.insert(rejection.code()), "{rule} shares its code");
        // In words, and for those who want the values.
        assert_eq!(
            rejection.to_string(),
            format!("{rule}: {}", rejection.words())
        );
        assert_eq!(
            rejection.broken().to_string(),
            format!("{rule}: seen {seen:#x}, allowed {allowed:#x}")
        );
    }
    // 25 rules of `Rejection` itself, and those of the register verdicts.
    assert_eq!(codes.iter().filter(|code| **code >> 8 == 3).count(), 25);
    let without = Sample {
        policy: XstatePolicy::without_xsave(),
        ..Sample::new(qemu_max(), 5, 3, 3)
    };
    let refused = |xcr0| {
        let mut sample = without.clone();
        (sample.claims.xsave, sample.claims.xcr0) = (false, xcr0);
        sample.validate().err()
    };
    assert_eq!(refused(1), None);
    assert_eq!(refused(3), Some(R::Xcr0(Xcr0Error::WithoutXsave(3))));
}

/// Xen 104a409ebc, Linux dffba9a31c.
#[test]
fn xcomp_bv_bit_63_clear() {
    let rejection = refused(|s| {
        s.claims.xcomp_bv &= !COMPACTED;
        s.put(520, MASK);
    });
    assert_eq!(rejection.rule(), "xcomp-bv-bit-63");
    // In the image alone.
    assert_eq!(refused(|s| s.put(520, MASK)).rule(), "xcomp-bv-claim");
}

/// Xen 104a409ebc, CVE-2017-15537: XSTATE_BV beyond XCOMP_BV.
#[test]
fn xcomp_bv_not_covering_xstate_bv() {
    let mut sample = Sample::new(bochs_sapphire_rapids(), 0x1f, MASK, 0x203);
    assert!(sample.validate().is_ok());
    sample.put(512, 0x207);
    assert_eq!(
        sample.validate().unwrap_err(),
        Rejection::XstateBvXcompBv(0x207, 0x203)
    );
    // SSE in XSTATE_BV alone, although its bytes are there in any image.
    let mut sample = Sample::new(bochs_sapphire_rapids(), 0x1f, MASK, 0);
    sample.put(512, 2);
    assert_eq!(sample.validate().unwrap_err().rule(), "xstate-bv-xcomp-bv");
}

/// Xen 773522000c: nothing is read of what is not there.
#[test]
fn header_read_before_length_check() {
    let whole = sample();
    for len in (0..whole.image.len()).step_by(stride(1009)) {
        let cut = &whole.image[..len];
        let refused = validate(
            &whole.claims,
            &whole.geometry,
            cut,
            &whole.host,
            &whole.policy,
        );
        let rule = if len < 576 {
            "image-too-short"
        } else {
            "image-length"
        };
        assert_eq!(refused.unwrap_err().rule(), rule, "{len} bytes");
    }
}

/// CVE-2024-26603: a size that the sender names is not the size that counts.
#[test]
fn cve_2024_26603_trusted_size() {
    let rejection = refused(|s| s.claims.xcomp_bv &= !(1 << 18));
    assert_eq!(rejection.rule(), "image-length");
}

/// Linux d7876f1be4, Xen fe0d67576e: bits beyond leaf 0xD, high ones too.
#[test]
fn bits_beyond_leaf_0xd_accepted() {
    for bit in (19..63).chain([3, 4, 8, 10, 13, 15, 16]) {
        let bit = 1 << bit;
        let rule = |change: fn(&mut Sample, u64)| refused(|s| change(s, bit)).rule();
        assert_eq!(
            rule(|s, bit| s.claims.xstate_mask |= bit),
            "xstate-mask-policy"
        );
        assert_eq!(rule(|s, bit| s.claims.xcomp_bv |= bit), "xcomp-bv-policy");
        assert_eq!(rule(|s, bit| s.claims.accum |= bit), "accum-policy");
        assert_eq!(rule(|s, bit| s.claims.xcr0 |= bit), "xcr0-policy");
        assert_eq!(rule(|s, bit| s.claims.xss |= bit), "xss-policy");
        assert_eq!(rule(|s, bit| s.put(512, MASK | bit)), "xstate-bv-xcomp-bv");
    }
    assert_eq!(
        refused(|s| s.claims.xstate_mask |= 1 << 63).rule(),
        "xstate-mask-policy"
    );
    assert_eq!(
        refused(|s| s.put(512, 1 << 63)).rule(),
        "xstate-bv-xcomp-bv"
    );
}

/// XSA-54 by migration instead of XSETBV; and an image header, to which the
/// groups do not apply.
#[test]
fn xsa_54_ymm_without_sse() {
    assert_eq!(refused(|s| s.claims.xcr0 = 5).rule(), "xcr0-avx-needs-sse");
    let header_only = Sample::new(bochs_sapphire_rapids(), 0x1f, MASK, 0x4);
    assert!(header_only.validate().is_ok());
}

/// TILECFG without TILEDATA: refused in XCR0, fine in accum.
#[test]
fn tilecfg_without_tiledata() {
    assert_eq!(
        refused(|s| s.claims.xcr0 = 0x2_02e7).rule(),
        "xcr0-amx-group"
    );
    let mut armed = Sample::new(bochs_sapphire_rapids(), 0x1f, MASK, 0x2_0207);
    armed.claims.accum &= !(1 << 18);
    assert!(armed.validate().is_ok());
}

/// XSA-53: a bad MXCSR faulted in the host. AMD's bit 17 is bad on Intel only.
#[test]
fn xsa_53_mxcsr_faults_in_the_host() {
    let mut amd = Sample::new(qemu_max(), 5, 0x21f, 0x21f);
    amd.put(24, 0x2_1f80);
    assert_eq!(
        amd.validate().unwrap_err(),
        Rejection::Mxcsr(0x2_1f80, 0xffff)
    );
    let machine = crate::testing::Machine {
        geometry: qemu_max(),
        instructions: 5,
    };
    amd.host = HostXstate::read(&|l, s| machine.cpuid(l, s), 0x2_ffff).unwrap();
    assert!(amd.validate().is_ok());
    // Where SSE is INIT the bytes do not count.
    let mut init = Sample::new(qemu_max(), 5, 0x21f, 0x204);
    init.put(24, u64::MAX);
    assert!(init.validate().is_ok());
}

/// Xen 75f9455e92: what matters is the policy, not all that the machines have.
#[test]
fn host_maximum_is_not_the_guests() {
    let mut sample = Sample::new(qemu_max(), 5, 0x207, 0x207);
    sample.host = host(bochs_sapphire_rapids(), 0xf);
    assert!(sample.validate().is_ok());
    // The same three components, PKRU as AMD has it.
    sample.geometry = geometry(&[(2, user(256, 576)), (9, user(64, 832))]);
    let Err(Rejection::Layout(difference)) = sample.validate() else {
        panic!("layouts differ");
    };
    assert_eq!(difference.to_string(), "pkru 64 bytes there, 8 bytes here");
}

/// A component of which a facts' bit differs is another layout too.
#[test]
fn xfd_bit_is_part_of_the_layout() {
    let mut other = Geometry::new();
    for component in bochs_sapphire_rapids().known().difference(set(3)) {
        let facts = *bochs_sapphire_rapids().get(component).unwrap();
        other
            .insert(
                component,
                ComponentFacts {
                    xfd: false,
                    ..facts
                },
            )
            .unwrap();
    }
    let rejection = refused(|s| s.geometry = other);
    assert_eq!(rejection.rule(), "component-layout");
    assert_eq!((rejection.seen(), rejection.allowed()), (0, 1));
}
