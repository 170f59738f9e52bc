//! The software CPU as [`Hardware`]: a hypervisor's own switch code runs on it, on any host.
//!
//! It executes what the real instructions would, and panics where a host does
//! what it never may, although the processor would not object: saving or
//! restoring under a guest's XCR0, IA32_XSS or IA32_XFD, giving an area that
//! holds a compacted image to XSAVE, asking for components that it does not
//! offer. A fault that the manual has panics too, but for those of a restore.

use super::{ComponentMsr, Hardware, RestoreFault, RestoreInstruction};
use crate::component::ComponentIndex;
use crate::cpuid::{CpuidResult, HostXstate, SaveInstruction};
use crate::model::{Cpu, Fault, InitTracking, Machine, Reason};

const IA32_XFD: u32 = 0x1c4;
const IA32_XFD_ERR: u32 = 0x1c5;
const IA32_XSS: u32 = 0xda0;

/// A processor in software under a host's switch code.
#[derive(Clone, Debug)]
pub struct Modelled {
    /// The processor. What runs on it between two switches changes it here.
    pub cpu: Cpu,
    /// The next restore fails, half loaded, whatever the image: a broken
    /// promise of validation.
    pub fail_next_restore: bool,
    /// This component is saved wrongly, as some emulators save tiles.
    pub broken: Option<ComponentIndex>,
    /// What the host offers now.
    host: HostXstate,
    restores: u32,
    control_writes: u32,
    direct_writes: u32,
}

impl Modelled {
    /// The processor of the machine that `cpuid` describes, after reset.
    /// `host` is what was read of the same machine.
    pub fn new(
        cpuid: &impl Fn(u32, u32) -> CpuidResult,
        host: HostXstate,
        tracking: InitTracking,
    ) -> Self {
        let machine = Machine::read(cpuid, host.mxcsr_mask());
        Self {
            cpu: Cpu::new(machine, tracking),
            fail_next_restore: false,
            broken: None,
            host,
            restores: 0,
            control_writes: 0,
            direct_writes: 0,
        }
    }

    /// XRSTOR and XRSTORS executed so far.
    pub const fn restores(&self) -> u32 {
        self.restores
    }

    /// XSETBV and WRMSR executed so far.
    pub const fn control_writes(&self) -> u32 {
        self.control_writes
    }

    /// WRPKRU and WRMSR of a component's own registers executed so far.
    pub const fn direct_writes(&self) -> u32 {
        self.direct_writes
    }

    fn write_control(&mut self, msr: u32, value: u64) {
        self.control_writes += 1;
        let written = self.cpu.wrmsr(msr, value);
        assert_eq!(written, Ok(()), "WRMSR {msr:#x} of {value:#x}");
    }

    /// What must be live while state is moved (the guest's own values never).
    fn assert_hosts_own(&self, what: &str, rfbm: u64) {
        let (user, supervisor) = (self.host.user().bits(), self.host.supervisor().bits());
        assert_eq!(self.cpu.xcr0(), user, "{what} under a guest's XCR0");
        assert_eq!(self.cpu.xss(), supervisor, "{what} under a guest's XSS");
        assert_eq!(self.cpu.xfd() & rfbm, 0, "{what} tiles under XFD");
    }
}

impl Hardware for Modelled {
    unsafe fn write_xcr0(&mut self, value: u64) {
        self.control_writes += 1;
        let written = self.cpu.xsetbv(0, value);
        assert_eq!(written, Ok(()), "XSETBV of {value:#x}");
    }

    unsafe fn write_xss(&mut self, value: u64) {
        self.write_control(IA32_XSS, value);
    }

    unsafe fn write_xfd(&mut self, value: u64) {
        self.write_control(IA32_XFD, value);
    }

    unsafe fn write_xfd_err(&mut self, value: u64) {
        self.write_control(IA32_XFD_ERR, value);
    }

    unsafe fn read_xfd_err(&mut self) -> u64 {
        self.cpu.xfd_err()
    }

