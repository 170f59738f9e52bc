//! The control calls, typed: what is asked, into which memory, and an
//! [`Error`] with the hypervisor's own words where it refuses.

use crate::error::Error;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use migration_abi::registers::VcpuRegisters;
use xferry_abi::error::{Errno, Failure};
use xferry_abi::info::{CreateParameters, DomainInfo, PhysicalInfo, XstateRow, XstateSummary};
use xferry_abi::policy::{PolicyHeader, PolicyLeaf};
use xferry_abi::{Buffer, DomainId, Request, RightAction};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// What a call's buffer is.
pub enum Data<'a> {
    /// The null buffer, or none at all.
    Null,
    /// Read by the hypervisor.
    In(&'a [u8]),
    /// Written by the hypervisor.
    Out(&'a mut [u8]),
}

/// Who serves control calls: the hypervisor, or in tests what stands for it.
pub trait Hypervisor {
    /// Makes the call that `request` gives for the buffer's address and length.
    ///
    /// # Errors
    /// What the hypervisor answered.
    fn control(
        &mut self,
        request: &dyn Fn(Buffer) -> Request,
        data: Data<'_>,
    ) -> Result<u64, Failure>;
}

/// Most bytes that one call moves to or from a domain's memory.
pub const CHUNK_BYTES: usize = 64 * 4096;

/// An answer that is larger is taken for a fault.
const ANSWER_MAX_BYTES: usize = 16 << 20;

/// A CPUID policy as the hypervisor gives and takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Components for which an area gets room when they are first enabled.
    pub deferred: u64,
    /// CPUID leaves.
    pub leaves: Vec<PolicyLeaf>,
}

/// A vCPU's extended state in numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XstateStatus {
    /// As a whole.
    pub summary: XstateSummary,
    /// By component.
    pub rows: Vec<XstateRow>,
}

