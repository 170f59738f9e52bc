//! Tests of conversion: nothing is lost between forms, and the same state gives the same bytes.

use proptest::prelude::*;
use zerocopy::{FromBytes, IntoBytes};

use super::*;
use crate::component::ComponentIndex;
use crate::header::XsaveHeader;
use crate::image::payload;
use crate::legacy::{FCW_INIT, LegacyRegion, MXCSR_INIT};
use crate::testing::{self, aligned, any_geometry, bochs_sapphire_rapids, qemu_max, stride, user};

fn set(bits: u64) -> ComponentSet {
    ComponentSet::from_bits_retain(bits)
}

/// An image of `held`, laid out for `layout`, with contents by `seed` and
/// `stale` in every byte that is no state.
pub(super) fn image(
    geometry: &Geometry,
    form: Form,
    layout: ComponentSet,
    held: ComponentSet,
    seed: u8,
    mxcsr: u32,
    stale: u8,
) -> Vec<u8> {
    let mut bytes = vec![stale; geometry.image_size(form, layout)];
    let header = match form {
        Form::Standard => XsaveHeader::standard(held),
        Form::Compacted => XsaveHeader::compacted(held, layout),
    };
    bytes[512..576].copy_from_slice(header.as_bytes());
    if held.has(ComponentIndex::X87) {
        bytes[..24].fill(seed | 1);
        bytes[5] = stale;
        for st in 0..8 {
            bytes[32 + 16 * st..42 + 16 * st].fill(seed);
        }
    }
    if held.has(ComponentIndex::SSE) {
        bytes[160..416].fill(seed | 1);
    }
    if form == Form::Standard || held.has(ComponentIndex::SSE) {
        bytes[24..28].copy_from_slice(&mxcsr.to_le_bytes());
    }
    for place in geometry.placements(form, layout) {
        if held.has(place.component) {
            bytes[payload(place)].fill(seed | 1);
        }
    }
    bytes
}

/// A machine whose two forms lie alike, as AMD's do: long enough for every way
/// of copying.
fn one_piece() -> Geometry {
    testing::geometry(&[
        (2, user(256, 576)),
        (5, user(64, 832)),
        (6, user(512, 896)),
        (7, user(1024, 1408)),
    ])
}

fn canonical(geometry: &Geometry, form: Form, bytes: &[u8]) -> Vec<u8> {
    let image = Image::new(bytes, geometry, form).unwrap();
    let mut out = vec![0xcc; 20_000];
    let written = canonicalise(&image, ComponentSet::EMPTY, &mut out).unwrap();
    assert!(
        out[written.len_bytes..].iter().all(|b| *b == 0xcc),
        "wrote past its length"
    );
    let mut other = vec![0x33; written.len_bytes];
    canonicalise(&image, ComponentSet::EMPTY, &mut other).unwrap();
    assert!(
        out[..written.len_bytes] == other,
        "a byte was left as it was"
    );
    assert_eq!(
        canonical_size(&image, ComponentSet::EMPTY),
        written.len_bytes
    );
    out.truncate(written.len_bytes);
    out
}

fn header(bytes: &[u8]) -> XsaveHeader {
    XsaveHeader::read_from_bytes(&bytes[512..576]).unwrap()
}

fn mxcsr(bytes: &[u8]) -> u32 {
    LegacyRegion::ref_from_prefix(bytes).unwrap().0.mxcsr.get()
}

#[test]
fn all_of_qemu_max_in_use_is_968_bytes() {
    let g = qemu_max();
    let mask = set(0x21f);
    let bytes = image(&g, Form::Standard, mask, mask, 7, 0x1f80, 0xee);
    let out = canonical(&g, Form::Standard, &bytes);
    assert_eq!(out.len(), 968);
    assert_eq!(header(&out).xcomp_bv(), 1 << 63 | 0x21f);
    assert_eq!(header(&out).xstate_bv(), mask);
    // PKRU at the end: four bytes of state, four of zero.
    assert_eq!(out[960..], [7, 7, 7, 7, 0, 0, 0, 0]);
    assert_eq!(out[5], 0);
    assert_eq!(out[28..32], [0; 4], "MXCSR_MASK is not state");
    assert_eq!(out[416..512], [0; 96]);
    // BNDCSR: 16 of its 64 bytes are registers.
    assert_eq!(out[896..912], [7; 16]);
    assert_eq!(out[912..960], [0; 48]);
}

