//! An XSAVE image: its header, each component's place and state, and the registers.

use std::collections::BTreeMap;

use serde_json::json;
use vcpu_xstate::header::{COMPACTED, XsaveHeader};
use vcpu_xstate::layout::{LEGACY_BYTES, MIN_IMAGE_BYTES};
use vcpu_xstate::legacy::{LegacyRegion, MXCSR_INIT};
use vcpu_xstate::{ComponentIndex as C, ComponentSet, Form, Placement};
use zerocopy::FromBytes;

use super::document::{Section, Table, numbers, words};
use super::finding::Finding;
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
    /// Whether bytes may follow the last component (KVM's buffers, Xen's records).
    pub padded: bool,
    /// Whether all bytes of what is large are shown.
    pub full: bool,
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
    Unplaced,
}

impl<'a> Image<'a> {
    /// Adds header, components and registers to `root`; gives what is wrong,
    /// with offsets from the image's start.
    pub fn explain(&self, root: &mut Section) -> Vec<Finding> {
        let Some(read) = self.read() else {
            let mut section = Section::new("image", "Image");
            section.line(format!(
                "{} bytes, too few for the legacy region and the header ({MIN_IMAGE_BYTES})",
                self.bytes.len()
            ));
            root.section(section);
            return vec![finding(
                "image-too-short",
                0,
                self.bytes.len() as u64,
                format!("at least {MIN_IMAGE_BYTES:#x}"),
                "an image has at least legacy region and header",
            )];
        };
        let findings = self.findings(&read);
        let mut section = self.header(&read);
        section.table(self.components(&read));
        for problem in &self.layout.problems {
            section.line(format!("no place for {problem}"));
        }
        root.section(section);
        let mut held = BTreeMap::new();
        for component in self.shown(&read) {
            if let Content::InUse(bytes) = self.content(&read, component) {
                held.insert(component.get(), bytes);
            }
        }
        let state = State {
            legacy: read.legacy,
            mxcsr: mxcsr(&read),
            held,
        };
        root.section(registers::explain(&state, self.full));
        findings
    }

    fn read(&self) -> Option<Read<'a>> {
        let (legacy, rest) = LegacyRegion::ref_from_prefix(self.bytes).ok()?;
        let (header, _) = XsaveHeader::ref_from_prefix(rest).ok()?;
        let form = form(header);
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

    fn findings(&self, read: &Read<'_>) -> Vec<Finding> {
        let mut findings = Vec::new();
        let header = read.header;
        let beyond = header.xstate_bv().difference(header.layout());
        if read.form == Form::Compacted && !beyond.is_empty() {
            findings.push(finding(
                "xstate-bv-xcomp-bv",
                512,
                header.xstate_bv().bits(),
                format!("no bits but {:#x}", header.layout().bits()),
                "XSTATE_BV of a compacted image is within its XCOMP_BV",
            ));
        }
        if read.form == Form::Standard && header.xcomp_bv() != 0 {
            findings.push(finding(
                "xcomp-bv-bit-63",
                520,
                header.xcomp_bv(),
                "0, or bit 63 set".into(),
                "XCOMP_BV of a standard image is zero",
            ));
        }
        if let Some(word) = header.first_reserved() {
            findings.push(finding(
                "header-reserved",
                528,
                word,
                "0x0".into(),
                "bytes 16 to 63 of the header are zero",
            ));
        }
        let needed = self.needed(read);
        let length = self.bytes.len();
        if length < needed || !self.padded && read.form == Form::Compacted && length != needed {
            let word = if self.padded { "at least " } else { "" };
            findings.push(finding(
                "image-length",
                0,
                length as u64,
                format!("{word}{needed:#x}"),
                "an image is as long as its components reach",
            ));
        }
        findings
    }

    /// Bytes that the components of the image take.
    fn needed(&self, read: &Read<'_>) -> usize {
        let mask = match read.form {
            Form::Standard => read.header.xstate_bv(),
            Form::Compacted => read.header.layout(),
        };
        self.layout.geometry.image_size(read.form, mask)
    }

    fn header(&self, read: &Read<'_>) -> Section {
        let form = match read.form {
            Form::Standard => "standard",
            Form::Compacted => "compacted",
        };
        let mut section = Section::new("image", "Image").with_note(format!(
            "{form}, {} bytes, laid out by {}",
            self.bytes.len(),
            self.layout.source
        ));
        let header = read.header;
        section.value("form", json!(form));
        section.value("bytes", json!(self.bytes.len()));
        section.value("layout", json!(self.layout.source));
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
            let facts = self.layout.geometry.get(component);
            let place = self.place(read, component);
            let size = facts.map_or(legacy_size(component), |facts| facts.size_bytes as usize);
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
            let (state, in_use, text) = match self.content(read, component) {
                Content::Init(why) => ("init", false, format!("INIT{why}")),
                Content::InUse(_) => ("in_use", true, "in use".into()),
                Content::CutOff => (
                    "cut_off",
                    true,
                    "cut off: the image ends before it does".into(),
                ),
                Content::Unplaced => ("unplaced", true, "no place is known for it".into()),
            };
            let dash = |number: Option<usize>| number.map_or("–".into(), |n| n.to_string());
            let here = place
                .clone()
                .filter(|_| in_use || read.form == Form::Compacted);
            table.row(
                vec![
                    component.to_string(),
                    if size == 0 {
                        "?".into()
                    } else {
                        size.to_string()
                    },
                    kind.join(" "),
                    dash(standard),
                    dash(here.map(|range| range.start)),
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
                    "image_offset": place.map(|range| range.start),
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
            let known = self.layout.geometry.known().has(component);
            return match (held, known) {
                (false, _) => Content::Init(", not in the image"),
                (true, _) => Content::Unplaced,
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

fn legacy_size(component: C) -> usize {
    match component {
        C::X87 => 160,
        C::SSE => 256,
        _ => component.payload_bytes().unwrap_or(0),
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

fn finding(rule: &str, offset: usize, seen: u64, allowed: String, text: &str) -> Finding {
    Finding {
        rule: rule.into(),
        offset,
        seen,
        allowed,
        text: text.into(),
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
