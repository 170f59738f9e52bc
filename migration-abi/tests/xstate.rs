//! A vCPU's blob in one pass says what the same steps one by one say, and is refused where they refuse.
#![allow(unsafe_code)] // `Silicon::new`

use migration_abi::blob::{Blob, latest};
use migration_abi::xstate::{self, HostLayouts, XstateError};
use proptest::prelude::*;
use vcpu_xstate::cpuid::CpuidResult;
use vcpu_xstate::hw::Silicon;
use vcpu_xstate::percpu::{CpuId, PcpuXstate};
use vcpu_xstate::{
    AreaMemory, Block, ComponentSet, HostXstate, VcpuXstate, XstatePolicy, validate,
};

/// Sapphire Rapids without CET: number, size, offset, ECX.
const SUBLEAVES: [(u32, u32, u32, u32); 7] = [
    (2, 256, 576, 0),
    (5, 64, 1088, 0),
    (6, 512, 1152, 0),
    (7, 1024, 1664, 0),
    (9, 8, 2688, 0),
    (17, 64, 2752, 2),
    (18, 8192, 2816, 6),
];
const MASK: u64 = 0x6_02e7;

fn host() -> HostXstate {
    let cpuid = |leaf: u32, subleaf: u32| {
        let mut r = CpuidResult::default();
        match (leaf, subleaf) {
            (0, _) => r.eax = 0xd,
            (1, _) => r.ecx = 1 << 26,
            (7, 0) => r.ecx = 1 << 3,
            (0xd, 0) => r.eax = MASK as u32,
            (0xd, 1) => r.eax = 0x1f,
            (0xd, i) => {
                if let Some((_, size, offset, flags)) = SUBLEAVES.iter().find(|s| s.0 == i) {
                    (r.eax, r.ebx, r.ecx) = (*size, *offset, *flags);
                }
            }
            _ => {}
        }
        r
    };
    HostXstate::read(&cpuid, 0xffff).unwrap()
}

struct Heap;

impl AreaMemory for Heap {
    fn allocate(&mut self, blocks: usize) -> Option<Vec<Block>> {
        Some(vec![Block::ZERO; blocks])
    }

    fn release(&mut self, _: Vec<Block>) {}
}

/// A vCPU of a host, no instruction of which is ever executed: it never runs.
struct Side {
    vcpu: VcpuXstate,
    cpu: PcpuXstate<Silicon>,
    layouts: HostLayouts,
}

impl Side {
    fn new() -> Self {
        let host = host();
        let policy = XstatePolicy::new(ComponentSet::from_bits_retain(MASK), ComponentSet::EMPTY);
        Self {
            vcpu: VcpuXstate::new(1, &policy, &host, &mut Heap).unwrap(),
            layouts: HostLayouts::new(host.geometry()).unwrap(),
            // SAFETY: it is never asked to execute an instruction.
            cpu: PcpuXstate::new(CpuId(0), unsafe { Silicon::new() }, host),
        }
    }

    fn import(&mut self, blob: &[u8]) -> Result<(), XstateError> {
        xstate::import(
            blob,
            &mut self.vcpu,
            &mut self.cpu,
            &self.layouts,
            &mut Heap,
        )
    }

    /// The same, step by step, from what the blob itself says of its layouts.
    fn import_by_steps(&mut self, bytes: &[u8]) -> Result<(), XstateError> {
        let blob = Blob::parse(bytes).map_err(XstateError::Form)?;
        let geometry = xstate::geometry(&blob).map_err(XstateError::Directory)?;
        let (host, policy) = (self.cpu.host(), self.vcpu.policy());
        let trusted = validate(
            &xstate::claims(&blob),
            &geometry,
            blob.image(),
            host,
            policy,
        );
        let trusted = trusted.map_err(XstateError::Content)?;
        self.vcpu
            .import(&trusted, &mut self.cpu, &mut Heap)
            .map_err(XstateError::Import)
    }

    fn export(&mut self, crc: bool) -> Vec<u8> {
        let mut out = vec![0xcc; 12_000];
        let len = xstate::export(&mut self.vcpu, &mut self.cpu, &self.layouts, crc, &mut out);
        let len = len.unwrap();
        assert!(
            out[len..].iter().all(|byte| *byte == 0xcc),
            "wrote past its end"
        );
        out.truncate(len);
        out
    }

