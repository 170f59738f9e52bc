//! Foreign images against a processor: what is read of one restores the registers that the image itself restores.

use proptest::prelude::*;
use vcpu_xstate::foreign::{
    Destination, Excess, ForeignError, ForeignImage, ForeignRegisters, Unholdable, read,
};
use vcpu_xstate::hw::Modelled;
use vcpu_xstate::model::{Cpu, InitTracking, Machine, Registers};
use vcpu_xstate::update::Update;
use vcpu_xstate::{
    AreaMemory, Block, ComponentIndex, ComponentSet, CpuId, CpuidResult, HostXstate, PcpuXstate,
    VcpuXstate, XstatePolicy,
};

/// Component, size, standard offset, ECX of leaf 0xD: AVX-512, PKRU, CET, AMX.
const FACTS: [(u32, u32, u32, u32); 9] = [
    (2, 256, 576, 0),
    (5, 64, 1088, 0),
    (6, 512, 1152, 0),
    (7, 1024, 1664, 0),
    (9, 8, 2688, 0),
    (11, 16, 0, 1),
    (12, 24, 0, 1),
    (17, 64, 2752, 2),
    (18, 8192, 2816, 6),
];
const USER: u64 = 0x6_02e7;
const ALL: u64 = USER | 0x1800;

/// The machine with these instructions (CPUID.(0xD,1):EAX).
fn cpuid(instructions: u32) -> impl Fn(u32, u32) -> CpuidResult {
    move |leaf, subleaf| {
        let facts = FACTS.iter().find(|(index, ..)| *index == subleaf);
        let (eax, ebx, ecx, edx) = match (leaf, subleaf) {
            (0, _) => (0xd, 0, 0, 0),
            (1, _) => (0, 0, 1 << 26, 0x0700_0000),
            // PKU and shadow stacks; branch tracking.
            (7, 0) => (0, 0, 1 << 3 | 1 << 7, 1 << 20),
            (0xd, 0) => (USER as u32, 0, 0, 0),
            (0xd, 1) => (instructions, 0, 0x1800, 0),
            (0xd, _) => facts.map_or((0, 0, 0, 0), |(_, size, offset, ecx)| {
                (*size, *offset, *ecx, 0)
            }),
            _ => (0, 0, 0, 0),
        };
        CpuidResult { eax, ebx, ecx, edx }
    }
}

fn host(instructions: u32) -> HostXstate {
    HostXstate::read(&cpuid(instructions), 0xffff).unwrap()
}

fn policy(mask: u64) -> XstatePolicy {
    XstatePolicy::new(ComponentSet::from_bits_retain(mask), ComponentSet::EMPTY)
}

/// A processor of the machine in which everything is INIT and enabled.
fn cpu() -> Cpu {
    let mut cpu = Cpu::new(Machine::read(&cpuid(0x1f), 0xffff), InitTracking::ByContent);
    cpu.xsetbv(0, USER).unwrap();
    cpu
}

/// The registers after a restore of everything.
fn restored(image: &[u8]) -> Option<Registers> {
    let mut cpu = cpu();
    cpu.xrstor(0x1000, image, u64::MAX).ok()?;
    Some(cpu.registers().clone())
}

/// Registers with a pattern in `in_use`, and this MXCSR.
fn load(cpu: &mut Cpu, in_use: u64, seed: u8, mxcsr: u32) {
    for component in ComponentSet::from_bits_retain(in_use) {
        cpu.put_pattern(component, seed);
    }
    cpu.ldmxcsr(mxcsr).unwrap();
}

