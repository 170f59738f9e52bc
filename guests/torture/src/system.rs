//! Debug registers, MSRs and control registers: what a vCPU has beside its
//! extended state.
#![allow(unsafe_code)] // privileged registers

use crate::machine::Machine;
use crate::registers::Registers;
use core::arch::asm;
use guest_rt::cpu::{self, rdmsr, wrmsr};

/// MSRs in the order of [`crate::registers::SYSTEM_NAMES`].
const MSRS: [u32; 11] = [
    0xc000_0100, // FS_BASE
    0xc000_0101, // GS_BASE
    0xc000_0102, // KERNEL_GS_BASE
    0xc000_0081, // STAR
    0xc000_0082, // LSTAR
    0xc000_0083, // CSTAR
    0xc000_0084, // SFMASK
    0x174,       // SYSENTER_CS
    0x175,       // SYSENTER_ESP
    0x176,       // SYSENTER_EIP
    TSC_AUX,
];
const TSC_AUX: u32 = 0xc000_0103;
const EFER: u32 = 0xc000_0080;
const PAT: u32 = 0x277;

/// Loads debug registers, MSRs, CR2 and CR8.
pub fn load(from: &Registers, machine: &Machine) {
    let [dr0, dr1, dr2, dr3, dr6, dr7] = from.debug;
    let [.., cr2, cr8] = from.system;
    // SAFETY: the values are legal; no breakpoint is enabled; nothing here uses
    // FS, GS, SYSCALL or SYSENTER; the priority lets the timer in.
    unsafe {
        asm!("mov dr0, {}", in(reg) dr0);
        asm!("mov dr1, {}", in(reg) dr1);
        asm!("mov dr2, {}", in(reg) dr2);
        asm!("mov dr3, {}", in(reg) dr3);
        asm!("mov dr6, {}", in(reg) dr6);
        asm!("mov dr7, {}", in(reg) dr7);
        asm!("mov cr2, {}", in(reg) cr2);
        asm!("mov cr8, {}", in(reg) cr8);
        for (msr, value) in MSRS.into_iter().zip(from.system) {
            if msr != TSC_AUX || machine.tsc_aux {
                wrmsr(msr, value);
            }
        }
    }
}

/// Reads what [`load`] loads.
pub fn store(to: &mut Registers, machine: &Machine) {
    let [dr0, dr1, dr2, dr3, dr6, dr7] = &mut to.debug;
    // SAFETY: reading has no effect, and every machine has these.
    unsafe {
        asm!("mov {}, dr0", out(reg) * dr0);
        asm!("mov {}, dr1", out(reg) * dr1);
        asm!("mov {}, dr2", out(reg) * dr2);
        asm!("mov {}, dr3", out(reg) * dr3);
        asm!("mov {}, dr6", out(reg) * dr6);
        asm!("mov {}, dr7", out(reg) * dr7);
        for (place, msr) in to.system.iter_mut().zip(MSRS) {
            if msr != TSC_AUX || machine.tsc_aux {
                *place = rdmsr(msr);
            }
        }
        let [.., cr2, cr8] = &mut to.system;
        asm!("mov {}, cr2", out(reg) * cr2);
        asm!("mov {}, cr8", out(reg) * cr8);
    }
}

/// Reads what must stay as it is.
pub fn store_control(to: &mut Registers, machine: &Machine) {
    let [cr0, cr3, cr4, efer, xcr0, pat] = &mut to.control;
    *cr0 = cpu::cr0();
    *cr4 = cpu::cr4();
    // SAFETY: reading has no effect; OSXSAVE is set where XSAVE is there.
    unsafe {
        asm!("mov {}, cr3", out(reg) * cr3);
        *efer = rdmsr(EFER);
        *pat = rdmsr(PAT);
        *xcr0 = if machine.xsave() { cpu::xgetbv0() } else { 0 };
    }
}