/// x87 and SSE are held whatever the layout names; a restore wants XSTATE_BV
/// within XCOMP_BV.
#[test]
fn layout_without_the_legacy_region() {
    let geometry = qemu_max();
    let from = image(&geometry, Form::Standard, set(7), set(5), 3, 0x1fa5, 0xcc);
    let from = Image::new(&from, &geometry, Form::Standard).unwrap();
    // Component 40 is nowhere, so it cannot be named either.
    for layout in [0x4, 0x204, 0x100_0000_0004] {
        let target = Target {
            geometry: &geometry,
            form: Form::Compacted,
            layout: set(layout),
        };
        let mut out = vec![0xa5; target.size_bytes()];
        transfer(&from, set(7), target, &mut out).unwrap();
        let read = Image::new(&out, &geometry, Form::Compacted).unwrap();
        assert_eq!(read.xstate_bv(), set(7), "layout {layout:#x}");
        let named = header(&out).layout();
        assert_eq!(named, set(layout & 0x21f | 3), "layout {layout:#x}");
        assert_eq!(read.mxcsr(), 0x1fa5);
    }
}

/// Measured: Xen's, Linux's and OpenVMM's conversions turn 1FA5 into 1F80,
/// because XSAVE clears XSTATE_BV[1] where all XMM are zero.
#[test]
fn mxcsr_lost_in_conversion() {
    let g = qemu_max();
    for held in [0x0, 0x1, 0x4, 0x5, 0x6, 0x207]
        .into_iter()
        .step_by(stride(2))
    {
        let bytes = image(&g, Form::Standard, set(0x21f), set(held), 7, 0x1fa5, 0xee);
        let out = canonical(&g, Form::Standard, &bytes);
        assert!(
            header(&out).xstate_bv().has(ComponentIndex::SSE),
            "{held:#x}"
        );
        assert_eq!(mxcsr(&out), 0x1fa5, "{held:#x}");
        if held & 2 == 0 {
            assert_eq!(out[160..416], [0; 256], "stale XMM under {held:#x}");
        }
    }
}

/// A compacted image without XSTATE_BV[1] has MXCSR 1F80, whatever lies there;
/// and a standard image made of it must say so in its MXCSR, which standard
/// XRSTOR loads for AVX alone.
#[test]
fn stale_mxcsr_comes_alive_in_the_standard_form() {
    let g = qemu_max();
    let mut bytes = image(&g, Form::Compacted, set(0x7), set(0x4), 7, 0, 0xee);
    bytes[24..28].copy_from_slice(&0x1fbf_u32.to_le_bytes());
    let source = Image::new(&bytes, &g, Form::Compacted).unwrap();
    assert_eq!(source.mxcsr(), 0x1f80);
    let target = Target {
        geometry: &g,
        form: Form::Standard,
        layout: set(0x21f),
    };
    let mut out = vec![0xdd; target.size_bytes()];
    transfer(&source, ComponentSet::ALL, target, &mut out).unwrap();
    assert_eq!(mxcsr(&out), 0x1f80);
    assert_eq!(header(&out).xstate_bv().bits(), 0x4);
    assert_eq!(header(&out).xcomp_bv(), 0);
}

#[test]
fn nothing_in_use_is_576_bytes_of_init_values() {
    let g = qemu_max();
    // QEMU says "in use" of everything; the content says otherwise.
    let mask = set(0x21f);
    let mut bytes = image(&g, Form::Standard, mask, mask, 0, 0x1f80, 0);
    bytes.fill(0);
    bytes[..512].copy_from_slice(LegacyRegion::INIT.as_bytes());
    bytes[512..576].copy_from_slice(XsaveHeader::standard(mask).as_bytes());
    let out = canonical(&g, Form::Standard, &bytes);
    assert_eq!(out.len(), 576);
    assert_eq!(header(&out).xcomp_bv(), 1 << 63);
    let region = LegacyRegion::ref_from_prefix(&out).unwrap().0;
    assert_eq!(region.fcw.get(), FCW_INIT);
    assert_eq!(region.mxcsr.get(), 0x1f80);
}

