//! `convert`: one image in every form there is, and back, on machines of one layout and of another.

use vcpu_xstate::convert::{Target, transfer, transfer_whole};
use vcpu_xstate::layout::{Form, Geometry};
use vcpu_xstate::legacy::MXCSR_INIT;
use vcpu_xstate::{ComponentIndex, ComponentSet, Image};

use crate::image::{Sample, sample};
use crate::import::same;
use crate::input::Input;
use crate::machines::machine;
use crate::processor::canonical;

/// Written behind each target, and looked for afterwards.
const GUARD: u8 = 0xa5;

/// One input: two machines, a target layout, which components, an image.
///
/// # Panics
/// Where a conversion loses or invents state.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (from, to) = (&machine(input.u8()).host, &machine(input.u8()).host);
    let layout = ComponentSet::from_bits_retain(input.u64());
    let components = ComponentSet::from_bits_retain(input.u64());
    let sample = sample(&mut input, from.geometry(), from.mxcsr_mask());
    let image = view(&sample, from.geometry());
    let all = ComponentSet::ALL;

    // Where everything in use has room, nothing is lost, in either form.
    let before = canonical(&image, from.geometry());
    let in_use = image.in_use();
    let user = from
        .geometry()
        .known()
        .difference(from.geometry().supervisor());
    let wide = layout.intersection(from.geometry().known()).union(in_use);
    for (form, layout) in [(Form::Compacted, wide), (Form::Standard, user)] {
        let target = Target {
            geometry: from.geometry(),
            form,
            layout,
        };
        let there = written(&image, all, target);
        let back = Image::new(&there, from.geometry(), form).expect("a form of its own");
        if layout.union(ComponentSet::LEGACY).contains(in_use) {
            same(&canonical(&back, from.geometry()), &before, "and back");
        }
        assert_eq!(back.mxcsr(), image.mxcsr(), "{form:?}");
        // What was written is written again as the same state.
        let again = written(&back, all, target);
        let again = Image::new(&again, from.geometry(), form).expect("a form of its own");
        let again = whole(&again, target);
        assert!(again == whole(&back, target), "{form:?}: other bytes");
    }

    // Some components, to another machine: what has room and was asked for.
    let layout = layout.intersection(to.geometry().known());
    let target = Target {
        geometry: to.geometry(),
        form: Form::Compacted,
        layout,
    };
    let there = written(&image, components, target);
    let copy = Image::new(&there, to.geometry(), Form::Compacted).expect("a form of its own");
    let room = layout.union(ComponentSet::LEGACY);
    // MXCSR goes with AVX as with SSE, and wants XSTATE_BV[1] wherever it goes.
    let sse = ComponentSet::only(ComponentIndex::SSE);
    let owners = sse.union(ComponentSet::only(ComponentIndex::AVX));
    let mxcsr = if components.intersects(owners) {
        image.mxcsr()
    } else {
        MXCSR_INIT
    };
    let mut expected = image.in_use().intersection(components).intersection(room);
    if mxcsr != MXCSR_INIT {
        expected.insert(sse);
    }
    assert_eq!(copy.in_use(), expected, "{components} to {layout}");
    assert_eq!(copy.mxcsr(), mxcsr, "{components} to {layout}");
    for (component, bytes) in copy.held() {
        let (_, old) = image
            .held()
            .find(|(held, _)| *held == component)
            .expect("held before");
        let common = bytes.len().min(old.len());
        assert_eq!(bytes[..common], old[..common], "{component}");
    }
}

fn view<'a>(sample: &'a Sample, geometry: &'a Geometry) -> Image<'a> {
    Image::new(&sample.bytes, geometry, sample.form).expect("a sample is an image")
}

/// The image as `target` wants it; nothing behind it is touched.
fn written(image: &Image<'_>, components: ComponentSet, target: Target<'_>) -> Vec<u8> {
    let size = target.size_bytes();
    let mut out = vec![GUARD; size + 8];
    transfer(image, components, target, &mut out[..size - 1]).expect_err("one byte too few");
    assert!(
        out.iter().all(|byte| *byte == GUARD),
        "written all the same"
    );
    transfer(image, components, target, &mut out).expect("room");
    assert_eq!(out.split_off(size), [GUARD; 8], "beyond the target");
    out
}

/// Every byte of the image as `target` wants it: a function of its state.
fn whole(image: &Image<'_>, target: Target<'_>) -> Vec<u8> {
    let mut out = vec![GUARD; target.size_bytes()];
    transfer_whole(image, ComponentSet::ALL, target, &mut out).expect("room");
    out
}
