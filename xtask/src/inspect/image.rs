//! An XSAVE image: its header, each component's place and state, and the registers.

mod rules;

use std::collections::BTreeMap;

use serde_json::json;
use vcpu_xstate::header::{COMPACTED, XsaveHeader};
use vcpu_xstate::layout::{LEGACY_BYTES, MIN_IMAGE_BYTES};
use vcpu_xstate::legacy::{LegacyRegion, MXCSR_INIT};
use vcpu_xstate::{ComponentIndex as C, ComponentSet, Form, Placement};
use zerocopy::FromBytes;

use super::document::{Section, Table, numbers, words};
use super::finding::{Finding, Seen};
use super::layout::Layout;
use super::registers::{self, State};

/// An image and what is needed to read it.
pub struct Image<'a> {
    /// Its bytes, as many as are there.
    pub bytes: &'a [u8],
    /// The layout of the machine that wrote it.
    pub layout: &'a Layout,
    /// What may stand in the table although the image does not hold it.
    pub policy: ComponentSet,
    /// What the image lies in.
    pub interface: Interface,
    /// Whether all bytes of what is large are shown.
    pub full: bool,
}

/// What an image lies in, which says what may follow its last component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interface {
    /// A blob: nothing may.
    Blob,
    /// KVM's buffer: as many bytes as the interface has.
    Kvm,
    /// Xen's record: what the component's mask makes it. Byte 511 is Xen's own.
    Xen,
    /// A file of its own: as Xen's record.
    File,
}

/// What is wrong with an image, and what is only odd.
#[derive(Debug, Default)]
pub struct Explained {
    /// The rules that it breaks, with offsets from its start.
    pub broken: Vec<Finding>,
    /// Sentences.
    pub warnings: Vec<String>,
}

/// What of an image could be read.
struct Read<'a> {
    legacy: &'a LegacyRegion,
    header: &'a XsaveHeader,
    form: Form,
    placed: BTreeMap<u8, Placement>,
}

