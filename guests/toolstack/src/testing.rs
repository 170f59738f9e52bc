//! What stands for the hypervisor and the link in tests. The right to run is
//! stepped by the real machines, so what the tests show of it holds.

use crate::error::Error;
use crate::hypervisor::{Data, Hypervisor};
use crate::link::{Link, MILLISECOND_NS};
use crate::report::Output;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use migration_abi::blob::latest;
use migration_abi::handover::{Action, Effect, Status, receiver, source};
use migration_abi::registers::VcpuRegisters;
use migration_abi::stream::{FrameHeader, RecordType};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use vcpu_xstate::cpuid::{CpuidResult, HostXstate};
use vcpu_xstate::policy::CpuPolicy;
use xferry_abi::control::RightAnswer;
use xferry_abi::error::{Errno, Failure, Reason};
use xferry_abi::info::{CREATE_INCOMING, CreateParameters, DomainInfo, PhysicalInfo, state};
use xferry_abi::policy::PolicyHeader;
use xferry_abi::{Buffer, Request, RightAction};
use zerocopy::{FromBytes, IntoBytes};

use crate::hypervisor::Policy;

/// A machine with XSAVE, and AVX where `avx`.
pub fn machine(avx: bool) -> Policy {
    let xcr0: u32 = if avx { 7 } else { 3 };
    let size: u32 = if avx { 832 } else { 576 };
    let cpuid = move |leaf: u32, subleaf: u32| {
        let (eax, ebx, ecx, edx) = match (leaf, subleaf) {
            (0, _) => (
                0xd,
                u32::from_le_bytes(*b"Auth"),
                u32::from_le_bytes(*b"cAMD"),
                u32::from_le_bytes(*b"enti"),
            ),
            // XSAVE, AVX; FPU, TSC, MSR, CX8, FXSR, SSE, SSE2.
            (1, _) => (
                0x00a2_0f10,
                0,
                1 << 26 | u32::from(avx) << 28,
                1 | 1 << 4 | 1 << 5 | 1 << 8 | 7 << 24,
            ),
            (0xd, 0) => (xcr0, size, size, 0),
            (0xd, 2) if avx => (256, 576, 0, 0),
            (0x8000_0000, _) => (0x8000_0008, 0, 0, 0),
            (0x8000_0001, _) => (0, 0, 0, 1 << 29 | 1 << 20),
            (0x8000_0008, _) => (0x3028, 0, 0, 0),
            _ => (0, 0, 0, 0),
        };
        CpuidResult { eax, ebx, ecx, edx }
    };
    let host = HostXstate::read(&cpuid, 0xffff).unwrap();
    Policy::of(&CpuPolicy::host_default(&cpuid, &host))
}

/// Who executes the domain, over all hosts of a test.
pub type Runners = Arc<Mutex<Vec<bool>>>;

/// A domain.
#[derive(Clone)]
pub struct Domain {
    pub info: DomainInfo,
    pub memory: Vec<u8>,
    pub registers: VcpuRegisters,
    pub blob: Vec<u8>,
    pub policy: Policy,
    pub console: Vec<u8>,
    pub paused: bool,
    pub may_run: bool,
    migration: Option<([u8; 16], Status)>,
}

/// A host.
pub struct Host {
    pub domains: BTreeMap<u32, Domain>,
    pub policy: Policy,
    ended: BTreeMap<[u8; 16], Status>,
    next: u32,
    words: String,
    side: usize,
    runners: Runners,
    /// A vCPU's blob that is refused as one with this rule.
    pub refuse_xstate: Option<&'static str>,
}

/// An extended-state blob without a checksum, of x87 and SSE.
pub fn blob() -> Vec<u8> {
    let fields = latest::Fields {
        xstate_mask: 3,
        xcr0: 3,
        accum: 3,
        xcomp_bv: 1 << 63 | 3,
        ..latest::Fields::default()
    };
    let mut image = vec![0; 576];
    image[0] = 0x7f;
    image[520..528].copy_from_slice(&fields.xcomp_bv.to_le_bytes());
    let entry = |index, size, standard_offset| latest::DirectoryEntry {
        index,
        size,
        flags: 0,
        standard_offset,
    };
    let mut out = vec![0; 2048];
    let directory = [entry(0, 160, 0), entry(1, 256, 160)];
    let length = latest::encode(&mut out, &fields, directory, &image).unwrap();
    out.truncate(length);
    out
}

