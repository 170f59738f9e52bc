//! What each register must hold: a pure function of seed, count and the
//! machine's components. Nothing is remembered; the check computes it again.

use crate::groups::GROUPS;
use crate::machine::Machine;
use crate::registers::{Component, Registers};
use zerocopy::IntoBytes;

/// How a pattern came into the registers, where that matters to what is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// By loads of each register; FRSTOR takes 32 bits of x87 pointers.
    Direct,
    /// By XRSTOR or FXRSTOR of an image.
    Image,
}

/// SplitMix64: any counter gives a good word.
const fn mix(counter: u64) -> u64 {
    let z = counter.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A stream of words that depends on all of what it is made from.
pub struct Words(u64);

impl Words {
    /// The stream number `stream` of pattern `count` of `seed`.
    #[must_use]
    pub const fn new(seed: u64, count: u64, stream: u64) -> Self {
        Self(mix(mix(mix(seed ^ 0x5866_6572_7279) ^ count) ^ stream))
    }

    /// The next word.
    pub const fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        mix(self.0)
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(
                self.word()
                    .as_bytes()
                    .get(..chunk.len())
                    .unwrap_or_default(),
            );
        }
    }
}

/// How long pattern `count` stays, ns: 2 to 20 ms.
#[must_use]
pub const fn stay_ns(seed: u64, count: u64) -> u64 {
    2_000_000 + Words::new(seed, count, u64::MAX).word() % 18_000_000
}

/// Writes pattern `count` of `seed` to `out`: every register of the machine's
/// components, with values that the registers take as they are.
pub fn write(out: &mut Registers, seed: u64, count: u64, fill: Fill, machine: &Machine) {
    *out = Registers::ZERO;
    for (group, stream) in GROUPS.iter().zip(0u64..) {
        let filled = group.component != Component::Control;
        if filled && machine.has(group.component) {
            let mut words = Words::new(seed, count, stream);
            for index in 0..group.count {
                if let Some(place) = out.as_mut_bytes().get_mut(group.place(index)) {
                    words.fill(place);
                }
            }
        }
    }
    legal_x87(out, fill);
    legal_simd(out, machine);
    legal_bounds(out);
    legal_tiles(out, machine);
    legal_system(out, machine);
}

/// A linear address that is canonical for any machine.
const fn canonical(word: u64) -> u64 {
    word & 0x0000_7fff_ffff_ffff
}

fn legal_x87(out: &mut Registers, fill: Fill) {
    // SDM Vol. 1, 8.1.5: bit 6 reads as 1, precision 01 is reserved, bits 13 to
    // 15 are.
    out.fcw = out.fcw & 0x1f3f | 0x40;
    if out.fcw & 0x300 == 0x100 {
        out.fcw |= 0x200;
    }
    // 8.1.3: ES, and B with it, say that an unmasked exception is pending.
    out.fsw &= !0x8080;
    if out.fsw & !out.fcw & 0x3f != 0 {
        out.fsw |= 0x8080;
    }
    out.fop &= 0x7ff;
    (out.fip, out.fdp) = match fill {
        Fill::Direct => (out.fip & 0x7fff_ffff, out.fdp & 0x7fff_ffff),
        Fill::Image => (canonical(out.fip), canonical(out.fdp)),
    };
}

fn legal_simd(out: &mut Registers, machine: &Machine) {
    out.mxcsr &= machine.mxcsr_mask & 0xffff;
    if out.mxcsr == 0x1f80 {
        out.mxcsr = 0x1fa0;
    }
    if !machine.wide_opmask {
        for k in &mut out.opmask {
            *k &= 0xffff;
        }
    }
}

fn legal_bounds(out: &mut Registers) {
    // SDM Vol. 1 (before 2019), 17.3.2: bits 2 to 11 of BNDCFGU are reserved.
    out.bndcfgu = canonical(out.bndcfgu) & !0xffc;
    out.bndstatus = canonical(out.bndstatus);
}

fn legal_tiles(out: &mut Registers, machine: &Machine) {
    if !machine.has(Component::TileCfg) {
        return;
    }
    // SDM Vol. 2, LDTILECFG: palette 1, start row 0; per tile up to 64 bytes a
    // row and 16 rows; not the fewest and not the most, so that one bit of it
    // can be flipped and leave it legal. What lies outside of a tile's configuration is zero.
    let random = out.tilecfg;
    out.tilecfg = [0; 64];
    out.tilecfg[0] = 1;
    for (index, tile) in out.tiles.iter_mut().enumerate() {
        let columns = 8 + 4 * (random[index] % 14);
        let rows = 1 + (random[8 + index] & 15);
        out.tilecfg[16 + 2 * index] = columns;
        out.tilecfg[48 + index] = rows;
        for (row, bytes) in tile.chunks_mut(64).enumerate() {
            let kept = if row < usize::from(rows) {
                usize::from(columns)
            } else {
                0
            };
            bytes.iter_mut().skip(kept).for_each(|byte| *byte = 0);
        }
    }
}

fn legal_system(out: &mut Registers, machine: &Machine) {
    out.gpr[4] = 0;
    let [dr0, dr1, dr2, dr3, dr6, dr7] = &mut out.debug;
    for address in [dr0, dr1, dr2, dr3] {
        *address = canonical(*address);
    }
    // SDM Vol. 3, 17.2.3: B0 to B3, BD, BS and BT; the rest is fixed.
    *dr6 = *dr6 & 0xe00f | 0xffff_0ff0;
    // Nothing is enabled, so lengths and kinds mean nothing, except that kind
    // 10 needs CR4.DE.
    *dr7 = (*dr7 & 0xdddd_0000) | 0x400;

    let [
        fs,
        gs,
        kernel_gs,
        _star,
        lstar,
        cstar,
        sfmask,
        cs,
        esp,
        eip,
        aux,
        cr2,
        cr8,
    ] = &mut out.system;
    for address in [fs, gs, kernel_gs, lstar, cstar, cr2] {
        *address = canonical(*address);
    }
    // AMD's VMLOAD and VMSAVE keep 32 bits of the SYSENTER MSRs.
    for low in [sfmask, esp, eip] {
        *low &= 0xffff_ffff;
    }
    *cs &= 0xffff;
    *aux &= if machine.tsc_aux { 0xffff_ffff } else { 0 };
    // A task priority that still lets the timer's vector in.
    *cr8 &= 1;
}
