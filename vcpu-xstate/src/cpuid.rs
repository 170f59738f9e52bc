//! Reads what a machine has of extended state from its CPUID; the queries are injected.
//!
//! SDM Vol. 1, 13.2 Enumeration of CPU Support for XSAVE Instructions and
//! XSAVE-Supported Features. A machine's claims are not believed blindly:
//! machines in the field list XSAVES without XGETBV1, a PKRU component without
//! the PKU feature, CET components with an empty supervisor mask. What does
//! not add up is left out of what is offered, and everything else works.

use crate::component::{COMPONENTS, ComponentIndex, ComponentSet};
use crate::error::broken_rules;
use crate::layout::{Form, Geometry};
use crate::mutants::rule;
use crate::values::Limits;
use crate::withheld::{self, Withheld};

/// The four registers that CPUID returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuidResult {
    /// EAX.
    pub eax: u32,
    /// EBX.
    pub ebx: u32,
    /// ECX.
    pub ecx: u32,
    /// EDX.
    pub edx: u32,
}

#[cfg(target_arch = "x86_64")]
impl From<core::arch::x86_64::CpuidResult> for CpuidResult {
    fn from(r: core::arch::x86_64::CpuidResult) -> Self {
        Self {
            eax: r.eax,
            ebx: r.ebx,
            ecx: r.ecx,
            edx: r.edx,
        }
    }
}

/// Why a machine cannot be used at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuidError {
    /// No leaf 0xD; carries the highest basic leaf.
    NoLeafD(u32),
    /// CPUID.1:ECX.XSAVE is clear; carries ECX.
    NoXsave(u32),
    /// Leaf 0xD does not list x87 and SSE; carries the user mask.
    NoLegacy(u64),
}

broken_rules!(CpuidError,
    Self::NoLeafD(max) => ("cpuid-leaf-d", 0x201, max as u64, 0xd),
    Self::NoXsave(ecx) => ("cpuid-xsave", 0x202, ecx as u64, 1 << 26),
    Self::NoLegacy(mask) => ("cpuid-legacy", 0x203, mask, ComponentSet::LEGACY.bits()),
);

/// Members of the XSAVE family beyond XSAVE and XRSTOR (CPUID.(0xD,1):EAX).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Instructions {
    /// XSAVEOPT.
    pub xsaveopt: bool,
    /// XSAVEC and the compacted form of XRSTOR.
    pub xsavec: bool,
    /// XGETBV with ECX = 1.
    pub xgetbv1: bool,
    /// XSAVES, XRSTORS and IA32_XSS.
    pub xsaves: bool,
    /// IA32_XFD and IA32_XFD_ERR.
    pub xfd: bool,
}

/// The instruction by which a host saves a vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveInstruction {
    /// Standard form.
    Xsave,
    /// Standard form, skips what did not change.
    Xsaveopt,
    /// Compacted form, user components.
    Xsavec,
    /// Compacted form, supervisor components too, skips what did not change.
    Xsaves,
}

/// The form of a host's areas, which follows from its save instruction.
pub type Format = Form;

/// Never offered: trace and power states of the physical machine, and LWP,
/// which no processor since family 17h has.
const NEVER: ComponentSet = ComponentSet::from_bits_retain(
    ComponentIndex::PT.bit()
        | ComponentIndex::HDC.bit()
        | ComponentIndex::HWP.bit()
        | ComponentIndex::LWP.bit(),
);

/// Offered only where the host says that it can: PASID needs PASID
/// translation, UINTR needs IPI virtualization (SENDUIPI sends physical
/// interrupts), LBR needs its depth switched, and what has no name here needs somebody who knows it.
const BY_PERMISSION: ComponentSet = ComponentSet::only(ComponentIndex::PASID)
    .union(ComponentSet::only(ComponentIndex::UINTR))
    .union(ComponentSet::only(ComponentIndex::LBR))
    .union(ComponentSet::ALL.difference(ComponentSet::NAMED));

/// What a machine has of extended state, and what of it is offered to guests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostXstate {
    /// What adds up and survived its round trip.
    sound: ComponentSet,
    /// What of [`BY_PERMISSION`] may be offered.
    permitted: ComponentSet,
    offered: ComponentSet,
    /// Of what is listed: why it is not sound.
    doubts: [Option<Withheld>; COMPONENTS],
    geometry: Geometry,
    instructions: Instructions,
    limits: Limits,
    leaks_fp_pointers: bool,
}

