//! XRSTOR and XRSTORS (SDM Vol. 1, 13.8, 13.12).

use super::fault::{Fault, Reason};
use super::registers::{LBR, LBR_DEPTH, MXCSR_INIT, Registers, UINTR, X87};
use super::{Cpu, RestoredFrom, legal};
use crate::component::ComponentIndex;

const COMPACTED: u64 = 1 << 63;
const SSE: u64 = 2;
const BNDCSR: u8 = 4;
const TILECFG: u8 = 17;

/// The header, and what follows from it and EDX:EAX.
struct Request {
    xstate_bv: u64,
    xcomp_bv: u64,
    /// The components to be loaded or made INIT.
    rfbm: u64,
    /// The components to be loaded.
    loads: u64,
}

impl Request {
    const fn compacted(&self) -> bool {
        self.xcomp_bv & COMPACTED != 0
    }
}

impl Cpu {
    /// XRSTOR64 from the area at `address`, which `memory` holds the bytes of;
    /// `mask` is EDX:EAX. The form is the header's.
    ///
    /// # Errors
    /// The exception. Unless it is one of a value, nothing is changed.
    pub fn xrstor(&mut self, address: u64, memory: &[u8], mask: u64) -> Result<(), Fault> {
        self.begin(self.machine.xsave, false, address)?;
        Ok(self.restore(false, address, memory, mask)?)
    }

    /// XRSTORS64; as [`xrstor`](Self::xrstor), compacted areas only.
    ///
    /// # Errors
    /// The exception. On a value that a register does not take, components
    /// before that one are loaded, others keep what they held.
    pub fn xrstors(&mut self, address: u64, memory: &[u8], mask: u64) -> Result<(), Fault> {
        self.begin(self.machine.xsaves, true, address)?;
        Ok(self.restore(true, address, memory, mask)?)
    }

    fn restore(
        &mut self,
        supervisor: bool,
        address: u64,
        memory: &[u8],
        mask: u64,
    ) -> Result<(), Reason> {
        let request = self.read_header(supervisor, memory, mask)?;

        // 13.14 Extended Feature Disable.
        let disabled = request.loads & self.xfd & self.xcr0;
        if disabled != 0 {
            self.xfd_err = disabled;
            return Err(Reason::XfdRestore(disabled));
        }
        self.probe(&request, memory)?;

        // 13.8.1, 13.8.2: where MXCSR comes from.
        let mxcsr = if !request.compacted() && request.rfbm & 6 != 0 || request.loads & SSE != 0 {
            Some(u32::from_le_bytes(bytes(memory, 24)?))
        } else if request.rfbm & SSE != 0 && request.compacted() {
            Some(MXCSR_INIT)
        } else {
            None
        };
        if let Some(value) = mxcsr
            && value & !self.machine.mxcsr_mask != 0
        {
            return Err(Reason::Mxcsr(value));
        }

        // From here on registers change; a fault on a value leaves them half
        // loaded, and the processor no longer knows what is unmodified.
        self.modified = u64::MAX;
        self.restored_from = None;
        self.in_use |= request.loads;
        self.load(&request, mxcsr, memory)?;

        self.in_use &= !(request.rfbm & !request.xstate_bv);
        // 13.8.3. What became INIT but is not tracked as such has no bytes in
        // the area, so a later save must not leave it out.
        let unmodified = request.rfbm & (request.xstate_bv | !self.xinuse());
        self.modified = !unmodified;
        self.restored_from = Some(RestoredFrom {
            cpl: self.mode.cpl,
            vmx_non_root: self.mode.vmx_non_root,
            address,
            xcomp_bv: request.xcomp_bv,
        });
        Ok(())
    }

    /// The faults of the header.
    fn read_header(&self, supervisor: bool, memory: &[u8], mask: u64) -> Result<Request, Reason> {
        let word = |at| Ok::<u64, Reason>(u64::from_le_bytes(bytes(memory, at)?));
        let reserved = |mut words: core::ops::Range<usize>| {
            words.try_fold(0, |all, i| Ok::<u64, Reason>(all | word(512 + 8 * i)?))
        };
        let (xstate_bv, xcomp_bv) = (word(512)?, word(520)?);
        let enabled = self.xcr0 | if supervisor { self.xss } else { 0 };
        if xcomp_bv & COMPACTED == 0 {
            if supervisor {
                return Err(Reason::NotCompacted(xcomp_bv));
            }
            if xstate_bv & !enabled != 0 {
                return Err(Reason::XstateBvXcr0(xstate_bv));
            }
            if reserved(1..3)? != 0 {
                return Err(Reason::StandardHeader);
            }
        } else {
            if !self.machine.xsavec && !self.machine.xsaves {
                return Err(Reason::NoCompaction(xcomp_bv));
            }
            let layout = xcomp_bv & !COMPACTED;
            if layout & !enabled != 0 {
                return Err(Reason::XcompBvEnabled(xcomp_bv));
            }
            if xstate_bv & !layout != 0 {
                return Err(Reason::XstateBvXcompBv(xstate_bv));
            }
            if reserved(2..8)? != 0 {
                return Err(Reason::HeaderReserved);
            }
        }
        let rfbm = mask & enabled;
        Ok(Request {
            xstate_bv,
            xcomp_bv,
            rfbm,
            loads: rfbm & xstate_bv,
        })
    }

