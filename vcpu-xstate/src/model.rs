//! A CPU in software that executes the XSAVE family by the manual: the oracle of the tests.
//!
//! SDM Vol. 1, 13.7 to 13.12. It raises the faults that the manual lists, and
//! it tracks what makes hosts go wrong: XINUSE (or not, as QEMU), and MODIFIED
//! with the address and XCOMP_BV of the last XRSTOR, so that a save skips what
//! it may. What the host must never do (operate under a guest's XCR0, move
//! tiles under XFD) makes it panic.
#![allow(unsafe_code)] // reads and writes images by raw pointer, as a CPU does

use zerocopy::{FromBytes, IntoBytes};

use crate::component::{ComponentIndex, ComponentSet};
use crate::cpuid::{HostXstate, SaveInstruction};
use crate::header::XsaveHeader;
use crate::hw::{ComponentMsr, Hardware, RestoreFault, RestoreInstruction};
use crate::image::payload;
use crate::layout::{Form, LEGACY_BYTES, MIN_IMAGE_BYTES, Placement};
use crate::legacy::{LegacyRegion, MXCSR_INIT};
use crate::values;

mod registers;

pub use registers::{Registers, Xinuse};

/// The CPU.
pub struct Model {
    pub host: HostXstate,
    pub xinuse: Xinuse,
    pub regs: Registers,
    pub xcr0: u64,
    pub xss: u64,
    pub xfd: u64,
    pub xfd_err: u64,
    /// Restores executed so far.
    pub restores: u32,
    /// Writes to control registers so far.
    pub control_writes: u32,
    /// Writes of a component's own registers so far.
    pub direct_writes: u32,
    /// Refuse the next restore (a broken promise of validation).
    pub fail_next_restore: bool,
    /// This component is saved wrongly, as Bochs saves tiles.
    pub broken: Option<ComponentIndex>,
    modified: ComponentSet,
    restored_from: Option<(usize, u64)>,
}

impl Model {
    pub fn new(host: HostXstate, xinuse: Xinuse) -> Self {
        Self {
            host,
            xinuse,
            regs: Registers::init(),
            xcr0: 1,
            xss: 0,
            xfd: 0,
            xfd_err: 0,
            restores: 0,
            control_writes: 0,
            direct_writes: 0,
            fail_next_restore: false,
            broken: None,
            modified: ComponentSet::ALL,
            restored_from: None,
        }
    }

    /// The guest writes a register of this component.
    pub fn write(&mut self, component: ComponentIndex, seed: u8) {
        let mut legacy = self.regs.legacy;
        match component {
            ComponentIndex::X87 => {
                legacy.fcw.set(0x0240 | u16::from(seed & 0xf));
                legacy.ftw = 0xff;
                legacy.fip.set(0x1000 + u64::from(seed));
                legacy.st.iter_mut().for_each(|st| st[..10].fill(seed));
            }
            ComponentIndex::SSE => legacy.xmm.iter_mut().for_each(|xmm| xmm.fill(seed)),
            _ => {
                let bytes = self.regs.get(component);
                bytes.fill(0);
                crate::selftest::pattern(component, seed, bytes);
            }
        }
        self.regs.legacy = legacy;
        self.modified.insert(ComponentSet::only(component));
    }

    /// The guest loads MXCSR.
    pub fn ldmxcsr(&mut self, value: u32) {
        self.regs.legacy.mxcsr.set(value);
        self.modified
            .insert(ComponentSet::only(ComponentIndex::SSE));
    }

    fn put(&mut self, component: ComponentIndex, offset: usize, bytes: &[u8]) {
        assert!(
            self.host.offered().has(component),
            "#UD or #GP: {component}"
        );
        self.direct_writes += 1;
        self.regs.get(component)[offset..offset + bytes.len()].copy_from_slice(bytes);
        self.modified.insert(ComponentSet::only(component));
    }

    fn xinuse(&self) -> ComponentSet {
        let mut set = ComponentSet::EMPTY;
        for component in self.host.offered() {
            let init = match component {
                ComponentIndex::X87 => self.regs.legacy.x87_is_init(),
                ComponentIndex::SSE => self.regs.legacy.xmm_is_init(),
                _ => self.regs.extended[usize::from(component.get())]
                    .iter()
                    .all(|b| *b == 0),
            };
            if !init || self.xinuse == Xinuse::AlwaysOne {
                set.insert(ComponentSet::only(component));
            }
        }
        set
    }

