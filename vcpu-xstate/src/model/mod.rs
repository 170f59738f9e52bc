//! A CPU in software that executes the XSAVE family by the manual.
//!
//! Written from SDM Vol. 1, chapter 13 Managing State Using the XSAVE Feature
//! Set and the instructions' pages in Vol. 2, and from nothing else in this
//! crate: it reads a machine's leaf 0xD itself ([`Machine`]), has layouts,
//! INIT values and legal values of its own, and so it can be asked whether
//! the rest of the crate, or anybody's switch code, is right.
//!
//! ```
//! use vcpu_xstate::ComponentIndex;
//! use vcpu_xstate::model::{Cpu, Exception, InitTracking, Machine};
//! # use vcpu_xstate::cpuid::CpuidResult;
//! # let cpuid = |leaf: u32, subleaf: u32| {
//! #     let (eax, ebx, ecx, edx) = match (leaf, subleaf) {
//! #         (0, _) => (0xd, 0, 0, 0),
//! #         (1, _) => (0, 0, 1 << 26, 0),
//! #         (0xd, 0) => (7, 0, 0, 0),
//! #         (0xd, 1) => (2, 0, 0, 0),
//! #         (0xd, 2) => (256, 576, 0, 0),
//! #         _ => (0, 0, 0, 0),
//! #     };
//! #     CpuidResult { eax, ebx, ecx, edx }
//! # };
//! // `cpuid` answers as the machine would.
//! let mut cpu = Cpu::new(Machine::read(&cpuid, 0), InitTracking::ByContent);
//! cpu.xsetbv(0, 7).unwrap();
//! cpu.put_pattern(ComponentIndex::AVX, 0x5a);
//!
//! // An area is bytes and the address that they are at.
//! let mut area = [0; 832];
//! cpu.xsavec(0x1000, &mut area, u64::MAX).unwrap();
//! let before = cpu.registers().clone();
//! cpu.put_pattern(ComponentIndex::AVX, 0x77);
//! cpu.xrstor(0x1000, &area, u64::MAX).unwrap();
//! assert_eq!(cpu.registers(), &before);
//!
//! // XCOMP_BV claims what XCR0 has not.
//! area[520] |= 0x80;
//! let fault = cpu.xrstor(0x1000, &area, u64::MAX).unwrap_err();
//! assert_eq!(fault.exception, Exception::GeneralProtection);
//! ```
//!
//! What the manual leaves to the processor is chosen so that mistakes of
//! software show: whatever an instruction need not write stays as it was, an
//! XRSTORS that faults on a value has loaded what comes before it, and
//! XSAVEOPT and XSAVES leave out whatever they may. How XINUSE behaves differs
//! between processors and emulators, see [`InitTracking`].
//!
//! Not modelled: 32-bit and 16-bit formats of FIP and FDP, VM exits in the
//! middle of an instruction, #AC, and #SS in place of #GP.

mod control;
mod fault;
mod legal;
mod machine;
mod msr;
mod pattern;
mod registers;
mod restore;
mod save;

pub use fault::{Exception, Fault, Reason};
pub use machine::Machine;
pub use registers::{Registers, X87};

use crate::component::ComponentIndex;

/// How XINUSE behaves (13.6 Processor Tracking of XSAVE-Managed State): a
/// component that is INIT may be tracked as in use, never the other way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitTracking {
    /// What holds its initial configuration is INIT.
    ByContent,
    /// Always in use, as QEMU has it.
    Never,
    /// By content, but PKRU is always in use, as on Intel processors.
    ExceptPkru,
    /// As writes and restores left it: in use once written or restored with
    /// XSTATE_BV set, INIT again only when restored with XSTATE_BV clear.
    AsRestored,
}

/// What of the processor's mode the instructions look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    /// Current privilege level, 0 to 3.
    pub cpl: u8,
    /// CR0.TS.
    pub ts: bool,
    /// CR0.EM.
    pub em: bool,
    /// CR4.OSFXSR.
    pub osfxsr: bool,
    /// CR4.OSXSAVE.
    pub osxsave: bool,
    /// CR4.PKE.
    pub pke: bool,
    /// In VMX non-root operation, which the modified optimization tells apart.
    pub vmx_non_root: bool,
}

impl Mode {
    /// A kernel or hypervisor at CPL 0 that has enabled everything.
    pub const KERNEL: Self = Self {
        cpl: 0,
        ts: false,
        em: false,
        osfxsr: true,
        osxsave: true,
        pke: true,
        vmx_non_root: false,
    };
}

/// XRSTOR_INFO: what the last XRSTOR or XRSTORS was (13.8.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RestoredFrom {
    cpl: u8,
    vmx_non_root: bool,
    address: u64,
    xcomp_bv: u64,
}

/// A logical processor.
#[derive(Clone, Debug)]
pub struct Cpu {
    /// The mode that it is in; changed at will.
    pub mode: Mode,
    /// Whether XSAVEOPT and XSAVES leave out what was not modified since the
    /// last XRSTOR or XRSTORS (the modified optimization).
    pub modified_optimization: bool,
    machine: Machine,
    tracking: InitTracking,
    registers: Registers,
    xcr0: u64,
    xss: u64,
    xfd: u64,
    xfd_err: u64,
    /// What `InitTracking::AsRestored` holds to be in use.
    in_use: u64,
    /// XMODIFIED.
    modified: u64,
    restored_from: Option<RestoredFrom>,
}

