//! Boot information laid out by hand, as the specification has it.
#![allow(unsafe_code)] // BootInformation::load takes a pointer

use super::*;
use std::vec::Vec;

/// Tags to a whole structure: total size, reserved, tags each on 8 bytes, end.
fn structure(tags: &[Vec<u8>]) -> Vec<u64> {
    let mut bytes = std::vec![0u8; 8];
    for tag in tags.iter().chain([&tag(0, &[])]) {
        bytes.extend_from_slice(tag);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    let total = bytes.len() as u32;
    bytes[..4].copy_from_slice(&total.to_le_bytes());
    bytes
        .chunks_exact(8)
        .map(|word| u64::from_le_bytes(word.try_into().unwrap()))
        .collect()
}

fn tag(kind: u32, body: &[u8]) -> Vec<u8> {
    let mut tag = kind.to_le_bytes().to_vec();
    tag.extend_from_slice(&(body.len() as u32 + 8).to_le_bytes());
    tag.extend_from_slice(body);
    tag
}

fn memory_map(entries: &[(u64, u64, u32)]) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend_from_slice(&24u32.to_le_bytes());
    body.extend_from_slice(&0u32.to_le_bytes());
    for (start, bytes, kind) in entries {
        body.extend_from_slice(&start.to_le_bytes());
        body.extend_from_slice(&bytes.to_le_bytes());
        body.extend_from_slice(&u64::from(*kind).to_le_bytes());
    }
    tag(6, &body)
}

fn module(start: u32, end: u32, name: &str) -> Vec<u8> {
    let mut body = start.to_le_bytes().to_vec();
    body.extend_from_slice(&end.to_le_bytes());
    body.extend_from_slice(name.as_bytes());
    body.push(0);
    tag(3, &body)
}

fn parsed(tags: &[Vec<u8>]) -> Result<BootInfo, BootError> {
    let words = structure(tags);
    // SAFETY: `words` is a whole structure of the size that it says, 8-byte
    // aligned, and outlives what is loaded from it.
    let information = unsafe { BootInformation::load(words.as_ptr().cast()) };
    parse(&information.map_err(BootError::Structure)?)
}

#[test]
fn a_machine_with_two_modules() {
    let boot = parsed(&[
        tag(1, b"log=debug\0"),
        module(0x20_0000, 0x20_1234, "toolstack"),
        module(0x30_0000, 0x30_0000, ""),
        memory_map(&[
            (0, 0x9_fc00, 1),
            (0x9_fc00, 0x400, 2),
            (0x7fe_0000, 0x2_0000, 3),
            (0x800_0000, 1, 77),
        ]),
    ])
    .unwrap();
    assert_eq!(boot.option("log"), Some("debug"));
    let modules: Vec<_> = boot.modules().collect();
    assert_eq!(modules[0].name.as_str(), "toolstack");
    assert_eq!(modules[0].range.start(), HostPhys::new(0x20_0000));
    assert_eq!(modules[0].range.size_bytes(), 0x1234);
    assert!(modules[1].range.is_empty());
    let kinds: Vec<_> = boot.memory().map(|region| region.kind).collect();
    use RegionKind::{AcpiTables, Available, Reserved};
    assert_eq!(kinds, [Available, Reserved, AcpiTables, Reserved]);
}

#[test]
fn without_a_memory_map_there_is_no_boot() {
    assert!(matches!(
        parsed(&[tag(1, b"x\0")]),
        Err(BootError::NoMemoryMap)
    ));
}

#[test]
fn ranges_that_cannot_be_are_refused() {
    let backwards = parsed(&[memory_map(&[(0, 0x1000, 1)]), module(0x2000, 0x1000, "m")]);
    assert!(matches!(
        backwards,
        Err(BootError::Range { start: 0x2000, .. })
    ));
    let overflow = parsed(&[memory_map(&[(u64::MAX, 2, 1)])]);
    assert!(matches!(
        overflow,
        Err(BootError::Range {
            start: u64::MAX,
            bytes: 2
        })
    ));
}

#[test]
fn a_name_that_is_too_long_is_refused_by_name() {
    let long = "x".repeat(65);
    let refused = parsed(&[memory_map(&[(0, 0x1000, 1)]), module(0, 0, &long)]);
    assert!(matches!(
        refused,
        Err(BootError::TooMany(TooMany { limit: 64, .. }))
    ));
}
