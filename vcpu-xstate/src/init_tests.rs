//! Initial configurations that are not zero (SDM Vol. 1, 13.6), and branch records, whose depth does not count.

use crate::area::Area;
use crate::component::{ComponentIndex, ComponentSet};
use crate::convert::{Target, canonicalise, transfer, transfer_whole};
use crate::cpuid::{CpuidResult, HostXstate};
use crate::hw::Modelled;
use crate::layout::{Form, Geometry};
use crate::model::InitTracking;
use crate::owner::FirstUse;
use crate::testing::{self, Machine, TestMemory, aligned, supervisor, user};
use crate::update::{Update, begin_image};
use crate::{CpuId, Image, PcpuXstate, VcpuXstate, XstatePolicy};

const HDC: ComponentIndex = ComponentIndex::HDC;
const HWP: ComponentIndex = ComponentIndex::HWP;
const LBR: ComponentIndex = ComponentIndex::LBR;

fn set(bits: u64) -> ComponentSet {
    ComponentSet::from_bits_retain(bits)
}

/// A compacted image with these components, 0x77 where nothing is.
fn image(geometry: &Geometry, held: &[(ComponentIndex, Vec<u8>)]) -> Vec<u8> {
    let mask = held.iter().fold(0, |mask, (one, _)| mask | one.bit());
    let mut bytes = vec![0x77; geometry.image_size(Form::Compacted, set(mask))];
    bytes[512..576].fill(0);
    bytes[512..520].copy_from_slice(&mask.to_le_bytes());
    bytes[520..528].copy_from_slice(&(mask | 1 << 63).to_le_bytes());
    for place in geometry.placements(Form::Compacted, set(mask)) {
        let (_, state) = held
            .iter()
            .find(|(one, _)| *one == place.component)
            .unwrap();
        bytes[place.range()][..state.len()].copy_from_slice(state);
    }
    bytes
}

/// The canonical image of it: what is in use, and all of its bytes.
fn canonical(geometry: &Geometry, bytes: &[u8]) -> (ComponentSet, Vec<u8>) {
    let image = Image::new(bytes, geometry, Form::Compacted).unwrap();
    let mut out = vec![0xee; bytes.len()];
    let written = canonicalise(&image, ComponentSet::EMPTY, &mut out).unwrap();
    out.truncate(written.len_bytes);
    assert_eq!(image.in_use(), written.components);
    (written.components, out)
}

/// Zero was INIT for every component of the extended region: HDC at 0 was lost,
/// HWP as it comes out of reset was state.
#[test]
fn hdc_and_hwp_have_init_values() {
    let geometry = testing::geometry(&[
        (2, user(256, 576)),
        (13, supervisor(8)),
        (16, supervisor(8)),
    ]);
    let values = [(HDC, 1_u64), (HWP, 0x8000_ff01)];
    for (hdc, hwp, expected) in [
        (1, 0x8000_ff01, 0),
        (0, 0x8000_ff01, HDC.bit()),
        (1, 0, HWP.bit()),
        (0, 0, HDC.bit() | HWP.bit()),
        (1, 0x8000_ff02, HWP.bit()),
        (1, 1 << 32 | 0x8000_ff01, HWP.bit()),
    ] {
        let state = |value: u64| value.to_le_bytes().to_vec();
        let bytes = image(&geometry, &[(HDC, state(hdc)), (HWP, state(hwp))]);
        let (components, kept) = canonical(&geometry, &bytes);
        assert_eq!(components.bits(), expected, "{hdc:#x} {hwp:#x}");
        // What is kept is what was there.
        let kept = Image::new(&kept, &geometry, Form::Compacted).unwrap();
        for (component, held) in kept.held() {
            let value = if component == HDC { hdc } else { hwp };
            assert_eq!(held, value.to_le_bytes(), "{component}");
        }
    }
    // An update of what is INIT shows its value and not zero.
    let limits = testing::host(geometry.clone(), 0xf).limits();
    let mut bytes = image(&geometry, &values.map(|(one, _)| (one, vec![0x55; 8])));
    bytes[512..520].fill(0);
    for (component, init) in values {
        let update = begin_image(&mut bytes, &geometry, Form::Compacted, &limits, component);
        assert_eq!(update.unwrap().bytes(), init.to_le_bytes(), "{component}");
    }
    // And in an area that is made for it.
    let mut memory = TestMemory::default();
    let area = Area::new(&geometry, Form::Compacted, geometry.known(), &mut memory).unwrap();
    assert_eq!(area.image(&geometry).in_use(), ComponentSet::EMPTY);
}

