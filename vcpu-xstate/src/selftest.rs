//! Patterns of legal register contents, and the verdict of a component's round trip through them.
//!
//! Emulators save some components wrongly (Bochs' tiles, for one). A host finds
//! out when it starts, says so, and leaves the component out of what it offers.

use core::fmt;

use zerocopy::FromBytes;
use zerocopy::little_endian::{U16, U32};

use crate::component::{ComponentIndex, ComponentSet};
use crate::header::XsaveHeader;
use crate::image::{LBR_DEPTH, payload};
use crate::layout::{Form, Geometry, LEGACY_BYTES, MIN_IMAGE_BYTES};
use crate::legacy::LegacyRegion;
use crate::mutants::rule;
use crate::values::Limits;
use crate::{Area, Image};

/// Which components survived a restore and a save.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    passed: ComponentSet,
    failed: ComponentSet,
}

impl Report {
    pub(crate) const fn add(&mut self, component: ComponentIndex, survives: bool) {
        let only = ComponentSet::only(component);
        if survives {
            self.passed.insert(only);
        } else {
            self.failed.insert(only);
        }
    }

    /// The components that came back as they went in.
    pub const fn passed(&self) -> ComponentSet {
        self.passed
    }

    /// The components that did not.
    pub const fn failed(&self) -> ComponentSet {
        self.failed
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "passed: {}; failed: {}", self.passed, self.failed)
    }
}

/// Contents of x87 that any processor restores and saves again. FIP, FDP and
/// FOP are left INIT: some processors and emulators do not have them.
fn x87_pattern(seed: u8, region: &mut LegacyRegion) {
    region.fcw = U16::new(0x027f);
    region.fsw = U16::new(0x3800);
    region.ftw = 0xff;
    for (i, st) in region.st.iter_mut().enumerate() {
        // Normal numbers: the explicit integer bit set, the exponent in range.
        st[..8].fill(seed ^ i as u8);
        st[7] |= 0x80;
        st[8..10].copy_from_slice(&0x3fff_u16.to_le_bytes());
    }
}

/// Writes to `bytes` (the component's defined bytes, zero before) register
/// contents that are legal on every processor (with shadow stacks, where it is
/// CET's), are not INIT, and enable nothing. `seed` makes them differ.
pub(crate) fn pattern(component: ComponentIndex, seed: u8, bytes: &mut [u8]) {
    let page = 0x1000 * (u64::from(seed) + 1);
    let mut put = |offset: usize, value: u64| {
        if let Some(word) = bytes.get_mut(offset..offset + 8) {
            word.copy_from_slice(&value.to_le_bytes());
        }
    };
    match component {
        ComponentIndex::BNDCSR => {
            put(0, page | 2);
            put(8, page | 1);
        }
        ComponentIndex::PASID => put(0, (1 << 31) | (u64::from(seed) + 1)),
        // IA32_PL3_SSP. IA32_U_CET stays 0: no AMD processor has the bitmap's
        // address, and XRSTORS would fault on it.
        ComponentIndex::CET_U => put(8, page + 8),
        ComponentIndex::CET_S => (0..3).for_each(|i| put(8 * i, page + 8 * i as u64)),
        // Handler and receive requests; UINV stays 0, since XRSTORS faults
        // while it is live.
        ComponentIndex::UINTR => {
            put(0, page);
            put(32, u64::from(seed) + 1);
        }
        // LER_FROM_IP; the depth is the one after reset.
        ComponentIndex::LBR => {
            put(8, 32);
            put(16, page);
        }
        // Palette 1, eight tiles of 16 rows; the seed is in the first row size.
        ComponentIndex::TILECFG => {
            put(0, 1);
            (0..8).for_each(|tile| bytes[16 + 2 * tile] = 64);
            bytes[16] = 4 * (1 + seed % 16);
            bytes[48..56].fill(16);
        }
        _ => {
            for (i, byte) in bytes.iter_mut().enumerate() {
                *byte = (i as u8).wrapping_mul(7) ^ seed ^ 0x40;
            }
            // Never all zero, whatever the seed.
            if let Some(first) = bytes.first_mut() {
                *first |= 1;
            }
        }
    }
}

