//! The control call: what the toolstack asks, checked and handed on.

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;

use super::refusal::{Refusal, Text, call};
use super::{create, policy, right, state, xstate};
use crate::domain::Domain;
use crate::domain::memory::GuestMemory;
use crate::domain::table::DOMAINS;
use crate::exits::Running;
use crate::mm::addr::GuestPhys;
use alloc::sync::Arc;
use alloc::vec::Vec;
use spin::mutex::SpinMutex;
use xferry_abi::{Buffer, Control, DomainId, Errno, Reason, Request, RightAction};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Why the last control call was refused. One text: there is one toolstack.
static EXPLANATION: SpinMutex<Text> = SpinMutex::new(Text::EMPTY);

/// Serves the control call whose argument lies at `address`.
pub fn serve(running: &mut Running<'_>, address: u64, bytes: u64) -> Result<u64, Refusal> {
    let domain = Arc::clone(&running.target.domain);
    let caller = Caller {
        memory: &domain.memory,
    };
    let result =
        decode(&caller, address, bytes).and_then(|request| execute(running, &caller, request));
    if let Err(refusal) = &result {
        *EXPLANATION.lock() = refusal.text;
    }
    result
}

fn decode(caller: &Caller<'_>, address: u64, bytes: u64) -> Result<Request, Refusal> {
    let control: Control = caller.take(Buffer { address, bytes })?;
    Ok(Request::decode(&control)?)
}

fn execute(
    running: &mut Running<'_>,
    caller: &Caller<'_>,
    request: Request,
) -> Result<u64, Refusal> {
    use Request as R;
    if needs_heap(&request) {
        check_reserve()?;
    }
    match request {
        R::PhysicalInfo { buffer } => caller.give(buffer, state::physical_info().as_bytes()),
        R::Explain { buffer } => explain(caller, buffer),
        R::Create { buffer } => create::create(&caller.take(buffer)?),
        R::Destroy { domain } => create::destroy(&other(domain)?),
        R::Pause { domain } => {
            let domain = other(domain)?;
            domain.status.set_paused(true);
            settle(&domain);
            Ok(0)
        }
        R::Unpause { domain } => state::unpause(&*other(domain)?),
        R::DomainInfo { domain, buffer } => {
            let domain = find(domain)?;
            caller.give(buffer, state::domain_info(&domain).as_bytes())
        }
        R::NextDomain { domain } => {
            let next = DOMAINS.lock().next_from(domain);
            next.map(|id| u64::from(id.0))
                .ok_or_else(|| no_domain(domain))
        }
        R::MemoryRead {
            domain,
            address,
            buffer,
        } => memory(caller, &*other(domain)?, address, buffer, Way::Out),
        R::MemoryWrite {
            domain,
            address,
            buffer,
        } => memory(caller, &*alterable(domain)?, address, buffer, Way::In),
        R::GetRegisters {
            domain,
            vcpu,
            buffer,
        } => state::get_registers(caller, &*standing(domain)?, vcpu, buffer),
        R::SetRegisters {
            domain,
            vcpu,
            buffer,
        } => state::set_registers(caller, &*alterable(domain)?, vcpu, buffer),
        R::GetPolicy { domain, buffer } => policy::get_policy(caller, domain, buffer),
        R::SetPolicy {
            domain,
            drop,
            buffer,
        } => policy::set_policy(running.pcpu, caller, &*alterable(domain)?, drop, buffer),
        R::GetXstate {
            domain,
            vcpu,
            buffer,
        } => xstate::get_xstate(running.pcpu, caller, &*standing(domain)?, vcpu, buffer),
        R::SetXstate {
            domain,
            vcpu,
            buffer,
        } => xstate::set_xstate(running.pcpu, caller, &*alterable(domain)?, vcpu, buffer),
        R::XstateStatus {
            domain,
            vcpu,
            buffer,
        } => xstate::xstate_status(running.pcpu, caller, &*other(domain)?, vcpu, buffer),
        R::Reclaim { domain } => xstate::reclaim(running.pcpu, &*alterable(domain)?),
        R::SetXstateLimit {
            domain,
            limit_bytes,
        } => xstate::set_xstate_limit(&*other(domain)?, limit_bytes),
        R::Right {
            domain,
            action,
            peer,
            buffer,
        } => right::act(domain, action, peer, caller.take(buffer)?),
        R::ConsoleRead { domain, buffer } => state::console_read(caller, &*other(domain)?, buffer),
        R::ConsoleWrite { domain, buffer } => {
            state::console_write(caller, &*unfrozen(domain)?, buffer)
        }
        R::GetConsole { domain, buffer } => state::get_console(caller, &*standing(domain)?, buffer),
        R::SetConsole { domain, buffer } => {
            state::set_console(caller, &*alterable(domain)?, buffer)
        }
        R::SetClock { domain, clock_ns } => state::set_clock(&*alterable(domain)?, clock_ns),
    }
}

