//! A vCPU of this machine's KVM, where there is one: what it gives is read, what is written it takes, and gives back.
#![cfg(all(target_os = "linux", target_arch = "x86_64", not(miri)))]
// KVM_GET_XSAVE2 and KVM_SET_XSAVE touch as many bytes as KVM says, not as many as a type has.
#![allow(unsafe_code)]

mod samples;

use std::io::Write;

use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2, kvm_xcrs, kvm_xsave};
use kvm_ioctls::{Cap, Kvm, VcpuFd, VmFd};
use migration_abi::legacy::kvm::{XSAVE_BYTES, Xcrs, Xsave};
use proptest::prelude::*;
use vcpu_xstate::foreign::{Destination, Excess, ForeignImage, ForeignRegisters, read};
use vcpu_xstate::validate::TrustedImage;
use vcpu_xstate::{ComponentIndex, ComponentSet, CpuidResult, Form, HostXstate, XstatePolicy};

/// A vCPU that never ran, and what KVM supports for it.
struct Guest {
    vcpu: VcpuFd,
    host: HostXstate,
    policy: XstatePolicy,
    buffer_bytes: usize,
    // Dropped last: closing the VM would close nothing of the vCPU.
    _vm: VmFd,
}

impl Guest {
    fn new() -> Result<Self, String> {
        let why = |what: &'static str| move |error| format!("{what}: {error}");
        ask_for_tiles();
        let kvm = Kvm::new().map_err(why("/dev/kvm"))?;
        let vm = kvm.create_vm().map_err(why("KVM_CREATE_VM"))?;
        let vcpu = vm.create_vcpu(0).map_err(why("KVM_CREATE_VCPU"))?;
        if !vm.check_extension(Cap::Xsave) || !vm.check_extension(Cap::Xcrs) {
            return Err("no KVM_CAP_XSAVE or KVM_CAP_XCRS".into());
        }
        let mut cpuid = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(why("KVM_GET_SUPPORTED_CPUID"))?;
        // A KVM that cannot run a guest may list the components in leaf 0xD
        // and neither XSAVE nor PKU; its buffers are the same.
        let listed = |entry: &kvm_cpuid_entry2| (entry.function, entry.index) == (0xd, 0);
        let main = cpuid.as_slice().iter().find(|entry| listed(entry));
        let has_pkru = main.is_some_and(|entry| entry.eax & 1 << 9 != 0);
        for entry in cpuid.as_mut_slice() {
            match (entry.function, entry.index) {
                (1, _) => entry.ecx |= 1 << 26,
                (7, 0) => entry.ecx |= u32::from(has_pkru) << 3,
                _ => {}
            }
        }
        vcpu.set_cpuid2(&cpuid).map_err(why("KVM_SET_CPUID2"))?;
        let answer = |leaf: u32, subleaf: u32| {
            let entry = cpuid
                .as_slice()
                .iter()
                .find(|e| e.function == leaf && (e.flags & 1 == 0 || e.index == subleaf));
            entry.map_or(CpuidResult::default(), |e| CpuidResult {
                eax: e.eax,
                ebx: e.ebx,
                ecx: e.ecx,
                edx: e.edx,
            })
        };
        let host = HostXstate::read(&answer, 0).map_err(|e| format!("supported CPUID: {e}"))?;
        let size = usize::try_from(vm.check_extension_int(Cap::Xsave2)).unwrap_or(0);
        let policy = XstatePolicy::new(host.user(), ComponentSet::EMPTY);
        Ok(Self {
            vcpu,
            host,
            policy,
            buffer_bytes: size.max(XSAVE_BYTES),
            _vm: vm,
        })
    }

    /// A buffer of KVM's kind: the first 4096 bytes, and the words behind.
    fn empty(&self) -> kvm_bindings::Xsave {
        let words = (self.buffer_bytes - XSAVE_BYTES).div_ceil(4);
        kvm_bindings::Xsave::new(words).expect("a buffer of KVM's size")
    }

    /// What KVM gives: its buffer, and XCR0.
    fn get(&self) -> (Vec<u8>, Xcrs) {
        let xcrs = self.vcpu.get_xcrs().expect("KVM_GET_XCRS");
        let mut buffer = self.empty();
        if self.buffer_bytes > XSAVE_BYTES {
            // SAFETY: the buffer has the size that KVM_CHECK_EXTENSION gave for
            // this VM, and no permission was asked for since.
            unsafe { self.vcpu.get_xsave2(&mut buffer) }.expect("KVM_GET_XSAVE2");
        } else {
            buffer_of(&mut buffer).region = self.vcpu.get_xsave().expect("KVM_GET_XSAVE").region;
        }
        let mut bytes = vec![0xcc; self.buffer_bytes.next_multiple_of(4)];
        let extra = buffer.as_slice().to_vec();
        let first = &buffer.as_fam_struct_ref().xsave;
        let area = Xsave::from_kvm2(first, &extra, &mut bytes).expect("KVM's buffer");
        let bytes = area.area().bytes().to_vec();
        (bytes, Xcrs::try_from(&xcrs).expect("KVM's XCRs"))
    }

