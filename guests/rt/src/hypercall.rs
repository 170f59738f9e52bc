//! The hypercalls that every guest has, as functions, and the raw call.
#![allow(unsafe_code)] // VMMCALL and VMCALL

use crate::cpu;
use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use xferry_abi::error::{Errno, Failure, Reason};
use xferry_abi::{CPUID_BASE, CPUID_SIGNATURE, Call, ConsoleDirection, Event, ShutdownReason};

/// Which instruction makes the call. Both are served on both vendors' machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Instruction {
    /// AMD's.
    Vmmcall = 0,
    /// Intel's.
    Vmcall = 1,
    /// One after the other.
    Alternate = 2,
}

static INSTRUCTION: AtomicU8 = AtomicU8::new(Instruction::Vmmcall as u8);
static TURN: AtomicBool = AtomicBool::new(false);
static AVAILABLE: AtomicBool = AtomicBool::new(false);

/// Looks for the hypervisor in CPUID. Called once at start.
pub fn detect() {
    let leaf = cpu::cpuid(CPUID_BASE, 0);
    let seen = [leaf.ebx, leaf.ecx, leaf.edx].map(u32::to_le_bytes);
    AVAILABLE.store(*seen.as_flattened() == CPUID_SIGNATURE, Ordering::Relaxed);
    let vendor = cpu::cpuid(0, 0);
    if vendor.ebx.to_le_bytes() == *b"Genu" {
        use_instruction(Instruction::Vmcall);
    }
}

/// Whether this is a guest of Xferry, so that calls work at all.
#[must_use]
pub fn available() -> bool {
    AVAILABLE.load(Ordering::Relaxed)
}

/// Chooses the instruction for all later calls; the vendor's own unless said.
pub fn use_instruction(instruction: Instruction) {
    INSTRUCTION.store(instruction as u8, Ordering::Relaxed);
}

/// Makes a call. Arguments go into RDI, RSI, RDX, R10, R8.
///
/// # Errors
/// What the hypervisor answered; [`Errno::ENOSYS`] where there is none.
///
/// # Safety
/// What the call does to the guest's memory must be sound: where an argument
/// is an address that the hypervisor writes to, the memory there must be the
/// caller's and valid for the length that goes with it.
pub unsafe fn call(number: u64, arguments: [u64; 5]) -> Result<u64, Failure> {
    if !available() {
        return Err(Failure::of(Errno::ENOSYS));
    }
    let vmcall = match INSTRUCTION.load(Ordering::Relaxed) {
        0 => false,
        1 => true,
        _ => TURN.fetch_xor(true, Ordering::Relaxed),
    };
    let [mut rdi, mut rsi, mut rdx, r10, r8] = arguments;
    let mut rax = number;
    // SAFETY: the hypervisor is there. It changes RAX, RDX, RSI and RDI, and
    // memory as the caller vouches for.
    unsafe {
        if vmcall {
            asm!("vmcall", inlateout("rax") rax, inlateout("rdi") rdi, inlateout("rsi") rsi,
                inlateout("rdx") rdx, in("r10") r10, in("r8") r8, options(nostack));
        } else {
            asm!("vmmcall", inlateout("rax") rax, inlateout("rdi") rdi, inlateout("rsi") rsi,
                inlateout("rdx") rdx, in("r10") r10, in("r8") r8, options(nostack));
        }
    }
    decode(rax, rdx, rsi, rdi)
}

/// The registers that a call returns, as a result.
fn decode(rax: u64, rdx: u64, rsi: u64, rdi: u64) -> Result<u64, Failure> {
    let value = rax.cast_signed();
    if value >= 0 {
        return Ok(rax);
    }
    let errno = u32::try_from(value.unsigned_abs())
        .ok()
        .and_then(Errno::from_number)
        // A number from a later interface; the rule and values still hold.
        .unwrap_or(Errno::EINVAL);
    Err(Failure {
        errno,
        reason: Reason(rdx as u32),
        seen: rsi,
        allowed: rdi,
    })
}

