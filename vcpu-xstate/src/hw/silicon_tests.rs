//! What this crate believes of the instructions, tried on the processor that runs the tests (ring 3).
//!
//! Only what user mode may do: XSAVE, XSAVEC, XRSTOR under the XCR0 that the
//! system has set. Skips, and says so, where the processor lacks them.

use core::arch::x86_64::{__cpuid_count, _xgetbv};

use super::*;
use crate::area::Block;
use crate::component::{ComponentIndex, ComponentSet};
use crate::convert::canonicalise;
use crate::cpuid::{CpuidResult, HostXstate};
use crate::header::XsaveHeader;
use crate::image::{Image, payload};
use crate::layout::{Form, MIN_IMAGE_BYTES};
use crate::legacy::LegacyRegion;
use zerocopy::{FromBytes, IntoBytes};

/// The machine under the tests, and the components that user mode may move:
/// what XCR0 has, without tiles (the system gives them on request only).
fn machine(needs_xsavec: bool) -> Option<(HostXstate, ComponentSet)> {
    let cpuid = |leaf, subleaf| CpuidResult::from(__cpuid_count(leaf, subleaf));
    let mut fxsave = [Block::ZERO; 8];
    // SAFETY: every x86-64 processor has FXSAVE, which writes 512 aligned bytes.
    unsafe { asm!("fxsave64 [{}]", in(reg) fxsave.as_mut_ptr(), options(nostack)) };
    let region = LegacyRegion::read_from_bytes(fxsave.as_bytes()).ok()?;
    let host = match HostXstate::read(&cpuid, region.mxcsr_mask.get()) {
        Ok(host) if cpuid(1, 0).ecx & 1 << 27 != 0 => host,
        Ok(_) => {
            println!("skipped: the system has not enabled XSAVE");
            return None;
        }
        Err(error) => {
            println!("skipped: {error}");
            return None;
        }
    };
    if needs_xsavec && !host.instructions().xsavec {
        println!("skipped: this processor has no XSAVEC");
        return None;
    }
    // SAFETY: OSXSAVE is set, so XGETBV of XCR0 is legal.
    let xcr0 = unsafe { xgetbv() };
    let mask = ComponentSet::from_bits_retain(xcr0)
        .intersection(host.user())
        .difference(ComponentSet::AMX)
        .difference(ComponentSet::only(ComponentIndex::PKRU));
    Some((host, mask))
}

#[target_feature(enable = "xsave")]
unsafe fn xgetbv() -> u64 {
    // SAFETY: the caller has checked OSXSAVE.
    unsafe { _xgetbv(0) }
}

/// Saves the thread's state (XSAVE64 to RDI), restores RSI, saves again (to RDX,
/// by XSAVEC64 if R8 is 1), restores the thread's state; RFBM = RCX throughout.
///
/// # Safety
/// Images are aligned and large enough; RSI holds a legal one.
#[unsafe(naked)]
unsafe extern "C" fn through_the_registers(
    mine: *mut u8,
    from: *const u8,
    to: *mut u8,
    rfbm: u64,
    compacted: u64,
) {
    naked_asm!(
        "mov r9, rdx",
        "mov eax, ecx",
        "mov rdx, rcx",
        "shr rdx, 32",
        "xsave64 [rdi]",
        "xrstor64 [rsi]",
        "test r8, r8",
        "jnz 2f",
        "xsave64 [r9]",
        "jmp 3f",
        "2:",
        "xsavec64 [r9]",
        "3:",
        "xrstor64 [rdi]",
        "ret",
    )
}

fn blocks(bytes: usize) -> Vec<Block> {
    vec![Block::ZERO; bytes.div_ceil(64)]
}

