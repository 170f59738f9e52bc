//! The real instructions.
//!
//! SDM Vol. 1, 13.7 to 13.12 (operation of each instruction); Vol. 2 for their
//! faults. A restore is a naked function with its instruction at a known
//! address, so that a trap handler can tell its fault from all others and
//! resume at the error return: see [`fixup`].

use core::arch::{asm, naked_asm};

use super::{ComponentMsr, Exchange, Hardware, RestoreFault, RestoreInstruction};
use crate::cpuid::SaveInstruction;

const IA32_XFD: u32 = 0x1c4;
const IA32_XFD_ERR: u32 = 0x1c5;
const IA32_XSS: u32 = 0xda0;

/// The processor that executes this code.
///
/// No copies: each is a promise about what it is used with.
#[derive(Debug)]
pub struct Silicon(());

impl Silicon {
    /// The processor that executes this code, for a
    /// [`PcpuXstate`](crate::PcpuXstate) or a
    /// [`RegisterFile`](super::RegisterFile), whose safe functions rely on it.
    ///
    /// # Safety
    /// As long as it is used:
    ///
    /// - The [`HostXstate`](crate::HostXstate) that it is used with was read
    ///   from answers of this processor's own CPUID, or from narrower ones: XCR0
    ///   and IA32_XSS take every bit that they list, instructions and registers
    ///   that they list are there, and every component is as large and at the
    ///   place that they say. Otherwise a save writes beyond the area.
    /// - The code that uses it runs at CPL 0 with CR4.OSXSAVE set, CR0.TS and
    ///   CR0.EM clear, and CR4.PKE set where there is PKU; on no processor with
    ///   another layout.
    /// - Nothing of the program depends on what the registers hold: it is
    ///   compiled without vector registers, and maps no user pages that a guest's
    ///   PKRU could close.
    ///
    /// What is never asked to execute an instruction owes none of this.
    pub const unsafe fn new() -> Self {
        Self(())
    }
}

/// A restore that may fault: where, and where it then returns its error.
struct Fixup {
    restore: *const u8,
    failed: *const u8,
}

/// Where to resume after a #GP or #NM at `rip`, if the instruction there is
/// one of this module's restores: the restore then returns an error. Trap
/// handlers of the host call this before they give up.
pub fn fixup(rip: u64) -> Option<u64> {
    // Labels within the naked functions below.
    unsafe extern "C" {
        static vcpu_xstate_xrstor: u8;
        static vcpu_xstate_xrstor_failed: u8;
        static vcpu_xstate_xrstors: u8;
        static vcpu_xstate_xrstors_failed: u8;
        static vcpu_xstate_exchange_xrstor: u8;
        static vcpu_xstate_exchange_xrstor_failed: u8;
        static vcpu_xstate_exchange_xrstors: u8;
        static vcpu_xstate_exchange_xrstors_failed: u8;
    }
    let at = |label: *const u8| label.addr() as u64;
    let table = [
        Fixup {
            restore: &raw const vcpu_xstate_xrstor,
            failed: &raw const vcpu_xstate_xrstor_failed,
        },
        Fixup {
            restore: &raw const vcpu_xstate_xrstors,
            failed: &raw const vcpu_xstate_xrstors_failed,
        },
        Fixup {
            restore: &raw const vcpu_xstate_exchange_xrstor,
            failed: &raw const vcpu_xstate_exchange_xrstor_failed,
        },
        Fixup {
            restore: &raw const vcpu_xstate_exchange_xrstors,
            failed: &raw const vcpu_xstate_exchange_xrstors_failed,
        },
    ];
    table
        .into_iter()
        .find(|fixup| at(fixup.restore) == rip)
        .map(|fixup| at(fixup.failed))
}

/// A naked function of one restore instruction: `$mnemonic` of the image at
/// RDI with RFBM = RSI; returns 0, or 1 if it faulted.
///
/// 1. EDX:EAX = RFBM. 2. Restore. 3. Return 0; the fixup enters at step 4.
/// 4. Return 1.
macro_rules! restore_function {
    ($name:ident, $mnemonic:literal, $label:literal) => {
        #[unsafe(naked)]
        unsafe extern "C" fn $name(image: *const u8, rfbm: u64) -> u64 {
            naked_asm!(
                "mov eax, esi",
                "mov rdx, rsi",
                "shr rdx, 32",
                concat!(".globl ", $label),
                concat!($label, ":"),
                concat!($mnemonic, " [rdi]"),
                "xor eax, eax",
                "ret",
                concat!(".globl ", $label, "_failed"),
                concat!($label, "_failed:"),
                "mov eax, 1",
                "ret",
            )
        }
    };
}

