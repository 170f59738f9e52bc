//! What a PVH guest finds when it starts: registers, and `hvm_start_info` in
//! its memory.

use crate::elf::Image;
use crate::error::Error;
use alloc::vec::Vec;
use migration_abi::registers::{DescriptorTable, Segment, VcpuRegisters, attributes, gpr};

const MAGIC: u32 = 0x336e_c578;
const VERSION: u32 = 1;
const START_INFO_BYTES: u64 = 56;
const MEMORY_ENTRY_BYTES: u64 = 24;
const RAM: u32 = 1;
const PAGE_BYTES: u64 = 4096;
/// Longest command line, so that all of it fits one page.
pub const CMDLINE_MAX_BYTES: usize = 2048;

/// CR0: protection on, paging off; ET is always one.
const CR0_PE_ET: u64 = 0x11;
const RFLAGS_FIXED: u64 = 2;

/// Bytes of a module list's entry.
const MODULE_ENTRY_BYTES: u64 = 32;

/// A file that lies in the guest's memory already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module<'a> {
    /// Guest-physical address.
    pub address: u64,
    /// Its length, bytes.
    pub bytes: u64,
    /// What the guest knows it by.
    pub name: &'a str,
}

/// The start info with all that it refers to, as one piece of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartInfo {
    /// Guest-physical address of both the piece and the structure.
    pub address: u64,
    /// Its content, at most a page.
    pub bytes: Vec<u8>,
}

impl StartInfo {
    /// Composes it for a guest of `memory_bytes` whose image is `image`.
    ///
    /// # Errors
    /// The command line is too long or holds a zero, there is no free page, or
    /// the modules' names do not fit it.
    pub fn compose(
        image: &Image<'_>,
        memory_bytes: u64,
        cmdline: &str,
        modules: &[Module<'_>],
    ) -> Result<Self, Error> {
        if cmdline.len() > CMDLINE_MAX_BYTES || cmdline.contains('\0') {
            let seen = format_args!("{} bytes", cmdline.len());
            let allowed = format_args!("at most {CMDLINE_MAX_BYTES}, none of them zero");
            return Err(Error::rule("guest-command-line", seen, allowed));
        }
        let address = free_page(image, memory_bytes)?;
        let map_address = address + START_INFO_BYTES;
        let modules_address = map_address + MEMORY_ENTRY_BYTES;
        // A page holds far fewer than 2^32 of them: checked at the end.
        let module_count = modules.len() as u64;
        let cmdline_address = modules_address + module_count * MODULE_ENTRY_BYTES;

        let mut bytes = Vec::new();
        let mut put = |part: &[u8]| bytes.extend_from_slice(part);
        put(&MAGIC.to_le_bytes());
        put(&VERSION.to_le_bytes());
        put(&0u32.to_le_bytes()); // flags: not the initial domain
        put(&(module_count as u32).to_le_bytes());
        let list = if modules.is_empty() {
            0
        } else {
            modules_address
        };
        put(&list.to_le_bytes());
        put(&cmdline_address.to_le_bytes());
        put(&0u64.to_le_bytes()); // no RSDP: there is no ACPI
        put(&map_address.to_le_bytes());
        put(&1u32.to_le_bytes());
        put(&0u32.to_le_bytes());
        // The map's one entry.
        put(&0u64.to_le_bytes());
        put(&memory_bytes.to_le_bytes());
        put(&RAM.to_le_bytes());
        put(&0u32.to_le_bytes());
        let mut name_address = cmdline_address + cmdline.len() as u64 + 1;
        for module in modules {
            put(&module.address.to_le_bytes());
            put(&module.bytes.to_le_bytes());
            put(&name_address.to_le_bytes());
            put(&0u64.to_le_bytes());
            name_address += module.name.len() as u64 + 1;
        }
        put(cmdline.as_bytes());
        put(&[0]);
        for module in modules {
            put(module.name.as_bytes());
            put(&[0]);
        }
        if bytes.len() as u64 > PAGE_BYTES {
            let seen = format_args!("{} bytes of start info", bytes.len());
            return Err(Error::rule("start-info-size", seen, "at most 4096"));
        }
        Ok(Self { address, bytes })
    }
}

/// The lowest page but the first that no segment touches: an address of 0 is
/// "none" in the structure.
fn free_page(image: &Image<'_>, memory_bytes: u64) -> Result<u64, Error> {
    let mut page = PAGE_BYTES;
    for segment in &image.segments {
        if segment.address >= page + PAGE_BYTES {
            break;
        }
        if segment.end() > page {
            page = segment
                .end()
                .checked_next_multiple_of(PAGE_BYTES)
                .unwrap_or(u64::MAX);
        }
        if page > memory_bytes {
            break;
        }
    }
    if page
        .checked_add(PAGE_BYTES)
        .is_none_or(|end| end > memory_bytes)
    {
        let seen = format_args!(
            "an image that ends at {:#x} of {memory_bytes:#x}",
            image.end()
        );
        return Err(Error::rule(
            "guest-memory",
            seen,
            "a free page for the start info",
        ));
    }
    Ok(page)
}

/// A vCPU at the PVH entry: 32-bit protected mode, flat segments, EBX at the
/// start info. What the ABI does not name stays as INIT left it in `registers`.
#[must_use]
pub fn entry_registers(registers: VcpuRegisters, entry: u32, start_info: u64) -> VcpuRegisters {
    let flat = |selector: u16, kind: u32| Segment {
        base: 0,
        limit: u32::MAX,
        selector,
        attributes: kind
            | attributes::S
            | attributes::PRESENT
            | attributes::DB
            | attributes::GRANULARITY,
        ..Segment::ZERO
    };
    let code = flat(0x08, 0xb); // execute, read, accessed
    let data = flat(0x10, 0x3); // read, write, accessed
    let system = |limit: u32, attributes: u32| Segment {
        limit,
        attributes,
        ..Segment::ZERO
    };
    let mut gpr_values = [0; 16];
    gpr_values[gpr::RBX] = start_info;
    VcpuRegisters {
        gpr: gpr_values,
        rip: entry.into(),
        rflags: RFLAGS_FIXED,
        cr0: CR0_PE_ET,
        cr2: 0,
        cr3: 0,
        cr4: 0,
        efer: 0,
        cs: code,
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        // A busy 32-bit TSS, as PVH has it, and no LDT.
        tr: system(0x67, attributes::PRESENT | 0xb),
        ldtr: system(0, attributes::UNUSABLE),
        gdtr: DescriptorTable::ZERO,
        idtr: DescriptorTable::ZERO,
        ..registers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::Segment as ElfSegment;
    use alloc::vec;
    use std::sync::OnceLock;

    /// The composed piece where a guest would see it.
    static MEMORY: OnceLock<(u64, Vec<u8>)> = OnceLock::new();

    fn read(address: u64, bytes: u64) -> Option<&'static [u8]> {
        let (base, memory) = MEMORY.get()?;
        let start = usize::try_from(address.checked_sub(*base)?).ok()?;
        memory.get(start..start.checked_add(usize::try_from(bytes).ok()?)?)
    }

    fn image(pieces: &[(u64, u64)]) -> Image<'static> {
        let segment = |&(address, memory_bytes): &(u64, u64)| ElfSegment {
            address,
            data: &[],
            memory_bytes,
            executable: true,
        };
        Image {
            entry: 0,
            segments: pieces.iter().map(segment).collect(),
        }
    }

