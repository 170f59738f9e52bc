//! Hypercalls: the few that every guest has; the control call is in `control`.
// A refusal carries its words (240 bytes) by value: there may be no memory for
// them, and a refused control call is not the exit path.
#![allow(clippy::result_large_err)]

pub mod control;
pub mod create;
pub mod policy;
pub mod refusal;
pub mod right;
pub mod state;
pub mod xstate;

#[cfg(test)]
#[path = "guest_tests.rs"]
mod tests;

use crate::exits::{Next, Running};
use crate::mm::addr::GuestPhys;
use crate::vcpu::clock;
use crate::virt::{Backend, gpr};
use refusal::{Refusal, call};
use xferry_abi::info::state as domain_state;
use xferry_abi::{CALLS_VERSION, Call, ClockPage, ConsoleDirection, Event, ShutdownReason};

/// The most bytes that one console call moves.
const CONSOLE_BYTES: u64 = 4096;

/// What a call comes to.
enum Outcome {
    /// RAX gets the value; what follows.
    Value(u64, Next),
    /// It does not return.
    Gone(Next),
}

/// Serves the hypercall that the vCPU's registers ask for. RIP has been moved
/// past the instruction already.
pub fn serve(running: &mut Running<'_>) -> Next {
    let [number, first, second, third] =
        [gpr::RAX, gpr::RDI, gpr::RSI, gpr::RDX].map(|r| running.vcpu.gprs.0[r]);
    let result = match Call::from_number(number) {
        // As on Xen, calls are the guest kernel's to make.
        _ if running.vcpu.backend.cpl() != 0 => Err(call::permission()),
        Some(Call::Version) => value(u64::from(CALLS_VERSION)),
        Some(Call::Console) => console(running, first, second, third),
        Some(Call::ClockPage) => clock_page(running, first),
        Some(Call::SetTimer) => {
            running.vcpu.events.timer_deadline_ns = first;
            Ok(Outcome::Value(0, Next::ResumeTimer))
        }
        Some(Call::SetVector) => set_vector(running, first, second),
        Some(Call::Yield) => Ok(Outcome::Value(0, Next::Yield)),
        Some(Call::Shutdown) => shutdown(first),
        Some(Call::Control) if running.target.domain.is_privileged() => {
            control::serve(running, first, second).and_then(value)
        }
        Some(Call::Control) => Err(call::permission()),
        None => Err(call::unknown(number)),
    };
    let gprs = &mut running.vcpu.gprs.0;
    match result {
        Ok(Outcome::Gone(next)) => next,
        Ok(Outcome::Value(value, next)) => {
            gprs[gpr::RAX] = value;
            gprs[gpr::RDX] = 0;
            gprs[gpr::RSI] = 0;
            gprs[gpr::RDI] = 0;
            next
        }
        Err(refusal) => {
            let failure = refusal.failure;
            gprs[gpr::RAX] = (-i64::from(failure.errno as u32)).cast_unsigned();
            gprs[gpr::RDX] = u64::from(failure.reason.0);
            gprs[gpr::RSI] = failure.seen;
            gprs[gpr::RDI] = failure.allowed;
            Next::Resume
        }
    }
}

fn value(value: u64) -> Result<Outcome, Refusal> {
    Ok(Outcome::Value(value, Next::Resume))
}

fn console(
    running: &mut Running<'_>,
    direction: u64,
    bytes: u64,
    address: u64,
) -> Result<Outcome, Refusal> {
    let direction = ConsoleDirection::from_number(direction)
        .ok_or_else(|| call::argument("console direction", direction, 1))?;
    let bytes = bytes.min(CONSOLE_BYTES);
    let domain = &running.target.domain;
    domain
        .memory
        .check(GuestPhys::new(address), bytes)
        .map_err(|_| call::address(address, bytes))?;
    let moved = match direction {
        ConsoleDirection::Write => crate::console::write(domain, GuestPhys::new(address), bytes),
        ConsoleDirection::Read => crate::console::read(domain, GuestPhys::new(address), bytes),
    };
    value(moved)
}

fn clock_page(running: &mut Running<'_>, address: u64) -> Result<Outcome, Refusal> {
    let vcpu = &mut *running.vcpu;
    if address == u64::MAX {
        vcpu.clock_page = None;
        return value(0);
    }
    const BYTES: u64 = size_of::<ClockPage>() as u64;
    let at = GuestPhys::new(address);
    let memory = &running.target.domain.memory;
    memory
        .check(at, BYTES)
        .map_err(|_| call::address(address, BYTES))?;
    if !clock::placed(at) {
        return Err(call::argument("clock page alignment", address, 8));
    }
    vcpu.clock_page = Some(at);
    vcpu.clock_version =
        clock::publish(memory, at, &vcpu.clock, vcpu.tsc_offset, vcpu.clock_version);
    value(0)
}

fn set_vector(running: &mut Running<'_>, event: u64, vector: u64) -> Result<Outcome, Refusal> {
    let event = Event::from_number(event)
        .ok_or_else(|| call::argument("event", event, Event::ALL.len() as u64 - 1))?;
    let vector = u8::try_from(vector)
        .ok()
        .filter(|v| matches!(v, 0 | 32..))
        .ok_or_else(|| call::argument("interrupt vector (0 or 32 on)", vector, 255))?;
    running.vcpu.events.vectors[event as usize] = vector;
    value(0)
}

fn shutdown(reason: u64) -> Result<Outcome, Refusal> {
    let reason = ShutdownReason::from_number(reason)
        .ok_or_else(|| call::argument("shutdown reason", reason, 3))?;
    Ok(Outcome::Gone(Next::Stop(crate::domain::status::Stop {
        state: domain_state::SHUT_DOWN,
        cause: reason as u64 as u32,
        detail: 0,
    })))
}
