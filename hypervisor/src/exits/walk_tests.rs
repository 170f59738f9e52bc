//! The walker on tables of the manual's rules.

use super::*;
use error_code::{I, P, PK, RSVD, U, W};
use std::collections::BTreeMap;

/// Memory as 64-bit words; what is not there is not memory.
#[derive(Clone, Debug, Default)]
pub(in crate::exits) struct Words(pub BTreeMap<u64, u64>);

impl PhysicalMemory for Words {
    fn read_u32(&self, address: GuestPhys) -> Option<u32> {
        let word = self.0.get(&(address.as_u64() & !7))?;
        Some((word >> (8 * (address.as_u64() & 4))) as u32)
    }

    fn read_u64(&self, address: GuestPhys) -> Option<u64> {
        self.0.get(&address.as_u64()).copied()
    }

    fn read_bytes(&self, address: GuestPhys, into: &mut [u8]) -> Option<()> {
        for (at, byte) in (address.as_u64()..).zip(into) {
            *byte = self.0.get(&(at & !7))?.to_le_bytes()[(at & 7) as usize];
        }
        Some(())
    }
}

const XD: u64 = 1 << 63;

/// 4-level paging at CPL 0 with every protection on.
const LONG: Paging = Paging {
    cr0: cr0::PG | cr0::WP | 1,
    cr3: 0x1000,
    cr4: cr4::PAE | cr4::SMEP | cr4::SMAP,
    efer: efer::LMA | efer::NXE | 1 << 8,
    rflags: 2,
    pkru: 0,
    cpl: 0,
    physical_bits: 40,
    gib_pages: true,
};

/// Linear 0x5000 through four levels to frame 0x9000, all entries with `flags`.
fn one_page(flags: u64) -> Words {
    Words(BTreeMap::from([
        (0x1000, 0x2000 | flags),
        (0x2000, 0x3000 | flags),
        (0x3000, 0x4000 | flags),
        (0x4028, 0x9000 | flags),
    ]))
}

fn error_code(paging: &Paging, linear: u64, access: Access, memory: &Words) -> Option<u32> {
    match walk(paging, linear, access, memory) {
        Ok(_) => None,
        Err(Fault::Page {
            error_code,
            address,
        }) => {
            assert_eq!(address, linear);
            Some(error_code)
        }
        Err(other) => panic!("{other}"),
    }
}

/// SDM Vol. 3A, 4.6.1 Determination of Access Rights, line by line.
#[test]
fn rights_of_supervisors_and_users() {
    let (p, w, u) = (1, 2, 4);
    let user = Paging { cpl: 3, ..LONG };
    let no_wp = Paging {
        cr0: LONG.cr0 & !cr0::WP,
        ..LONG
    };
    let no_smap = Paging {
        cr4: LONG.cr4 & !cr4::SMAP,
        ..LONG
    };
    let no_smep = Paging {
        cr4: LONG.cr4 & !cr4::SMEP,
        ..LONG
    };
    let ac = Paging {
        rflags: RFLAGS_AC,
        ..LONG
    };
    use Access::{Fetch, Read, Write};
    for (paging, flags, access, expected) in [
        (LONG, p, Read, None),
        (LONG, p, Write, Some(P | W)),
        (no_wp, p, Write, None),
        (LONG, p | w, Write, None),
        (LONG, p, Fetch, None),
        (LONG, p | XD, Fetch, Some(P | I)),
        (LONG, p | w | u, Read, Some(P)),
        (LONG, p | w | u, Write, Some(P | W)),
        (no_smap, p | w | u, Read, None),
        (no_smap, p | w | u, Write, None),
        (no_smap, p | u, Write, Some(P | W)),
        (ac, p | w | u, Write, None),
        (ac, p | w | u, Fetch, Some(P | I)),
        (no_smep, p | w | u, Fetch, None),
        (no_smep, p | w | u | XD, Fetch, Some(P | I)),
        (user, p | w, Read, Some(P | U)),
        (user, p | w, Write, Some(P | U | W)),
        (user, p | w, Fetch, Some(P | U | I)),
        (user, p | u, Read, None),
        (user, p | u, Write, Some(P | U | W)),
        (user, p | w | u, Write, None),
        (user, p | u, Fetch, None),
        (user, p | u | XD, Fetch, Some(P | U | I)),
        (user, 0, Fetch, Some(U | I)),
        (LONG, 0, Write, Some(W)),
        (LONG, 0, Read, Some(0)),
    ] {
        let memory = one_page(flags);
        let got = error_code(&paging, 0x5123, access, &memory);
        assert_eq!(got, expected, "{paging:?} {flags:#x} {access:?}");
    }
}

