//! Registers that neither the control block nor the extended state holds: the
//! breakpoint addresses and TSC_AUX. They change hands when another vCPU is to
//! run; the hypervisor itself uses neither.
#![allow(unsafe_code)] // debug registers and an MSR

/// IA32_TSC_AUX.
const TSC_AUX: u32 = 0xc000_0103;

/// CR4.PKE.
const CR4_PKE: u64 = 1 << 22;

/// The PKRU of the guest that was just left, 0 where `guest_cr4` has no
/// protection keys. PKRU is switched by nobody on the way out of a guest, and
/// the host runs with CR4.PKE set where there is PKU, so that it can be read.
#[must_use]
pub fn guest_pkru(guest_cr4: u64) -> u32 {
    if guest_cr4 & CR4_PKE == 0 {
        return 0;
    }
    let pkru: u32;
    // SAFETY: the guest could set CR4.PKE, so this processor has PKU and the
    // host's CR4.PKE is set; RDPKRU with ECX = 0 only reads.
    unsafe {
        core::arch::asm!(
            "rdpkru",
            in("ecx") 0,
            out("eax") pkru,
            out("edx") _,
            options(nostack, nomem, preserves_flags)
        );
    }
    pkru
}

/// Their values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LiveRegisters {
    /// DR0–DR3. DR6 and DR7 are in the control block; without its DR7 these
    /// addresses do nothing.
    pub breakpoints: [u64; 4],
    /// What RDTSCP and RDPID return; 32 bits.
    pub tsc_aux: u64,
}

impl LiveRegisters {
    /// Takes them from this CPU's registers. TSC_AUX is not read: the guest
    /// cannot write it without an exit.
    #[cfg(target_os = "none")]
    pub fn save(&mut self) {
        let [dr0, dr1, dr2, dr3] = &mut self.breakpoints;
        // SAFETY: reading debug registers at CPL 0 changes nothing; DR7.GD is
        // clear in the host, so it does not trap.
        unsafe {
            core::arch::asm!(
                "mov {}, dr0",
                "mov {}, dr1",
                "mov {}, dr2",
                "mov {}, dr3",
                out(reg) * dr0,
                out(reg) * dr1,
                out(reg) * dr2,
                out(reg) * dr3,
                options(nostack, nomem, preserves_flags)
            );
        }
    }

    /// Puts them into this CPU's registers.
    #[cfg(target_os = "none")]
    pub fn load(&self, has_tsc_aux: bool) {
        let [dr0, dr1, dr2, dr3] = self.breakpoints;
        // SAFETY: the host's DR7 enables no breakpoint (#VMEXIT sets it to
        // 0x400), so the addresses have no effect here.
        unsafe {
            core::arch::asm!(
                "mov dr0, {}", "mov dr1, {}", "mov dr2, {}", "mov dr3, {}",
                in(reg) dr0, in(reg) dr1, in(reg) dr2, in(reg) dr3,
                options(nostack, nomem, preserves_flags)
            );
        }
        self.load_tsc_aux(has_tsc_aux);
    }

    /// Puts TSC_AUX alone into the register: after the guest wrote it, when the
    /// breakpoints in the registers are newer than these.
    pub fn load_tsc_aux(&self, has_tsc_aux: bool) {
        if has_tsc_aux && cfg!(target_os = "none") {
            // SAFETY: TSC_AUX exists by `has_tsc_aux`, its value has 32 bits by
            // the verdict on writing it, and the hypervisor does not read it.
            unsafe { x86::msr::wrmsr(TSC_AUX, self.tsc_aux) };
        }
    }

    /// On a development machine there are no registers to take.
    #[cfg(not(target_os = "none"))]
    pub fn save(&mut self) {}

    /// On a development machine there are no registers to set.
    #[cfg(not(target_os = "none"))]
    pub fn load(&self, _has_tsc_aux: bool) {}
}
