//! The model's registers, and which of them count as in use.

use zerocopy::IntoBytes;

use crate::component::{ComponentIndex, ComponentSet};
use crate::legacy::LegacyRegion;

/// How a model's XINUSE behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Xinuse {
    /// By content: what holds INIT values is INIT.
    Tracked,
    /// Always in use, as QEMU has it for x87, SSE, AVX and PKRU.
    AlwaysOne,
}

/// The registers, as a guest sees them.
#[derive(Clone)]
pub struct Registers {
    pub legacy: LegacyRegion,
    /// Components 2 and above, their defined bytes.
    pub extended: Vec<Vec<u8>>,
}

impl Registers {
    pub fn init() -> Self {
        let bytes = |i: u8| ComponentIndex::new(i).unwrap().payload_bytes().unwrap_or(0);
        Self {
            legacy: LegacyRegion::INIT,
            extended: (0..63).map(|i| vec![0; bytes(i)]).collect(),
        }
    }

    pub fn get(&mut self, component: ComponentIndex) -> &mut Vec<u8> {
        &mut self.extended[usize::from(component.get())]
    }

    pub(super) fn state(&self, component: ComponentIndex) -> Vec<u8> {
        let legacy = self.legacy.as_bytes();
        match component {
            ComponentIndex::X87 => [&legacy[..24], &legacy[32..160]].concat(),
            ComponentIndex::SSE => [&legacy[24..28], &legacy[160..416]].concat(),
            _ => self.extended[usize::from(component.get())].clone(),
        }
    }

    /// The components, of `among`, in which the two differ.
    pub fn differences(&self, other: &Self, among: ComponentSet) -> ComponentSet {
        let mut set = ComponentSet::EMPTY;
        for component in among {
            if self.state(component) != other.state(component) {
                set.insert(ComponentSet::only(component));
            }
        }
        set
    }
}