    /// The same from an image in hand.
    fn export_by_steps(&mut self, crc: bool) -> Vec<u8> {
        let mut image = vec![0; self.vcpu.export_size(&mut self.cpu)];
        let exported = self.vcpu.export(&mut self.cpu, &mut image).unwrap();
        let geometry = self.cpu.host().geometry();
        let directory = xstate::directory(geometry, ComponentSet::from_bits_retain(MASK));
        let fields = xstate::fields(&exported.claims, crc);
        let mut out = vec![0; 12_000];
        let len = latest::encode(&mut out, &fields, directory, &image).unwrap();
        out.truncate(len);
        out
    }
}

/// A blob of this host with every component of `held` in use.
fn blob(held: u64, seed: u8) -> Vec<u8> {
    let host = host();
    let held = ComponentSet::from_bits_retain(held & MASK & !0x2_0000 | 3);
    let geometry = host.geometry();
    let form = vcpu_xstate::Form::Compacted;
    let mut image = vec![0; geometry.image_size(form, held)];
    image[..4].copy_from_slice(&[0x7f, 2, 0, 0x38]);
    image[24..26].copy_from_slice(&[0x80, 0x1f]);
    image[160..416].fill(seed | 1);
    image[512..520].copy_from_slice(&held.bits().to_le_bytes());
    image[520..528].copy_from_slice(&(held.bits() | 1 << 63).to_le_bytes());
    for place in geometry.placements(form, held) {
        image[place.range()].fill(seed | 1);
    }
    let fields = latest::Fields {
        xstate_mask: MASK,
        xcr0: 0x2e7,
        accum: MASK,
        xcomp_bv: held.bits() | 1 << 63,
        ..latest::Fields::default()
    };
    let directory = xstate::directory(geometry, ComponentSet::from_bits_retain(MASK));
    let mut out = vec![0; 12_000];
    let len = latest::encode(&mut out, &fields, directory, &image).unwrap();
    out.truncate(len);
    out
}

proptest! {
    #[test]
    fn one_pass_writes_what_the_steps_write(held in any::<u64>(), seed in any::<u8>(), crc in any::<bool>()) {
        let mut side = Side::new();
        side.import(&blob(held, seed)).unwrap();
        let written = side.export(crc);
        prop_assert_eq!(&written, &side.export_by_steps(crc));
        // And the other side has the same state then.
        let mut there = Side::new();
        there.import(&written).unwrap();
        prop_assert_eq!(there.export(crc), written);
    }

    /// Whatever is wrong with a blob, both ways name the same rule, or both
    /// take it and have the same state then.
    #[test]
    fn one_pass_refuses_what_the_steps_refuse(
        held in any::<u64>(),
        edits in proptest::collection::vec((0usize..900, any::<u8>()), 0..3),
    ) {
        let mut bytes = blob(held, 0x40);
        for (at, value) in edits {
            let at = at % bytes.len();
            bytes[at] ^= value;
        }
        let (mut one, mut steps) = (Side::new(), Side::new());
        let (a, b) = (one.import(&bytes), steps.import_by_steps(&bytes));
        prop_assert_eq!(format!("{a:?}"), format!("{b:?}"));
        prop_assert_eq!(one.export(false), steps.export(false));
    }
}

/// This host's table of layouts, CET with it: user components are not all of
/// those that are below the last one.
fn layouts() -> latest::Layouts {
    let cet = |index, size| latest::DirectoryEntry {
        index,
        size,
        flags: 1,
        standard_offset: 0,
    };
    let known = ComponentSet::from_bits_retain(MASK);
    let own = xstate::directory(host().geometry(), known).collect::<Vec<_>>();
    latest::Layouts::new(own.into_iter().chain([cet(11, 16), cet(12, 24)])).unwrap()
}