    unsafe fn read_pkru(&mut self) -> u32 {
        let read = self.cpu.rdpkru(0);
        read.unwrap_or_else(|fault| panic!("RDPKRU: {fault}"))
    }

    unsafe fn write_pkru(&mut self, value: u32) {
        self.direct_writes += 1;
        let written = self.cpu.wrpkru(0, 0, value);
        assert_eq!(written, Ok(()), "WRPKRU of {value:#x}");
    }

    unsafe fn read_msr(&mut self, register: ComponentMsr) -> u64 {
        let read = self.cpu.rdmsr(register.number());
        read.unwrap_or_else(|fault| panic!("RDMSR of {register:?}: {fault}"))
    }

    unsafe fn write_msr(&mut self, register: ComponentMsr, value: u64) {
        self.direct_writes += 1;
        let written = self.cpu.wrmsr(register.number(), value);
        assert_eq!(written, Ok(()), "WRMSR {register:?} of {value:#x}");
    }

    unsafe fn save(&mut self, instruction: SaveInstruction, image: *mut [u8], rfbm: u64) {
        self.assert_hosts_own("saved", rfbm);
        let enabled = self.cpu.xcr0() | self.cpu.xss();
        assert_eq!(
            rfbm & !enabled,
            0,
            "the area has room for what is not offered"
        );
        let compacted = matches!(
            instruction,
            SaveInstruction::Xsavec | SaveInstruction::Xsaves
        );
        // SAFETY: the caller gives memory that is valid and nobody else's. Its
        // length is taken from there, never from this machine's layouts, which
        // anybody can put in place of those that the area was made for.
        let memory = unsafe { &mut *image };
        let header = le64(memory, 520);
        assert!(
            compacted || header == 0,
            "XSAVE leaves XCOMP_BV of a compacted image"
        );
        let address = image.cast::<u8>().addr() as u64;
        let saved = match instruction {
            SaveInstruction::Xsave => self.cpu.xsave(address, memory, rfbm),
            SaveInstruction::Xsaveopt => self.cpu.xsaveopt(address, memory, rfbm),
            SaveInstruction::Xsavec => self.cpu.xsavec(address, memory, rfbm),
            SaveInstruction::Xsaves => self.cpu.xsaves(address, memory, rfbm),
        };
        assert_eq!(saved, Ok(()), "{instruction:?}");
        if let Some(component) = self.broken.filter(|broken| rfbm & broken.bit() != 0) {
            let machine = self.cpu.machine();
            let offset = if compacted {
                machine.compacted_offset(component, rfbm)
            } else {
                machine.standard_offset(component)
            };
            if let Some(byte) = offset.and_then(|offset| memory.get_mut(offset as usize)) {
                *byte ^= 0x80;
            }
        }
    }

    unsafe fn restore(
        &mut self,
        instruction: RestoreInstruction,
        image: *const [u8],
        rfbm: u64,
    ) -> Result<(), RestoreFault> {
        self.restores += 1;
        self.assert_hosts_own("restored", rfbm);
        if core::mem::take(&mut self.fail_next_restore) {
            self.cpu.registers_mut().xmm[0] = [0xbd; 16];
            return Err(RestoreFault);
        }
        // SAFETY: the caller gives memory that is valid.
        let memory = unsafe { &*image };
        let address = image.cast::<u8>().addr() as u64;
        let restored = match instruction {
            RestoreInstruction::Xrstor => self.cpu.xrstor(address, memory, rfbm),
            RestoreInstruction::Xrstors => self.cpu.xrstors(address, memory, rfbm),
        };
        restored.map_err(|fault: Fault| {
            let outside = matches!(fault.reason, Reason::Outside(_));
            assert!(!outside, "restored from beyond the area: {fault}");
            RestoreFault
        })
    }

    unsafe fn clear_fp_pointers(&mut self) {
        let x87 = &mut self.cpu.registers_mut().x87;
        (x87.fop, x87.fip, x87.fdp) = (0, 0, 0);
    }

    fn restricted(&mut self, host: &HostXstate) {
        self.host = host.clone();
    }
}

fn le64(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |word| u64::from_le_bytes(*word))
}
