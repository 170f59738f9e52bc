//! The only module with privileged or XSAVE instructions: the trait, and the safe register file over it.
//!
//! [`Hardware`] is what an implementation must give: real instructions
//! (`Silicon`) or a model ([`Modelled`]). [`RegisterFile`] is the one setter over it: it
//! holds which XCR0, IA32_XSS, IA32_XFD and IA32_XFD_ERR are in the registers,
//! writes only what changes, and makes saving and restoring safe by taking
//! areas, whose size and form are right by type.
#![allow(unsafe_code)] // instructions that read and write memory by raw pointer

mod component_msr;
pub(crate) mod copy;
mod modelled;
#[cfg(target_arch = "x86_64")]
mod mxcsr;
mod registers;
#[cfg(target_arch = "x86_64")]
mod silicon;

use core::fmt;

use crate::cpuid::{HostXstate, SaveInstruction};

pub use component_msr::ComponentMsr;
pub use modelled::Modelled;
#[cfg(target_arch = "x86_64")]
pub use mxcsr::mxcsr_mask;
pub use registers::{Controls, RegisterFile};
#[cfg(target_arch = "x86_64")]
pub use silicon::{Silicon, fixup};

/// The instruction by which a host restores a vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreInstruction {
    /// XRSTOR: either form, user components.
    Xrstor,
    /// XRSTORS: compacted form, supervisor components too.
    Xrstors,
}

impl RestoreInstruction {
    /// The one that belongs to a save: supervisor state comes by XRSTORS alone.
    pub const fn of(save: SaveInstruction) -> Self {
        match save {
            SaveInstruction::Xsaves => Self::Xrstors,
            _ => Self::Xrstor,
        }
    }
}

/// A compacted save and the restore that belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// XSAVEC and XRSTOR.
    User,
    /// XSAVES and XRSTORS.
    All,
}

/// A restore faulted: the image was not what validation promises. The
/// registers are half loaded, so all of them are made INIT; the domain is
/// lost, the host is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestoreFault;

impl fmt::Display for RestoreFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("restoring extended state faulted")
    }
}

impl core::error::Error for RestoreFault {}

/// What a processor does with extended state. Safe code uses it through
/// [`RegisterFile`] alone.
pub trait Hardware {
    /// XSETBV of XCR0.
    ///
    /// # Safety
    /// `value` is legal on this processor, CR4.OSXSAVE is set, and nothing that
    /// the caller runs depends on a component that `value` disables.
    unsafe fn write_xcr0(&mut self, value: u64);

    /// WRMSR of IA32_XSS.
    ///
    /// # Safety
    /// The processor has XSAVES and supports every bit of `value`.
    unsafe fn write_xss(&mut self, value: u64);

    /// WRMSR of IA32_XFD.
    ///
    /// # Safety
    /// The processor has XFD and supports every bit of `value`.
    unsafe fn write_xfd(&mut self, value: u64);

    /// WRMSR of IA32_XFD_ERR.
    ///
    /// # Safety
    /// The processor has XFD and supports every bit of `value`.
    unsafe fn write_xfd_err(&mut self, value: u64);

    /// RDMSR of IA32_XFD_ERR.
    ///
    /// # Safety
    /// The processor has XFD.
    unsafe fn read_xfd_err(&mut self) -> u64;

    /// RDPKRU.
    ///
    /// # Safety
    /// The processor has PKU, and CR4.PKE is set.
    unsafe fn read_pkru(&mut self) -> u32;

    /// WRPKRU.
    ///
    /// # Safety
    /// As [`read_pkru`](Self::read_pkru), and nothing that the caller runs
    /// accesses user pages (the host maps none).
    unsafe fn write_pkru(&mut self, value: u32);

    /// RDMSR of a supervisor component's register.
    ///
    /// # Safety
    /// The processor has the register.
    unsafe fn read_msr(&mut self, register: ComponentMsr) -> u64;

    /// WRMSR of a supervisor component's register.
    ///
    /// # Safety
    /// The processor has the register and takes `value`. Nothing that the
    /// caller runs depends on it: these registers act on user mode, or where
    /// supervisor shadow stacks are on, which are the guest's alone.
    unsafe fn write_msr(&mut self, register: ComponentMsr, value: u64);

    /// Saves with requested-feature bitmap `rfbm`.
    ///
    /// # Safety
    /// The processor has `instruction`. `image` is 64-byte aligned, nobody
    /// else's, valid for reads and writes over its whole length, as long as the
    /// image of `rfbm` in the instruction's form on this processor, and holds a
    /// header of that form.
    unsafe fn save(&mut self, instruction: SaveInstruction, image: *mut [u8], rfbm: u64);

    /// Restores with requested-feature bitmap `rfbm`.
    ///
    /// # Safety
    /// The processor has `instruction`. `image` is 64-byte aligned, valid for
    /// reads over its whole length, and as long as the layout on this processor
    /// that its header describes. (A processor may also touch, but does not
    /// use, the places of components of `rfbm` that the header leaves INIT: SDM
    /// Vol. 1, 13.13. What lies behind a standard image must not be a page
    /// whose absence is a fault that nobody expects.) Whoever calls expects the
    /// vector registers to change.
    ///
    /// # Errors
    /// The image was refused; register contents are undefined.
    unsafe fn restore(
        &mut self,
        instruction: RestoreInstruction,
        image: *const [u8],
        rfbm: u64,
    ) -> Result<(), RestoreFault>;

    /// Sets FIP, FDP and FOP to values of the host, for processors whose XRSTOR
    /// leaves the last owner's where no x87 exception is pending (XSA-52).
    ///
    /// # Safety
    /// x87 holds nothing that is still needed, CR0.TS and CR0.EM are clear.
    unsafe fn clear_fp_pointers(&mut self);

    /// The host offers less from now on ([`RegisterFile::restrict`]): for models
    /// that hold a host to its own values. A processor has no use for it.
    fn restricted(&mut self, host: &HostXstate) {
        let _ = host;
    }

    /// From one image to another: saves to `from` with `rfbm`, restores all of
    /// `to`.
    ///
    /// # Safety
    /// As [`save`](Self::save) and [`restore`](Self::restore).
    ///
    /// # Errors
    /// The image in `to` was refused; `from` is saved, register contents are
    /// undefined.
    #[inline]
    unsafe fn exchange(
        &mut self,
        exchange: Exchange,
        from: *mut [u8],
        rfbm: u64,
        to: *const [u8],
    ) -> Result<(), RestoreFault> {
        let (save, restore) = match exchange {
            Exchange::User => (SaveInstruction::Xsavec, RestoreInstruction::Xrstor),
            Exchange::All => (SaveInstruction::Xsaves, RestoreInstruction::Xrstors),
        };
        // SAFETY: as the caller promises.
        unsafe {
            self.save(save, from, rfbm);
            self.restore(restore, to, u64::MAX)
        }
    }
}
