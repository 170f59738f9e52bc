//! The owner of one vCPU's extended state: the one type that knows where it is and how large.
//!
//! Invariants:
//!
//! 1. **One home.** [`Home`] says where the state is: in the registers of one
//!    processor, or in the area. While it is in registers, the area is stale
//!    and nothing reads it. Whatever reads or edits the area first brings the
//!    state home ([`PcpuXstate::save`]).
//! 2. **A version names a state.** Every load and every edit of the area
//!    counts the generation up. A processor that still has version *(tag,
//!    generation)* in its registers has this state, bit for bit; so a restore
//!    is left out exactly where that is so, and a copy that an edit or another
//!    processor has outdated never matches. Tags are never used twice.
//! 3. **policy ⊇ area ⊇ accum**, and what is enabled in XCR0 or IA32_XSS is in
//!    accum, but for XFD-capable components, which are armed where they have no
//!    room: the hardware's XFD then traps their first use.
//! 4. **The area is restorable.** It holds only what a processor of this host
//!    wrote, or what `validate` passed.
//! 5. **All or nothing.** Whatever needs memory takes it first; an operation
//!    that fails for want of it has changed nothing but the home.
//!
//! Whoever runs a guest calls `load` and `enter` before every entry: both do
//! nothing where nothing has to be done. What carries out a guest's write may
//! bring the state home, also where it fails.

use core::fmt;

use crate::area::{Area, AreaMemory, OutOfMemory};
use crate::component::ComponentSet;
use crate::cpuid::HostXstate;
use crate::error::broken_rules;
use crate::hw::Hardware;
use crate::masks::{XstatePolicy, needs_room};
use crate::mutants::rule;
use crate::percpu::PcpuXstate;
use crate::switch::{Tag, Version};
use crate::xcr0::{Xcr0, Xcr0Error, xcr0_verdict};
use crate::xfd::Xfd;
use crate::xss::{Xss, XssError, xss_verdict};

pub use crate::status::{ComponentStatus, Use};
pub use crate::switch::Home;
pub use crate::transit::{ExportError, Exported, ImportError, NativeError};
pub use crate::xfd::FirstUse;

/// Why XSETBV of a guest cannot be carried out now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XsetbvError {
    /// The guest gets #GP(0).
    Fault(Xcr0Error),
    /// There is no memory for what it enables; nothing changed. The vCPU waits
    /// before its instruction until there is.
    NeedsMemory(OutOfMemory),
}

broken_rules!(XsetbvError,
    Self::Fault(e) => (e.rule(), e.code(), e.seen(), e.allowed()),
    Self::NeedsMemory(e) => (OutOfMemory::RULE, OutOfMemory::CODE, e.bytes as u64, 0),
);

/// Why a write of IA32_XSS cannot be carried out now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteXssError {
    /// The guest gets #GP(0).
    Fault(XssError),
    /// As for XSETBV.
    NeedsMemory(OutOfMemory),
}

broken_rules!(WriteXssError,
    Self::Fault(e) => (e.rule(), e.code(), e.seen(), e.allowed()),
    Self::NeedsMemory(e) => (OutOfMemory::RULE, OutOfMemory::CODE, e.bytes as u64, 0),
);

/// The extended state of one vCPU.
pub struct VcpuXstate {
    pub(crate) tag: Tag,
    pub(crate) policy: XstatePolicy,
    pub(crate) xcr0: Xcr0,
    pub(crate) xss: Xss,
    pub(crate) xfd: Xfd,
    pub(crate) xfd_err: Xfd,
    pub(crate) accum: ComponentSet,
    pub(crate) area: Area,
    pub(crate) home: Home,
    pub(crate) generation: u64,
}

