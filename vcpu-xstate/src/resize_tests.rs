//! Growing, shrinking, re-sizing and importing, with memory failing on the way.

use super::tests::{Cpu, cpu_of, model, policy, qemu, rapids, set, vcpu};
use super::*;
use crate::ComponentIndex;
use crate::CpuId;
use crate::XstatePolicy;
use crate::header::COMPACTED;
use crate::model::InitTracking;
use crate::resize::PolicyError;
use crate::testing::{INSTRUCTIONS, Machine, TestMemory, bochs_sapphire_rapids, host, modelled};
/// XFD armed by the hypervisor: tiles get room at their first use, and the
/// guest never sees the arming. Linux b45f721775: no image has what XFD
/// disables.
#[test]
fn tiles_get_room_at_first_use() {
    let mut memory = TestMemory::default();
    let mut cpu = rapids(0x1f);
    let tiles = ComponentSet::only(ComponentIndex::TILEDATA);
    let mut a = vcpu(1, 0x6_0207, &cpu, &mut memory);
    a.set_xcr0(0x6_0207, 0, &mut cpu, &mut memory).unwrap();
    assert!(
        a.area_size_bytes() < 1100,
        "TILECFG has room, tiles have none"
    );
    cpu.load(&mut a).unwrap();
    cpu.enter(&a);
    assert_eq!((model(&mut cpu).cpu.xfd(), a.xfd()), (tiles.bits(), 0));
    // #NM of the armed XFD, without memory first.
    memory.fail_at = Some(memory.calls);
    assert!(matches!(
        a.first_use(tiles, &mut cpu, &mut memory),
        FirstUse::Wait(OutOfMemory { bytes: 8192.. })
    ));
    assert_eq!(
        a.first_use(tiles, &mut cpu, &mut memory),
        FirstUse::Grow(tiles)
    );
    cpu.load(&mut a).unwrap();
    cpu.enter(&a);
    assert_eq!(model(&mut cpu).cpu.xfd(), 0);
    model(&mut cpu).cpu.put_pattern(ComponentIndex::TILECFG, 1);
    model(&mut cpu).cpu.put_pattern(ComponentIndex::TILEDATA, 1);
    // The guest disables them itself: its own #NM, and no tiles in images.
    assert!(a.in_use(&mut cpu).contains(tiles));
    a.set_xfd(tiles.bits(), cpu.host()).unwrap();
    assert_eq!(a.first_use(tiles, &mut cpu, &mut memory), FirstUse::Reflect);
    let mut out = vec![0; 20_000];
    cpu.load(&mut a).unwrap();
    cpu.enter(&a);
    let exported = a.export(&mut cpu, &mut out).unwrap();
    assert_eq!(exported.claims.xcomp_bv, COMPACTED | 1 << 17);
    assert_eq!(exported.claims.xfd, tiles.bits());
    assert!(
        !a.area
            .image(cpu.host().geometry())
            .xstate_bv()
            .intersects(tiles)
    );
    // INIT and under XFD: reclaimable while XCR0 still enables them.
    let resized = a.reclaim(&mut cpu, &mut memory).unwrap();
    assert!(resized.after_bytes + 8192 <= resized.before_bytes);
}

#[test]
fn deferred_supervisor_state_gets_room_at_its_first_write() {
    let mut memory = TestMemory::default();
    let mut cpu = rapids(0xf);
    let deferred = XstatePolicy::new(set(0x1807), ComponentSet::CET);
    let mut a = VcpuXstate::new(1, &deferred, cpu.host(), &mut memory).unwrap();
    assert_eq!(a.area_mask().bits(), 0x7);
    let first = ComponentSet::only(ComponentIndex::CET_U);
    assert_eq!(
        a.first_use(first, &mut cpu, &mut memory),
        FirstUse::Grow(first)
    );
    assert_eq!(a.area_mask().bits(), 0x807);
    a.set_xss(0x1800, &mut cpu, &mut memory).unwrap();
    assert_eq!((a.area_mask().bits(), a.xss()), (0x1807, 0x1800));
    assert_eq!(
        a.set_xss(0x4000, &mut cpu, &mut memory),
        Err(WriteXssError::Fault(XssError::Policy(0x4000, 0x1800)))
    );
}

