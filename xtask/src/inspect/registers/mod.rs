//! The registers in an image, by name and value.

mod bits;
mod dump;
mod float80;
mod system;
mod tiles;
mod vectors;
mod x87;

pub use bits::{CET, names as bit_names};

use std::collections::BTreeMap;

use vcpu_xstate::legacy::LegacyRegion;
use vcpu_xstate::{ComponentIndex as C, ComponentSet};

use super::document::{Section, hex};

/// What an image says of a vCPU's registers.
pub struct State<'a> {
    /// x87, MXCSR and XMM, as they stand in the image.
    pub legacy: &'a LegacyRegion,
    /// Whether FIP and FDP are 32 bits with FCS and FDS behind them.
    pub fp_selectors: bool,
    /// The MXCSR that a restore gives.
    pub mxcsr: u32,
    /// The bytes of the components that are not INIT, SSE's 256 too.
    pub held: BTreeMap<u8, &'a [u8]>,
    /// What is held and cannot be read: it has no place, or is cut off.
    pub lost: ComponentSet,
}

impl<'a> State<'a> {
    /// The component's bytes; `None` where it is INIT.
    pub fn of(&self, component: C) -> Option<&'a [u8]> {
        self.held.get(&component.get()).copied()
    }
}

/// Components that are parts of the vector registers or of the tiles.
const VECTORS: [C; 5] = [C::SSE, C::AVX, C::OPMASK, C::ZMM_HI256, C::HI16_ZMM];
const TILES: [C; 2] = [C::TILECFG, C::TILEDATA];

/// All registers that are not INIT, and MXCSR.
pub fn explain(state: &State<'_>, full: bool) -> Section {
    let note = if state.lost.is_empty() {
        "what is not shown is INIT".into()
    } else {
        format!(
            "not readable: {}; what else is not shown is INIT",
            state.lost
        )
    };
    let mut section = Section::new("registers", "Registers").with_note(note);
    section.value("unreadable", hex(state.lost.bits()));
    if state.of(C::X87).is_some() {
        section.section(x87::explain(state.legacy, state.fp_selectors));
    }
    section.section(vectors::explain(state));
    section.section(tiles::explain(state, full));
    let rest = ComponentSet::ALL
        .iter()
        .filter(|c| *c != C::X87 && !VECTORS.contains(c) && !TILES.contains(c));
    for component in rest {
        let Some(bytes) = state.of(component) else {
            continue;
        };
        let known = system::explain(state, component);
        section
            .section(known.unwrap_or_else(|| system::unknown(bytes, &component.to_string(), full)));
    }
    section
}
