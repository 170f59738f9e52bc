//! Images out of an input: any form, any layout, contents that are legal often enough.

use vcpu_xstate::layout::{Form, Geometry, LEGACY_BYTES, MIN_IMAGE_BYTES};
use vcpu_xstate::{ComponentIndex, ComponentSet};

use crate::input::Input;

/// An image with what it says of itself.
pub struct Sample {
    /// Its bytes, exactly as many as its form and layout need.
    pub bytes: Vec<u8>,
    /// Its form.
    pub form: Form,
    /// What it has room for.
    pub layout: ComponentSet,
    /// XSTATE_BV.
    pub held: ComponentSet,
}

/// Takes an image of a machine's from `input`.
pub fn sample(input: &mut Input<'_>, geometry: &Geometry, mxcsr_mask: u32) -> Sample {
    let choices = input.u8();
    let form = if choices & 1 == 0 {
        Form::Standard
    } else {
        Form::Compacted
    };
    let placeable = match form {
        Form::Standard => geometry.known().difference(geometry.supervisor()),
        Form::Compacted => geometry.known(),
    };
    let pick = |bits: u64| ComponentSet::from_bits_retain(bits).intersection(placeable);
    let layout = pick(spread(input.u32()));
    let held = pick(spread(input.u32())).intersection(layout);
    let full = match form {
        // XSAVE writes at the machine's offsets whatever RFBM is.
        Form::Standard => geometry.image_size(form, layout.union(held)),
        Form::Compacted => geometry.image_size(form, layout),
    };
    let mut bytes = vec![0; full];
    // Bytes that are no state: nobody may read them.
    bytes[..LEGACY_BYTES].fill(0xcc);
    bytes[MIN_IMAGE_BYTES..].fill(0xcc);
    legacy(&mut bytes, input, mxcsr_mask);
    let xcomp_bv = match form {
        Form::Standard => 0,
        Form::Compacted => layout.bits() | 1 << 63,
    };
    bytes[512..520].copy_from_slice(&held.bits().to_le_bytes());
    bytes[520..528].copy_from_slice(&xcomp_bv.to_le_bytes());
    for place in geometry.placements(form, layout) {
        if held.has(place.component) {
            contents(place.component, input, &mut bytes[place.range()]);
        }
    }
    Sample {
        bytes,
        form,
        layout,
        held,
    }
}

/// 32 bits over the components that machines have; bit 31 is number 62.
const fn spread(bits: u32) -> u64 {
    (bits & 0x7fff_ffff) as u64 | ((bits >> 31) as u64) << 62
}

fn legacy(bytes: &mut [u8], input: &mut Input<'_>, mxcsr_mask: u32) {
    let (kind, word) = (input.u8(), input.u32());
    // x87 with its initial values or with others.
    bytes[..24].fill(0);
    bytes[..2].copy_from_slice(&0x037f_u16.to_le_bytes());
    bytes[32..416].fill(0);
    if kind & 1 != 0 {
        bytes[..24].copy_from_slice(&input.take::<24>());
    }
    if kind & 2 != 0 {
        fill(&mut bytes[32..160], word);
    }
    if kind & 4 != 0 {
        fill(&mut bytes[160..416], word.rotate_left(7));
    }
    let mxcsr = match kind >> 6 {
        0 => 0x1f80,
        1 => word & mxcsr_mask,
        _ => word & mxcsr_mask | 0x1f80,
    };
    bytes[24..28].copy_from_slice(&mxcsr.to_le_bytes());
}

/// Bytes of a component: zero, one byte alone, or a pattern.
fn contents(component: ComponentIndex, input: &mut Input<'_>, bytes: &mut [u8]) {
    let choice = input.u8();
    // Reserved tails keep what nobody may read.
    let state = component
        .payload_bytes()
        .map_or(bytes.len(), |payload| payload.min(bytes.len()));
    let bytes = &mut bytes[..state];
    bytes.fill(0);
    match choice >> 6 {
        0 => {}
        1 => {
            let at = usize::from(input.u16()) % bytes.len();
            bytes[at] = choice | 1;
        }
        2 => fill(bytes, u32::from(choice)),
        _ => {
            let word = input.take::<8>();
            let length = bytes.len().min(8);
            bytes[..length].copy_from_slice(&word[..length]);
        }
    }
}

/// A pattern that differs at every word.
fn fill(bytes: &mut [u8], seed: u32) {
    let mut state = seed | 1;
    for word in bytes.chunks_mut(4) {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        word.copy_from_slice(&state.to_le_bytes()[..word.len()]);
    }
}
