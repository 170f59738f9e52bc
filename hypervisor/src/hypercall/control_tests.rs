//! The control call: its form, its buffers, and which domain it may name.

use super::*;
use crate::domain::status::Stop;
use crate::testing::{BUFFER, DATA, PAGES, Toolstack};
use xferry_abi::info::{DomainInfo, state as domain_state};
use xferry_abi::{Failure, RightAction};

const END: u64 = PAGES * 4096;
/// A number that no test's domain reaches.
const NOBODY: DomainId = DomainId(1_000_000);

fn failure(errno: Errno, class: u32, code: u32, seen: u64, allowed: u64) -> Failure {
    Failure {
        errno,
        reason: Reason::new(class, code),
        seen,
        allowed,
    }
}

fn of_call(errno: Errno, code: u32, seen: u64, allowed: u64) -> Result<u64, Failure> {
    Err(failure(errno, Reason::CLASS_CALL, code, seen, allowed))
}

fn of_domain(errno: Errno, code: u32, seen: u64, allowed: u64) -> Result<u64, Failure> {
    Err(failure(errno, Reason::CLASS_DOMAIN, code, seen, allowed))
}

/// All that name a domain which must stand and may not be altered by a
/// migration, and all others that name one.
fn naming(domain: DomainId) -> (Vec<Request>, Vec<Request>) {
    use Request as R;
    let buffer = Buffer {
        address: BUFFER,
        bytes: 8,
    };
    let (vcpu, address) = (0, 0);
    let altering = alloc::vec![
        R::MemoryWrite {
            domain,
            address,
            buffer
        },
        R::SetRegisters {
            domain,
            vcpu,
            buffer
        },
        R::SetPolicy {
            domain,
            drop: 0,
            buffer
        },
        R::SetXstate {
            domain,
            vcpu,
            buffer
        },
        R::Reclaim { domain },
        R::SetConsole { domain, buffer },
        R::SetClock {
            domain,
            clock_ns: 1
        },
    ];
    let reading = alloc::vec![
        R::GetRegisters {
            domain,
            vcpu,
            buffer
        },
        R::GetXstate {
            domain,
            vcpu,
            buffer
        },
        R::GetConsole { domain, buffer },
    ];
    (altering, reading)
}

#[test]
fn the_calls_own_form_is_checked_first() {
    let mut toolstack = Toolstack::new();
    let good = Request::NextDomain { domain: NOBODY }.encode();
    let mut control = good;
    control.version = 7;
    let refused = toolstack.raw(control.as_bytes());
    assert_eq!(refused, of_call(Errno::EINVAL, 1, 7, 1));
    control = good;
    control.operation = 99;
    let refused = toolstack.raw(control.as_bytes());
    assert_eq!(refused, of_call(Errno::ENOSYS, 2, 99, 0));
    control = good;
    control.arguments[5] = 3;
    let refused = toolstack.raw(control.as_bytes());
    assert_eq!(refused, of_call(Errno::EINVAL, 3, 3, 0));
    let refused = toolstack.raw(&good.as_bytes()[..63]);
    assert_eq!(refused, of_call(Errno::ENOBUFS, 19, 63, 64));
    // An argument outside of memory, or partly.
    for address in [END, END - 32, u64::MAX - 3] {
        toolstack.guest.hypercall(16, [address, 64, 0]);
        let refused = toolstack.guest.result();
        assert_eq!(refused, of_call(Errno::EFAULT, 17, address, 0));
    }
}

#[test]
fn a_size_is_asked_by_a_null_buffer_and_a_short_one_is_told_it() {
    let mut toolstack = Toolstack::new();
    let domain = toolstack.domain("host", 1, 0).id;
    let info = |buffer| Request::DomainInfo { domain, buffer };
    let registers = |buffer| Request::GetRegisters {
        domain,
        vcpu: 0,
        buffer,
    };
    let xstate = |buffer| Request::XstateStatus {
        domain,
        vcpu: 0,
        buffer,
    };
    let requests: [(&dyn Fn(Buffer) -> Request, u64); 3] = [
        (&info, size_of::<DomainInfo>() as u64),
        (&registers, 640),
        (&xstate, 56 + 6 * 16),
    ];
    for (request, needed) in requests {
        assert_eq!(toolstack.call(request(Buffer::NULL)), Ok(needed));
        toolstack.guest.put(BUFFER, &[0x5a; 1024]);
        let short = toolstack.room(needed - 1);
        let refused = of_call(Errno::ENOBUFS, 19, needed - 1, needed);
        assert_eq!(toolstack.call(request(short)), refused);
        assert_eq!(toolstack.guest.take(BUFFER, 1024), [0x5a; 1024]);
        // A longer one is filled as far as needed.
        let long = toolstack.room(1024);
        assert_eq!(toolstack.call(request(long)), Ok(needed));
        let filled = toolstack.guest.take(BUFFER, 1024);
        assert_ne!(filled[..needed as usize], [0x5a; 1024][..needed as usize]);
        assert_eq!(filled[needed as usize..], [0x5a; 1024][needed as usize..]);
        let outside = Buffer {
            address: END - 8,
            bytes: needed,
        };
        let refused = of_call(Errno::EFAULT, 17, END - 8, 0);
        assert_eq!(toolstack.call(request(outside)), refused);
    }
}