impl HostXstate {
    /// Reads a machine. `mxcsr_mask` is bytes 28–31 of an FXSAVE image taken
    /// on it (CPUID does not tell it); 0 there means 0xffbf.
    ///
    /// # Errors
    /// The machine has no usable XSAVE at all.
    pub fn read(
        cpuid: &impl Fn(u32, u32) -> CpuidResult,
        mxcsr_mask: u32,
    ) -> Result<Self, CpuidError> {
        let vendor = cpuid(0, 0);
        if rule!("cpuid-leaf-d") && vendor.eax < 0xd {
            return Err(CpuidError::NoLeafD(vendor.eax));
        }
        let features = cpuid(1, 0);
        if rule!("cpuid-xsave") && features.ecx & 1 << 26 == 0 {
            return Err(CpuidError::NoXsave(features.ecx));
        }
        let user_leaf = cpuid(0xd, 0);
        let user = joined(user_leaf.edx, user_leaf.eax);
        let user = ComponentSet::from_bits_retain(user);
        if rule!("cpuid-legacy") && !user.contains(ComponentSet::LEGACY) {
            return Err(CpuidError::NoLegacy(user.bits()));
        }
        let second = cpuid(0xd, 1);
        let has = |bit: u32| second.eax & 1 << bit != 0;
        let instructions = Instructions {
            xsaveopt: has(0),
            // XSAVES without XSAVEC is no machine: the one includes the other.
            xsavec: has(1) || rule!("host-xsaves-has-xsavec") && has(3),
            xgetbv1: has(2),
            xsaves: has(3),
            xfd: has(4),
        };
        let supervisor = if instructions.xsaves {
            joined(second.edx, second.ecx)
        } else {
            0
        };
        let supervisor = ComponentSet::from_bits_retain(supervisor).difference(user);

        let seventh = cpuid(7, 0);
        let pku = seventh.ecx & 1 << 3 != 0;
        let mut sound = ComponentSet::LEGACY;
        let mut geometry = Geometry::new();
        let mut doubts = [None; COMPONENTS];
        for index in user.union(supervisor).difference(ComponentSet::LEGACY) {
            let leaf = cpuid(0xd, index.get().into());
            // A component that is not offered keeps its place in the geometry:
            // others' offsets in its company must be right.
            let placed = withheld::describe(&leaf, supervisor.has(index), instructions.xfd)
                .and_then(|facts| {
                    let inserted = geometry.insert(index, facts);
                    inserted.map_err(Withheld::Layout).map(|()| facts)
                });
            let needed = index.payload_bytes().unwrap_or(0);
            let doubt = match placed {
                Err(doubt) => Some(doubt),
                Ok(facts)
                    if rule!("host-component-size") && (facts.size_bytes as usize) < needed =>
                {
                    Some(Withheld::Small(facts.size_bytes, needed as u32))
                }
                Ok(_) if rule!("host-pkru-needs-pku") && index == ComponentIndex::PKRU && !pku => {
                    Some(Withheld::Featureless)
                }
                Ok(_) if rule!("host-never-offered") && NEVER.has(index) => Some(Withheld::Never),
                Ok(_) => None,
            };
            if doubt.is_none() {
                sound.insert(ComponentSet::only(index));
            }
            doubts[usize::from(index.get())] = doubt;
        }

        let extended = cpuid(0x8000_0000, 0).eax >= 0x8000_0008;
        let sizes = if extended {
            cpuid(0x8000_0008, 0)
        } else {
            CpuidResult::default()
        };
        let linear_address_bits = match (sizes.eax >> 8) & 0xff {
            bits @ 48..=57 => bits as u8,
            _ => 48,
        };
        let records = if vendor.eax >= 0x1c {
            cpuid(0x1c, 0)
        } else {
            CpuidResult::default()
        };
        // "AuthenticAMD" and "HygonGenuine" by their EBX. CPUID
        // Fn8000_0008_EBX[RstrFpErrPtrs]: the leak of XSA-52 was mended.
        let amd = matches!(vendor.ebx, 0x6874_7541 | 0x6f67_7948);
        let mut host = Self {
            sound,
            permitted: ComponentSet::EMPTY,
            offered: ComponentSet::EMPTY,
            doubts,
            geometry,
            instructions,
            limits: Limits {
                mxcsr_mask: if rule!("mxcsr-mask-0-is-ffbf") && mxcsr_mask == 0 {
                    0xffbf
                } else {
                    mxcsr_mask
                },
                linear_address_bits,
                shadow_stacks: seventh.ecx & 1 << 7 != 0,
                branch_tracking: seventh.edx & 1 << 20 != 0,
                lbr_control: 0,
                lbr_info: 0,
                lbr_depth: 0,
            }
            .with_leaf_1c(&records),
            leaks_fp_pointers: rule!("xsa-52-vendor") && amd && sizes.ebx & 1 << 2 == 0,
        };
        host.geometry.number();
        host.settle();
        Ok(host)
    }