restore_function!(xrstor64, "xrstor64", "vcpu_xstate_xrstor");
restore_function!(xrstors64, "xrstors64", "vcpu_xstate_xrstors");

/// A naked function of a save and the restore that belongs to it, called from
/// `call_exchange` alone: saves to R8 with RFBM = EDX:EAX, restores all of R9.
/// CF is then clear, or set if the restore faulted. Changes EAX and EDX, and no
/// other general-purpose register.
///
/// 1. Save. 2. EDX:EAX = all ones; OR clears CF, and no restore changes flags.
/// 3. Restore. 4. Return; the fixup enters at step 5. 5. Set CF, return.
macro_rules! exchange_function {
    ($name:ident, $save:literal, $restore:literal, $label:literal) => {
        #[unsafe(naked)]
        unsafe extern "C" fn $name() {
            naked_asm!(
                concat!($save, " [r8]"),
                "or eax, -1",
                "mov edx, eax",
                concat!(".globl ", $label),
                concat!($label, ":"),
                concat!($restore, " [r9]"),
                "ret",
                concat!(".globl ", $label, "_failed"),
                concat!($label, "_failed:"),
                "stc",
                "ret",
            )
        }
    };
}

exchange_function!(
    exchange_user,
    "xsavec64",
    "xrstor64",
    "vcpu_xstate_exchange_xrstor"
);
exchange_function!(
    exchange_all,
    "xsaves64",
    "xrstors64",
    "vcpu_xstate_exchange_xrstors"
);

/// They are in every program, inlined into or not: [`fixup`] names their labels.
#[used]
static EXCHANGES: [unsafe extern "C" fn(); 2] = [exchange_user, exchange_all];

/// Calls one of the two above; returns an error where it set CF. Where the
/// compiler may hold values in vector registers, it is told that all of them
/// change; the hypervisor's target has none, and there the call costs no saved
/// register.
macro_rules! call_exchange {
    ($function:ident, $from:expr, $rfbm:expr, $to:expr) => {{
        let (low, high) = halves($rfbm);
        #[cfg(target_feature = "sse")]
        asm!("call {}", "jc {}", sym $function, label { return Err(RestoreFault) },
            inout("eax") low => _, inout("edx") high => _,
            inout("r8") $from => _, inout("r9") $to => _, clobber_abi("sysv64"));
        #[cfg(not(target_feature = "sse"))]
        asm!("call {}", "jc {}", sym $function, label { return Err(RestoreFault) },
            inout("eax") low => _, inout("edx") high => _, in("r8") $from, in("r9") $to);
    }};
}

const fn halves(value: u64) -> (u32, u32) {
    (value as u32, (value >> 32) as u32)
}

/// WRMSR.
///
/// # Safety
/// The register exists, takes `value`, and the value breaks nothing that runs.
unsafe fn wrmsr(register: u32, value: u64) {
    let (low, high) = halves(value);
    // SAFETY: as the caller promises.
    unsafe {
        asm!("wrmsr", in("ecx") register, in("eax") low, in("edx") high,
            options(nostack, preserves_flags));
    }
}