proptest! {
    /// A blob is taken as this host's own only where the reader takes it too, and
    /// then both read the same.
    #[test]
    fn what_is_taken_as_the_hosts_own_keeps_every_rule(
        (held, crc) in any::<(u64, bool)>(),
        edits in proptest::collection::vec((0usize..900, 0u32..8), 0..3),
        cut in 0usize..3,
    ) {
        let mut bytes = blob(held, 0x40);
        if crc {
            bytes[20] = 1;
        }
        let usual = edits.is_empty() && cut == 0 && !crc;
        for (at, bit) in edits {
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
        }
        bytes.truncate(bytes.len() - cut);
        let layouts = layouts();
        let own = latest::Own::parse(&bytes, &layouts);
        prop_assert!(own.is_some() || !usual);
        if let Some(own) = own {
            let (blob, same) = Blob::parse_on(&bytes, &layouts).unwrap();
            prop_assert!(same);
            prop_assert_eq!(latest::Fields::of(&blob), own.fields);
            prop_assert_eq!(blob.image(), own.image);
        }
    }

    /// Whichever components a policy has, header and directory are the same as
    /// of a blob that was made entry by entry.
    #[test]
    fn the_head_of_any_policy(mask in any::<u64>(), up_to in 0u32..20, crc in any::<bool>()) {
        let layouts = layouts();
        let known = layouts.known();
        let all = known & ((2 << up_to) - 1);
        let user = all & MASK;
        let cet = |index| (1..3).any(|i| index == i + 10);
        for mask in [all, user, mask & known | 1] {
            let fields = latest::Fields { xstate_mask: mask, xcr0: 7, crc, ..latest::Fields::default() };
            let directory = |index: u32| {
                let component = ComponentSet::from_bits_retain(1 << index);
                let own = xstate::directory(host().geometry(), component).next().unwrap();
                let size = if index == 11 { 16 } else { 24 };
                if cet(index) {
                    latest::DirectoryEntry { index, size, flags: 1, standard_offset: 0 }
                } else {
                    own
                }
            };
            let entries = (0..63).filter(|index| mask >> index & 1 != 0).map(directory);
            let mut by_steps = [0xcc; 2000];
            latest::prepare(&mut by_steps, &fields, entries, 600).unwrap();
            let mut out = [0xcc; 2000];
            let (head_len, image) = latest::write_head(&mut out, &fields, &layouts, 600).unwrap();
            prop_assert_eq!(image.len(), 600);
            prop_assert_eq!(head_len, latest::head_len(mask));
            prop_assert_eq!(&out[..head_len], &by_steps[..head_len]);
            prop_assert!(out[head_len..].iter().all(|byte| *byte == 0xcc));
            // One byte fewer than the whole blob takes.
            let total = latest::encoded_len(mask, 600, crc).unwrap();
            let short = latest::write_head(&mut out[..total - 1], &fields, &layouts, 600);
            prop_assert!(short.is_err());
        }
    }
}

/// Xen 9979547be5 in the blob's terms: another machine's layout is not taken
/// for this one's.
#[test]
fn another_machines_directory_is_compared() {
    let mut bytes = blob(0x7, 1);
    // Standard offset of AVX, third entry.
    let at = latest::HEADER_BYTES + 2 * latest::ENTRY_BYTES + 12;
    bytes[at..at + 4].copy_from_slice(&640u32.to_le_bytes());
    let refused = Side::new().import(&bytes).unwrap_err();
    let text = format!("{refused:?}");
    assert!(text.contains("Layout"), "{text}");
}

#[test]
fn a_table_of_layouts_has_each_component_once_and_by_the_rules() {
    let entry = |index, size| latest::DirectoryEntry {
        index,
        size,
        flags: 0,
        standard_offset: 576,
    };
    assert_eq!(latest::Layouts::new([entry(2, 256)]).unwrap().known(), 4);
    assert!(latest::Layouts::new([entry(2, 256), entry(2, 256)]).is_err());
    assert!(latest::Layouts::new([entry(63, 8)]).is_err());
    assert!(latest::Layouts::new([entry(64, 8)]).is_err());
    assert!(
        latest::Layouts::new([entry(0, 8)]).is_err(),
        "x87 has its own entry"
    );
}

#[test]
fn a_short_buffer_is_refused() {
    let mut side = Side::new();
    side.import(&blob(MASK, 1)).unwrap();
    let len = side.export(false).len();
    let mut out = vec![0; len];
    for short in [0, 95, 200, 800, len - 1] {
        let out = &mut out[..short];
        let refused = xstate::export(&mut side.vcpu, &mut side.cpu, &side.layouts, false, out);
        assert!(refused.is_err(), "{short} bytes");
    }
}
