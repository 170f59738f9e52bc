//! What the toolstack reads and sets of a domain that exists.

#[cfg(test)]
#[path = "policy_tests.rs"]
mod policy_tests;
#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;

use super::control::{Caller, zeroed};
use super::refusal::{Refusal, call};
use super::right;
use crate::cpu::tsc;
use crate::domain::{Domain, VcpuCell};
use crate::host;
use crate::migrate::xstate::{self, XstateError};
use crate::sched::pcpu::Pcpu;
use crate::vcpu::clock::{self, DomainClock};
use crate::vcpu::record;
use crate::{console, mm};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use migration_abi::registers::VcpuRegisters;
use vcpu_xstate::component::ComponentSet;
use vcpu_xstate::owner::{Home, Use};
use vcpu_xstate::policy::{CpuPolicy, CpuidLeaf};
use vcpu_xstate::resize::PreparedPolicy;
use xferry_abi::info::{DomainInfo, PhysicalInfo, XstateRow, XstateSummary, state, xstate_row};
use xferry_abi::policy::{MAX_LEAVES, PolicyHeader, PolicyLeaf};
use xferry_abi::{Buffer, DomainId, Errno, Reason};
use zerocopy::{FromBytes, IntoBytes};

/// The longest blob that is copied in.
const MAX_BLOB_BYTES: usize = 64 << 10;
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