impl VcpuXstate {
    /// The state of a vCPU after reset. `tag` was never used before on this
    /// machine, and is not `u64::MAX`. A policy beyond what `host` offers is cut to it.
    ///
    /// # Errors
    /// No memory for its area.
    pub fn new(
        tag: u64,
        policy: &XstatePolicy,
        host: &HostXstate,
        memory: &mut impl AreaMemory,
    ) -> Result<Self, OutOfMemory> {
        let policy = policy.within(host.offered());
        let accum = policy.initial_accum(host.geometry().supervisor());
        // Room for no more than the policy: what else is live on the host (its PKRU)
        // would be saved with the guest's state.
        let mask = if rule!("linux-ad856280dd-area-within-policy") {
            policy.area(accum)
        } else {
            host.offered()
        };
        // Not what the policy allows (ACRN 4430).
        let (xcr0, xss) = if rule!("acrn-4430-values-after-reset") {
            (Xcr0::RESET, Xss::RESET)
        } else {
            let supervisor = policy.mask.intersection(host.geometry().supervisor());
            let user = policy.mask.difference(supervisor);
            (
                xcr0_verdict(user.bits(), 0, user).unwrap_or(Xcr0::RESET),
                xss_verdict(supervisor.bits(), supervisor).unwrap_or(Xss::RESET),
            )
        };
        Ok(Self {
            tag: Tag::new(tag),
            policy,
            xcr0,
            xss,
            xfd: Xfd::RESET,
            xfd_err: Xfd::RESET,
            accum,
            area: Area::new(host.geometry(), host.format(), mask, memory)?,
            home: Home::Memory,
            generation: 0,
        })
    }

    /// Gives the area back.
    ///
    /// # Errors
    /// The vCPU is still in a processor's registers, and ends by
    /// [`PcpuXstate::discard`] there; here it is back.
    #[expect(clippy::result_large_err, reason = "what is refused is given back")]
    pub fn release(self, memory: &mut impl AreaMemory) -> Result<(), Self> {
        if self.home != Home::Memory {
            return Err(self);
        }
        self.end(memory);
        Ok(())
    }

    pub(crate) fn end(self, memory: &mut impl AreaMemory) {
        self.area.release(memory);
    }

    /// The number that it was made with.
    pub const fn number(&self) -> u64 {
        self.tag.number()
    }

    /// XCR0 as the guest sees it.
    pub const fn xcr0(&self) -> u64 {
        self.xcr0.bits()
    }

    /// IA32_XSS as the guest sees it.
    pub const fn xss(&self) -> u64 {
        self.xss.bits()
    }

    /// IA32_XFD as the guest sees it.
    pub const fn xfd(&self) -> u64 {
        self.xfd.bits()
    }

    /// IA32_XFD_ERR as the guest sees it.
    pub const fn xfd_err(&self) -> u64 {
        self.xfd_err.bits()
    }

    /// What it may ever use.
    pub const fn policy(&self) -> &XstatePolicy {
        &self.policy
    }

    /// What may hold state by now.
    pub const fn accum(&self) -> ComponentSet {
        self.accum
    }

    /// What has room in its area.
    pub const fn area_mask(&self) -> ComponentSet {
        self.area.mask()
    }

    /// Bytes of its area.
    pub const fn area_size_bytes(&self) -> usize {
        self.area.size_bytes()
    }

    /// Where its state is.
    pub const fn home(&self) -> Home {
        self.home
    }

    /// What the guest has enabled in XCR0 or IA32_XSS.
    pub const fn enabled(&self) -> ComponentSet {
        self.xcr0.components().union(self.xss.components())
    }

    /// Carries out XSETBV of XCR0 by the guest at privilege level `cpl`. Where
    /// `value` enables what has no room yet, the area grows first.
    ///
    /// # Errors
    /// #GP for the guest, or no memory; nothing changed.
    pub fn set_xcr0<H: Hardware>(
        &mut self,
        value: u64,
        cpl: u8,
        cpu: &mut PcpuXstate<H>,
        memory: &mut impl AreaMemory,
    ) -> Result<(), XsetbvError> {
        let user = self
            .policy
            .mask
            .difference(cpu.host().geometry().supervisor());
        let verdict = if self.policy.xsave || !rule!("xsetbv-without-xsave") {
            xcr0_verdict(value, cpl, user)
        } else {
            Err(Xcr0Error::WithoutXsave(value))
        };
        let xcr0 = verdict.map_err(XsetbvError::Fault)?;
        self.give_room(xcr0.components(), cpu, memory)
            .map_err(XsetbvError::NeedsMemory)?;
        self.xcr0 = xcr0;
        Ok(())
    }

