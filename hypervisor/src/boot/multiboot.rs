//! Multiboot2 boot information to [`BootInfo`].
//!
//! The loader is trusted as firmware is: the `multiboot2` crate checks the
//! structure and panics on nonsense, and a hypervisor that was not loaded
//! properly has nothing better to do.

use super::info::{BootInfo, MemoryRegion, Module, RegionKind, Text, TooMany};
use crate::mm::addr::{HostPhys, PhysRange};
use core::fmt;
use multiboot2::{BootInformation, LoadError, MemoryAreaType, StringError};

/// What the loader leaves in EAX (Multiboot2 3.3 I386 machine state).
pub use multiboot2::MAGIC;

/// Why the boot information cannot be used.
#[derive(Debug)]
pub enum BootError {
    /// EAX did not hold the magic number.
    Magic(u32),
    /// The structure as a whole is broken.
    Structure(LoadError),
    /// There is no memory map.
    NoMemoryMap,
    /// A command line or a module's name is no string.
    Text(StringError),
    /// A range runs past the last address.
    Range {
        /// First byte.
        start: u64,
        /// Size.
        bytes: u64,
    },
    /// More than there is room for.
    TooMany(TooMany),
}

impl fmt::Display for BootError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic(seen) => {
                write!(
                    out,
                    "EAX at entry was {seen:#x}, a Multiboot2 loader leaves {MAGIC:#x}"
                )
            }
            Self::Structure(error) => write!(out, "boot information: {error}"),
            Self::NoMemoryMap => out.write_str("the boot loader gave no memory map"),
            Self::Text(error) => write!(out, "a string of the boot information: {error}"),
            Self::Range { start, bytes } => {
                write!(
                    out,
                    "{bytes:#x} bytes at {start:#x} run past the last address"
                )
            }
            Self::TooMany(error) => write!(out, "{error}"),
        }
    }
}

impl From<TooMany> for BootError {
    fn from(error: TooMany) -> Self {
        Self::TooMany(error)
    }
}

impl From<StringError> for BootError {
    fn from(error: StringError) -> Self {
        Self::Text(error)
    }
}

/// Copies what the hypervisor uses out of the boot information.
pub fn parse(information: &BootInformation<'_>) -> Result<BootInfo, BootError> {
    let mut boot = BootInfo::new();
    let map = information.memory_map_tag().ok_or(BootError::NoMemoryMap)?;
    for area in map.memory_areas() {
        let kind = match area.typ() {
            MemoryAreaType::Available => RegionKind::Available,
            MemoryAreaType::AcpiAvailable => RegionKind::AcpiTables,
            MemoryAreaType::ReservedHibernate => RegionKind::AcpiNvs,
            MemoryAreaType::Defective => RegionKind::Defective,
            // A kind that nobody told us of is not ours to use.
            _ => RegionKind::Reserved,
        };
        boot.add_region(MemoryRegion {
            range: range(area.start_address(), area.size())?,
            kind,
        })?;
    }
    for tag in information.module_tags() {
        let (start, end) = (u64::from(tag.start_address()), u64::from(tag.end_address()));
        let bytes = end
            .checked_sub(start)
            .ok_or(BootError::Range { start, bytes: end })?;
        boot.add_module(Module {
            range: range(start, bytes)?,
            name: Text::copy(tag.cmdline()?, "bytes of module name")?,
        })?;
    }
    if let Some(tag) = information.command_line_tag() {
        boot.set_command_line(tag.cmdline()?)?;
    }
    Ok(boot)
}

fn range(start: u64, bytes: u64) -> Result<PhysRange, BootError> {
    PhysRange::new(HostPhys::new(start), bytes).ok_or(BootError::Range { start, bytes })
}

#[cfg(test)]
#[path = "multiboot_tests.rs"]
mod tests;
