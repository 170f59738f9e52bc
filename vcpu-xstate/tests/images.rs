//! Images that processors wrote: each pair converts into what restores the same registers.
//!
//! The corpus is the file that `XFERRY_XSAVE_CORPUS` names; a small one, taken
//! on an Intel processor with AMX and PKRU, is beside this test. What the registers are
//! says plain code ([`xstate_capture::restored`]), and it must first explain
//! every checksum that the processor's own restore gave.
#![cfg(not(miri))] // reads files

use std::io::Write;

use vcpu_xstate::convert::{Target, canonical_size, canonicalise, transfer};
use vcpu_xstate::layout::{ComponentFacts, Form, Geometry};
use vcpu_xstate::{ComponentIndex, ComponentSet, Image};
use xstate_capture::corpus::{Component, Corpus, DIFFER, Record};
use xstate_capture::restored::{self, Form as Stored};

const OWN: &[u8] = include_bytes!("data/images-intel-amx.bin");
const PKRU: u64 = 1 << 9;
const SSE: ComponentSet = ComponentSet::from_bits_retain(2);

/// A machine's layout as the corpus tells it, for this crate and for the plain code.
struct Layout {
    corpus: Corpus,
    geometry: Geometry,
    mxcsr_mask: u32,
}

impl Layout {
    fn new(xcr0: u64, components: Vec<Component>, mxcsr_mask: u32) -> Result<Self, String> {
        let mut geometry = Geometry::new();
        for component in &components {
            let index = u8::try_from(component.index).ok();
            let index = index.and_then(ComponentIndex::new).ok_or("no component")?;
            let facts = ComponentFacts {
                size_bytes: component.size,
                standard_offset: component.offset,
                supervisor: component.traits & 1 != 0,
                aligned64: component.aligned(),
                xfd: component.traits & 4 != 0,
            };
            let inserted = geometry.insert(index, facts);
            inserted.map_err(|error| error.to_string())?;
        }
        Ok(Self {
            corpus: Corpus {
                xcr0,
                components,
                records: Vec::new(),
            },
            geometry,
            mxcsr_mask,
        })
    }

    /// A machine with the same components at other places: in reverse order,
    /// with gaps, all aligned or none, and with a component of eight bytes
    /// among them that is not, so that alignment makes holes.
    fn elsewhere(&self, aligned: bool) -> Self {
        let mut components = self.corpus.components.clone();
        let mut xcr0 = self.corpus.xcr0;
        if xcr0 & PKRU == 0 {
            xcr0 |= PKRU;
            components.push(Component {
                index: PKRU.trailing_zeros(),
                size: 8,
                offset: 0,
                traits: 0,
            });
        }
        let mut offset = 576;
        for component in components.iter_mut().rev() {
            offset += 64;
            component.offset = offset;
            component.traits &= !2;
            if aligned && component.bit() != PKRU {
                component.traits |= 2;
            }
            offset += component.size;
        }
        Self::new(xcr0, components, self.mxcsr_mask).expect("a geometry")
    }

    /// The registers after INIT and a restore of `image` with all of XCR0, as
    /// an image of `home`. The header must be one that the processor takes.
    fn restore(&self, form: Form, image: &[u8], home: &Self) -> Result<Vec<u8>, String> {
        let (bv, comp) = (restored::xstate_bv(image), restored::xcomp_bv(image));
        let (stored, legal) = match form {
            Form::Standard => (Stored::Standard, comp == 0),
            Form::Compacted => (
                Stored::Compacted,
                comp >> 63 == 1 && bv & !comp == 0 && comp << 1 >> 1 & !self.corpus.xcr0 == 0,
            ),
        };
        let reserved = image[528..576].iter().any(|byte| *byte != 0);
        if !legal || reserved || bv & !self.corpus.xcr0 != 0 {
            return Err(format!("#GP: XSTATE_BV {bv:#x}, XCOMP_BV {comp:#x}"));
        }
        let mxcsr = restored::mxcsr(image);
        if mxcsr & !self.mxcsr_mask != 0 && (form == Form::Standard || bv & 2 != 0) {
            return Err(format!("#GP: MXCSR {mxcsr:#x}"));
        }
        let rfbm = self.corpus.xcr0;
        let here = restored::registers(&self.corpus, stored, image, rfbm, self.mxcsr_mask)
            .ok_or("#PF: the image ends")?;
        // Moved by plain code to where `home` has them.
        let home_bytes = restored::standard_size(&home.corpus.components, home.corpus.xcr0);
        let mut moved = vec![0; home_bytes];
        moved[..576].copy_from_slice(&here[..576]);
        for from in &self.corpus.components {
            let bytes = &here[from.offset as usize..][..from.size as usize];
            let at_home = |to: &&Component| to.index == from.index;
            match home.corpus.components.iter().find(at_home) {
                Some(to) => moved[to.offset as usize..][..bytes.len()].copy_from_slice(bytes),
                None if bytes.iter().all(|byte| *byte == 0) => {}
                None => return Err("state of a component that was not there".into()),
            }
        }
        Ok(moved)
    }
}