/// An image in `form` with every component of `mask` in use.
fn make(host: &HostXstate, form: Form, mask: ComponentSet, mxcsr: u32, seed: u8) -> Vec<Block> {
    let mut image = blocks(host.geometry().image_size(form, mask));
    let bytes = image.as_mut_slice().as_mut_bytes();
    let mut legacy = LegacyRegion::INIT;
    legacy.fcw.set(0x027f);
    legacy.ftw = 0xff;
    legacy.mxcsr.set(mxcsr);
    for i in 0..8 {
        legacy.st[i][..8].fill(seed | 0x80);
        legacy.st[i][8] = 0xff;
        legacy.st[i][9] = 0x3f;
    }
    legacy.xmm.iter_mut().for_each(|xmm| xmm.fill(seed));
    bytes[..512].copy_from_slice(legacy.as_bytes());
    let header = match form {
        Form::Standard => XsaveHeader::standard(mask),
        Form::Compacted => XsaveHeader::compacted(mask, mask),
    };
    bytes[512..MIN_IMAGE_BYTES].copy_from_slice(header.as_bytes());
    for place in host.geometry().placements(form, mask) {
        crate::selftest::pattern(place.component, seed, &mut bytes[payload(place)]);
    }
    image
}

/// What the processor makes of `from`, saved in `form`.
fn pass(host: &HostXstate, mask: ComponentSet, from: &[Block], form: Form) -> Vec<Block> {
    let mut mine = blocks(
        host.geometry()
            .image_size(Form::Standard, host.geometry().known()),
    );
    let mut to = blocks(host.geometry().image_size(form, mask));
    let compacted = u64::from(form == Form::Compacted);
    // SAFETY: `Block`s are aligned; sizes are those of the geometry for RFBM;
    // `from` is legal, being made by `make`.
    unsafe {
        through_the_registers(
            mine.as_mut_ptr().cast(),
            from.as_ptr().cast(),
            to.as_mut_ptr().cast(),
            mask.bits(),
            compacted,
        );
    }
    to
}

fn canonical(host: &HostXstate, form: Form, image: &[Block]) -> Vec<u8> {
    let image = Image::new(image.as_bytes(), host.geometry(), form).expect("the CPU's own image");
    let mut out = vec![0; 20_000];
    let written = canonicalise(&image, ComponentSet::EMPTY, &mut out);
    out.truncate(written.expect("large enough").len_bytes);
    out
}

/// Through the registers in both forms and all four ways: the canonical image
/// stays the same bytes. So layout, header and conversion are the processor's.
#[test]
fn canonical_images_survive_the_registers() {
    let Some((host, mask)) = machine(true) else {
        return;
    };
    for layout in [
        mask,
        ComponentSet::LEGACY,
        mask.intersection(ComponentSet::UP_TO_AVX),
    ] {
        for from in [Form::Standard, Form::Compacted] {
            let image = make(&host, from, layout, 0x1fa0, 0x5b);
            let expected = canonical(&host, from, &image);
            let held = XsaveHeader::read_from_bytes(&expected[512..576]).unwrap();
            assert_eq!(held.xstate_bv(), layout);
            for to in [Form::Standard, Form::Compacted] {
                let saved = pass(&host, layout, &image, to);
                assert!(
                    canonical(&host, to, &saved) == expected,
                    "{layout} from {from:?} to {to:?}"
                );
            }
        }
    }
}

/// Our compacted sizes are those of CPUID.(0xD,1):EBX where the system has
/// enabled exactly XCR0 (it counts what IA32_XSS has, so ours is at most that).
#[test]
fn sizes_are_those_of_the_processor() {
    let Some((host, _)) = machine(false) else {
        return;
    };
    // SAFETY: `machine` has checked OSXSAVE.
    let xcr0 = ComponentSet::from_bits_retain(unsafe { xgetbv() });
    let standard = __cpuid_count(0xd, 0);
    let geometry = host.geometry();
    assert_eq!(
        geometry.image_size(Form::Standard, xcr0),
        standard.ebx as usize
    );
    if host.instructions().xsavec {
        let compacted = geometry.image_size(Form::Compacted, xcr0);
        assert!(compacted <= __cpuid_count(0xd, 1).ebx as usize);
    }
}

