//! What a machine's CPUID says of extended state, read by the model itself.
//!
//! SDM Vol. 1, 13.2 Enumeration of CPU Support for XSAVE Instructions and
//! XSAVE-Supported Features. Everything that is listed is believed, nothing is
//! left out: what a host had better not offer is the host's to find out.

use alloc::vec::Vec;

use crate::component::ComponentIndex;
use crate::cpuid::CpuidResult;

/// Number of component bits in XCR0 and IA32_XSS: bit 63 is none.
pub(super) const BITS: u8 = 63;
/// Where the extended region starts: after legacy region and header.
const EXTENDED: u64 = 576;
/// A larger size than this is no component, whatever CPUID says.
const LARGEST: u32 = 1 << 20;

/// How many bytes of a component are registers (13.5 XSAVE-Managed State; APM
/// Vol. 2, 11.5 for LWP). A machine may give a component more room than that.
const DEFINED: [(u8, usize); 19] = [
    (2, 16 * 16),
    (3, 4 * 16),
    (4, 2 * 8),
    (5, 8 * 8),
    (6, 16 * 32),
    (7, 16 * 64),
    (8, 9 * 8),
    (9, 4),
    (10, 8),
    (11, 2 * 8),
    (12, 3 * 8),
    (13, 8),
    (14, 6 * 8),
    (15, 5 * 8 + 32 * 24),
    (16, 8),
    (17, 64),
    (18, 8 * 1024),
    (19, 16 * 8),
    (62, 128),
];

/// One component of the extended region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// EAX: size in bytes.
    pub size: u32,
    /// EBX: offset in the standard format, in bytes.
    pub offset: u32,
    /// ECX bit 1: on a multiple of 64 bytes in the compacted format.
    pub align: bool,
}

/// Vol. 2, CPUID, leaf 1CH: EBX\[0\] lets IA32_LBR_CTL\[2:1\] be set (CPL
/// filtering), EBX\[1\] bits 22:16 (branch filtering), EBX\[2\] bit 3 (call-stack
/// mode). Bit 0, LBREn, is always there.
fn lbr_control(ebx: u32) -> u64 {
    let fields = [(0, 0b11 << 1), (1, 0x7f << 16), (2, 1 << 3)];
    fields
        .iter()
        .filter(|(supported, _)| ebx & 1 << supported != 0)
        .fold(1, |bits, (_, field)| bits | field)
}

/// A machine, as its CPUID describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// CPUID.1:ECX.XSAVE.
    pub(super) xsave: bool,
    /// CPUID.(0xD,1):EAX bits 0 to 4.
    pub(super) xsaveopt: bool,
    pub(super) xsavec: bool,
    pub(super) xgetbv1: bool,
    pub(super) xsaves: bool,
    pub(super) xfd: bool,
    /// CPUID.(7,0):ECX.PKU.
    pub(super) pku: bool,
    /// CPUID.(7,0):ECX.CET_SS and EDX.CET_IBT.
    pub(super) shadow_stacks: bool,
    pub(super) branch_tracking: bool,
    /// Bits that XCR0 can have.
    pub(super) user: u64,
    /// Bits that IA32_XSS can have.
    pub(super) supervisor: u64,
    /// Bits that IA32_XFD can have.
    pub(super) xfd_capable: u64,
    pub(super) parts: Vec<Option<Part>>,
    pub(super) mxcsr_mask: u32,
    pub(super) linear_address_bits: u32,
    /// FIP, FDP and FOP are saved and restored with a pending exception only.
    pub(super) keeps_fp_pointers: bool,
    /// Depth of the branch records after reset.
    pub(super) lbr_depth: u8,
    /// Bits that IA32_LBR_CTL can have.
    pub(super) lbr_control: u64,
}