/// Linux df1daba7d1: a compacted image handed over as if it were standard; and
/// the reverse.
#[test]
fn compacted_image_handed_to_a_standard_interface() {
    let g = qemu_max();
    let mask = set(0x207);
    let compacted = image(&g, Form::Compacted, mask, mask, 7, 0x1f80, 0);
    assert!(Image::new(&compacted, &g, Form::Standard).is_none());
    let standard = image(&g, Form::Standard, mask, mask, 7, 0x1f80, 0);
    assert!(Image::new(&standard, &g, Form::Compacted).is_none());
}

#[test]
fn short_and_unknown_images_are_no_images() {
    let g = qemu_max();
    for form in [Form::Standard, Form::Compacted] {
        let bytes = image(&g, form, set(0x207), set(0x207), 7, 0x1f80, 0);
        for len in (0..bytes.len()).step_by(stride(331)) {
            assert!(Image::new(&bytes[..len], &g, form).is_none(), "{len}");
        }
        assert!(Image::new(&bytes, &g, form).is_some());
        let unknown = image(&g, form, set(0x207), set(0x807), 7, 0x1f80, 0);
        assert!(Image::new(&unknown, &g, form).is_none());
    }
}

#[test]
fn a_small_buffer_is_left_alone() {
    let g = qemu_max();
    let bytes = image(&g, Form::Standard, set(0x7), set(0x7), 7, 0x1f80, 0);
    let source = Image::new(&bytes, &g, Form::Standard).unwrap();
    let mut out = [0xcc; 831];
    assert_eq!(
        canonicalise(&source, ComponentSet::EMPTY, &mut out),
        Err(TooSmall {
            needed_bytes: 832,
            given_bytes: 831
        })
    );
    assert_eq!(out, [0xcc; 831]);
}

pub(super) fn any_form() -> impl Strategy<Value = Form> {
    prop_oneof![Just(Form::Standard), Just(Form::Compacted)]
}