#[test]
fn what_is_taken_has_its_exact_length_and_lies_in_memory() {
    let mut toolstack = Toolstack::new();
    let domain = toolstack.domain("host", 1, 0).id;
    let request = |buffer| Request::SetRegisters {
        domain,
        vcpu: 0,
        buffer,
    };
    for bytes in [0, 639, 641] {
        let buffer = toolstack.room(bytes);
        let refused = of_call(Errno::ENOBUFS, 19, bytes, 640);
        assert_eq!(toolstack.call(request(buffer)), refused);
    }
    let outside = Buffer {
        address: END - 639,
        bytes: 640,
    };
    let refused = of_call(Errno::EFAULT, 17, END - 639, 0);
    assert_eq!(toolstack.call(request(outside)), refused);
    // A blob of any length up to a limit.
    let buffer = toolstack.room(65_537);
    let request = Request::SetXstate {
        domain,
        vcpu: 0,
        buffer,
    };
    let refused = of_call(Errno::ENOBUFS, 19, 65_537, 65_536);
    assert_eq!(toolstack.call(request), refused);
}

#[test]
fn a_domain_that_is_not_there_is_named() {
    let mut toolstack = Toolstack::new();
    let (altering, reading) = naming(NOBODY);
    let buffer = Buffer::NULL;
    let more = [
        Request::Pause { domain: NOBODY },
        Request::Unpause { domain: NOBODY },
        Request::Destroy { domain: NOBODY },
        Request::DomainInfo {
            domain: NOBODY,
            buffer,
        },
        Request::GetPolicy {
            domain: NOBODY,
            buffer,
        },
        Request::NextDomain { domain: NOBODY },
    ];
    for request in altering.into_iter().chain(reading).chain(more) {
        let refused = of_domain(Errno::ENOENT, 1, u64::from(NOBODY.0), 0);
        assert_eq!(toolstack.call(request), refused, "{request:?}");
    }
    assert_eq!(toolstack.words(), "there is no domain 1000000");
    let id = toolstack.domain("host", 1, 0).id;
    let next = toolstack.call(Request::NextDomain { domain: id });
    assert_eq!(next, Ok(u64::from(id.0)));
    let (vcpu, domain) = (1, id);
    let request = Request::GetRegisters {
        domain,
        vcpu,
        buffer,
    };
    assert_eq!(toolstack.call(request), of_domain(Errno::ENOENT, 6, 1, 1));
}

#[test]
fn the_toolstack_does_nothing_of_this_to_itself() {
    let mut toolstack = Toolstack::new();
    let me = DomainId::TOOLSTACK;
    let (altering, reading) = naming(me);
    let more = [
        Request::Pause { domain: me },
        Request::Unpause { domain: me },
        Request::Destroy { domain: me },
        Request::SetXstateLimit {
            domain: me,
            limit_bytes: 0,
        },
    ];
    for request in altering.into_iter().chain(reading).chain(more) {
        let refused = of_domain(Errno::EINVAL, 2, 0, 1);
        assert_eq!(toolstack.call(request), refused, "{request:?}");
    }
    let buffer = toolstack.give(&[1; 16]);
    let request = Request::Right {
        domain: me,
        action: RightAction::SourceBegin,
        peer: 0,
        buffer,
    };
    assert_eq!(toolstack.call(request), of_domain(Errno::ENOENT, 1, 0, 0));
}

#[test]
fn a_domain_that_runs_is_paused_first() {
    let mut toolstack = Toolstack::new();
    let domain = toolstack.domain("host", 1, 0);
    let id = domain.id;
    assert_eq!(toolstack.call(Request::Unpause { domain: id }), Ok(0));
    assert!(domain.status.runnable());
    let (altering, reading) = naming(id);
    for request in altering.into_iter().chain(reading) {
        let refused = of_domain(Errno::EBUSY, 3, u64::from(id.0), 0);
        assert_eq!(toolstack.call(request), refused, "{request:?}");
    }
    assert!(toolstack.words().ends_with("runs; pause it first"));
    assert_eq!(toolstack.call(Request::Pause { domain: id }), Ok(0));
    assert!(!domain.status.runnable());
    let clock_ns = 77_000_000_000;
    let request = Request::SetClock {
        domain: id,
        clock_ns,
    };
    assert_eq!(toolstack.call(request), Ok(0));
    let now = domain.vcpus[0].vcpu.lock().now_ns(crate::cpu::tsc::now());
    assert!((clock_ns..clock_ns + 60_000_000_000).contains(&now));
}

#[test]
fn a_domain_that_a_migration_speaks_for_is_read_and_not_altered() {
    let mut toolstack = Toolstack::new();
    let domain = toolstack.domain("host", 1, 0);
    domain.status.set_frozen(true);
    let id = u64::from(domain.id.0);
    let (altering, reading) = naming(domain.id);
    for request in altering {
        let refused = of_domain(Errno::EBUSY, 5, id, 0);
        assert_eq!(toolstack.call(request), refused, "{request:?}");
    }
    for request in reading {
        let errno = toolstack.call(request).unwrap_err().errno;
        assert_eq!(errno, Errno::ENOBUFS, "{request:?}");
    }
}

