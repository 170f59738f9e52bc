//! Builds a domain from an image: memory, start info, policy, registers.

use crate::error::Error;
use crate::hypervisor::{Hypervisor, Policy};
use alloc::string::String;
use xferry_abi::DomainId;
use xferry_abi::info::CreateParameters;
use xferry_pvh::{Image, StartInfo, entry_registers};

const PAGE_BYTES: u64 = 4096;
/// A name's room, and one zero behind it.
pub const NAME_MAX_BYTES: usize = 31;

/// What is to be built.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// ELF image.
    pub image: &'a [u8],
    /// For people.
    pub name: &'a str,
    /// For machines.
    pub uuid: [u8; 16],
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// Change of the host's default policy.
    pub policy: Option<&'a str>,
    /// The guest's command line.
    pub cmdline: &'a str,
}

/// Builds it, paused; where that fails nothing is left of it.
///
/// # Errors
/// What of the plan or the image is wrong, or what the hypervisor refused.
pub fn build(hypervisor: &mut dyn Hypervisor, plan: &Plan<'_>) -> Result<DomainId, Error> {
    // All that can be judged without a domain is judged first.
    let name = name_field(plan.name)?;
    let image = Image::parse(plan.image)?;
    if !plan.memory_bytes.is_multiple_of(PAGE_BYTES) || plan.memory_bytes == 0 {
        let seen = format_args!("{} bytes", plan.memory_bytes);
        return Err(Error::rule(
            "domain-memory",
            seen,
            "a multiple of 4096, at least one",
        ));
    }
    if image.end() > plan.memory_bytes {
        let seen = format_args!("an image that ends at {:#x}", image.end());
        let allowed = format_args!("at most the memory's {:#x}", plan.memory_bytes);
        return Err(Error::rule("domain-memory", seen, allowed));
    }
    let start_info = StartInfo::compose(&image, plan.memory_bytes, plan.cmdline, &[])?;
    let policy = match plan.policy {
        Some(spec) => Some(hypervisor.policy(DomainId::HOST)?.configured(spec)?),
        None => None,
    };

    let id = hypervisor.create(&CreateParameters {
        uuid: plan.uuid,
        name,
        memory_pages: plan.memory_bytes / PAGE_BYTES,
        vcpus: 1,
        ..CreateParameters::default()
    })?;
    match fill(hypervisor, id, &image, &start_info, policy.as_ref()) {
        Ok(()) => Ok(id),
        Err(error) => {
            // The first failure is the one to tell of.
            let _ = hypervisor.destroy(id);
            Err(error)
        }
    }
}

fn fill(
    hypervisor: &mut dyn Hypervisor,
    id: DomainId,
    image: &Image<'_>,
    start_info: &StartInfo,
    policy: Option<&Policy>,
) -> Result<(), Error> {
    if let Some(policy) = policy {
        hypervisor.set_policy(id, 0, policy)?;
    }
    for segment in &image.segments {
        // Memory is zero when a domain is made: what the file lacks is there.
        hypervisor.memory_write(id, segment.address, segment.data)?;
    }
    hypervisor.memory_write(id, start_info.address, &start_info.bytes)?;
    let registers = hypervisor.registers(id, 0)?;
    let registers = entry_registers(registers, image.entry, start_info.address);
    hypervisor.set_registers(id, 0, &registers)
}

/// A name as the hypervisor and the stream hold it.
///
/// # Errors
/// It is empty, too long, or has characters that would not survive a list.
pub fn name_field(name: &str) -> Result<[u8; 32], Error> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name.is_empty() || name.len() > NAME_MAX_BYTES || !name.bytes().all(legal) {
        let allowed = format_args!("1 to {NAME_MAX_BYTES} letters, digits, '-', '_' and '.'");
        return Err(Error::rule(
            "domain-name",
            format_args!("{name:?}"),
            allowed,
        ));
    }
    let mut field = [0; 32];
    for (place, byte) in field.iter_mut().zip(name.bytes()) {
        *place = byte;
    }
    Ok(field)
}

/// The text of a name's field; what is not printable is shown as a dot.
#[must_use]
pub fn name_text(field: &[u8; 32]) -> String {
    field
        .iter()
        .take_while(|byte| **byte != 0)
        .map(|&byte| {
            if byte.is_ascii_graphic() {
                char::from(byte)
            } else {
                '.'
            }
        })
        .collect()
}
