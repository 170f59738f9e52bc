//! Registers and extended state through control calls.

use super::*;
use crate::domain::Domain;
use crate::testing::{BUFFER, Content, DATA, Toolstack, blob, host};
use crate::virt::gpr;
use alloc::sync::Arc;
use alloc::vec::Vec;
use migration_abi::registers::Activity;
use xferry_abi::info::{XstateRow, XstateSummary, xstate_row};
use xferry_abi::{Failure, Request};
use zerocopy::FromBytes;

const HOST: &str = "host";
const AVX: Content = Content {
    xcr0: 7,
    accum: 4,
    avx: Some(0xc3),
};
const INIT: Content = Content {
    xcr0: 1,
    accum: 0,
    avx: None,
};

/// A toolstack and a paused domain.
struct Two {
    toolstack: Toolstack,
    domain: Arc<Domain>,
}

impl Two {
    fn new(policy: &str, vcpus: u32, limit: u64) -> Self {
        let toolstack = Toolstack::new();
        let domain = toolstack.domain(policy, vcpus, limit);
        Self { toolstack, domain }
    }

    fn get(&mut self, vcpu: u32) -> Vec<u8> {
        let domain = self.domain.id;
        self.toolstack.fetch(|buffer| Request::GetXstate {
            domain,
            vcpu,
            buffer,
        })
    }

    fn set(&mut self, vcpu: u32, blob: &[u8]) -> Result<u64, Failure> {
        let buffer = self.toolstack.give(blob);
        let domain = self.domain.id;
        self.toolstack.call(Request::SetXstate {
            domain,
            vcpu,
            buffer,
        })
    }

    fn registers(&mut self) -> VcpuRegisters {
        let (domain, vcpu) = (self.domain.id, 0);
        let request = |buffer| Request::GetRegisters {
            domain,
            vcpu,
            buffer,
        };
        VcpuRegisters::read_from_bytes(&self.toolstack.fetch(request)).unwrap()
    }

    fn set_registers(&mut self, record: &VcpuRegisters) -> Result<u64, Failure> {
        let buffer = self.toolstack.give(record.as_bytes());
        self.toolstack.call(Request::SetRegisters {
            domain: self.domain.id,
            vcpu: 0,
            buffer,
        })
    }

    fn status(&mut self) -> (XstateSummary, Vec<XstateRow>) {
        let (domain, vcpu) = (self.domain.id, 0);
        let bytes = self.toolstack.fetch(|buffer| Request::XstateStatus {
            domain,
            vcpu,
            buffer,
        });
        let (summary, rows) = XstateSummary::read_from_prefix(&bytes).unwrap();
        let rows = rows.chunks_exact(size_of::<XstateRow>());
        let row = |bytes| XstateRow::read_from_bytes(bytes).unwrap();
        (summary, rows.map(row).collect())
    }

    fn used(&self) -> u64 {
        self.domain.xstate_memory.lock().used_bytes()
    }
}

#[test]
fn extended_state_comes_back_byte_for_byte() {
    let mut two = Two::new(HOST, 2, 1 << 16);
    let first = two.get(0);
    assert_eq!(first, blob(HOST, INIT));
    let avx = blob(HOST, AVX);
    assert_eq!(two.set(1, &avx), Ok(0));
    assert_eq!(two.get(1), avx);
    assert_eq!(two.domain.vcpus[1].vcpu.lock().xstate.xcr0(), 7);
    // The other vCPU has its own.
    assert_eq!(two.get(0), first);
    assert_eq!(two.set(1, &first), Ok(0));
    assert_eq!(two.get(1), first);
}

#[test]
fn a_blob_that_breaks_a_rule_is_refused_by_its_name_and_changes_nothing() {
    let mut two = Two::new(HOST, 1, 1 << 16);
    let good = blob(HOST, AVX);
    assert_eq!(two.set(0, &good), Ok(0));
    // Six components: the image is behind the header and their entries.
    let image = 96 + 6 * 16;
    for (at, byte, name) in [
        (0, b'Y', "blob-magic"),
        (40, 5, "xcr0-"),
        (40, 0, "xcr0-"),
        (72, 3, "accum-enabled"),
        (96 + 2 * 16 + 13, 0x10, "component-layout"),
        (image + 512, 6, "xstate-bv-xcomp-bv"),
        (image + 528, 1, "header-reserved"),
    ] {
        let mut tampered = good.clone();
        assert_ne!(tampered[at], byte);
        tampered[at] = byte;
        let refusal = two.set(0, &tampered).unwrap_err();
        assert_eq!(refusal.errno, Errno::EINVAL, "{name}");
        let words = two.toolstack.words();
        assert!(words.contains(name), "{name}: {words}");
        let form = name.starts_with("blob-");
        let class = if form {
            Reason::CLASS_BLOB
        } else {
            Reason::CLASS_XSTATE
        };
        assert_eq!(refusal.reason.class(), class, "{words}");
        assert_eq!(two.get(0), good, "{name}");
    }
    let cut = &good[..good.len() - 1];
    assert_eq!(
        two.set(0, cut).unwrap_err().reason.class(),
        Reason::CLASS_BLOB
    );
    assert_eq!(two.get(0), good);
}

