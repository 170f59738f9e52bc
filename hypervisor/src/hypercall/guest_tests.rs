//! The calls that every guest has.

use super::*;
use crate::domain::status::Stop;
use crate::testing::{CODE, DATA, Guest, PAGES};
use crate::vcpu::clock::DomainClock;
use migration_abi::registers::VcpuRegisters;
use xferry_abi::{Errno, Failure, Reason};
use zerocopy::FromBytes;

const END: u64 = PAGES * 4096;

/// Makes a call that comes back into the guest.
fn call(guest: &mut Guest, number: u64, arguments: [u64; 3]) -> Result<u64, Failure> {
    let next = guest.hypercall(number, arguments);
    assert!(matches!(
        next,
        Next::Resume | Next::ResumeTimer | Next::Yield
    ));
    assert_eq!(guest.rip(), CODE + 3);
    guest.result()
}

fn refused(errno: Errno, code: u32, seen: u64, allowed: u64) -> Result<u64, Failure> {
    Err(Failure {
        errno,
        reason: Reason::new(Reason::CLASS_CALL, code),
        seen,
        allowed,
    })
}

/// The registers that no call may change.
fn others(guest: &Guest) -> VcpuRegisters {
    let mut registers = guest.registers();
    for result in [gpr::RAX, gpr::RDX, gpr::RSI, gpr::RDI] {
        registers.gpr[result] = 0;
    }
    registers.rip = 0;
    registers
}

#[test]
fn results_are_in_four_registers_and_nowhere_else() {
    let mut guest = Guest::new("host");
    for register in 0..16 {
        guest.set(register, 0xa5a5_0000_0000_0000 | register as u64);
    }
    let before = others(&guest);
    let version = call(&mut guest, 0, [1, 2, 3]);
    assert_eq!(version, Ok(u64::from(CALLS_VERSION)));
    assert_eq!(others(&guest), before);
    assert!(call(&mut guest, 4, [9, 2, 3]).is_err());
    assert_eq!(others(&guest), before);
    let registers = guest.registers().gpr;
    let [rax, rdx, rsi, rdi] = [gpr::RAX, gpr::RDX, gpr::RSI, gpr::RDI].map(|r| registers[r]);
    assert_eq!(rax.cast_signed(), -22);
    assert_eq!((rdx, rsi, rdi), (0x0100_0012, 9, 1));
}

#[test]
fn a_number_that_no_call_has() {
    let mut guest = Guest::new("host");
    for number in [7, 15, 17, 1 << 32, u64::MAX] {
        let result = call(&mut guest, number, [0; 3]);
        assert_eq!(result, refused(Errno::ENOSYS, 16, number, 16));
    }
}

#[test]
fn an_ordinary_guest_may_not_control_and_learns_nothing() {
    let mut guest = Guest::new("host");
    let before = guest.take(0xa000, 0x1000);
    // Whether the argument could be read, and what it says, is not told.
    for arguments in [[0xa000, 64, 0], [END, 64, 0], [0, 0, 0]] {
        let result = call(&mut guest, 16, arguments);
        assert_eq!(result, Err(Failure::of(Errno::EPERM)));
    }
    assert_eq!(guest.take(0xa000, 0x1000), before);
}

#[test]
fn calls_are_the_kernels_and_a_user_is_refused_as_any_other() {
    let mut guest = Guest::new("host");
    guest.set_cpl(3);
    for number in [0, 1, 2, 3, 4, 5, 6, 16, 99] {
        assert_eq!(guest.hypercall(number, [0, 40, DATA]), Next::Resume);
        assert_eq!(guest.result(), Err(Failure::of(Errno::EPERM)), "{number}");
        assert_eq!(guest.rip(), CODE + 3);
    }
    let vcpu = guest.vcpu();
    assert_eq!((vcpu.clock_page, vcpu.events.vectors[0]), (None, 0));
}

#[test]
fn console_bytes_go_both_ways() {
    let mut guest = Guest::new("host");
    let text: alloc::vec::Vec<u8> = (0..700_u32).map(|i| i as u8).collect();
    guest.put(DATA + 0xf00, &text);
    assert_eq!(call(&mut guest, 1, [0, 700, DATA + 0xf00]), Ok(700));
    assert!(guest.domain.console.lock().output().eq(text));
    assert_eq!(call(&mut guest, 1, [1, 8, DATA]), Ok(0));
    assert_eq!(crate::console::give(&guest.domain, b"hello"), 5);
    assert_eq!(call(&mut guest, 1, [1, 3, DATA]), Ok(3));
    assert_eq!(call(&mut guest, 1, [1, 100, DATA + 3]), Ok(2));
    assert_eq!(guest.take(DATA, 6), b"hello\0");
    // The first vCPU was told that input waits.
    assert_eq!(guest.domain.vcpus[0].take_raised(), 2);
}