/// SDM Vol. 3A, 4.7: the I/D bit is there only with NX or SMEP.
#[test]
fn the_fetch_bit_needs_nx_or_smep() {
    let memory = one_page(0);
    let neither = Paging {
        efer: efer::LMA,
        cr4: cr4::PAE,
        ..LONG
    };
    assert_eq!(
        error_code(&neither, 0x5000, Access::Fetch, &memory),
        Some(0)
    );
    let smep = Paging {
        cr4: cr4::PAE | cr4::SMEP,
        ..neither
    };
    assert_eq!(error_code(&smep, 0x5000, Access::Fetch, &memory), Some(I));
    let nx = Paging {
        efer: efer::LMA | efer::NXE,
        ..neither
    };
    assert_eq!(error_code(&nx, 0x5000, Access::Fetch, &memory), Some(I));
    // NXE without PAE means nothing.
    let bits32 = Paging {
        efer: efer::NXE,
        cr4: 0,
        ..LONG
    };
    assert_eq!(error_code(&bits32, 0x5000, Access::Fetch, &memory), Some(0));
}

/// SDM Vol. 3A, Tables 4-14 to 4-20: bits that must be zero.
#[test]
fn reserved_bits_of_four_levels() {
    let flags = 3;
    for (address, entry) in [
        (0x1000, 0x2000 | 1 << 40),
        (0x1000, 0x2000 | 1 << 51),
        (0x1000, 0x2000 | 1 << 7),
        (0x2000, 1 << 7 | 1 << 13),
        (0x2000, 1 << 7 | 1 << 21),
        (0x2000, 1 << 7 | 1 << 29),
        (0x3000, 1 << 7 | 1 << 13),
        (0x3000, 1 << 7 | 1 << 20),
        (0x4028, 0x9000 | 1 << 45),
    ] {
        let mut memory = one_page(flags);
        memory.0.insert(address, entry | flags);
        let got = error_code(&LONG, 0x5000, Access::Read, &memory);
        assert_eq!(got, Some(P | RSVD), "{address:#x} {entry:#x}");
    }
    // XD without NXE, and 1 GiB pages where there are none.
    let no_nx = Paging {
        efer: efer::LMA,
        ..LONG
    };
    let got = error_code(&no_nx, 0x5000, Access::Read, &one_page(flags | XD));
    assert_eq!(got, Some(P | RSVD));
    let mut memory = one_page(flags);
    memory.0.insert(0x2000, 0x4000_0000 | 1 << 7 | flags);
    assert_eq!(
        walk(&LONG, 0x5123, Access::Read, &memory),
        Ok(GuestPhys::new(0x4000_5123))
    );
    let no_gib = Paging {
        gib_pages: false,
        ..LONG
    };
    assert_eq!(
        error_code(&no_gib, 0x5000, Access::Read, &memory),
        Some(P | RSVD)
    );
    // Ignored bits are ignored.
    let ignored = one_page(flags | 0x7ff << 52 | 0xe00);
    assert_eq!(
        walk(&LONG, 0x5000, Access::Read, &ignored),
        Ok(GuestPhys::new(0x9000))
    );
}

