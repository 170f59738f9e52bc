//! The same registers by XSAVE and by XSAVEC: every conversion of either restores, on this processor, to what the image itself restores to.

use vcpu_xstate::convert::{Target, canonical_size, canonicalise, transfer};
use vcpu_xstate::layout::Form;
use vcpu_xstate::{ComponentSet, Image, validate};
use xstate_capture::player::Step;
use xstate_capture::restored;
use xstate_capture::states::{Random, State};

use super::bench::{Bench, Tally};

/// States under each RFBM.
const STATES: usize = 3;
const SEED: u64 = 0x5341_5645;
const SSE: u64 = 2;
const SSE_OR_AVX: u64 = 6;

pub fn check(bench: &Bench, tally: &mut Tally) {
    let mut random = Random(SEED);
    for rfbm in bench.masks() {
        tally.masks += 1;
        for _ in 0..STATES {
            let state = bench.frame().any(&mut random);
            tally.states += 1;
            one(bench, tally, &state, rfbm);
        }
    }
}

/// An image that the processor wrote.
#[derive(Clone)]
struct Saved {
    form: Form,
    bytes: Vec<u8>,
    /// What to take of it: what was saved, and SSE for the MXCSR that a
    /// standard save of AVX alone writes.
    taken: u64,
}

fn one(bench: &Bench, tally: &mut Tally, state: &State, rfbm: u64) {
    let all = bench.xcr0();
    let mut buffers = [(); 4].map(|()| bench.processor.buffer());
    buffers[0] = bench.init();
    buffers[1].load(&state.image);
    buffers[2].fill(0xcc);
    buffers[3].fill(0xcc);
    let script = [
        Step::Xrstor(0, all),
        Step::Xrstor(1, all),
        Step::Xsave(2, rfbm),
        Step::Xsavec(3, rfbm),
    ];
    let played = bench.processor.play(&mut buffers, &script);
    assert!(played.is_ok(), "RFBM {rfbm:#x}: {played:?} of {state:x?}");
    let bytes = |buffer: usize, form| buffers[buffer].bytes()[..bench.size(form, rfbm)].to_vec();
    let standard = Saved {
        form: Form::Standard,
        bytes: bytes(2, Form::Standard),
        taken: rfbm | if rfbm & SSE_OR_AVX != 0 { SSE } else { 0 },
    };
    let compacted = Saved {
        form: Form::Compacted,
        bytes: bytes(3, Form::Compacted),
        taken: rfbm,
    };

    // One state, one canonical image. XSAVEC has no MXCSR without SSE, where XSAVE
    // has one for AVX.
    let mut same = standard.clone();
    if rfbm & SSE == 0 {
        same.bytes[24..28].copy_from_slice(&0x1f80_u32.to_le_bytes());
    }
    let left = canonical(bench, &same, rfbm);
    let right = canonical(bench, &compacted, rfbm);
    assert!(left == right, "RFBM {rfbm:#x}: canonical images differ");
    tally.images += 1;
    if rfbm & SSE_OR_AVX != 0 {
        assert_eq!(restored::mxcsr(&standard.bytes), state.mxcsr);
    }

    for saved in [standard, compacted] {
        let truth = bench.restored(&saved.bytes, rfbm).expect("its own image");
        for (name, image) in conversions(bench, &saved) {
            let registers = bench.restored(&image, all);
            let form = saved.form;
            assert!(
                registers.as_ref() == Ok(&truth),
                "RFBM {rfbm:#x}, {form:?} to {name}: other registers, or {:?}",
                registers.err()
            );
            tally.images += 1;
        }
    }
}

fn canonical(bench: &Bench, saved: &Saved, taken: u64) -> Vec<u8> {
    let image = Image::new(&saved.bytes, bench.geometry(), saved.form).expect("its own image");
    let leave_out = ComponentSet::ALL.difference(ComponentSet::from_bits_retain(taken));
    let mut out = vec![0xa5; canonical_size(&image, leave_out)];
    canonicalise(&image, leave_out, &mut out).expect("its own size");
    out
}

/// The image in every form that it can have here; what is compacted is
/// accepted by `validate` too.
fn conversions(bench: &Bench, saved: &Saved) -> Vec<(&'static str, Vec<u8>)> {
    let image = Image::new(&saved.bytes, bench.geometry(), saved.form).expect("its own image");
    let set = ComponentSet::from_bits_retain;
    let mut converted = vec![("canonical", canonical(bench, saved, saved.taken))];
    for (name, form, layout) in [
        ("standard", Form::Standard, saved.taken | 3),
        ("standard of all", Form::Standard, bench.xcr0()),
        ("compacted", Form::Compacted, saved.taken | 3),
        ("compacted of all", Form::Compacted, bench.xcr0()),
    ] {
        let target = Target {
            geometry: bench.geometry(),
            form,
            layout: set(layout),
        };
        // Not zero: what a restore reads must have been written.
        let mut out = vec![0xa5; target.size_bytes()];
        transfer(&image, set(saved.taken), target, &mut out).expect("its own size");
        converted.push((name, out));
    }
    for (name, image) in &converted {
        let xcomp_bv = restored::xcomp_bv(image);
        if xcomp_bv == 0 || !bench.policy.mask.contains(set(xcomp_bv << 1 >> 1)) {
            continue;
        }
        let claims = bench.claims(xcomp_bv);
        let verdict = validate(&claims, bench.geometry(), image, &bench.host, &bench.policy);
        assert!(verdict.is_ok(), "{name}: {:?}", verdict.err());
    }
    converted
}