impl Host {
    pub fn new(side: usize, avx: bool, runners: &Runners) -> Self {
        runners.lock().unwrap().resize(2, false);
        Self {
            domains: BTreeMap::new(),
            policy: machine(avx),
            ended: BTreeMap::new(),
            next: 1,
            words: String::new(),
            side,
            runners: Arc::clone(runners),
            refuse_xstate: None,
        }
    }

    /// A domain that runs, with a page of content here and there.
    pub fn with_guest(mut self) -> Self {
        let mut memory = vec![0; 300 * 4096];
        for page in [0, 1, 5, 63, 64, 65, 128, 299] {
            memory[page * 4096 + page] = 0xa5;
        }
        let mut registers = VcpuRegisters::ZERO;
        registers.rip = 0x1234;
        let info = DomainInfo {
            uuid: [7; 16],
            name: crate::build::name_field("guest").unwrap(),
            memory_pages: 300,
            clock_ns: 5_000_000,
            vcpus: 1,
            ..DomainInfo::default()
        };
        self.domains.insert(
            1,
            Domain {
                info,
                memory,
                registers,
                blob: blob(),
                policy: self.policy.clone(),
                console: console_record(b"unread output\n"),
                paused: false,
                may_run: true,
                migration: None,
            },
        );
        self.next = 2;
        self.publish();
        self
    }

    fn publish(&self) {
        let runs = self.domains.values().any(|d| d.may_run && !d.paused);
        let mut runners = self.runners.lock().unwrap();
        runners[self.side] = runs;
        assert!(!(runners[0] && runners[1]), "the guest runs on both hosts");
    }

    fn refuse(&mut self, errno: Errno, words: &str) -> Failure {
        self.words = words.to_string();
        Failure {
            reason: Reason::new(Reason::CLASS_DOMAIN, 1),
            ..Failure::of(errno)
        }
    }

    fn domain(&mut self, id: u32) -> Result<&mut Domain, Failure> {
        if !self.domains.contains_key(&id) {
            return Err(self.refuse(Errno::ENOENT, "there is no such domain"));
        }
        Ok(self.domains.get_mut(&id).unwrap())
    }

    fn standing(&mut self, id: u32) -> Result<&mut Domain, Failure> {
        let domain = self.domain(id)?;
        if domain.may_run && !domain.paused {
            return Err(self.refuse(Errno::EBUSY, "it runs; pause it first"));
        }
        self.domain(id)
    }

    pub fn status(&self, id: &[u8; 16]) -> Status {
        let active = self.domains.values().filter_map(|d| d.migration);
        let active = active
            .filter(|(other, _)| other == id)
            .map(|(_, status)| status);
        active
            .last()
            .or(self.ended.get(id).copied())
            .unwrap_or(Status::Unknown)
    }

