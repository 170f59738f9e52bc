//! Updates of one component: wherever it lives, the guest finds what was written and all else as it left it.

use super::tests::{Cpu, cpu_of, model, rapids, set, vcpu};
use super::*;
use crate::ComponentIndex;
use crate::CpuId;
use crate::layout::Geometry;
use crate::model::{InitTracking, Registers};
use crate::selftest::pattern;
use crate::testing::{INSTRUCTIONS, TestMemory, bochs_sapphire_rapids, host, modelled, supervisor};
use crate::update::{Update, UpdateError};
use crate::values::BadValue;
use crate::views::{Access, CetUser, Mxcsr, Pasid, Pkru, ProtectionKey, UserCet, View, Xmm};

/// Sapphire Rapids of Bochs, with PASID and branch records.
pub(super) fn machine() -> Geometry {
    let mut geometry = bochs_sapphire_rapids();
    for (index, facts) in [(10, supervisor(8)), (15, supervisor(808))] {
        let index = ComponentIndex::new(index).unwrap();
        geometry.insert(index, facts).unwrap();
    }
    geometry
}

/// Where the state is when the update begins.
#[derive(Clone, Copy, Debug)]
pub(super) enum Where {
    /// It never ran.
    Init,
    /// In registers, under the guest's own control registers.
    Registers,
    /// In memory, with a copy left in the registers.
    Memory,
}

pub(super) struct Bench {
    pub(super) cpu: Cpu,
    pub(super) memory: TestMemory,
    pub(super) vcpu: VcpuXstate,
    pub(super) expected: Registers,
}

/// A vCPU with state in some components, and what it must find.
pub(super) fn bench(instructions: u32, tracking: InitTracking, at: Where) -> Bench {
    let host = host(machine(), instructions);
    let mut cpu = PcpuXstate::new(CpuId(0), modelled(&host, tracking), host);
    let mut memory = TestMemory::default();
    let mask = cpu.host().offered().bits();
    let mut vcpu = vcpu(1, mask, &cpu, &mut memory);
    if !matches!(at, Where::Init) {
        vcpu.set_xcr0(0xe7, 0, &mut cpu, &mut memory).unwrap();
        cpu.load(&mut vcpu).unwrap();
        cpu.enter(&vcpu);
        for index in [0, 1, 6, 9, 11] {
            let component = ComponentIndex::new(index).unwrap();
            if vcpu.policy.mask.has(component) {
                model(&mut cpu).cpu.put_pattern(component, 0x17);
            }
        }
        model(&mut cpu).cpu.ldmxcsr(0x1fa5).unwrap();
    }
    let expected = if matches!(at, Where::Init) {
        Registers::init(model(&mut cpu).cpu.machine())
    } else {
        model(&mut cpu).cpu.registers().clone()
    };
    if matches!(at, Where::Memory) {
        cpu.save(&mut vcpu);
    }
    Bench {
        cpu,
        memory,
        vcpu,
        expected,
    }
}

/// Each instruction set, each way of tracking, each home, each component.
fn everywhere(mut check: impl FnMut(Bench, ComponentIndex, &str)) {
    let mut count = 0;
    for instructions in INSTRUCTIONS {
        for tracking in [InitTracking::ByContent, InitTracking::Never] {
            for at in [Where::Init, Where::Registers, Where::Memory] {
                for component in host(machine(), instructions).offered() {
                    let what = format!("{component} {at:?} {instructions:#x} {tracking:?}");
                    check(bench(instructions, tracking, at), component, &what);
                    count += 1;
                }
            }
        }
    }
    assert!(count > 300, "{count}");
}

/// The bytes that an update of the component shows, by the model's registers.
fn shown(registers: &Registers, component: ComponentIndex) -> Vec<u8> {
    let xmm = registers.xmm.as_flattened();
    match component {
        ComponentIndex::X87 => registers.x87.to_bytes().to_vec(),
        ComponentIndex::SSE => [xmm, &registers.mxcsr.to_le_bytes()].concat(),
        _ => registers.component(component).to_vec(),
    }
}

