//! Moves between two hosts in memory: whole, refused, and cut at every message.

use super::Patience;
use super::receiver::{Received, receive};
use super::settle::{open, reconnect};
use super::source::{Plan, Sent, send};
use crate::error::Error;
use crate::hypervisor::Hypervisor;
use crate::link::{SECOND_NS, Wire};
use crate::testing::{Cable, End, Host, Lines, Runners, blob};
use migration_abi::handover::{Status, receiver, source};
use migration_abi::stream::{MigrationId, RecordType};
use xferry_abi::DomainId;

struct Rig {
    hosts: [Host; 2],
    cable: Cable,
    moves: u8,
}

type Outcome = (Result<Sent, Error>, Result<Received, Error>);

impl Rig {
    fn new() -> Self {
        let runners = Runners::default();
        Self {
            hosts: [
                Host::new(0, true, &runners).with_guest(),
                Host::new(1, true, &runners),
            ],
            cable: Cable::new(),
            moves: 0,
        }
    }

    fn id(&self) -> MigrationId {
        MigrationId::new([self.moves; 16]).unwrap()
    }

    /// Moves domain `domain` from host 0 to host 1.
    fn go(&mut self, domain: u32) -> Outcome {
        self.moves += 1;
        let id = self.id();
        let plan = Plan {
            domain: DomainId(domain),
            id,
            boot_nonce: 1,
            patience: Patience::new(None, 5),
            unshown: b"half a line, ",
        };
        let [a, b] = &mut self.hosts;
        let (mut end_a, mut end_b) = (self.cable.end(0), self.cable.end(1));
        std::thread::scope(|scope| {
            let sender = scope.spawn(move || {
                let mut wire = Wire::new(&mut end_a);
                send(a, &mut wire, &plan)
            });
            let taker = scope.spawn(move || {
                let mut wire = Wire::new(&mut end_b);
                receive(
                    b,
                    &mut wire,
                    &mut Lines::default(),
                    2,
                    Patience::new(None, 20),
                )
            });
            (sender.join().unwrap(), taker.join().unwrap())
        })
    }

    fn settle(&mut self) -> [Result<(), Error>; 2] {
        self.cable.mend();
        let (end_a, end_b) = (self.cable.end(0), self.cable.end(1));
        let [a, b] = &mut self.hosts;
        let one = |host: &mut Host, mut end: End, nonce| {
            let mut wire = Wire::new(&mut end);
            reconnect(
                host,
                &mut wire,
                &mut Lines::default(),
                nonce,
                10 * SECOND_NS,
            )
        };
        std::thread::scope(|scope| {
            let first = scope.spawn(move || one(a, end_a, 1));
            let second = scope.spawn(move || one(b, end_b, 2));
            [first.join().unwrap(), second.join().unwrap()]
        })
    }

    fn runs(&self, side: usize) -> bool {
        self.hosts[side]
            .domains
            .values()
            .any(|d| d.may_run && !d.paused)
    }

    fn cut_at(&self, kind: RecordType) {
        self.cable.arm(Box::new(move |_, seen| seen != kind));
    }
}

#[test]
fn a_move_brings_everything() {
    let mut rig = Rig::new();
    let before = rig.hosts[0].domains[&1].clone();
    // What an earlier attempt, or a FIFO that was reset, left on the wire.
    rig.cable.noise(1, &[0x55; 100]);
    rig.cable.noise(0, &[0, 1, 0, 0, 0, 1]);
    let (sent, received) = rig.go(1);
    let (sent, received) = (sent.unwrap(), received.unwrap());
    assert_eq!((sent.data_pages, sent.zero_pages), (8, 292));
    assert_eq!(sent.blob_bytes, blob().len() as u64 + 4);
    assert_eq!(received.blob_bytes, sent.blob_bytes);
    assert!(sent.stream_bytes > 8 * 4096 && sent.stream_bytes < 10 * 4096);
    assert!(received.confirmed && !received.paused);
    assert_eq!(
        (received.name.as_str(), received.domain),
        ("guest", DomainId(1))
    );

    assert!(rig.hosts[0].domains.is_empty());
    let after = &rig.hosts[1].domains[&1];
    assert!(after.memory == before.memory);
    assert_eq!(after.registers, before.registers);
    assert_eq!(after.policy, before.policy);
    assert_eq!(after.info.uuid, before.info.uuid);
    assert_eq!(after.info.clock_ns, before.info.clock_ns);
    assert_eq!(&after.console[16..], b"half a line, unread output\n");
    let parsed = migration_abi::blob::parse(&after.blob).unwrap();
    assert_eq!(
        parsed.image(),
        migration_abi::blob::parse(&before.blob).unwrap().image()
    );
    assert!(rig.runs(1));
}