    /// Whether everything that is to be loaded is in the memory.
    fn probe(&self, request: &Request, memory: &[u8]) -> Result<(), Reason> {
        // The legacy region lies before the header, which was read.
        for i in (2..63).filter(|i| request.loads & 1 << i != 0) {
            self.held(request, i, memory)?;
        }
        Ok(())
    }

    /// The bytes of a component in the area, as many as there are registers.
    fn held<'a>(&self, request: &Request, i: u8, memory: &'a [u8]) -> Result<&'a [u8], Reason> {
        let offset = if request.compacted() {
            self.offset_compacted(i, request.xcomp_bv)
        } else {
            self.offset_standard(i)
        };
        let offset = offset.unwrap_or(0);
        let len = self.registers.extended(i.into()).len();
        usize::try_from(offset)
            .ok()
            .and_then(|start| memory.get(start..)?.get(..len))
            .ok_or(Reason::Outside(offset.max(memory.len() as u64)))
    }

    fn load(&mut self, request: &Request, mxcsr: Option<u32>, memory: &[u8]) -> Result<(), Reason> {
        if request.rfbm & 1 != 0 {
            let mut x87 = if request.loads & 1 != 0 {
                X87::from_bytes(&bytes(memory, 0)?)
            } else {
                X87::INIT
            };
            if self.x87_head(&x87) < 24 {
                // XSA-52: the last owner's pointers stay.
                let X87 { fop, fip, fdp, .. } = self.registers.x87;
                x87 = X87 {
                    fop,
                    fip,
                    fdp,
                    ..x87
                };
            }
            self.registers.x87 = x87;
        }
        if request.rfbm & SSE != 0 {
            let xmm: [u8; 256] = if request.loads & SSE != 0 {
                bytes(memory, 160)?
            } else {
                [0; 256]
            };
            self.registers.xmm.as_flattened_mut().copy_from_slice(&xmm);
        }
        if let Some(mxcsr) = mxcsr {
            self.registers.mxcsr = mxcsr;
        }
        for i in (2..63).filter(|i| request.rfbm & 1 << i != 0) {
            let Some(component) = ComponentIndex::new(i) else {
                continue;
            };
            if request.loads & 1 << i == 0 {
                self.registers.set_init(component);
                continue;
            }
            let held = self.held(request, i, memory)?;
            self.load_component(component, held)?;
        }
        Ok(())
    }

    fn load_component(&mut self, component: ComponentIndex, held: &[u8]) -> Result<(), Reason> {
        let i = usize::from(component.get());
        // 13.5.11: UINV must be 0 before user-interrupt state is loaded.
        if i == UINTR
            && let Some(uinv @ 1..) = self.registers.extended(i).get(20).copied()
        {
            return Err(Reason::UinvLive(uinv));
        }
        legal::check(component, held, &self.machine)?;
        // Vol. 1, 13.5 TILECFG state: what LDTILECFG refuses becomes INIT.
        if component.get() == TILECFG && !legal::tile_configuration(held) {
            self.registers.set_init(component);
            return Ok(());
        }
        let to = self.registers.extended_mut(i);
        if component.get() == BNDCSR
            && let Some((bndcfgu, bndstatus)) = held.split_first_chunk()
            && let Some((to_bndcfgu, to_bndstatus)) = to.split_first_chunk_mut()
        {
            let value = u64::from_le_bytes(*bndcfgu);
            *to_bndcfgu = legal::bound_configuration(value, &self.machine).to_le_bytes();
            to_bndstatus.copy_from_slice(bndstatus);
        } else if i == LBR && held.len() >= LBR_DEPTH.end {
            // IA32_LBR_DEPTH is saved but never restored (Vol. 3, Last Branch
            // Records: XSAVE support).
            to[..LBR_DEPTH.start].copy_from_slice(&held[..LBR_DEPTH.start]);
            to[LBR_DEPTH.end..].copy_from_slice(&held[LBR_DEPTH.end..]);
        } else {
            to.copy_from_slice(held);
        }
        Ok(())
    }
}

/// `N` bytes of the area.
fn bytes<const N: usize>(memory: &[u8], at: usize) -> Result<[u8; N], Reason> {
    let rest = memory.get(at..).unwrap_or(&[]);
    rest.first_chunk()
        .copied()
        .ok_or(Reason::Outside(at.max(memory.len()) as u64))
}

impl Registers {
    /// The bits of `among` whose components hold their initial configuration.
    pub fn init_among(&self, among: u64) -> u64 {
        (0..63)
            .filter_map(ComponentIndex::new)
            .filter(|component| among & component.bit() != 0 && self.is_init(*component))
            .fold(0, |set, component| set | component.bit())
    }
}
