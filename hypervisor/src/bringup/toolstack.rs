//! The toolstack domain, built from the first boot module; the other modules
//! are put into its memory, named in its start info.

use crate::boot::BootInfo;
use crate::console;
use crate::domain::Domain;
use crate::domain::table::DOMAINS;
use crate::hypercall::create;
use crate::hypercall::refusal::Refusal;
use crate::mm::addr::{GuestPhys, PAGE_BYTES, PhysRange};
use crate::mm::frames::{self, Owner};
use crate::vcpu::record;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use xferry_abi::DomainId;
use xferry_abi::info::CreateParameters;
use xferry_pvh::{Image, Module, StartInfo, entry_registers};

/// Memory of the toolstack domain: 64 MiB.
const MEMORY_BYTES: u64 = 64 << 20;

/// Why there is no toolstack.
#[derive(Debug)]
pub enum ToolstackError {
    /// No module.
    NoModule,
    /// Its image or its start info.
    Image(xferry_pvh::Error),
    /// It and the modules do not fit its memory.
    Room(u64),
    /// The domain could not be made.
    Refused(alloc::string::String),
}

impl fmt::Display for ToolstackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoModule => f.write_str(
                "the boot loader brought no module; the first must be the toolstack's image",
            ),
            Self::Image(error) => write!(f, "the toolstack's image: {error}"),
            Self::Room(bytes) => write!(
                f,
                "the toolstack and its modules take {bytes} bytes of its {MEMORY_BYTES}"
            ),
            Self::Refused(text) => write!(f, "the toolstack domain: {text}"),
        }
    }
}

impl From<xferry_pvh::Error> for ToolstackError {
    fn from(error: xferry_pvh::Error) -> Self {
        Self::Image(error)
    }
}

impl From<Refusal> for ToolstackError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(alloc::string::String::from_utf8_lossy(refusal.text.as_bytes()).into())
    }
}

/// Builds it and lets it run; the modules' memory is free afterwards.
///
/// # Errors
/// See [`ToolstackError`].
pub fn build(boot: &BootInfo) -> Result<(), ToolstackError> {
    let mut modules = boot.modules();
    let first = modules.next().ok_or(ToolstackError::NoModule)?;
    let image = Image::parse(bytes(&first.range))?;

    let mut parameters = CreateParameters {
        memory_pages: MEMORY_BYTES / PAGE_BYTES,
        vcpus: 1,
        ..CreateParameters::default()
    };
    for (place, byte) in parameters.name.iter_mut().zip(*b"toolstack") {
        *place = byte;
    }
    let id = DOMAINS
        .lock()
        .reserve()
        .filter(|id| *id == DomainId::TOOLSTACK)
        .ok_or_else(|| ToolstackError::Refused("domain 0 is taken".into()))?;
    let domain = create::build(id, &parameters)?;

    for segment in &image.segments {
        put(&domain, segment.address, segment.data, segment.memory_bytes)?;
    }
    // Modules lie at the end of memory, so that what is free lies together.
    let mut list = Vec::new();
    let mut at = MEMORY_BYTES;
    for module in modules {
        let length = module.range.size_bytes();
        let below = at
            .checked_sub(length)
            .map(|start| start & !(PAGE_BYTES - 1))
            .filter(|start| *start >= image.end());
        at = below.ok_or(ToolstackError::Room(image.end() + length))?;
        put(&domain, at, bytes(&module.range), length)?;
        list.push((at, length, module.name));
    }
    let named: Vec<Module<'_>> = list
        .iter()
        .map(|(address, bytes, name)| Module {
            address: *address,
            bytes: *bytes,
            name: name.as_str(),
        })
        .collect();
    let start = StartInfo::compose(&image, MEMORY_BYTES, boot.command_line(), &named)?;
    put(
        &domain,
        start.address,
        &start.bytes,
        start.bytes.len() as u64,
    )?;
    enter(&domain, image.entry, start.address)?;

    frames::free_all(Owner::MODULES);
    console::attach(&domain);
    create::register(Arc::clone(&domain))?;
    domain.status.set_paused(false);
    Ok(())
}

fn enter(domain: &Domain, entry: u32, start_info: u64) -> Result<(), ToolstackError> {
    let now = crate::cpu::tsc::now();
    for cell in domain.vcpus.iter().take(1) {
        let mut vcpu = cell.vcpu.lock();
        let init = record::export(&vcpu, now);
        let registers = entry_registers(init, entry, start_info);
        record::import(&mut vcpu, &registers, &domain.memory, now)
            .map_err(|error| ToolstackError::Refused(alloc::format!("{error}")))?;
    }
    Ok(())
}

fn put(domain: &Domain, at: u64, data: &[u8], memory_bytes: u64) -> Result<(), ToolstackError> {
    let at = GuestPhys::new(at);
    domain
        .memory
        .check(at, memory_bytes)
        .and_then(|()| domain.memory.write(at, data))
        .map_err(|outside| ToolstackError::Room(outside.address.saturating_add(memory_bytes)))
}

/// A module's bytes, where the boot loader put them.
#[allow(unsafe_code)] // a slice over what the loader brought
fn bytes(range: &PhysRange) -> &'static [u8] {
    let length = usize::try_from(range.size_bytes()).unwrap_or(0);
    // SAFETY: the boot loader put the module there, the frames belong to
    // Owner::MODULES until `build` has made its last use of the bytes, memory is
    // identity-mapped, and nothing writes there.
    unsafe { core::slice::from_raw_parts(range.start().as_mut_ptr::<u8>(), length) }
}