impl Cpu {
    /// The processor after reset, in [`Mode::KERNEL`].
    pub fn new(machine: Machine, tracking: InitTracking) -> Self {
        Self {
            mode: Mode::KERNEL,
            modified_optimization: true,
            registers: Registers::init(&machine),
            machine,
            tracking,
            xcr0: 1,
            xss: 0,
            xfd: 0,
            xfd_err: 0,
            in_use: 0,
            modified: u64::MAX,
            restored_from: None,
        }
    }

    /// INIT or RESET: XCR0 is 1, the other control registers 0, and nothing is
    /// known of what was restored. `xfd` is what IA32_XFD comes up with.
    pub fn reset(&mut self, xfd: u64) {
        *self = Self {
            xfd,
            modified_optimization: self.modified_optimization,
            ..Self::new(self.machine.clone(), self.tracking)
        };
    }

    /// The machine.
    pub const fn machine(&self) -> &Machine {
        &self.machine
    }

    /// The registers.
    pub const fn registers(&self) -> &Registers {
        &self.registers
    }

    /// The registers, to be changed at will. Everything counts as modified
    /// and, under [`InitTracking::AsRestored`], as in use.
    pub const fn registers_mut(&mut self) -> &mut Registers {
        self.in_use = u64::MAX;
        self.modified = u64::MAX;
        &mut self.registers
    }

    /// Changes the registers of one component, as a program would that may use
    /// it ([`use_component`](Self::use_component) says whether). `bytes` are as
    /// in an area: for x87 the first 160 bytes of the legacy region, for SSE
    /// XMM0–15 without MXCSR. What does not fit is cut off.
    pub fn put(&mut self, component: ComponentIndex, bytes: &[u8]) {
        let write = |to: &mut [u8]| to.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        match component {
            ComponentIndex::X87 => {
                let mut x87 = self.registers.x87.to_bytes();
                write(&mut x87);
                self.registers.x87 = X87::from_bytes(&x87);
            }
            ComponentIndex::SSE => write(self.registers.xmm.as_flattened_mut()),
            _ => write(self.registers.component_mut(component)),
        }
        self.touched(component);
    }

    /// Puts contents into a component that are legal on every machine, not
    /// INIT, and different for each `seed`.
    pub fn put_pattern(&mut self, component: ComponentIndex, seed: u8) {
        self.registers.set_pattern(&self.machine, component, seed);
        self.touched(component);
    }

    fn touched(&mut self, component: ComponentIndex) {
        self.in_use |= component.bit();
        self.modified |= component.bit();
    }

    /// XCR0.
    pub const fn xcr0(&self) -> u64 {
        self.xcr0
    }

    /// IA32_XSS.
    pub const fn xss(&self) -> u64 {
        self.xss
    }

    /// IA32_XFD.
    pub const fn xfd(&self) -> u64 {
        self.xfd
    }

    /// IA32_XFD_ERR.
    pub const fn xfd_err(&self) -> u64 {
        self.xfd_err
    }

    /// XINUSE, over all components that the machine has.
    pub fn xinuse(&self) -> u64 {
        let mut set = 0;
        let listed = self.machine.user | self.machine.supervisor;
        for i in 0..machine::BITS {
            let bit = 1 << i;
            let Some(component) = ComponentIndex::new(i).filter(|_| listed & bit != 0) else {
                continue;
            };
            let in_use = match self.tracking {
                InitTracking::ByContent => !self.registers.is_init(component),
                InitTracking::Never => true,
                InitTracking::ExceptPkru => i == 9 || !self.registers.is_init(component),
                InitTracking::AsRestored => {
                    self.in_use & bit != 0 || !self.registers.is_init(component)
                }
            };
            if in_use {
                set |= bit;
            }
        }
        set
    }

    /// #UD, #NM and #GP that every instruction of the family begins with.
    fn begin(&self, supported: bool, cpl0: bool, address: u64) -> Result<(), Reason> {
        if !supported {
            return Err(Reason::NotSupported);
        }
        if !self.mode.osxsave {
            return Err(Reason::OsxsaveClear);
        }
        if self.mode.ts {
            return Err(Reason::TaskSwitched);
        }
        if cpl0 && self.mode.cpl != 0 {
            return Err(Reason::Cpl(self.mode.cpl));
        }
        if !address.is_multiple_of(64) {
            return Err(Reason::Misaligned(address));
        }
        self.check_address(address)
    }

    /// Vol. 2, XSAVE and the others, 64-Bit Mode Exceptions: #GP of a memory
    /// address in a non-canonical form. (#SS where it is relative to RSP or RBP:
    /// the segment is not known here.)
    const fn check_address(&self, address: u64) -> Result<(), Reason> {
        if legal::canonical(address, self.machine.linear_address_bits) {
            Ok(())
        } else {
            Err(Reason::AreaNonCanonical(address))
        }
    }
}

#[cfg(test)]
mod tests;
