//! The one setter of a processor's extended-state registers, safe to use.

use super::{ComponentMsr, Exchange, Hardware, RestoreFault};
use crate::area::{Area, Block};
use crate::component::{ComponentIndex, ComponentSet};
use crate::cpuid::HostXstate;
use crate::header::XsaveHeader;
use crate::layout::{Form, LEGACY_BYTES};
use crate::legacy::LegacyRegion;
use crate::mutants::rule;
use crate::switch::{self, LiveControls, Machine, Writes};
use crate::values::{self, BadValue};
use zerocopy::IntoBytes;

/// The control registers of extended state that neither VMRUN nor VM entry switches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Controls {
    /// XCR0.
    pub xcr0: u64,
    /// IA32_XSS, where there is one.
    pub xss: u64,
    /// IA32_XFD, where there is one.
    pub xfd: u64,
    /// IA32_XFD_ERR, where there is one.
    pub xfd_err: u64,
}

/// A processor's extended-state registers.
pub struct RegisterFile<H> {
    hardware: H,
    host: HostXstate,
    machine: Machine,
    live: LiveControls,
    /// [`Area::label`] of the areas between which state can move at once;
    /// 0, which no area has, where it cannot.
    ready_for: u64,
    /// How it then moves.
    exchange: Exchange,
}

impl<H: Hardware> RegisterFile<H> {
    /// The registers of the processor that runs this, which has what `host`
    /// says: what [`Silicon::new`](super::Silicon::new) was promised, and more
    /// than any other safe function of this type relies on.
    pub const fn new(hardware: H, host: HostXstate) -> Self {
        Self {
            hardware,
            machine: Machine::of(&host),
            host,
            live: LiveControls::Unknown,
            ready_for: 0,
            exchange: Exchange::User,
        }
    }

    /// What the control registers hold from now on.
    fn now_live(&mut self, live: LiveControls) {
        self.live = live;
        match switch::at_once(&self.machine, &live) {
            Some(exchange) => {
                self.exchange = exchange;
                self.ready_for = self.host.label();
            }
            None => self.ready_for = 0,
        }
    }

    /// Forgets what the control registers hold: the processor has come up.
    pub fn forget(&mut self) {
        self.now_live(LiveControls::Unknown);
    }

    /// Leaves components out of what is offered.
    pub fn restrict(&mut self, components: ComponentSet) {
        self.host.restrict(components);
        self.machine = Machine::of(&self.host);
        self.hardware.restricted(&self.host);
        self.forget();
    }

    /// What the processor has.
    pub const fn host(&self) -> &HostXstate {
        &self.host
    }

    /// What of it a switch asks for.
    pub const fn machine(&self) -> &Machine {
        &self.machine
    }

    /// What the control registers hold.
    pub const fn live(&self) -> LiveControls {
        self.live
    }

    /// The implementation underneath.
    pub const fn hardware(&self) -> &H {
        &self.hardware
    }

    /// The implementation underneath, for what changes registers as a guest
    /// does. Control registers changed through it need [`forget`](Self::forget).
    pub const fn hardware_mut(&mut self) -> &mut H {
        &mut self.hardware
    }

    /// Puts `wanted` into the control registers; writes what differs.
    ///
    /// Panics where `wanted` exceeds what `host` offers: no guest's value gets
    /// here without a verdict, so this is a broken invariant of the host.
    pub fn set(&mut self, wanted: Controls) {
        let capable = self.host.geometry().xfd_capable().bits();
        assert!(
            wanted.xcr0 & !self.machine.xcr0 == 0
                && wanted.xss & !self.machine.xss == 0
                && (wanted.xfd | wanted.xfd_err) & !capable == 0,
            "control registers beyond the host's: {wanted:x?}"
        );
        let live = if rule!("controls-written-where-they-differ") {
            self.live
        } else {
            LiveControls::Unknown
        };
        self.write(switch::writes(&self.machine, &live, &wanted));
        self.now_live(LiveControls::after(&self.machine, wanted));
    }

    /// Makes live what is the host's: everything offered, nothing disabled.
    /// State is never saved or restored under a guest's own values: what the
    /// guest disabled may still be live, and XRSTOR would fault on it.
    pub fn set_host(&mut self) {
        let known = self.live.values(&self.machine);
        let xfd_err = known.map_or(0, |live| live.xfd_err);
        let mut writes = switch::host_writes(&self.machine, &self.live);
        if !rule!("xfd-0-while-state-moves") {
            writes.xfd = None;
        }
        self.write(writes);
        self.now_live(LiveControls::Host { xfd_err });
    }