    fn enabled(&self, supervisor: bool) -> ComponentSet {
        let xss = if supervisor { self.xss } else { 0 };
        ComponentSet::from_bits_retain(self.xcr0 | xss)
    }

    /// The faults of XRSTOR and XRSTORS, by the manual.
    fn check(&self, instruction: RestoreInstruction, image: &[u8], rfbm: ComponentSet) -> bool {
        let (legacy, rest) = LegacyRegion::ref_from_prefix(image).unwrap();
        let (header, _) = XsaveHeader::ref_from_prefix(rest).unwrap();
        let enabled = self.enabled(instruction == RestoreInstruction::Xrstors);
        let compacted = header.xcomp_bv() >> 63 == 1;
        let header_ok = if compacted {
            enabled.contains(header.layout())
                && header.layout().contains(header.xstate_bv())
                && header.first_reserved().is_none()
        } else {
            instruction == RestoreInstruction::Xrstor
                && header.xcomp_bv() == 0
                && header.first_reserved().is_none()
                && enabled.contains(header.xstate_bv())
        };
        let loads = rfbm.intersection(header.xstate_bv());
        let mxcsr = if compacted {
            loads.has(ComponentIndex::SSE)
        } else {
            rfbm.bits() & 6 != 0
        };
        let mxcsr_ok = !mxcsr || legacy.mxcsr.get() & !self.host.mxcsr_mask() == 0;
        let xfd_ok = loads.bits() & self.xfd == 0;
        let uinv = self.regs.extended[14][20];
        let uinv_ok = !loads.has(ComponentIndex::UINTR) || uinv == 0;
        let form = if compacted {
            Form::Compacted
        } else {
            Form::Standard
        };
        let layout = if compacted { header.layout() } else { loads };
        header_ok
            && mxcsr_ok
            && xfd_ok
            && uinv_ok
            && self
                .host
                .geometry()
                .placements(form, layout)
                .filter(|place| loads.has(place.component))
                .all(|place| {
                    let bytes = &image[payload(place)];
                    values::check(place.component, bytes, &self.host.limits()).is_ok()
                })
    }

    fn load(&mut self, image: &[u8], rfbm: ComponentSet) {
        let (legacy, rest) = LegacyRegion::read_from_prefix(image).unwrap();
        let (header, _) = XsaveHeader::read_from_prefix(rest).unwrap();
        let loads = rfbm.intersection(header.xstate_bv());
        let compacted = header.xcomp_bv() >> 63 == 1;
        let (form, layout) = if compacted {
            (Form::Compacted, header.layout())
        } else {
            (Form::Standard, self.host.offered())
        };
        let init = Registers::init();
        let mut regs = self.regs.clone();
        if rfbm.has(ComponentIndex::X87) {
            let from = if loads.has(ComponentIndex::X87) {
                &legacy
            } else {
                &init.legacy
            };
            let (fip, fdp, fop) = (regs.legacy.fip, regs.legacy.fdp, regs.legacy.fop);
            regs.legacy.copy_x87(from);
            // XSA-52: without a pending exception, AMD's leaves the pointers.
            if self.host.leaks_fp_pointers() && from.fsw.get() & 0x80 == 0 {
                (regs.legacy.fip, regs.legacy.fdp, regs.legacy.fop) = (fip, fdp, fop);
            }
        }
        if rfbm.has(ComponentIndex::SSE) {
            let sse = loads.has(ComponentIndex::SSE);
            regs.legacy.xmm = if sse { legacy.xmm } else { init.legacy.xmm };
        }
        if compacted {
            if rfbm.has(ComponentIndex::SSE) {
                let sse = loads.has(ComponentIndex::SSE);
                regs.legacy
                    .mxcsr
                    .set(if sse { legacy.mxcsr.get() } else { MXCSR_INIT });
            }
        } else if rfbm.bits() & 6 != 0 {
            regs.legacy.mxcsr = legacy.mxcsr;
        }
        let places: Vec<Placement> = self.host.geometry().placements(form, layout).collect();
        for component in rfbm.difference(ComponentSet::LEGACY) {
            let to = regs.get(component);
            to.fill(0);
            if let Some(place) = places
                .iter()
                .find(|p| loads.has(component) && p.component == component)
            {
                to.copy_from_slice(&image[payload(*place)]);
            }
        }
        self.regs = regs;
    }
}