/// What the small allocations of making, re-sizing and ending a domain take at
/// most: they cannot fail one by one, so there must be room for them all before.
/// Areas, memory maps and buffers are asked for singly and may be refused.
const HEAP_RESERVE_BYTES: usize = 128 << 10;

/// Whether the reserve is there.
pub fn check_reserve() -> Result<(), Refusal> {
    let usage = crate::mm::heap::usage();
    let free = usage.size_bytes.saturating_sub(usage.used_bytes);
    if free < HEAP_RESERVE_BYTES {
        return Err(call::memory(HEAP_RESERVE_BYTES as u64));
    }
    Ok(())
}

/// Requests that make such allocations.
const fn needs_heap(request: &Request) -> bool {
    matches!(
        request,
        Request::Create { .. }
            | Request::SetPolicy { .. }
            | Request::Right {
                action: RightAction::SourceBegin,
                ..
            }
    )
}

/// The words for the last refusal. Asking does not change them.
fn explain(caller: &Caller<'_>, buffer: Buffer) -> Result<u64, Refusal> {
    let text = *EXPLANATION.lock();
    caller.give(buffer, text.as_bytes())
}

/// The caller's memory, as its buffers name it.
pub struct Caller<'a> {
    memory: &'a GuestMemory,
}

impl Caller<'_> {
    /// Copies `bytes` out to the buffer, or only tells their number. Returns it.
    pub fn give(&self, buffer: Buffer, bytes: &[u8]) -> Result<u64, Refusal> {
        let length = bytes.len() as u64;
        if buffer.is_null() {
            return Ok(length);
        }
        if buffer.bytes < length {
            return Err(call::buffer(buffer.bytes, length));
        }
        self.memory
            .write(GuestPhys::new(buffer.address), bytes)
            .map_err(|_| call::address(buffer.address, length))?;
        Ok(length)
    }

    /// Checks that the buffer is the caller's memory.
    pub fn check(&self, buffer: Buffer) -> Result<(), Refusal> {
        self.memory
            .check(GuestPhys::new(buffer.address), buffer.bytes)
            .map_err(|_| call::address(buffer.address, buffer.bytes))
    }

    /// Copies a structure in, once.
    pub fn take<T: FromBytes + IntoBytes + Immutable>(&self, buffer: Buffer) -> Result<T, Refusal> {
        let mut value = T::new_zeroed();
        let bytes = value.as_mut_bytes();
        if buffer.bytes != bytes.len() as u64 {
            return Err(call::buffer(buffer.bytes, bytes.len() as u64));
        }
        self.memory
            .read(GuestPhys::new(buffer.address), bytes)
            .map_err(|_| call::address(buffer.address, buffer.bytes))?;
        Ok(value)
    }

    /// Copies a buffer of any length up to `most` in, once.
    pub fn take_bytes(&self, buffer: Buffer, most: usize) -> Result<Vec<u8>, Refusal> {
        let length = usize::try_from(buffer.bytes)
            .ok()
            .filter(|length| *length <= most)
            .ok_or_else(|| call::buffer(buffer.bytes, most as u64))?;
        let mut bytes = zeroed(length)?;
        self.memory
            .read(GuestPhys::new(buffer.address), &mut bytes)
            .map_err(|_| call::address(buffer.address, buffer.bytes))?;
        Ok(bytes)
    }
}

