//! A vCPU's extended state: its blob, what its area holds, and how much it may take.

use super::control::Caller;
use super::refusal::{Refusal, call};
use super::state::vcpu;
use crate::domain::Domain;
use crate::host;
use crate::migrate::xstate::{self, XstateError};
use crate::sched::pcpu::Pcpu;
use alloc::vec::Vec;
use vcpu_xstate::component::ComponentSet;
use vcpu_xstate::owner::{Home, Use};
use xferry_abi::info::{XstateRow, XstateSummary, xstate_row};
use xferry_abi::{Buffer, Errno, Reason};
use zerocopy::IntoBytes;

/// The longest blob that is copied in.
const MAX_BLOB_BYTES: usize = 64 << 10;

fn xstate_refused(error: XstateError) -> Refusal {
    match error {
        XstateError::Form(error) => Refusal::new(
            Errno::EINVAL,
            Reason::CLASS_BLOB,
            error.code(),
            error.seen,
            0,
            format_args!("{error}"),
        ),
        XstateError::Content(broken) => {
            Refusal::broken(Errno::EINVAL, Reason::CLASS_XSTATE, &broken)
        }
        XstateError::Area(broken) => Refusal::broken(Errno::ENOMEM, Reason::CLASS_XSTATE, &broken),
        XstateError::OutOfMemory(bytes) => call::memory(bytes as u64),
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