    /// Gives a standard image and XCR0 to KVM.
    fn set(&self, image: &[u8], xcr0: u64) {
        let xcrs = kvm_xcrs::from(Xcrs { xcr0: Some(xcr0) });
        self.vcpu.set_xcrs(&xcrs).expect("KVM_SET_XCRS");
        let mut buffer = self.empty();
        let mut extra = buffer.as_slice().to_vec();
        Xsave::to_kvm(image, buffer_of(&mut buffer), &mut extra).expect("room");
        buffer.as_mut_slice().copy_from_slice(&extra);
        // SAFETY: KVM reads as many bytes as KVM_CHECK_EXTENSION says, which
        // the buffer has.
        unsafe { self.vcpu.set_xsave2(&buffer) }.expect("KVM_SET_XSAVE");
    }

    /// Runs `then` on what KVM gives, strictly read.
    fn read<T>(&self, then: impl FnOnce(&TrustedImage<'_>) -> T) -> T {
        let (bytes, xcrs) = self.get();
        let buffer = Xsave::parse(&bytes).expect("KVM's buffer");
        let foreign = buffer.foreign(xcrs);
        let (host, geometry) = (&self.host, self.host.geometry());
        let taken = read(&foreign, geometry, host, &self.policy, Excess::Refuse);
        then(
            &taken
                .expect("what KVM gives for a guest of its own CPUID")
                .image,
        )
    }

    /// A standard image that holds `held`, each byte of it a pattern.
    fn pattern(&self, held: ComponentSet, xcr0: u64) -> Vec<u8> {
        let geometry = self.host.geometry();
        let enabled = ComponentSet::from_bits_retain(xcr0);
        let mut image = vec![0; geometry.image_size(Form::Standard, enabled)];
        image[..2].copy_from_slice(&0x037f_u16.to_le_bytes());
        image[24..28].copy_from_slice(&0x1fa5_u32.to_le_bytes());
        if held.has(ComponentIndex::X87) {
            (image[0], image[4]) = (0x72, 0x80);
            image[32..42].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 0x80, 0xff, 0x3f]);
        }
        if held.has(ComponentIndex::SSE) {
            image[160..416].fill(0x51);
        }
        image[512..520].copy_from_slice(&held.bits().to_le_bytes());
        for place in geometry.placements(Form::Standard, held) {
            let state = match place.component {
                ComponentIndex::PKRU => 4,
                // These have values that are not legal.
                ComponentIndex::BNDCSR | ComponentIndex::TILECFG => 0,
                _ => place.size_bytes,
            };
            let number = place.component.get();
            image[place.offset_bytes..][..state].fill(number << 2 | 1);
        }
        image
    }
}

/// Asks Linux for tiles in guests, before there is one: KVM offers none otherwise,
/// and a kernel or a processor that has none refuses.
fn ask_for_tiles() {
    const ARCH_REQ_XCOMP_GUEST_PERM: libc::c_long = 0x1025;
    let tiles = libc::c_long::from(ComponentIndex::TILEDATA.get());
    // SAFETY: arch_prctl with this code reads and writes no memory.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_GUEST_PERM, tiles) };
}

fn buffer_of(buffer: &mut kvm_bindings::Xsave) -> &mut kvm_xsave {
    // SAFETY: the length, which this gives access to, is not changed.
    unsafe { &mut buffer.as_mut_fam_struct().xsave }
}

fn canonical(image: &TrustedImage<'_>) -> Vec<u8> {
    let mut out = vec![0; image.export_size()];
    image.export(&mut out).expect("room");
    out
}

fn say(line: &str) {
    // Past the harness, which swallows what a passing test prints.
    writeln!(std::io::stdout().lock(), "{line}").expect("standard output");
}

#[test]
fn kvm_fresh_vcpu() {
    let guest = match Guest::new() {
        Ok(guest) => guest,
        Err(why) => return say(&format!("skipped: kvm_fresh_vcpu: {why}")),
    };

    // After reset: nothing in use, XCR0 1, MXCSR 1F80.
    guest.read(|image| {
        assert_eq!(image.image().in_use(), ComponentSet::EMPTY);
        assert_eq!((image.claims().xcr0, image.image().mxcsr()), (1, 0x1f80));
    });

    // Every subset of what the guest may use, XMM or MXCSR alone among them.
    let user = guest.policy.mask.bits();
    let (mut states, mut held) = (0, 0);
    loop {
        let bytes = guest.pattern(ComponentSet::from_bits_retain(held), user);
        let registers = ForeignRegisters::xcr0(user);
        let foreign = ForeignImage::raw(&bytes, registers);
        let (host, geometry) = (&guest.host, guest.host.geometry());
        let taken = read(&foreign, geometry, host, &guest.policy, Excess::Refuse);
        let image = taken.expect("a legal image").image;
        let mut buffer = vec![0xcc; guest.buffer_bytes];
        let written = image
            .write_standard(Destination::KVM, &mut buffer)
            .expect("KVM's buffer holds what its guest may use");
        guest.set(&buffer, written.xcr0);
        let back = guest.read(canonical);
        assert!(back == canonical(&image), "held {held:#x}");
        states += 1;
        // The next subset; from the last, the empty one.
        held = held.wrapping_sub(user) & user;
        if held == 0 {
            break;
        }
    }

    // What this KVM makes of an MXCSR that XSTATE_BV says nothing of. It
    // differs between kernels, and what is written here never depends on it.
    let raw = guest.pattern(ComponentSet::EMPTY, user);
    guest.set(&raw, user);
    let mxcsr = guest.read(|image| image.image().mxcsr());
    say(&format!(
        "kvm: {states} states set and read back, components {}, buffer of {} bytes; \
         MXCSR 1FA5 under XSTATE_BV 0 reads back as {mxcsr:04X}",
        guest.policy.mask, guest.buffer_bytes,
    ));
}