/// `length` zero bytes, if the heap has them.
pub fn zeroed(length: usize) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::new();
    bytes
        .try_reserve_exact(length)
        .map_err(|_| call::memory(length as u64))?;
    bytes.resize(length, 0);
    Ok(bytes)
}

/// Rules about domains ([`Reason::CLASS_DOMAIN`]).
pub fn no_domain(id: DomainId) -> Refusal {
    Refusal::new(
        Errno::ENOENT,
        Reason::CLASS_DOMAIN,
        1,
        u64::from(id.0),
        0,
        format_args!("there is no domain {}", id.0),
    )
}

fn find(id: DomainId) -> Result<Arc<Domain>, Refusal> {
    DOMAINS.lock().get(id).ok_or_else(|| no_domain(id))
}

/// A domain other than the caller's own: its vCPU is running this call.
fn other(id: DomainId) -> Result<Arc<Domain>, Refusal> {
    if id == DomainId::TOOLSTACK {
        return Err(Refusal::new(
            Errno::EINVAL,
            Reason::CLASS_DOMAIN,
            2,
            0,
            1,
            format_args!("the toolstack cannot do this to itself (domain 0)"),
        ));
    }
    find(id)
}

/// Such a domain, standing still.
fn standing(id: DomainId) -> Result<Arc<Domain>, Refusal> {
    let domain = other(id)?;
    if !domain.status.stands_still() {
        return Err(Refusal::new(
            Errno::EBUSY,
            Reason::CLASS_DOMAIN,
            3,
            u64::from(id.0),
            0,
            format_args!("domain {} runs; pause it first", id.0),
        ));
    }
    Ok(domain)
}

/// Returns when the vCPUs of a domain that may not run any more stand.
pub fn settle(domain: &Domain) {
    for cell in &domain.vcpus {
        // Whoever runs it looks at the status at its next exit, a slice from
        // now at the latest, and lets go.
        drop(cell.vcpu.lock());
    }
}

/// A standing domain that no migration has frozen.
fn alterable(id: DomainId) -> Result<Arc<Domain>, Refusal> {
    standing(id)?;
    unfrozen(id)
}

/// A domain that no migration has frozen, running or not.
fn unfrozen(id: DomainId) -> Result<Arc<Domain>, Refusal> {
    let domain = other(id)?;
    if domain.status.is_frozen() {
        return Err(Refusal::new(
            Errno::EBUSY,
            Reason::CLASS_DOMAIN,
            5,
            u64::from(id.0),
            0,
            format_args!(
                "domain {} is part of a migration and may not be altered",
                id.0
            ),
        ));
    }
    Ok(domain)
}

enum Way {
    Out,
    In,
}

fn memory(
    caller: &Caller<'_>,
    domain: &Domain,
    address: u64,
    buffer: Buffer,
    way: Way,
) -> Result<u64, Refusal> {
    let (theirs, ours) = (GuestPhys::new(address), GuestPhys::new(buffer.address));
    domain
        .memory
        .check(theirs, buffer.bytes)
        .map_err(|_| call::address(address, buffer.bytes))?;
    let copied = match way {
        Way::Out => caller
            .memory
            .copy_from(ours, &domain.memory, theirs, buffer.bytes),
        Way::In => domain
            .memory
            .copy_from(theirs, caller.memory, ours, buffer.bytes),
    };
    copied.map_err(|_| call::address(buffer.address, buffer.bytes))?;
    Ok(buffer.bytes)
}
