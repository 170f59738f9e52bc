//! Register contents to load: the corners by name, and random ones that are legal everywhere.
//!
//! Each is a standard image of all components, for XRSTOR. Legal means that
//! the instruction takes it and that a program could have made it so: reserved
//! bits of FCW and FOP are as the processor has them, pointers are canonical
//! at 47 bits, tiles are configured as LDTILECFG would have it. Key 0 of PKRU
//! stays open, because the program's own memory is under it.

use crate::corpus::Component;
use crate::restored::standard_size;

/// The number of PKRU.
pub const PKRU: u32 = 9;
/// The number of BNDCSR.
pub const BNDCSR: u32 = 4;
const TILECFG: u32 = 17;
const TILEDATA: u32 = 18;
const LWP: u32 = 62;

/// Register contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// XSTATE_BV of the image.
    pub xstate_bv: u64,
    /// MXCSR of the image.
    pub mxcsr: u32,
    /// The image, standard form, all of XCR0.
    pub image: Vec<u8>,
}

/// Random numbers that are the same on every machine (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next_u64() % limit
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = self.next_u64() as u8;
        }
    }
}

/// The machine that states are made for.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// XCR0.
    pub xcr0: u64,
    /// Its components above SSE.
    pub components: &'a [Component],
    /// Bits of MXCSR that can be set.
    pub mxcsr_mask: u32,
}

impl Frame<'_> {
    /// The corners: everything INIT; everything in use; up to SSE and up to
    /// AVX; what leaves SSE out; XSTATE_BV over contents that are INIT, with
    /// another MXCSR; everything but MXCSR.
    pub fn corners(&self, random: &mut Random) -> Vec<State> {
        let mut states = Vec::new();
        for (bv, default_mxcsr, zero) in [
            (0, true, false),
            (u64::MAX, false, false),
            (0x3, false, false),
            (0x7, false, false),
            (0x25, true, false),
            (0xa1, false, true),
            (u64::MAX, true, false),
            (0x6_0001, false, false),
        ] {
            let mut state = self.state(random, bv & self.xcr0, !default_mxcsr);
            if zero {
                self.clear_extended(&mut state);
            }
            states.push(state);
        }
        states
    }

    /// Contents that any program could have made. What of `xstate_bv` is set
    /// is sometimes INIT by content all the same.
    pub fn any(&self, random: &mut Random) -> State {
        let bv = random.next_u64() & self.xcr0;
        let (own_mxcsr, zero) = (random.below(4) != 0, random.below(8) == 0);
        let mut state = self.state(random, bv, own_mxcsr);
        if zero {
            self.clear_extended(&mut state);
        }
        state
    }

    /// Contents with `xstate_bv` in use.
    pub fn state(&self, random: &mut Random, xstate_bv: u64, own_mxcsr: bool) -> State {
        let mut image = vec![0; standard_size(self.components, self.xcr0)];
        let mxcsr = if own_mxcsr {
            random.next_u64() as u32 & self.mxcsr_mask & 0xffff
        } else {
            0x1f80
        };
        self.legacy(random, &mut image, mxcsr);
        image[512..520].copy_from_slice(&xstate_bv.to_le_bytes());
        for component in self.components {
            let start = component.offset as usize;
            let bytes = &mut image[start..start + component.size as usize];
            contents(component.index, random, bytes);
        }
        State {
            xstate_bv,
            mxcsr,
            image,
        }
    }

    fn legacy(&self, random: &mut Random, image: &mut [u8], mxcsr: u32) {
        let mut put = |at: usize, value: u64, bytes: usize| {
            image[at..at + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
        };
        // FCW: masks, precision, rounding; bit 6 is always set. FSW: ES and B
        // say whether an exception is pending that FCW does not mask.
        let fcw = random.next_u64() & 0x0f3f | 0x40;
        let flags = random.next_u64() & 0x7f7f;
        let pending = flags & !fcw & 0x3f != 0;
        put(0, fcw, 2);
        put(2, flags | if pending { 0x8080 } else { 0 }, 2);
        put(4, random.next_u64(), 1);
        put(6, random.next_u64() & 0x07ff, 2);
        put(8, random.next_u64() >> 17, 8);
        put(16, random.next_u64() >> 17, 8);
        put(24, mxcsr.into(), 4);
        for st in 0..8 {
            put(32 + 16 * st, random.next_u64() | 1 << 63, 8);
            put(40 + 16 * st, random.next_u64() & 0xffff, 2);
        }
        random.fill(&mut image[160..416]);
    }

    /// Everything but x87 becomes INIT by content.
    fn clear_extended(&self, state: &mut State) {
        state.image[160..416].fill(0);
        for component in self.components {
            let start = component.offset as usize;
            state.image[start..start + component.size as usize].fill(0);
        }
    }
}

/// Legal contents of a component.
fn contents(index: u32, random: &mut Random, bytes: &mut [u8]) {
    match index {
        // Reserved bits of BNDCFGU are 0, its base is canonical.
        BNDCSR => {
            let base = random.next_u64() >> 17 & !0xfff | random.below(4);
            bytes[..8].copy_from_slice(&base.to_le_bytes());
            let status = random.next_u64() >> 17;
            bytes[8..16].copy_from_slice(&status.to_le_bytes());
        }
        PKRU => {
            let keys = random.next_u64() as u32 & !3;
            bytes[..4].copy_from_slice(&keys.to_le_bytes());
        }
        // Palette 1: rows of up to 64 bytes, up to 16 rows, neither without
        // the other.
        TILECFG => {
            bytes[0] = 1;
            bytes[1] = random.below(16) as u8;
            for tile in 0..8 {
                if random.below(4) != 0 {
                    bytes[16 + 2 * tile] = 1 + random.below(64) as u8;
                    bytes[48 + tile] = 1 + random.below(16) as u8;
                }
            }
        }
        // Tiles without a configuration hold what was configured before.
        TILEDATA => random.fill(bytes),
        // Never enabled where anybody could load it.
        LWP => {}
        _ => random.fill(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// States are the same on every machine and at every time.
    #[test]
    fn states_depend_on_the_seed_alone() {
        let components = [Component {
            index: 2,
            size: 256,
            offset: 576,
            traits: 0,
        }];
        let frame = Frame {
            xcr0: 7,
            components: &components,
            mxcsr_mask: 0xffff,
        };
        let made = |seed| frame.corners(&mut Random(seed));
        assert_eq!(made(1), made(1));
        assert_ne!(made(1), made(2));
        assert!(made(1).iter().all(|state| state.image.len() == 832));
        let used: Vec<u64> = made(1).iter().map(|state| state.xstate_bv).collect();
        assert_eq!(used, [0, 7, 3, 7, 5, 1, 7, 1]);
    }
}