#[test]
fn a_policy_never_takes_what_is_in_use() {
    let mut memory = TestMemory::default();
    let mut cpu = qemu();
    let mut a = vcpu(1, 0x21f, &cpu, &mut memory);
    a.set_xcr0(7, 0, &mut cpu, &mut memory).unwrap();
    cpu.load(&mut a).unwrap();
    model(&mut cpu).cpu.put_pattern(ComponentIndex::PKRU, 1);
    let mut change = |a: &mut VcpuXstate, mask, drop, cpu: &mut Cpu| {
        a.set_policy(&policy(mask), set(drop), cpu, &mut memory)
    };
    assert_eq!(
        change(&mut a, 0x203, 0, &mut cpu),
        Err(PolicyError::Enabled(set(4), set(0x203)))
    );
    assert_eq!(
        change(&mut a, 0x7, 0, &mut cpu),
        Err(PolicyError::InUse(set(0x200), set(0x7)))
    );
    assert_eq!(
        change(&mut a, 0xe7, 0, &mut cpu),
        Err(PolicyError::Host(set(0xe0), set(0x21f)))
    );
    assert_eq!(a.area_size_bytes(), 0xa88);
    let resized = change(&mut a, 0x7, 0x200, &mut cpu).unwrap();
    assert_eq!((resized.before_bytes, resized.after_bytes), (0xa88, 0x340));
    let resized = change(&mut a, 0x21f, 0, &mut cpu).unwrap();
    assert_eq!(resized.after_bytes, 0xa88);
    assert_eq!(
        a.in_use(&mut cpu).bits(),
        0,
        "what was dropped is gone for good"
    );
    cpu.load(&mut a).unwrap();
    assert_eq!(
        model(&mut cpu)
            .cpu
            .registers()
            .component(ComponentIndex::PKRU),
        [0; 4]
    );
}

