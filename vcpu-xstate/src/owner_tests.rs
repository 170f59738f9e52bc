//! Tests of ownership, one situation each; `world_tests` walks through all of them at random.

use super::*;
use crate::ComponentIndex;
use crate::CpuId;
use crate::XstatePolicy;
use crate::header::COMPACTED;
use crate::hw::Modelled;
use crate::model::{InitTracking, Registers};
use crate::testing::{INSTRUCTIONS, TestMemory, bochs_sapphire_rapids, host, modelled, qemu_max};
use crate::validate::validate;

pub(super) type Cpu = PcpuXstate<Modelled>;

pub(super) fn set(bits: u64) -> ComponentSet {
    ComponentSet::from_bits_retain(bits)
}

pub(super) fn policy(mask: u64) -> XstatePolicy {
    XstatePolicy::new(set(mask), ComponentSet::EMPTY)
}

pub(super) fn cpu_of(host: HostXstate, number: u32) -> Cpu {
    PcpuXstate::new(
        CpuId(number),
        modelled(&host, InitTracking::ByContent),
        host,
    )
}

pub(super) fn qemu() -> Cpu {
    let host = host(qemu_max(), 0x5);
    PcpuXstate::new(CpuId(0), modelled(&host, InitTracking::Never), host)
}

pub(super) fn rapids(instructions: u32) -> Cpu {
    cpu_of(host(bochs_sapphire_rapids(), instructions), 0)
}

pub(super) fn vcpu(tag: u64, mask: u64, cpu: &Cpu, memory: &mut TestMemory) -> VcpuXstate {
    VcpuXstate::new(tag, &policy(mask), cpu.host(), memory).unwrap()
}

pub(super) fn model(cpu: &mut Cpu) -> &mut Modelled {
    cpu.hardware_mut()
}

/// The components, of `among`, whose registers are not INIT.
pub(super) fn not_init(cpu: &mut Cpu, among: ComponentSet) -> ComponentSet {
    let cpu = &model(cpu).cpu;
    let init = Registers::init(cpu.machine());
    set(cpu.registers().differences(&init, among.bits()))
}

#[test]
fn areas_are_sized_by_policy() {
    let mut memory = TestMemory::default();
    let cpu = qemu();
    assert_eq!(vcpu(1, 0x3, &cpu, &mut memory).area_size_bytes(), 576);
    assert_eq!(memory.live_blocks, 9);
    assert_eq!(vcpu(2, 0x21f, &cpu, &mut memory).area_size_bytes(), 0xa88);
    // CRIU #1448, Cloud Hypervisor #7533: hard-coded 4096. AMX costs nothing
    // until it is enabled, and is all there when it is.
    let mut cpu = rapids(0xf);
    let mut amx = vcpu(3, 0x6_02e7, &cpu, &mut memory);
    assert_eq!(amx.area_size_bytes(), 576 + 256 + 8);
    amx.set_xcr0(0x6_02e7, 0, &mut cpu, &mut memory).unwrap();
    assert_eq!(amx.area_size_bytes(), 2496 + 64 + 8192);
}

/// Linux a1020a25e6: without XSAVE there is x87 and SSE still, 576 bytes and
/// XCR0 = 1, not "xcr0 = 0".
#[test]
fn fp_dropped_where_xsave_is_hidden() {
    let mut memory = TestMemory::default();
    let mut cpu = qemu();
    let none = XstatePolicy::without_xsave();
    let mut a = VcpuXstate::new(1, &none, cpu.host(), &mut memory).unwrap();
    cpu.load(&mut a).unwrap();
    cpu.enter(&a);
    model(&mut cpu).cpu.put(ComponentIndex::SSE, &[9; 256]);
    assert_eq!(
        a.set_xcr0(3, 0, &mut cpu, &mut memory),
        Err(XsetbvError::Fault(Xcr0Error::WithoutXsave(3)))
    );
    let mut out = [0; 576];
    let exported = a.export(&mut cpu, &mut out).unwrap();
    assert_eq!(exported.image_len, 576);
    assert!(!exported.claims.xsave);
    assert_eq!((exported.claims.xcr0, exported.claims.xstate_mask), (1, 3));
    let host = cpu.host().clone();
    let image = validate(&exported.claims, host.geometry(), &out, &host, &none).unwrap();
    let mut b = VcpuXstate::new(2, &none, &host, &mut memory).unwrap();
    b.import(&image, &mut cpu, &mut memory).unwrap();
    assert_eq!(b.in_use(&mut cpu).bits(), 0x2);
}

