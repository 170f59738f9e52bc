//! Loading and reading every register by its own instructions. Logic only; the
//! instructions are in state.S.
#![allow(unsafe_code)] // calls into assembly

use crate::image::Image;
use crate::machine::Machine;
use crate::registers::{Component, Registers};
use core::arch::global_asm;

global_asm!(include_str!("state.S"));

unsafe extern "C" {
    pub fn torture_load_sse(from: *const [[u8; 64]; 32]);
    pub fn torture_store_sse(to: *mut [[u8; 64]; 32]);
    pub fn torture_load_avx(from: *const [[u8; 64]; 32]);
    pub fn torture_store_avx(to: *mut [[u8; 64]; 32]);
    pub fn torture_load_avx512(from: *const [[u8; 64]; 32]);
    pub fn torture_store_avx512(to: *mut [[u8; 64]; 32]);
    pub fn torture_load_opmask16(from: *const [u64; 8]);
    pub fn torture_store_opmask16(to: *mut [u64; 8]);
    pub fn torture_load_opmask64(from: *const [u64; 8]);
    pub fn torture_store_opmask64(to: *mut [u64; 8]);
    pub fn torture_load_tilecfg(from: *const [u8; 64]);
    pub fn torture_store_tilecfg(to: *mut [u8; 64]);
    pub fn torture_load_tiles(from: *const [[u8; 1024]; 8]);
    pub fn torture_store_tiles(to: *mut [[u8; 1024]; 8]);
    pub fn torture_load_mxcsr(from: *const u32);
    pub fn torture_store_mxcsr(to: *mut u32);
    pub fn torture_frstor(from: *const Environment);
    pub fn torture_fnsave(to: *mut Environment);
    fn torture_load_pkru(from: *const u32);
    fn torture_store_pkru(to: *mut u32);
}

/// What FNSAVE writes and FRSTOR takes in 64-bit mode without REX.W (SDM
/// Vol. 1, figure 8-9, Protected Mode, 32-Bit Format).
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct Environment {
    fcw: u32,
    fsw: u32,
    ftw: u32,
    fip: u32,
    /// FCS, and FOP from bit 16.
    fop: u32,
    fdp: u32,
    fds: u32,
    st: [[u8; 10]; 8],
}

const _: () = assert!(size_of::<Environment>() == 108);

impl Environment {
    /// The x87 part of `from`. Registers that are not empty are tagged valid;
    /// the processor looks at the contents itself.
    #[must_use]
    pub fn new(from: &Registers) -> Self {
        let tag = |index: u32| {
            if from.ftw >> index & 1 == 0 {
                3 << (2 * index)
            } else {
                0
            }
        };
        Self {
            fcw: from.fcw.into(),
            fsw: from.fsw.into(),
            ftw: (0..8).map(tag).sum(),
            fip: from.fip as u32,
            fop: u32::from(from.fop) << 16,
            fdp: from.fdp as u32,
            fds: 0,
            st: from.st,
        }
    }

    /// The full tag word as it was stored.
    #[must_use]
    pub const fn tag_word(&self) -> u16 {
        self.ftw as u16
    }
}

/// The full tag word of what `registers` hold (SDM Vol. 1, 8.1.7): 0 valid,
/// 1 zero, 2 special, 3 empty, by physical register.
#[must_use]
pub fn full_tag_word(registers: &Registers) -> u16 {
    let top = usize::from(registers.fsw >> 11 & 7);
    let mut word = 0;
    for (from_top, st) in registers.st.iter().enumerate() {
        let physical = (top + from_top) % 8;
        let [mantissa @ .., exponent_low, exponent_high] = st;
        let exponent = u16::from_le_bytes([*exponent_low, *exponent_high]) & 0x7fff;
        let mantissa = u64::from_le_bytes(*mantissa);
        let tag = if registers.ftw >> physical & 1 == 0 {
            3
        } else if exponent == 0 && mantissa == 0 {
            1
        } else if exponent == 0 || exponent == 0x7fff || mantissa >> 63 == 0 {
            2
        } else {
            0
        };
        word |= tag << (2 * physical);
    }
    word
}

