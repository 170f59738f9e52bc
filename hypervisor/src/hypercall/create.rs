//! Making and ending domains.

use super::refusal::{Refusal, call};
use super::right;
use crate::domain::memory::{GuestMemory, MemoryError};
use crate::domain::slots::Slot;
use crate::domain::status::Status;
use crate::domain::table::DOMAINS;
use crate::domain::xstate_memory::XstateMemory;
use crate::domain::{Domain, Shared, VcpuCell};
use crate::exits::uart::Uart;
use crate::host;
use crate::sched::QUEUE;
use crate::vcpu::Vcpu;
use crate::vcpu::clock::DomainClock;
use crate::virt::PortAccess;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::AtomicU64;
use migration_abi::stream::MigrationId;
use spin::mutex::SpinMutex;
use vcpu_xstate::policy::CpuPolicy;
use xferry_abi::info::{CREATE_INCOMING, CREATE_STAYS_PAUSED, CreateParameters, MAX_VCPUS};
use xferry_abi::{DomainId, Errno, Reason};

/// Makes the domain that the toolstack describes; returns its number.
pub fn create(parameters: &CreateParameters) -> Result<u64, Refusal> {
    if parameters.vcpus == 0 || parameters.vcpus > MAX_VCPUS {
        return Err(call::argument(
            "number of vCPUs",
            u64::from(parameters.vcpus),
            u64::from(MAX_VCPUS),
        ));
    }
    let migration = match parameters.flags {
        0 if parameters.migration_id == [0; 16] => None,
        flags if flags & !CREATE_STAYS_PAUSED == CREATE_INCOMING => Some(
            MigrationId::new(parameters.migration_id)
                .ok_or_else(|| call::argument("migration id, which is zero", 0, u64::MAX))?,
        ),
        other => {
            return Err(call::argument(
                "flags (a migration id goes with incoming alone)",
                u64::from(other),
                u64::from(CREATE_INCOMING | CREATE_STAYS_PAUSED),
            ));
        }
    };
    if core::str::from_utf8(&parameters.name).is_err() {
        return Err(call::argument("name, which is not UTF-8", 0, 0));
    }
    let id = DOMAINS.lock().reserve().ok_or_else(|| call::memory(0))?;
    if let Some(migration) = migration {
        right::begin_receiving(id, migration)?;
    }
    let made = build(id, parameters).and_then(register);
    if made.is_err()
        && let Some(migration) = migration
    {
        right::forget_receiving(migration);
    }
    made.map(|domain| u64::from(domain.id.0))
}

/// Makes a domain that nobody else knows of yet.
pub fn build(id: DomainId, parameters: &CreateParameters) -> Result<Arc<Domain>, Refusal> {
    let host = host::get();
    let policy = Arc::new(host.policy.clone());
    let slot = Slot::take().ok_or_else(|| call::memory(0))?;
    let memory =
        GuestMemory::new(slot, parameters.memory_pages).map_err(|e| refused(e, parameters))?;
    // The map of its memory may have taken much of the heap.
    super::control::check_reserve()?;
    let limit = match parameters.xstate_limit_bytes {
        0 => default_limit(&policy, parameters.vcpus),
        bytes => bytes,
    };
    let clock = DomainClock::new(0, crate::cpu::tsc::now(), host.tsc_khz);
    let mut xstate_memory = XstateMemory::new(limit);
    let ports = if id == DomainId::TOOLSTACK {
        PortAccess::Link
    } else {
        PortAccess::Closed
    };
    let mut vcpus = Vec::new();
    vcpus
        .try_reserve_exact(parameters.vcpus as usize)
        .map_err(|_| call::memory(0))?;
    for index in 0..parameters.vcpus {
        let vcpu = Vcpu::new(index, &policy, clock, &memory, ports, &mut xstate_memory)
            .map_err(|no_room| call::memory(no_room.bytes as u64))?;
        vcpus.push(VcpuCell::new(vcpu));
    }
    Ok(Arc::new(Domain {
        id,
        uuid: parameters.uuid,
        name: parameters.name,
        vcpus,
        memory,
        status: Status::paused(parameters.flags & CREATE_INCOMING == 0),
        stays_paused: parameters.flags & CREATE_STAYS_PAUSED != 0,
        shared: SpinMutex::new(Shared { policy, clock }),
        xstate_memory: SpinMutex::new(xstate_memory),
        console: SpinMutex::new(Uart::new()),
        cpu_time_ns: AtomicU64::new(0),
        exits: AtomicU64::new(0),
    }))
}

/// Makes it known to the scheduler and to control calls.
pub fn register(domain: Arc<Domain>) -> Result<Arc<Domain>, Refusal> {
    QUEUE.lock().add(&domain).map_err(|_| call::memory(0))?;
    DOMAINS.lock().insert(Arc::clone(&domain));
    Ok(domain)
}

/// Ends a domain, whatever it does.
pub fn destroy(domain: &Arc<Domain>) -> Result<u64, Refusal> {
    right::before_destroy(domain)?;
    remove(domain);
    Ok(0)
}

/// Takes a domain out of everything. Its memory goes when the last reference
/// does, which is the caller's.
pub fn remove(domain: &Arc<Domain>) {
    domain.status.set_paused(true);
    super::control::settle(domain);
    QUEUE.lock().remove(domain.id);
    // Dropped after the lock is open again.
    let known = DOMAINS.lock().remove(domain.id);
    drop(known);
}

/// Twice what all components of the policy take: a re-size needs the old and
/// the new area at one time.
fn default_limit(policy: &CpuPolicy, vcpus: u32) -> u64 {
    let host = &host::get().xstate;
    let form = host.format();
    let bytes = host.geometry().image_size(form, policy.xstate().mask) as u64;
    2 * u64::from(vcpus) * bytes.next_multiple_of(64)
}

fn refused(error: MemoryError, parameters: &CreateParameters) -> Refusal {
    let pages = parameters.memory_pages;
    match error {
        MemoryError::Size => call::argument(
            "memory in pages (at least 1)",
            pages,
            crate::domain::memory::MAX_PAGES,
        ),
        MemoryError::Frames | MemoryError::Heap => {
            let free = crate::mm::frames::counts().free as u64;
            Refusal::new(
                Errno::ENOMEM,
                Reason::CLASS_DOMAIN,
                4,
                pages,
                free,
                format_args!("{pages} pages are asked for and {free} are free"),
            )
        }
    }
}
