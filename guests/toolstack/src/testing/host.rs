//! What stands for the hypervisor in tests. The right to run is stepped by the
//! real machines, so what the tests show of it holds.

use super::{blob, console_record, machine};
use crate::hypervisor::{Data, Hypervisor, Policy};
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use migration_abi::handover::{Status, receiver};
use migration_abi::registers::VcpuRegisters;
use std::sync::{Arc, Mutex};
use xferry_abi::error::{Errno, Failure, Reason};
use xferry_abi::info::{
    CREATE_INCOMING, CREATE_STAYS_PAUSED, CreateParameters, DomainInfo, PhysicalInfo, state,
};
use xferry_abi::policy::PolicyHeader;
use xferry_abi::{Buffer, Request};
use zerocopy::{FromBytes, IntoBytes};

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
    /// Taking the right to run does not change that.
    pub stays_paused: bool,
    pub may_run: bool,
    pub migration: Option<([u8; 16], Status)>,
}

/// A host.
pub struct Host {
    pub domains: BTreeMap<u32, Domain>,
    pub policy: Policy,
    pub ended: BTreeMap<[u8; 16], Status>,
    next: u32,
    words: String,
    side: usize,
    runners: Runners,
    /// A vCPU's blob that is refused as one with this rule.
    pub refuse_xstate: Option<&'static str>,
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
                stays_paused: false,
                may_run: true,
                migration: None,
            },
        );
        self.next = 2;
        self.publish();
        self
    }

    pub fn publish(&self) {
        let runs = self.domains.values().any(|d| d.may_run && !d.paused);
        let mut runners = self.runners.lock().unwrap();
        runners[self.side] = runs;
        assert!(!(runners[0] && runners[1]), "the guest runs on both hosts");
    }

    pub fn refuse(&mut self, errno: Errno, words: &str) -> Failure {
        self.words = words.to_string();
        Failure {
            reason: Reason::new(Reason::CLASS_DOMAIN, 1),
            ..Failure::of(errno)
        }
    }

    pub fn domain(&mut self, id: u32) -> Result<&mut Domain, Failure> {
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

    fn create(&mut self, parameters: &CreateParameters) -> u64 {
        let incoming = parameters.flags & CREATE_INCOMING != 0;
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
            stays_paused: parameters.flags & CREATE_STAYS_PAUSED != 0,
            may_run: !incoming,
            migration: incoming.then_some((parameters.migration_id, receiving)),
        };
        let id = self.next;
        self.next += 1;
        self.domains.insert(id, domain);
        u64::from(id)
    }
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