#[test]
fn an_exit_that_returns_to_the_same_vcpu_does_nothing() {
    for instructions in INSTRUCTIONS {
        let mut memory = TestMemory::default();
        let mut cpu = rapids(instructions);
        let mut a = vcpu(1, 0x207, &cpu, &mut memory);
        cpu.load(&mut a).unwrap();
        cpu.enter(&a);
        let before = (model(&mut cpu).restores(), model(&mut cpu).control_writes());
        for _ in 0..3 {
            cpu.load(&mut a).unwrap();
            cpu.enter(&a);
        }
        let after = (model(&mut cpu).restores(), model(&mut cpu).control_writes());
        assert_eq!(before, after);
    }
}

/// Saved and loaded again with nothing in between: the registers still have
/// it, except after XSAVES, which changes live state.
#[test]
fn a_restore_is_left_out_by_generation() {
    for instructions in INSTRUCTIONS {
        let mut memory = TestMemory::default();
        let mut cpu = rapids(instructions);
        let mut a = vcpu(1, 0x207, &cpu, &mut memory);
        let mut b = vcpu(2, 0x207, &cpu, &mut memory);
        cpu.load(&mut a).unwrap();
        cpu.save(&mut a);
        let before = model(&mut cpu).restores();
        cpu.load(&mut a).unwrap();
        let xsaves = instructions & 8 != 0;
        assert_eq!(model(&mut cpu).restores() - before, u32::from(xsaves));
        // Another ran: restored. An edit: restored.
        cpu.save(&mut a);
        cpu.load(&mut b).unwrap();
        cpu.save(&mut b);
        let before = model(&mut cpu).restores();
        cpu.load(&mut a).unwrap();
        assert_eq!(model(&mut cpu).restores(), before + 1);
        let mut out = [0; 4096];
        let exported = a.export(&mut cpu, &mut out).unwrap();
        let host = cpu.host().clone();
        let image = &out[..exported.image_len];
        let trusted =
            validate(&exported.claims, host.geometry(), image, &host, a.policy()).unwrap();
        a.import(&trusted, &mut cpu, &mut memory).unwrap();
        let before = model(&mut cpu).restores();
        cpu.load(&mut a).unwrap();
        assert_eq!(model(&mut cpu).restores(), before + 1);
    }
}

/// It ran here, then elsewhere, and came back: the copy here is stale although
/// nothing else ran here.
#[test]
fn a_stale_copy_on_the_first_cpu_is_not_taken() {
    let mut memory = TestMemory::default();
    let host = host(qemu_max(), 0x5);
    let (mut first, mut second) = (cpu_of(host.clone(), 0), cpu_of(host, 1));
    let mut a = vcpu(1, 0x207, &first, &mut memory);
    first.load(&mut a).unwrap();
    first.save(&mut a);
    second.load(&mut a).unwrap();
    model(&mut second)
        .cpu
        .put(ComponentIndex::SSE, &[0x42; 256]);
    second.save(&mut a);
    first.load(&mut a).unwrap();
    assert_eq!(model(&mut first).cpu.registers().xmm[15], [0x42; 16]);
}

/// XSA-62: newly enabled states hold INIT, not the previous owner's registers.
#[test]
fn xsa_62_newly_enabled_state_of_the_previous_owner() {
    for instructions in INSTRUCTIONS {
        let mut memory = TestMemory::default();
        let mut cpu = rapids(instructions);
        let mut a = vcpu(1, 0xe7, &cpu, &mut memory);
        let mut b = vcpu(2, 0xe7, &cpu, &mut memory);
        a.set_xcr0(0xe7, 0, &mut cpu, &mut memory).unwrap();
        cpu.load(&mut a).unwrap();
        cpu.enter(&a);
        for component in set(0xe7) {
            model(&mut cpu).cpu.put_pattern(component, 0x33);
        }
        model(&mut cpu).cpu.ldmxcsr(0x1fa5).unwrap();
        cpu.save(&mut a);
        cpu.load(&mut b).unwrap();
        cpu.enter(&b);
        b.set_xcr0(0xe7, 0, &mut cpu, &mut memory).unwrap();
        cpu.load(&mut b).unwrap();
        cpu.enter(&b);
        assert_eq!(not_init(&mut cpu, set(0xe7)), set(0));
    }
}

