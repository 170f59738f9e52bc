//! A vCPU's state on its way out and in: export to a canonical image, import of a validated one.

use crate::area::{Area, AreaMemory, OutOfMemory};
use crate::component::ComponentSet;
use crate::convert::{Planned, TooSmall, canonical_size};
use crate::cpuid::HostXstate;
use crate::error::broken_rules;
use crate::header::COMPACTED;
use crate::hw::Hardware;
use crate::image::{Image, Says};
use crate::layout::{Form, Geometry};
use crate::masks::needs_room;
use crate::mutants::rule;
use crate::owner::VcpuXstate;
use crate::percpu::PcpuXstate;
use crate::switch::Home;
use crate::validate::{Claims, Registers, Rejection, TrustedImage, Values, judged};
use crate::values::Limits;

/// Why state cannot be exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportError {
    /// The buffer is too small for the image.
    TooSmall(TooSmall),
}

broken_rules!(ExportError,
    Self::TooSmall(e) => ("export-buffer", 0x901, e.given_bytes as u64, e.needed_bytes as u64),
);

/// Why a validated image cannot become this vCPU's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportError {
    /// It was validated for a policy that this vCPU does not have: seen, allowed.
    Policy(u64, u64),
    /// It was validated for a guest with XSAVE (1) or without (0): seen, allowed.
    Xsave(u64, u64),
    /// There is no memory for the area; nothing changed.
    NeedsMemory(OutOfMemory),
    /// It was judged for another host, and this one may fault on it: what
    /// decides there, here (layout, bits of MXCSR, of addresses, of CET, of
    /// IA32_LBR_CTL, of IA32_LBR_x_INFO).
    Host(u64, u64),
    /// IA32_XFD or IA32_XFD_ERR has bits that this vCPU's guest could never
    /// clear: seen, allowed.
    Xfd(u64, u64),
}

broken_rules!(ImportError,
    Self::Policy(seen, allowed) => ("import-policy", 0xa01, seen, allowed),
    Self::Xsave(seen, allowed) => ("import-xsave", 0xa02, seen, allowed),
    Self::NeedsMemory(e) => (OutOfMemory::RULE, OutOfMemory::CODE, e.bytes as u64, 0),
    Self::Host(seen, allowed) => ("import-host", 0xa03, seen, allowed),
    Self::Xfd(seen, allowed) => ("import-xfd", 0xa04, seen, allowed),
);

/// Why an image of this host's own layouts was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NativeError {
    /// It breaks a rule.
    Content(Rejection),
    /// It does not fit the vCPU, or there is no memory.
    Import(ImportError),
}

broken_rules!(NativeError,
    Self::Content(e) => (e.rule(), e.code(), e.seen(), e.allowed()),
    Self::Import(e) => (e.rule(), e.code(), e.seen(), e.allowed()),
);

/// What an export wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exported {
    /// What goes into the blob's header.
    pub claims: Claims,
    /// Bytes of the image.
    pub image_len: usize,
}

impl VcpuXstate {
    /// Bytes of the image that [`export`](Self::export) would write now.
    pub fn export_size<H: Hardware>(&mut self, cpu: &mut PcpuXstate<H>) -> usize {
        self.bring_home(cpu);
        if !rule!("linux-size-of-the-hosts-image") {
            return self.area.size_bytes();
        }
        let geometry = cpu.host().geometry();
        canonical_size(&self.area.image(geometry), ComponentSet::EMPTY)
    }

    /// The area is what is exported: it has the state.
    #[inline]
    fn bring_home<H: Hardware>(&mut self, cpu: &mut PcpuXstate<H>) {
        if rule!("export-saves-first") {
            cpu.save(self);
        }
    }

    /// Writes the canonical image of what is in use to `out`. Tile data is not in
    /// it where the guest's XFD disables it (the manual lets it be lost): nor is it
    /// in the area.
    ///
    /// # Errors
    /// `out` is too small; nothing was written.
    pub fn export<H: Hardware>(
        &mut self,
        cpu: &mut PcpuXstate<H>,
        out: &mut [u8],
    ) -> Result<Exported, ExportError> {
        let mut told = None;
        self.export_to(cpu, |exported| {
            told = Some(*exported);
            Ok::<_, ExportError>(out)
        })?;
        let Some(exported) = told else {
            unreachable!("nothing is written without asking where");
        };
        Ok(exported)
    }

