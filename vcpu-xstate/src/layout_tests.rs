//! Tests of the layout iterator: measured machines, refusals, and properties over any geometry.

use proptest::prelude::*;

use super::*;
use crate::testing::{TILES_CUT, bochs_sapphire_rapids, geometry, qemu_max, user};

fn offsets(g: &Geometry, form: Form, mask: u64) -> Vec<(u8, usize)> {
    g.placements(form, ComponentSet::from_bits_retain(mask))
        .map(|p| (p.component.get(), p.offset_bytes))
        .collect()
}

fn size(g: &Geometry, form: Form, mask: u64) -> usize {
    g.image_size(form, ComponentSet::from_bits_retain(mask))
}

#[test]
fn qemu_max_has_the_measured_sizes() {
    let g = qemu_max();
    assert_eq!(size(&g, Form::Standard, 0x21f), 0xa88);
    assert_eq!(size(&g, Form::Compacted, 0x21f), 968);
    assert_eq!(size(&g, Form::Standard, 0x3), 576);
    assert_eq!(size(&g, Form::Compacted, 0x3), 576);
    assert_eq!(size(&g, Form::Standard, 0x7), 0x340);
    assert_eq!(
        offsets(&g, Form::Compacted, 0x21f),
        [(2, 576), (3, 832), (4, 896), (9, 960)]
    );
}

#[test]
fn sapphire_rapids_aligns_tiles_in_the_compacted_form() {
    let g = bochs_sapphire_rapids();
    assert_eq!(size(&g, Form::Standard, 0x6_02e7), 0x2b00 - TILES_CUT);
    // Bochs 3.1's own leaf says 0x2a20 (it forgets the alignment), its code
    // does 0x2a40 (platforms measured).
    assert_eq!(
        size(&g, Form::Compacted, 0x6_02e7 | 0x5800),
        0x2a40 - TILES_CUT
    );
    // Without anything odd-sized in front there is no gap.
    assert_eq!(
        size(&g, Form::Compacted, 0x6_00e7),
        576 + 256 + 1600 + 64 + 8192 - TILES_CUT
    );
}

/// APX (19) and LWP (62) sit below components of lower number; PKRU sits at
/// 832 on AMD. The size is the largest end, not the topmost bit's.
#[test]
fn topmost_bit_taken_for_the_end() {
    let g = geometry(&[
        (2, user(256, 576)),
        (5, user(64, 1088)),
        (6, user(512, 1152)),
        (7, user(1024, 1664)),
        (19, user(128, 960)),
        (62, user(128, 832)),
    ]);
    assert_eq!(size(&g, Form::Standard, 1 << 62 | 1 << 19 | 0xe7), 2688);
    assert_eq!(size(&g, Form::Standard, 1 << 62 | 0x7), 960);
    assert_eq!(
        offsets(&g, Form::Compacted, 1 << 63 | 1 << 62 | 1 << 19 | 0x7),
        [(2, 576), (19, 832), (62, 960)]
    );
}

/// Xen 9979547be5, Linux 4498601d1a: offsets come from the image's own
/// XCOMP_BV, not from all that the host has.
#[test]
fn offsets_from_host_maximum() {
    let g = qemu_max();
    assert_eq!(offsets(&g, Form::Compacted, 1 << 63 | 0x203), [(9, 576)]);
    assert_eq!(
        offsets(&g, Form::Compacted, 1 << 63 | 0x207),
        [(2, 576), (9, 832)]
    );
}

