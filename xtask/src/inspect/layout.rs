//! Where components lie in an image: by its directory, by a machine's leaf 0xD,
//! or by what most machines have.

use migration_abi::blob::DirectoryEntry;
use vcpu_xstate::{ComponentFacts, ComponentIndex, ComponentSet, Form, Geometry};

/// The layout by which an image is read.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The places.
    pub geometry: Geometry,
    /// Whose they are.
    pub source: String,
    /// What of it could not be believed.
    pub problems: Vec<String>,
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
    /// A blob's.
    pub fn of_directory(entries: &[DirectoryEntry]) -> Self {
        let rows = entries.iter().filter(|entry| entry.index > 1).map(|entry| {
            let index = u8::try_from(entry.index).unwrap_or(u8::MAX);
            (index, entry.size, entry.standard_offset, entry.flags)
        });
        Self::new("its directory", rows)
    }

    /// What most machines have that write standard images of `length` bytes
    /// with these components; of compacted images, with no components said,
    /// the layout that most machines have.
    pub fn usual(length: usize, standard: Option<ComponentSet>) -> Self {
        let of = |name: &str, rest: &[Row]| {
            let source = format!("{name}'s usual layout, assumed (--layout CPU names another)");
            Self::new(&source, COMMON.iter().chain(rest).copied())
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
            source: name.into(),
            problems: Vec::new(),
        }
    }

    fn new(source: &str, rows: impl Iterator<Item = Row>) -> Self {
        let mut layout = Self {
            geometry: Geometry::new(),
            source: source.into(),
            problems: Vec::new(),
        };
        for (index, size_bytes, standard_offset, flags) in rows {
            let facts = ComponentFacts {
                size_bytes,
                standard_offset,
                supervisor: flags & 1 != 0,
                aligned64: flags & 2 != 0,
                xfd: flags & 4 != 0,
            };
            let Some(component) = ComponentIndex::new(index) else {
                layout.problems.push(format!("{index} is no component"));
                continue;
            };
            if let Err(error) = layout.geometry.insert(component, facts) {
                layout.problems.push(format!("{component}: {error}"));
            }
        }
        layout
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(layout.problems, Vec::<String>::new());
            assert_eq!(layout.geometry.image_size(Form::Standard, mask), length);
        }
    }
}
