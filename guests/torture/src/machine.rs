//! What this machine lets the guest use, from CPUID; and switching it on.
#![allow(unsafe_code)] // control registers

use crate::registers::{Component, ComponentSet};
use guest_rt::cpu;

/// Leaf 0xD's sub-leaves.
const SUBLEAVES: usize = 63;
const LEAVES: usize = 8;

/// CR4: FXSAVE and SSE, #XM, XSAVE, protection keys.
const CR4_OSFXSR: u64 = 1 << 9;
const CR4_OSXMMEXCPT: u64 = 1 << 10;
const CR4_OSXSAVE: u64 = 1 << 18;
const CR4_PKE: u64 = 1 << 22;

/// Bytes of an XSAVE image without extended components.
pub const LEGACY_AND_HEADER_BYTES: usize = 576;

/// The machine as the guest's CPUID policy shows it.
pub struct Machine {
    /// What can be filled and checked, of XCR0's and the others.
    pub components: ComponentSet,
    /// All of CPUID 0xD.0; 0 without XSAVE.
    pub xcr0: u64,
    /// Where each component lies in a standard image: (offset, size).
    pub layout: [(usize, usize); SUBLEAVES],
    /// Bytes of a standard image of all of `xcr0`.
    pub image_bytes: usize,
    /// AVX512BW: opmasks have 64 bits that can be loaded.
    pub wide_opmask: bool,
    /// TSC_AUX exists.
    pub tsc_aux: bool,
    /// Bits of MXCSR that may be set.
    pub mxcsr_mask: u32,
    /// Whether FIP, FDP and FOP survive a save and a restore.
    pub keeps_pointers: [bool; 3],
    snapshot: Snapshot,
}

/// A leaf, its registers that must not change, and how it is named.
type Row = (u32, u32, [u32; 4]);

/// CPUID as far as it must stay the same for as long as the guest lives.
struct Snapshot {
    features: [Row; LEAVES],
    state: [Row; SUBLEAVES],
}

/// A register of CPUID that is not what it was at start.
pub struct CpuidChange {
    /// Leaf and sub-leaf.
    pub leaf: (u32, u32),
    /// 0–3 for EAX to EDX.
    pub register: usize,
    /// At start.
    pub was: u32,
    /// Now.
    pub is: u32,
}

impl Machine {
    /// Reads CPUID and enables all that it offers.
    ///
    /// # Safety
    /// Once, before anything relies on CR4 or XCR0.
    pub unsafe fn enable() -> Self {
        let one = cpu::cpuid(1, 0);
        let seven = leaf(7, 0);
        let xsave = one.ecx & (1 << 26) != 0;
        let pku = seven[2] & (1 << 3) != 0;
        let mut bits = CR4_OSFXSR | CR4_OSXMMEXCPT;
        if xsave {
            bits |= CR4_OSXSAVE;
        }
        if pku {
            bits |= CR4_PKE;
        }
        let mut xcr0 = 0;
        // SAFETY: CPUID has what each bit enables, and what it says of XCR0 is
        // legal as a whole. All pages are supervisor pages: PKRU is inert.
        unsafe {
            cpu::set_cr4_bits(bits);
            if xsave {
                let offered = cpu::cpuid(0xd, 0);
                xcr0 = u64::from(offered.edx) << 32 | u64::from(offered.eax);
                cpu::xsetbv0(xcr0);
            }
        }
        let mut components = ComponentSet::from(0u8);
        for component in Component::ALL {
            let bit = component.xcr0_bit();
            let legacy = bit & 3 != 0;
            if bit == 0 || legacy || xcr0 & bit == bit {
                components |= component.bit();
            }
        }
        // PKRU can be used without XSAVE too, but is then in no image.
        if pku {
            components |= Component::Pkru.bit();
        }
        Self {
            components,
            xcr0,
            layout: layout(xcr0),
            image_bytes: if xsave {
                cpu::cpuid(0xd, 0).ebx as usize
            } else {
                512
            },
            wide_opmask: seven[1] & (1 << 30) != 0,
            tsc_aux: leaf(0x8000_0001, 0)[3] & (1 << 27) != 0 || seven[2] & (1 << 22) != 0,
            mxcsr_mask: 0,
            keeps_pointers: [true; 3],
            snapshot: Snapshot::take(xcr0),
        }
    }

