//! Which form bytes have that begin with no magic: a record by its head, an image by what it is like.

use migration_abi::legacy::Area;
use migration_abi::legacy::kvm::{XCRS_BYTES, XSAVE_BYTES, Xcrs};
use migration_abi::legacy::xen::{
    CPU_XSAVE_CODE, DESCRIPTOR_BYTES, HVM_IMAGE_OFFSET, PV_IMAGE_OFFSET, PvRecord,
    X86_PV_VCPU_XSAVE,
};
use vcpu_xstate::layout::MAX_STANDARD_END_BYTES;

use super::blob::number;
use super::detect::Format;
use super::image;

/// Bytes of the longest standard image; KVM's buffers end with it.
pub const LONGEST_STANDARD: usize = MAX_STANDARD_END_BYTES as usize;

pub fn is_pv_record(bytes: &[u8]) -> bool {
    number(bytes, 0, 4) == Some(X86_PV_VCPU_XSAVE.into()) && number(bytes, 12, 4) == Some(0)
}

/// With a descriptor whose length the record has, or an image behind it: a record
/// that was cut or padded is broken, and no other form.
pub fn is_hvm_record(bytes: &[u8]) -> bool {
    let length = number(bytes, 4, 4).unwrap_or(0) as usize;
    let exact = length.checked_add(DESCRIPTOR_BYTES) == Some(bytes.len());
    let image = bytes.get(DESCRIPTOR_BYTES + HVM_IMAGE_OFFSET..);
    let like_one = length >= HVM_IMAGE_OFFSET && image.and_then(likeness).is_some();
    number(bytes, 0, 2) == Some(CPU_XSAVE_CODE.into()) && (exact || like_one)
}

/// The form that bytes without a magic have: an image, and what is before it.
pub fn detect(bytes: &[u8]) -> Option<Format> {
    if is_hvm_record(bytes) {
        return Some(Format::XenHvm);
    }
    if is_pv_record(bytes) && PvRecord::parse_stream(bytes).is_ok() {
        return Some(Format::XenPv);
    }
    if bytes.len() == PV_IMAGE_OFFSET && PvRecord::parse(bytes).is_ok() {
        return Some(Format::XenPv);
    }
    if bytes.len() == XCRS_BYTES && Xcrs::parse(bytes).is_ok() {
        return Some(Format::KvmXcrs);
    }
    // The likeliest place of an image; XCR0 before it where there is a record.
    let raw = likeness(bytes);
    let record = |at: usize, xcr0_at: usize| {
        let registers = number(bytes, xcr0_at, 8).zip(number(bytes, xcr0_at + 8, 8));
        registers
            .filter(|(xcr0, accum)| xcr0 & 1 == 1 && xcr0 & !accum == 0 && accum >> 63 == 0)
            .and_then(|_| likeness(bytes.get(at..)?))
    };
    let candidates = [
        (record(HVM_IMAGE_OFFSET, 8), Format::XenHvm),
        (record(PV_IMAGE_OFFSET, 0), Format::XenPv),
        (
            raw,
            if is_kvm(bytes) {
                Format::Kvm
            } else {
                Format::Raw
            },
        ),
    ];
    let best = candidates.iter().filter_map(|(score, _)| *score).max()?;
    candidates
        .iter()
        .find(|(score, _)| *score == Some(best))
        .map(|(_, format)| *format)
}

/// How much an image looks like one; `None` where it is none, or longer than a
/// standard image on any machine.
fn likeness(bytes: &[u8]) -> Option<u32> {
    let standard = image::standard_components(bytes).is_some();
    if !image::looks_like_one(bytes) || standard && bytes.len() > LONGEST_STANDARD {
        return None;
    }
    let fcw = number(bytes, 0, 2)?;
    let mxcsr = number(bytes, 24, 4)?;
    // FCW's bit 6 is always set, MXCSR has exceptions masked as a rule.
    let signs = [
        fcw & 0x40 != 0 && fcw & 0xe080 == 0,
        mxcsr & 0x1f80 != 0 && mxcsr & !0x2_ffff == 0,
        number(bytes, 512, 8)? != 0,
    ];
    Some(signs.into_iter().map(u32::from).sum())
}

/// A standard image in as many bytes as KVM_GET_XSAVE gives, or more: KVM_GET_XSAVE2's
/// end where the VM's largest image does, which need not be a page's end.
fn is_kvm(bytes: &[u8]) -> bool {
    bytes.len() >= XSAVE_BYTES && Area::parse_standard(bytes).is_ok()
}
