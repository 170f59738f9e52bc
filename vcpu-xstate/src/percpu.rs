//! One physical processor's side of ownership: loading, saving and entering a vCPU.

mod self_test;

use core::fmt;

use crate::area::AreaMemory;
use crate::component::{ComponentIndex, ComponentSet};
use crate::cpuid::{HostXstate, SaveInstruction};
use crate::hw::{Controls, Hardware, RegisterFile, RestoreFault};
use crate::mutants::rule;
use crate::owner::{Home, VcpuXstate};
use crate::switch::{self, Live, Side, Switch, Tag, Version};
use crate::values::BadValue;

/// Number of a physical processor.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CpuId(pub u32);

impl fmt::Debug for CpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cpu {}", self.0)
    }
}

/// The extended state of one physical processor.
pub struct PcpuXstate<H> {
    cpu: CpuId,
    /// The home of a vCPU that is loaded here.
    home: Home,
    registers: RegisterFile<H>,
    /// The vCPU whose state the registers own, which is nowhere else: its
    /// [`Tag::word`].
    owner: u64,
    /// What the registers were last loaded with and, where `owner` is `None`,
    /// still are a copy of.
    copy: Option<Version>,
}

impl<H: Hardware> PcpuXstate<H> {
    /// The processor that executes this. CR4.OSXSAVE is set, CR0.TS clear, and
    /// where there is PKU, CR4.PKE is set.
    pub const fn new(cpu: CpuId, hardware: H, host: HostXstate) -> Self {
        Self {
            cpu,
            home: Home::Registers(cpu),
            registers: RegisterFile::new(hardware, host),
            owner: 0,
            copy: None,
        }
    }

    /// Its number.
    pub const fn cpu(&self) -> CpuId {
        self.cpu
    }

    /// What it has.
    pub const fn host(&self) -> &HostXstate {
        self.registers.host()
    }

    /// Leaves components out of what it offers, before it has run a vCPU.
    pub fn restrict(&mut self, components: ComponentSet) {
        self.registers.restrict(components);
        self.reset();
    }

    /// What its registers hold.
    #[inline]
    pub const fn live(&self) -> Live {
        Live {
            cpu: self.cpu,
            owner: Tag::from_word(self.owner),
            copy: self.copy,
            controls: self.registers.live(),
        }
    }

