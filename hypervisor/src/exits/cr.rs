//! What a guest may write to CR0, CR3, CR4, CR8 and EFER, as pure verdicts.
//!
//! ```text
//!   now + value + policy ─► Err(rule)   #GP(0), nothing changes
//!                        └► Ok(Change)  the registers' new values, and whether
//!                                       cached translations must go
//! ```
//!
//! Sources: SDM Vol. 2B, MOV—Move to/from Control Registers; SDM Vol. 3A, 2.5
//! Control Registers, 4.1 Paging Modes and Control Bits, 4.10.4.1 Operations
//! that Invalidate TLBs, 10.8.5 Initializing IA-32e Mode; SDM Vol. 4, Table 2-2
//! (IA32_EFER); APM Vol. 2, 3.1 and 14.6.

#[cfg(test)]
#[path = "cr_tests.rs"]
mod tests;

use core::fmt;

/// Protection enable.
pub const CR0_PE: u64 = 1 << 0;
/// Extension type: always 1.
pub const CR0_ET: u64 = 1 << 4;
/// Write protect.
pub const CR0_WP: u64 = 1 << 16;
/// Not write-through.
pub const CR0_NW: u64 = 1 << 29;
/// Cache disable.
pub const CR0_CD: u64 = 1 << 30;
/// Paging.
pub const CR0_PG: u64 = 1 << 31;
/// All defined bits: PE, MP, EM, TS, ET, NE, WP, AM, NW, CD, PG.
pub const CR0_BITS: u64 = 0xe005_003f;

/// Page size extensions.
pub const CR4_PSE: u64 = 1 << 4;
/// Physical address extension.
pub const CR4_PAE: u64 = 1 << 5;
/// Global pages.
pub const CR4_PGE: u64 = 1 << 7;
/// 57-bit linear addresses.
pub const CR4_LA57: u64 = 1 << 12;
/// Process-context identifiers.
pub const CR4_PCIDE: u64 = 1 << 17;
/// XSAVE and XCR0.
pub const CR4_OSXSAVE: u64 = 1 << 18;
/// Supervisors do not execute users' pages.
pub const CR4_SMEP: u64 = 1 << 20;
/// Supervisors do not touch users' pages.
pub const CR4_SMAP: u64 = 1 << 21;
/// Protection keys.
pub const CR4_PKE: u64 = 1 << 22;
/// Control-flow enforcement.
pub const CR4_CET: u64 = 1 << 23;

/// Long mode is wanted.
pub const EFER_LME: u64 = 1 << 8;
/// Long mode is on; follows from the others.
pub const EFER_LMA: u64 = 1 << 10;

/// Bits of CR4 whose change makes cached translations wrong.
const CR4_TRANSLATION: u64 =
    CR4_PSE | CR4_PAE | CR4_PGE | CR4_LA57 | CR4_PCIDE | CR4_SMEP | CR4_SMAP | CR4_PKE | CR4_CET;

/// CR3.63 with PCIDs: keep the cached translations.
const CR3_NO_FLUSH: u64 = 1 << 63;

/// The registers before the write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    /// CR0.
    pub cr0: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// IA32_EFER.
    pub efer: u64,
    /// CS.L.
    pub code_is_long: bool,
}

impl Control {
    const fn paging(&self) -> bool {
        self.cr0 & CR0_PG != 0
    }

    const fn long(&self) -> bool {
        self.efer & EFER_LMA != 0
    }
}

/// What a guest's policy allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// Bits of CR4.
    pub cr4: u64,
    /// Bits of EFER; LMA is not looked at.
    pub efer: u64,
    /// Bits of a physical address, 32 to 52.
    pub physical_bits: u8,
}

/// The registers after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// What was written, with its new value.
    pub value: u64,
    /// EFER, whose LMA follows CR0.PG.
    pub efer: u64,
    /// Cached translations of the guest must go.
    pub flush: bool,
}

/// Why a write gets #GP(0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrError {
    /// Bits that are reserved or not in the policy: seen, allowed.
    Bits(u64, u64),
    /// CR0.PG without PE.
    PagingWithoutProtection,
    /// CR0.NW without CD.
    NotWriteThroughWithoutCacheDisable,
    /// Paging with EFER.LME and no CR4.PAE.
    LongWithoutPae,
    /// Paging with EFER.LME, in a code segment with L.
    EnterLongInLongCode,
    /// CR0.PG cleared in 64-bit code.
    LeaveLongInLongCode,
    /// CR0.PG cleared with CR4.PCIDE.
    LeaveLongWithPcids,
    /// CR0.WP cleared with CR4.CET, or CET set without WP.
    CetWithoutWriteProtect,
    /// CR4.PAE cleared in long mode.
    NoPaeInLong,
    /// CR4.LA57 changed in long mode.
    La57InLong,
    /// CR4.PCIDE set outside long mode, or with a PCID in CR3.
    Pcide,
    /// EFER.LME changed with paging on.
    LmeWithPaging,
}

impl fmt::Display for CrError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = match self {
            Self::Bits(seen, allowed) => {
                return write!(out, "saw {seen:#x}, allowed {allowed:#x}");
            }
            Self::PagingWithoutProtection => "PG needs PE",
            Self::NotWriteThroughWithoutCacheDisable => "NW needs CD",
            Self::LongWithoutPae => "PG with LME needs PAE",
            Self::EnterLongInLongCode => "PG with LME needs CS.L = 0",
            Self::LeaveLongInLongCode => "PG stays in 64-bit code",
            Self::LeaveLongWithPcids => "PG stays with PCIDE",
            Self::CetWithoutWriteProtect => "CET needs WP",
            Self::NoPaeInLong => "PAE stays in long mode",
            Self::La57InLong => "LA57 stays as it is in long mode",
            Self::Pcide => "PCIDE needs long mode and PCID 0",
            Self::LmeWithPaging => "LME stays as it is with paging on",
        };
        out.write_str(rule)
    }
}

