//! Register contents that a machine takes: legal, not INIT, different for each seed.

use super::machine::Machine;
use super::registers::{Registers, X87};
use crate::component::ComponentIndex;

impl Registers {
    /// Puts such contents into a component of the machine (of a machine with CET
    /// components but neither feature, they stay INIT). x87 gets an unmasked exception
    /// that is pending, so that FOP, FIP and FDP count on every machine; UINV
    /// and every enable stay clear, since they are live.
    pub fn set_pattern(&mut self, machine: &Machine, component: ComponentIndex, seed: u8) {
        let page = 0x10_0000 + 0x1000 * u64::from(seed);
        let noise = |i: usize| seed.wrapping_mul(31).wrapping_add(i as u8) | 1;
        match component.get() {
            0 => {
                self.x87 = X87 {
                    fcw: 0x340 | u16::from(seed & 0x3e),
                    fsw: 0x8081 | u16::from(seed & 7) << 11,
                    ftw: 0xff,
                    fop: 0x100 | u16::from(seed),
                    fip: page | 1,
                    fdp: page | 2,
                    st: core::array::from_fn(|st| {
                        // A normal number: integer bit set, exponent 3fff.
                        core::array::from_fn(|i| match i {
                            7 => noise(st) | 0x80,
                            8 => 0xff,
                            9 => 0x3f,
                            _ => noise(st + i),
                        })
                    }),
                };
            }
            1 => {
                for (i, byte) in self.xmm.as_flattened_mut().iter_mut().enumerate() {
                    *byte = noise(i);
                }
                self.mxcsr = 0x1f80 | u32::from(seed & 0x3f);
            }
            i => {
                let stack = |offset: u64| {
                    if machine.shadow_stacks {
                        page | offset
                    } else {
                        0
                    }
                };
                // The legacy bitmap's address, or SH_STK_EN without tracking.
                let control = match (machine.branch_tracking, machine.shadow_stacks) {
                    (true, _) => page,
                    (false, stacks) => stacks.into(),
                };
                let bytes = self.extended_mut(i.into());
                let words: &[(usize, u64)] = match i {
                    4 => &[(0, page | 3), (8, page | 1)],
                    8 => &[(0, 0), (16, page)],
                    10 => &[(0, 1 << 31 | u64::from(seed) << 4 | 1)],
                    11 => &[(0, control), (8, stack(8))],
                    12 => &[(0, stack(0)), (8, stack(8)), (16, stack(16))],
                    // INIT is 1 (13.6).
                    13 => &[(0, 0)],
                    14 => &[(0, page), (8, page | 8), (24, page | 64), (32, page)],
                    // LER and the first record.
                    15 => &[(16, page), (24, page | 4), (40, page | 5), (48, page | 6)],
                    _ => &[],
                };
                if i == 17 {
                    // Palette 1 and eight tiles, the first as wide as seed says.
                    bytes.fill(0);
                    for (at, byte) in bytes.iter_mut().enumerate() {
                        *byte = match at {
                            0 => 1,
                            16 => 4 * (1 + seed % 16),
                            18..32 if at % 2 == 0 => 64,
                            48..56 => 16,
                            _ => 0,
                        };
                    }
                } else if words.is_empty() {
                    for (at, byte) in bytes.iter_mut().enumerate() {
                        *byte = noise(at);
                    }
                } else {
                    for (at, word) in words {
                        if let Some(to) = bytes.get_mut(*at..at + 8) {
                            to.copy_from_slice(&word.to_le_bytes());
                        }
                    }
                }
            }
        }
    }
}
