//! `hvm_start_info`: what the loader tells a PVH guest (Xen's public header
//! arch-x86/hvm/start_info.h).

use core::ops::Range;

const MAGIC: u32 = 0x336e_c578;
const START_INFO_BYTES: u64 = 56;
const MODULE_BYTES: u64 = 32;
const MEMORY_BYTES: u64 = 24;
/// Bytes that entry.S maps, from address 0.
pub const MAPPED_BYTES: u64 = 1 << 30;
/// A command line longer than this is taken for a wrong address.
const CMDLINE_MAX_BYTES: u64 = 4096;
/// Type of a memory map entry that is RAM.
const RAM: u32 = 1;

/// How memory is read: `bytes` at `address`, or `None` where there are none.
pub type Memory = fn(address: u64, bytes: u64) -> Option<&'static [u8]>;

/// What the loader said.
pub struct BootInfo {
    memory: Memory,
    address: u64,
    cmdline: &'static str,
    modules: (u64, u64),
    map: (u64, u64),
}

/// A file that the loader put into memory.
#[derive(Clone, Copy, Debug)]
pub struct Module {
    /// Its command line; by convention its name comes first.
    pub name: &'static str,
    /// Where it lies.
    pub address: u64,
    /// Its content.
    pub data: &'static [u8],
}

/// One entry of the memory map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRange {
    /// First byte.
    pub start: u64,
    /// Behind the last byte.
    pub end: u64,
    /// Whether it is RAM.
    pub ram: bool,
}

impl BootInfo {
    /// Reads the structure at `address`; `None` where there is none.
    #[must_use]
    pub fn parse(address: u64, memory: Memory) -> Option<Self> {
        let head = memory(address, START_INFO_BYTES)?;
        if u32_at(head, 0)? != MAGIC {
            return None;
        }
        let version = u32_at(head, 4)?;
        // Version 0 ends before the memory map.
        let map = if version >= 1 {
            (u64_at(head, 40)?, u64::from(u32_at(head, 48)?))
        } else {
            (0, 0)
        };
        Some(Self {
            memory,
            address,
            cmdline: text(memory, u64_at(head, 24)?),
            modules: (u64_at(head, 16)?, u64::from(u32_at(head, 12)?)),
            map,
        })
    }

    /// The guest's command line; empty where there is none or it is not UTF-8.
    #[must_use]
    pub fn cmdline(&self) -> &'static str {
        self.cmdline
    }

    /// The value of `key=value` on the command line; the last one counts.
    #[must_use]
    pub fn option(&self, key: &str) -> Option<&'static str> {
        self.cmdline
            .split_ascii_whitespace()
            .filter_map(|word| word.strip_prefix(key)?.strip_prefix('='))
            .next_back()
    }

    /// The modules, in the loader's order; those that do not lie in mapped
    /// memory are left out.
    pub fn modules(&self) -> impl Iterator<Item = Module> + '_ {
        let (list, count) = self.modules;
        (0..count).filter_map(move |index| {
            let entry = (self.memory)(
                list.checked_add(index.checked_mul(MODULE_BYTES)?)?,
                MODULE_BYTES,
            )?;
            let address = u64_at(entry, 0)?;
            Some(Module {
                name: text(self.memory, u64_at(entry, 16)?),
                address,
                data: (self.memory)(address, u64_at(entry, 8)?)?,
            })
        })
    }

    /// The memory map.
    pub fn memory_map(&self) -> impl Iterator<Item = MemoryRange> + '_ {
        let (list, count) = self.map;
        (0..count).filter_map(move |index| {
            let entry = (self.memory)(
                list.checked_add(index.checked_mul(MEMORY_BYTES)?)?,
                MEMORY_BYTES,
            )?;
            let start = u64_at(entry, 0)?;
            Some(MemoryRange {
                start,
                end: start.checked_add(u64_at(entry, 8)?)?,
                ram: u32_at(entry, 16)? == RAM,
            })
        })
    }

    /// The largest piece of RAM above `image_end` that is mapped and that none
    /// of the loader's structures and modules lie in; empty where there is
    /// none. Page-aligned.
    #[must_use]
    pub fn free_above(&self, image_end: u64) -> Range<u64> {
        let mut best = 0..0;
        for ram in self.memory_map().filter(|range| range.ram) {
            let mut start = page_up(ram.start.max(image_end));
            let end = ram.end.min(MAPPED_BYTES);
            // Cut at the lowest thing in the way until nothing is.
            while start < end {
                let obstacle = self
                    .occupied()
                    .filter(|used| used.end > start && used.start < end)
                    .min_by_key(|used| used.start);
                let free =
                    start..obstacle.as_ref().map_or(end, |used| used.start.max(start)) & !0xfff;
                if free.end.saturating_sub(free.start) > best.end - best.start {
                    best = free;
                }
                match obstacle {
                    Some(used) => start = page_up(used.end),
                    None => break,
                }
            }
        }
        best
    }

    /// [`Self::free_above`] the guest's own image.
    #[cfg(target_os = "none")]
    #[must_use]
    #[allow(unsafe_code)] // a symbol of the linker script
    pub fn free_memory(&self) -> Range<u64> {
        unsafe extern "C" {
            static __image_end: u8;
        }
        // Only the symbol's address means something.
        self.free_above(&raw const __image_end as u64)
    }

    /// What the loader put into memory and the guest still refers to.
    fn occupied(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let (modules, module_count) = self.modules;
        let (map, map_count) = self.map;
        let cmdline = self.cmdline.as_ptr() as u64;
        let own = [
            (self.address, START_INFO_BYTES),
            (modules, module_count.saturating_mul(MODULE_BYTES)),
            (map, map_count.saturating_mul(MEMORY_BYTES)),
            (cmdline, self.cmdline.len() as u64 + 1),
        ];
        let names = self
            .modules()
            .map(|m| (m.name.as_ptr() as u64, m.name.len() as u64 + 1));
        let data = self.modules().map(|m| (m.address, m.data.len() as u64));
        own.into_iter()
            .chain(names)
            .chain(data)
            .map(|(start, bytes)| start..start.saturating_add(bytes))
            .filter(|range| range.start < range.end)
    }
}

/// Memory as entry.S maps it: what is below 1 GiB, address 0 excepted.
#[must_use]
#[allow(unsafe_code)] // an address becomes a slice
pub fn identity_memory(address: u64, bytes: u64) -> Option<&'static [u8]> {
    let end = address.checked_add(bytes)?;
    if address == 0 || end > MAPPED_BYTES {
        return None;
    }
    // SAFETY: mapped, and the loader's structures and modules are written by
    // nobody while the guest runs (`free_above` keeps the heap out of them).
    Some(unsafe { core::slice::from_raw_parts(address as *const u8, bytes as usize) })
}

/// The zero-terminated text at `address`; empty where there is none.
fn text(memory: Memory, address: u64) -> &'static str {
    (0..CMDLINE_MAX_BYTES)
        .find(|&length| {
            let end = address.checked_add(length).and_then(|end| memory(end, 1));
            end.is_none_or(|byte| byte.first() == Some(&0))
        })
        .and_then(|length| memory(address, length))
        .and_then(|bytes| core::str::from_utf8(bytes).ok())
        .unwrap_or_default()
}

fn page_up(address: u64) -> u64 {
    address.saturating_add(0xfff) & !0xfff
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

#[cfg(test)]
mod tests;