/// What is said of a component's state.
enum Content<'a> {
    Init(&'static str),
    InUse(&'a [u8]),
    CutOff,
    Unplaced(&'static str),
}

impl<'a> Image<'a> {
    /// Adds header, components and registers to `root`; gives what is wrong.
    pub fn explain(&self, root: &mut Section) -> Explained {
        let Some(read) = self.read() else {
            let mut section = Section::new("image", "Image");
            section.line(format!(
                "{} bytes, too few for the legacy region and the header ({MIN_IMAGE_BYTES})",
                self.bytes.len()
            ));
            root.section(section);
            let broken = vec![Finding::new(
                "image-too-short",
                0,
                Seen::length(self.bytes.len()),
                format!("at least {MIN_IMAGE_BYTES}"),
                "an image has at least legacy region and header",
            )];
            return Explained {
                broken,
                ..Explained::default()
            };
        };
        let explained = self.judge(&read);
        let mut section = self.header(&read);
        section.table(self.components(&read));
        root.section(section);
        let (mut held, mut lost) = (BTreeMap::new(), ComponentSet::EMPTY);
        for component in self.shown(&read) {
            match self.content(&read, component) {
                Content::InUse(bytes) => drop(held.insert(component.get(), bytes)),
                Content::CutOff | Content::Unplaced(_) => {
                    lost.insert(ComponentSet::only(component));
                }
                Content::Init(_) => {}
            }
        }
        let state = State {
            legacy: read.legacy,
            fp_selectors: self.fp_selectors(&read),
            mxcsr: mxcsr(&read),
            held,
            lost,
        };
        root.section(registers::explain(&state, self.full));
        explained
    }

    fn read(&self) -> Option<Read<'a>> {
        let (legacy, rest) = LegacyRegion::ref_from_prefix(self.bytes).ok()?;
        let (header, _) = XsaveHeader::ref_from_prefix(rest).ok()?;
        let form = match self.interface {
            Interface::Blob => Form::Compacted,
            _ => form(header),
        };
        let mask = match form {
            Form::Standard => ComponentSet::ALL,
            Form::Compacted => header.layout(),
        };
        // Behind a component of unknown size nothing has a place.
        let unknown = mask.difference(self.layout.geometry.known()).iter().next();
        let placed = self
            .layout
            .geometry
            .placements(form, mask)
            .take_while(|place| {
                form == Form::Standard
                    || unknown.is_none_or(|first| place.component.get() < first.get())
            })
            .map(|place| (place.component.get(), place))
            .collect();
        Some(Read {
            legacy,
            header,
            form,
            placed,
        })
    }

    fn header(&self, read: &Read<'_>) -> Section {
        let form = match read.form {
            Form::Standard => "standard",
            Form::Compacted => "compacted",
        };
        let mut section = Section::new("image", "Image").with_note(format!(
            "{form}, {} bytes, laid out by {}",
            self.bytes.len(),
            self.layout.source()
        ));
        let header = read.header;
        section.value("form", json!(form));
        section.value("bytes", json!(self.bytes.len()));
        section.value("layout", json!(self.layout.source()));
        mask(
            &mut section,
            "xstate_bv",
            "XSTATE_BV",
            header.xstate_bv().bits(),
        );
        mask(&mut section, "xcomp_bv", "XCOMP_BV", header.xcomp_bv());
        section
    }

    /// The components that have a row.
    fn shown(&self, read: &Read<'_>) -> ComponentSet {
        let layout = match read.form {
            Form::Standard => ComponentSet::EMPTY,
            Form::Compacted => read.header.layout(),
        };
        self.policy
            .union(layout)
            .union(read.header.xstate_bv())
            .union(ComponentSet::LEGACY)
    }

    fn components(&self, read: &Read<'a>) -> Table {
        let columns = [
            words("component"),
            numbers("size"),
            words("kind"),
            numbers("standard"),
            numbers("here"),
            words("state"),
        ];
        let mut table = Table::new("components", &columns);
        for component in self.shown(read) {
            let facts = self.layout.facts(component);
            let place = self.place(read, component);
            let size = match component {
                C::X87 => Some(160),
                C::SSE => Some(256),
                _ => facts.map(|facts| facts.size_bytes as usize),
            };
            let supervisor = facts.is_some_and(|facts| facts.supervisor);
            let mut kind = vec![if supervisor { "supervisor" } else { "user" }];
            if facts.is_some_and(|facts| facts.aligned64) {
                kind.push("align64");
            }
            if facts.is_some_and(|facts| facts.xfd) {
                kind.push("xfd");
            }
            let standard = match component {
                C::X87 => Some(0),
                C::SSE => Some(160),
                _ => facts
                    .filter(|f| !f.supervisor)
                    .map(|f| f.standard_offset as usize),
            };
            let (state, text): (_, String) = match self.content(read, component) {
                Content::Init(why) => ("init", format!("INIT{why}")),
                Content::InUse(_) => ("in_use", "in use".into()),
                Content::CutOff => ("cut_off", "cut off: the image ends before it does".into()),
                Content::Unplaced(why) => ("unplaced", why.into()),
            };
            let dash = |number: Option<usize>| number.map_or("–".into(), |n| n.to_string());
            let here = place.map(|range| range.start);
            table.row(
                vec![
                    component.to_string(),
                    size.map_or("?".into(), |size| size.to_string()),
                    kind.join(" "),
                    dash(standard),
                    dash(here),
                    text,
                ],
                json!({
                    "index": component.get(),
                    "name": component.to_string(),
                    "size": size,
                    "supervisor": supervisor,
                    "align64": facts.is_some_and(|facts| facts.aligned64),
                    "xfd": facts.is_some_and(|facts| facts.xfd),
                    "standard_offset": standard,
                    "image_offset": here,
                    "state": state,
                }),
            );
        }
        table
    }

    /// Where it lies in this image.
    fn place(&self, read: &Read<'_>, component: C) -> Option<core::ops::Range<usize>> {
        match component {
            C::X87 => Some(0..160),
            C::SSE => Some(160..416),
            _ => read.placed.get(&component.get()).map(|place| place.range()),
        }
    }

    fn content(&self, read: &Read<'a>, component: C) -> Content<'a> {
        let held = read.header.xstate_bv().has(component);
        let placed = self.place(read, component);
        let init_by_content = match component {
            C::X87 => held && read.legacy.x87_is_init(),
            // Its MXCSR may be in use although XSTATE_BV has no SSE.
            C::SSE if mxcsr(read) != MXCSR_INIT => {
                return Content::InUse(&self.bytes[if held { 160..416 } else { 0..0 }]);
            }
            C::SSE => held && read.legacy.xmm_is_init(),
            _ => false,
        };
        let Some(range) = placed else {
            let laid_out = read.form == Form::Standard || read.header.layout().has(component);
            return match (held, laid_out) {
                (false, false) => Content::Init(", not in the image"),
                (false, true) => Content::Init(""),
                (true, false) => Content::Unplaced("no place: XCOMP_BV does not have it"),
                (true, true) => Content::Unplaced("no place is known for it"),
            };
        };
        if !held {
            return Content::Init("");
        }
        let Some(bytes) = self.bytes.get(range) else {
            return Content::CutOff;
        };
        let bytes = component
            .payload_bytes()
            .and_then(|payload| bytes.get(..payload))
            .unwrap_or(bytes);
        let zero = component.get() > 1 && bytes.iter().all(|byte| *byte == 0);
        if init_by_content || zero {
            return Content::Init(", by its content");
        }
        Content::InUse(bytes)
    }
}

/// The form that the header says.
pub fn form(header: &XsaveHeader) -> Form {
    if header.xcomp_bv() & COMPACTED != 0 {
        Form::Compacted
    } else {
        Form::Standard
    }
}

/// The MXCSR that a restore gives (SDM Vol. 1, 13.8.1 and 13.12).
fn mxcsr(read: &Read<'_>) -> u32 {
    if read.form == Form::Standard || read.header.xstate_bv().has(C::SSE) {
        read.legacy.mxcsr.get()
    } else {
        MXCSR_INIT
    }
}

/// What a standard image holds; `None` of a compacted one.
pub fn standard_components(bytes: &[u8]) -> Option<ComponentSet> {
    match bytes.get(LEGACY_BYTES..).map(XsaveHeader::ref_from_prefix) {
        Some(Ok((header, _))) if form(header) == Form::Standard => Some(header.xstate_bv()),
        _ => None,
    }
}

/// Whether the bytes look like an image: a header whose reserved bytes are
/// zero behind a legacy region.
pub fn looks_like_one(bytes: &[u8]) -> bool {
    let Some(Ok((header, _))) = bytes.get(LEGACY_BYTES..).map(XsaveHeader::ref_from_prefix) else {
        return false;
    };
    let layout = header.layout().bits();
    let form = match header.xcomp_bv() {
        0 => true,
        xcomp_bv => xcomp_bv & COMPACTED != 0 && header.xstate_bv().bits() & !layout & !3 == 0,
    };
    // A mask of components, not text or code that happens to stand there.
    header.first_reserved().is_none() && form && header.xstate_bv().bits() >> 63 == 0
}

/// A mask with its components' names; bit 63, where it is set, by what it
/// means in XCOMP_BV.
pub fn mask(section: &mut Section, key: &str, label: &str, bits: u64) {
    let set = ComponentSet::from_bits_retain(bits & !COMPACTED);
    let names = match (bits & COMPACTED != 0, set.is_empty()) {
        (true, _) => format!("compacted: {set}"),
        (false, true) => String::new(),
        (false, false) => set.to_string(),
    };
    section.hex(key, label, bits, &names);
}
