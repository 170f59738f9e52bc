//! Where components lie in an image: by its directory, by a machine's leaf 0xD,
//! or by what most machines have.

use std::collections::BTreeMap;

use migration_abi::blob::DirectoryEntry;
use vcpu_xstate::layout::{GeometryError, MAX_COMPONENT_BYTES, MAX_STANDARD_END_BYTES};
use vcpu_xstate::layout::{LEGACY_BYTES, MIN_IMAGE_BYTES};
use vcpu_xstate::{ComponentFacts, ComponentIndex, ComponentSet, Form, Geometry};

use super::finding::{Finding, Seen};

/// The layout by which an image is read.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The places.
    pub geometry: Geometry,
    /// Whose they are.
    name: String,
    /// Whether nobody said that the image has it.
    pub assumed: bool,
    /// What of a directory could not be believed, by offset in the blob; there
    /// is no place for these components.
    pub problems: Vec<Finding>,
    /// The first of them.
    pub broken: Option<GeometryError>,
    /// What it says all the same of components without a place.
    said: BTreeMap<u8, ComponentFacts>,
}

/// Index, size, standard offset and CPUID.(0xD,i):ECX, as processors have them
/// whose AVX-512 follows MPX's place (Intel), and of those where it does not (AMD).
type Row = (u8, u32, u32, u32);
const COMMON: &[Row] = &[
    (2, 256, 576, 0),
    (8, 128, 0, 1),
    (10, 8, 0, 1),
    (11, 16, 0, 1),
    (12, 24, 0, 1),
    (13, 8, 0, 1),
    (14, 48, 0, 1),
    (15, 808, 0, 1),
    (16, 8, 0, 1),
];
const INTEL: &[Row] = &[
    (3, 64, 960, 0),
    (4, 64, 1024, 0),
    (5, 64, 1088, 0),
    (6, 512, 1152, 0),
    (7, 1024, 1664, 0),
    (9, 8, 2688, 0),
    (17, 64, 2752, 2),
    (18, 8192, 2816, 6),
];
const AMD: &[Row] = &[
    (5, 64, 832, 0),
    (6, 512, 896, 0),
    (7, 1024, 1408, 0),
    (9, 8, 2432, 0),
];
/// Lengths of a standard image that only the second have.
const AMD_LENGTHS: [usize; 2] = [2432, 2440];

impl Layout {
    /// A blob's, whose entries begin at `base`, each `entry_len` bytes long.
    pub fn of_directory(entries: &[DirectoryEntry], base: usize, entry_len: usize) -> Self {
        let mut layout = Self::new("its directory", false);
        for (position, entry) in entries.iter().enumerate() {
            let at = base + position * entry_len;
            // What is no component, the blob's own reader has found.
            let index = u8::try_from(entry.index).ok().and_then(ComponentIndex::new);
            let Some(component) = index.filter(|index| index.get() > 1) else {
                continue;
            };
            let row = (
                component.get(),
                entry.size,
                entry.standard_offset,
                entry.flags,
            );
            let facts = facts(row);
            if let Err(error) = layout.geometry.insert(component, facts) {
                layout.problems.push(problem(error, facts, at));
                layout.broken = layout.broken.or(Some(error));
                layout.said.insert(component.get(), facts);
            }
        }
        layout
    }

    /// What most machines have that write standard images of `length` bytes
    /// with these components; of compacted images, with no components said,
    /// the layout that most machines have.
    pub fn usual(length: usize, standard: Option<ComponentSet>) -> Self {
        let of = |name: &str, rest: &[Row]| {
            let mut layout = Self::new(&format!("{name}'s usual layout"), true);
            for row in COMMON.iter().chain(rest) {
                // The tables are sound: a test inserts every row.
                let component = ComponentIndex::new(row.0);
                let _ = component.map(|c| layout.geometry.insert(c, facts(*row)));
            }
            layout
        };
        let (intel, amd) = (of("Intel", INTEL), of("AMD", AMD));
        let fits = |layout: &Self, held: ComponentSet| {
            layout.geometry.known().contains(held)
                && layout.geometry.image_size(Form::Standard, held) <= length
        };
        match standard {
            Some(held) if fits(&amd, held) => {
                let only_amd = AMD_LENGTHS.contains(&length) || !fits(&intel, held);
                if only_amd { amd } else { intel }
            }
            _ => intel,
        }
    }