    #[test]
    fn the_runtime_reads_what_is_composed() {
        let image = image(&[(0x10_0000, 0x1000)]);
        let info = StartInfo::compose(&image, 4 << 20, "seed=7 x", &[]).unwrap();
        assert_eq!(info.address, 0x1000);
        MEMORY.set((info.address, info.bytes)).unwrap();
        let boot = guest_rt::BootInfo::parse(0x1000, read).unwrap();
        assert_eq!(boot.cmdline(), "seed=7 x");
        assert_eq!(boot.option("seed"), Some("7"));
        let map: Vec<_> = boot.memory_map().map(|r| (r.start, r.end, r.ram)).collect();
        assert_eq!(map, vec![(0, 4 << 20, true)]);
        assert_eq!(boot.modules().count(), 0);
    }

    #[test]
    fn the_page_is_one_that_the_image_leaves_free() {
        let at = |pieces: &[(u64, u64)], memory| {
            StartInfo::compose(&image(pieces), memory, "", &[]).map(|info| info.address)
        };
        assert_eq!(at(&[(0x1000, 1)], 1 << 20), Ok(0x2000));
        assert_eq!(
            at(&[(0, 0x3001), (0x4000, 0x1000), (0x9000, 1)], 1 << 20),
            Ok(0x5000)
        );
        assert_eq!(at(&[(0x1fff, 2)], 1 << 20), Ok(0x3000));
        let full = at(&[(0, 0x4000)], 0x4000).unwrap_err();
        assert_eq!(full.rule, "guest-memory");
        assert_eq!(
            at(&[(0, u64::MAX)], 0x4000).unwrap_err().rule,
            "guest-memory"
        );
    }

    #[test]
    fn a_long_command_line_is_refused() {
        let long = "x".repeat(CMDLINE_MAX_BYTES + 1);
        let error = StartInfo::compose(&image(&[]), 1 << 20, &long, &[]).unwrap_err();
        assert_eq!(error.rule, "guest-command-line");
        let longest = "x".repeat(CMDLINE_MAX_BYTES);
        let info = StartInfo::compose(&image(&[]), 1 << 20, &longest, &[]).unwrap();
        assert!(info.bytes.len() <= 4096);
    }

    #[test]
    fn the_registers_are_well_formed() {
        let registers = entry_registers(VcpuRegisters::ZERO, 0x10_0000, 0x1000);
        assert_eq!(registers.check(), Ok(()));
        assert_eq!(registers.cs.attributes, 0xc09b);
        assert_eq!(registers.ss.attributes, 0xc093);
        assert_eq!(registers.tr.attributes, 0x8b);
        assert_eq!(registers.gpr[gpr::RBX], 0x1000);
    }
}
