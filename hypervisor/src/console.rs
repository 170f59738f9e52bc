//! Consoles: every domain's 16550 with its rings, and the machine's COM1, which
//! is the toolstack's.

use crate::domain::Domain;
use crate::domain::table::DOMAINS;
use crate::log as serial;
use crate::mm::addr::GuestPhys;
use alloc::sync::Arc;
use spin::Once;
use xferry_abi::Event;

const CHUNK: usize = 256;

static TOOLSTACK: Once<Arc<Domain>> = Once::new();

/// Makes `domain` the one that COM1's input goes to.
pub fn attach(domain: &Arc<Domain>) {
    TOOLSTACK.call_once(|| Arc::clone(domain));
}

/// Passes what COM1 has received to the toolstack.
pub fn poll() {
    let Some(toolstack) = TOOLSTACK.get() else {
        return;
    };
    let mut bytes = [0; CHUNK];
    let count = serial::console_read(&mut bytes);
    let Some(received) = bytes.get(..count).filter(|b| !b.is_empty()) else {
        return;
    };
    give(toolstack, received);
}

/// Puts input to a domain's console and tells its first vCPU. Returns the bytes
/// that had room.
pub fn give(domain: &Domain, bytes: &[u8]) -> u64 {
    let mut uart = domain.console.lock();
    let taken = bytes
        .iter()
        .take_while(|byte| uart.push_input(**byte))
        .count();
    drop(uart);
    if taken > 0
        && let Some(cell) = domain.vcpus.first()
    {
        cell.raise(Event::Console);
    }
    taken as u64
}

/// Writes `bytes` bytes of the domain's memory, a range that was checked, to its
/// console. Returns the number of bytes.
pub fn write(domain: &Domain, from: GuestPhys, bytes: u64) -> u64 {
    let mut done = 0;
    let mut chunk = [0; CHUNK];
    while done < bytes {
        let length = usize::try_from(bytes - done).unwrap_or(CHUNK).min(CHUNK);
        let (Some(part), Some(at)) = (chunk.get_mut(..length), from.checked_add(done)) else {
            break;
        };
        if domain.memory.read(at, part).is_err() {
            break;
        }
        if domain.is_privileged() {
            serial::console_write(part);
        } else {
            let mut uart = domain.console.lock();
            part.iter().for_each(|byte| uart.push_output(*byte));
        }
        done += length as u64;
    }
    done
}

/// Moves console input into the domain's memory. Returns the number of bytes.
pub fn read(domain: &Domain, to: GuestPhys, bytes: u64) -> u64 {
    let mut chunk = [0; CHUNK];
    let wanted = usize::try_from(bytes).unwrap_or(CHUNK).min(CHUNK);
    let Some(room) = chunk.get_mut(..wanted) else {
        return 0;
    };
    let mut uart = domain.console.lock();
    let taken = room.iter_mut().map_while(|place| {
        *place = uart.pop_input()?;
        Some(())
    });
    let count = taken.count();
    drop(uart);
    match chunk.get(..count) {
        Some(part) if domain.memory.write(to, part).is_ok() => count as u64,
        _ => 0,
    }
}

/// The domain with number `id`, for callers that have only that.
pub fn find(id: xferry_abi::DomainId) -> Option<Arc<Domain>> {
    DOMAINS.lock().get(id)
}
