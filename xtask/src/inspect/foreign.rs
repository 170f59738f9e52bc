//! Images of other hypervisors: KVM's buffers, Xen's records, and images with nothing around them.

use migration_abi::ParseError;
use migration_abi::legacy::kvm::{Xcrs, Xsave};
use migration_abi::legacy::xen::{
    DESCRIPTOR_BYTES, HVM_IMAGE_OFFSET, HvmRecord, PV_IMAGE_OFFSET, PvRecord, STREAM_HEAD_BYTES,
};
use serde_json::json;
use vcpu_xstate::foreign::{ForeignImage, ForeignRegisters};
use vcpu_xstate::header::COMPACTED;
use vcpu_xstate::{ComponentIndex as C, ComponentSet, Form, Geometry};

use super::against::Subject;
use super::blob::number;
use super::detect::Format;
use super::document::Section;
use super::finding::{Finding, Seen};
use super::image::{self, Explained, Image, Interface, mask};
use super::layout::Layout;
use super::likeness::{LONGEST_STANDARD, is_hvm_record, is_pv_record};
use crate::receiver::Judged;

/// A record around an image: where the image begins, what is written before it.
struct Record {
    section: Section,
    image_at: usize,
    xcr0: Option<u64>,
    accum: Option<u64>,
    broken: Option<ParseError>,
}

/// What could be read, for those who judge it further.
pub struct Parts<'a> {
    /// The image with its registers; those that the form lacks are assumed.
    pub image: ForeignImage<'a>,
    /// The layout of the machine that made it, where it is known or matters.
    pub geometry: Option<Geometry>,
}

impl Parts<'_> {
    /// As a machine judges it.
    pub const fn judged(&self) -> Subject<'_> {
        Ok(Judged::Foreign {
            image: &self.image,
            geometry: self.geometry.as_ref(),
        })
    }
}

/// Adds all that can be read to `root`; gives what is wrong. `xcr0` is what
/// forms without one are given, `layout` that of the named machine.
pub fn explain<'a>(
    root: &mut Section,
    format: Format,
    bytes: &'a [u8],
    xcr0: Option<u64>,
    layout: Option<Layout>,
    full: bool,
) -> (Explained, Option<Parts<'a>>) {
    let record = match format {
        Format::XenPv => xen_pv(bytes),
        Format::XenHvm => xen_hvm(bytes),
        Format::Kvm => bare(Xsave::parse(bytes).err()),
        _ => bare(None),
    };
    let mut findings: Vec<Finding> = record.broken.map(Finding::from).into_iter().collect();
    if format == Format::Kvm && bytes.len() > LONGEST_STANDARD {
        let (seen, allowed) = (
            Seen::length(bytes.len()),
            format!("at most {LONGEST_STANDARD}"),
        );
        let text = "KVM's buffer ends where a standard image can end on some machine";
        findings.push(Finding::new("kvm-length", 0, seen, allowed, text));
    }
    if matches!(format, Format::XenPv | Format::XenHvm) {
        findings.extend(unbelievable(&record));
    }
    root.section(record.section);
    let image = bytes.get(record.image_at..).unwrap_or_default();
    // A vCPU without extended state: a record without an image.
    if matches!(format, Format::XenPv | Format::XenHvm) && record.accum.unwrap_or(0) == 0 {
        root.line("no extended state: x87 and SSE stand in the vCPU's other record");
        let explained = Explained {
            broken: findings,
            warnings: Vec::new(),
        };
        return (explained, None);
    }
    let standard = image::standard_components(image);
    // Where a compacted image's components are follows from their sizes, which
    // machines share; what their standard offsets were there is not known.
    let known = layout.is_some() || standard.is_some();
    let layout = layout.unwrap_or_else(|| Layout::usual(image.len(), standard));
    let in_image = Image {
        bytes: image,
        layout: &layout,
        policy: ComponentSet::from_bits_retain(record.accum.unwrap_or(0)),
        interface: match format {
            Format::Kvm => Interface::Kvm,
            Format::XenPv | Format::XenHvm => Interface::Xen,
            _ => Interface::File,
        },
        full,
    };
    let Explained {
        broken,
        mut warnings,
    } = in_image.explain(root);
    if findings.is_empty() {
        let at = record.image_at;
        findings.extend(broken.into_iter().map(|finding| finding.within(at)));
    }
    let xcr0 = record.xcr0.or(xcr0);
    if !image.is_empty() && image.iter().all(|byte| *byte == 0) {
        let text =
            "every byte is zero, MXCSR too, which is 1f80 after a reset: was this ever filled?";
        warnings.insert(0, text.into());
    }
    let sized = (format == Format::Raw && standard.is_some()).then_some(image.len());
    let registers = assumed(image, xcr0, &layout.geometry, sized);
    let image = match format {
        Format::XenPv => ForeignImage::xen_pv(image, registers.xcr0, record.accum.unwrap_or(0)),
        Format::XenHvm => ForeignImage::xen_hvm(image, registers.xcr0, record.accum.unwrap_or(0)),
        Format::Kvm => ForeignImage::kvm(image, registers),
        _ => ForeignImage::raw(image, registers),
    };
    let explained = Explained {
        broken: findings,
        warnings,
    };
    let parts = Parts {
        image,
        geometry: known.then_some(layout.geometry),
    };
    (explained, Some(parts))
}

