//! The hypervisor's own address space: everything where it is, nothing both
//! writable and executable, and nothing at all where a mistake would go.
//!
//! ```text
//!   page 0            not mapped: a null pointer faults
//!   RAM               read-write, no execute (ACPI tables' RAM too)
//!   image  rodata     read
//!          text       read-execute
//!          data, bss  read-write, no execute
//!          guards     not mapped: a stack overflow faults
//!   device registers  read-write, uncached: only what `map_device` was asked
//! ```
//!
//! What the memory map does not call RAM is not mapped at all.
#![allow(unsafe_code)] // page tables in memory, CR3, INVLPG

mod entry;
mod mapper;

pub use entry::{Caching, Entry, PageSize, Protection};
pub use mapper::{Audit, Mapper, TableMemory};

use super::addr::{HostPhys, PAGE_BYTES, PhysRange};
use super::frames::{self, OutOfFrames, Owner};
use crate::boot::info::{BootInfo, RegionKind};
use crate::cpu::irq::IrqMutex;

/// Where the parts of the hypervisor's image are, each on whole pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ImageLayout {
    /// Constants.
    pub rodata: PhysRange,
    /// Code.
    pub text: PhysRange,
    /// Data, zeroed data and the boot processor's stacks.
    pub data: PhysRange,
}

impl ImageLayout {
    /// All of it.
    pub const fn whole(&self) -> PhysRange {
        PhysRange::between(self.rodata.start(), self.data.end())
    }
}

/// Tables in frames of the machine, read and written where they lie.
struct FrameTables;

impl TableMemory for FrameTables {
    fn allocate(&mut self) -> Result<HostPhys, OutOfFrames> {
        frames::allocate(Owner::PAGE_TABLES)
    }

    fn read(&self, table: HostPhys, index: u64) -> Entry {
        // SAFETY: `table` came from `allocate` (this trait's contract), is
        // mapped and never freed; index < 512 stays inside. Volatile, since the
        // processor sets accessed and dirty bits.
        Entry::from_bits(unsafe {
            table
                .as_mut_ptr::<u64>()
                .add(index as usize)
                .read_volatile()
        })
    }

    fn write(&mut self, table: HostPhys, index: u64, entry: Entry) {
        // SAFETY: as in `read`; the one Mapper that uses these tables is behind
        // a lock.
        unsafe {
            table
                .as_mut_ptr::<u64>()
                .add(index as usize)
                .write_volatile(entry.bits())
        }
    }
}

static SPACE: IrqMutex<Option<Mapper<FrameTables>>> = IrqMutex::new(None);

/// Builds the hypervisor's address space; it counts from `activate` on.
pub fn build(boot: &BootInfo, image: &ImageLayout, guards: &[HostPhys]) -> Result<(), OutOfFrames> {
    let mut mapper = Mapper::new(FrameTables)?;
    for region in boot.memory() {
        if matches!(
            region.kind,
            RegionKind::Available | RegionKind::AcpiTables | RegionKind::AcpiNvs
        ) {
            mapper.map_identity(region.range, Protection::ReadWrite, Caching::WriteBack)?;
        }
    }
    mapper.map_identity(image.rodata, Protection::Read, Caching::WriteBack)?;
    mapper.map_identity(image.text, Protection::ReadExecute, Caching::WriteBack)?;
    mapper.map_identity(image.data, Protection::ReadWrite, Caching::WriteBack)?;
    for page in guards.iter().chain([&HostPhys::new(0)]) {
        mapper.unmap(*page)?;
    }
    *SPACE.lock() = Some(mapper);
    Ok(())
}

/// Makes the address space this processor's.
///
/// # Safety
/// `build` was given this machine's truth, CR0.WP and EFER.NXE are set, and the
/// code and stack in use are in the image.
pub unsafe fn activate() {
    let root = with(|mapper| mapper.root());
    // SAFETY: the space maps image and RAM where they are, by contract, so the
    // next instruction and the stack stay what they were.
    unsafe { x86::controlregs::cr3_write(root.as_u64()) }
}

/// Maps device registers, uncached; returns their identity-mapped address.
///
/// Other processors see it at once: what was not present is in no TLB.
///
/// # Panics
/// If `range` touches RAM, which must have one caching only (SDM Vol. 3, 13.12.4).
pub fn map_device(range: PhysRange) -> Result<HostPhys, OutOfFrames> {
    with(|mapper| {
        let pages = range.pages_touched();
        let mut page = pages.start();
        while pages.contains(page) {
            let cached = mapper
                .lookup(page.as_u64())
                .is_some_and(|(entry, size)| !is_device(entry, page, size));
            assert!(!cached, "device registers at {page} are mapped as memory");
            let Some(next) = page.checked_add(PAGE_BYTES) else {
                break;
            };
            page = next;
        }
        mapper.map_identity(range, Protection::ReadWrite, Caching::Uncached)
    })?;
    Ok(range.start())
}

fn is_device(entry: Entry, page: HostPhys, size: PageSize) -> bool {
    let device = Entry::page(page, size, Protection::ReadWrite, Caching::Uncached);
    // The low twelve bits say how, without accessed and dirty (5 and 6).
    (entry.bits() ^ device.bits()) & 0xf9f == 0
}

/// Takes the page at `page` out of the address space: the guard below a stack
/// that was allocated. On this processor at once; others must not have touched
/// the page since it was allocated.
pub fn unmap_guard(page: HostPhys) -> Result<(), OutOfFrames> {
    with(|mapper| mapper.unmap(page))?;
    // SAFETY: at CPL 0; forgetting a translation is always allowed.
    unsafe { x86::tlb::flush(page.as_u64() as usize) };
    Ok(())
}

/// Whether the hypervisor's address space maps `address`. False before it is
/// built, and while another processor changes it.
pub fn is_mapped(address: u64) -> bool {
    SPACE.try_lock().is_some_and(|space| {
        space
            .as_ref()
            .is_some_and(|mapper| mapper.lookup(address).is_some())
    })
}

/// Counts every page there is, and those that break W^X.
pub fn audit() -> Audit {
    with(|mapper| mapper.audit())
}

fn with<R>(work: impl FnOnce(&mut Mapper<FrameTables>) -> R) -> R {
    let mut space = SPACE.lock();
    work(
        space
            .as_mut()
            .expect("paging::build comes before every use of the address space"),
    )
}
