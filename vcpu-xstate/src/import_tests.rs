//! Export and import: what a vCPU is given replaces what it had, wherever that was.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::tests::{cpu_of, model, not_init, policy, rapids, set, vcpu, with_live_uinv};
use super::*;
use crate::layout::{Geometry, MIN_IMAGE_BYTES};
use crate::testing::{INSTRUCTIONS, Machine, TestMemory, bochs_sapphire_rapids, host, supervisor};
use crate::validate::validate;
use crate::{ComponentIndex, XstatePolicy};

/// An image taken with tiles armed and without room is taken elsewhere too.
#[test]
fn armed_tiles_move() {
    let mut memory = TestMemory::default();
    let mut cpu = rapids(0x1f);
    let mut a = vcpu(1, 0x6_0007, &cpu, &mut memory);
    a.set_xcr0(0x6_0007, 0, &mut cpu, &mut memory).unwrap();
    let mut out = vec![0; a.export_size(&mut cpu)];
    let exported = a.export(&mut cpu, &mut out).unwrap();
    assert_eq!(exported.image_len, MIN_IMAGE_BYTES);
    let host = cpu.host().clone();
    let trusted = validate(&exported.claims, host.geometry(), &out, &host, a.policy()).unwrap();
    let mut b = vcpu(2, 0x6_0007, &cpu, &mut memory);
    b.import(&trusted, &mut cpu, &mut memory).unwrap();
    assert_eq!((b.xcr0(), b.accum()), (a.xcr0(), a.accum()));
    // Armed by each hypervisor for itself: the guest's own IA32_XFD is 0.
    assert_eq!((exported.claims.xfd, b.xfd()), (0, 0));
    cpu.load(&mut b).unwrap();
    cpu.enter(&b);
    assert_eq!(model(&mut cpu).cpu.xfd(), 1 << 18);
}

/// Judged on a machine whose MXCSR has bit 17, restored on one that faults on
/// it: a trusted image is trusted by the host that it was judged for.
#[test]
fn a_trusted_image_was_taken_by_another_host() {
    let machine = Machine {
        geometry: bochs_sapphire_rapids(),
        instructions: 0xf,
    };
    let host_with = |mxcsr_mask, bits: u32| {
        let cpuid = |leaf, subleaf| {
            let mut r = machine.cpuid(leaf, subleaf);
            if leaf == 0x8000_0008 {
                r.eax = bits << 8 | 40;
            }
            r
        };
        HostXstate::read(&cpuid, mxcsr_mask).unwrap()
    };
    let here = host_with(0xffff, 48);
    for (there, seen, allowed) in [
        (host_with(0x2_ffff, 48), 0x2_ffff, 0xffff),
        (host_with(0xffff, 57), 57, 48),
    ] {
        let mut memory = TestMemory::default();
        let mut cpu = cpu_of(here.clone(), 0);
        let mut a = vcpu(1, 0x7, &cpu, &mut memory);
        let mut out = vec![0; a.export_size(&mut cpu)];
        let exported = a.export(&mut cpu, &mut out).unwrap();
        let judged = |host: &HostXstate| {
            validate(&exported.claims, here.geometry(), &out, host, &policy(7)).unwrap()
        };
        assert_eq!(
            a.import(&judged(&there), &mut cpu, &mut memory),
            Err(ImportError::Host(seen, allowed))
        );
        assert_eq!(a.import(&judged(&here), &mut cpu, &mut memory), Ok(()));
    }
    let other = host(bochs_sapphire_rapids(), 0x1);
    let mut memory = TestMemory::default();
    let mut cpu = cpu_of(here.clone(), 0);
    let mut a = vcpu(1, 0x7, &cpu, &mut memory);
    let mut out = vec![0; a.export_size(&mut cpu)];
    let exported = a.export(&mut cpu, &mut out).unwrap();
    let image = validate(&exported.claims, here.geometry(), &out, &other, &policy(7)).unwrap();
    let error = a.import(&image, &mut cpu, &mut memory).unwrap_err();
    assert_eq!((error.code(), error.rule()), (0xa03, "import-host"));
}