/// The two images of a record with what reading them takes.
struct Source<'a> {
    name: &'static str,
    image: Image<'a>,
    /// Components to take: what was saved, and SSE where MXCSR was saved for
    /// AVX alone.
    taken: ComponentSet,
    crc: u32,
    mxcsr: u32,
}

fn sources<'a>(layout: &'a Layout, record: &'a Record) -> [Source<'a>; 2] {
    let view = |form, bytes| Image::new(bytes, &layout.geometry, form);
    let saved = ComponentSet::from_bits_retain(record.rfbm);
    let standard = view(Form::Standard, record.standard.as_slice());
    let compacted = view(Form::Compacted, record.compacted.as_slice());
    [
        Source {
            name: "standard",
            image: standard.expect("XSAVE's own image"),
            // XSAVE writes MXCSR for SSE and for AVX; a save of neither leaves
            // there what was there.
            taken: if record.rfbm & 6 != 0 {
                saved.union(SSE)
            } else {
                saved
            },
            crc: record.crc[0],
            mxcsr: record.mxcsr[0],
        },
        Source {
            name: "compacted",
            image: compacted.expect("XSAVEC's own image"),
            taken: saved,
            crc: record.crc[1],
            mxcsr: record.mxcsr[1],
        },
    ]
}

/// The canonical image of a source.
fn canonical(source: &Source<'_>) -> Vec<u8> {
    let leave_out = ComponentSet::ALL.difference(source.taken);
    let size = canonical_size(&source.image, leave_out);
    let mut out = vec![0xa5; size];
    let written = canonicalise(&source.image, leave_out, &mut out);
    assert_eq!(written.map(|c| c.len_bytes), Ok(size));
    out
}

/// Converts each image of a pair to every form, layout and machine.
fn check(layout: &Layout, elsewhere: &[Layout; 2], record: &Record) -> Result<(), String> {
    let mask = layout.mxcsr_mask;
    if let Some(what) = restored::unexplained(&layout.corpus, mask, record) {
        return Err(format!("the stored images are not explained: {what}"));
    }
    let sources = sources(layout, record);
    let canonicals = [0, 1].map(|i| canonical(&sources[i]));
    for (source, canonical) in sources.iter().zip(&canonicals) {
        let judge = |what: &str, there: &Layout, form, image: &[u8]| {
            let name = source.name;
            let registers = there.restore(form, image, layout);
            let registers = registers.map_err(|why| format!("{name} to {what}: {why}"))?;
            let (crc, mxcsr) = (restored::crc32(&registers), restored::mxcsr(&registers));
            if (crc, mxcsr) != (source.crc, source.mxcsr) {
                return Err(format!(
                    "{name} to {what}: crc32 {crc:08x} for {:08x}, MXCSR {mxcsr:x} for {:x}",
                    source.crc, source.mxcsr
                ));
            }
            Ok(())
        };
        judge("canonical", layout, Form::Compacted, canonical)?;
        let [aligned, packed] = elsewhere;
        for (place, there) in [("here", layout), ("aligned", aligned), ("packed", packed)] {
            for form in [Form::Standard, Form::Compacted] {
                let all = ComponentSet::from_bits_retain(there.corpus.xcr0);
                for layout in [
                    source.taken,
                    source.taken.difference(ComponentSet::LEGACY),
                    all,
                ] {
                    let target = Target {
                        geometry: &there.geometry,
                        form,
                        layout,
                    };
                    // Not zero: what a restore reads must have been written.
                    let mut out = vec![0xa5; target.size_bytes()];
                    let done = transfer(&source.image, source.taken, target, &mut out);
                    done.map_err(|error| error.to_string())?;
                    let what = format!("{form:?} of {:#x}, {place}", layout.bits());
                    judge(&what, there, form, &out)?;
                }
            }
        }
    }
    // Same registers, same bytes; other registers, other bytes.
    let same = canonicals[0] == canonicals[1];
    if same != (record.flags & DIFFER == 0) {
        return Err(format!("canonical images: same is {same}"));
    }
    Ok(())
}