    /// From one vCPU to another: saves `from`, then puts the state of `to`
    /// into the registers, each only if it is not where it should be already.
    ///
    /// Panics where [`switch::plan`] finds a mistake of the host.
    ///
    /// # Errors
    /// As [`load`](Self::load); `from` is saved.
    #[inline]
    pub fn switch(
        &mut self,
        from: &mut VcpuXstate,
        to: &mut VcpuXstate,
    ) -> Result<(), RestoreFault> {
        if !switch::is_straight(self.owner, Tag::word(Some(from.tag())), to.home()) {
            return self.any_switch(from, to);
        }
        if !self.registers.is_ready(from.area(), to.area()) {
            return self.any_switch(from, to);
        }
        // What is rare is done elsewhere, last: so nothing has to be kept.
        if self.registers.exchange(from.area_mut(), to.area()).is_err() {
            return self.exchange_failed(from);
        }
        if !from.is_whole_when_saved() {
            return self.saved_and_adopted(from, to);
        }
        from.set_home(Home::Memory);
        self.adopt(to);
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn saved_and_adopted(
        &mut self,
        from: &mut VcpuXstate,
        to: &mut VcpuXstate,
    ) -> Result<(), RestoreFault> {
        from.saved();
        self.adopt(to);
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn exchange_failed(&mut self, from: &mut VcpuXstate) -> Result<(), RestoreFault> {
        from.saved();
        self.clear();
        Err(RestoreFault)
    }

    #[cold]
    #[inline(never)]
    fn any_switch(
        &mut self,
        from: &mut VcpuXstate,
        to: &mut VcpuXstate,
    ) -> Result<(), RestoreFault> {
        let plan = self.plan(Some(from), Some(to));
        self.carry_out(&plan, Some(from), Some(to))
    }

    /// Puts the vCPU's state into the registers, unless it is there already.
    /// The vCPU that was loaded before must have been saved.
    ///
    /// # Errors
    /// The processor refused the image (a broken promise of validation): the
    /// registers are INIT, and the vCPU must not run again.
    pub fn load(&mut self, vcpu: &mut VcpuXstate) -> Result<(), RestoreFault> {
        let plan = self.plan(None, Some(vcpu));
        self.carry_out(&plan, None, Some(vcpu))
    }

    /// Brings the vCPU's state to memory if this processor has it. The
    /// registers keep a copy, but not after XSAVES, which changes live state
    /// (UINV, enables of trace and branch records).
    ///
    /// Panics if another processor has it: that one must save it.
    pub fn save(&mut self, vcpu: &mut VcpuXstate) {
        let plan = self.plan(Some(vcpu), None);
        let saved = self.carry_out(&plan, Some(vcpu), None);
        debug_assert!(saved.is_ok(), "a save restores nothing");
    }

    #[inline(always)]
    fn plan(&self, from: Option<&VcpuXstate>, to: Option<&VcpuXstate>) -> Switch {
        let side = |vcpu: &VcpuXstate| Side {
            version: vcpu.version(),
            home: vcpu.home(),
        };
        let (from, to) = (from.map(side), to.map(side));
        let machine = self.registers.machine();
        match switch::plan(machine, &self.live(), from.as_ref(), to.as_ref()) {
            Ok(plan) => plan,
            Err(mistake) => impossible(&mistake),
        }
    }

    /// The mechanism: what the plan says, in its order, and what is then true.
    #[inline(always)]
    fn carry_out(
        &mut self,
        plan: &Switch,
        from: Option<&mut VcpuXstate>,
        to: Option<&mut VcpuXstate>,
    ) -> Result<(), RestoreFault> {
        if plan.host.is_some() {
            self.registers.set_host();
        }
        if let (Some(instruction), Some(from)) = (plan.save, from) {
            self.registers.save(from.area_mut());
            from.saved();
            self.owner = 0;
            if rule!("xsaves-ends-the-copy") && instruction == SaveInstruction::Xsaves {
                self.copy = None;
            }
        }
        if let (true, Some(to)) = (plan.adopt, to) {
            if plan.restore.is_some() {
                // Until it has succeeded, the registers are nobody's.
                self.copy = None;
                self.registers.restore(to.area())?;
            }
            self.adopt(to);
        }
        Ok(())
    }

    /// The registers, which hold its state, are the vCPU's home now. A new
    /// version: whoever has seen an older one, another processor or a prepared
    /// change, is out of date once the vCPU runs.
    #[inline(always)]
    fn adopt(&mut self, vcpu: &mut VcpuXstate) {
        let version = vcpu.next_version();
        vcpu.set_home(self.home);
        self.copy = Some(version);
        self.owner = Tag::word(Some(version.tag));
    }

    /// Puts the guest's XCR0, IA32_XSS, IA32_XFD (with what the hypervisor
    /// arms) and IA32_XFD_ERR into the registers, just before entry. The vCPU
    /// must be loaded.
    ///
    /// While it runs, #NM exits where [`VcpuXstate::intercepts_nm`] says so, and
    /// goes to [`VcpuXstate::first_use`] with what
    /// [`read_xfd_err`](Self::read_xfd_err) gives: IA32_XFD_ERR, which only an
    /// XFD-#NM and an intercepted WRMSR change, is not read after each exit.
    pub fn enter(&mut self, vcpu: &VcpuXstate) {
        assert_eq!(
            vcpu.home(),
            Home::Registers(self.cpu),
            "{vcpu:?} not loaded"
        );
        let controls = Controls {
            xcr0: vcpu.xcr0(),
            xss: vcpu.xss(),
            xfd: if rule!("enter-with-armed-xfd") {
                vcpu.hardware_xfd(self.host()).bits()
            } else {
                vcpu.xfd()
            },
            xfd_err: vcpu.xfd_err(),
        };
        if rule!("guest-values-at-entry") {
            self.registers.set(controls);
        }
    }

    /// What a #NM that was intercepted left in IA32_XFD_ERR.
    pub fn read_xfd_err(&mut self) -> u64 {
        self.registers.read_xfd_err()
    }

    fn assert_owner(&self, vcpu: &VcpuXstate) {
        let owner = Tag::from_word(self.owner);
        assert_eq!(owner, Some(vcpu.tag()), "{vcpu:?} is not in here");
    }

    /// Reads one component of the vCPU, which is loaded, if that takes no save;
    /// says whether it did.
    pub(crate) fn read_component(
        &mut self,
        vcpu: &VcpuXstate,
        component: ComponentIndex,
        out: &mut [u8],
    ) -> bool {
        self.assert_owner(vcpu);
        self.registers.read_component(component, out)
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
        self.assert_owner(vcpu);
        self.registers.write_component(component, bytes)
    }

    /// Gives up a vCPU whose state in the registers is not wanted any more:
    /// its image was replaced. The registers are cleared, as for one that is
    /// gone: no save has taken UINV out of them, and with it live, the next
    /// XRSTORS of an image with UINTR faults.
    pub(crate) fn abandon(&mut self, vcpu: &mut VcpuXstate) {
        self.assert_within_reach(vcpu);
        if vcpu.home() == Home::Registers(self.cpu) {
            self.assert_owner(vcpu);
            vcpu.set_home(Home::Memory);
            self.clear();
        }
    }

    /// Panics if another processor has the vCPU: nothing of it can be replaced
    /// from here.
    pub(crate) fn assert_within_reach(&self, vcpu: &VcpuXstate) {
        let here = [Home::Memory, Home::Registers(self.cpu)];
        assert!(
            here.contains(&vcpu.home()),
            "{vcpu:?} is in another processor"
        );
    }

    /// Ends a vCPU that is in memory or in here. Nothing of it stays in the
    /// registers for the next one (UINV too: with it live, XRSTORS faults), and
    /// its area goes back.
    ///
    /// Panics if another processor has it: it ends there. Panics too if the
    /// registers own another vCPU's state, which would be lost.
    pub fn discard(&mut self, mut vcpu: VcpuXstate, memory: &mut impl AreaMemory) {
        self.abandon(&mut vcpu);
        self.discard_gone(vcpu.number());
        vcpu.end(memory);
    }

    /// As [`discard`](Self::discard), where the vCPU itself, that with this
    /// number, went before its state was out of the registers. Where they own
    /// nobody's state, whatever copy they have is cleared.
    ///
    /// Panics if they own the state of another vCPU, which would be lost.
    pub fn discard_gone(&mut self, number: u64) {
        let tag = Tag::word(Some(Tag::new(number)));
        assert!(
            self.owner == 0 || self.owner == tag,
            "the registers are another vCPU's than {number:#x}"
        );
        self.clear();
    }

    /// The registers are nobody's, and INIT.
    fn clear(&mut self) {
        self.owner = 0;
        self.copy = None;
        if rule!("discard-clears-registers") {
            self.registers.clear();
        }
    }

    /// The processor has come up (boot, hotplug, resume): nothing that was
    /// known of its registers holds.
    pub fn reset(&mut self) {
        assert_eq!(self.owner, 0, "a vCPU's state was lost");
        self.copy = None;
        if rule!("xen-f7f4a52392-stale-controls") {
            self.registers.forget();
        }
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

/// A switch that cannot be planned is a broken invariant of the host.
#[cold]
#[inline(never)]
fn impossible(mistake: &switch::Mistake) -> ! {
    panic!("{mistake}")
}