/// Loads the extended state of `from`, each register by its own instruction.
/// The bounds registers alone come by way of `scratch`: BNDMOV does nothing at
/// CPL 0 unless IA32_BNDCFGS says so, which is nobody's here.
pub fn load(from: &Registers, machine: &Machine, scratch: &mut Image) {
    // SAFETY: each instruction is executed only where the machine has it and
    // its component is enabled; the values are legal; this code is soft-float,
    // so nothing else lives in these registers.
    unsafe {
        if machine.has(Component::Bndregs) {
            scratch.encode(from, machine, crate::image::BOUNDS);
            scratch.restore(machine, crate::image::BOUNDS);
            scratch.clear();
        }
        if machine.has(Component::Hi16Zmm) {
            torture_load_avx512(&from.vectors);
        } else if machine.has(Component::Avx) {
            torture_load_avx(&from.vectors);
        } else {
            torture_load_sse(&from.vectors);
        }
        if machine.has(Component::Opmask) {
            if machine.wide_opmask {
                torture_load_opmask64(&from.opmask);
            } else {
                torture_load_opmask16(&from.opmask);
            }
        }
        if machine.has(Component::TileData) {
            torture_load_tilecfg(&from.tilecfg);
            torture_load_tiles(&from.tiles);
        }
        load_pkru(from, machine);
        torture_load_mxcsr(&from.mxcsr);
        let mut environment = Environment::new(from);
        torture_frstor(&environment);
        environment = Environment::default();
        core::hint::black_box(&mut environment);
    }
}

/// Loads PKRU alone.
pub fn load_pkru(from: &Registers, machine: &Machine) {
    if machine.has(Component::Pkru) {
        // SAFETY: CR4.PKE is set; supervisor pages do not look at PKRU.
        unsafe { torture_load_pkru(&from.pkru) }
    }
}

/// Flips a bit of PKRU.
pub fn flip_pkru(machine: &Machine) {
    if machine.has(Component::Pkru) {
        let mut pkru = 0;
        // SAFETY: CR4.PKE is set; supervisor pages do not look at PKRU.
        unsafe {
            torture_store_pkru(&mut pkru);
            torture_load_pkru(&(pkru ^ 0x10));
        }
    }
}

/// Reads the extended state into `to`, each register by its own instruction,
/// and changes none. The x87 unit has no such instruction without side effects
/// but FXSAVE; see [`load`] for the bounds.
pub fn store(to: &mut Registers, machine: &Machine, scratch: &mut Image) {
    // SAFETY: as in `load`; `to` and `scratch` are large enough by their types.
    unsafe {
        if machine.has(Component::Hi16Zmm) {
            torture_store_avx512(&mut to.vectors);
        } else if machine.has(Component::Avx) {
            torture_store_avx(&mut to.vectors);
        } else {
            torture_store_sse(&mut to.vectors);
        }
        if machine.has(Component::Opmask) {
            if machine.wide_opmask {
                torture_store_opmask64(&mut to.opmask);
            } else {
                torture_store_opmask16(&mut to.opmask);
            }
        }
        if machine.has(Component::TileData) {
            torture_store_tilecfg(&mut to.tilecfg);
            // No tile can be stored while none is configured, and then all of
            // them are INIT.
            if to.tilecfg[0] != 0 {
                torture_store_tiles(&mut to.tiles);
            }
        }
        if machine.has(Component::Pkru) {
            torture_store_pkru(&mut to.pkru);
        }
        torture_store_mxcsr(&mut to.mxcsr);
        scratch.clear();
        scratch.fxsave();
        scratch.decode(to, machine, Component::X87.bit());
        if machine.has(Component::Bndregs) {
            scratch.clear();
            scratch.save(machine, crate::image::BOUNDS);
            scratch.decode(to, machine, crate::image::BOUNDS);
        }
        scratch.clear();
    }
}

/// Executes FNSAVE, after which the x87 unit is INIT; returns the full tag word
/// that it wrote.
pub fn take_tag_word() -> u16 {
    let mut environment = Environment::default();
    // SAFETY: nobody else uses the x87 unit.
    unsafe { torture_fnsave(&mut environment) };
    environment.tag_word()
}
