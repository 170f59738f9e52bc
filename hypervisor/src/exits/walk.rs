//! From a guest's linear address to its guest-physical one, through the guest's
//! own page tables, as SDM Vol. 3A, chapter 4 (Paging) has it.
//!
//! ```text
//!   CR0.PG = 0                    linear = physical
//!   PG, no PAE                    PD ─► PT            32-bit entries, 4 MiB with PSE
//!   PG, PAE, EFER.LMA = 0         PDPT ─► PD ─► PT    2 MiB
//!   EFER.LMA                      (PML5 ─►) PML4 ─► PDPT ─► PD ─► PT   1 GiB, 2 MiB
//! ```
//!
//! **Accessed and dirty bits are not set.** An instruction that is fetched again
//! for emulation was fetched by the CPU before it exited, so the accessed bits
//! of its translation are set already; if the guest has cleared them since, it
//! cannot tell this fetch from one made before that. A data access that the CPU
//! did not make itself (the memory operand of INS and OUTS) has no such excuse:
//! its handler must say what it does about them.
//!
//! Of PAE's four page-directory-pointer entries memory's content counts, not
//! what MOV to CR3 loaded: so it is under nested paging (APM Vol. 2, 15.25.10
//! Legacy PAE Mode), and a reserved bit there is a page fault.

mod format;

#[cfg(test)]
#[path = "walk_tests.rs"]
pub(super) mod tests;

#[cfg(test)]
#[path = "walk_reference_tests.rs"]
mod reference_tests;

use crate::mm::addr::GuestPhys;
use core::fmt;
use format::{Entry, Format};

/// A guest's memory, by guest-physical address. `None`: not, or not all of it,
/// memory of the guest. Little-endian.
pub trait PhysicalMemory {
    /// A 32-bit entry at a multiple of 4.
    fn read_u32(&self, address: GuestPhys) -> Option<u32>;

    /// A 64-bit entry at a multiple of 8.
    fn read_u64(&self, address: GuestPhys) -> Option<u64>;

    /// Fills `into` from one page.
    fn read_bytes(&self, address: GuestPhys, into: &mut [u8]) -> Option<()>;
}

/// What a vCPU's registers and its processor say about paging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paging {
    /// CR0.
    pub cr0: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// IA32_EFER.
    pub efer: u64,
    /// RFLAGS, of which AC matters.
    pub rflags: u64,
    /// PKRU, which matters to data with CR4.PKE; 0 for a fetch.
    pub pkru: u32,
    /// Current privilege level.
    pub cpl: u8,
    /// Bits of a physical address (CPUID 8000_0008:EAX[7:0]), 32 to 52.
    pub physical_bits: u8,
    /// 1 GiB pages (CPUID 8000_0001:EDX[26]).
    pub gib_pages: bool,
}

/// CR0 bits.
pub(super) mod cr0 {
    pub const WP: u64 = 1 << 16;
    pub const PG: u64 = 1 << 31;
}

/// CR4 bits.
pub(super) mod cr4 {
    pub const PSE: u64 = 1 << 4;
    pub const PAE: u64 = 1 << 5;
    pub const LA57: u64 = 1 << 12;
    pub const SMEP: u64 = 1 << 20;
    pub const SMAP: u64 = 1 << 21;
    pub const PKE: u64 = 1 << 22;
}

/// EFER bits.
pub(super) mod efer {
    pub const LMA: u64 = 1 << 10;
    pub const NXE: u64 = 1 << 11;
}

const RFLAGS_AC: u64 = 1 << 18;

/// Page-fault error code (SDM Vol. 3A, 4.7 Page-Fault Exceptions).
pub mod error_code {
    /// The translation was there, and its rights or reserved bits are at fault.
    pub const P: u32 = 1 << 0;
    /// A write.
    pub const W: u32 = 1 << 1;
    /// A user-mode access.
    pub const U: u32 = 1 << 2;
    /// A reserved bit was set in an entry.
    pub const RSVD: u32 = 1 << 3;
    /// An instruction fetch, where NX or SMEP is on.
    pub const I: u32 = 1 << 4;
    /// A protection key forbids it.
    pub const PK: u32 = 1 << 5;
}

/// What is done to the memory. The access is an explicit one, at the CPL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// An instruction fetch.
    Fetch,
    /// A data read.
    Read,
    /// A data write.
    Write,
}

/// Why there is no translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// #PF.
    Page {
        /// See [`error_code`].
        error_code: u32,
        /// For CR2.
        address: u64,
    },
    /// #GP(0): not canonical, or beyond a segment's limit. (#SS(0) for data
    /// through SS, which the caller knows.)
    GeneralProtection,
    /// A table, or the memory itself, is not memory of the domain. The CPU
    /// would get a nested page fault, so no exception tells it.
    Unbacked(GuestPhys),
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Page {
                error_code,
                address,
            } => {
                write!(out, "#PF at {address:#x}, error code {error_code:#x}")
            }
            Self::GeneralProtection => write!(out, "#GP(0)"),
            Self::Unbacked(address) => write!(out, "{address} is not memory of the domain"),
        }
    }
}

impl Paging {
    const fn on(&self) -> bool {
        self.cr0 & cr0::PG != 0
    }

    /// Whether linear addresses have more than 32 bits.
    #[must_use]
    pub const fn long(&self) -> bool {
        self.on() && self.efer & efer::LMA != 0
    }