/// A machine with AVX and branch records, of these depths (CPUID.1CH:EAX).
struct Records {
    machine: Machine,
    depths: u32,
}

impl Records {
    fn new(depths: u32) -> Self {
        let geometry = testing::geometry(&[(2, user(256, 576)), (15, supervisor(808))]);
        let instructions = 0xf;
        Self {
            machine: Machine {
                geometry,
                instructions,
            },
            depths,
        }
    }

    fn cpuid(&self, leaf: u32, subleaf: u32) -> CpuidResult {
        let mut r = self.machine.cpuid(leaf, subleaf);
        match leaf {
            0 => r.eax = 0x1c,
            0x1c => (r.eax, r.ebx) = (self.depths, 7),
            _ => {}
        }
        r
    }

    /// A processor, and a vCPU that may use all of it.
    fn bench(&self, tracking: InitTracking) -> (PcpuXstate<Modelled>, VcpuXstate, TestMemory) {
        let cpuid = |leaf, subleaf| self.cpuid(leaf, subleaf);
        let mut host = HostXstate::read(&cpuid, 0xffff).unwrap();
        host.permit(ComponentSet::only(LBR));
        let policy = XstatePolicy::new(host.offered(), ComponentSet::EMPTY);
        let hardware = Modelled::new(&cpuid, host.clone(), tracking);
        let cpu = PcpuXstate::new(CpuId(0), hardware, host);
        let mut memory = TestMemory::default();
        let vcpu = VcpuXstate::new(1, &policy, cpu.host(), &mut memory).unwrap();
        (cpu, vcpu, memory)
    }
}

fn records(cpu: &PcpuXstate<Modelled>) -> &[u8] {
    cpu.hardware().cpu.registers().component(LBR)
}

/// An update of INIT branch records showed and wrote depth 0, with which
/// XRSTORS makes every record zero: what was written was lost.
#[test]
fn update_of_init_branch_records() {
    for (depths, depth) in [(1, 8), (0xb, 32)] {
        let machine = Records::new(depths);
        for tracking in [InitTracking::ByContent, InitTracking::Never] {
            for ran in [false, true] {
                let (mut cpu, mut vcpu, mut memory) = machine.bench(tracking);
                if ran {
                    cpu.load(&mut vcpu).unwrap();
                }
                let mut update = vcpu.begin_update(LBR, &mut cpu, &mut memory).unwrap();
                let mut expected = vec![0; 808];
                expected[8] = depth;
                assert_eq!(update.bytes(), expected, "{depths:#x} {tracking:?} {ran}");
                expected[41] = 0x10;
                update.bytes_mut()[41] = 0x10;
                update.finish().unwrap();
                cpu.load(&mut vcpu).unwrap();
                assert_eq!(records(&cpu), expected, "{depths:#x} {tracking:?} {ran}");
            }
        }
    }
}

