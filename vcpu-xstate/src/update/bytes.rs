//! A component's bytes: copied out of an image with INIT filled in, judged, and put back with its mark.

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, IntoBytes};

use crate::component::{ComponentIndex, ComponentSet};
use crate::header::XsaveHeader;
use crate::image::{Image, LBR_DEPTH, payload, records_end};
use crate::layout::{Form, Geometry, LEGACY_BYTES, Placement};
use crate::legacy::{LegacyRegion, MXCSR_INIT};
use crate::mutants::rule;
use crate::values::{self, BadValue, Limits};
use crate::views::View;

/// The largest component that fits a working copy (ZMM16–31).
pub const COPY_BYTES: usize = 1024;
const X87_BYTES: usize = 160;
/// Where MXCSR lies in the legacy region, with its mask.
const MXCSR: core::ops::Range<usize> = 24..32;
/// XMM registers in the bytes of SSE; MXCSR follows.
pub const XMM_BYTES: usize = 256;
const SSE_BYTES: usize = XMM_BYTES + 4;

/// A working copy of a small component.
#[derive(Debug)]
pub struct WorkingCopy {
    bytes: [u8; COPY_BYTES],
    len: usize,
}

impl WorkingCopy {
    /// `len` zero bytes, as many as fit.
    pub fn new(len: usize) -> Self {
        Self {
            bytes: [0; COPY_BYTES],
            len: len.min(COPY_BYTES),
        }
    }

    /// What `image` holds of the component; INIT values where it holds none.
    pub fn of(image: &Image<'_>, component: ComponentIndex, limits: &Limits, len: usize) -> Self {
        let mut copy = Self::new(len);
        read(image, component, limits, copy.get_mut());
        copy
    }

    pub fn get(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub fn get_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }
}

/// How many bytes an update of the component shows; `None` where `geometry`
/// does not know it.
pub fn len(geometry: &Geometry, component: ComponentIndex) -> Option<usize> {
    match component {
        ComponentIndex::X87 => Some(X87_BYTES),
        ComponentIndex::SSE => Some(SSE_BYTES),
        _ => geometry.get(component).map(|facts| {
            let size_bytes = facts.size_bytes as usize;
            component
                .payload_bytes()
                .map_or(size_bytes, |payload| payload.min(size_bytes))
        }),
    }
}

/// Makes `out` the initial configuration of a component of the extended region
/// on a machine with these limits.
pub fn init(component: ComponentIndex, limits: &Limits, out: &mut [u8]) {
    out.fill(0);
    if let Some(word) = out.first_chunk_mut() {
        *word = component.init_word().to_le_bytes();
    }
    if component == ComponentIndex::LBR
        && let Some(depth) = out.get_mut(LBR_DEPTH)
        && rule!("update-init-depth")
    {
        // Branch records are INIT with any depth, but with another than the
        // register's XRSTORS would drop what is written to them (SDM Vol. 1,
        // 13.5.12): the one that the machine comes up with.
        depth.copy_from_slice(&u64::from(limits.lbr_depth).to_le_bytes());
    }
}

/// Copies the component to `out`, which is zero and as long as [`len`] says.
pub fn read(image: &Image<'_>, component: ComponentIndex, limits: &Limits, out: &mut [u8]) {
    let legacy = image.legacy();
    let held = image.xstate_bv().has(component) || !rule!("init-is-never-read");
    match component {
        ComponentIndex::X87 => {
            let mut region = LegacyRegion::INIT;
            if held {
                region.copy_x87(legacy);
            }
            out.copy_from_slice(&region.as_bytes()[..X87_BYTES]);
            out[MXCSR].fill(0);
        }
        ComponentIndex::SSE => {
            let (xmm, mxcsr) = out.split_at_mut(XMM_BYTES);
            if held {
                xmm.copy_from_slice(legacy.xmm.as_bytes());
            }
            let value = if rule!("update-mxcsr-of-the-form") {
                image.mxcsr()
            } else {
                legacy.mxcsr.get()
            };
            mxcsr.copy_from_slice(&value.to_le_bytes());
        }
        _ => match image.held().find(|(one, _)| *one == component) {
            Some((_, bytes)) => {
                out.copy_from_slice(bytes);
                if component == ComponentIndex::LBR && rule!("update-counted-records") {
                    // Behind the records that the depth counts are those of an
                    // older save (SDM Vol. 1, 13.5.12).
                    let end = records_end(out);
                    out[end..].fill(0);
                }
            }
            None => init(component, limits, out),
        },
    }
}