proptest! {
    /// Saved by XSAVE or XSAVEC with any RFBM into a buffer of old bytes: it is
    /// read exactly where the processor takes it, and gives the same registers
    /// through the canonical image, Xen's and KVM's.
    #[test]
    fn what_is_read_is_what_the_image_restores(
        in_use in any::<u64>(), rfbm in any::<u64>(), seed in 1u8..255,
        mxcsr in prop_oneof![Just(0x1f80), Just(0x1fa5), 0u32..0x1_0000],
        compact in any::<bool>(), stale in any::<u8>(),
    ) {
        let host = host(0x1f);
        let mut saved = cpu();
        load(&mut saved, in_use & USER, seed, mxcsr);
        let mut image = vec![stale; 11_008];
        image[512..576].fill(0);
        let bytes = if compact {
            saved.xsavec(0x1000, &mut image, rfbm).unwrap();
            let layout = ComponentSet::from_bits_retain(rfbm & USER);
            &image[..host.geometry().image_size(vcpu_xstate::Form::Compacted, layout)]
        } else {
            saved.xsave(0x1000, &mut image, rfbm).unwrap();
            &image
        };
        let expected = restored(bytes);
        let foreign = ForeignImage::raw(bytes, ForeignRegisters::xcr0(USER));
        let taken = read(&foreign, host.geometry(), &host, &policy(ALL), Excess::Refuse);
        let Some(expected) = expected else {
            // MXCSR was not saved, so old bytes stand there.
            prop_assert_eq!(taken.unwrap_err().rule(), "mxcsr");
            return Ok(());
        };
        let taken = taken.unwrap().image;
        let mut canonical = vec![0; taken.export_size()];
        taken.export(&mut canonical).unwrap();
        let mut xen = vec![stale; taken.standard_size(Destination::XEN)];
        taken.write_standard(Destination::XEN, &mut xen).unwrap();
        let mut kvm = vec![stale; 11_008];
        taken.write_standard(Destination::KVM, &mut kvm).unwrap();
        for (form, bytes) in [("canonical", canonical), ("xen", xen), ("kvm", kvm)] {
            let again = restored(&bytes).unwrap();
            prop_assert_eq!(expected.differences(&again, u64::MAX), 0, "{}", form);
            prop_assert_eq!(&again, &expected);
        }
    }
}

proptest! {
    /// Any header over any bytes, as a KVM buffer or a raw image: what is taken
    /// restores without a fault, and what is written of it restores the same.
    #[test]
    fn what_is_taken_can_be_restored(
        held in prop_oneof![(0..USER), any::<u64>()], shift in 0u32..64,
        layout in prop_oneof![Just(0), any::<u64>()],
        mxcsr in prop_oneof![Just(0x1f80), Just(0x1fa5), any::<u32>()],
        fill in prop_oneof![Just(0u8), any::<u8>()], lenient in any::<bool>(),
    ) {
        let host = host(0x1f);
        let held = held & (u64::MAX >> shift);
        let layout = layout & (USER | 1 << 40);
        let mut image = vec![fill; 11_008];
        image[24..28].copy_from_slice(&mxcsr.to_le_bytes());
        image[512..576].fill(0);
        image[512..520].copy_from_slice(&held.to_le_bytes());
        let form = if layout == 0 {
            vcpu_xstate::Form::Standard
        } else {
            image[520..528].copy_from_slice(&(layout | 1 << 63).to_le_bytes());
            vcpu_xstate::Form::Compacted
        };
        let layout = ComponentSet::from_bits_retain(if layout == 0 { USER } else { layout });
        image.truncate(host.geometry().image_size(form, layout));
        let foreign = ForeignImage::raw(&image, ForeignRegisters::xcr0(USER));
        let excess = if lenient { Excess::Drop } else { Excess::Refuse };
        if let Ok(taken) = read(&foreign, host.geometry(), &host, &policy(USER), excess) {
            // The processor is asked without what was dropped.
            let mut kept = image.clone();
            kept[512..520].copy_from_slice(&(held & USER).to_le_bytes());
            let expected = restored(&kept).expect("what is taken restores");
            let mut kvm = vec![0xcc; 11_008];
            taken.image.write_standard(Destination::KVM, &mut kvm).unwrap();
            prop_assert_eq!(restored(&kvm).unwrap(), expected);
            prop_assert_eq!(taken.dropped.state.bits(), held & !USER);
        }
    }
}

struct Heap;

impl AreaMemory for Heap {
    fn allocate(&mut self, blocks: usize) -> Option<Vec<Block>> {
        Some(vec![Block::ZERO; blocks])
    }

    fn release(&mut self, _: Vec<Block>) {}
}

