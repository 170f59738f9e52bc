//! A build of the import that loses one component: what the test guest must
//! notice. No ordinary build has this module.

use crate::host;
use alloc::vec::Vec;
use vcpu_xstate::component::ComponentIndex;

/// What the import loses, from `import-fault=NAME` on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportFault {
    /// Nothing.
    None,
    /// A component becomes INIT.
    Component(ComponentIndex),
    /// MXCSR becomes its INIT value, the XMM registers stay.
    Mxcsr,
}

impl ImportFault {
    /// The fault with this name: a component's, or `mxcsr`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        if name == "mxcsr" {
            return Some(Self::Mxcsr);
        }
        ComponentIndex::from_name(name).map(Self::Component)
    }
}

/// The blob without what the import loses: the component's XSTATE_BV bit is
/// cleared, its bytes stay.
#[must_use]
pub fn lose(blob: &[u8]) -> Vec<u8> {
    let mut lossy = blob.to_vec();
    let Some(image) = image_start(blob) else {
        return lossy;
    };
    match host::get().import_fault {
        ImportFault::None => {}
        ImportFault::Component(component) => {
            let byte = image + XSTATE_BV + usize::from(component.get() / 8);
            if let Some(byte) = lossy.get_mut(byte) {
                *byte &= !(1 << (component.get() % 8));
            }
        }
        ImportFault::Mxcsr => {
            if let Some(place) = lossy.get_mut(image + MXCSR..image + MXCSR + 4) {
                place.copy_from_slice(&MXCSR_INIT.to_le_bytes());
            }
        }
    }
    // A blob with a checksum passes as if it had been made so.
    let _ = migration_abi::blob::latest::seal(&mut lossy);
    lossy
}

const XSTATE_BV: usize = 512;
const MXCSR: usize = 24;
const MXCSR_INIT: u32 = 0x1f80;

fn image_start(blob: &[u8]) -> Option<usize> {
    let parsed = migration_abi::blob::parse(blob).ok()?;
    Some(parsed.image().as_ptr().addr() - blob.as_ptr().addr())
}