/// SDM Vol. 3A, 4.6.2 Protection Keys.
#[test]
fn protection_keys_hold_for_data_of_user_pages() {
    let memory = one_page(7 | 5 << 59);
    let keyed = |disable: u32, cpl, access| {
        let paging = Paging {
            cr4: cr4::PAE | cr4::PKE,
            pkru: disable << 10,
            cpl,
            ..LONG
        };
        error_code(&paging, 0x5000, access, &memory)
    };
    assert_eq!(keyed(1, 3, Access::Read), Some(P | U | PK));
    assert_eq!(keyed(1, 0, Access::Read), Some(P | PK));
    assert_eq!(keyed(2, 3, Access::Read), None);
    assert_eq!(keyed(2, 3, Access::Write), Some(P | U | W | PK));
    assert_eq!(keyed(2, 0, Access::Write), Some(P | W | PK));
    assert_eq!(keyed(3, 3, Access::Fetch), None);
}

/// SDM Vol. 3A, Table 4-4: PSE-36, and the mode without PSE.
#[test]
fn four_mib_pages_reach_forty_bits() {
    let paging = Paging {
        efer: 0,
        cr4: cr4::PSE,
        ..LONG
    };
    // PDE 1 of the directory at 0x1000: address bits 39:32 = 0xa5, frame 0xc0000000.
    let pde = |bits: u64| Words(BTreeMap::from([(0x1000, bits << 32)]));
    let memory = pde(0xc000_0000 | 0xa5 << 13 | 1 << 7 | 1);
    let expected = Ok(GuestPhys::new(0xa5_c012_3456));
    assert_eq!(walk(&paging, 0x52_3456, Access::Read, &memory), expected);
    let reserved = pde(0xc000_0000 | 1 << 21 | 1 << 7 | 1);
    assert_eq!(
        error_code(&paging, 0x40_0000, Access::Read, &reserved),
        Some(P | RSVD)
    );
    let narrow = Paging {
        physical_bits: 36,
        ..paging
    };
    assert_eq!(
        error_code(&narrow, 0x40_0000, Access::Read, &memory),
        Some(P | RSVD)
    );
    // Without PSE the same entry points to a page table, which is not there.
    let no_pse = Paging { cr4: 0, ..paging };
    let table = 0xc000_0000 | 0xa5 << 13 & 0xffff_f000;
    let got = walk(&no_pse, 0x40_0000, Access::Read, &memory);
    assert_eq!(got, Err(Fault::Unbacked(GuestPhys::new(table))));
}

/// SDM Vol. 3A, Table 4-8: PAE's pointers have no rights, and reserved bits.
#[test]
fn pae_pointer_entries() {
    let paging = Paging {
        efer: efer::NXE,
        cr4: cr4::PAE,
        cr3: 0x1020,
        cpl: 3,
        ..LONG
    };
    let memory = |pointer| {
        Words(BTreeMap::from([
            (0x1038, pointer),
            (0x2000, 0x20_0000 | 1 << 7 | 7),
        ]))
    };
    let got = walk(&paging, 0xc000_1234, Access::Write, &memory(0x2001));
    assert_eq!(got, Ok(GuestPhys::new(0x20_1234)));
    for bit in [1, 2, 5, 8, 40, 63] {
        let got = error_code(
            &paging,
            0xc000_0000,
            Access::Read,
            &memory(0x2001 | 1 << bit),
        );
        assert_eq!(got, Some(P | RSVD | U), "bit {bit}");
    }
}

#[test]
fn addresses_that_are_not_canonical_and_those_outside_long_mode() {
    let memory = one_page(3);
    let top = 0xffff_8000_0000_0000;
    for linear in [0x8000_0000_0000, top - 1, 1 << 63] {
        let got = walk(&LONG, linear, Access::Read, &memory);
        assert_eq!(got, Err(Fault::GeneralProtection), "{linear:#x}");
    }
    let la57 = Paging {
        cr4: LONG.cr4 | cr4::LA57,
        ..LONG
    };
    // One level more: the PML4 at 0x2000 is now found from a PML5 at 0x1000.
    let got = walk(&la57, 0x8000_0000_0000, Access::Read, &memory);
    assert_eq!(got, Err(Fault::Unbacked(GuestPhys::new(0x2800))));
    let off = Paging { cr0: 1, ..LONG };
    let got = walk(&off, 0x1_2345_6789, Access::Write, &Words::default());
    assert_eq!(got, Ok(GuestPhys::new(0x2345_6789)));
}
