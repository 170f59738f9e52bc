//! What CPUID answers to a guest, and which control-register bits its policy has: pure functions of policy and vCPU.

use super::CpuPolicy;
use super::set::Bit;
use crate::component::ComponentSet;
use crate::cpuid::CpuidResult;
use crate::layout::Form;
use crate::mutants::rule;

/// What of a vCPU its CPUID follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dynamic {
    /// CR4.OSXSAVE.
    pub cr4_osxsave: bool,
    /// CR4.PKE.
    pub cr4_pke: bool,
    /// XCR0.
    pub xcr0: u64,
    /// IA32_XSS.
    pub xss: u64,
    /// Its number, reported as APIC ID.
    pub apic_id: u32,
}

/// First of the leaves by which a guest finds the hypervisor; EBX, ECX and EDX
/// say "XferryXferry".
pub const HYPERVISOR_BASE: u32 = 0x4000_0000;
/// Last of them.
pub const HYPERVISOR_LAST: u32 = 0x4000_0002;
/// EAX of the second: major version of the interface in the upper half, minor
/// in the lower.
pub const HYPERVISOR_VERSION: u32 = 0x0001_0000;

const OSXSAVE: u32 = 1 << 27;
const OSPKE: u32 = 1 << 4;

const XSAVE: Bit = Bit::of("xsave");
const XSAVEC: Bit = Bit::of("xsavec");
const XSAVES: Bit = Bit::of("xsaves");
const XFD: Bit = Bit::of("xfd");
const PKU: Bit = Bit::of("pku");

impl CpuPolicy {
    /// The answer to CPUID with EAX = `leaf` and ECX = `subleaf`; zeros for
    /// what the policy does not have.
    #[inline]
    pub fn cpuid(&self, leaf: u32, subleaf: u32, vcpu: &Dynamic) -> CpuidResult {
        let Some(row) = self.table.find(leaf, subleaf) else {
            return self.absent(leaf, subleaf, vcpu);
        };
        let mut answer = row.answer();
        match leaf {
            1 => {
                answer.ebx |= (vcpu.apic_id & 0xff) << 24;
                if vcpu.cr4_osxsave && self.has(XSAVE) {
                    answer.ecx |= OSXSAVE;
                }
            }
            7 if subleaf == 0 && vcpu.cr4_pke && self.has(PKU) => answer.ecx |= OSPKE,
            0xb => answer.edx = vcpu.apic_id,
            0xd => self.leaf_d(subleaf, vcpu, &mut answer),
            _ => {}
        }
        answer
    }

    /// Puts into leaf 0xD what follows XCR0 and IA32_XSS. SDM Vol. 2, CPUID,
    /// "Processor Extended State Enumeration".
    fn leaf_d(&self, subleaf: u32, vcpu: &Dynamic, answer: &mut CpuidResult) {
        let size = |form, enabled: ComponentSet| {
            let bytes = self.geometry.image_size(form, enabled);
            // A compacted image of all 61 components has less than 4 MiB.
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        let user = ComponentSet::from_bits_retain(vcpu.xcr0).intersection(self.xstate.mask);
        match subleaf {
            0 => answer.ebx = size(Form::Standard, user),
            // With XSAVEC alone it is a size too: Linux from 5.19 on warns at 0
            // (Xen c3bd0b83ea).
            1 if self.has(XSAVES) => {
                let supervisor = ComponentSet::from_bits_retain(vcpu.xss)
                    .intersection(self.geometry.supervisor())
                    .intersection(self.xstate.mask);
                answer.ebx = size(Form::Compacted, user.union(supervisor));
            }
            // Xen c3bd0b83ea.
            1 if rule!("xen-c3bd0b83ea-size-with-xsavec") && self.has(XSAVEC) => {
                answer.ebx = size(Form::Compacted, user)
            }
            // The layout keeps the bit, for it is the machine's.
            2.. if rule!("xfd-bit-without-xfd") && !self.has(XFD) => answer.ecx &= !4,
            _ => {}
        }
    }

    /// Leaves that are in no table.
    fn absent(&self, leaf: u32, subleaf: u32, vcpu: &Dynamic) -> CpuidResult {
        let none = CpuidResult::default();
        match leaf {
            HYPERVISOR_BASE => CpuidResult {
                eax: HYPERVISOR_LAST,
                ebx: u32::from_le_bytes(*b"Xfer"),
                ecx: u32::from_le_bytes(*b"ryXf"),
                edx: u32::from_le_bytes(*b"erry"),
            },
            0x4000_0001 => CpuidResult {
                eax: HYPERVISOR_VERSION,
                ..none
            },
            // Levels of topology end with one of kind 0.
            0xb => CpuidResult {
                ecx: subleaf & 0xff,
                edx: vcpu.apic_id,
                ..none
            },
            _ => none,
        }
    }

    /// The bits of CR4 that a guest may set. Others get #GP: machine check,
    /// virtualization, PCID, five-level paging and the performance counters
    /// have no feature here.
    pub fn cr4_allowed(&self) -> u64 {
        self.bits_of(&CR4)
    }

    /// The bits of IA32_EFER that a guest may set; LMA follows LME and paging.
    pub fn efer_allowed(&self) -> u64 {
        self.bits_of(&EFER)
    }

    fn bits_of(&self, register: &[(u64, Bit)]) -> u64 {
        register
            .iter()
            .filter(|(_, feature)| self.has(*feature))
            .fold(0, |all, (bits, _)| all | bits)
    }
}

/// Bits of CR4 and the feature that has each. SDM Vol. 3, 2.5 Control Registers.
const CR4: [(u64, Bit); 17] = [
    // VME and PVI.
    (1 << 0 | 1 << 1, Bit::of("vme")),
    (1 << 2, Bit::of("tsc")),
    (1 << 3, Bit::of("de")),
    (1 << 4, Bit::of("pse")),
    (1 << 5, Bit::of("pae")),
    (1 << 7, Bit::of("pge")),
    (1 << 9, Bit::of("fxsr")),
    (1 << 10, Bit::of("sse")),
    (1 << 11, Bit::of("umip")),
    (1 << 16, Bit::of("fsgsbase")),
    (1 << 18, XSAVE),
    (1 << 20, Bit::of("smep")),
    (1 << 21, Bit::of("smap")),
    (1 << 22, PKU),
    (1 << 23, Bit::of("cet-ss")),
    (1 << 23, Bit::of("cet-ibt")),
    (1 << 25, Bit::of("uintr")),
];

/// Bits of IA32_EFER. SDM Vol. 3, 2.2.1 Extended Feature Enable Register.
const EFER: [(u64, Bit); 3] = [
    (1 << 0, Bit::of("syscall")),
    // LME and LMA.
    (1 << 8 | 1 << 10, Bit::of("lm")),
    (1 << 11, Bit::of("nx")),
];