    /// Carries out a write of IA32_XSS by the guest; as for XCR0.
    ///
    /// # Errors
    /// #GP for the guest, or no memory; nothing changed.
    pub fn set_xss<H: Hardware>(
        &mut self,
        value: u64,
        cpu: &mut PcpuXstate<H>,
        memory: &mut impl AreaMemory,
    ) -> Result<(), WriteXssError> {
        let supervisor = cpu.host().geometry().supervisor();
        let allowed = self.policy.mask.intersection(supervisor);
        let xss = xss_verdict(value, allowed).map_err(WriteXssError::Fault)?;
        self.give_room(xss.components(), cpu, memory)
            .map_err(WriteXssError::NeedsMemory)?;
        self.xss = xss;
        Ok(())
    }

    /// Room for what is about to be enabled.
    fn give_room<H: Hardware>(
        &mut self,
        enabled: ComponentSet,
        cpu: &mut PcpuXstate<H>,
        memory: &mut impl AreaMemory,
    ) -> Result<(), OutOfMemory> {
        let armable = cpu.host().geometry().xfd_capable();
        let accum = self.accum.union(needs_room(enabled, armable));
        if !rule!("grow-before-enabling") {
            return Ok(());
        }
        self.grow(accum, cpu, memory)
    }

    pub(crate) fn grow<H: Hardware>(
        &mut self,
        accum: ComponentSet,
        cpu: &mut PcpuXstate<H>,
        memory: &mut impl AreaMemory,
    ) -> Result<(), OutOfMemory> {
        let mask = self.policy.area(accum);
        if mask != self.area.mask() {
            if rule!("grow-saves-first") {
                cpu.save(self);
            }
            let larger = self.area.relaid(cpu.host().geometry(), mask, memory)?;
            self.replace_area(larger, memory);
        }
        self.accum = accum;
        Ok(())
    }

    /// A new buffer is a new image: no processor's copy may skip its restore,
    /// because the processor's notion of what changed since belongs to the old
    /// address, which may be given to anyone next.
    pub(crate) fn replace_area(&mut self, area: Area, memory: &mut impl AreaMemory) {
        let old = core::mem::replace(&mut self.area, area);
        old.release(memory);
        if rule!("resize-new-generation") {
            self.generation += 1;
        }
    }

    pub(crate) const fn tag(&self) -> Tag {
        self.tag
    }

    pub(crate) const fn version(&self) -> Version {
        Version {
            tag: self.tag,
            generation: self.generation,
        }
    }

    #[inline]
    pub(crate) fn next_version(&mut self) -> Version {
        // At a load each nanosecond it wraps after six hundred years.
        if rule!("load-new-generation") {
            self.generation = self.generation.wrapping_add(1);
        }
        self.version()
    }

    pub(crate) const fn area(&self) -> &Area {
        &self.area
    }

    pub(crate) const fn area_mut(&mut self) -> &mut Area {
        &mut self.area
    }

    pub(crate) const fn set_home(&mut self, home: Home) {
        self.home = home;
    }

    /// The area holds the state now. What the guest's XFD disables is INIT in
    /// it: no image has XSTATE_BV & XFD (Linux b45f721775).
    pub(crate) fn saved(&mut self) {
        self.home = Home::Memory;
        if rule!("linux-b45f721775-xstate-bv-under-xfd") && !self.is_whole_when_saved() {
            self.forget_disabled();
        }
    }

    /// Whether a save's image stays as it is: the guest disables nothing by XFD.
    #[inline(always)]
    pub(crate) const fn is_whole_when_saved(&self) -> bool {
        self.xfd.components().is_empty()
    }
}

impl fmt::Debug for VcpuXstate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "extended state of vCPU {:#x} ({:?}, generation {}, {:?})",
            self.tag.number(),
            self.home,
            self.generation,
            self.area
        )
    }
}

#[cfg(test)]
#[path = "owner_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "exhaustion_tests.rs"]
mod exhaustion_tests;

#[cfg(test)]
#[path = "import_tests.rs"]
mod import_tests;

#[cfg(test)]
#[path = "resize_tests.rs"]
mod resize_tests;

#[cfg(test)]
#[path = "update_tests.rs"]
mod update_tests;

#[cfg(test)]
#[path = "update/image_tests.rs"]
mod update_image_tests;

#[cfg(test)]
#[path = "world_tests.rs"]
mod world_tests;
