//! The first 576 bytes of an image: legacy region without what is no state, and header.

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, IntoBytes};

use crate::bytes;
use crate::component::{ComponentIndex, ComponentSet};
use crate::header::XsaveHeader;
use crate::image::Image;
use crate::layout::{LEGACY_BYTES, MIN_IMAGE_BYTES};
use crate::legacy::words::{CONTROL, MXCSR, ST, ST_HIGH, Words, XMM};
use crate::legacy::{FCW_INIT, MXCSR_INIT};
use crate::mutants::rule;

/// What a restore reads of the legacy region: all before its reserved bytes.
pub(super) const STATE_BYTES: usize = 8 * XMM.end;

/// Copies what a restore reads of the legacy region.
#[inline(always)]
pub(super) fn copy_state(image: &Image<'_>, out: &mut [u8; MIN_IMAGE_BYTES]) {
    let (to, _) = out.split_at_mut(STATE_BYTES);
    bytes::copy_words(to, &image.legacy().as_bytes()[..STATE_BYTES]);
}

/// What the head of an image says.
#[derive(Clone, Copy)]
pub(super) struct Head {
    /// Whether x87 holds state.
    x87: bool,
    /// Whether the XMM registers do.
    xmm: bool,
    mxcsr: u32,
    xstate_bv: ComponentSet,
    /// XCOMP_BV of the header; 0 in the standard form.
    pub(super) xcomp_bv: u64,
}

impl Head {
    /// Of `held` from `image`; MXCSR only where SSE or AVX is among `components`,
    /// to both of which it belongs (SDM Vol. 1, 13.8.1).
    /// SSE holds state for its MXCSR alone too: a compacted restore takes MXCSR
    /// only with XSTATE_BV\[1\], while XSAVE may have cleared that bit (all XMM
    /// zero) with an MXCSR that is not INIT. Everybody's conversion lost it there.
    #[inline(always)]
    pub(super) fn of(image: &Image<'_>, held: ComponentSet, components: ComponentSet) -> Self {
        let sse = ComponentSet::only(ComponentIndex::SSE);
        let owners = if rule!("mxcsr-of-avx") {
            sse.union(ComponentSet::only(ComponentIndex::AVX))
        } else {
            sse
        };
        let mxcsr = if components.intersects(owners) {
            image.mxcsr()
        } else {
            MXCSR_INIT
        };
        let xstate_bv = if mxcsr == MXCSR_INIT || !rule!("mxcsr-sets-xstate-bv") {
            held
        } else {
            held.union(sse)
        };
        Self {
            x87: held.has(ComponentIndex::X87),
            xmm: held.contains(sse),
            mxcsr,
            xstate_bv,
            xcomp_bv: 0,
        }
    }

    /// XSTATE_BV of the image that is written.
    #[inline(always)]
    pub(super) const fn xstate_bv(&self) -> ComponentSet {
        self.xstate_bv
    }

    #[inline(always)]
    const fn header(&self) -> XsaveHeader {
        XsaveHeader::with(self.xstate_bv, self.xcomp_bv)
    }

    /// Makes the bytes of the image, which were copied to `out`, those of the image
    /// that is written, as far as a restore reads them.
    #[inline(always)]
    pub(super) fn patch(&self, out: &mut [u8; MIN_IMAGE_BYTES]) {
        let (to, header_out) = parts(out);
        if !self.x87 && rule!("init-fills-in-x87") {
            init_x87(to);
        }
        // MXCSR_MASK beside it is nobody's state: one store of a word.
        to[MXCSR] = U64::new(self.mxcsr.into());
        if !self.xmm && rule!("init-fills-in-xmm") {
            init_xmm(to);
        }
        *header_out = self.header();
    }

    /// Writes the legacy region and the header to `out`, every byte. Where `COPIED`,
    /// the bytes of `image` are there already, and what must differ is written.
    #[inline(always)]
    pub(super) fn write<const COPIED: bool>(
        &self,
        image: &Image<'_>,
        out: &mut [u8; MIN_IMAGE_BYTES],
    ) {
        let (to, header_out) = parts(out);
        let from = image.legacy().words();
        if self.x87 || !rule!("init-fills-in-x87") {
            to[0] = U64::new(from[0].get() & kept(CONTROL));
            if !COPIED {
                (to[1], to[2]) = (from[1], from[2]);
            }
            for word in (ST..XMM.start).step_by(2) {
                if !COPIED {
                    to[word] = from[word];
                }
                to[word + 1] = U64::new(from[word + 1].get() & kept(ST_HIGH));
            }
        } else {
            init_x87(to);
        }
        to[MXCSR] = U64::new(self.mxcsr.into());
        if !self.xmm && rule!("init-fills-in-xmm") {
            init_xmm(to);
        } else if !COPIED {
            bytes::copy_words(to[XMM].as_mut_bytes(), from[XMM].as_bytes());
        }
        if rule!("canonical-reserved-bytes") {
            to[XMM.end..].fill(U64::ZERO);
        }
        *header_out = self.header();
    }
}

/// What of a word of x87 is state; its reserved bytes are zero.
#[inline(always)]
fn kept(state: u64) -> u64 {
    if rule!("canonical-x87-padding") {
        state
    } else {
        u64::MAX
    }
}

#[inline(always)]
fn parts(out: &mut [u8; MIN_IMAGE_BYTES]) -> (&mut Words, &mut XsaveHeader) {
    let (legacy, header) = out.split_at_mut(LEGACY_BYTES);
    let (Ok(legacy), Ok(header)) = (
        Words::mut_from_bytes(legacy),
        XsaveHeader::mut_from_bytes(header),
    ) else {
        unreachable!("576 bytes are a legacy region and a header");
    };
    (legacy, header)
}

#[inline(never)]
fn init_x87(to: &mut Words) {
    to[0] = U64::new(FCW_INIT as u64);
    (to[1], to[2]) = (U64::ZERO, U64::ZERO);
    bytes::zero(to[ST..XMM.start].as_mut_bytes());
}

#[inline(never)]
fn init_xmm(to: &mut Words) {
    bytes::zero(to[XMM].as_mut_bytes());
}