    /// A machine with this XCR0 and the layout that Intel's processors have.
    #[cfg(test)]
    pub fn pretend(xcr0: u64) -> Self {
        let has = |c: &Component| {
            let bit = c.xcr0_bit();
            bit == 0 || xcr0 & bit == bit
        };
        let components = Component::ALL.into_iter().filter(has);
        let mut layout = [(0, 0); SUBLEAVES];
        for (index, place) in [
            (2, (576, 256)),
            (3, (960, 64)),
            (4, (1024, 64)),
            (5, (1088, 64)),
            (6, (1152, 512)),
            (7, (1664, 1024)),
            (9, (2688, 8)),
            (17, (2752, 64)),
            (18, (2816, 8192)),
        ] {
            layout[index] = place;
        }
        Self {
            components: components.fold(0, |set, c| set | c.bit()),
            xcr0,
            layout,
            image_bytes: 11008,
            wide_opmask: true,
            tsc_aux: true,
            mxcsr_mask: 0xffff,
            keeps_pointers: [true; 3],
            snapshot: Snapshot::take(0),
        }
    }

    /// Whether the component can be filled and checked.
    #[must_use]
    pub const fn has(&self, component: Component) -> bool {
        self.components & component.bit() != 0
    }

    /// Whether the policy has XSAVE.
    #[must_use]
    pub const fn xsave(&self) -> bool {
        self.xcr0 != 0
    }

    /// Components of the policy that this guest has no pattern for.
    #[must_use]
    pub fn unknown(&self) -> u64 {
        let known = Component::ALL
            .into_iter()
            .fold(0, |set, c| set | c.xcr0_bit());
        self.xcr0 & !known
    }

    /// Where a component starts in a standard image; `None` where no image has
    /// it.
    #[must_use]
    pub fn image_base(&self, component: Component) -> Option<usize> {
        let bit = component.xcr0_bit();
        if bit & 3 != 0 {
            return Some(0);
        }
        if self.xcr0 & bit == 0 {
            return None;
        }
        Some(self.layout.get(component as usize)?.0)
    }

    /// What CPUID says otherwise than at start: in anything, or only in the
    /// layout of what is enabled.
    pub fn cpuid_changes(&self, layout_only: bool) -> impl Iterator<Item = CpuidChange> + '_ {
        let rows = self.snapshot.features.iter().chain(&self.snapshot.state);
        rows.filter(move |row| row.0 != 0 && (!layout_only || row.0 == 0xd && row.1 >= 2))
            .flat_map(|&(number, subleaf, was)| {
                let is = stable(number, subleaf);
                (0..4).filter_map(move |register| {
                    let (was, is) = (*was.get(register)?, *is.get(register)?);
                    (was != is).then_some(CpuidChange {
                        leaf: (number, subleaf),
                        register,
                        was,
                        is,
                    })
                })
            })
    }
}

impl Snapshot {
    fn take(xcr0: u64) -> Self {
        let mut features = [(0, 0, [0; 4]); LEAVES];
        let wanted = [1, 7, 0x8000_0001, 0x8000_0008, 0x1d];
        for (row, number) in features.iter_mut().zip(wanted) {
            let subleaf = u32::from(number == 0x1d);
            *row = (number, subleaf, stable(number, subleaf));
        }
        let mut state = [(0, 0, [0; 4]); SUBLEAVES];
        if xcr0 != 0 {
            for (row, subleaf) in state.iter_mut().zip(0u32..) {
                if subleaf < 2 || xcr0 >> subleaf & 1 != 0 {
                    *row = (0xd, subleaf, stable(0xd, subleaf));
                }
            }
        }
        Self { features, state }
    }
}

/// A leaf as far as it does not depend on which CPU the guest runs on.
fn stable(number: u32, subleaf: u32) -> [u32; 4] {
    let mut registers = leaf(number, subleaf);
    if number == 1 {
        // EBX: APIC id, CLFLUSH size, count of CPUs.
        registers[1] = 0;
    }
    registers
}

/// A leaf, zero where CPUID does not go that far.
fn leaf(number: u32, subleaf: u32) -> [u32; 4] {
    let highest = cpu::cpuid(number & 0x8000_0000, 0).eax;
    if number > highest {
        return [0; 4];
    }
    let result = cpu::cpuid(number, subleaf);
    [result.eax, result.ebx, result.ecx, result.edx]
}

fn layout(xcr0: u64) -> [(usize, usize); SUBLEAVES] {
    let mut layout = [(0, 0); SUBLEAVES];
    for (place, index) in layout.iter_mut().zip(0u32..).skip(2) {
        if xcr0 >> index & 1 != 0 {
            let result = cpu::cpuid(0xd, index);
            *place = (result.ebx as usize, result.eax as usize);
        }
    }
    layout
}
