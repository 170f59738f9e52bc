//! One physical processor's side of ownership: loading, saving and entering a vCPU.

use core::fmt;

use crate::area::{Area, AreaMemory, OutOfMemory};
use crate::component::{ComponentIndex, ComponentSet};
use crate::cpuid::{HostXstate, SaveInstruction};
use crate::hw::{Controls, Hardware, RegisterFile, RestoreFault};
use crate::owner::{Home, VcpuXstate};
use crate::selftest;
use crate::values::BadValue;

/// Number of a physical processor.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CpuId(pub u32);

impl fmt::Debug for CpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cpu {}", self.0)
    }
}

/// Which version of which vCPU's state: the proof that a restore can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub tag: u64,
    pub generation: u64,
}

/// The extended state of one physical processor.
pub struct PcpuXstate<H> {
    cpu: CpuId,
    host: HostXstate,
    registers: RegisterFile<H>,
    /// The vCPU whose state the registers own: it is nowhere else.
    owner: Option<u64>,
    /// What the registers were last loaded with and, where `owner` is `None`,
    /// still are a copy of.
    last_loaded: Option<Version>,
}

impl<H: Hardware> PcpuXstate<H> {
    /// The processor that executes this. CR4.OSXSAVE is set, CR0.TS clear.
    pub const fn new(cpu: CpuId, hardware: H, host: HostXstate) -> Self {
        Self {
            cpu,
            host,
            registers: RegisterFile::new(hardware),
            owner: None,
            last_loaded: None,
        }
    }

    /// Its number.
    pub const fn cpu(&self) -> CpuId {
        self.cpu
    }

    /// What it has.
    pub const fn host(&self) -> &HostXstate {
        &self.host
    }

    /// Leaves components out of what it offers, before it has run a vCPU.
    pub fn restrict(&mut self, components: ComponentSet) {
        self.host.restrict(components);
        self.reset();
    }

    /// Puts the vCPU's state into the registers, unless it is there already.
    /// The vCPU that was loaded before must have been saved.
    ///
    /// # Errors
    /// The processor refused the image (a broken promise of validation): the
    /// registers are INIT, and the vCPU must not run again.
    pub fn load(&mut self, vcpu: &mut VcpuXstate) -> Result<(), RestoreFault> {
        match vcpu.home() {
            Home::Registers(cpu) => {
                assert_eq!(cpu, self.cpu, "{vcpu:?} was not saved there");
                assert_eq!(self.owner, Some(vcpu.tag()), "{vcpu:?} is not in here");
                return Ok(());
            }
            Home::Memory => {}
        }
        assert_eq!(self.owner, None, "the last vCPU was not saved");
        if self.last_loaded != Some(vcpu.version()) {
            self.last_loaded = None;
            self.registers.restore(&self.host, vcpu.area())?;
        }
        // A new version: whoever has seen an older one, another processor or a
        // prepared change, is out of date once the vCPU runs.
        self.last_loaded = Some(vcpu.next_version());
        self.owner = Some(vcpu.tag());
        vcpu.set_home(Home::Registers(self.cpu));
        Ok(())
    }

    /// Brings the vCPU's state to memory if this processor has it. The
    /// registers keep a copy, but not after XSAVES, which changes live state
    /// (UINV, enables of trace and branch records).
    ///
    /// Panics if another processor has it: that one must save it.
    pub fn save(&mut self, vcpu: &mut VcpuXstate) {
        match vcpu.home() {
            Home::Memory => return,
            Home::Registers(cpu) => assert_eq!(cpu, self.cpu, "{vcpu:?} is in another processor"),
        }
        assert_eq!(self.owner, Some(vcpu.tag()), "{vcpu:?} is not in here");
        self.registers.save(&self.host, vcpu.area_mut());
        vcpu.saved();
        self.owner = None;
        if self.host.save_instruction() == SaveInstruction::Xsaves {
            self.last_loaded = None;
        }
    }

    /// Puts the guest's XCR0, IA32_XSS, IA32_XFD (with what the hypervisor
    /// arms) and IA32_XFD_ERR into the registers, just before entry. The vCPU
    /// must be loaded.
    pub fn enter(&mut self, vcpu: &VcpuXstate) {
        assert_eq!(
            vcpu.home(),
            Home::Registers(self.cpu),
            "{vcpu:?} not loaded"
        );
        let controls = Controls {
            xcr0: vcpu.xcr0(),
            xss: vcpu.xss(),
            xfd: vcpu.hardware_xfd(&self.host).bits(),
            xfd_err: vcpu.xfd_err(),
        };
        self.registers.set(&self.host, controls);
    }

