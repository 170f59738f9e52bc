//! Images: what of a stranger's is refused, by which rule, and what no conversion loses.

use vcpu_xstate::convert::{Target, canonical_size, canonicalise, transfer};
use vcpu_xstate::foreign::{self, Excess, ForeignImage, ForeignRegisters};
use vcpu_xstate::layout::Form;
use vcpu_xstate::{
    Claims, ComponentIndex as C, ComponentSet, HostXstate, Image, XstatePolicy, validate,
};

use crate::world::{AMX, Facts, INTEL, LWP, Memory, YMM, enable, export, run, set, vcpu};

const POLICY: u64 = 0x207;

/// A vCPU's state that is accepted as it stands: x87, SSE and AVX in use.
fn sample() -> (Claims, Vec<u8>) {
    let mut cpu = INTEL.processor(0);
    let mut guest = vcpu(1, POLICY, cpu.host());
    enable(&mut guest, &mut cpu, 7);
    run(&mut guest, &mut cpu, |cpu| {
        for component in [C::X87, C::SSE, YMM] {
            cpu.put_pattern(component, 3);
        }
    });
    export(&mut guest, &mut cpu)
}

fn verdict_on(facts: &Facts, claims: &Claims, image: &[u8]) -> Result<(), &'static str> {
    let host: HostXstate = facts.host();
    let policy = XstatePolicy::new(host.offered(), ComponentSet::EMPTY);
    validate(claims, host.geometry(), image, &host, &policy)
        .map(|_| ())
        .map_err(|rejection| rejection.rule())
}

fn verdict(claims: &Claims, image: &[u8]) -> Result<(), &'static str> {
    verdict_on(&INTEL, claims, image)
}

/// Whether XRSTOR of the image faults, as the host would run it.
fn faults(image: &[u8]) -> bool {
    let mut cpu = INTEL.processor(0);
    let cpu = &mut cpu.hardware_mut().cpu;
    cpu.xsetbv(0, POLICY).expect("legal");
    cpu.xrstor(0x1000, image, u64::MAX).is_err()
}

/// XSA-53: an image with reserved bits of MXCSR reached XRSTOR in the host.
#[test]
fn xsa_53_bad_image_faults_in_the_host() {
    let (claims, mut image) = sample();
    assert_eq!(verdict(&claims, &image), Ok(()));
    for bit in 16..32 {
        let good = image[24..28].to_vec();
        image[24 + bit / 8] |= 1 << (bit % 8);
        assert!(faults(&image));
        assert_eq!(verdict(&claims, &image), Err("mxcsr"), "bit {bit}");
        image[24..28].copy_from_slice(&good);
    }
}

/// Xen 9979547be5, Linux 4498601d1a: offsets were those of the host's largest
/// image, not those of the image's own XCOMP_BV.
#[test]
fn xen_9979547be5_offsets_of_the_host_maximum() {
    let host = AMX.host();
    let geometry = host.geometry();
    for layout in [0x203u64, 0x207, 0x2e7] {
        let mut image = vec![0; geometry.image_size(Form::Compacted, set(layout))];
        image[512..520].copy_from_slice(&0x200u64.to_le_bytes());
        image[520..528].copy_from_slice(&(layout | 1 << 63).to_le_bytes());
        let pkru = image.len() - 8;
        image[pkru] = 0x54;
        let view = Image::new(&image, geometry, Form::Compacted).expect("an image");
        let held: Vec<_> = view.held().collect();
        assert_eq!(held, [(C::PKRU, &[0x54, 0, 0, 0][..])], "{layout:#x}");
        let mut out = vec![0; canonical_size(&view, set(0))];
        canonicalise(&view, set(0), &mut out).expect("measured");
        assert_eq!((out.len(), out[576]), (584, 0x54));
    }
}

/// Xen 104a409ebc, Linux dffba9a31c: XCOMP_BV without bit 63, or without what
/// XSTATE_BV has.
#[test]
fn xen_104a409ebc_xcomp_bv_bit_63_and_subset() {
    let (claims, image) = sample();
    let clear = Claims {
        xcomp_bv: claims.xcomp_bv & !(1 << 63),
        ..claims
    };
    assert_eq!(verdict(&clear, &image), Err("xcomp-bv-bit-63"));
    // PKRU may hold state, and has no room in this image.
    let mut beyond = image.clone();
    beyond[513] |= 2;
    assert!(faults(&beyond));
    assert_eq!(verdict(&claims, &beyond), Err("xstate-bv-xcomp-bv"));
}

