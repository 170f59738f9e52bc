//! The guest's own XSAVE image, at the offsets of its own CPUID leaf 0xD; the
//! FXSAVE image where the policy has no XSAVE.
#![allow(unsafe_code)] // calls into assembly

use crate::groups::GROUPS;
use crate::machine::{LEGACY_AND_HEADER_BYTES, Machine};
use crate::registers::{Component, ComponentSet, Registers};
use zerocopy::IntoBytes;

/// Room for what any machine has in XCR0 today (11008 bytes with AMX).
const BYTES: usize = 16384;
/// Where XSTATE_BV lies.
const XSTATE_BV: usize = 512;
const MXCSR: usize = 24;
const MXCSR_MASK: usize = 28;
const MXCSR_INIT: u32 = 0x1f80;

/// The bounds registers and their control.
pub const BOUNDS: ComponentSet = Component::Bndregs.bit() | Component::Bndcsr.bit();
/// Everything that is in an image.
pub const ALL: ComponentSet = ComponentSet::MAX;

unsafe extern "C" {
    fn torture_xsave(to: *mut u8, mask: u64);
    fn torture_xrstor(from: *const u8, mask: u64);
    fn torture_fxsave(to: *mut u8);
    fn torture_fxrstor(from: *const u8);
}

/// A buffer for one image in standard form.
#[derive(Clone)]
#[repr(C, align(64))]
pub struct Image([u8; BYTES]);

impl Image {
    /// All zero.
    pub const ZERO: Self = Self([0; BYTES]);

    /// Whether the machine's images fit.
    #[must_use]
    pub const fn fits(machine: &Machine) -> bool {
        machine.image_bytes <= BYTES - 64
    }

    /// Sets all of it to zero, so that no copy of a pattern stays.
    pub fn clear(&mut self) {
        self.0.fill(0);
        core::hint::black_box(self);
    }

    /// XSTATE_BV; 0 where the machine has no XSAVE, since nothing wrote it.
    #[must_use]
    pub fn xstate_bv(&self) -> u64 {
        self.word(XSTATE_BV)
    }

    /// The header behind XSTATE_BV, which standard XSAVE leaves alone, and the
    /// bytes behind the image: what was there must still be there.
    #[must_use]
    pub fn untouched(&self, machine: &Machine) -> bool {
        let header = self
            .0
            .get(XSTATE_BV + 8..LEGACY_AND_HEADER_BYTES)
            .unwrap_or_default();
        let end = machine.image_bytes;
        let behind = self.0.get(end..end + 64).unwrap_or_default();
        (!machine.xsave() || header.iter().all(|&byte| byte == 0))
            && behind.iter().all(|&byte| byte == 0)
    }

    /// MXCSR_MASK as FXSAVE writes it; 0 stands for 0xFFBF (SDM Vol. 1,
    /// 11.6.6).
    #[must_use]
    pub fn mxcsr_mask(&self) -> u32 {
        match self.word(MXCSR) >> (8 * (MXCSR_MASK - MXCSR)) {
            0 => 0xffbf,
            mask => mask as u32,
        }
    }

    fn word(&self, offset: usize) -> u64 {
        let word = self.0.get(offset..).and_then(|rest| rest.first_chunk());
        word.map_or(0, |word| u64::from_le_bytes(*word))
    }

    /// Writes those of `from`'s registers that are in `which` to their places,
    /// and says in XSTATE_BV that they are there.
    pub fn encode(&mut self, from: &Registers, machine: &Machine, which: ComponentSet) {
        self.0.fill(0);
        let mut present = 0;
        // XRSTOR of a standard image takes MXCSR from it whenever SSE or AVX is
        // asked for, whatever XSTATE_BV says (SDM Vol. 1, 13.8.1).
        self.put(MXCSR, MXCSR_INIT.as_bytes());
        for group in GROUPS
            .iter()
            .filter(|g| g.is_of(which & machine.components))
        {
            let Some(base) = machine.image_base(group.component) else {
                continue;
            };
            present |= group.component.xcr0_bit();
            for index in 0..group.count {
                if let (Some(place), Some(bytes)) = (
                    group.image_place(base, index),
                    from.as_bytes().get(group.place(index)),
                ) {
                    self.put(place.start, bytes);
                }
            }
        }
        if machine.xsave() {
            self.put(XSTATE_BV, (present & machine.xcr0).as_bytes());
        }
    }

