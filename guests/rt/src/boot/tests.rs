//! Start information as a loader writes it, in a small pretended memory.

use super::*;

/// Offsets in the pretended memory.
const INFO: usize = 0x100;
const CMDLINE: usize = 0x200;
const MODLIST: usize = 0x300;
const NAME: usize = 0x400;
const MAP: usize = 0x500;

static MEMORY: [u8; 0x1000] = {
    let mut memory = [0; 0x1000];
    put(&mut memory, INFO, 0x336e_c578, 4);
    put(&mut memory, INFO + 4, 1, 4);
    put(&mut memory, INFO + 12, 2, 4);
    put(&mut memory, INFO + 16, MODLIST as u64, 8);
    put(&mut memory, INFO + 24, CMDLINE as u64, 8);
    put(&mut memory, INFO + 40, MAP as u64, 8);
    put(&mut memory, INFO + 48, 2, 4);
    text(&mut memory, CMDLINE, b"seed=1 break=avx seed=7");
    // A module that is there, and one that lies outside of memory.
    put(&mut memory, MODLIST, 0x600, 8);
    put(&mut memory, MODLIST + 8, 3, 8);
    put(&mut memory, MODLIST + 16, NAME as u64, 8);
    put(&mut memory, MODLIST + 32, 0x9999_0000, 8);
    put(&mut memory, MODLIST + 40, 5, 8);
    text(&mut memory, NAME, b"torture");
    text(&mut memory, 0x600, b"ELF");
    // 640 KiB, and 4 MiB at 1 MiB.
    put(&mut memory, MAP + 8, 0xa_0000, 8);
    put(&mut memory, MAP + 16, 1, 4);
    put(&mut memory, MAP + 24, 0x10_0000, 8);
    put(&mut memory, MAP + 32, 0x40_0000, 8);
    put(&mut memory, MAP + 40, 1, 4);
    memory
};

const fn put(memory: &mut [u8; 0x1000], offset: usize, value: u64, bytes: usize) {
    let mut i = 0;
    while i < bytes {
        memory[offset + i] = (value >> (8 * i)) as u8;
        i += 1;
    }
}

const fn text(memory: &mut [u8; 0x1000], offset: usize, text: &[u8]) {
    let mut i = 0;
    while i < text.len() {
        memory[offset + i] = text[i];
        i += 1;
    }
}

fn pretended(address: u64, bytes: u64) -> Option<&'static [u8]> {
    let start = usize::try_from(address).ok()?;
    MEMORY.get(start..start.checked_add(usize::try_from(bytes).ok()?)?)
}

#[test]
fn the_loaders_words_are_read() {
    let boot = BootInfo::parse(INFO as u64, pretended).unwrap();
    assert_eq!(boot.cmdline(), "seed=1 break=avx seed=7");
    assert_eq!(boot.option("seed"), Some("7"));
    assert_eq!(boot.option("break"), Some("avx"));
    assert_eq!(boot.option("bre"), None);
    let modules: Vec<_> = boot.modules().collect();
    assert_eq!(modules.len(), 1);
    assert_eq!((modules[0].name, modules[0].data), ("torture", &b"ELF"[..]));
}

#[test]
fn free_memory_is_the_largest_piece_that_nothing_lies_in() {
    let boot = BootInfo::parse(INFO as u64, pretended).unwrap();
    assert_eq!(boot.free_above(0x18_0001), 0x18_1000..0x50_0000);
    assert_eq!(boot.free_above(0x60_0000), 0..0);
    // Below, the loader's structures end at 0x603.
    let low = BootInfo {
        map: (MAP as u64, 1),
        ..BootInfo::parse(INFO as u64, pretended).unwrap()
    };
    assert_eq!(low.free_above(0), 0x1000..0xa_0000);
}

#[test]
fn what_is_not_start_information_is_refused() {
    assert!(BootInfo::parse(0x200, pretended).is_none());
    assert!(BootInfo::parse(0xffff_ffff_ffff_fff0, pretended).is_none());
    assert!(BootInfo::parse(0xff0, pretended).is_none());
}
