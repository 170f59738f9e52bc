//! Policies through control calls: every vCPU takes one, or none does.

use super::*;
use crate::testing::{Content, Toolstack, blob, host, policy_bytes};
use xferry_abi::{Failure, Request};

const NO_AVX: &str = "host:avx=0,mpx=0,pku=0";
const WITH_AVX: &str = "host:mpx=0,pku=0";

struct Two {
    toolstack: Toolstack,
    domain: Arc<Domain>,
}

/// What a change of policy changes of a vCPU.
type Shape = (u64, usize, Arc<CpuPolicy>, u64);

impl Two {
    /// A domain of two vCPUs whose areas may take `limit` bytes more.
    fn new(policy: &str, limit: u64) -> Self {
        let toolstack = Toolstack::new();
        let domain = toolstack.domain(policy, 2, limit);
        Self { toolstack, domain }
    }

    fn set(&mut self, policy: &str, drop: u64) -> Result<u64, Failure> {
        let policy = host().policy.with_config(policy).unwrap();
        self.set_bytes(&policy_bytes(&policy), drop)
    }

    fn set_bytes(&mut self, bytes: &[u8], drop: u64) -> Result<u64, Failure> {
        let buffer = self.toolstack.give(bytes);
        let domain = self.domain.id;
        let request = Request::SetPolicy {
            domain,
            drop,
            buffer,
        };
        self.toolstack.call(request)
    }

    fn get(&mut self) -> Vec<u8> {
        let domain = self.domain.id;
        self.toolstack
            .fetch(|buffer| Request::GetPolicy { domain, buffer })
    }

    /// The second vCPU has this extended state.
    fn fill(&mut self, policy: &str, content: Content) {
        let buffer = self.toolstack.give(&blob(policy, content));
        let (domain, vcpu) = (self.domain.id, 1);
        let request = Request::SetXstate {
            domain,
            vcpu,
            buffer,
        };
        self.toolstack.call(request).unwrap();
    }

    fn shapes(&self) -> [Shape; 2] {
        [0, 1].map(|index: usize| {
            let vcpu = self.domain.vcpus[index].vcpu.lock();
            let mask = vcpu.xstate.policy().mask.bits();
            let used = self.domain.xstate_memory.lock().used_bytes();
            let policy = Arc::clone(&vcpu.policy);
            (mask, vcpu.xstate.area_size_bytes(), policy, used)
        })
    }

    /// A refused change, which changed nothing; the words for it.
    fn refused(&mut self, policy: &str) -> (Failure, alloc::string::String) {
        let (before, bytes) = (self.shapes(), self.get());
        let refusal = self.set(policy, 0).unwrap_err();
        let words = self.toolstack.words();
        assert!(self.shapes() == before, "{words}");
        assert_eq!(self.get(), bytes);
        (refusal, words)
    }
}

#[test]
fn the_hosts_policy_is_what_a_domain_gets_and_gives() {
    let mut two = Two::new("host", 1 << 16);
    let bytes = two.toolstack.fetch(|buffer| Request::GetPolicy {
        domain: DomainId::HOST,
        buffer,
    });
    assert_eq!(bytes, policy_bytes(&host().policy));
    assert_eq!(two.get(), bytes);
}

#[test]
fn a_policy_resizes_every_vcpu_and_is_what_cpuid_says() {
    let mut two = Two::new("host", 1 << 16);
    assert_eq!(two.set(NO_AVX, 0), Ok(0));
    let policy = host().policy.with_config(NO_AVX).unwrap();
    assert_eq!(two.get(), policy_bytes(&policy));
    for (mask, area_bytes, told, used) in two.shapes() {
        assert_eq!((mask, area_bytes, used), (3, 576, 2 * 576));
        assert!(*told == policy);
    }
    assert_eq!(two.set(WITH_AVX, 0), Ok(0));
    let [(mask, area_bytes, _, used), _] = two.shapes();
    assert_eq!((mask, area_bytes, used), (7, 832, 2 * 832));
}