    /// Flips one bit.
    pub fn flip(&mut self, byte: usize, bit: u8) {
        if let Some(place) = self.0.get_mut(byte) {
            *place ^= 1 << bit;
        }
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) {
        if let Some(place) = self.0.get_mut(offset..offset + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }

    /// Takes the registers in `which` out of the image. Where the image has
    /// XSTATE_BV, a component whose bit is clear is INIT, as XRSTOR would have
    /// it; its bytes are not looked at.
    pub fn decode(&self, to: &mut Registers, machine: &Machine, which: ComponentSet) {
        let bv = match self.xstate_bv() {
            0 => u64::MAX,
            bv => bv,
        };
        for group in GROUPS
            .iter()
            .filter(|g| g.is_of(which & machine.components))
        {
            let Some(base) = machine.image_base(group.component) else {
                continue;
            };
            let init = group.component != Component::Mxcsr && bv & group.component.xcr0_bit() == 0;
            for index in 0..group.count {
                let Some(place) = to.as_mut_bytes().get_mut(group.place(index)) else {
                    continue;
                };
                let seen = group
                    .image_place(base, index)
                    .and_then(|place| self.0.get(place));
                match seen {
                    Some(bytes) if !init => place.copy_from_slice(bytes),
                    _ => place.fill(0),
                }
            }
            if init && group.component == Component::X87 {
                to.fcw = 0x037f;
            }
        }
    }

    /// XSAVE (FXSAVE without it) of the components in `which`.
    ///
    /// # Safety
    /// The machine must be enabled.
    pub unsafe fn save(&mut self, machine: &Machine, which: ComponentSet) {
        // SAFETY: the buffer is aligned and larger than any image.
        unsafe {
            if machine.xsave() {
                torture_xsave(self.0.as_mut_ptr(), machine.xcr0 & which);
            } else {
                torture_fxsave(self.0.as_mut_ptr());
            }
        }
    }

    /// XRSTOR (FXRSTOR without it) of the components in `which`; those of them
    /// whose XSTATE_BV bit is clear become INIT.
    ///
    /// # Safety
    /// The machine must be enabled, and the image be written by [`Self::encode`]
    /// or [`Self::save`] from legal values.
    pub unsafe fn restore(&self, machine: &Machine, which: ComponentSet) {
        // SAFETY: the buffer is aligned, the image legal.
        unsafe {
            if machine.xsave() {
                torture_xrstor(self.0.as_ptr(), machine.xcr0 & which);
            } else {
                torture_fxrstor(self.0.as_ptr());
            }
        }
    }

    /// FXSAVE over the first 512 bytes.
    ///
    /// # Safety
    /// CR4.OSFXSR must be set.
    pub unsafe fn fxsave(&mut self) {
        // SAFETY: the buffer is aligned and large enough.
        unsafe { torture_fxsave(self.0.as_mut_ptr()) }
    }

    /// FXRSTOR of the first 512 bytes.
    ///
    /// # Safety
    /// CR4.OSFXSR must be set and the image be legal.
    pub unsafe fn fxrstor(&self) {
        // SAFETY: the buffer is aligned, the image legal.
        unsafe { torture_fxrstor(self.0.as_ptr()) }
    }

    /// Makes it an image of nothing: XRSTOR sets all that is asked for to INIT.
    pub fn set_init(&mut self, machine: &Machine) {
        self.encode(&Registers::ZERO, machine, 0);
        if !machine.xsave() {
            let mut init = Registers::ZERO;
            init.set_init();
            self.encode(&init, machine, ALL);
        }
    }
}