/// The component and byte that a register is.
fn place(register: ComponentMsr) -> (ComponentIndex, usize) {
    for component in ComponentSet::ALL {
        let registers = ComponentMsr::of(component);
        if let Some(i) = registers.iter().position(|one| *one == register) {
            return (component, 8 * i);
        }
    }
    panic!("{register:?} belongs to no component");
}

/// The bytes that an instruction may touch for `layout`.
fn extent(host: &HostXstate, form: Form, layout: ComponentSet) -> usize {
    host.geometry().image_size(form, layout)
}

impl Hardware for Model {
    unsafe fn write_xcr0(&mut self, value: u64) {
        self.control_writes += 1;
        let user = self.host.user();
        assert!(
            crate::xcr0::xcr0_verdict(value, 0, user).is_ok(),
            "#GP: XSETBV {value:#x}"
        );
        self.xcr0 = value;
    }

    unsafe fn write_xss(&mut self, value: u64) {
        self.control_writes += 1;
        assert!(self.host.instructions().xsaves && value & !self.host.supervisor().bits() == 0);
        self.xss = value;
    }

    unsafe fn write_xfd(&mut self, value: u64) {
        self.control_writes += 1;
        assert!(value & !self.host.geometry().xfd_capable().bits() == 0);
        self.xfd = value;
    }

    unsafe fn write_xfd_err(&mut self, value: u64) {
        self.control_writes += 1;
        assert!(value & !self.host.geometry().xfd_capable().bits() == 0);
        self.xfd_err = value;
    }

    unsafe fn read_xfd_err(&mut self) -> u64 {
        self.xfd_err
    }

    unsafe fn read_pkru(&mut self) -> u32 {
        let bytes = self.regs.get(ComponentIndex::PKRU);
        u32::from_le_bytes(*bytes.first_chunk().unwrap())
    }

    unsafe fn write_pkru(&mut self, value: u32) {
        self.put(ComponentIndex::PKRU, 0, &value.to_le_bytes());
    }

    unsafe fn read_msr(&mut self, register: ComponentMsr) -> u64 {
        let (component, offset) = place(register);
        let bytes = &self.regs.get(component)[offset..];
        u64::from_le_bytes(*bytes.first_chunk().unwrap())
    }

    unsafe fn write_msr(&mut self, register: ComponentMsr, value: u64) {
        let (component, offset) = place(register);
        self.put(component, offset, &value.to_le_bytes());
        let bytes = self.regs.get(component).clone();
        let legal = values::check(component, &bytes, &self.host.limits());
        assert!(legal.is_ok(), "#GP: WRMSR of {register:?}: {legal:?}");
    }