    fn write(&mut self, writes: Writes) {
        // SAFETY: the two callers bound each value by what the processor
        // supports, XCR0 passed `xcr0_verdict` or is the host's own, and the
        // host is compiled without vector registers. XSS and XFD are written
        // only where CPUID lists them.
        unsafe {
            if let Some(value) = writes.xcr0 {
                self.hardware.write_xcr0(value);
            }
            if let Some(value) = writes.xss {
                self.hardware.write_xss(value);
            }
            if let Some(value) = writes.xfd {
                self.hardware.write_xfd(value);
            }
            if let Some(value) = writes.xfd_err {
                self.hardware.write_xfd_err(value);
            }
        }
    }

    /// What a #NM left in IA32_XFD_ERR; 0 where there is none. The register is
    /// the guest's from here on: [`set`](Self::set) writes it anew.
    pub fn read_xfd_err(&mut self) -> u64 {
        if !self.machine.has_xfd {
            return 0;
        }
        // SAFETY: the processor has XFD, and with it the register.
        let value = unsafe { self.hardware.read_xfd_err() };
        match &mut self.live {
            LiveControls::Unknown => {}
            _ if !rule!("xfd-err-read-is-remembered") => {}
            LiveControls::Host { xfd_err } => *xfd_err = value,
            LiveControls::Guest(live) => live.xfd_err = value,
        }
        value
    }

    /// Reads the defined bytes of one component into `out`, if it has an
    /// instruction or MSRs of its own; says whether it has. CR4.PKE is set
    /// where there is PKU.
    pub fn read_component(&mut self, component: ComponentIndex, out: &mut [u8]) -> bool {
        if !has_own_access(&self.host, component) {
            return false;
        }
        if component == ComponentIndex::PKRU {
            // SAFETY: PKRU is offered, so the processor has PKU.
            let value = unsafe { self.hardware.read_pkru() };
            out.copy_from_slice(&value.to_le_bytes());
        } else {
            for (word, msr) in out.chunks_exact_mut(8).zip(ComponentMsr::of(component)) {
                // SAFETY: the component is offered, so its MSRs are there.
                let value = unsafe { self.hardware.read_msr(*msr) };
                word.copy_from_slice(&value.to_le_bytes());
            }
        }
        true
    }

    /// Writes a component that [`read_component`](Self::read_component) reads.
    /// Panics for others.
    ///
    /// # Errors
    /// The processor would fault on these contents; nothing was written.
    pub fn write_component(
        &mut self,
        component: ComponentIndex,
        bytes: &[u8],
    ) -> Result<(), BadValue> {
        assert!(
            has_own_access(&self.host, component),
            "{component} needs a save"
        );
        if rule!("update-judged") {
            values::check(component, bytes, &self.host.limits())?;
        }
        if component == ComponentIndex::PKRU {
            let value = bytes.first_chunk().map_or(0, |b| u32::from_le_bytes(*b));
            // SAFETY: PKRU is offered, so the processor has PKU. The host maps
            // no user pages.
            unsafe { self.hardware.write_pkru(value) };
        } else {
            let (words, _) = bytes.as_chunks::<8>();
            for (word, msr) in words.iter().zip(ComponentMsr::of(component)) {
                let value = u64::from_le_bytes(*word);
                // SAFETY: the component is offered, so its MSRs are there, and
                // `values::check` asks what WRMSR asks. Nothing of the host
                // uses them.
                unsafe { self.hardware.write_msr(*msr, value) };
            }
        }
        Ok(())
    }

    /// Saves the registers into `area`: all components that have room there.
    #[inline]
    pub fn save(&mut self, area: &mut Area) {
        self.make_ready(area);
        // Checked or the same: nobody has to check it here again.
        area.set_label(self.host.label());
        let rfbm = area.mask().bits();
        let image = area.start_mut();
        // SAFETY: `Block` aligns to 64. The area has this machine's label, or
        // was measured: it has room for the image of its mask in the form that
        // the instruction writes, and always holds a header of that form. XCR0 |
        // XSS is what is offered, so RFBM selects nothing beyond. What `host`
        // says is true, by the contract of who made `hardware`.
        unsafe { self.hardware.save(self.machine.save, image, rfbm) };
        if rule!("stale-fp-pointers-in-an-image") && self.machine.leaks_fp_pointers {
            area.clear_stale_fp_pointers();
        }
    }

    /// Restores the registers from `area`; what it does not hold becomes INIT.
    ///
    /// # Errors
    /// The processor refused the image; everything is INIT now.
    #[inline]
    pub fn restore(&mut self, area: &Area) -> Result<(), RestoreFault> {
        self.make_ready(area);
        // SAFETY: `Block` aligns to 64. The area has this machine's label, or
        // was measured: it is as long as its header says.
        let restored = unsafe { self.restore_from(area.start()) };
        if rule!("failed-restore-clears") && restored.is_err() {
            self.clear();
        }
        restored
    }