impl Machine {
    /// Reads a machine. `mxcsr_mask` is what FXSAVE stores at bytes 28–31 on
    /// it; 0 means 0xffbf (SDM Vol. 1, 11.6.6).
    pub fn read(cpuid: &impl Fn(u32, u32) -> CpuidResult, mxcsr_mask: u32) -> Self {
        let leaf = |number, subleaf| {
            let basic = cpuid(number & 0x8000_0000, 0);
            if number <= basic.eax {
                cpuid(number, subleaf)
            } else {
                CpuidResult::default()
            }
        };
        let wide = |high: u32, low: u32| (u64::from(high) << 32 | u64::from(low)) & !(1 << 63);
        let xsave = leaf(1, 0).ecx & 1 << 26 != 0;
        let (d0, d1) = (leaf(0xd, 0), leaf(0xd, 1));
        let has = |bit: u32| xsave && d1.eax & 1 << bit != 0;
        let mut machine = Self {
            xsave,
            xsaveopt: has(0),
            xsavec: has(1),
            xgetbv1: has(2),
            xsaves: has(3),
            xfd: has(4),
            pku: leaf(7, 0).ecx & 1 << 3 != 0,
            shadow_stacks: leaf(7, 0).ecx & 1 << 7 != 0,
            branch_tracking: leaf(7, 0).edx & 1 << 20 != 0,
            user: if xsave { wide(d0.edx, d0.eax) } else { 0 },
            supervisor: if has(3) { wide(d1.edx, d1.ecx) } else { 0 },
            xfd_capable: 0,
            parts: alloc::vec![None; usize::from(BITS)],
            mxcsr_mask: if mxcsr_mask == 0 { 0xffbf } else { mxcsr_mask },
            linear_address_bits: match leaf(0x8000_0008, 0).eax >> 8 & 0xff {
                bits @ 32..=63 => bits,
                _ => 48,
            },
            keeps_fp_pointers: matches!(&leaf(0, 0).ebx.to_le_bytes(), b"Auth" | b"Hygo")
                && leaf(0x8000_0008, 0).ebx & 1 << 2 == 0,
            lbr_depth: match leaf(0x1c, 0).eax & 0xff {
                0 => 32,
                depths => 8 * (8 - (depths as u8).leading_zeros() as u8),
            },
            lbr_control: lbr_control(leaf(0x1c, 0).ebx),
        };
        machine.supervisor &= !machine.user;
        for i in 2..BITS {
            let bit = 1 << i;
            if (machine.user | machine.supervisor) & bit == 0 {
                continue;
            }
            let sub = leaf(0xd, i.into());
            if sub.eax == 0 || sub.eax > LARGEST {
                machine.user &= !bit;
                machine.supervisor &= !bit;
                continue;
            }
            if machine.xfd && sub.ecx & 4 != 0 {
                machine.xfd_capable |= bit;
            }
            machine.parts[usize::from(i)] = Some(Part {
                size: sub.eax,
                offset: sub.ebx,
                align: sub.ecx & 2 != 0,
            });
        }
        machine
    }

    /// Bits that XCR0 can have: CPUID.(0xD,0):EDX:EAX.
    pub const fn user(&self) -> u64 {
        self.user
    }

    /// Bits that IA32_XSS can have: CPUID.(0xD,1):EDX:ECX.
    pub const fn supervisor(&self) -> u64 {
        self.supervisor
    }

    /// Bits that IA32_XFD can have.
    pub const fn xfd_capable(&self) -> u64 {
        self.xfd_capable
    }

    /// Bytes of an area in the standard format under this XCR0: what
    /// CPUID.(0xD,0):EBX returns while it is in the register.
    pub fn standard_bytes(&self, xcr0: u64) -> u64 {
        self.listed(xcr0 & self.user)
            .map(|(_, part)| u64::from(part.offset) + u64::from(part.size))
            .fold(EXTENDED, u64::max)
    }

    /// Bytes of an area in the compacted format with these bits in XCOMP_BV:
    /// what CPUID.(0xD,1):EBX returns while they are XCR0 | IA32_XSS.
    pub fn compacted_bytes(&self, xcomp_bv: u64) -> u64 {
        self.compacted(xcomp_bv)
            .last()
            .map_or(EXTENDED, |(_, start, part)| start + u64::from(part.size))
    }

    /// Offset of a component of the extended region in the standard format.
    pub fn standard_offset(&self, component: ComponentIndex) -> Option<u64> {
        let part = (*self.parts.get(usize::from(component.get()))?)?;
        (self.user & component.bit() != 0).then_some(part.offset.into())
    }

    /// Offset of a component of the extended region under this XCOMP_BV
    /// (13.4.3 Extended Region of an XSAVE Area).
    pub fn compacted_offset(&self, component: ComponentIndex, xcomp_bv: u64) -> Option<u64> {
        self.compacted(xcomp_bv)
            .find(|(i, ..)| *i == component.get())
            .map(|(_, start, _)| start)
    }

    /// Size in bytes that CPUID gives a component of the extended region.
    pub fn size(&self, component: ComponentIndex) -> Option<u32> {
        let part = (*self.parts.get(usize::from(component.get()))?)?;
        Some(part.size)
    }

    /// Number, offset and facts of what XCOMP_BV lists, ascending: each at
    /// where the one before ends, aligned if CPUID says so.
    fn compacted(&self, xcomp_bv: u64) -> impl Iterator<Item = (u8, u64, Part)> {
        let mut end = EXTENDED;
        self.listed(xcomp_bv).map(move |(i, part)| {
            let start = if part.align { (end + 63) & !63 } else { end };
            end = start + u64::from(part.size);
            (i, start, part)
        })
    }

    fn listed(&self, mask: u64) -> impl Iterator<Item = (u8, Part)> {
        (2..BITS)
            .filter(move |i| mask & 1 << i != 0)
            .filter_map(|i| Some((i, self.parts[usize::from(i)]?)))
    }

    /// The bytes of each component that are registers, by number.
    pub(super) fn register_bytes(&self) -> impl Iterator<Item = usize> {
        self.parts.iter().enumerate().map(|(i, part)| {
            let size = part.map_or(0, |part| part.size as usize);
            let defined = DEFINED.iter().find(|(number, _)| usize::from(*number) == i);
            defined.map_or(size, |(_, bytes)| size.min(*bytes))
        })
    }
}
