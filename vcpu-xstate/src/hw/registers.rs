//! The one setter of a processor's extended-state registers, safe to use.

use super::{ComponentMsr, Hardware, RestoreFault, RestoreInstruction};
use crate::area::{Area, Block};
use crate::component::{ComponentIndex, ComponentSet};
use crate::cpuid::{HostXstate, SaveInstruction};
use crate::header::XsaveHeader;
use crate::layout::{Form, LEGACY_BYTES};
use crate::legacy::LegacyRegion;
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
    /// What the control registers hold; `None` until written, because another
    /// system, or this one before a suspend, may have left anything there.
    live: Option<Controls>,
}

impl<H: Hardware> RegisterFile<H> {
    /// The registers of the processor that runs this.
    pub const fn new(hardware: H) -> Self {
        Self {
            hardware,
            live: None,
        }
    }

    /// Forgets what the control registers hold: the processor has come up.
    pub fn forget(&mut self) {
        self.live = None;
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
    pub fn set(&mut self, host: &HostXstate, wanted: Controls) {
        let capable = host.geometry().xfd_capable().bits();
        assert!(
            wanted.xcr0 & !host.user().bits() == 0
                && wanted.xss & !host.supervisor().bits() == 0
                && (wanted.xfd | wanted.xfd_err) & !capable == 0,
            "control registers beyond the host's: {wanted:x?}"
        );
        let has = host.instructions();
        let live = self.live;
        let differs =
            |value: fn(&Controls) -> u64| live.is_none_or(|live| value(&live) != value(&wanted));
        // SAFETY: the assertion above bounds each value by what the processor
        // supports, XCR0 passed `xcr0_verdict` or is the host's own, and the
        // host is compiled without vector registers. XSS and XFD are written
        // only where CPUID lists them.
        unsafe {
            if differs(|c| c.xcr0) {
                self.hardware.write_xcr0(wanted.xcr0);
            }
            if has.xsaves && differs(|c| c.xss) {
                self.hardware.write_xss(wanted.xss);
            }
            if has.xfd && differs(|c| c.xfd) {
                self.hardware.write_xfd(wanted.xfd);
            }
            if has.xfd && differs(|c| c.xfd_err) {
                self.hardware.write_xfd_err(wanted.xfd_err);
            }
        }
        self.live = Some(wanted);
    }

    /// Makes live what is the host's: everything offered, nothing disabled.
    /// State is never saved or restored under a guest's own values: what the
    /// guest disabled may still be live, and XRSTOR would fault on it.
    pub fn set_host(&mut self, host: &HostXstate) {
        let xfd_err = self.live.map_or(0, |live| live.xfd_err);
        self.set(
            host,
            Controls {
                xcr0: host.user().bits(),
                xss: host.supervisor().bits(),
                xfd: 0,
                xfd_err,
            },
        );
    }

    /// What a #NM left in IA32_XFD_ERR; 0 where there is none. The register is
    /// the guest's from here on: [`set`](Self::set) writes it anew.
    pub fn read_xfd_err(&mut self, host: &HostXstate) -> u64 {
        if !host.instructions().xfd {
            return 0;
        }
        // SAFETY: the processor has XFD, and with it the register.
        let value = unsafe { self.hardware.read_xfd_err() };
        if let Some(live) = &mut self.live {
            live.xfd_err = value;
        }
        value
    }

    /// Reads the defined bytes of one component into `out`, if it has an
    /// instruction or MSRs of its own; says whether it has. CR4.PKE is set
    /// where there is PKU.
    pub fn read_component(
        &mut self,
        host: &HostXstate,
        component: ComponentIndex,
        out: &mut [u8],
    ) -> bool {
        if !has_own_access(host, component) {
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
        host: &HostXstate,
        component: ComponentIndex,
        bytes: &[u8],
    ) -> Result<(), BadValue> {
        assert!(has_own_access(host, component), "{component} needs a save");
        values::check(component, bytes, &host.limits())?;
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
    pub fn save(&mut self, host: &HostXstate, area: &mut Area) {
        self.set_host(host);
        let instruction = host.save_instruction();
        assert_eq!(area.format(), host.format(), "an area of another host");
        let rfbm = area.mask().bits();
        let image = area.bytes_mut().as_mut_ptr();
        // SAFETY: `Block` aligns to 64. An area has room for the image of its
        // mask in its format, which is the one that `instruction` writes, and
        // always holds a header of that format. XCR0 | XSS is what is offered,
        // so RFBM selects nothing beyond.
        unsafe { self.hardware.save(instruction, image, rfbm) };
    }

    /// Restores the registers from `area`; what it does not hold becomes INIT.
    ///
    /// # Errors
    /// The processor refused the image; everything is INIT now.
    pub fn restore(&mut self, host: &HostXstate, area: &Area) -> Result<(), RestoreFault> {
        assert_eq!(area.format(), host.format(), "an area of another host");
        let restored = self.restore_bytes(host, area.bytes());
        if restored.is_err() {
            self.clear(host);
        }
        restored
    }

    /// Makes every component INIT.
    pub fn clear(&mut self, host: &HostXstate) {
        let header = match host.format() {
            Form::Standard => XsaveHeader::standard(ComponentSet::EMPTY),
            Form::Compacted => XsaveHeader::compacted(ComponentSet::EMPTY, ComponentSet::LEGACY),
        };
        let mut blocks = [Block::ZERO; 9];
        let bytes = blocks.as_mut_bytes();
        bytes[..LEGACY_BYTES].copy_from_slice(LegacyRegion::INIT.as_bytes());
        bytes[LEGACY_BYTES..].copy_from_slice(header.as_bytes());
        let cleared = self.restore_bytes(host, bytes);
        assert!(cleared.is_ok(), "the INIT image was refused");
    }

    fn restore_bytes(&mut self, host: &HostXstate, bytes: &[u8]) -> Result<(), RestoreFault> {
        self.set_host(host);
        let instruction = match host.save_instruction() {
            SaveInstruction::Xsaves => RestoreInstruction::Xrstors,
            _ => RestoreInstruction::Xrstor,
        };
        // SAFETY: both callers give the bytes of whole `Block`s, so they are
        // aligned, with the length of the layout in their header. The last
        // owner's x87 state is saved or abandoned by now, and the host keeps
        // CR0.TS and CR0.EM clear.
        unsafe {
            if host.leaks_fp_pointers() {
                self.hardware.clear_fp_pointers();
            }
            self.hardware.restore(instruction, bytes.as_ptr(), u64::MAX)
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
