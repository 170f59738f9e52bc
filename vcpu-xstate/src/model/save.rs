//! XSAVE, XSAVEOPT, XSAVEC and XSAVES (SDM Vol. 1, 13.7, 13.9, 13.10, 13.11).

use alloc::vec::Vec;

use super::fault::{Fault, Reason};
use super::registers::{LBR, MXCSR_INIT, PT, UINTR, X87, lbr_end};
use super::{Cpu, Registers, RestoredFrom};

const XSTATE_BV: usize = 512;
const COMPACTED: u64 = 1 << 63;

/// What the four instructions differ in.
#[derive(Clone, Copy)]
struct Kind {
    compacted: bool,
    /// The init optimization: INIT components are not written.
    skips_init: bool,
    /// The modified optimization.
    skips_unmodified: bool,
    supervisor: bool,
}

/// Bytes that an instruction writes, and where.
struct Piece {
    offset: u64,
    bytes: Vec<u8>,
}

impl Cpu {
    /// XSAVE64 to the area at `address`, which `memory` holds the bytes of;
    /// `mask` is EDX:EAX.
    ///
    /// # Errors
    /// The exception; nothing is written.
    pub fn xsave(&mut self, address: u64, memory: &mut [u8], mask: u64) -> Result<(), Fault> {
        let kind = Kind {
            compacted: false,
            skips_init: false,
            skips_unmodified: false,
            supervisor: false,
        };
        self.begin(self.machine.xsave, false, address)?;
        Ok(self.save(kind, address, memory, mask)?)
    }

    /// XSAVEOPT64; as [`xsave`](Self::xsave).
    ///
    /// # Errors
    /// The exception; nothing is written.
    pub fn xsaveopt(&mut self, address: u64, memory: &mut [u8], mask: u64) -> Result<(), Fault> {
        let kind = Kind {
            compacted: false,
            skips_init: true,
            skips_unmodified: true,
            supervisor: false,
        };
        self.begin(self.machine.xsaveopt, false, address)?;
        Ok(self.save(kind, address, memory, mask)?)
    }

    /// XSAVEC64; as [`xsave`](Self::xsave).
    ///
    /// # Errors
    /// The exception; nothing is written.
    pub fn xsavec(&mut self, address: u64, memory: &mut [u8], mask: u64) -> Result<(), Fault> {
        let kind = Kind {
            compacted: true,
            skips_init: true,
            skips_unmodified: false,
            supervisor: false,
        };
        self.begin(self.machine.xsavec, false, address)?;
        Ok(self.save(kind, address, memory, mask)?)
    }

    /// XSAVES64; as [`xsave`](Self::xsave). Clears UINV and the enables of
    /// trace and branch records once they are saved (13.5.6, 13.5.11). 13.5.12
    /// is silent about the branch records' enable: it goes here, so that a host
    /// shows that takes what it saved for still live.
    ///
    /// # Errors
    /// The exception; nothing is written.
    pub fn xsaves(&mut self, address: u64, memory: &mut [u8], mask: u64) -> Result<(), Fault> {
        let kind = Kind {
            compacted: true,
            skips_init: true,
            skips_unmodified: true,
            supervisor: true,
        };
        self.begin(self.machine.xsaves, true, address)?;
        self.save(kind, address, memory, mask)?;
        let saved = mask & (self.xcr0 | self.xss);
        // IA32_RTIT_CTL.TraceEn, UINV, IA32_LBR_CTL.LBREn.
        self.clear_live(saved, PT, 0, 1);
        self.clear_live(saved, UINTR, 20, 0xff);
        self.clear_live(saved, LBR, 0, 1);
        Ok(())
    }