fn vcpu(domain: &Domain, index: u32) -> Result<&VcpuCell, Refusal> {
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
    let vcpu = vcpu(domain, index)?.vcpu.lock();
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

/// A domain's policy, or what a guest gets by default.
pub fn get_policy(caller: &Caller<'_>, id: DomainId, buffer: Buffer) -> Result<u64, Refusal> {
    if id == DomainId::HOST {
        return give_policy(caller, &host::get().policy, buffer);
    }
    let domain = console::find(id).ok_or_else(|| super::control::no_domain(id))?;
    let policy = Arc::clone(&domain.shared.lock().policy);
    give_policy(caller, &policy, buffer)
}

fn give_policy(caller: &Caller<'_>, policy: &CpuPolicy, buffer: Buffer) -> Result<u64, Refusal> {
    let leaves = policy.leaves();
    let header = PolicyHeader {
        deferred: policy.xstate().deferred.bits(),
        leaves: leaves.len() as u32,
        reserved: 0,
    };
    let length = size_of::<PolicyHeader>() + size_of_val(leaves);
    let mut bytes = Vec::new();
    bytes
        .try_reserve_exact(length)
        .map_err(|_| call::memory(length as u64))?;
    bytes.extend_from_slice(header.as_bytes());
    for l in leaves {
        let leaf = PolicyLeaf {
            leaf: l.leaf,
            subleaf: l.subleaf,
            eax: l.eax,
            ebx: l.ebx,
            ecx: l.ecx,
            edx: l.edx,
        };
        bytes.extend_from_slice(leaf.as_bytes());
    }
    caller.give(buffer, &bytes)
}

fn take_policy(caller: &Caller<'_>, buffer: Buffer) -> Result<CpuPolicy, Refusal> {
    let most = size_of::<PolicyHeader>() + MAX_LEAVES * size_of::<PolicyLeaf>();
    let bytes = caller.take_bytes(buffer, most)?;
    let (header, rest) = PolicyHeader::read_from_prefix(&bytes)
        .map_err(|_| call::buffer(bytes.len() as u64, size_of::<PolicyHeader>() as u64))?;
    let needed = header.leaves as usize * size_of::<PolicyLeaf>();
    if header.reserved != 0 || rest.len() != needed {
        return Err(call::buffer(rest.len() as u64, needed as u64));
    }
    let mut leaves = Vec::new();
    leaves
        .try_reserve_exact(header.leaves as usize)
        .map_err(|_| call::memory(needed as u64))?;
    for piece in rest.chunks_exact(size_of::<PolicyLeaf>()) {
        let l = PolicyLeaf::read_from_bytes(piece).map_err(|_| call::buffer(0, 0))?;
        leaves.push(CpuidLeaf {
            leaf: l.leaf,
            subleaf: l.subleaf,
            eax: l.eax,
            ebx: l.ebx,
            ecx: l.ecx,
            edx: l.edx,
        });
    }
    let deferred = ComponentSet::from_bits_retain(header.deferred);
    CpuPolicy::from_leaves(&leaves, deferred).map_err(|error| {
        Refusal::new(
            Errno::EINVAL,
            Reason::CLASS_POLICY,
            error.code(),
            error.seen(),
            error.allowed(),
            format_args!("{error}"),
        )
    })
}

/// Sets a domain's policy and re-sizes every vCPU, or changes nothing.
pub fn set_policy(
    pcpu: &mut Pcpu,
    caller: &Caller<'_>,
    domain: &Domain,
    drop_mask: u64,
    buffer: Buffer,
) -> Result<u64, Refusal> {
    let policy = take_policy(caller, buffer)?;
    policy.fits(&host::get().policy).map_err(|misfit| {
        let broken = misfit.broken();
        Refusal::new(
            Errno::EOPNOTSUPP,
            Reason::CLASS_POLICY,
            broken.code,
            broken.seen,
            broken.allowed,
            format_args!("{}: {misfit}", broken.rule),
        )
    })?;
    let dropped = ComponentSet::from_bits_retain(drop_mask);
    let policy = Arc::new(policy);
    let mut prepared: Vec<PreparedPolicy> = Vec::new();
    prepared
        .try_reserve_exact(domain.vcpus.len())
        .map_err(|_| call::memory(0))?;
    for (index, cell) in domain.vcpus.iter().enumerate() {
        let mut vcpu = cell.vcpu.lock();
        let result = record::check_policy(&vcpu, &policy).map_err(|error| {
            Refusal::new(
                Errno::EBUSY,
                Reason::CLASS_REGISTERS,
                error.code(),
                error.seen,
                error.allowed,
                format_args!("{error}; vCPU {index} under the new policy"),
            )
        });
        let result = result.and_then(|()| {
            vcpu.xstate
                .prepare_policy(
                    policy.xstate(),
                    dropped,
                    &mut pcpu.xstate,
                    &mut *domain.xstate_memory.lock(),
                )
                .map_err(|error| policy_refused(index, error))
        });
        match result {
            Ok(ready) => prepared.push(ready),
            Err(refusal) => {
                for ready in prepared {
                    ready.release(&mut *domain.xstate_memory.lock());
                }
                return Err(refusal);
            }
        }
    }
    // Nothing below fails, and the domain stands: no vCPU has run since.
    for (cell, ready) in domain.vcpus.iter().zip(prepared) {
        let mut vcpu = cell.vcpu.lock();
        vcpu.xstate
            .commit_policy(ready, &mut *domain.xstate_memory.lock());
        vcpu.policy = Arc::clone(&policy);
    }
    domain.shared.lock().policy = policy;
    Ok(0)
}

fn policy_refused(index: usize, error: vcpu_xstate::resize::PolicyError) -> Refusal {
    use vcpu_xstate::resize::PolicyError as P;
    let errno = match error {
        P::Host(..) => Errno::EOPNOTSUPP,
        P::Enabled(..) | P::InUse(..) => Errno::EBUSY,
        P::OutOfMemory(_) => Errno::ENOMEM,
    };
    let broken = error.broken();
    let (class, code) = (Reason::CLASS_XSTATE, broken.code);
    let (seen, allowed) = (broken.seen, broken.allowed);
    let named = ComponentSet::from_bits_retain(seen);
    let words = match error {
        P::Host(..) => "the host does not offer",
        P::Enabled(..) => "the guest has enabled",
        P::InUse(..) => "in use, outside the new policy:",
        P::OutOfMemory(_) => {
            return Refusal::new(
                errno,
                class,
                code,
                seen,
                allowed,
                format_args!("{}: vCPU {index} needs {seen} bytes", broken.rule),
            );
        }
    };
    Refusal::new(
        errno,
        class,
        code,
        seen,
        allowed,
        format_args!("{}: vCPU {index}: {words} {named}", broken.rule),
    )
}

fn xstate_refused(error: XstateError) -> Refusal {
    match error.broken() {
        Some(broken) => {
            let errno = match error {
                XstateError::Import(vcpu_xstate::owner::ImportError::NeedsMemory(_)) => {
                    Errno::ENOMEM
                }
                _ => Errno::EINVAL,
            };
            Refusal::broken(errno, Reason::CLASS_XSTATE, &broken)
        }
        None => match error {
            XstateError::Form(error) => Refusal::new(
                Errno::EINVAL,
                Reason::CLASS_BLOB,
                error.code(),
                error.seen,
                0,
                format_args!("{error}"),
            ),
            XstateError::OutOfMemory(bytes) => call::memory(bytes as u64),
            XstateError::Directory(_) | XstateError::Content(_) | XstateError::Import(_) => {
                call::memory(0)
            }
        },
    }
}

/// A vCPU's blob.
pub fn get_xstate(
    pcpu: &mut Pcpu,
    caller: &Caller<'_>,
    domain: &Domain,
    index: u32,
    buffer: Buffer,
) -> Result<u64, Refusal> {
    let mut vcpu = vcpu(domain, index)?.vcpu.lock();
    if buffer.is_null() {
        return Ok(xstate::blob_bytes(&mut vcpu.xstate, pcpu) as u64);
    }
    let blob = xstate::export(&mut vcpu.xstate, pcpu).map_err(xstate_refused)?;
    caller.give(buffer, &blob)
}

/// Takes one.
pub fn set_xstate(
    pcpu: &mut Pcpu,
    caller: &Caller<'_>,
    domain: &Domain,
    index: u32,
    buffer: Buffer,
) -> Result<u64, Refusal> {
    let cell = vcpu(domain, index)?;
    let blob = caller.take_bytes(buffer, MAX_BLOB_BYTES)?;
    let mut vcpu = cell.vcpu.lock();
    let mut memory = domain.xstate_memory.lock();
    xstate::import(&blob, &mut vcpu.xstate, pcpu, &mut *memory).map_err(xstate_refused)?;
    Ok(0)
}

/// What a vCPU's area holds, component by component.
pub fn xstate_status(
    pcpu: &mut Pcpu,
    caller: &Caller<'_>,
    domain: &Domain,
    index: u32,
    buffer: Buffer,
) -> Result<u64, Refusal> {
    let mut vcpu = vcpu(domain, index)?.vcpu.lock();
    let xstate = &mut vcpu.xstate;
    let owner = match xstate.home() {
        Home::Memory => u32::MAX,
        Home::Registers(cpu) => cpu.0,
    };
    let enabled = xstate.enabled();
    let (area, deferred) = (xstate.area_mask(), xstate.policy().deferred);
    let host = &host::get().xstate;
    let (geometry, form) = (host.geometry(), host.format());
    let rows: usize = xstate.policy().mask.len() as usize;
    let length = size_of::<XstateSummary>() + rows * size_of::<XstateRow>();
    if buffer.is_null() {
        return Ok(length as u64);
    }
    let summary = XstateSummary {
        area_bytes: xstate.area_size_bytes() as u64,
        blob_bytes: xstate::blob_bytes(xstate, pcpu) as u64,
        policy: xstate.policy().mask.bits(),
        xcr0: xstate.xcr0(),
        xss: xstate.xss(),
        compacted: u32::from(form == vcpu_xstate::layout::Form::Compacted),
        owner,
        rows: rows as u64,
    };
    let mut bytes = Vec::new();
    bytes
        .try_reserve_exact(length)
        .map_err(|_| call::memory(length as u64))?;
    bytes.extend_from_slice(summary.as_bytes());
    for status in xstate.status(&mut pcpu.xstate) {
        let only = ComponentSet::only(status.index);
        let flag = |on: bool, flag: u32| if on { flag } else { 0 };
        let offset = match status.index.get() {
            0 => Some(0),
            1 => Some(160),
            _ => geometry
                .placements(form, area)
                .find(|place| place.component == status.index)
                .and_then(|place| u32::try_from(place.offset_bytes).ok()),
        };
        let row = XstateRow {
            index: u32::from(status.index.get()),
            size_bytes: u32::try_from(status.size_bytes).unwrap_or(u32::MAX),
            offset_bytes: offset.unwrap_or(u32::MAX),
            flags: flag(status.area, xstate_row::IN_AREA)
                | flag(status.accum, xstate_row::IN_ACCUM)
                | flag(status.state == Use::InUse, xstate_row::IN_USE)
                | flag(enabled.contains(only), xstate_row::ENABLED)
                | flag(geometry.supervisor().contains(only), xstate_row::SUPERVISOR)
                | flag(deferred.contains(only), xstate_row::DEFERRED),
        };
        bytes.extend_from_slice(row.as_bytes());
    }
    caller.give(buffer, &bytes)
}

/// Shrinks the areas to what is needed; returns the bytes given back.
pub fn reclaim(pcpu: &mut Pcpu, domain: &Domain) -> Result<u64, Refusal> {
    let mut given_back = 0u64;
    for cell in &domain.vcpus {
        let mut vcpu = cell.vcpu.lock();
        let resized = vcpu
            .xstate
            .reclaim(&mut pcpu.xstate, &mut *domain.xstate_memory.lock())
            .map_err(|error| call::memory(error.bytes as u64))?;
        given_back += resized.before_bytes.saturating_sub(resized.after_bytes) as u64;
    }
    Ok(given_back)
}

/// How much memory the areas may take. A vCPU that stopped for want of it tries
/// its instruction again.
pub fn set_xstate_limit(domain: &Domain, bytes: u64) -> Result<u64, Refusal> {
    let mut memory = domain.xstate_memory.lock();
    let used = memory.used_bytes();
    if bytes < used {
        return Err(Refusal::new(
            Errno::EBUSY,
            Reason::CLASS_DOMAIN,
            7,
            bytes,
            used,
            format_args!("a limit of {bytes} bytes is below the {used} that are in use"),
        ));
    }
    memory.set_limit_bytes(bytes);
    drop(memory);
    domain.status.memory_given();
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