    fn right(
        &mut self,
        domain: u32,
        action: RightAction,
        peer: u64,
        id: [u8; 16],
    ) -> Result<u64, Failure> {
        use RightAction as A;
        let peer = Status::from_code(peer as u32).unwrap();
        let mut here = self.status(&id);
        if action == A::Query {
            return Ok(u64::from(here.code()));
        }
        if action == A::SourceBegin {
            assert_eq!(here, Status::Unknown);
            let domain = self.domain(domain)?;
            if domain.migration.is_some() {
                return Err(self.refuse(Errno::EBUSY, "it is part of a migration"));
            }
            here = Status::Source(source::State::Running);
            domain.migration = Some((id, here));
        }
        let step: Result<(Status, Action), _> = match here {
            Status::Source(state) => {
                use source::Event as E;
                let event = match action {
                    A::SourceBegin => E::Begin,
                    A::SourceAccept => E::Accept,
                    A::SourceReady => E::Ready,
                    A::SourceRelease => E::Release,
                    A::SourceConfirm => E::Confirm,
                    A::SourceAbort => E::Abort,
                    A::SourcePeerStatus => E::PeerStatus(peer.of_receiver()),
                    _ => return Err(self.refuse(Errno::EINVAL, "the other side's action")),
                };
                source::next(state, event).map(|(state, action)| (Status::Source(state), action))
            }
            Status::Receiver(state) => {
                use receiver::Event as E;
                let event = match action {
                    A::ReceiverAccept => E::Accept,
                    A::ReceiverReady => E::Ready,
                    A::ReceiverTake => E::Take,
                    A::ReceiverConfirm => E::Confirm,
                    A::ReceiverAbort => E::Abort,
                    A::ReceiverPeerStatus => E::PeerStatus(peer.of_source()),
                    _ => return Err(self.refuse(Errno::EINVAL, "the other side's action")),
                };
                receiver::next(state, event)
                    .map(|(state, action)| (Status::Receiver(state), action))
            }
            Status::Unknown => return Err(self.refuse(Errno::ENOENT, "no such migration")),
        };
        let (status, action) = step.map_err(|r| self.refuse(Errno::EILSEQ, &r.to_string()))?;
        let ended = match status {
            Status::Source(state) => state.has_ended(),
            Status::Receiver(state) => state.has_ended(),
            Status::Unknown => false,
        };
        let number = self.domains.iter().find_map(|(n, d)| {
            d.migration
                .is_some_and(|(other, _)| other == id)
                .then_some(*n)
        });
        if let Some(number) = number {
            let domain = self.domains.get_mut(&number).unwrap();
            domain.migration = (!ended).then_some((id, status));
            match action.effect {
                Effect::None | Effect::Freeze => {}
                Effect::Pause => domain.may_run = false,
                Effect::Run => {
                    domain.may_run = true;
                    domain.paused &= matches!(status, Status::Source(_));
                }
                Effect::Free => drop(self.domains.remove(&number)),
            }
        }
        if ended {
            self.ended.insert(id, status);
        }
        self.publish();
        Ok(RightAnswer {
            status: status.code(),
            say: action.say.map_or(0, RecordType::code),
        }
        .encode())
    }

    fn create(&mut self, parameters: &CreateParameters) -> u64 {
        let incoming = parameters.flags == CREATE_INCOMING;
        let receiving = Status::Receiver(receiver::State::INITIAL);
        let domain = Domain {
            info: DomainInfo {
                uuid: parameters.uuid,
                name: parameters.name,
                memory_pages: parameters.memory_pages,
                vcpus: parameters.vcpus,
                ..DomainInfo::default()
            },
            memory: vec![0; parameters.memory_pages as usize * 4096],
            registers: VcpuRegisters::ZERO,
            blob: blob(),
            policy: self.policy.clone(),
            console: console_record(b""),
            paused: true,
            may_run: !incoming,
            migration: incoming.then_some((parameters.migration_id, receiving)),
        };
        let id = self.next;
        self.next += 1;
        self.domains.insert(id, domain);
        u64::from(id)
    }
}

/// CONSOLE's payload with this output: 16 bytes of registers and length first.
pub fn console_record(output: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 16];
    bytes[8..12].copy_from_slice(&(output.len() as u32).to_le_bytes());
    bytes.extend_from_slice(output);
    bytes
}

fn give(bytes: &[u8], data: Data<'_>) -> Result<u64, Failure> {
    if let Data::Out(out) = data {
        let room = out.get_mut(..bytes.len());
        room.ok_or(Failure::of(Errno::ENOBUFS))?
            .copy_from_slice(bytes);
    }
    Ok(bytes.len() as u64)
}

fn taken<'a>(data: &'a Data<'_>) -> &'a [u8] {
    match data {
        Data::In(bytes) => bytes,
        _ => panic!("the request takes bytes"),
    }
}

