//! One layout with some of its components in use: a vCPU, its image in each form, and where the results go.
#![allow(unsafe_code)] // `Silicon::new`

use alloc::vec;
use alloc::vec::Vec;

use vcpu_xstate::component::{ComponentIndex, ComponentSet};
use vcpu_xstate::convert::{Target, transfer_whole};
use vcpu_xstate::header::{COMPACTED, XsaveHeader};
use vcpu_xstate::hw::Silicon;
use vcpu_xstate::layout::Form;
use vcpu_xstate::percpu::{CpuId, PcpuXstate};
use vcpu_xstate::{Block, Claims, Image, VcpuXstate, XstatePolicy};
use zerocopy::IntoBytes;

use migration_abi::blob::latest::{self, head_len};
use migration_abi::xstate::{self, HostLayouts};

use crate::heap::AreaHeap;
use crate::machine;

/// Beyond any image, blob header and directory.
const BUFFER_BLOCKS: usize = 256;

/// CET, which the machines have besides what is measured.
const CET: ComponentSet = ComponentSet::CET;

/// A buffer that is aligned as images are, begun somewhere within a page.
pub struct Buffer {
    blocks: Vec<Block>,
    skip: usize,
}

impl Buffer {
    fn new(skip: usize) -> Self {
        let blocks = vec![Block::ZERO; BUFFER_BLOCKS];
        Self { blocks, skip }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.blocks.as_bytes()[self.skip..]
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.blocks.as_mut_bytes()[self.skip..]
    }
}

/// What is measured, and what it is measured with.
pub struct Scene {
    pub layout: ComponentSet,
    /// Bytes of 576 and the components in use: what the limit copies.
    pub live_bytes: usize,
    /// Bytes of the whole standard image.
    pub standard_bytes: usize,
    /// Asked what the machine has. No vCPU is loaded: no instruction is executed.
    pub cpu: PcpuXstate<Silicon>,
    pub vcpu: VcpuXstate,
    pub memory: AreaHeap,
    /// The state as XSAVE leaves it.
    pub standard: Buffer,
    /// The state as XSAVEC leaves it, with XCOMP_BV the whole layout.
    pub compacted: Buffer,
    /// The state as an export leaves it, with XCOMP_BV what is in use.
    pub canonical: Buffer,
    pub blob: Buffer,
    pub blob_len: usize,
    /// Where results go.
    pub out: Buffer,
    /// Where a blob goes, so that its image lies at a multiple of 64.
    pub blob_out: Buffer,
    pub layouts: HostLayouts,
}

impl Scene {
    /// The scene; `None` where there is no machine of this layout, or where
    /// `in_use` exceeds it.
    pub fn new(layout: u64, in_use: u64) -> Option<Self> {
        let host = machine::host(layout)?;
        let layout = ComponentSet::from_bits_retain(layout);
        let in_use = ComponentSet::from_bits_retain(in_use);
        if !layout.contains(in_use) || !in_use.contains(ComponentSet::LEGACY) {
            return None;
        }
        let geometry = host.geometry().clone();
        let held = in_use.difference(ComponentSet::LEGACY).iter();
        let sizes = held.filter_map(|c| geometry.get(c).map(|facts| facts.size_bytes as usize));
        let live_bytes = 576 + sizes.sum::<usize>();
        let standard_bytes = geometry.image_size(Form::Standard, layout);

        let mut standard = Buffer::new(0);
        fill(&geometry, layout, in_use, standard.bytes_mut());
        let image = Image::new(standard.bytes(), &geometry, Form::Standard)?;
        let compact = |layout, out: &mut Buffer| {
            let target = Target {
                geometry: &geometry,
                form: Form::Compacted,
                layout,
            };
            transfer_whole(&image, in_use, target, out.bytes_mut()).ok()?;
            Some(target.size_bytes())
        };
        let mut compacted = Buffer::new(0);
        compact(layout, &mut compacted)?;
        let mut canonical = Buffer::new(0);
        let canonical_len = compact(in_use, &mut canonical)?;

        let claims = Claims {
            xstate_mask: layout.bits(),
            xcr0: layout.bits(),
            xss: 0,
            xfd: 0,
            xfd_err: 0,
            accum: layout.bits(),
            xcomp_bv: in_use.bits() | COMPACTED,
            xsave: true,
        };
        // Images lie at multiples of 64, in blobs too.
        let before_blob = 64 - head_len(layout.bits()) % 64;
        let mut blob = Buffer::new(before_blob);
        let blob_len = latest::encode(
            blob.bytes_mut(),
            &xstate::fields(&claims, false),
            xstate::directory(&geometry, layout),
            &canonical.bytes()[..canonical_len],
        )
        .ok()?;

        let mut memory = AreaHeap;
        let policy = XstatePolicy::new(layout, ComponentSet::EMPTY);
        let mut vcpu = VcpuXstate::new(1, &policy, &host, &mut memory).ok()?;
        let layouts = HostLayouts::new(&geometry).ok()?;
        // SAFETY: it is never asked to execute an instruction: no vCPU is loaded.
        let silicon = unsafe { Silicon::new() };
        let mut cpu = PcpuXstate::new(CpuId(0), silicon, host);
        let blob_bytes = blob.bytes().get(..blob_len)?;
        xstate::import(blob_bytes, &mut vcpu, &mut cpu, &layouts, &mut memory).ok()?;
        Some(Self {
            layout,
            live_bytes,
            standard_bytes,
            cpu,
            vcpu,
            memory,
            standard,
            compacted,
            canonical,
            blob,
            blob_len,
            out: Buffer::new(2048),
            blob_out: Buffer::new(2048 + before_blob),
            layouts,
        })
    }

    /// Another XCOMP_BV: what XSAVES of this machine would write.
    pub fn other_layout(&self) -> ComponentSet {
        self.layout.union(CET)
    }
}

/// A standard image of `in_use`: legal values in what is in use, old bytes
/// everywhere else, as a save leaves them.
fn fill(
    geometry: &vcpu_xstate::Geometry,
    layout: ComponentSet,
    in_use: ComponentSet,
    image: &mut [u8],
) {
    image.fill(0xee);
    let (legacy, rest) = image.split_at_mut(512);
    legacy[..32].copy_from_slice(&[
        0x7f, 0x03, 0, 0, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // FCW to FIP
        0, 0, 0, 0, 0, 0, 0, 0, 0xa0, 0x1f, 0, 0, 0xff, 0xff, 0, 0, // FDP, MXCSR
    ]);
    for st in 0..8 {
        legacy[32 + 16 * st..42 + 16 * st].fill(0x3f);
        legacy[42 + 16 * st..48 + 16 * st].fill(0);
    }
    legacy[160..416].fill(0x41);
    legacy[416..].fill(0);
    rest[..64].copy_from_slice(XsaveHeader::standard(in_use).as_bytes());
    for place in geometry.placements(Form::Standard, layout.intersection(in_use)) {
        let bytes = &mut image[place.range()];
        if place.component == ComponentIndex::TILECFG {
            // Palette 1, eight tiles of 16 rows of 64 bytes.
            bytes.fill(0);
            bytes[0] = 1;
            (0..8).for_each(|tile| bytes[16 + 2 * tile] = 64);
            bytes[48..56].fill(16);
        } else {
            bytes.fill(0x41);
        }
        if place.component == ComponentIndex::PKRU {
            bytes[4..].fill(0);
        }
    }
}
