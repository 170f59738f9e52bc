//! The control-register bits that the hypervisor runs with.
#![allow(unsafe_code)] // writes CR0, CR4 and EFER

use core::fmt;
use raw_cpuid::CpuId;
use x86::controlregs::{Cr0, Cr4, cr0_write, cr4_write};
use x86::msr::{IA32_EFER, rdmsr, wrmsr};

const EFER_NXE: u64 = 1 << 11;

/// What the processor has of what the hypervisor asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "CPUID's names")]
pub struct Features {
    pub apic: bool,
    pub nx: bool,
    pub tsc: bool,
    pub xsave: bool,
    pub pku: bool,
    pub smep: bool,
    pub smap: bool,
    pub svm: bool,
    pub vmx: bool,
    pub invariant_tsc: bool,
    pub rdtscp: bool,
    pub rdpid: bool,
}

/// A feature without which the hypervisor does not run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Missing(pub &'static str);

impl fmt::Display for Missing {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "the processor has no {}", self.0)
    }
}

impl Features {
    /// Asks the processor.
    pub fn read() -> Self {
        let cpuid = CpuId::new();
        let basic = cpuid.get_feature_info();
        let basic = basic.as_ref();
        let structured = cpuid.get_extended_feature_info();
        let structured = structured.as_ref();
        let extended = cpuid.get_extended_processor_and_feature_identifiers();
        let extended = extended.as_ref();
        let power = cpuid.get_advanced_power_mgmt_info();
        Self {
            apic: basic.is_some_and(|leaf| leaf.has_apic()),
            nx: extended.is_some_and(|leaf| leaf.has_execute_disable()),
            tsc: basic.is_some_and(|leaf| leaf.has_tsc()),
            xsave: basic.is_some_and(|leaf| leaf.has_xsave()),
            pku: structured.is_some_and(|leaf| leaf.has_pku()),
            smep: structured.is_some_and(|leaf| leaf.has_smep()),
            smap: structured.is_some_and(|leaf| leaf.has_smap()),
            svm: extended.is_some_and(|leaf| leaf.has_svm()),
            vmx: basic.is_some_and(|leaf| leaf.has_vmx()),
            invariant_tsc: power.is_some_and(|leaf| leaf.has_invariant_tsc()),
            rdtscp: extended.is_some_and(|leaf| leaf.has_rdtscp()),
            rdpid: structured.is_some_and(|leaf| leaf.has_rdpid()),
        }
    }

    /// Refuses a processor that cannot run the hypervisor at all.
    pub const fn check(&self) -> Result<(), Missing> {
        if !self.nx {
            return Err(Missing("no-execute pages (CPUID 8000_0001:EDX[20])"));
        }
        if !self.apic {
            return Err(Missing("local APIC (CPUID 1:EDX[9])"));
        }
        if !self.tsc {
            return Err(Missing("time-stamp counter (CPUID 1:EDX[4])"));
        }
        Ok(())
    }

    /// The CR4 that the hypervisor runs with.
    ///
    /// CR4.PKE is on because guest PKRU stays in the register while the host
    /// runs; the host maps no user page, so no key applies to it, and RDPKRU
    /// works. OSFXSR is for the machines and policies without XSAVE.
    pub fn cr4(&self) -> Cr4 {
        let mut cr4 = Cr4::CR4_ENABLE_PAE | Cr4::CR4_ENABLE_SSE | Cr4::CR4_UNMASKED_SSE;
        cr4.set(Cr4::CR4_ENABLE_OS_XSAVE, self.xsave);
        cr4.set(Cr4::CR4_ENABLE_PROTECTION_KEY, self.pku);
        cr4.set(Cr4::CR4_ENABLE_SMEP, self.smep);
        cr4.set(Cr4::CR4_ENABLE_SMAP, self.smap);
        cr4
    }
}

/// The CR0 that the hypervisor runs with: paging, caches on, write protection
/// for the supervisor too, x87 errors as exceptions, CR0.TS never set.
pub fn cr0() -> Cr0 {
    Cr0::CR0_ENABLE_PAGING
        | Cr0::CR0_WRITE_PROTECT
        | Cr0::CR0_NUMERIC_ERROR
        | Cr0::CR0_EXTENSION_TYPE
        | Cr0::CR0_MONITOR_COPROCESSOR
        | Cr0::CR0_PROTECTED_MODE
}

/// Sets CR0, CR4 and EFER.NXE; returns what the processor has.
///
/// # Safety
/// On each processor before it uses the hypervisor's page tables; nothing that
/// is mapped read-only may be in need of writing.
pub unsafe fn enable() -> Result<Features, Missing> {
    let features = Features::read();
    features.check()?;
    // SAFETY: at CPL 0, in long mode. Each CR4 bit is one that CPUID has; PAE
    // and paging stay on; no 5-level paging or PCID was on that would have to
    // stay. NXE is known by the check above; it makes no present entry invalid
    // where bit 63 is clear, as in the boot tables.
    unsafe {
        cr4_write(features.cr4());
        cr0_write(cr0());
        wrmsr(IA32_EFER, rdmsr(IA32_EFER) | EFER_NXE);
    }
    Ok(features)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Features = Features {
        apic: false,
        nx: false,
        tsc: false,
        xsave: false,
        pku: false,
        smep: false,
        smap: false,
        svm: false,
        vmx: false,
        invariant_tsc: false,
        rdtscp: false,
        rdpid: false,
    };

    #[test]
    fn cr4_asks_only_for_what_is_there() {
        assert_eq!(NOTHING.cr4().bits(), 0x620);
        let all = Features {
            xsave: true,
            pku: true,
            smep: true,
            smap: true,
            ..NOTHING
        };
        assert_eq!(
            all.cr4().bits(),
            0x620 | 1 << 18 | 1 << 22 | 1 << 20 | 1 << 21
        );
    }

    #[test]
    fn cr0_keeps_caches_on_and_ts_off() {
        assert_eq!(cr0().bits(), 0x8001_0033);
    }

    #[test]
    fn a_processor_without_nx_is_refused_first() {
        assert!(NOTHING.check().unwrap_err().0.starts_with("no-execute"));
        assert_eq!(
            Features {
                nx: true,
                apic: true,
                tsc: true,
                ..NOTHING
            }
            .check(),
            Ok(())
        );
    }
}