impl Hypervisor for Host {
    fn control(
        &mut self,
        request: &dyn Fn(Buffer) -> Request,
        data: Data<'_>,
    ) -> Result<u64, Failure> {
        use Request as R;
        match request(Buffer::NULL) {
            R::PhysicalInfo { .. } => {
                let info = PhysicalInfo {
                    boot_nonce: self.side as u64 + 1,
                    tsc_khz: 1_000_000,
                    ..PhysicalInfo::default()
                };
                give(info.as_bytes(), data)
            }
            R::Explain { .. } => give(self.words.clone().as_bytes(), data),
            R::Create { .. } => {
                Ok(self.create(&CreateParameters::read_from_bytes(taken(&data)).unwrap()))
            }
            R::Destroy { domain } => {
                self.domain(domain.0)?;
                self.domains.remove(&domain.0);
                self.publish();
                Ok(0)
            }
            R::Pause { domain } => {
                self.domain(domain.0)?.paused = true;
                self.publish();
                Ok(0)
            }
            R::Unpause { domain } => {
                self.domain(domain.0)?.paused = false;
                self.publish();
                Ok(0)
            }
            R::DomainInfo { domain, .. } => {
                let domain = self.domain(domain.0)?;
                let mut info = domain.info;
                let runs = domain.may_run && !domain.paused;
                info.state = if runs { state::RUNNING } else { state::PAUSED };
                if let Some((id, status)) = domain.migration {
                    info.migration = status.code();
                    info.migration_id = id;
                }
                give(info.as_bytes(), data)
            }
            R::NextDomain { domain } => match self.domains.range(domain.0..).next() {
                Some((id, _)) => Ok(u64::from(*id)),
                None => Err(self.refuse(Errno::ENOENT, "no more")),
            },
            R::MemoryRead {
                domain, address, ..
            } => {
                let domain = self.domain(domain.0)?;
                let Data::Out(out) = data else { panic!() };
                out.copy_from_slice(&domain.memory[address as usize..][..out.len()]);
                Ok(0)
            }
            R::MemoryWrite {
                domain, address, ..
            } => {
                let domain = self.standing(domain.0)?;
                let bytes = taken(&data);
                domain.memory[address as usize..][..bytes.len()].copy_from_slice(bytes);
                Ok(0)
            }
            R::GetRegisters { domain, .. } => {
                give(self.standing(domain.0)?.registers.as_bytes(), data)
            }
            R::SetRegisters { domain, .. } => {
                self.standing(domain.0)?.registers = VcpuRegisters::parse(taken(&data)).unwrap();
                Ok(0)
            }
            R::GetPolicy { domain, .. } => {
                let policy = match domain.0 {
                    u32::MAX => self.policy.clone(),
                    id => self.domain(id)?.policy.clone(),
                };
                let header = PolicyHeader {
                    deferred: policy.deferred,
                    leaves: policy.leaves.len() as u32,
                    reserved: 0,
                };
                give(
                    &[header.as_bytes(), policy.leaves.as_bytes()].concat(),
                    data,
                )
            }
            R::SetPolicy { domain, .. } => {
                let (head, _) = PolicyHeader::read_from_prefix(taken(&data)).unwrap();
                let leaves = taken(&data)[16..].chunks(24);
                let leaves = leaves.map(|l| FromBytes::read_from_bytes(l).unwrap());
                self.standing(domain.0)?.policy = Policy {
                    deferred: head.deferred,
                    leaves: leaves.collect(),
                };
                Ok(0)
            }
            R::GetXstate { domain, .. } => give(&self.standing(domain.0)?.blob.clone(), data),
            R::SetXstate { domain, .. } => {
                if let Some(rule) = self.refuse_xstate {
                    return Err(self.refuse(Errno::EINVAL, rule));
                }
                self.standing(domain.0)?.blob = taken(&data).to_vec();
                Ok(0)
            }
            R::Right {
                domain,
                action,
                peer,
                ..
            } => {
                let id = taken(&data).try_into().unwrap();
                self.right(domain.0, action, peer, id)
            }
            R::ConsoleRead { domain, .. } => {
                let domain = self.domain(domain.0)?;
                let Data::Out(out) = data else { panic!() };
                let output = domain.console.split_off(16);
                let count = output.len().min(out.len());
                out[..count].copy_from_slice(&output[..count]);
                domain.console = console_record(&output[count..]);
                Ok(count as u64)
            }
            R::GetConsole { domain, .. } => give(&self.standing(domain.0)?.console.clone(), data),
            R::SetConsole { domain, .. } => {
                self.standing(domain.0)?.console = taken(&data).to_vec();
                Ok(0)
            }
            R::SetClock { domain, clock_ns } => {
                self.standing(domain.0)?.info.clock_ns = clock_ns;
                Ok(0)
            }
            other => panic!("the tests do not serve {other:?}"),
        }
    }
}