/// Other contents, legal everywhere, in the update and in what is expected.
pub(super) fn change(update: &mut impl Update, expected: &mut Registers) {
    let component = update.component();
    let bytes = update.bytes_mut();
    match component {
        ComponentIndex::X87 => {
            bytes[0..2].copy_from_slice(&0x0272_u16.to_le_bytes());
            bytes[32] = 9;
            expected.x87.fcw = 0x0272;
            expected.x87.st[0][0] = 9;
        }
        ComponentIndex::SSE => {
            bytes[17] = 0x61;
            bytes[256..].copy_from_slice(&0x1f83_u32.to_le_bytes());
            expected.xmm[1][1] = 0x61;
            expected.mxcsr = 0x1f83;
        }
        _ => {
            bytes.fill(0);
            pattern(component, 0x29, bytes);
            expected.component_mut(component).copy_from_slice(bytes);
        }
    }
}

/// Everything there is to see of a vCPU but where it is.
fn found(bench: &mut Bench, what: &str) {
    bench.cpu.load(&mut bench.vcpu).unwrap();
    bench.cpu.enter(&bench.vcpu);
    let offered = bench.cpu.host().offered();
    let registers = model(&mut bench.cpu).cpu.registers();
    let differ = set(registers.differences(&bench.expected, offered.bits()));
    assert!(differ.is_empty(), "{what}: {differ}");
    // The component has its room, and memory is what the area takes.
    let blocks = bench.vcpu.area_size_bytes().div_ceil(64);
    assert_eq!(bench.memory.live_blocks, blocks, "{what}");
    assert!(bench.vcpu.area_mask().contains(bench.vcpu.accum()));
}

#[test]
fn the_guest_finds_what_was_written_and_nothing_else_changed() {
    everywhere(|mut bench, component, what| {
        let mut update = bench
            .vcpu
            .begin_update(component, &mut bench.cpu, &mut bench.memory)
            .unwrap();
        assert_eq!(
            update.bytes(),
            shown(&bench.expected, component),
            "{what} shows"
        );
        change(&mut update, &mut bench.expected);
        update.finish().unwrap();
        assert!(bench.vcpu.accum().has(component), "{what}");
        found(&mut bench, what);
        // And it survives the way through memory.
        bench.cpu.save(&mut bench.vcpu);
        bench.cpu.discard_gone(bench.vcpu.number());
        assert!(bench.vcpu.in_use(&mut bench.cpu).has(component), "{what}");
        found(&mut bench, what);
    });
}

#[test]
fn a_dropped_update_changes_nothing() {
    everywhere(|mut bench, component, what| {
        let before = (bench.vcpu.accum(), bench.vcpu.area_mask());
        let mut update = bench
            .vcpu
            .begin_update(component, &mut bench.cpu, &mut bench.memory)
            .unwrap();
        update.bytes_mut().fill(0xff);
        drop(update);
        let after = (bench.vcpu.accum(), bench.vcpu.area_mask());
        assert_eq!(before, after, "{what}");
        found(&mut bench, what);
    });
}

/// The cheap instructions are used where they are, and only while the
/// registers own the state.
#[test]
fn pkru_and_cet_in_registers_cost_no_save() {
    for (index, instructions) in [(9, 0), (9, 0xf), (10, 0xf), (11, 0xf), (12, 0xf)] {
        let component = ComponentIndex::new(index).unwrap();
        let mut bench = bench(instructions, InitTracking::ByContent, Where::Registers);
        let before = model(&mut bench.cpu).restores();
        let mut update = bench
            .vcpu
            .begin_update(component, &mut bench.cpu, &mut bench.memory)
            .unwrap();
        change(&mut update, &mut bench.expected);
        update.finish().unwrap();
        assert_eq!(bench.vcpu.home(), Home::Registers(CpuId(0)), "{component}");
        found(&mut bench, "no save");
        assert_eq!(model(&mut bench.cpu).restores(), before);
        assert!(model(&mut bench.cpu).direct_writes() > 0);
    }
}