/// Xen 773522000c: the header was read before the length was compared.
#[test]
fn xen_773522000c_header_read_before_the_length() {
    let (claims, image) = sample();
    for length in 0..image.len() {
        let refused = verdict(&claims, &image[..length]);
        let rule = if length < 576 {
            "image-too-short"
        } else {
            "image-length"
        };
        assert_eq!(refused, Err(rule), "{length} bytes");
    }
}

/// Xen fe0d67576e: masks were cut to 32 bits, and component 62 was lost.
#[test]
fn xen_fe0d67576e_masks_cut_to_32_bits() {
    let host = LWP.host();
    let lwp = C::LWP;
    assert!(host.geometry().known().has(lwp));
    assert_eq!(
        host.geometry().image_size(Form::Standard, set(1 << 62)),
        960
    );
    let (claims, mut image) = sample();
    let wide = Claims {
        xstate_mask: claims.xstate_mask | 1 << 62,
        ..claims
    };
    assert_eq!(verdict(&wide, &image), Err("xstate-mask-policy"));
    let wide = Claims {
        accum: claims.accum | 1 << 62,
        ..claims
    };
    assert_eq!(verdict(&wide, &image), Err("accum-policy"));
    image[519] |= 0x40;
    assert_eq!(verdict(&claims, &image), Err("xstate-bv-xcomp-bv"));
}

/// Linux df1daba7d1: a compacted image was handed to an interface for standard
/// ones, and read at wrong offsets.
#[test]
fn linux_df1daba7d1_compacted_image_for_a_standard_interface() {
    let (_, image) = sample();
    let host = INTEL.host();
    let policy = XstatePolicy::new(set(POLICY), ComponentSet::EMPTY);
    let mut buffer = image;
    buffer.resize(4096, 0);
    let handed = ForeignImage::kvm(&buffer, ForeignRegisters::xcr0(7));
    for excess in [Excess::Refuse, Excess::Drop] {
        let refused = foreign::read(&handed, host.geometry(), &host, &policy, excess);
        let rule = refused.map(|_| ()).map_err(|error| error.rule());
        assert_eq!(rule, Err("foreign-compacted"));
    }
}

/// Linux d7876f1be4: bits that leaf 0xD does not list were accepted.
#[test]
fn linux_d7876f1be4_bits_beyond_leaf_d() {
    let (claims, image) = sample();
    for bit in (0..63).filter(|bit| POLICY & 1 << bit == 0) {
        let beyond = Claims {
            xcomp_bv: claims.xcomp_bv | 1 << bit,
            ..claims
        };
        assert_eq!(
            verdict(&beyond, &image),
            Err("xcomp-bv-policy"),
            "bit {bit}"
        );
        let mut held = image.clone();
        held[512 + bit / 8] |= 1 << (bit % 8);
        assert_eq!(verdict(&claims, &held), Err("xstate-bv-xcomp-bv"));
    }
}

/// CVE-2017-15537: ptrace took any XCOMP_BV, XRSTORS faulted, and the registers
/// of another process stayed.
#[test]
fn cve_2017_15537_bogus_xcomp_bv() {
    let (claims, image) = sample();
    for bit in 0..63 {
        let mut other = image.clone();
        other[520 + bit / 8] ^= 1 << (bit % 8);
        assert_eq!(verdict(&claims, &other), Err("xcomp-bv-claim"), "bit {bit}");
    }
    for at in 528..576 {
        let mut other = image.clone();
        other[at] = 1;
        assert!(faults(&other));
        assert_eq!(
            verdict(&claims, &other),
            Err("header-reserved"),
            "byte {at}"
        );
    }
}

/// CVE-2024-26603: a size that the user named was believed.
#[test]
fn cve_2024_26603_trusted_size() {
    let (claims, mut image) = sample();
    image.push(0);
    assert_eq!(verdict(&claims, &image), Err("image-length"));
    image.truncate(image.len() - 2);
    assert_eq!(verdict(&claims, &image), Err("image-length"));
}