/// What becomes of a frame that side `usize` writes: `false` breaks the wire
/// there, until it is mended.
pub type Rule = Box<dyn FnMut(usize, RecordType) -> bool + Send>;

/// The wire between two hosts, and time: it goes on only when both sides wait
/// and nothing is on its way, so no test depends on how fast it runs.
#[derive(Clone)]
pub struct Cable(Arc<(Mutex<State>, Condvar)>);

struct State {
    now_ns: u64,
    waits: [bool; 2],
    away: [bool; 2],
    /// Bytes for each side.
    queues: [VecDeque<u8>; 2],
    rule: Option<Rule>,
    broken: bool,
}

impl Cable {
    pub fn new() -> Self {
        let state = State {
            now_ns: 1,
            waits: [false; 2],
            away: [true; 2],
            queues: [VecDeque::new(), VecDeque::new()],
            rule: None,
            broken: false,
        };
        Self(Arc::new((Mutex::new(state), Condvar::new())))
    }

    pub fn arm(&self, rule: Rule) {
        self.0.0.lock().unwrap().rule = Some(rule);
    }

    pub fn mend(&self) {
        let mut state = self.0.0.lock().unwrap();
        state.rule = None;
        state.broken = false;
    }

    pub fn broken(&self) -> bool {
        self.0.0.lock().unwrap().broken
    }

    /// Puts bytes before a side that nobody wrote.
    pub fn noise(&self, side: usize, bytes: &[u8]) {
        self.0.0.lock().unwrap().queues[side].extend(bytes);
    }

    /// One side's end. Both must be taken before either waits.
    pub fn end(&self, side: usize) -> End {
        self.0.0.lock().unwrap().away[side] = false;
        End {
            cable: self.clone(),
            side,
        }
    }
}

/// One end of a cable.
pub struct End {
    cable: Cable,
    side: usize,
}

impl Drop for End {
    fn drop(&mut self) {
        let (state, changed) = &*self.cable.0;
        state.lock().unwrap().away[self.side] = true;
        changed.notify_all();
    }
}

impl Link for End {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let (state, changed) = &*self.cable.0;
        let mut state = state.lock().unwrap();
        let kind = FrameHeader::parse(bytes)?.record_type().unwrap();
        if let Some(rule) = state.rule.as_mut()
            && !rule(self.side, kind)
        {
            state.broken = true;
        }
        // Nobody hears a host whose toolstack does not listen: its UART's FIFO
        // keeps the first bytes, and those are worth nothing.
        if !state.broken {
            state.queues[1 - self.side].extend(bytes);
            changed.notify_all();
        }
        Ok(())
    }

    fn read(&mut self, to: &mut [u8]) -> Result<usize, Error> {
        let mut state = self.cable.0.0.lock().unwrap();
        let queue = &mut state.queues[self.side];
        let count = queue.len().min(to.len());
        for (place, byte) in to.iter_mut().zip(queue.drain(..count)) {
            *place = byte;
        }
        Ok(count)
    }

    fn now_ns(&self) -> u64 {
        self.cable.0.0.lock().unwrap().now_ns
    }

    fn idle(&mut self) -> Result<(), Error> {
        let (state, changed) = &*self.cable.0;
        let mut state = state.lock().unwrap();
        if !state.queues[self.side].is_empty() {
            return Ok(());
        }
        state.waits[self.side] = true;
        let other = 1 - self.side;
        let still = state.away[other] || state.waits[other] && state.queues[other].is_empty();
        if still {
            state.now_ns += 5 * MILLISECOND_NS;
            state.waits = [false; 2];
            changed.notify_all();
        } else {
            let before = state.now_ns;
            let limit = Duration::from_millis(20);
            let side = self.side;
            let unchanged = |state: &mut State| {
                state.now_ns == before && state.queues[side].is_empty() && !state.away[other]
            };
            state = changed
                .wait_timeout_while(state, limit, unchanged)
                .unwrap()
                .0;
            state.waits[self.side] = false;
        }
        Ok(())
    }
}

/// Lines that a command printed.
#[derive(Default, Debug)]
pub struct Lines(pub Vec<String>);

impl Output for Lines {
    fn line(&mut self, text: core::fmt::Arguments<'_>) {
        self.0.push(text.to_string());
    }
}