#[test]
fn memory_is_copied_both_ways_and_only_where_both_have_some() {
    let mut toolstack = Toolstack::new();
    let other = toolstack.other("host");
    let domain = other.domain.id;
    let buffer = toolstack.give(b"across");
    let address = DATA + 0xffd;
    let write = |address, buffer| Request::MemoryWrite {
        domain,
        address,
        buffer,
    };
    let read = |address, buffer| Request::MemoryRead {
        domain,
        address,
        buffer,
    };
    assert_eq!(toolstack.call(write(address, buffer)), Ok(6));
    assert_eq!(other.take(address, 6), b"across");
    other.put(address, b"return");
    assert_eq!(toolstack.call(read(address, buffer)), Ok(6));
    assert_eq!(toolstack.guest.take(BUFFER, 6), b"return");
    let outside = Buffer {
        address: END - 5,
        bytes: 6,
    };
    for request in [write(END - 5, buffer), read(END - 5, buffer)] {
        let refused = of_call(Errno::EFAULT, 17, END - 5, 0);
        assert_eq!(toolstack.call(request), refused, "{request:?}");
    }
    for request in [write(address, outside), read(address, outside)] {
        let refused = of_call(Errno::EFAULT, 17, END - 5, 0);
        assert_eq!(toolstack.call(request), refused, "{request:?}");
    }
    assert_eq!(other.take(address, 6), b"return");
}

#[test]
fn what_is_told_of_a_domain_follows_its_state() {
    let mut toolstack = Toolstack::new();
    let domain = toolstack.domain("host", 2, 100);
    let id = domain.id;
    let info = |toolstack: &mut Toolstack| {
        let bytes = toolstack.fetch(|buffer| Request::DomainInfo { domain: id, buffer });
        DomainInfo::read_from_bytes(&bytes).unwrap()
    };
    let first = info(&mut toolstack);
    assert_eq!((first.state, first.vcpus), (domain_state::PAUSED, 2));
    assert_eq!(first.memory_pages, PAGES);
    assert_eq!(first.xstate_limit_bytes - first.xstate_bytes, 100);
    toolstack.call(Request::Unpause { domain: id }).unwrap();
    domain.account(5, 7);
    domain.status.stop(Stop {
        state: domain_state::NEEDS_MEMORY,
        cause: 0,
        detail: 832,
    });
    let stopped = info(&mut toolstack);
    assert_eq!(stopped.state, domain_state::NEEDS_MEMORY);
    assert_eq!((stopped.missing_bytes, stopped.exits), (832, 7));
    let set = |limit_bytes| Request::SetXstateLimit {
        domain: id,
        limit_bytes,
    };
    let used = first.xstate_bytes;
    let refused = of_domain(Errno::EBUSY, 7, used - 1, used);
    assert_eq!(toolstack.call(set(used - 1)), refused);
    assert_eq!(toolstack.call(set(used + 932)), Ok(0));
    let running = info(&mut toolstack);
    assert_eq!(
        (running.state, running.missing_bytes),
        (domain_state::RUNNING, 0)
    );
    assert_eq!(running.xstate_limit_bytes, used + 932);
    assert!(domain.status.runnable());
}

#[test]
fn consoles_are_read_written_and_moved() {
    let mut toolstack = Toolstack::new();
    let domain = toolstack.domain("host", 1, 0);
    let id = domain.id;
    let buffer = toolstack.give(b"typed");
    let write = Request::ConsoleWrite { domain: id, buffer };
    assert_eq!(toolstack.call(write), Ok(5));
    assert_eq!(domain.console.lock().pop_input(), Some(b't'));
    b"printed"
        .iter()
        .for_each(|byte| domain.console.lock().push_output(*byte));
    let record = toolstack.fetch(|buffer| Request::GetConsole { domain: id, buffer });
    let outside = Buffer {
        address: END,
        bytes: 4,
    };
    let read = |buffer| Request::ConsoleRead { domain: id, buffer };
    let refused = of_call(Errno::EFAULT, 17, END, 0);
    assert_eq!(toolstack.call(read(outside)), refused);
    let room = toolstack.room(4);
    assert_eq!(toolstack.call(read(room)), Ok(4));
    assert_eq!(toolstack.guest.take(BUFFER, 4), b"prin");
    assert_eq!(toolstack.call(read(toolstack.room(4096))), Ok(3));
    let buffer = toolstack.give(&record);
    let set = |buffer| Request::SetConsole { domain: id, buffer };
    assert_eq!(toolstack.call(set(buffer)), Ok(0));
    assert!(domain.console.lock().output().eq(*b"printed"));
    let cut = toolstack.room(record.len() as u64 - 1);
    let refusal = toolstack.call(set(cut)).unwrap_err();
    assert_eq!(refusal.reason.class(), Reason::CLASS_BLOB);
    assert!(domain.console.lock().output().eq(*b"printed"));
}
