//! A domain's facts, registers, console and clock, as the toolstack reads and
//! sets them.

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;

use super::control::{Caller, zeroed};
use super::refusal::{Refusal, call};
use super::right;
use crate::cpu::tsc;
use crate::domain::{Domain, VcpuCell};
use crate::host;
use crate::vcpu::clock::{self, DomainClock};
use crate::vcpu::record;
use crate::{console, mm};
use core::sync::atomic::Ordering;
use migration_abi::registers::VcpuRegisters;
use xferry_abi::info::{DomainInfo, PhysicalInfo, state};
use xferry_abi::{Buffer, Errno, Reason};
use zerocopy::IntoBytes;

/// The most console bytes that one call moves.
const MAX_CONSOLE_BYTES: usize = 4096;

/// The machine.
pub fn physical_info() -> PhysicalInfo {
    let frames = mm::frames::counts();
    let heap = mm::heap::usage();
    let host = host::get();
    PhysicalInfo {
        total_pages: frames.total as u64,
        free_pages: frames.free as u64,
        heap_bytes: heap.size_bytes as u64,
        heap_free_bytes: (heap.size_bytes - heap.used_bytes) as u64,
        boot_nonce: host.boot_nonce,
        xstate_offered: host.xstate.offered().bits(),
        tsc_khz: host.tsc_khz,
        cpus: 1,
        uptime_ns: tsc::uptime_ns(),
    }
}

/// A domain.
pub fn domain_info(domain: &Domain) -> DomainInfo {
    let told = domain.status.told();
    let (migration, migration_id) = right::of_domain(domain.id);
    let clock = domain.shared.lock().clock;
    let memory = *domain.xstate_memory.lock();
    let missing = if told.state == state::NEEDS_MEMORY {
        told.detail
    } else {
        0
    };
    DomainInfo {
        uuid: domain.uuid,
        name: domain.name,
        memory_pages: domain.memory.pages(),
        clock_ns: clock.now_ns(tsc::now()),
        cpu_time_ns: domain.cpu_time_ns.load(Ordering::Relaxed),
        exits: domain.exits.load(Ordering::Relaxed),
        xstate_bytes: memory.used_bytes(),
        xstate_limit_bytes: memory.limit_bytes(),
        missing_bytes: missing,
        crash_detail: told.detail,
        vcpus: domain.vcpus.len() as u32,
        state: told.state,
        cause: told.cause,
        migration,
        migration_id,
    }
}

/// Lets a domain run, where this host may.
pub fn unpause(domain: &Domain) -> Result<u64, Refusal> {
    domain.status.set_paused(false);
    Ok(0)
}

pub(super) fn vcpu(domain: &Domain, index: u32) -> Result<&VcpuCell, Refusal> {
    domain.vcpus.get(index as usize).ok_or_else(|| {
        Refusal::new(
            Errno::ENOENT,
            Reason::CLASS_DOMAIN,
            6,
            u64::from(index),
            domain.vcpus.len() as u64,
            format_args!("domain {} has no vCPU {index}", domain.id.0),
        )
    })
}

/// The register record of a vCPU.
pub fn get_registers(
    caller: &Caller<'_>,
    domain: &Domain,
    index: u32,
    buffer: Buffer,
) -> Result<u64, Refusal> {
    let cell = vcpu(domain, index)?;
    let mut vcpu = cell.vcpu.lock();
    // What it was told of since it last ran is part of what it is.
    vcpu.events.pending |= cell.take_raised();
    let record = record::export(&vcpu, tsc::now());
    caller.give(buffer, record.as_bytes())
}

/// Sets it.
pub fn set_registers(
    caller: &Caller<'_>,
    domain: &Domain,
    index: u32,
    buffer: Buffer,
) -> Result<u64, Refusal> {
    let cell = vcpu(domain, index)?;
    let record: VcpuRegisters = caller.take(buffer)?;
    let mut vcpu = cell.vcpu.lock();
    record::import(&mut vcpu, &record, &domain.memory, tsc::now()).map_err(|error| {
        Refusal::new(
            Errno::EINVAL,
            Reason::CLASS_REGISTERS,
            error.code(),
            error.seen,
            error.allowed,
            format_args!("{error}"),
        )
    })?;
    // What it waited for is no longer what it waits for.
    cell.block_until_ns(0);
    Ok(0)
}

/// Takes unread console output.
pub fn console_read(caller: &Caller<'_>, domain: &Domain, buffer: Buffer) -> Result<u64, Refusal> {
    let length = usize::try_from(buffer.bytes)
        .unwrap_or(MAX_CONSOLE_BYTES)
        .min(MAX_CONSOLE_BYTES);
    let mut bytes = zeroed(length)?;
    // Checked before bytes are taken from the ring, so that none are lost.
    caller.check(buffer)?;
    let mut uart = domain.console.lock();
    let taken = bytes.iter_mut().map_while(|place| {
        *place = uart.pop_output()?;
        Some(())
    });
    let count = taken.count();
    drop(uart);
    caller.give(buffer, bytes.get(..count).unwrap_or(&[]))
}

/// Puts console input.
pub fn console_write(caller: &Caller<'_>, domain: &Domain, buffer: Buffer) -> Result<u64, Refusal> {
    let bytes = caller.take_bytes(buffer, MAX_CONSOLE_BYTES)?;
    Ok(console::give(domain, &bytes))
}

/// The console as it moves with the domain.
pub fn get_console(caller: &Caller<'_>, domain: &Domain, buffer: Buffer) -> Result<u64, Refusal> {
    let bytes =
        crate::migrate::console::export(&domain.console.lock()).ok_or_else(|| call::memory(0))?;
    caller.give(buffer, &bytes)
}

/// Sets it.
pub fn set_console(caller: &Caller<'_>, domain: &Domain, buffer: Buffer) -> Result<u64, Refusal> {
    let bytes = caller.take_bytes(buffer, 2 * MAX_CONSOLE_BYTES)?;
    crate::migrate::console::import(&mut domain.console.lock(), &bytes).map_err(|error| {
        Refusal::new(
            Errno::EINVAL,
            Reason::CLASS_BLOB,
            error.code(),
            error.seen,
            0,
            format_args!("{error}"),
        )
    })?;
    Ok(0)
}

/// Sets a domain's system time: it goes on from `now_ns`.
pub fn set_clock(domain: &Domain, now_ns: u64) -> Result<u64, Refusal> {
    let clock = DomainClock::new(now_ns, tsc::now(), host::get().tsc_khz);
    domain.shared.lock().clock = clock;
    for cell in &domain.vcpus {
        let mut vcpu = cell.vcpu.lock();
        vcpu.clock = clock;
        if let Some(at) = vcpu.clock_page {
            let version = vcpu.clock_version;
            vcpu.clock_version =
                clock::publish(&domain.memory, at, &clock, vcpu.tsc_offset, version);
        }
    }
    Ok(0)
}