/// A domain's vCPUs change policy together or not at all, wherever memory ends.
#[test]
fn policy_change_is_all_or_nothing_at_every_allocation() {
    for failing in 0..4 {
        let mut memory = TestMemory::default();
        let mut cpu = qemu();
        let mut all: Vec<VcpuXstate> = (0..3)
            .map(|tag| vcpu(tag, 0x3, &cpu, &mut memory))
            .collect();
        for (i, a) in all.iter_mut().enumerate() {
            cpu.load(a).unwrap();
            model(&mut cpu)
                .cpu
                .put(ComponentIndex::SSE, &[i as u8 + 1; 256]);
            cpu.save(a);
        }
        let blocks = memory.live_blocks;
        memory.fail_at = Some(memory.calls + failing);
        let mut prepared = Vec::new();
        let mut failed = None;
        for a in &mut all {
            match a.prepare_policy(&policy(0x21f), set(0), &mut cpu, &mut memory) {
                Ok(one) => prepared.push(one),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        if let Some(error) = failed {
            assert_eq!(error.code(), OutOfMemory::CODE);
            assert!(failing < 3);
            prepared
                .into_iter()
                .for_each(|one| one.release(&mut memory));
            assert_eq!(memory.live_blocks, blocks, "memory lost");
        } else {
            assert_eq!(failing, 3, "the failure did not come");
            for (a, one) in all.iter_mut().zip(prepared) {
                a.commit_policy(one, &mut memory);
            }
        }
        let (mask, size) = if failing < 3 {
            (0x3, 576)
        } else {
            (0x21f, 0xa88)
        };
        for (i, a) in all.iter_mut().enumerate() {
            assert_eq!((a.area_mask().bits(), a.area_size_bytes()), (mask, size));
            cpu.load(a).unwrap();
            assert_eq!(model(&mut cpu).cpu.registers().xmm[1], [i as u8 + 1; 16]);
            cpu.save(a);
        }
        all.into_iter()
            .for_each(|a| a.release(&mut memory).unwrap());
        assert_eq!(memory.live_blocks, 0);
    }
}

#[test]
#[should_panic(expected = "changed since")]
fn a_prepared_change_goes_stale_when_the_vcpu_runs() {
    let mut memory = TestMemory::default();
    let mut cpu = qemu();
    let mut a = vcpu(1, 0x3, &cpu, &mut memory);
    let prepared = a.prepare_policy(&policy(7), set(0), &mut cpu, &mut memory);
    cpu.load(&mut a).unwrap();
    cpu.save(&mut a);
    a.commit_policy(prepared.unwrap(), &mut memory);
}

/// The guest enabled AVX in between, and the policy without it was committed:
/// AVX was lost.
#[test]
fn a_prepared_change_goes_stale_when_the_guests_registers_change() {
    type Change = fn(&mut VcpuXstate, &mut Cpu, &mut TestMemory);
    let changes: [Change; 4] = [
        |a, cpu, memory| a.set_xcr0(7, 0, cpu, memory).unwrap(),
        |a, cpu, memory| a.set_xss(0x800, cpu, memory).unwrap(),
        |a, cpu, _| a.set_xfd(1 << 18, cpu.host()).unwrap(),
        |a, cpu, _| a.set_xfd_err(1 << 18, cpu.host()).unwrap(),
    ];
    for (i, change) in changes.into_iter().enumerate() {
        let mut memory = TestMemory::default();
        let mut cpu = rapids(0x1f);
        let mut a = vcpu(1, 0x6_0a07, &cpu, &mut memory);
        let prepared = a.prepare_policy(&policy(0x203), set(0), &mut cpu, &mut memory);
        change(&mut a, &mut cpu, &mut memory);
        let commit = std::panic::AssertUnwindSafe(|| {
            a.commit_policy(prepared.unwrap(), &mut memory);
        });
        assert!(std::panic::catch_unwind(commit).is_err(), "change {i}");
    }
}

/// Fields that no constructor would have written: no SSE, and PKRU deferred,
/// which a guest uses without asking.
#[test]
fn a_policy_of_any_fields_is_one() {
    let mut memory = TestMemory::default();
    let mut cpu = rapids(0xf);
    let odd = XstatePolicy {
        mask: set(0x205),
        deferred: set(0xa04),
        xsave: true,
        xfd: true,
    };
    let made = VcpuXstate::new(1, &odd, cpu.host(), &mut memory).unwrap();
    let mut changed = vcpu(2, 0x7, &cpu, &mut memory);
    let result = changed.set_policy(&odd, set(0), &mut cpu, &mut memory);
    assert!(result.is_ok());
    for a in [made, changed] {
        let expected = XstatePolicy {
            mask: set(0x207),
            deferred: set(0x4),
            xsave: true,
            xfd: true,
        };
        assert_eq!(*a.policy(), expected);
        assert!(a.accum().contains(set(0x203)));
    }
}

/// What is enabled can be dirtied without an exit: its room stays, INIT or not.
#[test]
fn reclaim_leaves_the_room_of_what_is_enabled() {
    for instructions in INSTRUCTIONS {
        let mut memory = TestMemory::default();
        let mut cpu = rapids(instructions);
        let zmm = ComponentIndex::ZMM_HI256;
        let mut a = vcpu(1, 0xe7, &cpu, &mut memory);
        a.set_xcr0(0xe7, 0, &mut cpu, &mut memory).unwrap();
        a.reclaim(&mut cpu, &mut memory).unwrap();
        cpu.load(&mut a).unwrap();
        cpu.enter(&a);
        model(&mut cpu).cpu.put_pattern(zmm, 3);
        assert!(a.in_use(&mut cpu).has(zmm), "{instructions:#x}");
        // Disabled, and kept for as long as it holds state.
        a.set_xcr0(0x7, 0, &mut cpu, &mut memory).unwrap();
        a.reclaim(&mut cpu, &mut memory).unwrap();
        assert!(a.in_use(&mut cpu).has(zmm), "{instructions:#x}");
    }
}

/// A growth is a re-size: afterwards the state is in memory, all of it, and the
/// registers are a home no more.
#[test]
fn growth_revokes_the_registers() {
    for instructions in INSTRUCTIONS {
        let mut memory = TestMemory::default();
        let mut cpu = rapids(instructions);
        let mut a = vcpu(1, 0x2e7, &cpu, &mut memory);
        cpu.load(&mut a).unwrap();
        cpu.enter(&a);
        model(&mut cpu).cpu.put(ComponentIndex::SSE, &[8; 256]);
        a.set_xcr0(0xe7, 0, &mut cpu, &mut memory).unwrap();
        assert_eq!(a.home(), Home::Memory, "{instructions:#x}");
        let image = a.area.image(cpu.host().geometry());
        assert_eq!(image.legacy().xmm, [[8; 16]; 16], "{instructions:#x}");
        assert!(image.xstate_bv().has(ComponentIndex::SSE));
    }
}

/// What a change of policy was prepared for is not what it is carried out on:
/// the guest had enabled more meanwhile, and lost it.
#[test]
#[should_panic(expected = "changed since")]
fn a_register_written_between_prepare_and_commit() {
    let mut memory = TestMemory::default();
    let mut cpu = rapids(0xf);
    let mut a = vcpu(1, 0x2e7, &cpu, &mut memory);
    let prepared = a
        .prepare_policy(&policy(0x3), set(0), &mut cpu, &mut memory)
        .unwrap();
    a.set_xcr0(0x7, 0, &mut cpu, &mut memory).unwrap();
    a.commit_policy(prepared, &mut memory);
}

#[test]
fn status_tells_of_each_component_of_the_policy() {
    let mut memory = TestMemory::default();
    let mut cpu = rapids(0xf);
    let mut a = vcpu(1, 0xe7, &cpu, &mut memory);
    cpu.load(&mut a).unwrap();
    model(&mut cpu).cpu.put(ComponentIndex::SSE, &[1; 256]);
    let all: Vec<_> = a
        .status(&mut cpu)
        .map(|s| (s.index.to_string(), s.size_bytes, s.area, s.accum, s.state))
        .collect();
    let row = |name: &str, size, area, accum, state| (name.to_owned(), size, area, accum, state);
    assert_eq!(
        all,
        [
            row("x87", 160, true, true, Use::Init),
            row("sse", 256, true, true, Use::InUse),
            row("avx", 256, true, false, Use::Init),
            row("opmask", 64, false, false, Use::Init),
            row("zmm_hi256", 512, false, false, Use::Init),
            row("hi16_zmm", 1024, false, false, Use::Init),
        ]
    );
}

/// Bochs saves tiles wrongly: the host finds out, says so, leaves them out.
#[test]
fn self_test_leaves_out_what_does_not_come_back() {
    for instructions in INSTRUCTIONS {
        for tracking in [InitTracking::ByContent, InitTracking::Never] {
            let mut memory = TestMemory::default();
            let host = host(bochs_sapphire_rapids(), instructions);
            let offered = host.offered();
            let mut cpu = PcpuXstate::new(CpuId(0), modelled(&host, tracking), host);
            let report = cpu.self_test(&mut memory).unwrap();
            assert_eq!((report.passed(), report.failed()), (offered, set(0)));
            model(&mut cpu).broken = Some(ComponentIndex::TILEDATA);
            let report = cpu.self_test(&mut memory).unwrap();
            assert_eq!(report.failed().to_string(), "tiledata");
            assert_eq!(cpu.host().offered(), offered.difference(ComponentSet::AMX));
            assert_eq!(memory.live_blocks, 0);
        }
    }
}

/// A cloud's processors with branch tracking and no shadow stacks: the pattern was a
/// shadow stack's pointer, and both components were withheld although they are sound.
#[test]
fn self_test_of_cet_without_shadow_stacks() {
    let machine = Machine {
        geometry: bochs_sapphire_rapids(),
        instructions: 0xf,
    };
    let cpuid = |leaf, subleaf| {
        let mut r = machine.cpuid(leaf, subleaf);
        if leaf == 7 {
            r.ecx &= !(1 << 7);
        }
        r
    };
    let host = HostXstate::read(&cpuid, 0xffff).unwrap();
    assert!(host.offered().contains(ComponentSet::CET));
    let mut cpu = cpu_of(host, 0);
    let report = cpu.self_test(&mut TestMemory::default()).unwrap();
    assert_eq!(report.failed(), set(0));
    assert!(report.passed().has(ComponentIndex::CET_U));
    assert!(!report.passed().has(ComponentIndex::CET_S));
    assert!(cpu.host().offered().contains(ComponentSet::CET));
    model(&mut cpu).broken = Some(ComponentIndex::CET_U);
    let report = cpu.self_test(&mut TestMemory::default()).unwrap();
    assert!(report.failed().has(ComponentIndex::CET_U));
}

/// A policy whose fields say no XSAVE and supervisor state let a guest write
/// IA32_XSS, and was then refused to the same vCPU.
#[test]
fn no_xss_without_xsave() {
    let mut memory = TestMemory::default();
    let mut cpu = rapids(0xf);
    let mut without = policy(0x1803);
    without.xsave = false;
    let mut a = VcpuXstate::new(1, &without, cpu.host(), &mut memory).unwrap();
    assert_eq!(a.policy().mask, ComponentSet::LEGACY);
    let refused = a.set_xss(0x800, &mut cpu, &mut memory);
    assert_eq!(
        refused,
        Err(WriteXssError::Fault(XssError::Policy(0x800, 0)))
    );
    let same = a.set_policy(&without, set(0), &mut cpu, &mut memory);
    assert!(same.is_ok(), "{same:?}");
}

/// The register that a policy does not have is 0, and a policy that would take
/// it away from a guest that has set it is refused.
#[test]
fn a_policy_without_xfd_is_kept_from_a_guest_that_set_it() {
    let mut memory = TestMemory::default();
    let mut cpu = rapids(0x1f);
    let without = XstatePolicy {
        xfd: false,
        ..policy(0x6_02e7)
    };
    let tiles = set(1 << 18);
    let mut a = vcpu(1, 0x6_02e7, &cpu, &mut memory);
    a.set_xfd(tiles.bits(), cpu.host()).unwrap();
    assert_eq!(
        a.set_policy(&without, set(0), &mut cpu, &mut memory),
        Err(PolicyError::Enabled(tiles, set(0)))
    );
    a.set_xfd(0, cpu.host()).unwrap();
    a.set_policy(&without, set(0), &mut cpu, &mut memory)
        .unwrap();
    assert!(a.set_xfd(tiles.bits(), cpu.host()).is_err());
    assert!(a.set_xfd_err(tiles.bits(), cpu.host()).is_err());
    // What is armed is the hypervisor's, as before.
    a.set_xcr0(0x6_02e7, 0, &mut cpu, &mut memory).unwrap();
    assert_eq!(a.hardware_xfd(cpu.host()), tiles);
}