/// The rule that everybody's conversion loses: XSAVE may clear XSTATE_BV[1]
/// with an MXCSR that is not INIT, and XSAVEC sets it.
#[test]
fn mxcsr_lost_in_conversion() {
    let Some((host, _)) = machine(true) else {
        return;
    };
    let mask = ComponentSet::LEGACY;
    // All XMM INIT, MXCSR not: the standard form holds MXCSR beside XSTATE_BV.
    let mut image = make(&host, Form::Standard, mask, 0x1fa5, 0);
    let header = XsaveHeader::standard(ComponentSet::EMPTY);
    image.as_mut_slice().as_mut_bytes()[512..576].copy_from_slice(header.as_bytes());
    for form in [Form::Standard, Form::Compacted] {
        let saved = pass(&host, mask, &image, form);
        let saved = Image::new(saved.as_bytes(), host.geometry(), form).unwrap();
        assert_eq!(saved.mxcsr(), 0x1fa5, "{form:?}");
        assert!(saved.in_use().has(ComponentIndex::SSE), "{form:?}");
        if form == Form::Compacted {
            assert!(saved.xstate_bv().has(ComponentIndex::SSE));
        }
    }
    let canonical = canonical(&host, Form::Standard, &image);
    let mut aligned = blocks(canonical.len());
    aligned.as_mut_slice().as_mut_bytes()[..canonical.len()].copy_from_slice(&canonical);
    let saved = pass(&host, mask, &aligned, Form::Compacted);
    let saved = Image::new(saved.as_bytes(), host.geometry(), Form::Compacted).unwrap();
    assert_eq!(saved.mxcsr(), 0x1fa5, "through the canonical image");
}

/// `Silicon` itself, for what ring 3 may execute.
#[test]
fn silicon_restores_what_it_saved() {
    let Some((host, mask)) = machine(false) else {
        return;
    };
    // x87 and AVX-512's upper registers: nothing that compiled code between
    // two calls keeps.
    let mask = mask.difference(ComponentSet::only(ComponentIndex::SSE));
    let mut first = blocks(host.geometry().image_size(Form::Standard, mask));
    let mut second = first.clone();
    // SAFETY: `host` was read of this processor; ring 3's part of it is asked for.
    let mut silicon = unsafe { Silicon::new() };
    let save = SaveInstruction::Xsave;
    // SAFETY: aligned, sized for `mask`, zeroed headers; the restored state is
    // the one that was just saved.
    let restored = unsafe {
        silicon.save(save, first.as_mut_slice().as_mut_bytes(), mask.bits());
        let image = first.as_slice().as_bytes();
        let restored = silicon.restore(RestoreInstruction::Xrstor, image, mask.bits());
        silicon.save(save, second.as_mut_slice().as_mut_bytes(), mask.bits());
        restored
    };
    assert_eq!(restored, Ok(()));
    assert!(
        canonical(&host, Form::Standard, &first)[..160]
            == canonical(&host, Form::Standard, &second)[..160]
    );
}

/// A trap handler finds the two restores and nothing else.
#[test]
fn fixups_are_for_the_restores_alone() {
    let start = xrstor64 as *const () as u64;
    let hits: Vec<u64> = (start..start + 64)
        .filter(|rip| fixup(*rip).is_some())
        .collect();
    // `mov eax, esi` (2 bytes), `mov rdx, rsi` (3), `shr rdx, 32` (4).
    assert!(hits.contains(&(start + 9)), "{hits:x?} from {start:x}");
    let resume = fixup(start + 9).unwrap();
    // `xrstor64 [rdi]` (4), `xor eax, eax` (2), `ret` (1).
    assert_eq!(resume, start + 16);
    assert_eq!(fixup(start), None);
    let second = xrstors64 as *const () as u64;
    assert_eq!(fixup(second + 9), Some(second + 16));
    for exchange in [exchange_user, exchange_all] {
        let start = exchange as *const () as u64;
        // The save (4), `or eax, -1` (3), `mov edx, eax` (2); then the restore
        // (4) and `ret` (1).
        assert_eq!(fixup(start + 9), Some(start + 14));
        assert_eq!((fixup(start), fixup(start + 4)), (None, None));
    }
}