#[test]
fn a_host_that_lacks_a_component_refuses_by_name_before_the_first_page() {
    let mut rig = Rig::new();
    let runners = Runners::default();
    rig.hosts[1] = Host::new(1, false, &runners);
    rig.cable.arm(Box::new(|_, kind| {
        assert!(!matches!(kind, RecordType::Pages | RecordType::ZeroPages));
        true
    }));
    let (sent, received) = rig.go(1);
    let (sent, received) = (sent.unwrap_err(), received.unwrap_err());
    assert!(sent.text.contains("avx"), "{sent}");
    assert!(sent.text.contains("it runs on here"), "{sent}");
    assert_eq!((sent.code, &sent.reason), (received.code, &received.reason));
    assert!(rig.hosts[1].domains.is_empty());
    assert!(rig.runs(0));
}

#[test]
fn state_that_is_refused_is_told_by_its_rule_and_leaves_nothing() {
    let mut rig = Rig::new();
    rig.hosts[1].refuse_xstate = Some("mxcsr-reserved: seen 0x80001f80, allowed 0xffff");
    let (sent, received) = rig.go(1);
    assert_eq!(sent.unwrap_err().reason, "mxcsr-reserved");
    assert_eq!(received.unwrap_err().reason, "mxcsr-reserved");
    assert!(rig.hosts[1].domains.is_empty());
    assert!(rig.runs(0) && !rig.runs(1));
    // And the next attempt is as good as any.
    rig.hosts[1].refuse_xstate = None;
    let (sent, received) = rig.go(1);
    assert!(sent.is_ok() && received.is_ok());
}

#[test]
fn a_guest_that_was_paused_stays_so_when_it_is_refused() {
    let mut rig = Rig::new();
    rig.hosts[0].domains.get_mut(&1).unwrap().paused = true;
    rig.hosts[1].refuse_xstate = Some("no");
    let (sent, _) = rig.go(1);
    assert!(sent.unwrap_err().text.contains("paused as it was"));
    assert!(rig.hosts[0].domains[&1].paused && rig.hosts[0].domains[&1].may_run);
}

/// A domain that its toolstack had paused ran when it had moved.
#[test]
fn a_guest_that_was_paused_arrives_paused() {
    let mut rig = Rig::new();
    rig.hosts[0].domains.get_mut(&1).unwrap().paused = true;
    let (sent, received) = rig.go(1);
    assert!(sent.is_ok());
    assert!(received.unwrap().paused);
    assert!(!rig.runs(0) && !rig.runs(1));
    let arrived = rig.hosts[1].domains.values().next().unwrap();
    assert!(arrived.paused && arrived.may_run);
}

#[test]
fn nobody_there_is_said_by_either_side() {
    let mut rig = Rig::new();
    rig.cut_at(RecordType::Hello);
    let (sent, received) = rig.go(1);
    assert_eq!(sent.unwrap_err().reason, "link-silent");
    assert_eq!(received.unwrap_err().reason, "link-silent");
    assert!(rig.runs(0));
}