#[test]
fn every_refusal_is_reached_and_adds_nothing() {
    let c = |i| ComponentIndex::new(i).unwrap();
    let mut g = geometry(&[(2, user(256, 576))]);
    let before = g.clone();
    let sup = |size, offset| ComponentFacts {
        supervisor: true,
        ..user(size, offset)
    };
    let cases = [
        (1, user(256, 576), GeometryError::Legacy(c(1))),
        (2, user(256, 832), GeometryError::Twice(c(2))),
        (3, user(0, 960), GeometryError::Size(c(3), 0)),
        (3, user(65537, 960), GeometryError::Size(c(3), 65537)),
        (
            3,
            user(u32::MAX, u32::MAX),
            GeometryError::Size(c(3), u32::MAX),
        ),
        (3, user(64, 575), GeometryError::Start(c(3), 575)),
        (
            3,
            user(64, MAX_STANDARD_END_BYTES - 63),
            GeometryError::End(c(3), u64::from(MAX_STANDARD_END_BYTES) + 1),
        ),
        (
            3,
            user(64, u32::MAX),
            GeometryError::End(c(3), u64::from(u32::MAX) + 64),
        ),
        (
            11,
            sup(16, 600),
            GeometryError::SupervisorOffset(c(11), 600),
        ),
        (3, user(64, 831), GeometryError::Overlap(c(3), c(2))),
    ];
    for (index, facts, error) in cases {
        assert_eq!(g.insert(c(index), facts), Err(error));
        assert_eq!(g, before);
    }
}

#[test]
fn differences_name_component_and_values() {
    let intel = geometry(&[(2, user(256, 576)), (5, user(64, 1088))]);
    let amd = geometry(&[(2, user(256, 576)), (5, user(64, 832))]);
    let mask = ComponentSet::from_bits_retain(0x27);
    let says = |a: &Geometry, b: &Geometry| a.first_difference(b, mask).unwrap().to_string();
    assert_eq!(says(&intel, &amd), "opmask at 832 there, 1088 here");
    assert_eq!(intel.first_difference(&amd, ComponentSet::UP_TO_AVX), None);
    assert_eq!(intel.first_difference(&intel, mask), None);
    assert_eq!(
        says(&geometry(&[(2, user(256, 576))]), &intel),
        "opmask missing here"
    );
    assert_eq!(
        says(&intel, &geometry(&[(2, user(256, 576))])),
        "opmask missing there"
    );
    let larger = geometry(&[(2, user(512, 576)), (5, user(64, 1088))]);
    assert_eq!(says(&intel, &larger), "avx 512 bytes there, 256 bytes here");
    let armed = geometry(&[
        (2, user(256, 576)),
        (
            5,
            ComponentFacts {
                xfd: true,
                ..user(64, 1088)
            },
        ),
    ]);
    assert_eq!(says(&intel, &armed), "opmask under xfd there, not here");
}

proptest! {
    /// Over any geometry and mask, in both forms: ascending, apart, inside the
    /// image's size, and aligned where the machine says so.
    #[test]
    fn placements_are_apart_and_inside(
        g in crate::testing::any_geometry(),
        mask in any::<u64>(),
        compacted in any::<bool>(),
    ) {
        let form = if compacted { Form::Compacted } else { Form::Standard };
        let mask = ComponentSet::from_bits_retain(mask);
        let places: Vec<Placement> = g.placements(form, mask).collect();
        let end = g.image_size(form, mask);
        for (i, a) in places.iter().enumerate() {
            prop_assert!(a.offset_bytes >= MIN_IMAGE_BYTES && a.range().end <= end);
            prop_assert!(mask.has(a.component) && !ComponentSet::LEGACY.has(a.component));
            if compacted && g.get(a.component).unwrap().aligned64 {
                prop_assert_eq!(a.offset_bytes % 64, 0);
            }
            for b in &places[i + 1..] {
                prop_assert!(a.component.get() < b.component.get());
                prop_assert!(a.range().end <= b.offset_bytes || b.range().end <= a.offset_bytes);
            }
        }
        let expected = mask.intersection(g.known()).difference(ComponentSet::LEGACY);
        let expected = if compacted { expected } else { expected.difference(g.supervisor()) };
        prop_assert_eq!(places.len() as u32, expected.len());
    }
}
