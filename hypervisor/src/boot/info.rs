//! What the boot loader said, as plain values of fixed size.
//!
//! There is no heap yet when it is made, and the loader's memory is given away
//! soon after: hence copies with an upper bound.

use crate::mm::addr::PhysRange;
use core::fmt;

/// The most memory-map entries that are taken: firmware of large machines
/// gives about a hundred.
pub const MAX_REGIONS: usize = 128;
/// The most modules.
pub const MAX_MODULES: usize = 16;
/// The longest module name, in bytes.
pub const MAX_NAME_BYTES: usize = 64;
/// The longest command line, in bytes.
pub const MAX_COMMAND_LINE_BYTES: usize = 512;

/// What a part of memory is good for, by the firmware.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RegionKind {
    /// RAM to use.
    Available,
    /// RAM that holds ACPI tables until they were read.
    AcpiTables,
    /// RAM that firmware keeps.
    AcpiNvs,
    /// Not to be touched.
    Reserved,
    /// RAM that does not work.
    Defective,
}

/// One entry of the memory map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryRegion {
    /// Where.
    pub range: PhysRange,
    /// What.
    pub kind: RegionKind,
}

/// A file that the loader brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Module {
    /// Its bytes; the first is at the start of a page.
    pub range: PhysRange,
    /// What the loader's configuration calls it.
    pub name: Text<MAX_NAME_BYTES>,
}

/// More was given than there is room for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooMany {
    /// What of.
    pub what: &'static str,
    /// The upper bound.
    pub limit: usize,
}

impl fmt::Display for TooMany {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "the boot loader gave more than {} {}",
            self.limit, self.what
        )
    }
}

/// What the boot loader said.
#[derive(Clone)]
pub struct BootInfo {
    regions: List<MemoryRegion, MAX_REGIONS>,
    modules: List<Module, MAX_MODULES>,
    command_line: Text<MAX_COMMAND_LINE_BYTES>,
}

impl Default for BootInfo {
    fn default() -> Self {
        Self::new()
    }
}

impl BootInfo {
    /// Nothing said yet.
    pub const fn new() -> Self {
        Self {
            regions: List::new(MemoryRegion {
                range: PhysRange::EMPTY,
                kind: RegionKind::Reserved,
            }),
            modules: List::new(Module {
                range: PhysRange::EMPTY,
                name: Text::new(),
            }),
            command_line: Text::new(),
        }
    }

    /// The memory map, in the firmware's order.
    pub fn memory(&self) -> impl Iterator<Item = MemoryRegion> + '_ {
        self.regions.iter()
    }

    /// The modules, in the loader's order.
    pub fn modules(&self) -> impl Iterator<Item = Module> + '_ {
        self.modules.iter()
    }

    /// The hypervisor's command line.
    pub fn command_line(&self) -> &str {
        self.command_line.as_str()
    }

    /// The value of the last `name=value` on the command line.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.command_line()
            .split_ascii_whitespace()
            .filter_map(|word| word.split_once('='))
            .filter(|(key, _)| *key == name)
            .map(|(_, value)| value)
            .next_back()
    }

    /// Adds a memory-map entry.
    pub fn add_region(&mut self, region: MemoryRegion) -> Result<(), TooMany> {
        self.regions.push(region, "memory-map entries")
    }

    /// Adds a module.
    pub fn add_module(&mut self, module: Module) -> Result<(), TooMany> {
        self.modules.push(module, "modules")
    }

    /// Sets the command line.
    pub fn set_command_line(&mut self, text: &str) -> Result<(), TooMany> {
        self.command_line = Text::copy(text, "bytes of command line")?;
        Ok(())
    }
}

/// A string of at most `N` bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Text<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Text<N> {
    const fn new() -> Self {
        Self {
            bytes: [0; N],
            length: 0,
        }
    }

    /// A copy of `text`; `what` names it in the error.
    pub fn copy(text: &str, what: &'static str) -> Result<Self, TooMany> {
        let mut copy = Self::new();
        copy.bytes
            .get_mut(..text.len())
            .ok_or(TooMany { what, limit: N })?
            .copy_from_slice(text.as_bytes());
        copy.length = text.len();
        Ok(copy)
    }

    /// The string.
    pub fn as_str(&self) -> &str {
        // Always whole strings, by `copy`: the fallback is never taken.
        self.bytes
            .get(..self.length)
            .and_then(|bytes| str::from_utf8(bytes).ok())
            .unwrap_or("")
    }
}

impl<const N: usize> fmt::Display for Text<N> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

impl<const N: usize> fmt::Debug for Text<N> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}", self.as_str())
    }
}

#[derive(Clone)]
struct List<T, const N: usize> {
    items: [T; N],
    length: usize,
}

impl<T: Copy, const N: usize> List<T, N> {
    const fn new(filler: T) -> Self {
        Self {
            items: [filler; N],
            length: 0,
        }
    }

    fn push(&mut self, item: T, what: &'static str) -> Result<(), TooMany> {
        *self
            .items
            .get_mut(self.length)
            .ok_or(TooMany { what, limit: N })? = item;
        self.length += 1;
        Ok(())
    }

    fn iter(&self) -> impl Iterator<Item = T> + '_ {
        self.items.iter().take(self.length).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_an_option_counts_and_a_bare_word_is_none() {
        let mut boot = BootInfo::new();
        boot.set_command_line("log=info selftest log=debug=x =y")
            .unwrap();
        assert_eq!(boot.option("log"), Some("debug=x"));
        assert_eq!(boot.option("selftest"), None);
        assert_eq!(boot.option("lo"), None);
    }

    #[test]
    fn what_does_not_fit_is_an_error_and_changes_nothing() {
        let mut boot = BootInfo::new();
        let filler = Module {
            range: PhysRange::EMPTY,
            name: Text::copy("m", "name").unwrap(),
        };
        for _ in 0..MAX_MODULES {
            boot.add_module(filler).unwrap();
        }
        let too_many = TooMany {
            what: "modules",
            limit: MAX_MODULES,
        };
        assert_eq!(boot.add_module(filler), Err(too_many));
        assert_eq!(boot.modules().count(), MAX_MODULES);
        assert!(Text::<3>::copy("four", "name").is_err());
        assert_eq!(Text::<4>::copy("four", "name").unwrap().as_str(), "four");
    }
}