proptest! {
    /// Same state, same bytes: whatever the form, the layout, the stale bytes
    /// and what XSTATE_BV claims of INIT components.
    #[test]
    fn canonical_is_a_function_of_the_state(
        held in any::<u64>(),
        (layout_a, layout_b) in any::<(u64, u64)>(),
        (form_a, form_b) in (any_form(), any_form()),
        (stale_a, stale_b) in any::<(u8, u8)>(),
        seed in any::<u8>(),
        mxcsr in prop_oneof![Just(0x1f80u32), Just(0x1fa5)],
    ) {
        let g = bochs_sapphire_rapids();
        let all = set(0x6_02e7);
        let mut held = set(held).intersection(all);
        if mxcsr != 0x1f80 {
            held.insert(set(0x2));
        }
        let make = |form, layout: u64, stale| {
            let layout = set(layout).intersection(all).union(held).union(set(3));
            let bytes = image(&g, form, layout, held, seed, mxcsr, stale);
            canonical(&g, form, &bytes)
        };
        prop_assert_eq!(make(form_a, layout_a, stale_a), make(form_b, layout_b, stale_b));
    }

    /// There and back through any form and layout that has room.
    #[test]
    fn conversion_round_trips(
        held in any::<u64>(),
        room in any::<u64>(),
        (from, to) in (any_form(), any_form()),
        seed in any::<u8>(),
        mxcsr in prop_oneof![Just(0x1f80u32), Just(0x1fa5)],
    ) {
        let g = bochs_sapphire_rapids();
        let all = set(0x6_02e7);
        let held = set(held).intersection(all);
        let layout = set(room).intersection(all).union(held).union(set(3));
        let bytes = image(&g, from, layout, held, seed, mxcsr, 0xee);
        let source = Image::new(&bytes, &g, from).unwrap();
        let target = Target { geometry: &g, form: to, layout };
        let mut out = vec![0xdd; target.size_bytes()];
        transfer(&source, ComponentSet::ALL, target, &mut out).unwrap();
        let there = Image::new(&out, &g, to).unwrap();
        prop_assert_eq!(there.mxcsr(), source.mxcsr());
        prop_assert_eq!(there.in_use(), source.in_use());
        prop_assert_eq!(canonical(&g, to, &out), canonical(&g, from, &bytes));
    }

    /// Pieces, runs and words, against a copy of each component by itself; and
    /// no byte that is neither the target's own nor the source's at that place.
    #[test]
    fn transfer_is_a_copy_of_each_component(
        g in prop_oneof![Just(qemu_max()), Just(bochs_sapphire_rapids()), Just(one_piece()), any_geometry()],
        (held, room, reach) in (any::<u64>(), any::<u64>(), 0_u32..20),
        (from, to) in (any_form(), any_form()),
        mxcsr in prop_oneof![Just(0x1f80u32), Just(0x1fa5)],
        supervisors in any::<u64>(),
        whole in any::<bool>(),
    ) {
        let all = g.known().difference(g.supervisor());
        // Often all up to some component, as machines' images are.
        let up_to = set((1 << reach) - 1).intersection(all);
        let held = if reach % 2 == 0 { up_to } else { set(held).intersection(all) };
        // Supervisor components may have room in a compacted image, and then move others.
        let beside = |form, which: u64| match form {
            Form::Standard => set(0),
            Form::Compacted => set(which).intersection(g.supervisor()),
        };
        let layout = set(room).intersection(all).union(held).union(set(3));
        let layout = layout.union(beside(from, supervisors >> 1));
        let mut bytes = image(&g, from, layout, held, 0, mxcsr, 0xee);
        // Every byte of state another one than its neighbours.
        for place in g.placements(from, held) {
            for (i, byte) in bytes[payload(place)].iter_mut().enumerate() {
                *byte = (i % 191) as u8 + place.component.get();
            }
        }
        let source = Image::new(&bytes, &g, from).unwrap();
        let target = Target { geometry: &g, form: to, layout: all.union(beside(to, supervisors)) };
        let mut out = vec![0xdd; target.size_bytes() + 8];
        if whole {
            transfer_whole(&source, ComponentSet::ALL, target, &mut out).unwrap();
            let mut state = vec![false; target.size_bytes()];
            state[..MIN_IMAGE_BYTES].fill(true);
            for place in g.placements(to, target.layout).filter(|place| held.has(place.component)) {
                state[payload(place)].fill(true);
            }
            let mut others = out.iter().zip(&state).filter(|(_, state)| !**state);
            prop_assert!(others.all(|(byte, _)| *byte == 0), "a byte that is no state");
        } else {
            transfer(&source, ComponentSet::ALL, target, &mut out).unwrap();
        }
        prop_assert_eq!(&out[target.size_bytes()..], &[0xdd; 8]);
        let there = Image::new(&out, &g, to).unwrap();
        prop_assert_eq!(there.xstate_bv().union(set(2)), held.union(set(2)));
        prop_assert_eq!(there.mxcsr(), source.mxcsr());
        prop_assert!(source.held().eq(there.held()), "a component differs");
        let read = |image: &Image<'_>| {
            let legacy = image.legacy();
            (legacy.fcw, legacy.fip, legacy.st.map(|st| st[..10].to_vec()), legacy.xmm)
        };
        let expected = read(&source);
        let has = |component| held.has(component);
        if has(ComponentIndex::X87) {
            prop_assert_eq!(read(&there).2, expected.2);
            prop_assert_eq!((read(&there).0, read(&there).1), (expected.0, expected.1));
        } else {
            prop_assert!(there.legacy().x87_is_init());
        }
        let xmm = if has(ComponentIndex::SSE) { expected.3 } else { [[0; 16]; 16] };
        prop_assert_eq!(read(&there).3, xmm);
    }

    /// What has no room is INIT there, and no byte of it is copied.
    #[test]
    fn what_has_no_room_is_init(held in any::<u64>(), room in any::<u64>(), to in any_form()) {
        let g = bochs_sapphire_rapids();
        let all = set(0x6_02e7);
        let (held, room) = (set(held).intersection(all), set(room).intersection(all).union(set(3)));
        let bytes = image(&g, Form::Standard, all, held, 0x77, 0x1f80, 0x77);
        let source = Image::new(&bytes, &g, Form::Standard).unwrap();
        let target = Target { geometry: &g, form: to, layout: room };
        let mut out = vec![0; target.size_bytes()];
        transfer(&source, ComponentSet::ALL, target, &mut out).unwrap();
        prop_assert_eq!(header(&out).xstate_bv(), held.intersection(room));
        for place in g.placements(to, room) {
            let copied = out[place.range()].contains(&0x77);
            prop_assert_eq!(copied, held.has(place.component), "{}", place.component);
        }
    }
}