impl dyn Hypervisor + '_ {
    fn call(&mut self, request: &dyn Fn(Buffer) -> Request, data: Data<'_>) -> Result<u64, Error> {
        self.control(request, data)
            .map_err(|failure| Error::hypercall(failure, &self.explanation()))
    }

    fn plain(&mut self, request: Request) -> Result<u64, Error> {
        self.call(&|_| request, Data::Null)
    }

    /// Why the last call failed, in the hypervisor's words; empty where it has
    /// none.
    fn explanation(&mut self) -> String {
        let explain = |buffer| Request::Explain { buffer };
        let length = self.control(&explain, Data::Null).unwrap_or(0);
        let length = usize::try_from(length).unwrap_or(0).min(4096);
        if length == 0 {
            return String::new();
        }
        let mut text = vec![0; length];
        match self.control(&explain, Data::Out(&mut text)) {
            Ok(_) => {
                let end = text.iter().position(|&byte| byte == 0).unwrap_or(length);
                text.truncate(end);
                String::from_utf8_lossy(&text).into_owned()
            }
            Err(_) => String::new(),
        }
    }

    /// A structure of known size.
    fn fixed<T>(&mut self, request: &dyn Fn(Buffer) -> Request) -> Result<T, Error>
    where
        T: FromZeros + FromBytes + IntoBytes + KnownLayout + Immutable,
    {
        let mut value = T::new_zeroed();
        self.call(request, Data::Out(value.as_mut_bytes()))?;
        Ok(value)
    }

    /// An answer of any size: asked with the null buffer first.
    fn sized(&mut self, request: &dyn Fn(Buffer) -> Request) -> Result<Vec<u8>, Error> {
        for _ in 0..4 {
            let size = usize::try_from(self.call(request, Data::Null)?).unwrap_or(usize::MAX);
            if size == 0 || size > ANSWER_MAX_BYTES {
                let allowed = alloc::format!("1 to {ANSWER_MAX_BYTES} bytes");
                return Err(Error::rule("answer-size", size, allowed));
            }
            let mut answer = vec![0; size];
            match self.control(request, Data::Out(&mut answer)) {
                Ok(_) => return Ok(answer),
                // It grew since its size was asked.
                Err(failure) if failure.errno == Errno::ENOBUFS => {}
                Err(failure) => return Err(Error::hypercall(failure, &self.explanation())),
            }
        }
        let text = "an answer grew faster than it could be read";
        Err(Error::new(Errno::ENOBUFS, "answer-size", text))
    }

    /// About the host.
    pub fn physical_info(&mut self) -> Result<PhysicalInfo, Error> {
        self.fixed(&|buffer| Request::PhysicalInfo { buffer })
    }

    /// A new domain, paused.
    pub fn create(&mut self, parameters: &CreateParameters) -> Result<DomainId, Error> {
        let id = self.call(
            &|buffer| Request::Create { buffer },
            Data::In(parameters.as_bytes()),
        )?;
        u32::try_from(id)
            .map(DomainId)
            .map_err(|_| Error::rule("domain-number", id, "32 bits"))
    }

    /// Ends it.
    pub fn destroy(&mut self, domain: DomainId) -> Result<(), Error> {
        self.plain(Request::Destroy { domain }).map(drop)
    }

    /// Stops its vCPUs.
    pub fn pause(&mut self, domain: DomainId) -> Result<(), Error> {
        self.plain(Request::Pause { domain }).map(drop)
    }

    /// Lets them run.
    pub fn unpause(&mut self, domain: DomainId) -> Result<(), Error> {
        self.plain(Request::Unpause { domain }).map(drop)
    }

    /// About a domain.
    pub fn domain_info(&mut self, domain: DomainId) -> Result<DomainInfo, Error> {
        self.fixed(&|buffer| Request::DomainInfo { domain, buffer })
    }

    /// All domains, the toolstack first.
    pub fn domains(&mut self) -> Result<Vec<(DomainId, DomainInfo)>, Error> {
        let mut found = Vec::new();
        let mut next = Some(0);
        while let Some(from) = next {
            let request = Request::NextDomain {
                domain: DomainId(from),
            };
            let id = match self.control(&|_| request, Data::Null) {
                Ok(id) => u32::try_from(id).ok().filter(|id| *id >= from),
                Err(failure) if failure.errno == Errno::ENOENT => None,
                Err(failure) => return Err(Error::hypercall(failure, &self.explanation())),
            };
            let Some(id) = id else { break };
            // One that ended in between is not there any more.
            if let Ok(info) = self.domain_info(DomainId(id)) {
                found.push((DomainId(id), info));
            }
            next = id.checked_add(1);
        }
        Ok(found)
    }

    /// Copies from a domain's memory, at most [`CHUNK_BYTES`].
    pub fn memory_read(
        &mut self,
        domain: DomainId,
        address: u64,
        to: &mut [u8],
    ) -> Result<(), Error> {
        let request = |buffer| Request::MemoryRead {
            domain,
            address,
            buffer,
        };
        self.call(&request, Data::Out(to)).map(drop)
    }

    /// Copies into a domain's memory.
    pub fn memory_write(
        &mut self,
        domain: DomainId,
        address: u64,
        from: &[u8],
    ) -> Result<(), Error> {
        let mut address = address;
        for chunk in from.chunks(CHUNK_BYTES) {
            let request = |buffer| Request::MemoryWrite {
                domain,
                address,
                buffer,
            };
            self.call(&request, Data::In(chunk))?;
            address = address.saturating_add(chunk.len() as u64);
        }
        Ok(())
    }

    /// A paused vCPU's registers.
    pub fn registers(&mut self, domain: DomainId, vcpu: u32) -> Result<VcpuRegisters, Error> {
        self.fixed(&|buffer| Request::GetRegisters {
            domain,
            vcpu,
            buffer,
        })
    }

    /// Sets them.
    pub fn set_registers(
        &mut self,
        domain: DomainId,
        vcpu: u32,
        registers: &VcpuRegisters,
    ) -> Result<(), Error> {
        let request = |buffer| Request::SetRegisters {
            domain,
            vcpu,
            buffer,
        };
        self.call(&request, Data::In(registers.as_bytes()))
            .map(drop)
    }

    /// A domain's policy, or with [`DomainId::HOST`] what it is by default.
    pub fn policy(&mut self, domain: DomainId) -> Result<Policy, Error> {
        let answer = self.sized(&|buffer| Request::GetPolicy { domain, buffer })?;
        let (head, leaves) = table::<PolicyHeader, PolicyLeaf>(&answer, |head| head.leaves.into())?;
        Ok(Policy {
            deferred: head.deferred,
            leaves,
        })
    }

    /// Sets a paused domain's policy, dropping the components `drop`.
    pub fn set_policy(
        &mut self,
        domain: DomainId,
        drop: u64,
        policy: &Policy,
    ) -> Result<(), Error> {
        let count = policy.leaves.len();
        let header = PolicyHeader {
            deferred: policy.deferred,
            leaves: u32::try_from(count)
                .map_err(|_| Error::rule("policy-leaves", count, "32 bits"))?,
            reserved: 0,
        };
        let bytes = [header.as_bytes(), policy.leaves.as_bytes()].concat();
        let request = |buffer| Request::SetPolicy {
            domain,
            drop,
            buffer,
        };
        self.call(&request, Data::In(&bytes)).map(|_| ())
    }

    /// A paused vCPU's extended-state blob.
    pub fn xstate(&mut self, domain: DomainId, vcpu: u32) -> Result<Vec<u8>, Error> {
        self.sized(&|buffer| Request::GetXstate {
            domain,
            vcpu,
            buffer,
        })
    }

    /// Sets it.
    pub fn set_xstate(&mut self, domain: DomainId, vcpu: u32, blob: &[u8]) -> Result<(), Error> {
        let request = |buffer| Request::SetXstate {
            domain,
            vcpu,
            buffer,
        };
        self.call(&request, Data::In(blob)).map(drop)
    }

    /// A vCPU's extended state in numbers.
    pub fn xstate_status(&mut self, domain: DomainId, vcpu: u32) -> Result<XstateStatus, Error> {
        let answer = self.sized(&|buffer| Request::XstateStatus {
            domain,
            vcpu,
            buffer,
        })?;
        let (summary, rows) = table::<XstateSummary, XstateRow>(&answer, |head| head.rows)?;
        Ok(XstateStatus { summary, rows })
    }

    /// Gives back what of a paused domain's areas can be; the bytes.
    pub fn reclaim(&mut self, domain: DomainId) -> Result<u64, Error> {
        self.plain(Request::Reclaim { domain })
    }

    /// Sets how many bytes the areas may take.
    pub fn set_xstate_limit(&mut self, domain: DomainId, limit_bytes: u64) -> Result<(), Error> {
        self.plain(Request::SetXstateLimit {
            domain,
            limit_bytes,
        })
        .map(drop)
    }

    /// Acts on the right to run. `peer` is the other side's status code, where
    /// the action tells of it.
    pub fn right(
        &mut self,
        domain: DomainId,
        action: RightAction,
        peer: u32,
        migration: &[u8; 16],
    ) -> Result<u64, Error> {
        let request = |buffer| Request::Right {
            domain,
            action,
            peer: peer.into(),
            buffer,
        };
        self.call(&request, Data::In(migration))
    }

    /// Takes unread output of a domain's console.
    pub fn console_read(&mut self, domain: DomainId, to: &mut [u8]) -> Result<usize, Error> {
        let most = to.len();
        let request = |buffer| Request::ConsoleRead { domain, buffer };
        let moved = self.call(&request, Data::Out(to))?;
        Ok(usize::try_from(moved).map_or(most, |moved| moved.min(most)))
    }

    /// Puts input to a domain's console; how many bytes had room.
    pub fn console_write(&mut self, domain: DomainId, from: &[u8]) -> Result<usize, Error> {
        let request = |buffer| Request::ConsoleWrite { domain, buffer };
        let moved = self.call(&request, Data::In(from))?;
        Ok(usize::try_from(moved).map_or(from.len(), |moved| moved.min(from.len())))
    }

    /// The console record of a paused domain.
    pub fn console(&mut self, domain: DomainId) -> Result<Vec<u8>, Error> {
        self.sized(&|buffer| Request::GetConsole { domain, buffer })
    }

    /// Sets it.
    pub fn set_console(&mut self, domain: DomainId, record: &[u8]) -> Result<(), Error> {
        let request = |buffer| Request::SetConsole { domain, buffer };
        self.call(&request, Data::In(record)).map(drop)
    }

    /// Sets a paused domain's system time.
    pub fn set_clock(&mut self, domain: DomainId, clock_ns: u64) -> Result<(), Error> {
        self.plain(Request::SetClock { domain, clock_ns }).map(drop)
    }
}

/// A header and as many rows as it says.
fn table<H, R>(answer: &[u8], rows: impl Fn(&H) -> u64) -> Result<(H, Vec<R>), Error>
where
    H: FromBytes + KnownLayout + Immutable,
    R: FromBytes + KnownLayout + Immutable,
{
    let short = || {
        Error::rule(
            "answer-size",
            answer.len(),
            "the length that its header says",
        )
    };
    let (head, rest) = H::read_from_prefix(answer).map_err(|_| short())?;
    let count = usize::try_from(rows(&head)).map_err(|_| short())?;
    let bytes = count.checked_mul(size_of::<R>()).ok_or_else(short)?;
    let rest = rest.get(..bytes).ok_or_else(short)?;
    let rows = rest
        .chunks_exact(size_of::<R>())
        .map(|row| R::read_from_bytes(row).map_err(|_| short()))
        .collect::<Result<_, _>>()?;
    Ok((head, rows))
}
