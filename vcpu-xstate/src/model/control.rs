//! XCR0, and the instructions beside the XSAVE family.
//!
//! XSETBV, XGETBV, RDPKRU, WRPKRU, LDMXCSR, STMXCSR (SDM Vol. 2); what a program's use of a
//! component raises (SDM Vol. 1, 13.3, 13.14).

use super::Cpu;
use super::fault::{Fault, Reason};
use super::registers::MXCSR_INIT;
use crate::component::ComponentIndex;

impl Cpu {
    /// XSETBV: `value` is EDX:EAX.
    ///
    /// # Errors
    /// The exception.
    pub fn xsetbv(&mut self, ecx: u32, value: u64) -> Result<(), Fault> {
        self.xcr_usable()?;
        if self.mode.cpl != 0 {
            return Err(Reason::Cpl(self.mode.cpl).into());
        }
        if ecx != 0 {
            return Err(Reason::XcrIndex(ecx).into());
        }
        self.check_xcr0(value)?;
        self.xcr0 = value;
        Ok(())
    }

    /// 13.3 Enabling the XSAVE Feature Set and XSAVE-Enabled Features.
    fn check_xcr0(&self, value: u64) -> Result<(), Reason> {
        let field = |low: u32, width: u32| value >> low & ((1 << width) - 1);
        if value & 1 == 0 {
            return Err(Reason::Xcr0X87(value));
        }
        if value & !self.machine.user != 0 {
            return Err(Reason::Xcr0Reserved(value));
        }
        if field(1, 2) == 0b10 {
            return Err(Reason::Xcr0AvxWithoutSse(value));
        }
        if matches!(field(3, 2), 0b01 | 0b10) {
            return Err(Reason::Xcr0Mpx(value));
        }
        match field(5, 3) {
            0 => {}
            0b111 if field(2, 1) == 1 => {}
            _ => return Err(Reason::Xcr0Avx512(value)),
        }
        if matches!(field(17, 2), 0b01 | 0b10) {
            return Err(Reason::Xcr0Amx(value));
        }
        if field(19, 1) == 1 && field(3, 2) != 0 {
            return Err(Reason::Xcr0ApxWithMpx(value));
        }
        Ok(())
    }

    /// XGETBV: XCR0 for ECX = 0, XCR0 & XINUSE for ECX = 1.
    ///
    /// # Errors
    /// The exception.
    pub fn xgetbv(&self, ecx: u32) -> Result<u64, Fault> {
        self.xcr_usable()?;
        match ecx {
            0 => Ok(self.xcr0),
            // XINUSE[1] is of the XMM registers alone, yet this reads as 1 with
            // an MXCSR that is not INIT: measured on Zen 5 and on Intel
            // processors with AMX, whose XSAVE leaves XSTATE_BV[1] clear then.
            1 if self.machine.xgetbv1 => {
                let mxcsr = u64::from(self.registers.mxcsr != MXCSR_INIT) << 1;
                Ok(self.xcr0 & (self.xinuse() | mxcsr))
            }
            _ => Err(Reason::XcrIndex(ecx).into()),
        }
    }

    fn xcr_usable(&self) -> Result<(), Reason> {
        if !self.machine.xsave {
            Err(Reason::NotSupported)
        } else if !self.mode.osxsave {
            Err(Reason::OsxsaveClear)
        } else {
            Ok(())
        }
    }

    /// RDPKRU: EAX. XCR0 does not matter.
    ///
    /// # Errors
    /// The exception.
    pub fn rdpkru(&self, ecx: u32) -> Result<u32, Fault> {
        self.pkru_usable(ecx == 0)?;
        let bytes = self.registers.component(ComponentIndex::PKRU);
        Ok(bytes.first_chunk().map_or(0, |b| u32::from_le_bytes(*b)))
    }

    /// WRPKRU. XCR0 does not matter.
    ///
    /// # Errors
    /// The exception.
    pub fn wrpkru(&mut self, ecx: u32, edx: u32, eax: u32) -> Result<(), Fault> {
        self.pkru_usable(ecx == 0 && edx == 0)?;
        self.put(ComponentIndex::PKRU, &eax.to_le_bytes());
        Ok(())
    }

    fn pkru_usable(&self, operands: bool) -> Result<(), Reason> {
        if !self.machine.pku {
            Err(Reason::NotSupported)
        } else if !self.mode.pke {
            Err(Reason::PkeClear)
        } else if !operands {
            Err(Reason::PkruOperand)
        } else {
            Ok(())
        }
    }

    /// LDMXCSR.
    ///
    /// # Errors
    /// The exception.
    pub fn ldmxcsr(&mut self, value: u32) -> Result<(), Fault> {
        self.sse_usable()?;
        if value & !self.machine.mxcsr_mask != 0 {
            return Err(Reason::Mxcsr(value).into());
        }
        self.registers.mxcsr = value;
        self.modified |= ComponentIndex::SSE.bit();
        Ok(())
    }

    /// STMXCSR.
    ///
    /// # Errors
    /// The exception.
    pub fn stmxcsr(&self) -> Result<u32, Fault> {
        self.sse_usable()?;
        Ok(self.registers.mxcsr)
    }

    fn sse_usable(&self) -> Result<(), Reason> {
        if self.mode.em {
            Err(Reason::Emulation)
        } else if !self.mode.osfxsr {
            Err(Reason::OsfxsrClear)
        } else if self.mode.ts {
            Err(Reason::TaskSwitched)
        } else {
            Ok(())
        }
    }

    /// MXCSR_MASK as FXSAVE stores it at bytes 28–31.
    pub const fn fxsave_mxcsr_mask(&self) -> u32 {
        self.machine.mxcsr_mask
    }

    /// What an instruction that uses the component raises before it does
    /// anything: #UD where XCR0 does not enable it, #NM under CR0.TS, #NM with
    /// IA32_XFD_ERR under IA32_XFD. x87 and SSE need no XCR0. Supervisor
    /// components are used by MSR accesses, which need CPL 0 alone.
    ///
    /// # Errors
    /// The exception.
    pub fn use_component(&mut self, component: ComponentIndex) -> Result<(), Fault> {
        let bit = component.bit();
        if (self.machine.user | self.machine.supervisor | 3) & bit == 0 {
            return Err(Reason::NotSupported.into());
        }
        if self.machine.supervisor & bit != 0 {
            return match self.mode.cpl {
                0 => Ok(()),
                cpl => Err(Reason::Cpl(cpl).into()),
            };
        }
        match component {
            ComponentIndex::X87 if self.mode.em => return Err(Reason::X87Emulation.into()),
            ComponentIndex::X87 => {}
            ComponentIndex::SSE => self.sse_usable()?,
            ComponentIndex::PKRU => return Ok(self.pkru_usable(true)?),
            _ if !self.mode.osxsave => return Err(Reason::OsxsaveClear.into()),
            _ if self.xcr0 & bit == 0 => return Err(Reason::Disabled(component).into()),
            _ => {}
        }
        if self.mode.ts {
            return Err(Reason::TaskSwitched.into());
        }
        if self.xfd & bit != 0 {
            self.xfd_err = self.xfd & bit;
            return Err(Reason::XfdUse(self.xfd_err).into());
        }
        Ok(())
    }
}
