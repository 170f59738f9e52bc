//! Machines and generators that the tests of several modules share.

use proptest::prelude::*;

use crate::area::{AreaMemory, Block};
use crate::component::{ComponentIndex, ComponentSet};
use crate::cpuid::{CpuidResult, HostXstate};
use crate::hw::Modelled;
use crate::layout::{ComponentFacts, Geometry, MIN_IMAGE_BYTES};
use crate::model::InitTracking;

/// Step of a loop over all lengths, or over large images: Miri, which takes a
/// few hundred times longer, tries a few of them.
pub const fn stride(under_miri: usize) -> usize {
    if cfg!(miri) { under_miri } else { 1 }
}

/// Facts of a plain user component.
pub fn user(size_bytes: u32, standard_offset: u32) -> ComponentFacts {
    ComponentFacts {
        size_bytes,
        standard_offset,
        supervisor: false,
        aligned64: false,
        xfd: false,
    }
}

/// Facts of a plain supervisor component.
pub fn supervisor(size_bytes: u32) -> ComponentFacts {
    ComponentFacts {
        supervisor: true,
        ..user(size_bytes, 0)
    }
}

/// The same, aligned to 64 bytes in the compacted form.
pub fn aligned(facts: ComponentFacts) -> ComponentFacts {
    ComponentFacts {
        aligned64: true,
        ..facts
    }
}

/// The geometry of these facts.
pub fn geometry(facts: &[(u8, ComponentFacts)]) -> Geometry {
    let mut geometry = Geometry::new();
    for (index, facts) in facts {
        geometry
            .insert(ComponentIndex::new(*index).unwrap(), *facts)
            .unwrap();
    }
    geometry
}

/// QEMU 10 `-cpu max` (measured).
pub fn qemu_max() -> Geometry {
    geometry(&[
        (2, user(256, 576)),
        (3, user(64, 960)),
        (4, user(64, 1024)),
        (9, user(8, 2688)),
    ])
}

/// Bochs 3 `sapphire_rapids`: AVX-512, PKRU, AMX, CET, UINTR.
pub fn bochs_sapphire_rapids() -> Geometry {
    geometry(&[
        (2, user(256, 576)),
        (5, user(64, 1088)),
        (6, user(512, 1152)),
        (7, user(1024, 1664)),
        (9, user(8, 2688)),
        (11, supervisor(16)),
        (12, supervisor(24)),
        (14, supervisor(48)),
        (
            17,
            ComponentFacts {
                aligned64: true,
                ..user(64, 2752)
            },
        ),
        (
            18,
            ComponentFacts {
                aligned64: true,
                xfd: true,
                ..user(8192, 2816)
            },
        ),
    ])
}

/// What leaf 0xD and its neighbours say of a machine of this geometry.
pub struct Machine {
    pub geometry: Geometry,
    /// CPUID.(0xD,1):EAX.
    pub instructions: u32,
}

impl Machine {
    /// Answers as the machine's CPUID would.
    pub fn cpuid(&self, leaf: u32, subleaf: u32) -> CpuidResult {
        let known = self.geometry.known();
        let user = known.difference(self.geometry.supervisor()).bits();
        let supervisor = self.geometry.supervisor().bits();
        let mut r = CpuidResult::default();
        match (leaf, subleaf) {
            (0, _) => r.eax = 0xd,
            (1, _) => r.ecx = 1 << 26,
            (7, 0) => {
                let cet = known.intersects(ComponentSet::CET);
                r.ecx = u32::from(known.has(ComponentIndex::PKRU)) << 3 | u32::from(cet) << 7;
                r.edx = u32::from(cet) << 20;
            }
            (0xd, 0) => (r.eax, r.edx) = (user as u32, (user >> 32) as u32),
            (0xd, 1) => {
                r.eax = self.instructions;
                (r.ecx, r.edx) = (supervisor as u32, (supervisor >> 32) as u32);
            }
            (0xd, i) => {
                let facts = u8::try_from(i)
                    .ok()
                    .and_then(ComponentIndex::new)
                    .and_then(|index| self.geometry.get(index));
                if let Some(facts) = facts {
                    (r.eax, r.ebx) = (facts.size_bytes, facts.standard_offset);
                    r.ecx = u32::from(facts.supervisor)
                        | u32::from(facts.aligned64) << 1
                        | u32::from(facts.xfd) << 2;
                }
            }
            (0x8000_0000, _) => r.eax = 0x8000_0008,
            (0x8000_0008, _) => r.eax = 48 << 8 | 40,
            _ => {}
        }
        r
    }

    /// The machine as the crate reads it, with everything that has a name.
    pub fn host(&self) -> HostXstate {
        let mut host = HostXstate::read(&|l, s| self.cpuid(l, s), 0xffff).unwrap();
        host.permit(ComponentSet::NAMED);
        host
    }
}

/// A host of this geometry with these instructions (CPUID.(0xD,1):EAX).
pub fn host(geometry: Geometry, instructions: u32) -> HostXstate {
    Machine {
        geometry,
        instructions,
    }
    .host()
}