#[test]
fn import_without_memory_changes_nothing() {
    let mut memory = TestMemory::default();
    let mut cpu = rapids(0xf);
    let mut a = vcpu(1, 0x2e7, &cpu, &mut memory);
    a.set_xcr0(0xe7, 0, &mut cpu, &mut memory).unwrap();
    let mut out = vec![0; a.export_size(&mut cpu)];
    let exported = a.export(&mut cpu, &mut out).unwrap();
    let host = cpu.host().clone();
    let trusted = validate(&exported.claims, host.geometry(), &out, &host, a.policy()).unwrap();
    let mut b = vcpu(2, 0x2e7, &cpu, &mut memory);
    cpu.load(&mut b).unwrap();
    model(&mut cpu).cpu.put(ComponentIndex::SSE, &[8; 256]);
    memory.fail_at = Some(memory.calls);
    let error = b.import(&trusted, &mut cpu, &mut memory).unwrap_err();
    assert_eq!(error.code(), OutOfMemory::CODE);
    assert_eq!((b.xcr0(), b.in_use(&mut cpu).bits()), (1, 2));
    b.import(&trusted, &mut cpu, &mut memory).unwrap();
    assert_eq!((b.xcr0(), b.in_use(&mut cpu).bits()), (0xe7, 0));
    let narrow = &mut vcpu(3, 0x7, &cpu, &mut memory);
    let error = narrow.import(&trusted, &mut cpu, &mut memory).unwrap_err();
    assert_eq!(error, ImportError::Policy(0x2e7, 0x7));
}

/// A vCPU that is in the registers gets another state: what it had there is
/// given up, and the new state is restored.
#[test]
fn import_revokes_the_registers() {
    for instructions in INSTRUCTIONS {
        let mut memory = TestMemory::default();
        let mut cpu = rapids(instructions);
        let mut a = vcpu(1, 0x7, &cpu, &mut memory);
        let mut out = [0; 576];
        let exported = a.export(&mut cpu, &mut out).unwrap();
        cpu.load(&mut a).unwrap();
        model(&mut cpu).cpu.put(ComponentIndex::SSE, &[8; 256]);
        let host = cpu.host().clone();
        let trusted = validate(&exported.claims, host.geometry(), &out, &host, a.policy()).unwrap();
        a.import(&trusted, &mut cpu, &mut memory).unwrap();
        cpu.load(&mut a).unwrap();
        assert_eq!(not_init(&mut cpu, set(7)), set(0));
    }
}

/// Without XSAVE a guest has x87 and SSE too, but its XCR0 stays 1 and its image
/// is another kind: one is not taken for the other, whose masks are the same.
#[test]
fn a_guest_without_xsave_is_no_guest_with_x87_and_sse() {
    let mut memory = TestMemory::default();
    let mut cpu = rapids(0xf);
    let host = cpu.host().clone();
    let plain = XstatePolicy::without_xsave();
    assert_eq!(plain.mask, policy(3).mask);
    for (from, to, error) in [
        (&plain, &policy(3), ImportError::Xsave(0, 1)),
        (&policy(3), &plain, ImportError::Xsave(1, 0)),
    ] {
        let mut a = VcpuXstate::new(1, from, &host, &mut memory).unwrap();
        let mut b = VcpuXstate::new(2, to, &host, &mut memory).unwrap();
        let mut out = vec![0; a.export_size(&mut cpu)];
        let exported = a.export(&mut cpu, &mut out).unwrap();
        let image = validate(&exported.claims, host.geometry(), &out, &host, from).unwrap();
        assert_eq!(b.import(&image, &mut cpu, &mut memory), Err(error));
        assert_eq!(a.import(&image, &mut cpu, &mut memory), Ok(()));
    }
}

/// The image replaced what the registers had, UINV stayed in them, and the
/// next restore of UINTR faulted: this vCPU's, or that of another domain.
#[test]
fn import_left_uinv_in_the_registers() {
    for other in [false, true] {
        let mut memory = TestMemory::default();
        let mut cpu = rapids(0xf);
        let mut b = with_live_uinv(2, &mut cpu, &mut memory);
        let mut out = vec![0; b.export_size(&mut cpu)];
        let exported = b.export(&mut cpu, &mut out).unwrap();
        let host = cpu.host().clone();
        let image = validate(&exported.claims, host.geometry(), &out, &host, b.policy()).unwrap();
        assert!(image.image().xstate_bv().has(ComponentIndex::UINTR));

        let mut a = with_live_uinv(1, &mut cpu, &mut memory);
        a.import(&image, &mut cpu, &mut memory).unwrap();
        assert_eq!(not_init(&mut cpu, host.offered()), set(0));
        let next = if other { &mut b } else { &mut a };
        assert_eq!(cpu.load(next), Ok(()), "another: {other}");
        let uintr = not_init(&mut cpu, host.offered());
        assert!(uintr.has(ComponentIndex::UINTR));
    }
}