    /// The same to where `place` says, which is told what goes there.
    ///
    /// # Errors
    /// `place` refuses, or what it gives is too small; nothing was written there.
    #[inline(always)]
    pub fn export_to<'o, H: Hardware, E: From<ExportError>>(
        &mut self,
        cpu: &mut PcpuXstate<H>,
        place: impl FnOnce(&Exported) -> Result<&'o mut [u8], E>,
    ) -> Result<(), E> {
        if self.home != Home::Memory {
            self.bring_home(cpu);
        }
        let host = cpu.host();
        let image = self.area.image(host.geometry());
        let planned = Planned::new(&image, ComponentSet::EMPTY);
        let canonical = planned.canonical();
        let exported = Exported {
            claims: Claims {
                // Not what the host has (Xen 75f9455e92).
                xstate_mask: if rule!("xen-75f9455e92-policy-not-host") {
                    self.policy.mask.bits()
                } else {
                    host.offered().bits()
                },
                xcr0: self.xcr0(),
                xss: self.xss(),
                // Never what the hypervisor arms besides.
                xfd: if rule!("export-the-guests-own-xfd") {
                    self.xfd()
                } else {
                    self.hardware_xfd(host).bits()
                },
                xfd_err: self.xfd_err(),
                accum: self.accum.bits(),
                xcomp_bv: canonical.components.bits() | COMPACTED,
                xsave: self.policy.xsave,
            },
            image_len: canonical.len_bytes,
        };
        let written = planned.write(place(&exported)?);
        written.map_err(ExportError::TooSmall)?;
        Ok(())
    }

    /// Makes a validated image this vCPU's state, all of it or nothing.
    ///
    /// # Errors
    /// It was validated for another policy, or there is no memory for the
    /// area; the vCPU keeps the state that it had.
    pub fn import<H: Hardware>(
        &mut self,
        image: &TrustedImage<'_>,
        cpu: &mut PcpuXstate<H>,
        memory: &mut impl AreaMemory,
    ) -> Result<(), ImportError> {
        self.stand_within_reach(cpu);
        self.take(image, cpu.host(), memory)?;
        self.leave_registers(cpu);
        Ok(())
    }

    /// Judges a compacted image whose layouts are this host's own, over its
    /// policy, and makes it this vCPU's state, all of it or nothing.
    ///
    /// # Errors
    /// The first rule that it breaks, or as [`import`](Self::import).
    #[inline(always)]
    pub fn import_native<H: Hardware>(
        &mut self,
        claims: &Claims,
        image: &[u8],
        cpu: &mut PcpuXstate<H>,
        memory: &mut impl AreaMemory,
    ) -> Result<(), NativeError> {
        self.stand_within_reach(cpu);
        let host = cpu.host();
        // A vCPU's policy has whole groups: what is the same has them too.
        let policy = (&self.policy, self.policy.mask);
        let judged = judged(claims, host.geometry(), image, host, policy);
        let (registers, image) = judged.map_err(NativeError::Content)?;
        self.fill(&registers, &image, host, memory)
            .map_err(|error| NativeError::Import(ImportError::NeedsMemory(error)))?;
        self.leave_registers(cpu);
        Ok(())
    }

    /// Before anything changes: a vCPU that another processor has is not
    /// replaced from here, which is a mistake of the host and panics.
    #[inline(always)]
    fn stand_within_reach<H: Hardware>(&self, cpu: &PcpuXstate<H>) {
        if self.home != Home::Memory {
            cpu.assert_within_reach(self);
        }
    }

    /// What the registers of a processor still have is not this vCPU's any more.
    #[inline(always)]
    fn leave_registers<H: Hardware>(&mut self, cpu: &mut PcpuXstate<H>) {
        if self.home != Home::Memory && rule!("import-revokes-registers") {
            cpu.abandon(self);
        }
    }

    /// Fills the area with what was judged at some time, for somebody. What the
    /// registers of a processor still have is then to be abandoned.
    fn take(
        &mut self,
        image: &TrustedImage<'_>,
        host: &HostXstate,
        memory: &mut impl AreaMemory,
    ) -> Result<(), ImportError> {
        let values = image.values();
        let registers = &values.registers;
        let (seen, allowed) = (registers.policy_mask, self.policy.mask);
        if rule!("import-policy") && !allowed.contains(seen) {
            return Err(ImportError::Policy(seen.bits(), allowed.bits()));
        }
        if rule!("import-xsave") && registers.xsave != self.policy.xsave {
            let (seen, allowed) = (registers.xsave.into(), self.policy.xsave.into());
            return Err(ImportError::Xsave(seen, allowed));
        }
        if let Some((there, here)) = other_host(values, host)
            && rule!("import-host")
        {
            return Err(ImportError::Host(there, here));
        }
        let disabled = registers.xfd.components();
        let disabled = disabled.union(registers.xfd_err.components());
        let allowed = self.policy.disableable(host.geometry().xfd_capable());
        if rule!("import-xfd") && !allowed.contains(disabled) {
            return Err(ImportError::Xfd(disabled.bits(), allowed.bits()));
        }
        self.fill(registers, image.image(), host, memory)
            .map_err(ImportError::NeedsMemory)
    }

    /// Fills the area, or a larger one, with what was judged for this vCPU here.
    #[inline(always)]
    fn fill(
        &mut self,
        registers: &Registers,
        image: &Image<'_>,
        host: &HostXstate,
        memory: &mut impl AreaMemory,
    ) -> Result<(), OutOfMemory> {
        let geometry = host.geometry();
        let enabled = registers
            .xcr0
            .components()
            .union(registers.xss.components());
        let accum = registers
            .accum
            .union(self.policy.initial_accum(geometry.supervisor()))
            .union(needs_room(enabled, geometry.xfd_capable()));
        let mask = self.policy.area(accum);
        let fits = mask.bits() == self.area.mask().bits();
        if fits && self.area.format() == Form::Compacted {
            self.area.fill_as(Form::Compacted, geometry, image, mask);
        } else {
            let (bytes, form) = (image.bytes(), image.form());
            let of = (image.geometry(), form);
            self.fill_otherwise(bytes, of, image.says(), mask, geometry, memory)?;
        }

        // Nothing above has changed more than the area, and nothing fails now.
        self.accum = accum;
        self.xcr0 = registers.xcr0;
        self.xss = registers.xss;
        self.xfd = registers.xfd;
        self.xfd_err = registers.xfd_err;
        if rule!("import-new-generation") {
            self.generation += 1;
        }
        Ok(())
    }

    /// An area of the standard form, or a new one, filled with the image that
    /// consists of these parts.
    #[inline(never)]
    fn fill_otherwise(
        &mut self,
        bytes: &[u8],
        (of, form): (&Geometry, Form),
        says: Says,
        mask: ComponentSet,
        geometry: &Geometry,
        memory: &mut impl AreaMemory,
    ) -> Result<(), OutOfMemory> {
        let Some(image) = Image::judged(bytes, of, form, says) else {
            unreachable!("no image is shorter than its head");
        };
        if mask == self.area.mask() {
            self.area.fill(geometry, &image, mask);
        } else {
            let mut area = Area::new(geometry, self.area.format(), mask, memory)?;
            area.fill(geometry, &image, mask);
            self.replace_area(area, memory);
        }
        Ok(())
    }
}

/// What decides whether a restore faults, where it differs between the host
/// that an image was judged for and this one.
fn other_host(values: &Values, host: &HostXstate) -> Option<(u64, u64)> {
    let branch_records = |facts: u64| {
        if rule!("import-host-branch-records") {
            facts
        } else {
            0
        }
    };
    let facts = |layout_id: u64, limits: &Limits| {
        [
            layout_id,
            limits.mxcsr_mask.into(),
            limits.linear_address_bits.into(),
            u64::from(limits.shadow_stacks) | u64::from(limits.branch_tracking) << 1,
            branch_records(limits.lbr_control),
            branch_records(limits.lbr_info),
        ]
    };
    let there = facts(values.layout_id, &values.limits);
    let here = facts(host.layout_id(), &host.limits());
    there
        .into_iter()
        .zip(here)
        .find(|(there, here)| there != here)
}