/// The version of the calls that the hypervisor serves.
///
/// # Errors
/// [`Errno::ENOSYS`] where there is no hypervisor.
pub fn version() -> Result<u64, Failure> {
    // SAFETY: takes no address.
    unsafe { call(Call::Version as u64, [0; 5]) }
}

/// Offers `bytes` (at most 4096 of them) to the console. Returns how many it
/// took.
///
/// # Errors
/// What the hypervisor answered.
pub fn console_write(bytes: &[u8]) -> Result<usize, Failure> {
    let length = bytes.len().min(xferry_abi::PAGE_BYTES);
    let direction = ConsoleDirection::Write as u64;
    // SAFETY: the hypervisor only reads the buffer, which is `length` long.
    let moved = unsafe {
        call(
            Call::Console as u64,
            [direction, length as u64, bytes.as_ptr() as u64, 0, 0],
        )
    }?;
    Ok(usize::try_from(moved).map_or(length, |moved| moved.min(length)))
}

/// Takes what waits in the console's input, at most 4096 bytes. Returns how
/// many bytes of `buffer` were filled; 0 where none waits.
///
/// # Errors
/// What the hypervisor answered.
pub fn console_read(buffer: &mut [u8]) -> Result<usize, Failure> {
    let length = buffer.len().min(xferry_abi::PAGE_BYTES);
    let direction = ConsoleDirection::Read as u64;
    // SAFETY: the buffer is the caller's to write, and `length` long.
    let moved = unsafe {
        call(
            Call::Console as u64,
            [direction, length as u64, buffer.as_mut_ptr() as u64, 0, 0],
        )
    }?;
    Ok(usize::try_from(moved).map_or(length, |moved| moved.min(length)))
}

/// Asks for `event` as an interrupt on `vector` (32–47 have handlers), or not
/// at all with `None`. Use [`crate::interrupts::on_event`], which also installs
/// the handler.
///
/// # Errors
/// What the hypervisor answered.
pub fn set_vector(event: Event, vector: Option<u8>) -> Result<(), Failure> {
    let vector = u64::from(vector.unwrap_or(0));
    // SAFETY: takes no address.
    unsafe { call(Call::SetVector as u64, [event as u64, vector, 0, 0, 0]) }.map(drop)
}

/// Gives the processor to another vCPU, if one can run.
pub fn yield_now() {
    // SAFETY: takes no address. There is nothing to do about a refusal.
    let _ = unsafe { call(Call::Yield as u64, [0; 5]) };
}

/// Stops this domain. Returns only where there is no hypervisor.
pub fn shutdown(reason: ShutdownReason) {
    // SAFETY: takes no address. There is nothing to do about a refusal.
    let _ = unsafe { call(Call::Shutdown as u64, [reason as u64, 0, 0, 0, 0]) };
}

/// Makes a control call. For the toolstack domain alone.
///
/// # Errors
/// What the hypervisor answered.
///
/// # Safety
/// Buffers that the request has filled in must be the caller's memory, valid
/// for writes of the length stated.
pub unsafe fn control(request: &xferry_abi::Request) -> Result<u64, Failure> {
    let control = request.encode();
    let address = &raw const control as u64;
    let length = size_of_val(&control) as u64;
    // SAFETY: the argument is read by the hypervisor while `control` lives;
    // the caller vouches for the buffers in it.
    unsafe { call(Call::Control as u64, [address, length, 0, 0, 0]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_negative_value_is_a_failure_with_its_details() {
        assert_eq!(decode(7, 1, 2, 3), Ok(7));
        assert_eq!(
            decode((-14i64).cast_unsigned(), 0x0100_0002, 5, 6),
            Err(Failure {
                errno: Errno::EFAULT,
                reason: Reason::new(Reason::CLASS_CALL, 2),
                seen: 5,
                allowed: 6,
            })
        );
    }
}