    /// What a #NM that was intercepted left in IA32_XFD_ERR.
    pub fn read_xfd_err(&mut self) -> u64 {
        self.registers.read_xfd_err(&self.host)
    }

    /// Reads one component of the vCPU, which is loaded, if that takes no save;
    /// says whether it did.
    pub(crate) fn read_component(
        &mut self,
        vcpu: &VcpuXstate,
        component: ComponentIndex,
        out: &mut [u8],
    ) -> bool {
        assert_eq!(self.owner, Some(vcpu.tag()), "{vcpu:?} is not in here");
        self.registers.read_component(&self.host, component, out)
    }

    /// Writes one component of the vCPU, which is loaded, where
    /// [`read_component`](Self::read_component) could read it. What the
    /// registers hold is still the vCPU's state, and the only one.
    pub(crate) fn write_component(
        &mut self,
        vcpu: &VcpuXstate,
        component: ComponentIndex,
        bytes: &[u8],
    ) -> Result<(), BadValue> {
        assert_eq!(self.owner, Some(vcpu.tag()), "{vcpu:?} is not in here");
        self.registers.write_component(&self.host, component, bytes)
    }

    /// Gives up a vCPU whose state in the registers is not wanted any more:
    /// its image was replaced. The registers are cleared by the next load.
    pub(crate) fn abandon(&mut self, vcpu: &mut VcpuXstate) {
        if vcpu.home() == Home::Registers(self.cpu) {
            self.owner = None;
            self.last_loaded = None;
            vcpu.set_home(Home::Memory);
        }
        assert_eq!(
            vcpu.home(),
            Home::Memory,
            "{vcpu:?} is in another processor"
        );
    }

    /// Clears the registers: a vCPU that ran here is gone for good. Nothing of
    /// it stays for the next one (UINV too: with it live, XRSTORS faults).
    pub fn discard(&mut self) {
        self.owner = None;
        self.last_loaded = None;
        self.registers.clear(&self.host);
    }

    /// The processor has come up (boot, hotplug, resume): nothing that was
    /// known of its registers holds.
    pub fn reset(&mut self) {
        assert_eq!(self.owner, None, "a vCPU's state was lost");
        self.last_loaded = None;
        self.registers.forget();
    }

    /// Whether each offered component survives a restore and a save of a
    /// pattern, by itself. What does not is left out of what this processor
    /// offers. No vCPU may be loaded; the registers are INIT afterwards.
    ///
    /// # Errors
    /// No memory for the test image.
    pub fn self_test(
        &mut self,
        memory: &mut impl AreaMemory,
    ) -> Result<selftest::Report, OutOfMemory> {
        assert_eq!(self.owner, None, "a vCPU is loaded");
        self.last_loaded = None;
        let geometry = self.host.geometry().clone();
        let mask = self.host.offered();
        let format = self.host.format();
        // Two areas: a save to where the last restore came from may leave out
        // what did not change, and the test would compare memory with itself.
        let mut from = Area::new(&geometry, format, mask, memory)?;
        let mut to = match Area::new(&geometry, format, mask, memory) {
            Ok(area) => area,
            Err(error) => {
                from.release(memory);
                return Err(error);
            }
        };
        let mut report = selftest::Report::default();
        // Which contents of a component without a name are legal is not known.
        for component in mask.intersection(ComponentSet::NAMED) {
            selftest::put_pattern(&mut from, &geometry, component, 0x5a);
            selftest::scramble(&mut to);
            let survives = self.registers.restore(&self.host, &from).is_ok() && {
                self.registers.save(&self.host, &mut to);
                selftest::same(component, &from.image(&geometry), &to.image(&geometry))
            };
            report.add(component, survives);
        }
        from.release(memory);
        to.release(memory);
        self.registers.clear(&self.host);
        self.restrict(report.failed());
        Ok(report)
    }

    /// What executes the instructions.
    pub const fn hardware(&self) -> &H {
        self.registers.hardware()
    }

    /// What executes the instructions, for changing registers as a guest that
    /// runs here would. Whoever changes control registers through it has to
    /// [`reset`](Self::reset) this processor.
    pub const fn hardware_mut(&mut self) -> &mut H {
        self.registers.hardware_mut()
    }
}
