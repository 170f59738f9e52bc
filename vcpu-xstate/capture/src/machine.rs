//! CPUID of this machine: what the corpus says of it, and its rows for a table.

use std::arch::x86_64::{__cpuid_count, CpuidResult};

use crate::corpus::Component;

/// One query and its answer.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// EAX of the query.
    pub leaf: u32,
    /// ECX of the query.
    pub subleaf: u32,
    /// The answer.
    pub answer: CpuidResult,
}

/// One query.
pub fn cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
    __cpuid_count(leaf, subleaf)
}

/// Whether the system has enabled XSAVE.
pub fn has_xsave() -> bool {
    cpuid(1, 0).ecx & 1 << 27 != 0
}

/// CPUID.(0xD,1):EAX, 0 where there is none.
pub fn instructions() -> u32 {
    if cpuid(0, 0).eax < 0xd {
        return 0;
    }
    cpuid(0xd, 1).eax
}

/// The components of `mask` above SSE, ascending.
pub fn components(mask: u64) -> Vec<Component> {
    let component = |index| {
        let leaf = cpuid(0xd, index);
        Component {
            index,
            size: leaf.eax,
            offset: leaf.ebx,
            traits: leaf.ecx,
        }
    };
    (2..63)
        .filter(|index| mask & 1 << index != 0)
        .map(component)
        .collect()
}

/// Linear addresses are this many bits wide.
pub fn linear_address_bits() -> u32 {
    if cpuid(0x8000_0000, 0).eax < 0x8000_0008 {
        return 48;
    }
    match cpuid(0x8000_0008, 0).eax >> 8 & 0xff {
        bits @ 48..=57 => bits,
        _ => 48,
    }
}

/// The brand string, or the family and model where there is none.
pub fn brand() -> String {
    if cpuid(0x8000_0000, 0).eax < 0x8000_0004 {
        return format!("signature {:08x}", cpuid(1, 0).eax);
    }
    text(&[0x8000_0002, 0x8000_0003, 0x8000_0004].map(|leaf| {
        let r = cpuid(leaf, 0);
        [r.eax, r.ebx, r.ecx, r.edx]
    }))
}

/// The vendor's twelve letters.
pub fn vendor() -> String {
    let r = cpuid(0, 0);
    text(&[[r.ebx, r.edx, r.ecx, 0]])
}

/// The letters of these registers, without what would end a field or a line.
fn text(registers: &[[u32; 4]]) -> String {
    let bytes: Vec<u8> = registers
        .iter()
        .flatten()
        .flat_map(|register| register.to_le_bytes())
        .filter(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b',' | b'"'))
        .collect();
    String::from_utf8_lossy(&bytes)
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

/// What a table of machines holds of this one: leaves 0, 1, 7, 0xD, those of
/// features that have components (0x14 PT, 0x1C LBR, 0x1D and 0x1E AMX, 0x24
/// AVX10, 0x29 APX), 0x8000_0001, 0x8000_0008 and 0x8000_000A, with the
/// subleaves that say something.
pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut ask = |leaf: u32, subleaves: std::ops::Range<u32>| {
        if leaf > cpuid(leaf & 0x8000_0000, 0).eax {
            return;
        }
        for subleaf in subleaves {
            let answer = cpuid(leaf, subleaf);
            let r = [answer.eax, answer.ebx, answer.ecx, answer.edx];
            if subleaf == 0 || r != [0; 4] {
                rows.push(Row {
                    leaf,
                    subleaf,
                    answer,
                });
            }
        }
    };
    ask(0, 0..1);
    ask(1, 0..1);
    ask(7, 0..cpuid(7, 0).eax.min(63) + 1);
    ask(0xd, 0..63);
    ask(0x14, 0..1);
    ask(0x1c, 0..1);
    ask(0x1d, 0..2);
    ask(0x1e, 0..2);
    ask(0x24, 0..2);
    ask(0x29, 0..1);
    ask(0x8000_0001, 0..1);
    ask(0x8000_0008, 0..1);
    ask(0x8000_000a, 0..1);
    // The number of the local APIC says which CPU answered, not what it has.
    for row in &mut rows {
        if row.leaf == 1 {
            row.answer.ebx &= 0x00ff_ffff;
        }
    }
    rows
}

/// A name without spaces, to be typed: `c:` and the brand's words.
pub fn name(brand: &str) -> String {
    let plain = brand.replace("(R)", "").replace("(TM)", "");
    format!(
        "c:{}",
        plain.split_whitespace().collect::<Vec<_>>().join("-")
    )
}

/// The rows as CSV, with the heading of the table.
pub fn csv() -> String {
    let (brand, vendor) = (brand(), vendor());
    let name = name(&brand);
    let mut out = String::from("cpu,vendor,model,leaf,subleaf,eax,ebx,ecx,edx\n");
    for row in rows() {
        let r = row.answer;
        out.push_str(&format!(
            "{name},{vendor},{brand},{:#010x},{},{:#010x},{:#010x},{:#010x},{:#010x}\n",
            row.leaf, row.subleaf, r.eax, r.ebx, r.ecx, r.edx
        ));
    }
    out
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn names_can_be_typed() {
        let brand = "Intel(R) Xeon(R) Platinum 8488C";
        assert_eq!(name(brand), "c:Intel-Xeon-Platinum-8488C");
    }

    /// Each row has the nine fields of the table, whatever the brand holds.
    #[test]
    fn rows_are_the_tables() {
        let csv = csv();
        assert!(
            csv.lines().all(|line| line.split(',').count() == 9),
            "{csv}"
        );
        let leaf_0 = csv.lines().nth(1).unwrap();
        assert!(leaf_0.contains(",0x00000000,0,0x"), "{leaf_0}");
        assert!(leaf_0.starts_with("c:"), "{leaf_0}");
    }
}