/// XCR0 and xcr0_accum of a record, where no processor can have had them
/// (SDM Vol. 1, 13.3: bit 0 is always set; supervisor components are not in XCR0).
fn unbelievable(record: &Record) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (Some(xcr0), Some(accum)) = (record.xcr0, record.accum) else {
        return findings;
    };
    let finding = |rule: &str, back: usize, seen: u64, allowed: String, text: &str| {
        let offset = record.image_at.saturating_sub(back);
        Finding::new(rule, offset, Seen::Bits(seen), allowed, text)
    };
    // A vCPU that never used XSAVE has zeros for both.
    if xcr0 & 1 == 0 && (xcr0 | accum) != 0 {
        let text = "XCR0 has x87, always";
        findings.push(finding("xcr0-x87", 16, xcr0, "bit 0 set".into(), text));
    }
    for (rule, back, value) in [("xcr0-unknown", 16, xcr0), ("xcr0-accum-unknown", 8, accum)] {
        let set = ComponentSet::from_bits_retain(value);
        let unknown = set
            .iter()
            .filter(|component| component.name().is_none())
            .fold(value & !ComponentSet::ALL.bits(), |all, c| all | c.bit());
        if unknown != 0 {
            let text = "bits of XCR0 for which no component is known";
            findings.push(finding(
                rule,
                back,
                value,
                format!("{:#x}", value & !unknown),
                text,
            ));
        }
    }
    findings
}

/// No record: the image is all there is.
fn bare(broken: Option<ParseError>) -> Record {
    Record {
        section: Section::new("record", "Record"),
        image_at: 0,
        xcr0: None,
        accum: None,
        broken,
    }
}

/// KVM's `kvm_xcrs`: XCR0, and nothing else there is.
pub fn xcrs(root: &mut Section, bytes: &[u8]) -> Vec<Finding> {
    let mut section = Section::new("xcrs", "XCRs");
    let read = Xcrs::parse(bytes);
    match read.map(|xcrs| xcrs.xcr0) {
        Ok(Some(xcr0)) => mask(&mut section, "xcr0", "XCR0", xcr0),
        Ok(None) => section.field("xcr0", "XCR0", json!(null), "none: a host without XSAVE"),
        Err(_) => section.line("not readable"),
    }
    root.section(section);
    read.err().map(Finding::from).into_iter().collect()
}