/// CET_U without room of its own lies in what is the gap between PKRU and TILECFG,
/// which a conversion moves with the two: what it was before it was INIT was shown
/// by its update, and kept by one that wrote a part of it.
#[test]
fn update_showed_what_a_component_was_before_it_was_init() {
    let cet = ComponentIndex::CET_U;
    let mut memory = TestMemory::default();
    let host = testing::host(testing::bochs_sapphire_rapids(), 0xf);
    let hardware = testing::modelled(&host, InitTracking::ByContent);
    let mut cpu = PcpuXstate::new(CpuId(0), hardware, host);
    let policy = XstatePolicy::new(set(0x6_1a07), ComponentSet::CET);
    let mut vcpu = VcpuXstate::new(1, &policy, cpu.host(), &mut memory).unwrap();
    vcpu.set_xcr0(0x6_0207, 0, &mut cpu, &mut memory).unwrap();
    let only = ComponentSet::only(cet);
    let first = vcpu.first_use(only, &mut cpu, &mut memory);
    assert_eq!(first, FirstUse::Grow(only));

    cpu.load(&mut vcpu).unwrap();
    for component in [ComponentIndex::PKRU, cet, ComponentIndex::TILECFG] {
        cpu.hardware_mut().cpu.put_pattern(component, 5);
    }
    cpu.save(&mut vcpu);
    cpu.load(&mut vcpu).unwrap();
    cpu.hardware_mut().cpu.put(cet, &[0; 16]);
    vcpu.reclaim(&mut cpu, &mut memory).unwrap();
    assert!(!vcpu.area_mask().has(cet));

    let mut update = vcpu.begin_update(cet, &mut cpu, &mut memory).unwrap();
    assert_eq!(update.bytes(), [0; 16]);
    update.bytes_mut()[3] = 0x10;
    update.finish().unwrap();
    cpu.load(&mut vcpu).unwrap();
    let mut expected = [0; 16];
    expected[3] = 0x10;
    assert_eq!(cpu.hardware().cpu.registers().component(cet), expected);
}

/// XSAVES writes the records that the depth counts: those behind, of a deeper save,
/// were shown, and became state where somebody wrote a larger depth.
#[test]
fn update_showed_records_that_the_depth_does_not_count() {
    let machine = Records::new(0xb);
    let (mut cpu, mut vcpu, mut memory) = machine.bench(InitTracking::ByContent);
    // Each record: the address that it is from.
    let mut state = vec![0; 808];
    (0..32).for_each(|record| state[41 + 24 * record] = 0x10);
    for depth in [32, 8] {
        state[8] = depth;
        cpu.load(&mut vcpu).unwrap();
        cpu.hardware_mut().cpu.put(LBR, &state);
        cpu.save(&mut vcpu);
    }
    let update = vcpu.begin_update(LBR, &mut cpu, &mut memory).unwrap();
    assert_eq!(update.bytes()[8], 8);
    state[232..].fill(0);
    assert_eq!(update.bytes(), state);
}

/// Design: same state, same bytes, on any hardware. The same registers were 576
/// bytes or 1384, by whether XINUSE was tracked: IA32_LBR_DEPTH counted.
#[test]
fn lbr_init_is_canonical() {
    let machine = Records::new(0xb);
    for used in [false, true] {
        let exported = [InitTracking::ByContent, InitTracking::Never].map(|tracking| {
            let (mut cpu, mut vcpu, _) = machine.bench(tracking);
            cpu.load(&mut vcpu).unwrap();
            if used {
                cpu.hardware_mut().cpu.put_pattern(LBR, 5);
            }
            let mut out = vec![0xee; 4096];
            let exported = vcpu.export(&mut cpu, &mut out).unwrap();
            out.truncate(exported.image_len);
            out
        });
        assert_eq!(exported[0].len(), if used { 1384 } else { 576 });
        assert!(exported[0] == exported[1], "in use: {used}");
    }
    // Records behind those that the depth counts are none, whatever they hold.
    let geometry = &machine.machine.geometry;
    let state = |depth: u64, at: usize, beyond: u8| {
        let mut state = vec![0; 808];
        state[8..16].copy_from_slice(&depth.to_le_bytes());
        state[40 + 24 * 8..].fill(beyond);
        state[at] |= 0x40;
        state
    };
    for (depth, at, in_use) in [
        (0, 8, false),
        (8, 8, false),
        (u64::MAX, 16, true),
        (8, 0, true),
        (8, 16, true),
        (8, 40 + 24 * 8 - 1, true),
        (8, 40 + 24 * 8, false),
        (32, 40 + 24 * 8, true),
        (32, 807, true),
    ] {
        let clean = image(geometry, &[(LBR, state(depth, at, 0))]);
        let (components, bytes) = canonical(geometry, &clean);
        assert_eq!(components.has(LBR), in_use, "{depth} {at}");
        if depth == 8 && at != 8 && at < 40 + 24 * 8 {
            let stale = image(geometry, &[(LBR, state(depth, at, 0x11))]);
            assert!(canonical(geometry, &stale) == (components, bytes), "{at}");
        }
    }
}

