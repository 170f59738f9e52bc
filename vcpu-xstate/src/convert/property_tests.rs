//! Conversions between two machines that agree on nothing: sizes, offsets, alignment, kinds.

use proptest::prelude::*;

use super::tests::{any_form, image};
use super::*;
use crate::component::ComponentIndex;
use crate::image::payload;
use crate::testing::any_geometry;

fn set(bits: u64) -> ComponentSet {
    ComponentSet::from_bits_retain(bits)
}

/// The components that `form` has a place for on a machine.
fn placed(geometry: &Geometry, form: Form) -> ComponentSet {
    let known = geometry.known().difference(ComponentSet::LEGACY);
    match form {
        Form::Standard => known.difference(geometry.supervisor()),
        Form::Compacted => known,
    }
}

/// A component's state in an image: the bytes that are its registers.
fn state_of(
    geometry: &Geometry,
    form: Form,
    layout: ComponentSet,
    component: ComponentIndex,
    bytes: &[u8],
) -> Option<Vec<u8>> {
    let mut places = geometry.placements(form, layout);
    let place = places.find(|place| place.component == component)?;
    Some(bytes[payload(place)].to_vec())
}

proptest! {
    /// As many bytes as both machines have of a component, and zeros behind; what
    /// the other machine has no place for is INIT, and nothing else is.
    #[test]
    fn as_much_of_a_component_as_both_machines_have(
        (here, there) in (any_geometry(), any_geometry()),
        (from, to) in (any_form(), any_form()),
        (held, room) in any::<(u64, u64)>(),
        mxcsr in prop_oneof![Just(0x1f80_u32), Just(0x1fa5)],
        whole in any::<bool>(),
    ) {
        let held = set(held).intersection(placed(&here, from));
        let layout = set(room).intersection(placed(&here, from)).union(held).union(set(3));
        let mut bytes = image(&here, from, layout, held, 0, mxcsr, 0xee);
        for place in here.placements(from, held) {
            for (at, byte) in bytes[payload(place)].iter_mut().enumerate() {
                *byte = ((at % 191) as u8 + place.component.get()) | 1;
            }
        }
        let source = Image::new(&bytes, &here, from).unwrap();
        let target_layout = set(room.rotate_left(7)).union(held).intersection(placed(&there, to));
        let target = Target { geometry: &there, form: to, layout: target_layout };
        let size = target.size_bytes();
        let mut out = vec![0xdd; size + 8];
        if whole {
            transfer_whole(&source, ComponentSet::ALL, target, &mut out).unwrap();
        } else {
            transfer(&source, ComponentSet::ALL, target, &mut out).unwrap();
        }
        prop_assert_eq!(&out[size..], &[0xdd; 8]);
        let result = Image::new(&out, &there, to).unwrap();
        prop_assert_eq!(result.mxcsr(), source.mxcsr());
        let kept = held.intersection(target_layout);
        prop_assert_eq!(result.xstate_bv().difference(ComponentSet::LEGACY), kept);
        for component in kept {
            let mut wanted = state_of(&here, from, layout, component, &bytes).unwrap();
            let got = state_of(&there, to, target_layout, component, &out).unwrap();
            wanted.resize(got.len(), 0);
            prop_assert_eq!(got, wanted, "{}", component);
        }
        if whole {
            // What is INIT has its INIT values, what is nobody's is zero.
            let mut state = vec![false; size];
            state[..MIN_IMAGE_BYTES].fill(true);
            let places = there.placements(to, target_layout);
            for place in places.filter(|place| kept.has(place.component)) {
                state[payload(place)].fill(true);
            }
            let stray = (0..size).find(|at| !state[*at] && out[*at] != 0);
            prop_assert_eq!(stray, None, "a byte that is no state");
        }
    }
}