/// The components of `among` that have registers to try: of CET_S all are of
/// shadow stacks.
pub(crate) fn testable(among: ComponentSet, limits: &Limits) -> ComponentSet {
    let nothing = if limits.shadow_stacks {
        ComponentSet::EMPTY
    } else {
        ComponentSet::only(ComponentIndex::CET_S)
    };
    among.intersection(ComponentSet::NAMED).difference(nothing)
}

/// CET_U where there is branch tracking alone: IA32_U_CET with NO_TRACK_EN,
/// which enables nothing without ENDBR_EN, and a bitmap's address.
fn tracking_pattern(seed: u8, cet_u: &mut [u8]) {
    let value = (0x1000 * (u64::from(seed) + 1)) | 0x10;
    if let Some(word) = cet_u.first_chunk_mut() {
        *word = value.to_le_bytes();
    }
}

/// Fills `area` with an image of this component alone (tile data with its
/// configuration, without which it means nothing).
pub(crate) fn put_pattern(
    area: &mut Area,
    geometry: &Geometry,
    limits: &Limits,
    component: ComponentIndex,
    seed: u8,
) {
    let mut components = ComponentSet::only(component);
    if component == ComponentIndex::TILEDATA {
        components.insert(ComponentSet::only(ComponentIndex::TILECFG));
    }
    area.set_init();
    let (form, mask) = (area.format(), area.mask());
    let header = match form {
        Form::Standard => XsaveHeader::standard(components),
        Form::Compacted => XsaveHeader::compacted(components, mask),
    };
    let bytes = area.bytes_mut();
    if let Ok((region, rest)) = LegacyRegion::mut_from_prefix(bytes) {
        match component {
            ComponentIndex::X87 => x87_pattern(seed, region),
            ComponentIndex::SSE => {
                region.mxcsr = U32::new(0x1fa5);
                for (i, xmm) in region.xmm.iter_mut().enumerate() {
                    xmm.fill(seed ^ (i as u8 + 1));
                }
            }
            _ => {}
        }
        if let Ok((there, _)) = XsaveHeader::mut_from_prefix(rest) {
            *there = header;
        }
    }
    for place in geometry.placements(form, mask) {
        if components.has(place.component) {
            bytes[place.range()].fill(0);
            let state = &mut bytes[payload(place)];
            if place.component == ComponentIndex::CET_U
                && !limits.shadow_stacks
                && rule!("self-test-of-branch-tracking")
            {
                tracking_pattern(seed, state);
            } else {
                pattern(place.component, seed, state);
            }
        }
    }
}

/// Fills what a save must write with bytes that no pattern has, so that a save
/// which writes nothing is noticed.
pub(crate) fn scramble(area: &mut Area) {
    area.set_init();
    let bytes = area.bytes_mut();
    bytes[32..LEGACY_BYTES].fill(0xee);
    bytes[MIN_IMAGE_BYTES..].fill(0xee);
}

/// Whether `saved` holds the same `component` as `expected`.
pub(crate) fn same(component: ComponentIndex, expected: &Image<'_>, saved: &Image<'_>) -> bool {
    if !saved.xstate_bv().has(component) {
        return false;
    }
    let (old, new) = (expected.legacy(), saved.legacy());
    match component {
        ComponentIndex::X87 => {
            old.fcw == new.fcw
                && old.fsw == new.fsw
                && old.ftw == new.ftw
                && old.st.iter().zip(&new.st).all(|(a, b)| a[..10] == b[..10])
        }
        ComponentIndex::SSE => old.xmm == new.xmm && expected.mxcsr() == saved.mxcsr(),
        // IA32_LBR_DEPTH is saved and never restored, and no record is in the
        // pattern: with another depth in the register they become zero (SDM
        // Vol. 1, 13.5.12).
        ComponentIndex::LBR => {
            let state = |image| {
                let (before, rest) = held(image, component)?.split_at_checked(LBR_DEPTH.start)?;
                Some((before, rest.get(LBR_DEPTH.len()..)?))
            };
            state(expected).is_some() && state(expected) == state(saved)
        }
        _ => {
            let state = held(expected, component);
            state.is_some() && state == held(saved, component)
        }
    }
}

fn held<'a>(image: &Image<'a>, component: ComponentIndex) -> Option<&'a [u8]> {
    image
        .held()
        .find(|(held, _)| *held == component)
        .map(|(_, bytes)| bytes)
}