/// XRSTORS faults on a reserved byte of a supervisor component (13.12). None is
/// brought into an area, wherever the image is from.
#[test]
fn no_tail_of_a_supervisor_component_is_transferred() {
    let geometry = testing::geometry(&[
        (2, user(256, 576)),
        (9, user(8, 2688)),
        (11, supervisor(32)),
        (12, supervisor(24)),
    ]);
    let other = geometry.clone();
    let state = |byte: u8, len| (0..len).map(|_| byte).collect::<Vec<u8>>();
    let bytes = image(
        &geometry,
        &[
            (ComponentIndex::CET_U, state(0x11, 16)),
            (ComponentIndex::CET_S, state(0x12, 24)),
        ],
    );
    let from = Image::new(&bytes, &geometry, Form::Compacted).unwrap();
    for layout in [0x1800, 0x800, 0x1804, 0x1a04] {
        for to in [&geometry, &other] {
            for whole in [false, true] {
                let target = Target {
                    geometry: to,
                    form: Form::Compacted,
                    layout: set(layout),
                };
                let mut out = vec![0xee; target.size_bytes()];
                let convert = if whole { transfer_whole } else { transfer };
                convert(&from, ComponentSet::ALL, target, &mut out).unwrap();
                let mut places = to.placements(Form::Compacted, set(layout));
                let place = places.find(|place| place.component == ComponentIndex::CET_U);
                let cet = &out[place.unwrap().range()];
                assert_eq!(cet, [[0x11; 16], [0; 16]].concat(), "{layout:#x} {whole}");
            }
        }
    }
}

/// The reserved tail of CET_U, which is INIT, lay in the gap before TILECFG that was
/// moved with an image's bytes. A save of CET_U wrote what it has and left the tail,
/// and the next restore faulted: the domain was lost.
#[test]
fn a_moved_gap_was_the_tail_of_supervisor_state() {
    let cet = ComponentIndex::CET_U;
    let host = testing::host(
        testing::geometry(&[
            (2, user(256, 576)),
            (9, user(8, 2688)),
            (11, supervisor(24)),
            (17, aligned(user(64, 2752))),
            (18, aligned(user(8192, 2816))),
        ]),
        0xf,
    );
    let hardware = testing::modelled(&host, InitTracking::ByContent);
    let mut cpu = PcpuXstate::new(CpuId(0), hardware, host.clone());
    let mut memory = TestMemory::default();
    let policy = XstatePolicy::new(set(0x6_0a07), ComponentSet::EMPTY);
    let mut vcpu = VcpuXstate::new(1, &policy, cpu.host(), &mut memory).unwrap();
    vcpu.set_xcr0(0x6_0207, 0, &mut cpu, &mut memory).unwrap();
    vcpu.set_xss(0x800, &mut cpu, &mut memory).unwrap();
    cpu.load(&mut vcpu).unwrap();
    for component in [
        ComponentIndex::AVX,
        ComponentIndex::PKRU,
        ComponentIndex::TILECFG,
    ] {
        cpu.hardware_mut().cpu.put_pattern(component, 5);
    }
    let mut out = vec![0; 4096];
    let exported = vcpu.export(&mut cpu, &mut out).unwrap();
    out.truncate(exported.image_len);
    assert!(!set(exported.claims.xcomp_bv).has(cet));
    // No rule is about gaps: a stranger's may have anything in it.
    assert_eq!(out[840..896], [0; 56]);
    out[840..896].fill(0xee);
    vcpu.import_native(&exported.claims, &out, &mut cpu, &mut memory)
        .unwrap();

    cpu.load(&mut vcpu).unwrap();
    let mut cet_u = [0; 16];
    cet_u[9] = 0x10;
    cpu.hardware_mut().cpu.put(cet, &cet_u);
    cpu.save(&mut vcpu);
    cpu.load(&mut vcpu).expect("no fault");
    assert_eq!(cpu.hardware().cpu.registers().component(cet), cet_u);
}