/// RDMSR.
///
/// # Safety
/// The register exists.
unsafe fn rdmsr(register: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: as the caller promises; a read changes nothing.
    unsafe {
        asm!("rdmsr", in("ecx") register, out("eax") low, out("edx") high,
            options(nostack, preserves_flags, nomem));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// One save instruction by its mnemonic.
macro_rules! save_with {
    ($mnemonic:literal, $image:expr, $rfbm:expr) => {{
        let (low, high) = halves($rfbm);
        // Memory is clobbered: the instruction writes the image.
        asm!(concat!($mnemonic, " [{image}]"), image = in(reg) $image,
            in("eax") low, in("edx") high, options(nostack, preserves_flags));
    }};
}

impl Hardware for Silicon {
    unsafe fn write_xcr0(&mut self, value: u64) {
        let (low, high) = halves(value);
        // SAFETY: as the caller promises.
        unsafe {
            asm!("xsetbv", in("ecx") 0, in("eax") low, in("edx") high,
                options(nostack, preserves_flags));
        }
    }

    unsafe fn write_xss(&mut self, value: u64) {
        // SAFETY: as the caller promises.
        unsafe { wrmsr(IA32_XSS, value) }
    }

    unsafe fn write_xfd(&mut self, value: u64) {
        // SAFETY: as the caller promises.
        unsafe { wrmsr(IA32_XFD, value) }
    }

    unsafe fn write_xfd_err(&mut self, value: u64) {
        // SAFETY: as the caller promises.
        unsafe { wrmsr(IA32_XFD_ERR, value) }
    }

    unsafe fn read_xfd_err(&mut self) -> u64 {
        // SAFETY: as the caller promises.
        unsafe { rdmsr(IA32_XFD_ERR) }
    }

    unsafe fn read_pkru(&mut self) -> u32 {
        let value: u32;
        // SAFETY: as the caller promises; ECX must be 0, EDX becomes 0.
        unsafe {
            asm!("rdpkru", in("ecx") 0, out("eax") value, out("edx") _,
                options(nostack, preserves_flags, nomem));
        }
        value
    }

    unsafe fn write_pkru(&mut self, value: u32) {
        // SAFETY: as the caller promises; ECX and EDX must be 0. Memory counts
        // as clobbered, so that no access moves across the change of rights.
        unsafe {
            asm!("wrpkru", in("ecx") 0, in("eax") value, in("edx") 0,
                options(nostack, preserves_flags));
        }
    }

    unsafe fn read_msr(&mut self, register: ComponentMsr) -> u64 {
        // SAFETY: as the caller promises.
        unsafe { rdmsr(register.number()) }
    }

    unsafe fn write_msr(&mut self, register: ComponentMsr, value: u64) {
        // SAFETY: as the caller promises.
        unsafe { wrmsr(register.number(), value) }
    }

    // Never inlined, so that a check of the linked program can tell by the
    // function's name who moves state.
    #[inline(never)]
    unsafe fn save(&mut self, instruction: SaveInstruction, image: *mut [u8], rfbm: u64) {
        let image = image.cast::<u8>();
        // SAFETY: as the caller promises.
        unsafe {
            match instruction {
                SaveInstruction::Xsave => save_with!("xsave64", image, rfbm),
                SaveInstruction::Xsaveopt => save_with!("xsaveopt64", image, rfbm),
                SaveInstruction::Xsavec => save_with!("xsavec64", image, rfbm),
                SaveInstruction::Xsaves => save_with!("xsaves64", image, rfbm),
            }
        }
    }

    unsafe fn restore(
        &mut self,
        instruction: RestoreInstruction,
        image: *const [u8],
        rfbm: u64,
    ) -> Result<(), RestoreFault> {
        let image = image.cast::<u8>();
        // SAFETY: as the caller promises. A function call may change every
        // vector register by the ABI, so no compiler holds a value in one.
        let failed = unsafe {
            match instruction {
                RestoreInstruction::Xrstor => xrstor64(image, rfbm),
                RestoreInstruction::Xrstors => xrstors64(image, rfbm),
            }
        };
        if failed == 0 {
            Ok(())
        } else {
            Err(RestoreFault)
        }
    }

    #[inline(always)]
    unsafe fn exchange(
        &mut self,
        exchange: Exchange,
        from: *mut [u8],
        rfbm: u64,
        to: *const [u8],
    ) -> Result<(), RestoreFault> {
        let (from, to) = (from.cast::<u8>(), to.cast::<u8>());
        // SAFETY: as the caller promises; the two functions change what the
        // calls say.
        unsafe {
            match exchange {
                Exchange::User => call_exchange!(exchange_user, from, rfbm, to),
                Exchange::All => call_exchange!(exchange_all, from, rfbm, to),
            }
        }
        Ok(())
    }

    #[inline(never)]
    unsafe fn clear_fp_pointers(&mut self) {
        let zero = 0u32;
        // SAFETY: x87 is free to use, as the caller promises. FNCLEX first: a
        // pending exception would make FILD raise #MF. FFREE makes room on the
        // stack; FILD then sets the three pointers to this place.
        unsafe {
            asm!("fnclex", "ffree st(7)", "fild dword ptr [{}]", in(reg) &raw const zero,
                options(nostack, preserves_flags));
        }
    }
}

// Miri has no instructions of the XSAVE family.
#[cfg(all(test, not(miri)))]
#[path = "silicon_tests.rs"]
mod tests;
