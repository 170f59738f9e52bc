//! A domain's CPUID policy: read, and set with every vCPU re-sized or none.

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;

use super::control::{Caller, no_domain};
use super::refusal::{Refusal, call};
use crate::console;
use crate::domain::Domain;
use crate::host;
use crate::sched::pcpu::Pcpu;
use crate::vcpu::record;
use alloc::sync::Arc;
use alloc::vec::Vec;
use vcpu_xstate::component::ComponentSet;
use vcpu_xstate::policy::{CpuPolicy, CpuidLeaf};
use vcpu_xstate::resize::PreparedPolicy;
use xferry_abi::policy::{MAX_LEAVES, PolicyHeader, PolicyLeaf};
use xferry_abi::{Buffer, DomainId, Errno, Reason};
use zerocopy::{FromBytes, IntoBytes};

/// A domain's policy, or what a guest gets by default.
pub fn get_policy(caller: &Caller<'_>, id: DomainId, buffer: Buffer) -> Result<u64, Refusal> {
    if id == DomainId::HOST {
        return give_policy(caller, &host::get().policy, buffer);
    }
    let domain = console::find(id).ok_or_else(|| no_domain(id))?;
    let policy = Arc::clone(&domain.shared.lock().policy);
    give_policy(caller, &policy, buffer)
}

fn give_policy(caller: &Caller<'_>, policy: &CpuPolicy, buffer: Buffer) -> Result<u64, Refusal> {
    let leaves = policy.leaves();
    let header = PolicyHeader {
        deferred: policy.xstate().deferred.bits(),
        leaves: leaves.len() as u32,
        reserved: 0,
    };
    let length = size_of::<PolicyHeader>() + size_of_val(leaves);
    let mut bytes = Vec::new();
    bytes
        .try_reserve_exact(length)
        .map_err(|_| call::memory(length as u64))?;
    bytes.extend_from_slice(header.as_bytes());
    for l in leaves {
        let leaf = PolicyLeaf {
            leaf: l.leaf,
            subleaf: l.subleaf,
            eax: l.eax,
            ebx: l.ebx,
            ecx: l.ecx,
            edx: l.edx,
        };
        bytes.extend_from_slice(leaf.as_bytes());
    }
    caller.give(buffer, &bytes)
}

fn take_policy(caller: &Caller<'_>, buffer: Buffer) -> Result<CpuPolicy, Refusal> {
    let most = size_of::<PolicyHeader>() + MAX_LEAVES * size_of::<PolicyLeaf>();
    let bytes = caller.take_bytes(buffer, most)?;
    let (header, rest) = PolicyHeader::read_from_prefix(&bytes)
        .map_err(|_| call::buffer(bytes.len() as u64, size_of::<PolicyHeader>() as u64))?;
    let needed = header.leaves as usize * size_of::<PolicyLeaf>();
    if header.reserved != 0 || rest.len() != needed {
        return Err(call::buffer(rest.len() as u64, needed as u64));
    }
    let mut leaves = Vec::new();
    leaves
        .try_reserve_exact(header.leaves as usize)
        .map_err(|_| call::memory(needed as u64))?;
    for piece in rest.chunks_exact(size_of::<PolicyLeaf>()) {
        let l = PolicyLeaf::read_from_bytes(piece).map_err(|_| call::buffer(0, 0))?;
        leaves.push(CpuidLeaf {
            leaf: l.leaf,
            subleaf: l.subleaf,
            eax: l.eax,
            ebx: l.ebx,
            ecx: l.ecx,
            edx: l.edx,
        });
    }
    let deferred = ComponentSet::from_bits_retain(header.deferred);
    CpuPolicy::from_leaves(&leaves, deferred).map_err(|error| {
        Refusal::new(
            Errno::EINVAL,
            Reason::CLASS_POLICY,
            error.code(),
            error.seen(),
            error.allowed(),
            format_args!("{error}"),
        )
    })
}

/// Sets a domain's policy and re-sizes every vCPU, or changes nothing.
pub fn set_policy(
    pcpu: &mut Pcpu,
    caller: &Caller<'_>,
    domain: &Domain,
    drop_mask: u64,
    buffer: Buffer,
) -> Result<u64, Refusal> {
    let policy = take_policy(caller, buffer)?;
    policy.fits(&host::get().policy).map_err(|misfit| {
        let broken = misfit.broken();
        Refusal::new(
            Errno::EOPNOTSUPP,
            Reason::CLASS_POLICY,
            broken.code,
            broken.seen,
            broken.allowed,
            format_args!("{}: {misfit}", broken.rule),
        )
    })?;
    let dropped = ComponentSet::from_bits_retain(drop_mask);
    let policy = Arc::new(policy);
    let mut prepared: Vec<PreparedPolicy> = Vec::new();
    prepared
        .try_reserve_exact(domain.vcpus.len())
        .map_err(|_| call::memory(0))?;
    for (index, cell) in domain.vcpus.iter().enumerate() {
        let mut vcpu = cell.vcpu.lock();
        let result = record::check_policy(&vcpu, &policy).map_err(|error| {
            Refusal::new(
                Errno::EBUSY,
                Reason::CLASS_REGISTERS,
                error.code(),
                error.seen,
                error.allowed,
                format_args!("{error}; vCPU {index} under the new policy"),
            )
        });
        let result = result.and_then(|()| {
            vcpu.xstate
                .prepare_policy(
                    policy.xstate(),
                    dropped,
                    &mut pcpu.xstate,
                    &mut *domain.xstate_memory.lock(),
                )
                .map_err(|error| policy_refused(index, error))
        });
        match result {
            Ok(ready) => prepared.push(ready),
            Err(refusal) => {
                for ready in prepared {
                    ready.release(&mut *domain.xstate_memory.lock());
                }
                return Err(refusal);
            }
        }
    }
    // Nothing below fails, and the domain stands: no vCPU has run since.
    for (cell, ready) in domain.vcpus.iter().zip(prepared) {
        let mut vcpu = cell.vcpu.lock();
        vcpu.xstate
            .commit_policy(ready, &mut *domain.xstate_memory.lock());
        vcpu.policy = Arc::clone(&policy);
    }
    domain.shared.lock().policy = policy;
    Ok(0)
}

fn policy_refused(index: usize, error: vcpu_xstate::resize::PolicyError) -> Refusal {
    use vcpu_xstate::resize::PolicyError as P;
    let errno = match error {
        P::Host(..) => Errno::EOPNOTSUPP,
        P::Enabled(..) | P::InUse(..) => Errno::EBUSY,
        P::OutOfMemory(_) => Errno::ENOMEM,
    };
    let broken = error.broken();
    let (class, code) = (Reason::CLASS_XSTATE, broken.code);
    let (seen, allowed) = (broken.seen, broken.allowed);
    let named = ComponentSet::from_bits_retain(seen);
    let words = match error {
        P::Host(..) => "the host does not offer",
        P::Enabled(..) => "the guest has enabled",
        P::InUse(..) => "in use, outside the new policy:",
        P::OutOfMemory(_) => {
            return Refusal::new(
                errno,
                class,
                code,
                seen,
                allowed,
                format_args!("{}: vCPU {index} needs {seen} bytes", broken.rule),
            );
        }
    };
    Refusal::new(
        errno,
        class,
        code,
        seen,
        allowed,
        format_args!("{}: vCPU {index}: {words} {named}", broken.rule),
    )
}