/// What `image` holds of the view's component, which is of `len` bytes.
pub fn view<V: View>(image: &Image<'_>, limits: &Limits, len: usize) -> V {
    let large = len > COPY_BYTES;
    match image.held().find(|(one, _)| large && *one == V::COMPONENT) {
        // No copy is large enough, and none is needed.
        Some((_, bytes)) => V::read(bytes),
        None => V::read(WorkingCopy::of(image, V::COMPONENT, limits, len).get()),
    }
}

/// Whether a restore takes these bytes.
pub fn judge(component: ComponentIndex, bytes: &[u8], limits: &Limits) -> Result<(), BadValue> {
    if component == ComponentIndex::SSE {
        values::check_mxcsr(mxcsr(bytes), limits)
    } else {
        values::check(component, bytes, limits)
    }
}

/// MXCSR in the bytes of SSE.
pub fn mxcsr(sse: &[u8]) -> u32 {
    sse.get(XMM_BYTES..)
        .and_then(<[u8]>::first_chunk)
        .map_or(MXCSR_INIT, |bytes| u32::from_le_bytes(*bytes))
}

/// Where a component of the extended region lies in an image of `layout`.
pub fn place(
    geometry: &Geometry,
    form: Form,
    layout: ComponentSet,
    component: ComponentIndex,
) -> Option<Placement> {
    geometry
        .placements(form, layout)
        .find(|place| place.component == component)
}

/// Puts `new` into the image `bytes` and marks the component; `place` is where
/// one of the extended region lies, within `bytes`.
pub fn write(bytes: &mut [u8], component: ComponentIndex, place: Option<Placement>, new: &[u8]) {
    match component {
        ComponentIndex::X87 => {
            let mut from = LegacyRegion::INIT;
            from.as_mut_bytes()[..X87_BYTES].copy_from_slice(new);
            if let Ok((region, _)) = LegacyRegion::mut_from_prefix(bytes) {
                region.copy_x87(&from);
            }
        }
        ComponentIndex::SSE => {
            if let Ok((region, _)) = LegacyRegion::mut_from_prefix(bytes) {
                region.xmm.as_mut_bytes().copy_from_slice(&new[..XMM_BYTES]);
                region.mxcsr = U32::new(mxcsr(new));
            }
        }
        _ => {
            if let Some(place) = place {
                let to = &mut bytes[place.range()];
                let (state, tail) = to.split_at_mut(payload(place).len());
                state.copy_from_slice(new);
                if rule!("update-clears-tail") {
                    tail.fill(0);
                }
            }
        }
    }
    mark(bytes, component);
}

/// Sets the component's XSTATE_BV bit. Those of the legacy region get their
/// XCOMP_BV bit with it: a canonical image may lack it, although the room is
/// always there, and XRSTORS faults on XSTATE_BV beyond XCOMP_BV.
pub fn mark(bytes: &mut [u8], component: ComponentIndex) {
    let Ok((header, _)) = XsaveHeader::mut_from_prefix(&mut bytes[LEGACY_BYTES..]) else {
        unreachable!("an image has a header");
    };
    let only = ComponentSet::only(component);
    let xstate_bv = if rule!("update-marks") {
        header.xstate_bv().union(only)
    } else {
        header.xstate_bv()
    };
    *header = if header.xcomp_bv() == 0 {
        XsaveHeader::standard(xstate_bv)
    } else {
        let legacy = only.intersection(ComponentSet::LEGACY);
        XsaveHeader::compacted(xstate_bv, header.layout().union(legacy))
    };
}