/// The types of `kvm-bindings` and the bytes are the same, both ways.
#[test]
fn the_types_of_kvm_bindings() {
    let bytes = samples::legacy::kvm_xsave(11_008, 0x6_02e7);
    let (mut first, mut extra) = (kvm_xsave::default(), vec![0xcccc_cccc_u32; 2000]);
    Xsave::to_kvm(&bytes, &mut first, &mut extra).expect("room");
    assert_eq!(extra[(11_008 - 4096) / 4..], vec![0; 2000 - 1728]);
    let mut out = vec![0xcc; 4096 + 8000];
    let area = Xsave::from_kvm2(&first, &extra, &mut out).expect("a buffer");
    assert!(area.area().bytes()[..11_008] == bytes);
    let region = Xsave::from_kvm(&first).expect("a buffer");
    assert!(region.area().bytes() == &bytes[..4096]);
    let room = Xsave::to_kvm(&bytes, &mut first, &mut []).unwrap_err();
    assert_eq!(room.rule(), "legacy-room");
    let room = Xsave::from_kvm2(&first, &extra, &mut [0; 4096]).unwrap_err();
    assert_eq!(room.rule(), "legacy-room");
    // A small image leaves zeros behind it.
    Xsave::to_kvm(&bytes[..832], &mut first, &mut extra).expect("room");
    let area = Xsave::from_kvm2(&first, &extra, &mut out).expect("a buffer");
    assert!(area.area().bytes()[832..].iter().all(|b| *b == 0));

    for xcr0 in [None, Some(7)] {
        let xcrs = Xcrs { xcr0 };
        let raw = kvm_xcrs::from(xcrs);
        assert_eq!(Xcrs::try_from(&raw), Ok(xcrs));
    }
    let mut raw = kvm_xcrs {
        nr_xcrs: 17,
        ..kvm_xcrs::default()
    };
    let error = Xcrs::try_from(&raw).unwrap_err();
    assert_eq!(error.rule(), "legacy-xcrs-count");
    (raw.nr_xcrs, raw.xcrs[0].xcr) = (1, 1);
    let error = Xcrs::try_from(&raw).unwrap_err();
    assert_eq!(error.rule(), "legacy-xcr");
}

proptest! {
    /// Whatever stands in an image, and however long it and the room behind are:
    /// what was put in comes out, and zeros behind it, or nothing was put in.
    #[test]
    fn any_image_there_and_back_in_kvms_types(
        mut image in prop::collection::vec(any::<u8>(), 576..12_000),
        room in 0_usize..2200,
        xcr0 in any::<Option<u64>>(),
    ) {
        // A standard image: XCOMP_BV is 0.
        image[520..528].fill(0);
        let (mut first, mut extra) = (kvm_xsave::default(), vec![0xcccc_cccc_u32; room]);
        first.region.fill(0xcccc_cccc);
        let has_room = image.len() <= 4096 + 4 * room;
        let put = Xsave::to_kvm(&image, &mut first, &mut extra);
        prop_assert_eq!(put.is_ok(), has_room);
        if has_room {
            let mut out = vec![0x55; 4096 + 4 * room];
            let read = Xsave::from_kvm2(&first, &extra, &mut out).expect("a buffer");
            let (there, behind) = read.area().bytes().split_at(image.len());
            prop_assert!(there == image);
            prop_assert!(behind.iter().all(|byte| *byte == 0));
            let region = Xsave::from_kvm(&first).expect("a buffer");
            let common = image.len().min(4096);
            prop_assert!(region.area().bytes()[..common] == image[..common]);
        } else {
            prop_assert!(first.region.iter().chain(&extra).all(|word| *word == 0xcccc_cccc));
        }
        let xcrs = Xcrs { xcr0 };
        prop_assert_eq!(Xcrs::try_from(&kvm_xcrs::from(xcrs)), Ok(xcrs));
        prop_assert_eq!(Xcrs::parse(&xcrs.encode()), Ok(xcrs));
    }
}