/// Xen 75f9455e92: what the machine has and the guest cannot use was part of
/// the image, so no two unequal machines ever took each other's guests.
#[test]
fn xen_75f9455e92_host_maximum_offered() {
    let mut cpu = AMX.processor(0);
    let mut guest = vcpu(1, POLICY, cpu.host());
    enable(&mut guest, &mut cpu, 7);
    run(&mut guest, &mut cpu, |cpu| cpu.put_pattern(YMM, 3));
    let (claims, image) = export(&mut guest, &mut cpu);
    assert_eq!(claims.xstate_mask, POLICY);
    assert_eq!(verdict_on(&INTEL, &claims, &image), Ok(()));
}

/// CRIU 1448, Cloud Hypervisor 7533: 4096 bytes were thought to be enough.
#[test]
fn cloud_hypervisor_7533_hard_coded_4096() {
    let mut cpu = AMX.processor(0);
    let (mut guest, mut copy) = (vcpu(1, 0x6_02e7, cpu.host()), vcpu(2, 0x6_02e7, cpu.host()));
    enable(&mut guest, &mut cpu, 0x6_02e7);
    let _ = guest.first_use(set(1 << 18), &mut cpu, &mut Memory);
    run(&mut guest, &mut cpu, |cpu| {
        cpu.put_pattern(C::TILECFG, 3);
        cpu.put_pattern(C::TILEDATA, 3);
    });
    let (claims, image) = export(&mut guest, &mut cpu);
    assert!(image.len() > 8192, "{}", image.len());
    let host = AMX.host();
    let trusted = validate(&claims, host.geometry(), &image, &host, guest.policy());
    let trusted = trusted.expect("its own export");
    copy.import(&trusted, &mut cpu, &mut Memory)
        .expect("memory");
    assert_eq!(export(&mut copy, &mut cpu), (claims, image));
}

/// Xen's, Linux's and OpenVMM's conversions turn an MXCSR of 1FA5 into 1F80
/// where XSAVE had cleared XSTATE_BV[1], all XMM being zero.
#[test]
fn mxcsr_lost_in_conversion() {
    let host = INTEL.host();
    let geometry = host.geometry();
    for held in [0u64, 1, 4, 5] {
        let mut image = vec![0; geometry.image_size(Form::Standard, set(POLICY))];
        image[..2].copy_from_slice(&0x037f_u16.to_le_bytes());
        image[24..28].copy_from_slice(&0x1fa5_u32.to_le_bytes());
        // Not zero, and not state: XSTATE_BV[1] is clear.
        image[160..416].fill(0xcc);
        image[512..520].copy_from_slice(&held.to_le_bytes());
        let view = Image::new(&image, geometry, Form::Standard).expect("an image");
        let target = Target {
            geometry,
            form: Form::Compacted,
            layout: set(POLICY),
        };
        let mut out = vec![0; target.size_bytes()];
        transfer(&view, ComponentSet::ALL, target, &mut out).expect("measured");
        let mut cpu = INTEL.processor(0);
        let cpu = &mut cpu.hardware_mut().cpu;
        cpu.xsetbv(0, POLICY).expect("legal");
        cpu.xrstor(0x1000, &out, u64::MAX).expect("legal");
        assert_eq!(cpu.registers().mxcsr, 0x1fa5, "{held:#x}");
        assert!(cpu.registers().is_init(C::SSE), "{held:#x}");
    }
    // A compacted image's counts with its bit only.
    let mut image = vec![0; 576];
    image[24..28].copy_from_slice(&0x1fa5_u32.to_le_bytes());
    image[520..528].copy_from_slice(&(1u64 << 63 | 3).to_le_bytes());
    let view = Image::new(&image, geometry, Form::Compacted).expect("an image");
    assert_eq!((view.mxcsr(), view.in_use()), (0x1f80, set(0)));
}

/// Linux, arch/x86/kvm: the size of the host's image was told as the guest's.
#[test]
fn size_of_the_hosts_image_told_as_the_guests() {
    let mut cpu = AMX.processor(0);
    let mut guest = vcpu(1, 3, cpu.host());
    assert_eq!(guest.area_size_bytes(), 576);
    run(&mut guest, &mut cpu, |cpu| cpu.put_pattern(C::SSE, 1));
    assert_eq!(guest.export_size(&mut cpu), 576);
    assert_eq!(export(&mut guest, &mut cpu).1.len(), 576);
}