/// A standard form whose offsets do not ascend: PKRU lies in what looks like the
/// gap of alignment between TILECFG and TILEDATA, which were moved as one run.
/// PKRU became what lies between them in the compacted form, or zero.
#[test]
fn a_component_in_the_gap_between_two_others() {
    let g = testing::geometry(&[
        (2, user(256, 576)),
        (9, user(8, 904)),
        (17, aligned(user(72, 832))),
        (18, aligned(user(8192, 960))),
    ]);
    let all = set(0x6_0207);
    for from in [Form::Standard, Form::Compacted] {
        let bytes = image(&g, from, all, all, 0x31, 0x1fa5, 0xee);
        let source = Image::new(&bytes, &g, from).unwrap();
        let target = Target {
            geometry: &g,
            form: Form::Standard,
            layout: all,
        };
        for write in [transfer, transfer_whole] {
            let mut out = vec![0xdd; target.size_bytes()];
            write(&source, ComponentSet::ALL, target, &mut out).unwrap();
            let there = Image::new(&out, &g, Form::Standard).unwrap();
            assert!(source.held().eq(there.held()), "from {from:?}");
        }
    }
}

/// Standard XRSTOR takes MXCSR for AVX as for SSE: taking AVX alone lost it.
#[test]
fn mxcsr_was_lost_where_avx_is_taken_without_sse() {
    let g = bochs_sapphire_rapids();
    let (avx, sse) = (set(4), set(2));
    let source = image(&g, Form::Standard, avx, avx, 3, 0x1fa5, 0);
    let source = Image::new(&source, &g, Form::Standard).unwrap();
    for form in [Form::Standard, Form::Compacted] {
        let target = Target {
            geometry: &g,
            form,
            layout: avx,
        };
        let mut out = vec![0; target.size_bytes()];
        transfer(&source, avx, target, &mut out).unwrap();
        let written = Image::new(&out, &g, form).unwrap();
        assert_eq!(written.mxcsr(), 0x1fa5, "{form:?}");
        assert_eq!(written.xstate_bv(), avx.union(sse), "{form:?}");
        assert!(written.legacy().xmm_is_init());
        // It belongs to nothing else.
        transfer(&source, set(0x2_0001), target, &mut out).unwrap();
        let written = Image::new(&out, &g, form).unwrap();
        assert_eq!(written.mxcsr(), MXCSR_INIT, "{form:?}");
    }
    // A canonical image says what it holds, SSE being left out or not.
    let mut out = vec![0; 1024];
    for leave_out in [set(0), sse] {
        let canonical = canonicalise(&source, leave_out, &mut out).unwrap();
        assert_eq!(canonical.components, avx.union(sse));
        assert_eq!(canonical.len_bytes, canonical_size(&source, leave_out));
        let bytes = &out[..canonical.len_bytes];
        let written = Image::new(bytes, &g, Form::Compacted).unwrap();
        assert_eq!(written.layout(), canonical.components);
        assert_eq!(written.xstate_bv(), canonical.components);
        assert_eq!(written.mxcsr(), 0x1fa5);
    }
}

/// Every layout bit but the machine's: none is named where it has no place.
#[test]
fn a_layout_of_everything_names_what_the_machine_has() {
    let g = qemu_max();
    let source = image(&g, Form::Standard, set(7), set(7), 3, 0x1fa5, 0);
    let source = Image::new(&source, &g, Form::Standard).unwrap();
    let target = Target {
        geometry: &g,
        form: Form::Compacted,
        layout: ComponentSet::ALL,
    };
    let mut out = vec![0; target.size_bytes()];
    transfer(&source, ComponentSet::ALL, target, &mut out).unwrap();
    let written = Image::new(&out, &g, Form::Compacted).unwrap();
    assert_eq!(written.layout(), g.known());
}
