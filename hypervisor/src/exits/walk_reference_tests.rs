//! The walker against a reference that is written another way, on random page
//! tables.

use super::error_code::{I, P, PK, RSVD, U, W};
use super::tests::Words;
use super::*;
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

const XD: u64 = 1 << 63;

/// A reference that computes the same from the tables of 4.3 to 4.5 by masks
/// per level, without the walker's types.
fn reference(paging: &Paging, linear: u64, access: Access, memory: &Words) -> Result<u64, Fault> {
    let long = paging.efer & efer::LMA != 0;
    let pae = long || paging.cr4 & cr4::PAE != 0;
    let la57 = long && paging.cr4 & cr4::LA57 != 0;
    let nxe = paging.efer & efer::NXE != 0;
    // Index bits from the top level down: (low bit, number of bits).
    let steps: Vec<(u32, u32)> = match (long, pae, la57) {
        (true, _, true) => vec![(48, 9), (39, 9), (30, 9), (21, 9), (12, 9)],
        (true, _, false) => vec![(39, 9), (30, 9), (21, 9), (12, 9)],
        (_, true, _) => vec![(30, 2), (21, 9), (12, 9)],
        _ => vec![(22, 10), (12, 10)],
    };
    let top = if la57 { 57 } else { 48 };
    if long && linear >> (top - 1) != 0 && linear >> (top - 1) != u64::MAX >> (top - 1) {
        return Err(Fault::GeneralProtection);
    }
    let linear = if long { linear } else { linear % (1 << 32) };
    let fail = |mut code: u32| {
        code |= if access == Access::Write { W } else { 0 };
        code |= if paging.cpl == 3 { U } else { 0 };
        let i = access == Access::Fetch && (nxe && pae || paging.cr4 & cr4::SMEP != 0);
        code |= if i { I } else { 0 };
        Err(Fault::Page {
            error_code: code,
            address: linear,
        })
    };
    let mut base = match (long, pae) {
        (true, _) => paging.cr3 & 0x000f_ffff_ffff_f000,
        (_, true) => paging.cr3 & 0xffff_ffe0,
        _ => paging.cr3 & 0xffff_f000,
    };
    let (mut writable, mut user, mut execute) = (true, true, true);
    for (low, width) in steps {
        let index = (linear >> low) % (1 << width);
        let at = GuestPhys::new(base + index * if pae { 8 } else { 4 });
        let entry = match pae {
            true => memory.read_u64(at),
            false => memory.read_u32(at).map(u64::from),
        };
        let Some(entry) = entry else {
            return Err(Fault::Unbacked(at));
        };
        if entry % 2 == 0 {
            return fail(0);
        }
        let pointer = pae && !long && low == 30;
        let ps = entry >> 7 & 1 == 1;
        let big = ps
            && match low {
                21 => pae,
                22 => paging.cr4 & cr4::PSE != 0,
                30 => long && paging.gib_pages,
                _ => false,
            };
        let leaf = low == 12 || big;
        let mut reserved = 0_u64;
        if pae {
            for bit in u32::from(paging.physical_bits)..=62 {
                if bit < 52 || !long {
                    reserved |= 1 << bit;
                }
            }
            if !nxe || pointer {
                reserved |= 1 << 63;
            }
            if big {
                reserved |= (1 << low) - (1 << 13);
            }
            if pointer {
                reserved |= 0x1e6;
            } else if long && (low >= 39 || low == 30 && !paging.gib_pages) {
                reserved |= 0x80;
            }
        } else if big {
            for bit in 13..=21 {
                if bit + 19 >= u32::from(paging.physical_bits) || bit == 21 {
                    reserved |= 1 << bit;
                }
            }
        }
        if entry & reserved != 0 {
            return fail(P | RSVD);
        }
        if !pointer {
            writable &= entry & 2 != 0;
            user &= entry & 4 != 0;
            execute &= entry >> 63 == 0;
        }
        if !leaf {
            base = entry
                & if pae {
                    0x000f_ffff_ffff_f000
                } else {
                    0xffff_f000
                };
            continue;
        }
        let key = paging.pkru >> (2 * (entry >> 59 & 15)) & 3;
        let wp = paging.cr0 & cr0::WP != 0;
        let keys = long && paging.cr4 & cr4::PKE != 0 && user && access != Access::Fetch;
        let write = access == Access::Write;
        if keys && (key & 1 != 0 || key & 2 != 0 && write && (wp || paging.cpl == 3)) {
            return fail(P | PK);
        }
        let supervisor = paging.cpl < 3;
        let smap = paging.cr4 & cr4::SMAP != 0 && paging.rflags >> 18 & 1 == 0;
        let smep = paging.cr4 & cr4::SMEP != 0;
        let bad = (!supervisor && !user)
            || (write && !writable && (!supervisor || wp))
            || (access == Access::Fetch && (!execute || supervisor && user && smep))
            || (access != Access::Fetch && supervisor && user && smap);
        if bad {
            return fail(P);
        }
        let size = 1 << low;
        let mut frame = entry & 0x000f_ffff_ffff_ffff & !(size - 1);
        if !pae && big {
            frame |= (entry >> 13 & 0xff) << 32;
        }
        return Ok(frame + linear % size);
    }
    unreachable!("the last level is a leaf")
}