/// An update in memory outdates the copy that the registers still have.
#[test]
fn the_copy_in_registers_is_outdated_by_an_update() {
    let mut bench = bench(0x3, InitTracking::ByContent, Where::Memory);
    let before = model(&mut bench.cpu).restores();
    let mut pkru = bench
        .vcpu
        .begin_view::<Pkru, _, _>(&mut bench.cpu, &mut bench.memory)
        .unwrap();
    pkru.set(ProtectionKey::new(15).unwrap(), Access::None);
    let wanted = pkru.0;
    pkru.finish().unwrap();
    let bytes = bench.expected.component_mut(ComponentIndex::PKRU);
    bytes.copy_from_slice(&wanted.to_le_bytes());
    found(&mut bench, "outdated");
    assert_eq!(model(&mut bench.cpu).restores(), before + 1);
    assert_eq!(bench.vcpu.view::<Pkru>(&mut bench.cpu), Ok(Pkru(wanted)));
}

/// Refused by name; the guest finds everything as it left it.
#[test]
fn illegal_values_are_refused_when_the_update_is_finished() {
    let hole = 0x8000_0000_0000_u64.to_le_bytes();
    let table: [(ComponentIndex, usize, &[u8], &str); 7] = [
        (ComponentIndex::SSE, 258, &[0xff], "mxcsr"),
        (ComponentIndex::CET_U, 8, &hole, "component-address"),
        (ComponentIndex::CET_U, 0, &[0x40], "component-reserved"),
        (ComponentIndex::CET_U, 1, &[0x0c], "cet-tracker"),
        (ComponentIndex::PASID, 7, &[1], "component-reserved"),
        (ComponentIndex::LBR, 8, &[7], "lbr-depth"),
        (ComponentIndex::TILECFG, 0, &[2], "tile-config"),
    ];
    for at in [Where::Init, Where::Registers, Where::Memory] {
        for (component, offset, bytes, rule) in table {
            let mut bench = bench(0xf, InitTracking::ByContent, at);
            let accum = bench.vcpu.accum();
            let mut update = bench
                .vcpu
                .begin_update(component, &mut bench.cpu, &mut bench.memory)
                .unwrap();
            update.bytes_mut()[offset..offset + bytes.len()].copy_from_slice(bytes);
            let error = update.finish().unwrap_err();
            assert_eq!((error.rule(), error.code() >> 8), (rule, 3));
            assert!(matches!(error, UpdateError::Value(c, _) if c == component));
            assert_eq!(bench.vcpu.accum(), accum);
            found(&mut bench, rule);
        }
    }
}

#[test]
fn what_cannot_be_updated_is_refused_before_anything_happens() {
    let mut memory = TestMemory::default();
    let mut cpu = rapids(0x1f);
    let mut a = vcpu(1, 0x6_0007, &cpu, &mut memory);
    let (pkru, tiles) = (ComponentIndex::PKRU, ComponentIndex::TILEDATA);
    let error = a.begin_update(pkru, &mut cpu, &mut memory).unwrap_err();
    assert_eq!(error, UpdateError::Policy(pkru, set(0x6_0007)));
    assert_eq!((error.rule(), error.seen()), ("update-policy", 1 << 9));
    // Linux b45f721775: what the guest's own XFD disables is in no image.
    a.set_xfd(tiles.bit(), cpu.host()).unwrap();
    let error = a.begin_update(tiles, &mut cpu, &mut memory).unwrap_err();
    assert_eq!(error, UpdateError::Xfd(tiles, set(0x2_0007)));
    a.set_xfd(0, cpu.host()).unwrap();
    a.begin_update(tiles, &mut cpu, &mut memory)
        .unwrap()
        .finish()
        .unwrap();
    assert_eq!(a.hardware_xfd(cpu.host()), ComponentSet::EMPTY);
}

/// A look at a vCPU that is in registers shows what is there, not what its area
/// had when it was loaded.
#[test]
fn a_view_shows_what_is_live() {
    for instructions in INSTRUCTIONS {
        let mut bench = bench(instructions, InitTracking::ByContent, Where::Registers);
        let xmm = Xmm::read(bench.expected.xmm.as_flattened());
        assert_ne!(xmm, Xmm::default());
        assert_eq!(bench.vcpu.view::<Xmm>(&mut bench.cpu), Ok(xmm));
        let mxcsr = bench.vcpu.view::<Mxcsr>(&mut bench.cpu).unwrap();
        assert_eq!(mxcsr.bits(), 0x1fa5);
        found(&mut bench, "it was looked at");
    }
}