#[test]
fn a_blob_of_another_policy_is_refused() {
    let mut two = Two::new("host:avx=0", 1, 1 << 16);
    let before = two.get(0);
    let refusal = two.set(0, &blob(HOST, AVX)).unwrap_err();
    assert_eq!(
        (refusal.errno, refusal.seen, refusal.allowed),
        (Errno::EINVAL, 0x21f, 0x21b)
    );
    assert!(two.toolstack.words().contains("xstate-mask-policy"));
    assert_eq!(two.get(0), before);
}

#[test]
fn without_memory_for_it_a_blob_changes_nothing() {
    let policy = "host:mpx=0,pku=0,defer-avx=1";
    let mut two = Two::new(policy, 1, 0);
    let (before, used) = (two.get(0), two.used());
    let avx = blob(policy, AVX);
    let refusal = two.set(0, &avx).unwrap_err();
    assert_eq!((refusal.errno, refusal.seen), (Errno::ENOMEM, 832));
    assert_eq!((two.get(0), two.used()), (before, used));
    two.domain.xstate_memory.lock().set_limit_bytes(used + 832);
    assert_eq!(two.set(0, &avx), Ok(0));
    assert_eq!(two.get(0), avx);
}

#[test]
fn what_an_area_holds_is_told_row_by_row() {
    let mut two = Two::new("host:avx=0,mpx=0,pku=0", 1, 1 << 16);
    let (summary, rows) = two.status();
    assert_eq!((summary.area_bytes, summary.policy), (576, 3));
    assert_eq!((summary.owner, summary.compacted), (u32::MAX, 0));
    assert_eq!(rows.len(), 2);
}

#[test]
fn what_is_deferred_has_no_place_before_it_is_used() {
    let policy = "host:mpx=0,pku=0,defer-avx=1";
    let mut two = Two::new(policy, 1, 1 << 16);
    let (summary, rows) = two.status();
    assert_eq!(
        (summary.area_bytes, summary.policy, summary.xcr0),
        (576, 7, 1)
    );
    let (size, none) = (256, u32::MAX);
    assert_eq!((rows[2].size_bytes, rows[2].offset_bytes), (size, none));
    assert_eq!(rows[2].flags, xstate_row::DEFERRED);
    let avx = blob(policy, AVX);
    assert_eq!(two.set(0, &avx), Ok(0));
    let (summary, rows) = two.status();
    assert_eq!((summary.area_bytes, summary.xcr0), (832, 7));
    assert_eq!(summary.blob_bytes, avx.len() as u64);
    assert_eq!((rows[2].index, rows[2].offset_bytes), (2, 576));
    let flags = xstate_row::IN_AREA | xstate_row::IN_ACCUM | xstate_row::IN_USE;
    let flags = flags | xstate_row::ENABLED | xstate_row::DEFERRED;
    assert_eq!(rows[2].flags, flags);
    assert_eq!(
        rows[1].flags,
        flags & !xstate_row::IN_USE & !xstate_row::DEFERRED
    );
}

#[test]
fn reclaiming_gives_back_what_is_init_and_disabled() {
    let policy = "host:mpx=0,pku=0,defer-avx=1";
    let mut two = Two::new(policy, 2, 1 << 16);
    let reclaim = Request::Reclaim {
        domain: two.domain.id,
    };
    // Enabled and in use; INIT and enabled; INIT and disabled.
    for (content, expected) in [
        (AVX, 0),
        (Content { avx: None, ..AVX }, 0),
        (
            Content {
                avx: None,
                xcr0: 3,
                ..AVX
            },
            256,
        ),
    ] {
        let blob = blob(policy, content);
        assert_eq!(two.set(1, &blob), Ok(0));
        let used = two.used();
        assert_eq!(two.toolstack.call(reclaim), Ok(expected));
        assert_eq!(used - two.used(), expected);
    }
    assert_eq!(
        two.domain.vcpus[1].vcpu.lock().xstate.area_size_bytes(),
        576
    );
}