    unsafe fn save(&mut self, instruction: SaveInstruction, image: *mut u8, rfbm: u64) {
        let xsaves = instruction == SaveInstruction::Xsaves;
        let compacted = matches!(
            instruction,
            SaveInstruction::Xsavec | SaveInstruction::Xsaves
        );
        let optimises = matches!(
            instruction,
            SaveInstruction::Xsaveopt | SaveInstruction::Xsaves
        );
        assert_eq!(image.addr() % 64, 0, "#GP: alignment");
        assert_eq!(
            self.xcr0,
            self.host.user().bits(),
            "saved under a guest's XCR0"
        );
        assert_eq!(
            self.xss,
            self.host.supervisor().bits(),
            "saved under a guest's XSS"
        );
        assert_eq!(self.xfd & rfbm, 0, "saved tiles under XFD");
        let asked = ComponentSet::from_bits_retain(rfbm);
        let rfbm = asked.intersection(self.enabled(xsaves));
        assert_eq!(rfbm, asked, "the area has room for what is not offered");
        let form = if compacted {
            Form::Compacted
        } else {
            Form::Standard
        };
        let len = extent(&self.host, form, rfbm);
        // SAFETY: the caller gives an image of that extent.
        let bytes = unsafe { core::slice::from_raw_parts_mut(image, len) };
        let old = XsaveHeader::read_from_bytes(&bytes[LEGACY_BYTES..MIN_IMAGE_BYTES]).unwrap();

        let mut used = self.xinuse().intersection(rfbm);
        let mxcsr_counts = self.regs.legacy.mxcsr.get() != MXCSR_INIT;
        if compacted && rfbm.has(ComponentIndex::SSE) && mxcsr_counts {
            used.insert(ComponentSet::only(ComponentIndex::SSE));
        }
        let xcomp_bv = if compacted { rfbm.bits() | 1 << 63 } else { 0 };
        let same_image = self.restored_from == Some((image.addr(), xcomp_bv));
        let skipped = |component| {
            let unmodified = optimises && same_image && !self.modified.has(component);
            let init = (compacted || optimises) && !used.has(component);
            unmodified || init
        };
        let (legacy, _) = LegacyRegion::mut_from_prefix(bytes).unwrap();
        if rfbm.has(ComponentIndex::X87) && !skipped(ComponentIndex::X87) {
            legacy.copy_x87(&self.regs.legacy);
        }
        if rfbm.has(ComponentIndex::SSE) && !skipped(ComponentIndex::SSE) {
            legacy.xmm = self.regs.legacy.xmm;
        }
        // XSAVE and XSAVEOPT write MXCSR for SSE and AVX both, never optimised.
        if if compacted {
            used.has(ComponentIndex::SSE)
        } else {
            rfbm.bits() & 6 != 0
        } {
            legacy.mxcsr = self.regs.legacy.mxcsr;
            legacy.mxcsr_mask.set(self.host.mxcsr_mask());
        }
        for place in self.host.geometry().placements(form, rfbm) {
            if skipped(place.component) {
                continue;
            }
            let from = &self.regs.extended[usize::from(place.component.get())];
            bytes[payload(place)].copy_from_slice(from);
            if self.broken == Some(place.component) {
                bytes[place.offset_bytes] ^= 0x80;
            }
        }
        let header = if compacted {
            XsaveHeader::compacted(used, rfbm)
        } else {
            assert_eq!(
                old.xcomp_bv(),
                0,
                "XSAVE leaves XCOMP_BV of a compacted image"
            );
            XsaveHeader::standard(old.xstate_bv().difference(rfbm).union(used))
        };
        bytes[LEGACY_BYTES..MIN_IMAGE_BYTES].copy_from_slice(header.as_bytes());
        if xsaves && rfbm.has(ComponentIndex::UINTR) {
            self.regs.extended[14][20] = 0;
        }
    }

    unsafe fn restore(
        &mut self,
        instruction: RestoreInstruction,
        image: *const u8,
        rfbm: u64,
    ) -> Result<(), RestoreFault> {
        self.restores += 1;
        assert_eq!(image.addr() % 64, 0, "#GP: alignment");
        assert_eq!(
            self.xcr0,
            self.host.user().bits(),
            "restored under a guest's XCR0"
        );
        assert_eq!(
            self.xss,
            self.host.supervisor().bits(),
            "restored under a guest's XSS"
        );
        if core::mem::take(&mut self.fail_next_restore) {
            self.regs.legacy.xmm[0] = [0xbd; 16];
            return Err(RestoreFault);
        }
        // SAFETY: every image has a header.
        let head = unsafe { core::slice::from_raw_parts(image, MIN_IMAGE_BYTES) };
        let header = XsaveHeader::read_from_bytes(&head[LEGACY_BYTES..]).unwrap();
        let len = if header.xcomp_bv() >> 63 == 1 {
            extent(&self.host, Form::Compacted, header.layout())
        } else {
            extent(&self.host, Form::Standard, header.xstate_bv())
        };
        // SAFETY: the caller gives the layout that the header describes.
        let bytes = unsafe { core::slice::from_raw_parts(image, len) };
        let supervisor = instruction == RestoreInstruction::Xrstors;
        let rfbm = ComponentSet::from_bits_retain(rfbm).intersection(self.enabled(supervisor));
        if !self.check(instruction, bytes, rfbm) {
            return Err(RestoreFault);
        }
        self.load(bytes, rfbm);
        self.modified.remove(rfbm);
        if self.xinuse == Xinuse::AlwaysOne {
            // Who does not track INIT cannot skip writing it as unmodified:
            // the image has no bytes of it.
            self.modified.insert(rfbm.difference(header.xstate_bv()));
        }
        self.restored_from = Some((image.addr(), header.xcomp_bv()));
        Ok(())
    }

    unsafe fn clear_fp_pointers(&mut self) {
        let legacy = &mut self.regs.legacy;
        legacy.fip.set(0);
        legacy.fdp.set(0);
        legacy.fop.set(0);
    }
}