/// A vCPU with its state in the registers gives it to Xen and KVM, and another
/// one, on a host of another format, takes it from there.
#[test]
fn a_vcpu_moves_by_every_form() {
    for (from, to) in [(0x1f, 0x0), (0x0, 0x1f), (0x1, 0x3), (0x1f, 0x1f)] {
        let (here, there) = (host(from), host(to));
        // What both have: without XSAVES no CET, without XFD no difference here.
        let policy = policy(USER & !ComponentSet::AMX.bits());
        let xcr0 = policy.mask.bits();
        let processor = Modelled::new(&cpuid(from), here.clone(), InitTracking::ByContent);
        let mut cpu = PcpuXstate::new(CpuId(0), processor, here.clone());
        let mut vcpu = VcpuXstate::new(1, &policy, &here, &mut Heap).unwrap();
        let mut image = vec![0; 2696];
        image[..2].copy_from_slice(&0x037f_u16.to_le_bytes());
        image[24..28].copy_from_slice(&0x1fa5_u32.to_le_bytes());
        image[512..514].copy_from_slice(&[0xe4, 2]);
        image[576..832].fill(2);
        image[1088..2688].fill(7);
        image[2688] = 0x55;
        let foreign = ForeignImage::xen_pv(&image, xcr0, xcr0);
        let taken = read(&foreign, here.geometry(), &here, &policy, Excess::Refuse);
        vcpu.import(&taken.unwrap().image, &mut cpu, &mut Heap)
            .unwrap();

        for destination in [Destination::XEN, Destination::KVM] {
            cpu.load(&mut vcpu).unwrap();
            let mut out = vec![0xcc; vcpu.standard_size(&mut cpu, destination)];
            let written = vcpu
                .export_standard(&mut cpu, destination, &mut out)
                .unwrap();
            assert_eq!((written.xcr0, written.accum), (xcr0, xcr0));
            let out = &out[..written.len_bytes];
            assert!(
                out == {
                    // MXCSR makes SSE held, which a compacted restore needs.
                    let mut expected = image.clone();
                    expected[512] |= 2;
                    expected
                }
            );

            let processor = Modelled::new(&cpuid(to), there.clone(), InitTracking::Never);
            let mut other = PcpuXstate::new(CpuId(1), processor, there.clone());
            let mut arrived = VcpuXstate::new(2, &policy, &there, &mut Heap).unwrap();
            let foreign = ForeignImage::xen_pv(out, written.xcr0, written.accum);
            let taken = read(&foreign, there.geometry(), &there, &policy, Excess::Refuse);
            arrived
                .import(&taken.unwrap().image, &mut other, &mut Heap)
                .unwrap();
            other.load(&mut arrived).unwrap();
            let mut canonical = [vec![0; 4096], vec![0; 4096]];
            let left = vcpu.export(&mut cpu, &mut canonical[0]).unwrap();
            let right = arrived.export(&mut other, &mut canonical[1]).unwrap();
            assert_eq!(
                (left.claims, left.image_len),
                (right.claims, right.image_len)
            );
            assert!(canonical[0] == canonical[1], "{from:#x} to {to:#x}");
        }
    }
}

/// CET's state goes by MSRs where the caller says so, and is named where not.
#[test]
fn a_vcpu_with_shadow_stacks_is_more_than_a_buffer() {
    let host = host(0x1f);
    let processor = Modelled::new(&cpuid(0x1f), host.clone(), InitTracking::ByContent);
    let mut cpu = PcpuXstate::new(CpuId(0), processor, host.clone());
    let mut vcpu = VcpuXstate::new(1, &policy(ALL), &host, &mut Heap).unwrap();
    let mut heap = Heap;
    let mut cet = vcpu
        .begin_update(ComponentIndex::CET_U, &mut cpu, &mut heap)
        .unwrap();
    cet.bytes_mut()[0] = 1;
    cet.finish().unwrap();
    let mut out = vec![0; 11_008];
    let refused = vcpu.export_standard(&mut cpu, Destination::KVM, &mut out);
    assert_eq!(
        refused.unwrap_err().component(),
        Some(ComponentIndex::CET_U)
    );
    let by_msr = Destination::KVM.with_elsewhere(ComponentSet::CET);
    assert!(vcpu.export_standard(&mut cpu, by_msr, &mut out).is_ok());
}

/// Each error begins with its rule's name, and says more.
#[test]
fn errors_are_rules_and_words() {
    let c = ComponentIndex::AVX;
    let read = [
        ForeignError::Compacted(0),
        ForeignError::Beyond(0, 0),
        ForeignError::Supervisor(c, 0),
        ForeignError::Unplaced(c, 0),
        ForeignError::Truncated(c, 0, 0),
        ForeignError::Tail(0, 0),
        ForeignError::Xss(0, 0),
        ForeignError::Selectors(0, 0),
    ];
    let written = [
        Unholdable::Supervisor(c),
        Unholdable::NoRoom(c, 0, 0),
        Unholdable::TooSmall(0, 0),
        Unholdable::Xss(0),
        Unholdable::Xfd(0),
        Unholdable::XfdErr(0),
        Unholdable::WithoutXsave,
        Unholdable::Xcr0(0),
    ];
    let errors = read.iter().map(|e| (e.rule(), e.to_string()));
    for (rule, text) in errors.chain(written.iter().map(|e| (e.rule(), e.to_string()))) {
        let words = text.strip_prefix(&format!("{rule}: "));
        assert!(words.is_some_and(|words| words.len() > 10), "{text}");
    }
}