#[test]
fn console_arguments_are_checked_before_anything_moves() {
    let mut guest = Guest::new("host");
    assert_eq!(crate::console::give(&guest.domain, b"kept"), 4);
    let direction = refused(Errno::EINVAL, 18, 2, 1);
    assert_eq!(call(&mut guest, 1, [2, 1, DATA]), direction);
    let outside = refused(Errno::EFAULT, 17, END - 1, 0);
    for way in [0, 1] {
        assert_eq!(call(&mut guest, 1, [way, 2, END - 1]), outside);
        let wraps = refused(Errno::EFAULT, 17, u64::MAX, 0);
        assert_eq!(call(&mut guest, 1, [way, 2, u64::MAX]), wraps);
    }
    let mut uart = guest.domain.console.lock();
    assert_eq!((uart.output_len(), uart.pop_input()), (0, Some(b'k')));
    drop(uart);
    // A call moves 4096 bytes at most.
    assert_eq!(call(&mut guest, 1, [0, u64::MAX, DATA]), Ok(4096));
}

#[test]
fn a_clock_page_tells_the_guests_time_until_it_is_taken_back() {
    let mut guest = Guest::new("host");
    guest.vcpu().clock = DomainClock::new(5_000_000_000, 100, 1_000_000);
    assert_eq!(call(&mut guest, 2, [DATA + 8, 0, 0]), Ok(0));
    let page = ClockPage::read_from_bytes(&guest.take(DATA + 8, 32)).unwrap();
    let offset = guest.vcpu().tsc_offset;
    let later = 100 + 3_000;
    assert_eq!(page.version, 2);
    assert_eq!(
        page.time_ns(offset.wrapping_add(later)),
        guest.vcpu().now_ns(later)
    );
    assert_eq!(guest.vcpu().clock_page, Some(GuestPhys::new(DATA + 8)));
    assert_eq!(call(&mut guest, 2, [u64::MAX, 0, 0]), Ok(0));
    assert_eq!(guest.vcpu().clock_page, None);
}

#[test]
fn a_clock_page_lies_aligned_inside_one_page_of_memory() {
    let mut guest = Guest::new("host");
    for at in [DATA + 4, DATA + 0xfe8] {
        let placed = refused(Errno::EINVAL, 18, at, 8);
        assert_eq!(call(&mut guest, 2, [at, 0, 0]), placed, "{at:#x}");
    }
    for at in [END, END - 24, u64::MAX - 7] {
        let outside = refused(Errno::EFAULT, 17, at, 0);
        assert_eq!(call(&mut guest, 2, [at, 0, 0]), outside, "{at:#x}");
    }
    assert_eq!(guest.vcpu().clock_page, None);
    assert_eq!(call(&mut guest, 2, [DATA + 0xfe0, 0, 0]), Ok(0));
}

#[test]
fn timer_and_vectors_are_set() {
    let mut guest = Guest::new("host");
    assert_eq!(guest.hypercall(3, [123_456, 0, 0]), Next::ResumeTimer);
    assert_eq!(guest.result(), Ok(0));
    assert_eq!(guest.vcpu().events.timer_deadline_ns, 123_456);
    for (event, vector) in [(0, 32), (1, 255), (0, 0)] {
        assert_eq!(call(&mut guest, 4, [event, vector, 0]), Ok(0));
        let vectors = guest.vcpu().events.vectors;
        assert_eq!(u64::from(vectors[event as usize]), vector);
    }
    for vector in [1, 31, 256, 1 << 32 | 64] {
        let refusal = refused(Errno::EINVAL, 18, vector, 255);
        assert_eq!(call(&mut guest, 4, [1, vector, 0]), refusal, "{vector}");
    }
    let refusal = refused(Errno::EINVAL, 18, 2, 1);
    assert_eq!(call(&mut guest, 4, [2, 64, 0]), refusal);
    assert_eq!(guest.vcpu().events.vectors[..3], [0, 255, 0]);
}

#[test]
fn a_yield_lets_others_run_and_a_shutdown_does_not_return() {
    let mut guest = Guest::new("host");
    assert_eq!(guest.hypercall(5, [0; 3]), Next::Yield);
    assert_eq!(guest.result(), Ok(0));
    for reason in [0, 1, 3] {
        let stop = Stop {
            state: domain_state::SHUT_DOWN,
            cause: reason as u32,
            detail: 0,
        };
        assert_eq!(guest.hypercall(6, [reason, 0, 0]), Next::Stop(stop));
    }
    for reason in [2, 4, 1 << 32] {
        let refusal = refused(Errno::EINVAL, 18, reason, 3);
        assert_eq!(call(&mut guest, 6, [reason, 0, 0]), refusal);
    }
}