    /// Whether state can move at once between these areas.
    #[inline(always)]
    pub fn is_ready(&self, from: &Area, to: &Area) -> bool {
        // One branch for both.
        (from.label() ^ self.ready_for) | (to.label() ^ self.ready_for) == 0
    }

    /// Saves to `from`, then restores `to`, between which state can move at
    /// once ([`is_ready`](Self::is_ready)).
    ///
    /// # Errors
    /// The processor refused the image of `to`: `from` is saved, and the
    /// registers are to be [cleared](Self::clear).
    #[inline(always)]
    pub fn exchange(&mut self, from: &mut Area, to: &Area) -> Result<(), RestoreFault> {
        assert!(self.is_ready(from, to), "areas of another machine");
        let rfbm = from.mask().bits();
        let (image, to) = (from.start_mut(), to.start());
        // SAFETY: `Block` aligns to 64. Both areas have this machine's label,
        // which only copies of one geometry share, so `from` has room for the image of its mask, `to` is as long
        // as its header says, and both hold headers of the compacted form. The
        // host's own control registers are live, so RFBM selects nothing
        // beyond. The processor has the instructions, by `switch::at_once`.
        unsafe { self.hardware.exchange(self.exchange, image, rfbm, to) }
    }

    /// Makes every component INIT.
    #[cold]
    pub fn clear(&mut self) {
        let header = match self.host.format() {
            Form::Standard => XsaveHeader::standard(ComponentSet::EMPTY),
            Form::Compacted => XsaveHeader::compacted(ComponentSet::EMPTY, ComponentSet::LEGACY),
        };
        let mut blocks = [Block::ZERO; 9];
        let bytes = blocks.as_mut_bytes();
        bytes[..LEGACY_BYTES].copy_from_slice(LegacyRegion::INIT.as_bytes());
        bytes[LEGACY_BYTES..].copy_from_slice(header.as_bytes());
        self.set_host();
        // SAFETY: nine blocks are aligned, and hold what the header says:
        // legacy region and header.
        let cleared = unsafe { self.restore_from(blocks.as_bytes()) };
        assert!(cleared.is_ok(), "the INIT image was refused");
    }

    /// State can move between the registers and `area`.
    #[inline]
    fn make_ready(&mut self, area: &Area) {
        if rule!("area-of-this-machine") && area.label() != self.host.label() {
            self.check(area);
        }
        if rule!("linux-1811d979c7-guest-xcr0-live")
            && !matches!(self.live, LiveControls::Host { .. })
        {
            self.set_host();
        }
    }

    /// Panics where `area` is not of this machine's layout; for one whose label
    /// does not say so, because its host was read another time.
    #[cold]
    #[inline(never)]
    fn check(&self, area: &Area) {
        // The first says that the contents are where this machine has them, as
        // well as a hash can. The second is what keeps a save within the buffer,
        // and a restore, since no header of an area exceeds its mask.
        let (form, mask) = (self.host.format(), area.mask());
        assert!(
            area.layout_id() == self.host.layout_id()
                && area.format() == form
                && area.size_bytes() >= self.host.geometry().image_size(form, mask),
            "an area of another machine"
        );
    }

    /// XRSTOR or XRSTORS with everything in RFBM.
    ///
    /// # Safety
    /// `image` is aligned to 64, and as long as its header says. The host's own
    /// control registers are live.
    #[inline]
    unsafe fn restore_from(&mut self, image: *const [u8]) -> Result<(), RestoreFault> {
        // What the image does not hold becomes INIT, not the last owner's.
        let rfbm = if rule!("xen-0129e1ee0d-restore-in-full") {
            u64::MAX
        } else {
            ComponentSet::LEGACY.bits()
        };
        // SAFETY: as the caller promises. The last owner's x87 state is saved
        // or abandoned by now, and the host keeps CR0.TS and CR0.EM clear.
        unsafe {
            if rule!("xsa-52-fip-fdp-leak") && self.machine.leaks_fp_pointers {
                self.hardware.clear_fp_pointers();
            }
            self.hardware.restore(self.machine.restore(), image, rfbm)
        }
    }
}

/// Whether a component can be read and written alone. The shadow-stack
/// pointers are there only with shadow stacks, the component without, too.
fn has_own_access(host: &HostXstate, component: ComponentIndex) -> bool {
    let own = match component {
        ComponentIndex::PKRU => true,
        ComponentIndex::CET_U | ComponentIndex::CET_S => host.limits().shadow_stacks,
        _ => !ComponentMsr::of(component).is_empty(),
    };
    own && host.offered().has(component)
}

#[cfg(test)]
#[path = "registers_tests.rs"]
mod tests;
