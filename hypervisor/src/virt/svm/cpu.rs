//! SVM on one CPU: switched on, the host's VMSAVE state, and its ASIDs.
#![allow(unsafe_code)] // EFER, VM_HSAVE_PA, VMSAVE

use super::EFER_SVME;
use super::vmcb::Vmcb;
use crate::mm::addr::HostPhys;
use alloc::boxed::Box;
use raw_cpuid::CpuId;
use x86::msr::{IA32_EFER, rdmsr, wrmsr};

const VM_CR: u32 = 0xc001_0114;
const VM_CR_SVMDIS: u64 = 1 << 4;
const VM_HSAVE_PA: u32 = 0xc001_0117;

/// What of a CPU belongs to this backend.
pub struct SvmCpu {
    number: u32,
    host: Box<Vmcb>,
    asids: Asids,
}

/// Why SVM cannot be used, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SvmError {
    /// CPUID 0x80000001:ECX.SVM is clear.
    Absent,
    /// The firmware set VM_CR.SVMDIS.
    Disabled,
    /// CPUID 0x8000000A:EDX.NP is clear.
    NoNestedPaging,
    /// No memory for the save areas.
    OutOfMemory,
}

impl core::fmt::Display for SvmError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Absent => "this processor has no SVM (CPUID 0x80000001:ECX[2] = 0)",
            Self::Disabled => "SVM is switched off by the firmware (VM_CR.SVMDIS = 1)",
            Self::NoNestedPaging => {
                "this processor has no nested paging (CPUID 0x8000000A:EDX[0] = 0)"
            }
            Self::OutOfMemory => "no memory for the host's save area",
        })
    }
}

/// See [`crate::virt::Backend::enable`].
pub fn enable(number: u32) -> Result<SvmCpu, SvmError> {
    let cpuid = CpuId::new();
    let features = cpuid.get_svm_info().ok_or(SvmError::Absent)?;
    if !features.has_nested_paging() {
        return Err(SvmError::NoNestedPaging);
    }
    let mut host = super::zeroed_vmcb().map_err(|_| SvmError::OutOfMemory)?;
    // The processor's own save area; it is never freed.
    let save_area = Box::leak(super::zeroed_vmcb().map_err(|_| SvmError::OutOfMemory)?);
    // SAFETY: VM_CR exists where SVM does; reading it has no effect. EFER.SVME
    // may be set since SVMDIS is clear. VM_HSAVE_PA is given a page of its own,
    // identity-mapped. VMSAVE writes only into `host`, a page of its own.
    unsafe {
        if rdmsr(VM_CR) & VM_CR_SVMDIS != 0 {
            return Err(SvmError::Disabled);
        }
        wrmsr(IA32_EFER, rdmsr(IA32_EFER) | EFER_SVME);
        wrmsr(VM_HSAVE_PA, HostPhys::of(&raw const *save_area).as_u64());
        core::arch::asm!(
            "vmsave rax",
            in("rax") HostPhys::of(&raw mut *host).as_u64(),
            options(nostack, preserves_flags)
        );
    }
    Ok(SvmCpu {
        number,
        host,
        asids: Asids::new(features.supported_asids()),
    })
}

impl SvmCpu {
    /// A CPU that never enters a guest.
    #[cfg(test)]
    pub(crate) fn idle() -> Self {
        Self {
            number: 0,
            host: super::zeroed_vmcb().unwrap(),
            asids: Asids::new(16),
        }
    }

    /// Where this CPU's VMSAVE state lies.
    #[cfg_attr(not(target_os = "none"), allow(dead_code))] // VMRUN is not run there
    pub(super) fn host_state(&self) -> HostPhys {
        HostPhys::of(&raw const *self.host)
    }

    /// The ASID for `asid`'s vCPU on this CPU, and whether translations under
    /// it may be stale.
    pub(super) fn asid(&mut self, asid: &mut Asid) -> (u32, bool) {
        self.asids.get(self.number, asid)
    }
}

/// A vCPU's ASID, and where and when it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asid {
    number: u32,
    cpu: u32,
    generation: u64,
}

impl Asid {
    /// None was given yet.
    pub const NONE: Self = Self {
        number: 0,
        cpu: u32::MAX,
        generation: 0,
    };
}

/// The ASIDs of one CPU. They are given in order; when the last is gone all
/// translations are flushed and a new generation begins.
struct Asids {
    last: u32,
    next: u32,
    generation: u64,
}

impl Asids {
    /// For a processor with `count` ASIDs, of which 0 is the host's.
    fn new(count: u32) -> Self {
        Self {
            last: count.saturating_sub(1).max(1),
            next: 1,
            generation: 1,
        }
    }

    fn get(&mut self, cpu: u32, asid: &mut Asid) -> (u32, bool) {
        if asid.cpu == cpu && asid.generation == self.generation {
            return (asid.number, false);
        }
        let mut stale = false;
        if self.next > self.last {
            self.next = 1;
            self.generation += 1;
            stale = true;
        }
        *asid = Asid {
            number: self.next,
            cpu,
            generation: self.generation,
        };
        self.next += 1;
        (asid.number, stale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_asid_is_kept_until_they_run_out_and_then_all_are_flushed() {
        let mut asids = Asids::new(3);
        let (mut a, mut b, mut c) = (Asid::NONE, Asid::NONE, Asid::NONE);
        assert_eq!(asids.get(0, &mut a), (1, false));
        assert_eq!(asids.get(0, &mut b), (2, false));
        assert_eq!(asids.get(0, &mut a), (1, false));
        // The third vCPU starts a generation; who had an ASID gets another.
        assert_eq!(asids.get(0, &mut c), (1, true));
        assert_eq!(asids.get(0, &mut a), (2, false));
        assert_eq!(asids.get(0, &mut c), (1, false));
        assert_eq!(asids.get(0, &mut b), (1, true));
    }

    #[test]
    fn an_asid_of_another_cpu_is_not_used_here() {
        let mut asids = Asids::new(16);
        let mut a = Asid::NONE;
        asids.get(0, &mut a);
        let mut other = Asids::new(16);
        other.next = 5;
        assert_eq!(other.get(1, &mut a), (5, false));
    }
}