/// Checks a corpus and prints what came of it. Gives how many pairs it checked.
fn check_all(bytes: &[u8]) -> usize {
    let corpus = Corpus::read(bytes).expect("a corpus");
    let mut skipped = 0;
    let layout = restored::mxcsr_mask(&corpus)
        .ok_or("no image of it holds MXCSR_MASK".to_string())
        .and_then(|mask| Layout::new(corpus.xcr0, corpus.components.clone(), mask));
    match layout {
        Ok(layout) => {
            let elsewhere = [true, false].map(|aligned| layout.elsewhere(aligned));
            for record in &corpus.records {
                if let Err(why) = check(&layout, &elsewhere, record) {
                    panic!("state {} RFBM {:#x}: {why}", record.state, record.rfbm);
                }
            }
        }
        Err(why) => {
            say(&format!("skipped: {why}"));
            skipped = corpus.records.len();
        }
    }
    let checked = corpus.records.len() - skipped;
    say(&format!(
        "images: {checked} pairs checked, {skipped} skipped"
    ));
    checked
}

/// Past the harness, which would keep it.
fn say(line: &str) {
    writeln!(std::io::stdout().lock(), "{line}").expect("standard output");
}

#[test]
fn images() {
    let Some(path) = std::env::var_os("XFERRY_XSAVE_CORPUS") else {
        say("skipped: XFERRY_XSAVE_CORPUS names no corpus; the small one beside the test instead");
        assert!(check_all(OWN) > 0);
        return;
    };
    let bytes = std::fs::read(&path).expect("the corpus that XFERRY_XSAVE_CORPUS names");
    assert!(check_all(&bytes) > 0);
}

/// The corpus beside the test has what the checks are about: AMX, whose
/// compacted form is aligned; PKRU, of whose eight bytes four are written; MXCSR
/// that only one of the forms restores; XSTATE_BV over contents that are INIT.
#[test]
fn own_images() {
    let corpus = Corpus::read(OWN).expect("a corpus");
    let has = |what: fn(&Record) -> bool| corpus.records.iter().any(what);
    assert!(corpus.components.iter().any(Component::aligned));
    assert!(has(|record| record.flags & 2 != 0));
    assert!(has(|record| record.rfbm & 0x6_0000 == 0x6_0000));
    assert!(has(|record| restored::xstate_bv(&record.standard)
        & 0x6_0000
        == 0x6_0000));
    // What is left of the buffer behind PKRU is no state.
    let pkru = corpus.components.iter().find(|one| one.bit() == PKRU);
    let at = pkru.map_or(0, |pkru| pkru.offset as usize);
    let written = |r: &&Record| restored::xstate_bv(&r.standard) & PKRU != 0;
    let stale = |r: &Record| r.standard[at..at + 8][4..] == [0xcc; 4];
    assert!(corpus.records.iter().find(written).is_some_and(stale));
    assert!(check_all(OWN) > 10);
}

/// What is taken on the machine that runs the tests converts too, under all
/// the masks of a full capture.
#[test]
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn images_taken_here() {
    use xstate_capture::player::Processor;
    use xstate_capture::take::{Extent, take};

    let taken = Processor::here().and_then(|processor| take(&processor, Extent::Full));
    match taken {
        Ok(corpus) => assert!(check_all(&corpus.write()) > 100),
        Err(why) => say(&format!("skipped: {why}")),
    }
}