/// The registers that an image came with, or else the least that its
/// components need: a raw image has none, KVM's stand in `kvm_xcrs`. How long a
/// standard image is follows from XCR0, so one of `sized` bytes came from an XCR0
/// that has the component which ends there.
fn assumed(
    image: &[u8],
    xcr0: Option<u64>,
    geometry: &Geometry,
    sized: Option<usize>,
) -> ForeignRegisters {
    let word = |at| number(image, at, 8).unwrap_or(0);
    let held = ComponentSet::from_bits_retain((word(512) | word(520)) & !COMPACTED);
    let supervisor = held.intersection(geometry.supervisor());
    let mut user = held.difference(supervisor);
    let all = geometry.placements(Form::Standard, geometry.known());
    let last = all.filter(|place| Some(place.range().end) == sized);
    user = last.fold(user, |user, place| {
        user.union(ComponentSet::only(place.component))
    });
    // What XCR0 can only hold together.
    for group in [ComponentSet::AVX512, ComponentSet::MPX, ComponentSet::AMX] {
        if user.intersects(group) {
            user.insert(group);
        }
    }
    if user.intersects(ComponentSet::AVX512) {
        user.insert(ComponentSet::UP_TO_AVX);
    }
    user.insert(ComponentSet::only(C::X87));
    if user.has(C::AVX) {
        user.insert(ComponentSet::only(C::SSE));
    }
    ForeignRegisters {
        xss: supervisor.bits(),
        ..ForeignRegisters::xcr0(xcr0.unwrap_or(user.bits()))
    }
}

/// The body that XEN_DOMCTL_getvcpuextstate gives, or the migration stream's
/// record around it.
fn xen_pv(bytes: &[u8]) -> Record {
    let mut section = Section::new("record", "Record").with_note("Xen, a PV vCPU");
    let framed = is_pv_record(bytes);
    let (body_at, broken) = if framed {
        section.field(
            "vcpu",
            "vCPU",
            json!(number(bytes, 8, 4)),
            text(number(bytes, 8, 4)),
        );
        section.field(
            "length",
            "length",
            json!(number(bytes, 4, 4)),
            text(number(bytes, 4, 4)),
        );
        (STREAM_HEAD_BYTES, PvRecord::parse_stream(bytes).err())
    } else {
        (0, PvRecord::parse(bytes).err())
    };
    let (xcr0, accum) = registers(&mut section, bytes, body_at);
    Record {
        section,
        image_at: body_at + PV_IMAGE_OFFSET,
        xcr0,
        accum,
        broken,
    }
}

/// The save record CPU_XSAVE, with its descriptor or without.
fn xen_hvm(bytes: &[u8]) -> Record {
    let mut section = Section::new("record", "Record").with_note("Xen, an HVM vCPU (CPU_XSAVE)");
    let framed = is_hvm_record(bytes);
    let (body_at, broken) = if framed {
        section.field(
            "vcpu",
            "vCPU",
            json!(number(bytes, 2, 2)),
            text(number(bytes, 2, 2)),
        );
        section.field(
            "length",
            "length",
            json!(number(bytes, 4, 4)),
            text(number(bytes, 4, 4)),
        );
        (DESCRIPTOR_BYTES, HvmRecord::parse_save(bytes).err())
    } else {
        (0, HvmRecord::parse(bytes).err())
    };
    if let Some(value) = number(bytes, body_at, 8) {
        mask(&mut section, "xfeature_mask", "xfeature_mask", value);
    }
    let (xcr0, accum) = registers(&mut section, bytes, body_at + 8);
    Record {
        section,
        image_at: body_at + HVM_IMAGE_OFFSET,
        xcr0,
        accum,
        broken,
    }
}

/// XCR0 and the accumulated XCR0, which both records have.
fn registers(section: &mut Section, bytes: &[u8], at: usize) -> (Option<u64>, Option<u64>) {
    let (xcr0, accum) = (number(bytes, at, 8), number(bytes, at + 8, 8));
    for (key, label, value) in [
        ("xcr0", "XCR0", xcr0),
        ("xcr0_accum", "ever enabled (xcr0_accum)", accum),
    ] {
        if let Some(value) = value {
            mask(section, key, label, value);
        }
    }
    (xcr0, accum)
}

fn text(value: Option<u64>) -> String {
    value.map_or("not there".into(), |value| value.to_string())
}