/// XSA-52 and XSA-172: where XRSTOR leaves FIP, FDP and FOP, the next vCPU
/// must not find the last one's.
#[test]
fn xsa_52_fip_of_the_last_owner() {
    let machine = crate::testing::Machine {
        geometry: qemu_max(),
        instructions: 1,
    };
    let amd = |leaf, subleaf| {
        let mut r = machine.cpuid(leaf, subleaf);
        if leaf == 0 {
            r.ebx = u32::from_le_bytes(*b"Auth");
        }
        r
    };
    let host = HostXstate::read(&amd, 0xffff).unwrap();
    assert!(host.leaks_fp_pointers());
    let mut memory = TestMemory::default();
    let mut cpu = cpu_of(host, 0);
    let mut a = vcpu(1, 0x3, &cpu, &mut memory);
    let mut b = vcpu(2, 0x3, &cpu, &mut memory);
    cpu.load(&mut a).unwrap();
    // Without a pending exception: what XRSTOR leaves.
    model(&mut cpu).cpu.registers_mut().x87.fip = 5;
    cpu.save(&mut a);
    cpu.load(&mut b).unwrap();
    assert_eq!(model(&mut cpu).cpu.registers().x87.fip, 0);
}

/// Linux ad856280dd, 8647c52e95: what the host itself has in a register that
/// the guest's policy lacks is in no image of the guest.
#[test]
fn host_pkru_leaks_into_the_image() {
    for instructions in INSTRUCTIONS {
        let mut memory = TestMemory::default();
        let mut cpu = rapids(instructions);
        let mut a = vcpu(1, 0x7, &cpu, &mut memory);
        cpu.load(&mut a).unwrap();
        model(&mut cpu).cpu.put_pattern(ComponentIndex::PKRU, 0x54);
        let mut out = [0; 4096];
        let exported = a.export(&mut cpu, &mut out).unwrap();
        assert_eq!(exported.claims.xcomp_bv, COMPACTED);
        assert_eq!(
            (exported.claims.xstate_mask, exported.image_len),
            (0x7, 576)
        );
    }
}

/// Linux 1811d979c7: the model panics on a save or restore under a
/// guest's XCR0, and state that the guest has disabled is kept.
#[test]
fn disabled_state_is_kept() {
    for instructions in INSTRUCTIONS {
        let mut memory = TestMemory::default();
        let mut cpu = rapids(instructions);
        let mut a = vcpu(1, 0x207, &cpu, &mut memory);
        let mut b = vcpu(2, 0x3, &cpu, &mut memory);
        a.set_xcr0(7, 0, &mut cpu, &mut memory).unwrap();
        cpu.load(&mut a).unwrap();
        cpu.enter(&a);
        model(&mut cpu).cpu.put_pattern(ComponentIndex::AVX, 0x44);
        model(&mut cpu).cpu.put_pattern(ComponentIndex::PKRU, 0x44);
        a.set_xcr0(1, 0, &mut cpu, &mut memory).unwrap();
        cpu.enter(&a);
        assert_eq!(model(&mut cpu).cpu.xcr0(), 1);
        cpu.save(&mut a);
        cpu.load(&mut b).unwrap();
        cpu.save(&mut b);
        cpu.load(&mut a).unwrap();
        let registers = model(&mut cpu).cpu.registers();
        assert!(!registers.is_init(ComponentIndex::AVX));
        assert!(!registers.is_init(ComponentIndex::PKRU));
    }
}

#[test]
fn growth_without_memory_loses_nothing() {
    let mut memory = TestMemory::default();
    let mut cpu = rapids(0xf);
    let mut a = vcpu(1, 0x6_02e7, &cpu, &mut memory);
    cpu.load(&mut a).unwrap();
    model(&mut cpu).cpu.put(ComponentIndex::SSE, &[3; 256]);
    memory.fail_at = Some(memory.calls);
    let size = a.area_size_bytes();
    assert_eq!(
        a.set_xcr0(0xe7, 0, &mut cpu, &mut memory),
        Err(XsetbvError::NeedsMemory(OutOfMemory { bytes: 2440 }))
    );
    assert_eq!((a.xcr0(), a.area_size_bytes()), (1, size));
    assert!(!a.accum().has(ComponentIndex::OPMASK));
    a.set_xcr0(0xe7, 0, &mut cpu, &mut memory).unwrap();
    cpu.load(&mut a).unwrap();
    assert_eq!(model(&mut cpu).cpu.registers().xmm[0], [3; 16]);
}