    /// Bits of a linear address: 32, 48 or 57.
    #[must_use]
    pub const fn linear_bits(&self) -> u32 {
        match (self.long(), self.cr4 & cr4::LA57 != 0) {
            (false, _) => 32,
            (true, false) => 48,
            (true, true) => 57,
        }
    }

    /// Whether a linear address is canonical (SDM Vol. 1, 3.3.7.1). Outside
    /// IA-32e mode every address is, and its upper half is ignored.
    #[must_use]
    pub const fn canonical(&self, linear: u64) -> bool {
        !self.long() || is_canonical(linear, self.linear_bits())
    }

    const fn no_execute(&self) -> bool {
        self.efer & efer::NXE != 0 && self.cr4 & cr4::PAE != 0
    }

    const fn user(&self) -> bool {
        self.cpl == 3
    }
}

/// Whether bits 63 to `bits - 1` of an address are the same.
#[must_use]
pub const fn is_canonical(linear: u64, bits: u32) -> bool {
    let unused = 64 - bits;
    // The sign extension of a signed number, on purpose.
    (((linear << unused) as i64) >> unused) as u64 == linear
}

/// The guest-physical address of `linear`.
///
/// # Errors
/// See [`Fault`].
pub fn walk(
    paging: &Paging,
    linear: u64,
    access: Access,
    memory: &impl PhysicalMemory,
) -> Result<GuestPhys, Fault> {
    if !paging.canonical(linear) {
        return Err(Fault::GeneralProtection);
    }
    let linear = if paging.long() {
        linear
    } else {
        linear & 0xffff_ffff
    };
    if !paging.on() {
        return Ok(GuestPhys::new(linear));
    }
    let format = Format::of(paging);
    let mut rights = Rights::ALL;
    let mut table = format.root(paging.cr3);
    let mut level = format.levels();
    loop {
        let address = format.entry_address(table, level, linear);
        let entry = format.read(memory, address, level)?;
        if !entry.present() {
            return Err(fault(paging, linear, access, 0));
        }
        if entry.bits & format.reserved(paging, &entry) != 0 {
            return Err(fault(
                paging,
                linear,
                access,
                error_code::P | error_code::RSVD,
            ));
        }
        rights.restrict(&entry);
        if entry.is_leaf() {
            if let Some(cause) = refused(paging, access, &rights, entry.key()) {
                return Err(fault(paging, linear, access, error_code::P | cause));
            }
            return Ok(entry.translate(linear));
        }
        table = entry.table();
        level -= 1;
    }
}

/// What all entries of a translation allow together.
#[derive(Clone, Copy, Debug)]
struct Rights {
    write: bool,
    user: bool,
    execute: bool,
}

impl Rights {
    const ALL: Self = Self {
        write: true,
        user: true,
        execute: true,
    };

    const fn restrict(&mut self, entry: &Entry) {
        self.write &= entry.writable();
        self.user &= entry.user();
        self.execute &= !entry.no_execute();
    }
}

/// Whether the rights forbid the access (SDM Vol. 3A, 4.6.1 Determination of
/// Access Rights): the error code's further bits if they do. An entry's XD bit
/// is not looked at here where NXE is off, as it is reserved then.
const fn refused(paging: &Paging, access: Access, rights: &Rights, key: u8) -> Option<u32> {
    let user_page = rights.user;
    let allowed = match (access, paging.user()) {
        // Fetches at CPL < 3: not from user pages with SMEP.
        (Access::Fetch, false) => rights.execute && !(user_page && paging.cr4 & cr4::SMEP != 0),
        (Access::Fetch, true) => user_page && rights.execute,
        (Access::Read, false) => supervisor_data(paging, user_page),
        (Access::Read, true) => user_page,
        // Supervisors write to read-only pages unless CR0.WP says no.
        (Access::Write, false) => {
            supervisor_data(paging, user_page) && (rights.write || paging.cr0 & cr0::WP == 0)
        }
        (Access::Write, true) => user_page && rights.write,
    };
    let key_refuses = user_page && key_refuses(paging, access, key);
    match (allowed, key_refuses) {
        (true, false) => None,
        (_, true) => Some(error_code::PK),
        (false, false) => Some(0),
    }
}

/// Data accesses at CPL < 3: not to user pages with SMAP, unless RFLAGS.AC.
const fn supervisor_data(paging: &Paging, user_page: bool) -> bool {
    !user_page || paging.cr4 & cr4::SMAP == 0 || paging.rflags & RFLAGS_AC != 0
}

/// Protection keys of user pages (SDM Vol. 3A, 4.6.2): bit 2k of PKRU forbids
/// data accesses, bit 2k+1 writes, of supervisors with CR0.WP too.
const fn key_refuses(paging: &Paging, access: Access, key: u8) -> bool {
    if paging.cr4 & cr4::PKE == 0 || !paging.long() || matches!(access, Access::Fetch) {
        return false;
    }
    let bits = paging.pkru >> (2 * (key & 15));
    let write_disable = matches!(access, Access::Write)
        && bits & 2 != 0
        && (paging.user() || paging.cr0 & cr0::WP != 0);
    bits & 1 != 0 || write_disable
}

const fn fault(paging: &Paging, linear: u64, access: Access, cause: u32) -> Fault {
    let mut error_code = cause;
    if paging.user() {
        error_code |= error_code::U;
    }
    match access {
        Access::Write => error_code |= error_code::W,
        Access::Fetch if paging.no_execute() || paging.cr4 & cr4::SMEP != 0 => {
            error_code |= error_code::I;
        }
        Access::Fetch | Access::Read => {}
    }
    Fault::Page {
        error_code,
        address: linear,
    }
}
