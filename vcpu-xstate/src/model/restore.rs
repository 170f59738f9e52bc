//! XRSTOR and XRSTORS (SDM Vol. 1, 13.8, 13.12).

use alloc::vec::Vec;

use super::fault::{Fault, Reason};
use super::registers::{LBR, LBR_DEPTH, MXCSR_INIT, PT, Registers, UINTR, X87, lbr_end, lbr_head};
use super::{Cpu, RestoredFrom, legal};
use crate::component::ComponentIndex;

const COMPACTED: u64 = 1 << 63;
const HEADER_END: u64 = 576;
const SSE: u64 = 2;
const BNDCSR: u8 = 4;
const TILECFG: u8 = 17;
/// Byte of UINTR state that is UINV.
const UINV: usize = 20;
/// IA32_RTIT_CTL.TraceEn.
const TRACE_EN: u8 = 1;

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
        self.check_address(address.wrapping_add(HEADER_END - 1))?;
        let request = self.read_header(supervisor, memory, mask)?;

        // 13.14 Extended Feature Disable.
        let disabled = request.loads & self.xfd & self.xcr0;
        if disabled != 0 {
            self.xfd_err = disabled;
            return Err(Reason::XfdRestore(disabled));
        }
        self.probe(&request, address, memory)?;

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
        let other_depth = self.keeps_tracking(&request, memory);
        self.in_use |= request.loads & !other_depth;
        self.load(&request, mxcsr, memory)?;

        self.in_use &= !(request.rfbm & !request.xstate_bv);
        // 13.8.3. What became INIT but is not tracked as such has no bytes in
        // the area, so a later save must not leave it out.
        let unmodified = request.rfbm & (request.xstate_bv | !self.xinuse()) & !other_depth;
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
    fn probe(&self, request: &Request, address: u64, memory: &[u8]) -> Result<(), Reason> {
        // The legacy region lies before the header, which was read.
        for i in (2..63).filter(|i| request.loads & 1 << i != 0) {
            let len = self.held(request, i, memory)?.len() as u64;
            let end = self.offset(request, i) + len;
            self.check_address(address.wrapping_add(end - 1))?;
        }
        Ok(())
    }

    fn offset(&self, request: &Request, i: u8) -> u64 {
        let offset = if request.compacted() {
            self.offset_compacted(i, request.xcomp_bv)
        } else {
            self.offset_standard(i)
        };
        offset.unwrap_or(0)
    }

    /// The bytes of a component in the area: as many as there are registers, of
    /// a supervisor component as many as the machine gives it, since its reserved
    /// portions are looked at (13.12).
    fn held<'a>(&self, request: &Request, i: u8, memory: &'a [u8]) -> Result<&'a [u8], Reason> {
        let offset = self.offset(request, i);
        let len = if self.machine.supervisor() & 1 << i != 0 {
            self.room(i)
        } else {
            self.registers.extended(i.into()).len()
        };
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
        for component in (2..63).filter_map(ComponentIndex::new) {
            if request.rfbm & component.bit() == 0 {
                continue;
            }
            if let Err(fault) = self.load_extended(request, component, memory) {
                // 13.5.11: a fault once UINTR state was loaded takes UINV.
                let before = component.bit() - 1;
                if request.loads & before & 1 << UINTR != 0 {
                    self.clear_live(1 << UINTR, UINTR, UINV, 0xff);
                }
                return Err(fault);
            }
        }
        // 13.5.6: TraceEn is set when nothing can fault any more.
        if request.loads & 1 << PT != 0
            && let Some(control) = self.held(request, PT as u8, memory)?.first()
            && let Some(live) = self.registers.extended_mut(PT).first_mut()
        {
            *live |= control & TRACE_EN;
        }
        Ok(())
    }

    /// Loads one component of the extended region, or makes it INIT.
    fn load_extended(
        &mut self,
        request: &Request,
        component: ComponentIndex,
        memory: &[u8],
    ) -> Result<(), Reason> {
        let i = usize::from(component.get());
        // 13.5.6: neither with trace enabled.
        let live = self.registers.extended(i).first();
        if i == PT && live.is_some_and(|control| control & TRACE_EN != 0) {
            return Err(Reason::TraceEnabled);
        }
        if request.loads & component.bit() == 0 {
            self.registers.set_init(component);
            return Ok(());
        }
        let held = self.held(request, component.get(), memory)?;
        let (held, reserved) = held.split_at(self.registers.extended(i).len().min(held.len()));
        self.load_component(component, held, reserved)
    }

    /// 13.5.12: the bit of LBR state, where its XINUSE is left as it is: if the
    /// depth in the area is another than that of the register.
    fn keeps_tracking(&self, request: &Request, memory: &[u8]) -> u64 {
        let lbr = request.loads & 1 << LBR;
        match self.held(request, LBR as u8, memory) {
            Ok(held) if lbr != 0 && !same_depth(held, self.registers.extended(LBR)) => lbr,
            _ => 0,
        }
    }

    fn load_component(
        &mut self,
        component: ComponentIndex,
        held: &[u8],
        reserved: &[u8],
    ) -> Result<(), Reason> {
        let i = usize::from(component.get());
        // 13.5.11: UINV must be 0 before user-interrupt state is loaded.
        if i == UINTR
            && let Some(uinv @ 1..) = self.registers.extended(i).get(UINV).copied()
        {
            return Err(Reason::UinvLive(uinv));
        }
        // 13.5.12: which of the triples are loaded at all.
        let same_depth = i != LBR || same_depth(held, self.registers.extended(i));
        let loaded = match (i, same_depth) {
            (LBR, true) => &held[..lbr_end(held)],
            (LBR, false) => &held[..lbr_head(held)],
            _ => held,
        };
        legal::check(component, loaded, &self.machine)?;
        // 13.12. The tails of user components are not looked at: none are here.
        if reserved.iter().any(|byte| *byte != 0) {
            return Err(Reason::ReservedPortion(component));
        }
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
        } else {
            // IA32_LBR_DEPTH is saved and never restored; with another depth in
            // the area all triples become zero (13.5.12).
            let depth: Vec<u8> = to.get(LBR_DEPTH).map(<[u8]>::to_vec).unwrap_or_default();
            to[..loaded.len()].copy_from_slice(loaded);
            if i == LBR {
                if !same_depth {
                    to[loaded.len()..].fill(0);
                }
                if let Some(there) = to.get_mut(LBR_DEPTH) {
                    there.copy_from_slice(&depth);
                }
            }
        }
        // Last of all, see `load`.
        if i == PT
            && let Some(control) = to.first_mut()
        {
            *control &= !TRACE_EN;
        }
        Ok(())
    }
}

/// 13.5.12: whether the area has the depth that the register has.
fn same_depth(held: &[u8], registers: &[u8]) -> bool {
    held.get(LBR_DEPTH) == registers.get(LBR_DEPTH)
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