#[test]
fn a_cut_before_commit_leaves_the_guest_at_the_source() {
    use RecordType as T;
    for kind in [
        T::Header,
        T::Domain,
        T::Accept,
        T::Pages,
        T::ZeroPages,
        T::Console,
        T::VcpuRegisters,
        T::VcpuXstate,
        T::End,
        T::Ready,
    ] {
        let mut rig = Rig::new();
        rig.cut_at(kind);
        let (sent, received) = rig.go(1);
        let sent = sent.unwrap_err();
        assert!(received.is_err() && rig.cable.broken(), "{kind:?}");
        assert!(sent.text.contains("it runs on here"), "{kind:?}: {sent}");
        assert!(rig.runs(0) && !rig.runs(1), "{kind:?}");
        // The next move settles what is left at the receiver, and is done.
        rig.cable.mend();
        let (sent, received) = rig.go(1);
        assert!(
            sent.is_ok() && received.is_ok(),
            "{kind:?}: {sent:?} {received:?}"
        );
        assert_eq!(rig.hosts[1].domains.len(), 1, "{kind:?}");
        assert!(rig.runs(1) && rig.hosts[0].domains.is_empty(), "{kind:?}");
    }
}

#[test]
fn a_cut_after_the_right_was_given_up_is_settled_by_asking() {
    use RecordType as T;
    for (kind, runs_there) in [(T::Commit, false), (T::Running, true), (T::Done, true)] {
        let mut rig = Rig::new();
        rig.cut_at(kind);
        let (sent, received) = rig.go(1);
        assert!(rig.cable.broken(), "{kind:?}");
        assert!(!rig.runs(0), "{kind:?}: {sent:?}");
        assert_eq!(rig.runs(1), runs_there, "{kind:?}: {received:?}");
        assert_eq!(sent.is_ok(), kind == T::Done, "{kind:?}: {sent:?}");
        for end in rig.settle() {
            assert_eq!(end, Ok(()), "{kind:?}");
        }
        assert!(rig.runs(1) && rig.hosts[0].domains.is_empty(), "{kind:?}");
        for (side, wanted) in [
            (0, Status::Source(source::State::Done)),
            (1, Status::Receiver(receiver::State::Done)),
        ] {
            let id = rig.id();
            assert_eq!(rig.hosts[side].status(id.bytes()), wanted);
            let host: &mut dyn Hypervisor = &mut rig.hosts[side];
            assert_eq!(open(host).unwrap(), [], "{kind:?}");
        }
    }
}

#[test]
fn silence_after_commit_wakes_nobody() {
    let mut rig = Rig::new();
    rig.cut_at(RecordType::Commit);
    let _ = rig.go(1);
    // The other host has forgotten everything: it was booted anew.
    let runners = Runners::default();
    rig.hosts[1] = Host::new(1, true, &runners);
    let [a, b] = rig.settle();
    let error = a.unwrap_err();
    assert_eq!(error.reason, "handover-receiver-unknown", "{error}");
    assert!(b.is_ok());
    assert!(!rig.runs(0), "a copy whose right was given up was woken");
    assert_eq!(rig.hosts[0].domains.len(), 1, "and it is kept");
}

#[test]
fn two_that_send_are_told_so() {
    let mut rig = Rig::new();
    let id = |byte| MigrationId::new([byte; 16]).unwrap();
    let (mut end_a, mut end_b) = (rig.cable.end(0), rig.cable.end(1));
    let plan = |byte| Plan {
        domain: DomainId(1),
        id: id(byte),
        boot_nonce: 1,
        patience: Patience::new(Some(1), 5),
        unshown: b"",
    };
    let runners = Runners::default();
    let mut other = Host::new(1, true, &runners).with_guest();
    let a = &mut rig.hosts[0];
    std::thread::scope(|scope| {
        let one = scope.spawn(move || send(a, &mut Wire::new(&mut end_a), &plan(1)));
        let two = scope.spawn(move || send(&mut other, &mut Wire::new(&mut end_b), &plan(2)));
        assert_eq!(one.join().unwrap().unwrap_err().reason, "peer-role");
        assert!(two.join().unwrap().is_err());
    });
    assert!(rig.runs(0));
}
