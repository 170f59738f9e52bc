//! The four formats of page tables: where an entry lies, what its bits mean and
//! which are reserved (SDM Vol. 3A, 4.3 to 4.5, tables "Format of …").

use super::{Fault, Paging, PhysicalMemory, cr4, efer};
use crate::mm::addr::GuestPhys;

const P: u64 = 1 << 0;
const RW: u64 = 1 << 1;
const US: u64 = 1 << 2;
const PS: u64 = 1 << 7;
const XD: u64 = 1 << 63;

/// Bits `high` to `low` set.
const fn bits(high: u32, low: u32) -> u64 {
    (u64::MAX >> (63 - high)) & (u64::MAX << low)
}

/// A paging mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// 32-bit paging; whether CR4.PSE is set.
    Bits32 { pse: bool },
    /// PAE paging.
    Pae,
    /// 4-level or 5-level paging.
    Long { levels: u32 },
}

/// An entry, zero-extended, with where it was found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub bits: u64,
    format: Format,
    /// 1 for a page table's.
    level: u32,
}

impl Format {
    pub const fn of(paging: &Paging) -> Self {
        if paging.efer & efer::LMA != 0 {
            Self::Long {
                levels: if paging.cr4 & cr4::LA57 != 0 { 5 } else { 4 },
            }
        } else if paging.cr4 & cr4::PAE != 0 {
            Self::Pae
        } else {
            Self::Bits32 {
                pse: paging.cr4 & cr4::PSE != 0,
            }
        }
    }

    pub const fn levels(self) -> u32 {
        match self {
            Self::Bits32 { .. } => 2,
            Self::Pae => 3,
            Self::Long { levels } => levels,
        }
    }

    /// The topmost table. PAE's four entries are aligned to 32 bytes only.
    pub const fn root(self, cr3: u64) -> u64 {
        match self {
            Self::Bits32 { .. } => cr3 & bits(31, 12),
            Self::Pae => cr3 & bits(31, 5),
            Self::Long { .. } => cr3 & bits(51, 12),
        }
    }

    /// The lowest bit of a linear address that `level`'s index takes.
    const fn shift(self, level: u32) -> u32 {
        let width = if matches!(self, Self::Bits32 { .. }) {
            10
        } else {
            9
        };
        12 + width * (level - 1)
    }

    pub const fn entry_address(self, table: u64, level: u32, linear: u64) -> GuestPhys {
        let index = linear >> self.shift(level);
        // A table's address has 52 bits, so nothing here overflows.
        GuestPhys::new(match self {
            Self::Bits32 { .. } => table + (index & 0x3ff) * 4,
            Self::Pae if level == 3 => table + (index & 3) * 8,
            _ => table + (index & 0x1ff) * 8,
        })
    }

    pub fn read(
        self,
        memory: &impl PhysicalMemory,
        address: GuestPhys,
        level: u32,
    ) -> Result<Entry, Fault> {
        let bits = match self {
            Self::Bits32 { .. } => memory.read_u32(address).map(u64::from),
            _ => memory.read_u64(address),
        };
        let bits = bits.ok_or(Fault::Unbacked(address))?;
        Ok(Entry {
            bits,
            format: self,
            level,
        })
    }

    /// The bits that must be zero in a present entry.
    pub const fn reserved(self, paging: &Paging, entry: &Entry) -> u64 {
        let width = match paging.physical_bits {
            ..32 => 32,
            53.. => 52,
            width => width as u32,
        };
        let no_xd = if paging.efer & efer::NXE == 0 { XD } else { 0 };
        let (level, leaf) = (entry.level, entry.is_leaf());
        match self {
            // PSE-36: bits 20:13 are address bits 39:32, as far as there are
            // such, and bit 21 is reserved.
            Self::Bits32 { .. } if level == 2 && leaf => {
                let high = if width > 40 { 40 } else { width };
                bits(21, high - 19)
            }
            Self::Bits32 { .. } => 0,
            Self::Pae if level == 3 => bits(63, width) | bits(8, 5) | bits(2, 1),
            Self::Pae => {
                let frame = if level == 2 && leaf { bits(20, 13) } else { 0 };
                bits(62, width) | frame | no_xd
            }
            Self::Long { .. } => {
                let frame = match level {
                    4 | 5 => PS,
                    3 if leaf && !paging.gib_pages => PS,
                    2 | 3 if leaf => bits(self.shift(level) - 1, 13),
                    _ => 0,
                };
                let above = if width < 52 { bits(51, width) } else { 0 };
                above | frame | no_xd
            }
        }
    }
}

impl Entry {
    pub const fn present(&self) -> bool {
        self.bits & P != 0
    }

    /// A page-directory-pointer entry of PAE has no rights of its own.
    const fn has_rights(&self) -> bool {
        !(matches!(self.format, Format::Pae) && self.level == 3)
    }

    pub const fn writable(&self) -> bool {
        self.bits & RW != 0 || !self.has_rights()
    }

    pub const fn user(&self) -> bool {
        self.bits & US != 0 || !self.has_rights()
    }

    /// Only where it is not reserved: [`Format::reserved`] comes first.
    pub const fn no_execute(&self) -> bool {
        self.bits & XD != 0
    }

    /// Whether it maps a page.
    pub const fn is_leaf(&self) -> bool {
        match (self.format, self.level) {
            (_, 1) => true,
            (Format::Bits32 { pse }, _) => pse && self.bits & PS != 0,
            (Format::Pae, 2) | (Format::Long { .. }, 2 | 3) => self.bits & PS != 0,
            _ => false,
        }
    }

    /// Protection key of a leaf, bits 62:59.
    pub const fn key(&self) -> u8 {
        (self.bits >> 59 & 15) as u8
    }

    /// The table that it points to.
    pub const fn table(&self) -> u64 {
        match self.format {
            Format::Bits32 { .. } => self.bits & bits(31, 12),
            _ => self.bits & bits(51, 12),
        }
    }

    /// The address that a leaf gives `linear`.
    pub const fn translate(&self, linear: u64) -> GuestPhys {
        let shift = self.format.shift(self.level);
        let offset = linear & bits(shift - 1, 0);
        let frame = match self.format {
            Format::Bits32 { .. } if self.level == 2 => {
                self.bits & bits(31, 22) | (self.bits & bits(20, 13)) << 19
            }
            Format::Bits32 { .. } => self.bits & bits(31, 12),
            _ => self.bits & bits(51, shift),
        };
        GuestPhys::new(frame | offset)
    }
}