/// The image was taken before anybody asked which processor has the vCPU: the
/// panic left it half replaced.
#[test]
fn import_of_a_vcpu_elsewhere_changes_nothing() {
    let mut memory = TestMemory::default();
    let mut here = rapids(0xf);
    let mut there = cpu_of(host(bochs_sapphire_rapids(), 0xf), 1);
    let mut a = vcpu(1, 0x207, &here, &mut memory);
    let mut b = vcpu(2, 0x207, &here, &mut memory);
    b.set_xcr0(0x207, 0, &mut here, &mut memory).unwrap();
    let mut blob = vec![0; 4096];
    let exported = b.export(&mut here, &mut blob).unwrap();
    let image = &blob[..exported.image_len];
    there.load(&mut a).unwrap();
    let before = (a.version(), a.xcr0(), a.accum(), a.home());
    let imported = catch_unwind(AssertUnwindSafe(|| {
        a.import_native(&exported.claims, image, &mut here, &mut memory)
    }));
    assert!(imported.is_err(), "another processor has it");
    assert_eq!((a.version(), a.xcr0(), a.accum(), a.home()), before);
}

/// Both hosts permit branch records and lay them out alike; one has no call-stack
/// mode, and its XRSTORS faults on that bit of IA32_LBR_CTL.
#[test]
fn branch_records_of_a_mode_that_is_not_here() {
    let lbr = ComponentSet::only(ComponentIndex::LBR);
    let mut geometry = Geometry::new();
    let facts = supervisor(808);
    geometry.insert(ComponentIndex::LBR, facts).unwrap();
    let machine = Machine {
        geometry,
        instructions: 0xf,
    };
    let host_with = |modes, counters| {
        let cpuid = |leaf, subleaf| {
            let mut r = machine.cpuid(leaf, subleaf);
            match leaf {
                0 => r.eax = 0x1c,
                0x1c => (r.eax, r.ebx, r.ecx) = (0x8, modes, counters),
                _ => {}
            }
            r
        };
        let mut host = HostXstate::read(&cpuid, 0xffff).unwrap();
        host.permit(lbr);
        host
    };
    let here = host_with(0, 0);
    for (there, seen, allowed) in [
        (host_with(0x4, 0), 0x9, 0x1),
        (
            host_with(0, 1 << 16),
            0xff00_0003_0000_ffff,
            0xff00_0000_0000_ffff,
        ),
    ] {
        let mut memory = TestMemory::default();
        let mut cpu = cpu_of(here.clone(), 0);
        let mut a = vcpu(1, 0x8003, &cpu, &mut memory);
        let mut out = vec![0; a.export_size(&mut cpu)];
        let exported = a.export(&mut cpu, &mut out).unwrap();
        let judged = validate(&exported.claims, here.geometry(), &out, &there, a.policy());
        assert_eq!(
            a.import(&judged.unwrap(), &mut cpu, &mut memory),
            Err(ImportError::Host(seen, allowed))
        );
    }
}

/// Judged for a guest that has IA32_XFD, given to one that has not: it could never
/// clear the bit, and each use of its tiles would be its own #NM.
#[test]
fn import_of_xfd_into_a_guest_without_it() {
    let mut memory = TestMemory::default();
    let mut cpu = rapids(0x1f);
    let tiles = 1 << 18;
    let mut a = vcpu(1, 0x6_0007, &cpu, &mut memory);
    let mut without = policy(0x6_0007);
    without.xfd = false;
    let mut b = VcpuXstate::new(2, &without, cpu.host(), &mut memory).unwrap();
    for error in [false, true] {
        let host = cpu.host().clone();
        a.set_xfd(if error { 0 } else { tiles }, &host).unwrap();
        a.set_xfd_err(if error { tiles } else { 0 }, &host).unwrap();
        let mut out = vec![0; a.export_size(&mut cpu)];
        let exported = a.export(&mut cpu, &mut out).unwrap();
        let image = validate(&exported.claims, host.geometry(), &out, &host, a.policy()).unwrap();
        let refused = b.import(&image, &mut cpu, &mut memory);
        assert_eq!(refused, Err(ImportError::Xfd(tiles, 0)));
        assert_eq!((b.xfd(), b.xfd_err()), (0, 0));
        assert_eq!(a.import(&image, &mut cpu, &mut memory), Ok(()));
    }
}