/// MXCSR lives beside SSE's mark in both forms: set where SSE is INIT, it is
/// what the guest finds, and XMM stays INIT.
#[test]
fn mxcsr_of_a_vcpu_whose_sse_is_init() {
    for instructions in INSTRUCTIONS {
        let mut bench = bench(instructions, InitTracking::ByContent, Where::Init);
        let limits = bench.cpu.host().limits();
        let mut mxcsr = bench
            .vcpu
            .begin_view::<Mxcsr, _, _>(&mut bench.cpu, &mut bench.memory)
            .unwrap();
        assert_eq!(*mxcsr, Mxcsr::INIT);
        *mxcsr = Mxcsr::new(0x1fa5, &limits).unwrap();
        mxcsr.finish().unwrap();
        bench.expected.mxcsr = 0x1fa5;
        found(&mut bench, "mxcsr");
        let found = bench.vcpu.view::<Mxcsr>(&mut bench.cpu).unwrap();
        assert_eq!(found.bits(), 0x1fa5);
        assert_eq!(bench.vcpu.view::<Xmm>(&mut bench.cpu), Ok(Xmm::default()));
    }
}

/// AMD has shadow stacks without branch tracking: a value of an Intel guest is
/// refused instead of faulting in the host.
#[test]
fn cet_bits_of_a_feature_that_the_processor_lacks() {
    let amd = crate::testing::Machine {
        geometry: machine(),
        instructions: 0xf,
    };
    let cpuid = |leaf, subleaf| {
        let mut r = amd.cpuid(leaf, subleaf);
        r.edx &= if leaf == 7 { !(1 << 20) } else { u32::MAX };
        r
    };
    let mut cpu = cpu_of(HostXstate::read(&cpuid, 0xffff).unwrap(), 0);
    let (here, there) = (cpu.host().limits(), host(machine(), 0xf).limits());
    let mut memory = TestMemory::default();
    let mut a = vcpu(1, 0x1807, &cpu, &mut memory);
    cpu.load(&mut a).unwrap();
    assert!(UserCet::new(UserCet::BRANCH_TRACKING, &here).is_err());
    let mut cet = a
        .begin_view::<CetUser, _, _>(&mut cpu, &mut memory)
        .unwrap();
    cet.control = UserCet::new(UserCet::BRANCH_TRACKING, &there).unwrap();
    let bad = BadValue::Reserved(4, 3);
    assert_eq!(
        cet.finish(),
        Err(UpdateError::Value(ComponentIndex::CET_U, bad))
    );
    assert_eq!(a.view::<CetUser>(&mut cpu), Ok(CetUser::default()));
    assert_eq!(
        a.view::<Pasid>(&mut cpu),
        Err(UpdateError::Policy(ComponentIndex::PASID, set(0x1807)))
    );
}

/// A view of somebody's own, of a component that no working copy has room for:
/// it panicked once the component was in use.
#[test]
fn a_view_of_a_large_component() {
    struct Tiles(u8, usize);
    impl View for Tiles {
        const COMPONENT: ComponentIndex = ComponentIndex::TILEDATA;
        fn read(bytes: &[u8]) -> Self {
            Self(bytes.last().copied().unwrap_or(0), bytes.len())
        }
        fn write(&self, bytes: &mut [u8]) {
            bytes[8191] = self.0;
        }
    }
    let mut bench = bench(0xf, InitTracking::ByContent, Where::Init);
    let view = bench.vcpu.view::<Tiles>(&mut bench.cpu).unwrap();
    assert_eq!(view.0, 0);
    let begun = bench
        .vcpu
        .begin_view::<Tiles, _, _>(&mut bench.cpu, &mut bench.memory);
    let mut tiles = begun.unwrap();
    tiles.0 = 0x77;
    tiles.finish().unwrap();
    let view = bench.vcpu.view::<Tiles>(&mut bench.cpu).unwrap();
    assert_eq!((view.0, view.1), (0x77, 8192));
    let geometry = bench.cpu.host().geometry();
    let image = bench.vcpu.area.image(geometry);
    assert_eq!(image.view::<Tiles>().unwrap().0, 0x77);
}