/// The processor remembers the address of its last XRSTOR: a buffer freed and
/// given out again must not make a save skip what "did not change".
#[test]
fn modified_optimisation_with_a_reused_address() {
    for instructions in [0x1, 0xf] {
        let mut memory = TestMemory::default();
        let mut cpu = rapids(instructions);
        let mut a = vcpu(1, 0x2e7, &cpu, &mut memory);
        cpu.load(&mut a).unwrap();
        cpu.enter(&a);
        model(&mut cpu).cpu.put(ComponentIndex::SSE, &[0x21; 256]);
        for round in 0..4 {
            // Grows and shrinks between the same two buffers while it runs.
            a.set_xcr0(0xe7, 0, &mut cpu, &mut memory).unwrap();
            cpu.load(&mut a).unwrap();
            a.set_xcr0(7, 0, &mut cpu, &mut memory).unwrap();
            a.reclaim(&mut cpu, &mut memory).unwrap();
            cpu.load(&mut a).unwrap();
            cpu.save(&mut a);
            let image = a.area.image(cpu.host().geometry());
            assert_eq!(image.legacy().xmm[3], [0x21; 16], "round {round}");
            cpu.load(&mut a).unwrap();
            cpu.enter(&a);
        }
    }
}

#[test]
fn a_failed_restore_costs_the_domain_and_leaks_nothing() {
    let mut memory = TestMemory::default();
    let mut cpu = rapids(0xf);
    let mut a = vcpu(1, 0x7, &cpu, &mut memory);
    let mut b = vcpu(2, 0x7, &cpu, &mut memory);
    model(&mut cpu).fail_next_restore = true;
    assert!(cpu.load(&mut a).is_err());
    assert_eq!(a.home(), Home::Memory);
    assert_eq!(not_init(&mut cpu, set(7)), set(0));
    cpu.load(&mut b).unwrap();
}

/// Bug 13 and 14 of the peers: XCR0, XSS, XFD cached over a suspend or hotplug.
#[test]
fn cached_xcr0_stale_after_suspend() {
    let mut memory = TestMemory::default();
    let mut cpu = rapids(0x1f);
    let mut a = vcpu(1, 0x7, &cpu, &mut memory);
    cpu.load(&mut a).unwrap();
    cpu.enter(&a);
    cpu.save(&mut a);
    // The processor goes down and comes up: reset values.
    model(&mut cpu).cpu.reset(1 << 18);
    cpu.reset();
    cpu.load(&mut a).unwrap();
    cpu.enter(&a);
    let m = &model(&mut cpu).cpu;
    assert_eq!((m.xcr0(), m.xss(), m.xfd()), (1, 0, 0));
}

#[test]
fn discard_clears_the_registers_uinv_too() {
    let mut memory = TestMemory::default();
    let mut cpu = rapids(0xf);
    let mut a = vcpu(1, 0x4007, &cpu, &mut memory);
    let mut b = vcpu(2, 0x4007, &cpu, &mut memory);
    cpu.load(&mut a).unwrap();
    model(&mut cpu).cpu.put_pattern(ComponentIndex::UINTR, 7);
    let uinv = [0; 20].into_iter().chain([0xec]).collect::<Vec<_>>();
    model(&mut cpu).cpu.put(ComponentIndex::UINTR, &uinv);
    model(&mut cpu).cpu.put(ComponentIndex::SSE, &[7; 256]);
    cpu.discard(a, &mut memory);
    let offered = cpu.host().offered();
    assert_eq!(not_init(&mut cpu, offered), set(0));
    cpu.load(&mut b).unwrap();
}

/// Two machines of one form, whose images differ in size: the smaller area
/// would be written beyond its end.
#[test]
#[should_panic(expected = "an area of another machine")]
fn an_area_of_another_machine_is_not_used() {
    let mut memory = TestMemory::default();
    let small = cpu_of(host(qemu_max(), 0x5), 0);
    let mut large = cpu_of(host(bochs_sapphire_rapids(), 0x5), 0);
    let mut a = vcpu(1, 0x207, &small, &mut memory);
    let _ = large.load(&mut a);
}

/// A vCPU whose guest used user interrupts: UINV is live, in these registers.
pub(super) fn with_live_uinv(tag: u64, cpu: &mut Cpu, memory: &mut TestMemory) -> VcpuXstate {
    let mut a = vcpu(tag, 0x4007, cpu, memory);
    cpu.load(&mut a).unwrap();
    cpu.enter(&a);
    let uinv = [0; 20].into_iter().chain([0xec]).collect::<Vec<_>>();
    model(cpu).cpu.put(ComponentIndex::UINTR, &uinv);
    a
}