    /// Offers components that need a permission besides CPUID's word, where the
    /// machine has them.
    ///
    /// - PASID: with PASID translation. UINTR: with IPI virtualization.
    /// - LBR: whoever permits it switches IA32_LBR_DEPTH. XSAVES writes it to
    ///   the image, but XRSTORS does not load it (SDM Vol. 1, 13.5.12), and
    ///   zeros the branch records where the depths differ. An image whose
    ///   records are INIT does not say it.
    /// - What is not in [`ComponentSet::NAMED`] is carried as the bytes that
    ///   CPUID gives it. Who permits it vouches for what this crate cannot
    ///   know: that XCR0 or IA32_XSS takes its bit beside the others; that
    ///   nothing of it lives outside the image; and that no contents, which a
    ///   stranger's image may choose, make a restore fault. Where one does, it
    ///   costs that domain, as any failed restore does.
    pub fn permit(&mut self, components: ComponentSet) {
        self.permitted.insert(components);
        self.settle();
    }

    /// Leaves components out of what is offered, and with them what cannot be
    /// enabled without them: for one that does not survive its own round trip.
    /// x87 and SSE stay.
    pub fn restrict(&mut self, components: ComponentSet) {
        for index in components.intersection(self.sound) {
            if !ComponentSet::LEGACY.has(index) {
                self.sound.remove(ComponentSet::only(index));
                self.doubts[usize::from(index.get())] = Some(Withheld::RoundTrip);
            }
        }
        self.settle();
    }

    /// Why a component is not offered; `None` where it is, or where the
    /// machine does not list it.
    pub const fn withheld(&self, component: ComponentIndex) -> Option<Withheld> {
        if let Some(doubt) = self.doubts[component.get() as usize] {
            Some(doubt)
        } else if !self.sound.has(component) || self.offered.has(component) {
            None
        } else if BY_PERMISSION.difference(self.permitted).has(component) {
            Some(Withheld::Permission)
        } else {
            // Of the sound ones, only MPX can have its group whole and yet be
            // left out: for APX.
            let company = withheld::company(component);
            if self.offered.has(ComponentIndex::APX) && self.sound.contains(company) {
                Some(Withheld::Beside(ComponentIndex::APX))
            } else {
                Some(Withheld::Group(company))
            }
        }
    }

    fn settle(&mut self) {
        let held_back = if rule!("host-permission") {
            BY_PERMISSION.difference(self.permitted)
        } else {
            ComponentSet::EMPTY
        };
        self.offered = self.sound.difference(held_back).whole_groups();
    }

    /// User components offered: the host's own XCR0.
    pub const fn user(&self) -> ComponentSet {
        self.offered.difference(self.geometry.supervisor())
    }

    /// Supervisor components offered: the host's own IA32_XSS.
    pub const fn supervisor(&self) -> ComponentSet {
        self.offered.intersection(self.geometry.supervisor())
    }

    /// All that is offered.
    pub const fn offered(&self) -> ComponentSet {
        self.offered
    }

    /// The machine's layout, of all that it lists, offered or not.
    pub const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// [`Geometry::id`] of its areas.
    pub const fn layout_id(&self) -> u64 {
        self.geometry.id(self.format())
    }

    /// [`Geometry::label`] of its areas.
    #[inline(always)]
    pub(crate) const fn label(&self) -> u64 {
        self.geometry.label(self.format())
    }

    /// The members of the XSAVE family that it has.
    pub const fn instructions(&self) -> Instructions {
        self.instructions
    }

    /// The form of areas on this host.
    pub const fn format(&self) -> Format {
        match self.save_instruction() {
            SaveInstruction::Xsave | SaveInstruction::Xsaveopt => Form::Standard,
            SaveInstruction::Xsavec | SaveInstruction::Xsaves => Form::Compacted,
        }
    }

    /// The best save instruction: XSAVES where it is, else XSAVEC, else
    /// XSAVEOPT, else XSAVE.
    pub const fn save_instruction(&self) -> SaveInstruction {
        if self.instructions.xsaves {
            SaveInstruction::Xsaves
        } else if self.instructions.xsavec {
            SaveInstruction::Xsavec
        } else if self.instructions.xsaveopt {
            SaveInstruction::Xsaveopt
        } else {
            SaveInstruction::Xsave
        }
    }

    /// What decides which register contents it takes.
    pub const fn limits(&self) -> Limits {
        self.limits
    }

    /// Bits of MXCSR that can be set without #GP (AMD's bit 17 faults on Intel).
    pub const fn mxcsr_mask(&self) -> u32 {
        self.limits.mxcsr_mask
    }

    /// Width of linear addresses, 48 to 57 bits: what "canonical" means here.
    pub const fn linear_address_bits(&self) -> u8 {
        self.limits.linear_address_bits
    }

    /// Whether XRSTOR leaves FIP, FDP and FOP of the last owner where no x87
    /// exception is pending (XSA-52).
    pub const fn leaks_fp_pointers(&self) -> bool {
        self.leaks_fp_pointers
    }
}

/// A mask of components from two registers: all 64 bits (Xen fe0d67576e).
fn joined(high: u32, low: u32) -> u64 {
    if rule!("xen-fe0d67576e-masks-of-64-bits") {
        u64::from(high) << 32 | u64::from(low)
    } else {
        u64::from(low)
    }
}

#[cfg(test)]
#[path = "cpuid_tests.rs"]
mod tests;