fn paging() -> impl Strategy<Value = Paging> {
    let modes = prop::sample::select(vec![
        (0, 0),
        (0, cr4::PSE),
        (0, cr4::PAE),
        (efer::LMA, cr4::PAE),
        (efer::LMA, cr4::PAE | cr4::LA57),
    ]);
    let cr4 = any::<[bool; 3]>();
    let rest = (any::<[bool; 4]>(), any::<u32>(), 32..=52_u8, 0..=3_u8);
    (modes, cr4, rest).prop_map(
        |((lma, mode), [smep, smap, pke], (flags, pkru, bits, cpl))| {
            let [wp, nxe, ac, gib_pages] = flags;
            let flag = |on, bit| if on { bit } else { 0 };
            Paging {
                cr0: cr0::PG | 1 | flag(wp, cr0::WP),
                cr3: 0x1000,
                cr4: mode | flag(smep, cr4::SMEP) | flag(smap, cr4::SMAP) | flag(pke, cr4::PKE),
                efer: lma | flag(nxe, efer::NXE),
                rflags: flag(ac, RFLAGS_AC),
                pkru,
                cpl,
                physical_bits: bits,
                gib_pages,
            }
        },
    )
}

/// Entries that mostly are present and point to the next of a few tables, with
/// now and then a bit that is out of place.
fn entry() -> impl Strategy<Value = u64> {
    let usual = (
        1..8_u64,
        prop::sample::select(vec![1, 3, 5, 7, 7, 7, 7_u64]),
        any::<[bool; 2]>(),
    );
    let odd = prop_oneof![9 => Just(0_u64), 2 => (0..64_u32).prop_map(|bit| 1 << bit)];
    (usual, odd, any::<u16>()).prop_map(|((table, flags, [large, xd]), odd, key)| {
        let large = if large && key % 4 == 0 { 0x80 } else { 0 };
        let xd = if xd && key % 3 == 0 { XD } else { 0 };
        (table << 12 | flags | large | xd | u64::from(key & 15) << 59) ^ odd
    })
}

fn tables() -> impl Strategy<Value = Words> {
    prop::collection::vec(entry(), 8 * 4).prop_map(|entries| {
        let places = (1..=8_u64).flat_map(|table| (0..4).map(move |at| table << 12 | at << 3));
        Words(places.zip(entries).collect())
    })
}

/// Addresses whose indices are within the few entries that the tables have.
fn linear() -> impl Strategy<Value = u64> {
    let small = prop::collection::vec(0..3_u64, 5).prop_map(|indices| {
        indices
            .iter()
            .enumerate()
            .map(|(at, index)| index << (12 + 9 * at))
            .sum::<u64>()
            + 0x123
    });
    let flat =
        (0..4_u64, 0..8_u64).prop_map(|(directory, table)| directory << 22 | table << 12 | 0xabc);
    let low = (0..4_u64, 0..4_u64).prop_map(|(directory, table)| directory << 21 | table << 12 | 8);
    prop_oneof![2 => small, 3 => flat, 3 => low, 1 => any::<u64>()]
}

fn access() -> impl Strategy<Value = Access> {
    prop::sample::select(vec![Access::Fetch, Access::Read, Access::Write])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn the_walker_agrees_with_the_reference(
        paging in paging(),
        memory in tables(),
        linear in linear(),
        access in access(),
    ) {
        let got = walk(&paging, linear, access, &memory);
        let expected = reference(&paging, linear, access, &memory);
        prop_assert_eq!(got.map(GuestPhys::as_u64), expected);
    }
}