/// A guest's own #NM changes IA32_XFD_ERR without an exit that tells: the
/// handler of the one that it belongs to reads it, and the next vCPU does not.
#[test]
fn xfd_err_of_the_guests_own_nm_was_lost_and_leaked() {
    let mut memory = TestMemory::default();
    let mut cpu = rapids(0x1f);
    let host = cpu.host().clone();
    let tiles = ComponentSet::only(ComponentIndex::TILEDATA);
    let mut a = vcpu(1, 0x6_0007, &cpu, &mut memory);
    let mut b = vcpu(2, 0x7, &cpu, &mut memory);
    assert!(!a.intercepts_nm(&host));
    a.set_xcr0(0x6_0007, 0, &mut cpu, &mut memory).unwrap();
    assert!(a.intercepts_nm(&host), "armed");
    a.first_use(tiles, &mut cpu, &mut memory);
    assert!(!a.intercepts_nm(&host), "has room");
    a.set_xfd(tiles.bits(), &host).unwrap();
    assert!(a.intercepts_nm(&host), "the guest's own");

    cpu.load(&mut a).unwrap();
    cpu.enter(&a);
    let used = model(&mut cpu).cpu.use_component(ComponentIndex::TILEDATA);
    assert!(used.is_err());
    let noted = set(cpu.read_xfd_err());
    assert_eq!(a.first_use(noted, &mut cpu, &mut memory), FirstUse::Reflect);
    assert_eq!(a.xfd_err(), tiles.bits());
    cpu.switch(&mut a, &mut b).unwrap();
    cpu.enter(&b);
    assert_eq!(cpu.read_xfd_err(), 0);
    cpu.switch(&mut b, &mut a).unwrap();
    cpu.enter(&a);
    assert_eq!(cpu.read_xfd_err(), tiles.bits());
    // CR0.TS: nothing is noted, and what was stays.
    let reflected = a.first_use(set(0), &mut cpu, &mut memory);
    assert_eq!((reflected, a.xfd_err()), (FirstUse::Reflect, tiles.bits()));
}

/// Tile data in an area, then IA32_XFD: the area went on saying that it is
/// held. And where the processor saves by XSAVEC, its registers' copy passed
/// for the state without it.
#[test]
fn tiles_in_memory_outlived_a_write_of_xfd() {
    for instructions in [0x17, 0x1f] {
        for saved_first in [false, true] {
            let mut memory = TestMemory::default();
            let mut cpu = rapids(instructions);
            let tiles = ComponentSet::only(ComponentIndex::TILEDATA);
            let mut a = vcpu(1, 0x6_0007, &cpu, &mut memory);
            a.set_xcr0(0x6_0007, 0, &mut cpu, &mut memory).unwrap();
            a.first_use(tiles, &mut cpu, &mut memory);
            cpu.load(&mut a).unwrap();
            cpu.enter(&a);
            model(&mut cpu)
                .cpu
                .put_pattern(ComponentIndex::TILEDATA, 0x21);
            if saved_first {
                cpu.save(&mut a);
            }
            let host = cpu.host().clone();
            a.set_xfd(tiles.bits(), &host).unwrap();
            cpu.save(&mut a);
            let held = a.area.image(host.geometry()).xstate_bv();
            assert!(!held.intersects(tiles), "{instructions:#x} {saved_first}");
            cpu.load(&mut a).unwrap();
            assert_eq!(not_init(&mut cpu, tiles), set(0), "{instructions:#x}");
        }
    }
}

/// Released while its state is in registers, a vCPU left it to the next one.
#[test]
fn a_vcpu_in_registers_is_not_released() {
    let mut memory = TestMemory::default();
    let mut cpu = rapids(0xf);
    let mut a = vcpu(1, 0x7, &cpu, &mut memory);
    cpu.load(&mut a).unwrap();
    let mut a = a.release(&mut memory).unwrap_err();
    assert!(memory.live_blocks > 0);
    cpu.save(&mut a);
    a.release(&mut memory).unwrap();
    assert_eq!(memory.live_blocks, 0);
}

/// `discard` named no vCPU, and ended whichever was in the registers.
#[test]
#[should_panic(expected = "another vCPU's than 0x2")]
fn discard_took_whatever_was_loaded() {
    let mut memory = TestMemory::default();
    let mut cpu = rapids(0xf);
    let mut a = vcpu(1, 0x7, &cpu, &mut memory);
    let b = vcpu(2, 0x7, &cpu, &mut memory);
    cpu.load(&mut a).unwrap();
    cpu.discard(b, &mut memory);
}