#[test]
fn what_the_second_vcpu_has_enabled_keeps_the_first_as_it_is() {
    let mut two = Two::new(WITH_AVX, 1 << 16);
    let avx = Content {
        xcr0: 7,
        accum: 4,
        avx: None,
    };
    two.fill(WITH_AVX, avx);
    let (refusal, words) = two.refused(NO_AVX);
    assert_eq!((refusal.errno, refusal.seen), (Errno::EBUSY, 4));
    assert_eq!(refusal.reason, Reason::new(Reason::CLASS_XSTATE, 0x702));
    assert!(
        words.contains("policy-enabled") && words.contains("vCPU 1"),
        "{words}"
    );
    // Dropping does not disable: XCR0 is never changed under a guest.
    let refusal = two.set(NO_AVX, 4).unwrap_err();
    assert_eq!(refusal.reason.code(), 0x702);
}

#[test]
fn what_is_in_use_goes_only_if_it_is_dropped_by_name() {
    let mut two = Two::new(WITH_AVX, 1 << 16);
    let avx = Content {
        xcr0: 3,
        accum: 4,
        avx: Some(9),
    };
    two.fill(WITH_AVX, avx);
    let (refusal, words) = two.refused(NO_AVX);
    assert_eq!((refusal.errno, refusal.seen), (Errno::EBUSY, 4));
    assert!(
        words.contains("policy-in-use") && words.contains("vCPU 1"),
        "{words}"
    );
    assert!(two.set(NO_AVX, 8).is_err());
    assert_eq!(two.set(NO_AVX, 4), Ok(0));
    assert_eq!(two.shapes()[1].1, 576);
}

#[test]
fn without_memory_for_every_vcpu_none_changes() {
    // Room for one new area, not for two.
    let mut two = Two::new(NO_AVX, 832 + 831);
    let (refusal, words) = two.refused(WITH_AVX);
    assert_eq!((refusal.errno, refusal.seen), (Errno::ENOMEM, 832));
    assert!(words.contains("832 bytes"), "{words}");
    let mut memory = two.domain.xstate_memory.lock();
    let limit = memory.limit_bytes() + 1;
    memory.set_limit_bytes(limit);
    drop(memory);
    assert_eq!(two.set(WITH_AVX, 0), Ok(0));
    assert_eq!(two.shapes()[1].1, 832);
}

#[test]
fn registers_that_the_new_policy_forbids_keep_the_old() {
    let mut two = Two::new("host", 1 << 16);
    let mut vcpu = two.domain.vcpus[1].vcpu.lock();
    let register = crate::virt::Register::Cr4;
    crate::virt::Backend::write(&mut vcpu.backend, register, 1 << 22);
    drop(vcpu);
    let (refusal, words) = two.refused("host:pku=0");
    assert_eq!((refusal.errno, refusal.seen), (Errno::EBUSY, 1 << 22));
    assert_eq!(refusal.reason, Reason::new(Reason::CLASS_REGISTERS, 3));
    let named = words.contains("record-cr4") && words.contains("vCPU 1");
    assert!(named, "{words}");
}

#[test]
fn what_is_no_policy_or_not_this_hosts_is_refused() {
    let mut two = Two::new("host", 1 << 16);
    let good = two.get();
    let errno_of = |two: &mut Two, bytes: &[u8]| {
        let refusal = two.set_bytes(bytes, 0).unwrap_err();
        (refusal.errno, refusal.reason.class(), refusal.reason.code())
    };
    // Lengths that do not agree.
    let call = Reason::CLASS_CALL;
    let short = (Errno::ENOBUFS, call, 19);
    assert_eq!(errno_of(&mut two, &good[..15]), short);
    assert_eq!(errno_of(&mut two, &good[..good.len() - 1]), short);
    let mut bytes = good.clone();
    bytes[12] = 1;
    assert_eq!(errno_of(&mut two, &bytes), short);
    // Leaves in the wrong order.
    let mut bytes = good.clone();
    bytes[16..]
        .chunks_exact_mut(24)
        .next_back()
        .unwrap()
        .fill(0);
    let policy = Reason::CLASS_POLICY;
    assert_eq!(errno_of(&mut two, &bytes), (Errno::EINVAL, policy, 0xd02));
    // A guest that was told of an instruction (SHA) that is not there.
    let more = |leaf, subleaf| {
        let mut answer = crate::testing::cpuid(leaf, subleaf);
        answer.ebx |= u32::from((leaf, subleaf) == (7, 0)) << 29;
        answer
    };
    let bytes = policy_bytes(&CpuPolicy::host_default(&more, &host().xstate));
    let misfit = (Errno::EOPNOTSUPP, policy, 0xe01);
    assert_eq!(errno_of(&mut two, &bytes), misfit);
    assert!(two.toolstack.words().contains("sha"));
    assert_eq!(two.get(), good);
}
