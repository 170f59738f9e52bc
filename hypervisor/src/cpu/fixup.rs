//! Instructions that may fault, and where to go on if they do.
//!
//! `asm!` that expects a fault adds a pair to the section `.fixups`: the
//! address of the instruction and that of the code to go on with, both relative
//! to the word that holds them. Nothing else survives an exception.
//!
//! ```text
//!   .pushsection .fixups, "a"
//!   .long 2b - .        # the instruction
//!   .long 3f - .        # where to go on
//!   .popsection
//! ```

/// One pair of the section, each relative to its own address.
#[repr(C)]
#[derive(Clone, Copy)]
struct Entry {
    instruction: i32,
    target: i32,
}

/// Where to go on after an exception at `rip`, if the instruction there
/// expected one.
pub fn target_of(rip: u64) -> Option<u64> {
    lookup(table(), rip)
}

fn lookup(table: &[Entry], rip: u64) -> Option<u64> {
    table
        .iter()
        .find(|entry| absolute(&entry.instruction) == rip)
        .map(|entry| absolute(&entry.target))
}

fn absolute(word: &i32) -> u64 {
    let here = core::ptr::from_ref(word).addr() as u64;
    here.wrapping_add_signed(i64::from(*word))
}

#[cfg(target_os = "none")]
#[allow(unsafe_code)] // the linker's symbols
fn table() -> &'static [Entry] {
    unsafe extern "C" {
        static __fixups_start: Entry;
        static __fixups_end: Entry;
    }
    let start = &raw const __fixups_start;
    let bytes = (&raw const __fixups_end).addr() - start.addr();
    // SAFETY: the linker script puts all of `.fixups`, pairs of 32-bit words,
    // between the symbols, 4-byte aligned, in read-only memory.
    unsafe { core::slice::from_raw_parts(start, bytes / size_of::<Entry>()) }
}

/// The tests' process has its own ways with faults.
#[cfg(not(target_os = "none"))]
fn table() -> &'static [Entry] {
    &[]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_relative_to_where_they_stand() {
        let table = [
            Entry {
                instruction: 0x100,
                target: -0x40,
            },
            Entry {
                instruction: 0x200,
                target: 0x20,
            },
        ];
        let word = |index: usize| core::ptr::from_ref(&table[index]).addr() as u64;
        assert_eq!(lookup(&table, word(0) + 0x100), Some(word(0) + 4 - 0x40));
        assert_eq!(lookup(&table, word(1) + 0x200), Some(word(1) + 4 + 0x20));
        assert_eq!(lookup(&table, word(1) + 0x201), None);
    }
}
