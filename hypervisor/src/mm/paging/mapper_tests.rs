//! Address spaces built in a `Vec` and read back through the lookup.

use super::*;
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

struct Tables {
    tables: Vec<[u64; 512]>,
    limit: usize,
}

/// Table `n` is at page `n + 1`, so that no table is at 0.
fn slot(table: HostPhys) -> usize {
    table.page_number() as usize - 1
}

impl TableMemory for Tables {
    fn allocate(&mut self) -> Result<HostPhys, OutOfFrames> {
        if self.tables.len() == self.limit {
            return Err(OutOfFrames { wanted: 1, free: 0 });
        }
        self.tables.push([0; 512]);
        Ok(HostPhys::from_page_number(self.tables.len() as u64).unwrap())
    }

    fn read(&self, table: HostPhys, index: u64) -> Entry {
        Entry::from_bits(self.tables[slot(table)][index as usize])
    }

    fn write(&mut self, table: HostPhys, index: u64, entry: Entry) {
        self.tables[slot(table)][index as usize] = entry.bits();
    }
}

fn mapper() -> Mapper<Tables> {
    Mapper::new(Tables {
        tables: vec![],
        limit: 1000,
    })
    .unwrap()
}

fn range(start: u64, end: u64) -> PhysRange {
    PhysRange::between(HostPhys::new(start), HostPhys::new(end))
}

fn page_at(mapper: &Mapper<Tables>, address: u64) -> Option<Entry> {
    let (entry, size) = mapper.lookup(address)?;
    Some(match size {
        PageSize::Small => entry,
        PageSize::Large => entry.small_part(address % LARGE_PAGE_BYTES / PAGE_BYTES),
    })
}

const WB: Caching = Caching::WriteBack;

#[test]
fn large_pages_where_they_fit_and_small_ones_at_the_edges() {
    let mut mapper = mapper();
    mapper
        .map_identity(range(0x1f_f000, 0x60_0801), Protection::ReadWrite, WB)
        .unwrap();
    let audit = Audit {
        small_pages: 2,
        large_pages: 2,
        writable_and_executable: 0,
    };
    assert_eq!(mapper.audit(), audit);
    assert_eq!(mapper.lookup(0x1f_efff), None);
    assert_eq!(mapper.lookup(0x60_1000), None);
    assert_eq!(mapper.lookup(0x40_0000).unwrap().1, PageSize::Large);
}

#[test]
fn a_hole_in_a_large_page_leaves_its_neighbours() {
    let mut mapper = mapper();
    mapper
        .map_identity(range(0, 0x40_0000), Protection::ReadWrite, WB)
        .unwrap();
    mapper.unmap(HostPhys::new(0)).unwrap();
    assert_eq!(mapper.lookup(0xfff), None);
    let next = Entry::page(
        HostPhys::new(0x1000),
        PageSize::Small,
        Protection::ReadWrite,
        WB,
    );
    assert_eq!(page_at(&mapper, 0x1000), Some(next));
    assert_eq!(mapper.lookup(0x20_0000).unwrap().1, PageSize::Large);
}

#[test]
fn a_large_mapping_over_told_apart_pages_reaches_each_of_them() {
    let mut mapper = mapper();
    mapper
        .map_identity(range(0, 0x20_0000), Protection::ReadWrite, WB)
        .unwrap();
    mapper.unmap(HostPhys::new(0x5000)).unwrap();
    mapper
        .map_identity(range(0, 0x20_0000), Protection::Read, WB)
        .unwrap();
    for address in [0, 0x5000, 0x1f_f000] {
        let page = Entry::page(
            HostPhys::new(address),
            PageSize::Small,
            Protection::Read,
            WB,
        );
        assert_eq!(page_at(&mapper, address), Some(page));
    }
}

#[test]
fn an_audit_finds_what_the_types_forbid() {
    let mut mapper = mapper();
    mapper
        .set(0x1000, PageSize::Small, Entry::from_bits(0x1003))
        .unwrap();
    assert_eq!(mapper.audit().writable_and_executable, 1);
}

#[test]
fn without_frames_mapping_is_an_error() {
    let mut mapper = Mapper::new(Tables {
        tables: vec![],
        limit: 3,
    })
    .unwrap();
    let refused = mapper.map_identity(range(0, 0x1000), Protection::Read, WB);
    assert_eq!(refused, Err(OutOfFrames { wanted: 1, free: 0 }));
}

proptest! {
    /// After any sequence, each page is what the last word about it said.
    #[test]
    fn the_last_word_counts(steps in prop::collection::vec((0u64..1600, 1u64..900, 0u8..4), 1..12)) {
        let mut mapper = mapper();
        let mut model: Vec<Option<Protection>> = vec![None; 2600];
        for (start, pages, what) in steps {
            let protection = match what {
                0 => None,
                1 => Some(Protection::Read),
                2 => Some(Protection::ReadWrite),
                _ => Some(Protection::ReadExecute),
            };
            let bytes = range(start * PAGE_BYTES, (start + pages) * PAGE_BYTES);
            match protection {
                Some(protection) => mapper.map_identity(bytes, protection, WB).unwrap(),
                None => for page in start..start + pages {
                    mapper.unmap(HostPhys::from_page_number(page).unwrap()).unwrap();
                },
            }
            model[start as usize..(start + pages) as usize].fill(protection);
        }
        for (page, expected) in (0u64..).zip(&model) {
            let frame = HostPhys::from_page_number(page).unwrap();
            let expected = expected.map(|protection| Entry::page(frame, PageSize::Small, protection, WB));
            prop_assert_eq!(page_at(&mapper, page * PAGE_BYTES), expected);
        }
        prop_assert_eq!(mapper.audit().writable_and_executable, 0);
    }
}