    fn save(
        &mut self,
        kind: Kind,
        address: u64,
        memory: &mut [u8],
        mask: u64,
    ) -> Result<(), Reason> {
        let enabled = self.xcr0 | if kind.supervisor { self.xss } else { 0 };
        let rfbm = mask & enabled;
        // 13.14: under XFD as if INIT.
        let init_by_xfd = self.xfd & self.xcr0;
        let xinuse = self.xinuse() & !init_by_xfd;
        let mut used = rfbm & xinuse;
        // 13.10: MXCSR keeps SSE state in a compacted area.
        if kind.compacted && rfbm & 2 != 0 && self.registers.mxcsr != MXCSR_INIT {
            used |= 2;
        }
        let xcomp_bv = if kind.compacted { rfbm | COMPACTED } else { 0 };
        let unmodified = if kind.skips_unmodified && self.restored_from(address, xcomp_bv) {
            !self.modified
        } else {
            0
        };
        let mut written = rfbm & !unmodified;
        if kind.skips_init {
            written &= used;
        }

        let mut pieces = self.legacy(kind.compacted, rfbm, written);
        for i in (2..63).filter(|i| written & 1 << i != 0) {
            let offset = if kind.compacted {
                self.offset_compacted(i, xcomp_bv)
            } else {
                self.offset_standard(i)
            };
            let Some(offset) = offset else {
                continue;
            };
            let bytes = if init_by_xfd & 1 << i != 0 {
                Registers::init(&self.machine).extended(i.into()).to_vec()
            } else {
                self.saved_bytes(i)
            };
            pieces.push(Piece { offset, bytes });
        }
        let header = if kind.compacted {
            [used.to_le_bytes(), xcomp_bv.to_le_bytes()].concat()
        } else {
            let there = memory
                .get(XSTATE_BV..)
                .and_then(|rest| rest.first_chunk())
                .ok_or(Reason::Outside(XSTATE_BV.max(memory.len()) as u64))?;
            let kept = u64::from_le_bytes(*there) & !rfbm;
            (kept | used).to_le_bytes().to_vec()
        };
        pieces.push(Piece {
            offset: XSTATE_BV as u64,
            bytes: header,
        });

        // 13.13: faults come before anything is written.
        for piece in &pieces {
            let end = piece.offset + piece.bytes.len() as u64;
            self.check_address(address.wrapping_add(end - 1))?;
            if end > memory.len() as u64 {
                return Err(Reason::Outside(piece.offset.max(memory.len() as u64)));
            }
        }
        for piece in pieces {
            let start = piece.offset as usize;
            memory[start..start + piece.bytes.len()].copy_from_slice(&piece.bytes);
        }
        Ok(())
    }

    /// What a save writes of a component of the extended region: its registers.
    /// Of LBR state those that IA32_LBR_DEPTH counts (13.5.12), of PT and UINTR
    /// state the reserved portions too, as zeros (13.5.6, 13.5.11).
    fn saved_bytes(&self, i: u8) -> Vec<u8> {
        let mut bytes = self.registers.extended(i.into()).to_vec();
        match usize::from(i) {
            LBR => bytes.truncate(lbr_end(&bytes)),
            PT | UINTR => bytes.resize(self.room(i), 0),
            _ => {}
        }
        bytes
    }

    /// x87, XMM, and MXCSR with its mask: in the compacted form part of SSE
    /// state, in the standard form written for SSE and AVX and never left out.
    fn legacy(&self, compacted: bool, rfbm: u64, written: u64) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut put = |offset, bytes: &[u8]| {
            pieces.push(Piece {
                offset,
                bytes: bytes.to_vec(),
            });
        };
        if written & 1 != 0 {
            let bytes = self.registers.x87.to_bytes();
            put(0, &bytes[..self.x87_head(&self.registers.x87)]);
            put(32, &bytes[32..]);
        }
        let mxcsr = if compacted { written & 2 } else { rfbm & 6 };
        if mxcsr != 0 {
            put(24, &self.registers.mxcsr.to_le_bytes());
            put(28, &self.machine.mxcsr_mask.to_le_bytes());
        }
        if written & 2 != 0 {
            put(160, self.registers.xmm.as_flattened());
        }
        pieces
    }

    /// How many of the first 24 bytes count: on older AMD processors FOP, FIP
    /// and FDP only with an exception pending (CPUID Fn8000_0008_EBX
    /// RstrFpErrPtrs).
    pub(super) const fn x87_head(&self, x87: &X87) -> usize {
        if self.machine.keeps_fp_pointers && !x87.exception_pending() {
            6
        } else {
            24
        }
    }

    /// 13.9, 13.11: the area is the one that the last restore was from.
    fn restored_from(&self, address: u64, xcomp_bv: u64) -> bool {
        self.modified_optimization
            && self.restored_from
                == Some(RestoredFrom {
                    cpl: self.mode.cpl,
                    vmx_non_root: self.mode.vmx_non_root,
                    address,
                    xcomp_bv,
                })
    }

    pub(super) fn clear_live(&mut self, saved: u64, i: usize, at: usize, bits: u8) {
        if saved & 1 << i == 0 {
            return;
        }
        if let Some(byte) = self.registers.extended_mut(i).get_mut(at)
            && *byte & bits != 0
        {
            *byte &= !bits;
            self.modified |= 1 << i;
        }
    }

    /// How many bytes the machine gives a component: its registers and, in some,
    /// a reserved portion behind them.
    pub(super) fn room(&self, i: u8) -> usize {
        let component = crate::component::ComponentIndex::new(i);
        let size = component.and_then(|component| self.machine.size(component));
        size.map_or(0, |size| size as usize)
    }

    pub(super) fn offset_standard(&self, i: u8) -> Option<u64> {
        let component = crate::component::ComponentIndex::new(i)?;
        self.machine.standard_offset(component)
    }

    pub(super) fn offset_compacted(&self, i: u8, xcomp_bv: u64) -> Option<u64> {
        let component = crate::component::ComponentIndex::new(i)?;
        self.machine.compacted_offset(component, xcomp_bv)
    }
}