/// The same of AMD's making, from before RstrFpErrPtrs: FOP, FIP and FDP are
/// saved and restored with an exception pending only (XSA-52).
pub fn amd_host(geometry: Geometry, instructions: u32) -> HostXstate {
    let machine = Machine {
        geometry,
        instructions,
    };
    let cpuid = |leaf, subleaf| {
        let mut r = machine.cpuid(leaf, subleaf);
        if leaf == 0 {
            r.ebx = u32::from_le_bytes(*b"Auth");
        }
        r
    };
    let mut host = HostXstate::read(&cpuid, 0xffff).unwrap();
    host.permit(ComponentSet::NAMED);
    assert!(host.leaks_fp_pointers());
    host
}

/// The software CPU of the machine that `host` was read of.
pub fn modelled(host: &HostXstate, tracking: InitTracking) -> Modelled {
    let has = host.instructions();
    let machine = Machine {
        geometry: host.geometry().clone(),
        instructions: u32::from(has.xsaveopt)
            | u32::from(has.xsavec) << 1
            | u32::from(has.xgetbv1) << 2
            | u32::from(has.xsaves) << 3
            | u32::from(has.xfd) << 4,
    };
    let cpuid = |leaf, subleaf| {
        let mut r = machine.cpuid(leaf, subleaf);
        if leaf == 0 && host.leaks_fp_pointers() {
            r.ebx = u32::from_le_bytes(*b"Auth");
        }
        if leaf == 7 {
            let limits = host.limits();
            r.ecx = r.ecx & !(1 << 7) | u32::from(limits.shadow_stacks) << 7;
            r.edx = u32::from(limits.branch_tracking) << 20;
        }
        r
    };
    Modelled::new(&cpuid, host.clone(), tracking)
}

/// Any geometry that the constructor accepts: odd sizes, odd orders, gaps.
pub fn any_geometry() -> impl Strategy<Value = Geometry> {
    prop_oneof![scattered(), packed()]
}

/// Components anywhere.
fn scattered() -> impl Strategy<Value = Geometry> {
    let facts = (2u8..63, 1u32..700, 0u32..9000, any::<[bool; 3]>());
    proptest::collection::vec(facts, 0..24).prop_map(|all| {
        all.into_iter()
            .fold(Geometry::new(), |geometry, (index, size, offset, flags)| {
                with(geometry, index, size, offset, flags)
            })
    })
}

/// Components side by side in any order, many of them small, with gaps as
/// alignment leaves them: so one may lie in what is a gap between two others.
fn packed() -> impl Strategy<Value = Geometry> {
    let size = prop_oneof![1u32..64, 1u32..700];
    let gap = prop_oneof![Just(0), 0u32..64];
    let facts = (any::<u16>(), 2u8..63, size, gap, any::<[bool; 3]>());
    proptest::collection::vec(facts, 2..8).prop_map(|mut all| {
        all.sort_by_key(|(order, ..)| *order);
        let mut end = MIN_IMAGE_BYTES as u32;
        all.into_iter()
            .fold(Geometry::new(), |geometry, (_, index, size, gap, flags)| {
                let offset = end + gap;
                end = offset + size;
                with(geometry, index, size, offset, flags)
            })
    })
}

/// With one component more; what the constructor refuses is left out, as a
/// reader would.
fn with(
    mut geometry: Geometry,
    index: u8,
    size_bytes: u32,
    offset: u32,
    [supervisor, aligned64, xfd]: [bool; 3],
) -> Geometry {
    let facts = ComponentFacts {
        size_bytes,
        standard_offset: if supervisor { 0 } else { offset },
        supervisor,
        aligned64,
        xfd,
    };
    let _ = geometry.insert(ComponentIndex::new(index).unwrap(), facts);
    geometry
}

/// Memory that counts, that can fail, and that hands freed buffers out again
/// at once, so that addresses are re-used as often as can be.
#[derive(Default)]
pub struct TestMemory {
    /// Blocks given and not taken back.
    pub live_blocks: usize,
    /// Calls of `allocate` so far.
    pub calls: usize,
    /// The call (counted from 0) that fails.
    pub fail_at: Option<usize>,
    freed: Vec<Vec<Block>>,
}

impl TestMemory {
    /// Memory of which this call of `allocate`, counted from 0, fails.
    pub fn failing_at(call: usize) -> Self {
        Self {
            fail_at: Some(call),
            ..Self::default()
        }
    }
}

impl AreaMemory for TestMemory {
    fn allocate(&mut self, blocks: usize) -> Option<Vec<Block>> {
        let call = self.calls;
        self.calls += 1;
        if self.fail_at == Some(call) {
            return None;
        }
        self.live_blocks += blocks;
        if let Some(i) = self.freed.iter().position(|free| free.len() == blocks) {
            let mut again = self.freed.swap_remove(i);
            again.fill(Block::ZERO);
            return Some(again);
        }
        Some(vec![Block::ZERO; blocks])
    }

    fn release(&mut self, blocks: Vec<Block>) {
        self.live_blocks -= blocks.len();
        self.freed.push(blocks);
    }
}

/// The instruction sets that hosts come with (CPUID.(0xD,1):EAX): XSAVE alone,
/// XSAVEOPT, XSAVEC, XSAVEC with XFD (XSAVES hidden by whoever is below), XSAVES,
/// XSAVES with XFD.
pub const INSTRUCTIONS: [u32; 6] = [0x0, 0x1, 0x3, 0x17, 0xf, 0x1f];