const fn only(value: u64, allowed: u64) -> Result<(), CrError> {
    if value & !allowed == 0 {
        Ok(())
    } else {
        Err(CrError::Bits(value, allowed))
    }
}

/// Whether a value of CR0 can be, whatever the other registers are.
#[must_use]
pub const fn cr0_is_legal(value: u64) -> bool {
    value & !CR0_BITS == 0 && cr0_combination(value).is_ok()
}

const fn cr0_combination(value: u64) -> Result<(), CrError> {
    if value & CR0_PG != 0 && value & CR0_PE == 0 {
        return Err(CrError::PagingWithoutProtection);
    }
    if value & CR0_NW != 0 && value & CR0_CD == 0 {
        return Err(CrError::NotWriteThroughWithoutCacheDisable);
    }
    Ok(())
}

/// MOV to CR0, CLTS and LMSW.
///
/// # Errors
/// See [`CrError`].
pub fn cr0_verdict(now: &Control, value: u64) -> Result<Change, CrError> {
    // The upper half is reserved and checked; reserved bits of the lower half
    // are ignored, and ET is hardwired.
    only(value, 0xffff_ffff)?;
    let value = value & CR0_BITS | CR0_ET;
    cr0_combination(value)?;
    if value & CR0_WP == 0 && now.cr4 & CR4_CET != 0 {
        return Err(CrError::CetWithoutWriteProtect);
    }
    let mut efer = now.efer;
    match (now.paging(), value & CR0_PG != 0) {
        (false, true) if now.efer & EFER_LME != 0 => {
            if now.cr4 & CR4_PAE == 0 {
                return Err(CrError::LongWithoutPae);
            }
            if now.code_is_long {
                return Err(CrError::EnterLongInLongCode);
            }
            efer |= EFER_LMA;
        }
        (true, false) => {
            if now.long() && now.code_is_long {
                return Err(CrError::LeaveLongInLongCode);
            }
            if now.cr4 & CR4_PCIDE != 0 {
                return Err(CrError::LeaveLongWithPcids);
            }
            efer &= !EFER_LMA;
        }
        _ => {}
    }
    // WP is part of what some processors cache (APM Vol. 2, 5.5.2).
    let flush = (value ^ now.cr0) & (CR0_PG | CR0_WP | CR0_PE) != 0;
    Ok(Change { value, efer, flush })
}

/// The value that LMSW writes to CR0: PE, MP, EM and TS of its operand, but
/// PE stays where it is set (SDM Vol. 2A, LMSW).
#[must_use]
pub const fn lmsw_value(cr0: u64, operand: u16) -> u64 {
    cr0 & !0xe | operand as u64 & 0xf
}

/// MOV to CR3.
///
/// # Errors
/// Bits beyond the width of a physical address, outside PAE's and 32-bit
/// paging's registers, which have 32 bits.
pub fn cr3_verdict(now: &Control, allowed: &Allowed, value: u64) -> Result<Change, CrError> {
    let pcids = now.cr4 & CR4_PCIDE != 0;
    let keep = pcids && value & CR3_NO_FLUSH != 0;
    let value = if pcids { value & !CR3_NO_FLUSH } else { value };
    only(value, physical_mask(allowed.physical_bits))?;
    Ok(Change {
        value,
        efer: now.efer,
        flush: !keep,
    })
}

const fn physical_mask(bits: u8) -> u64 {
    let bits = match bits {
        ..32 => 32,
        53.. => 52,
        bits => bits,
    };
    (1 << bits) - 1
}

/// MOV to CR4.
///
/// # Errors
/// See [`CrError`].
pub fn cr4_verdict(now: &Control, allowed: &Allowed, value: u64) -> Result<Change, CrError> {
    only(value, allowed.cr4)?;
    let changed = value ^ now.cr4;
    if now.long() && value & CR4_PAE == 0 {
        return Err(CrError::NoPaeInLong);
    }
    if now.long() && changed & CR4_LA57 != 0 {
        return Err(CrError::La57InLong);
    }
    if changed & value & CR4_PCIDE != 0 && (!now.long() || now.cr3 & 0xfff != 0) {
        return Err(CrError::Pcide);
    }
    if value & CR4_CET != 0 && now.cr0 & CR0_WP == 0 {
        return Err(CrError::CetWithoutWriteProtect);
    }
    Ok(Change {
        value,
        efer: now.efer,
        flush: changed & CR4_TRANSLATION != 0,
    })
}

/// MOV to CR8: four bits.
///
/// # Errors
/// More than those.
pub fn cr8_verdict(value: u64) -> Result<u64, CrError> {
    only(value, 0xf)?;
    Ok(value)
}

/// WRMSR to IA32_EFER. LMA is read-only and what is written to it ignored. SVME
/// is not in any policy: there is no nested virtualization.
///
/// # Errors
/// See [`CrError`].
pub fn efer_verdict(now: &Control, allowed: &Allowed, value: u64) -> Result<Change, CrError> {
    only(value & !EFER_LMA, allowed.efer & !EFER_LMA)?;
    let changed = value ^ now.efer;
    if now.paging() && changed & EFER_LME != 0 {
        return Err(CrError::LmeWithPaging);
    }
    let efer = value & !EFER_LMA | now.efer & EFER_LMA;
    // NXE decides whether bit 63 of an entry is reserved.
    let flush = efer != now.efer;
    Ok(Change {
        value: efer,
        efer,
        flush,
    })
}
