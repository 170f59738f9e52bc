//! RDMSR and WRMSR: the control registers, and the MSRs that components are made of.
//!
//! SDM Vol. 4, Table 2-2; Vol. 1, 13.5 XSAVE-Managed State for which bytes of
//! a component each is.

use super::Cpu;
use super::fault::{Fault, Reason};
use super::legal;
use super::registers::le64;
use crate::component::ComponentIndex;

const IA32_XFD: u32 = 0x1c4;
const IA32_XFD_ERR: u32 = 0x1c5;
const IA32_XSS: u32 = 0xda0;

/// Number, component and which of its 8-byte registers: IA32_U_CET and
/// IA32_PL3_SSP, IA32_PL0_SSP to IA32_PL2_SSP, IA32_UINTR_HANDLER,
/// STACKADJUST, MISC, PD, RR and TT, IA32_PASID, IA32_LBR_CTL.
const PARTS: [(u32, ComponentIndex, usize); 13] = [
    (0x6a0, ComponentIndex::CET_U, 0),
    (0x6a7, ComponentIndex::CET_U, 1),
    (0x6a4, ComponentIndex::CET_S, 0),
    (0x6a5, ComponentIndex::CET_S, 1),
    (0x6a6, ComponentIndex::CET_S, 2),
    (0x986, ComponentIndex::UINTR, 0),
    (0x987, ComponentIndex::UINTR, 1),
    (0x988, ComponentIndex::UINTR, 2),
    (0x989, ComponentIndex::UINTR, 3),
    (0x985, ComponentIndex::UINTR, 4),
    (0x98a, ComponentIndex::UINTR, 5),
    (0xd93, ComponentIndex::PASID, 0),
    (0x14ce, ComponentIndex::LBR, 0),
];

/// What an MSR is.
enum Msr {
    Xss,
    Xfd,
    XfdErr,
    /// A register of a component: which, offset in bytes.
    Part(ComponentIndex, usize),
}

impl Cpu {
    /// WRMSR of IA32_XSS (0xda0), IA32_XFD (0x1c4), IA32_XFD_ERR (0x1c5), or
    /// of a register of CET, PASID, UINTR or LBR state. IA32_XSS does not
    /// matter for those.
    ///
    /// # Errors
    /// The exception.
    pub fn wrmsr(&mut self, msr: u32, value: u64) -> Result<(), Fault> {
        let within = |allowed: u64, reason| {
            if value & !allowed == 0 {
                Ok(())
            } else {
                Err(reason)
            }
        };
        match self.msr(msr)? {
            Msr::Xss => {
                within(self.machine.supervisor, Reason::XssReserved(value))?;
                self.xss = value;
            }
            Msr::Xfd => {
                within(self.machine.xfd_capable, Reason::XfdReserved(value))?;
                self.xfd = value;
            }
            Msr::XfdErr => {
                within(self.machine.xfd_capable, Reason::XfdReserved(value))?;
                self.xfd_err = value;
            }
            Msr::Part(component, at) => {
                let mut bytes = self.registers.component(component).to_vec();
                if let Some(word) = bytes.get_mut(at..at + 8) {
                    word.copy_from_slice(&value.to_le_bytes());
                }
                legal::check(component, &bytes, &self.machine)?;
                self.put(component, &bytes);
            }
        }
        Ok(())
    }

    /// RDMSR of one of them.
    ///
    /// # Errors
    /// The exception.
    pub fn rdmsr(&self, msr: u32) -> Result<u64, Fault> {
        Ok(match self.msr(msr)? {
            Msr::Xss => self.xss,
            Msr::Xfd => self.xfd,
            Msr::XfdErr => self.xfd_err,
            Msr::Part(component, at) => le64(self.registers.component(component), at),
        })
    }

    fn msr(&self, msr: u32) -> Result<Msr, Reason> {
        if self.mode.cpl != 0 {
            return Err(Reason::Cpl(self.mode.cpl));
        }
        let part = || {
            let (_, component, word) = PARTS.iter().find(|(number, ..)| *number == msr)?;
            let exists = self.machine.supervisor & component.bit() != 0;
            exists.then_some(Msr::Part(*component, 8 * word))
        };
        match msr {
            IA32_XSS if self.machine.xsaves => Ok(Msr::Xss),
            IA32_XFD if self.machine.xfd => Ok(Msr::Xfd),
            IA32_XFD_ERR if self.machine.xfd => Ok(Msr::XfdErr),
            _ => part().ok_or(Reason::NoMsr(msr)),
        }
    }
}