    /// A machine's.
    pub fn of_machine(name: &str, geometry: &Geometry) -> Self {
        Self {
            geometry: geometry.clone(),
            ..Self::new(name, false)
        }
    }

    /// Whose it is.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whose it is, and whether that is a guess.
    pub fn source(&self) -> String {
        if self.assumed {
            format!("{}, assumed (--layout CPU names another)", self.name)
        } else {
            self.name.clone()
        }
    }

    /// What is known of a component of the extended region, believed or not.
    pub fn facts(&self, component: ComponentIndex) -> Option<&ComponentFacts> {
        let believed = self.geometry.get(component);
        believed.or_else(|| self.said.get(&component.get()))
    }

    fn new(name: &str, assumed: bool) -> Self {
        Self {
            geometry: Geometry::new(),
            name: name.into(),
            assumed,
            problems: Vec::new(),
            broken: None,
            said: BTreeMap::new(),
        }
    }
}

const fn facts((_, size_bytes, standard_offset, flags): Row) -> ComponentFacts {
    ComponentFacts {
        size_bytes,
        standard_offset,
        supervisor: flags & 1 != 0,
        aligned64: flags & 2 != 0,
        xfd: flags & 4 != 0,
    }
}

/// An entry at `at` that no machine's layout can have.
fn problem(error: GeometryError, facts: ComponentFacts, at: usize) -> Finding {
    use GeometryError as E;
    const SIZE: usize = core::mem::offset_of!(DirectoryEntry, size);
    const OFFSET: usize = core::mem::offset_of!(DirectoryEntry, standard_offset);
    let offset = u64::from(facts.standard_offset);
    let (field, seen, allowed, text) = match error {
        E::Size(c, size) => (
            SIZE,
            u64::from(size),
            format!("1 to {MAX_COMPONENT_BYTES}"),
            format!("the size of {c} is one that a component can have"),
        ),
        E::Start(c, _) => (
            OFFSET,
            offset,
            format!("at least {MIN_IMAGE_BYTES}"),
            format!(
                "in the standard form {c} begins behind legacy region ({LEGACY_BYTES} bytes) and header"
            ),
        ),
        E::End(c, end) => (
            OFFSET,
            offset,
            format!(
                "at most {}",
                u64::from(MAX_STANDARD_END_BYTES) - u64::from(facts.size_bytes)
            ),
            format!(
                "{c} would end at {end} in the standard form, none ends behind {MAX_STANDARD_END_BYTES}"
            ),
        ),
        E::SupervisorOffset(c, _) => (
            OFFSET,
            offset,
            "0".into(),
            format!("{c}, a supervisor component, has no place in the standard form"),
        ),
        E::Overlap(c, other) => (
            OFFSET,
            offset,
            format!("bytes that {other} does not take"),
            format!("{c} and {other} share bytes of the standard form"),
        ),
        E::Legacy(c) | E::Twice(c) => (
            0,
            u64::from(c.get()),
            "each component once".into(),
            format!("{c} is there twice"),
        ),
    };
    Finding::new(error.rule(), at + field, Seen::Count(seen), allowed, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_usual_layouts_has_its_place() {
        for rest in [INTEL, AMD] {
            let mut geometry = Geometry::new();
            for row in COMMON.iter().chain(rest) {
                let component = ComponentIndex::new(row.0).unwrap();
                geometry.insert(component, facts(*row)).unwrap();
            }
        }
    }

    #[test]
    fn usual_layouts_are_sound_and_as_long_as_their_images() {
        for (length, mask) in [
            (832, 0x7),
            (896, 0x27),
            (2440, 0x2e7),
            (2432, 0xe7),
            (2696, 0x2ff),
            (11008, 0x602e7),
        ] {
            let mask = ComponentSet::from_bits_retain(mask);
            let layout = Layout::usual(length, Some(mask));
            assert!(layout.geometry.known().contains(mask));
            assert_eq!(layout.geometry.image_size(Form::Standard, mask), length);
        }
    }
}