#[test]
fn a_register_record_comes_back_as_it_went_in() {
    let mut two = Two::new(HOST, 1, 0);
    let mut record = two.registers();
    // A vCPU after INIT.
    assert_eq!(
        (record.rip, record.cs.selector, record.cr0),
        (0xfff0, 0xf000, 0x6000_0010)
    );
    record.gpr = core::array::from_fn(|i| 0x0101_0101_0101_0101 * i as u64);
    record.gpr[gpr::RSP] = u64::MAX;
    (record.cr0, record.cr2, record.cr3) = (0x8001_0033, 0xdead_beef, 0x1000);
    (record.cr4, record.cr8, record.efer) = (0x4_0020, 15, 0xd01);
    (record.rip, record.rflags) = (0xffff_8000_0000_1000, 0x202);
    record.cs.attributes = 0xa09b;
    record.gs.base = 0xffff_8000_0000_0000;
    (record.dr0, record.dr3, record.dr6, record.dr7) = (1, 3, 0xffff_4ff0, 0x401);
    (record.lstar, record.star, record.sfmask) = (0xffff_8000_0000_2000, 5, 6);
    (record.tsc_aux, record.pat) = (77, 0x0007_0406_0007_0401);
    record.pending_event.kind = 0x83;
    (record.pending_event.vector, record.pending_event.has_error) = (14, 1);
    record.pending_event.error_code = 6;
    (record.interrupt_shadow, record.nmi_blocked) = (1, 1);
    record.activity = Activity::Halted as u8;
    (record.pending_debug, record.timer_deadline_ns) = (0x4000, 99);
    record.clock_page_gpa = DATA;
    (record.event_vectors[1], record.pending_events) = (0x41, 2);
    (record.gdtr.base, record.gdtr.limit) = (0x7000, 0x37);
    record.tsc = 1 << 50;
    two.domain.vcpus[0].block_until_ns(u64::MAX);
    assert_eq!(two.set_registers(&record), Ok(0));
    // What it waited for is not what it waits for.
    assert!(two.domain.vcpus[0].ready(0));
    let mut back = two.registers();
    // The TSC goes on meanwhile.
    assert!((record.tsc..record.tsc + (1 << 40)).contains(&back.tsc));
    back.tsc = record.tsc;
    assert_eq!(back, record);
    // The clock page was written anew.
    let mut version = [0; 4];
    let at = mm::addr::GuestPhys::new(DATA);
    two.domain.memory.read(at, &mut version).unwrap();
    assert_eq!(u32::from_le_bytes(version), 2);
}

#[test]
fn a_record_that_breaks_a_rule_is_refused_by_its_name() {
    let mut two = Two::new(HOST, 1, 0);
    let mut record = two.registers();
    let policy = host().policy.cr4_allowed();
    record.cr4 = 1 << 13;
    record.gpr[0] = 5;
    let refusal = two.set_registers(&record).unwrap_err();
    let reason = Reason::new(Reason::CLASS_REGISTERS, 3);
    assert_eq!((refusal.errno, refusal.reason), (Errno::EINVAL, reason));
    assert_eq!((refusal.seen, refusal.allowed), (1 << 13, policy));
    let words = two.toolstack.words();
    assert!(words.contains("record-cr4: saw 0x2000"), "{words}");
    let after = two.registers();
    assert_eq!((after.cr4, after.gpr[0]), (0, 0));
}

#[test]
fn a_buffer_that_ends_in_memory_that_is_not_there_is_not_filled() {
    let mut two = Two::new(HOST, 1, 0);
    let (domain, vcpu) = (two.domain.id, 0);
    let needed = two.get(0).len() as u64;
    two.toolstack.guest.put(BUFFER, &[0x5a; 16]);
    let buffer = two.toolstack.room(needed - 1);
    let request = Request::GetXstate {
        domain,
        vcpu,
        buffer,
    };
    let refusal = two.toolstack.call(request).unwrap_err();
    assert_eq!((refusal.errno, refusal.seen), (Errno::ENOBUFS, needed - 1));
    assert_eq!(refusal.allowed, needed);
    assert_eq!(two.toolstack.guest.take(BUFFER, 16), [0x5a; 16]);
}

/// Input that came while a guest did not run arrived without its event, and a
/// halted guest slept on.
#[test]
fn an_event_raised_since_the_vcpu_last_ran_moves_with_it() {
    let mut two = Two::new(HOST, 1, 0);
    assert_eq!(two.registers().pending_events, 0);
    two.domain.vcpus[0].raise(xferry_abi::Event::Console);
    let bit = 1 << xferry_abi::Event::Console as u64;
    assert_eq!(two.registers().pending_events, bit);
}
