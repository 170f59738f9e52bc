//! The registers that XSAVE manages, and comparing them.

use alloc::vec::Vec;

use super::machine::Machine;
use crate::component::ComponentIndex;

/// MXCSR in its initial configuration.
pub(super) const MXCSR_INIT: u32 = 0x1f80;
/// Where LBR state has IA32_LBR_DEPTH, which XRSTORS does not write.
pub(super) const LBR_DEPTH: core::ops::Range<usize> = 8..16;
/// Where IA32_LBR_0_FROM_IP is: 32 triples follow what is saved always (13.5.12).
const LBR_TRIPLES: usize = 5 * 8;
const LBR_TRIPLE: usize = 3 * 8;
/// Numbers that the code below treats by themselves.
pub(super) const PT: usize = 8;
pub(super) const UINTR: usize = 14;
pub(super) const LBR: usize = 15;

/// The components of one MSR whose initial configuration is not zero (13.6):
/// number, value. IA32_PM_CTL1 of HDC, IA32_HWP_REQUEST of HWP.
const NOT_ZERO: [(usize, u64); 2] = [(13, 1), (16, 0x8000_ff01)];

/// Byte `at` of component `i` in its initial configuration (13.6). Of
/// IA32_LBR_DEPTH there is none.
fn init_byte(i: usize, at: usize) -> u8 {
    let word = NOT_ZERO
        .iter()
        .find(|(number, _)| *number == i)
        .map_or(0, |(_, value)| *value);
    word.to_le_bytes().get(at).copied().unwrap_or(0)
}

/// Where XSAVES stops and XRSTORS too: the end of the triples that
/// IA32_LBR_DEPTH counts (13.5.12).
pub(super) fn lbr_end(lbr: &[u8]) -> usize {
    let depth = usize::try_from(le64(lbr, LBR_DEPTH.start)).unwrap_or(usize::MAX);
    let end = depth.saturating_mul(LBR_TRIPLE).saturating_add(LBR_TRIPLES);
    end.min(lbr.len())
}

/// What is always saved and loaded of LBR state: the MSRs before the triples.
pub(super) fn lbr_head(lbr: &[u8]) -> usize {
    LBR_TRIPLES.min(lbr.len())
}

/// x87 registers as XSAVE64 stores them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct X87 {
    /// Control word.
    pub fcw: u16,
    /// Status word.
    pub fsw: u16,
    /// Abridged tag word: a set bit is a register in use.
    pub ftw: u8,
    /// Last opcode.
    pub fop: u16,
    /// Last instruction pointer.
    pub fip: u64,
    /// Last operand pointer.
    pub fdp: u64,
    /// ST0–7.
    pub st: [[u8; 10]; 8],
}

impl X87 {
    /// The initial configuration (13.6): FCW 037F, everything else 0.
    pub const INIT: Self = Self {
        fcw: 0x37f,
        fsw: 0,
        ftw: 0,
        fop: 0,
        fip: 0,
        fdp: 0,
        st: [[0; 10]; 8],
    };

    /// Whether an exception is pending (FSW.ES): the condition under which
    /// older AMD processors save and restore FOP, FIP and FDP.
    pub const fn exception_pending(&self) -> bool {
        self.fsw & 0x80 != 0
    }

    /// The first 160 bytes of the legacy region; 24–31, MXCSR's, are zero.
    pub fn to_bytes(self) -> [u8; 160] {
        let mut bytes = [0; 160];
        bytes[..2].copy_from_slice(&self.fcw.to_le_bytes());
        bytes[2..4].copy_from_slice(&self.fsw.to_le_bytes());
        bytes[4] = self.ftw;
        bytes[6..8].copy_from_slice(&self.fop.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.fip.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.fdp.to_le_bytes());
        for (st, to) in self.st.iter().zip(bytes[32..].chunks_exact_mut(16)) {
            to[..10].copy_from_slice(st);
        }
        bytes
    }

    /// The registers from the first 160 bytes of a legacy region.
    pub fn from_bytes(bytes: &[u8; 160]) -> Self {
        let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let mut x87 = Self {
            fcw: word(0),
            fsw: word(2),
            ftw: bytes[4],
            fop: word(6),
            fip: le64(bytes, 8),
            fdp: le64(bytes, 16),
            st: [[0; 10]; 8],
        };
        for (st, from) in x87.st.iter_mut().zip(bytes[32..].chunks_exact(16)) {
            st.copy_from_slice(&from[..10]);
        }
        x87
    }
}

/// Everything that XSAVE manages on one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registers {
    /// Component 0.
    pub x87: X87,
    /// MXCSR: counted to component 1.
    pub mxcsr: u32,
    /// XMM0–15, component 1.
    pub xmm: [[u8; 16]; 16],
    /// Components 2 to 62: the bytes that are registers, none where the
    /// machine lacks the component.
    extended: Vec<Vec<u8>>,
}

impl Registers {
    /// The initial configuration of every component (13.6).
    pub fn init(machine: &Machine) -> Self {
        let mut registers = Self {
            x87: X87::INIT,
            mxcsr: MXCSR_INIT,
            xmm: [[0; 16]; 16],
            extended: machine
                .register_bytes()
                .map(|bytes| alloc::vec![0; bytes])
                .collect(),
        };
        for component in (2..63).filter_map(ComponentIndex::new) {
            registers.set_init(component);
        }
        if let Some(depth) = registers.extended[LBR].get_mut(LBR_DEPTH) {
            depth[0] = machine.lbr_depth;
        }
        registers
    }

    /// The registers of one of components 2 to 62; empty for others, and where
    /// the machine lacks it.
    pub fn component(&self, component: ComponentIndex) -> &[u8] {
        &self.extended[usize::from(component.get())]
    }

    /// As [`component`](Self::component), to be written: as a debugger would,
    /// the processor does not notice.
    pub fn component_mut(&mut self, component: ComponentIndex) -> &mut [u8] {
        &mut self.extended[usize::from(component.get())]
    }

    /// Whether the component holds its initial configuration. MXCSR does not
    /// count, as it does not for XINUSE (13.6); IA32_LBR_DEPTH neither.
    pub fn is_init(&self, component: ComponentIndex) -> bool {
        match usize::from(component.get()) {
            0 => self.x87 == X87::INIT,
            1 => self.xmm == [[0; 16]; 16],
            i => {
                let mut bytes = self.extended[i].iter().enumerate();
                bytes.all(|(at, byte)| {
                    *byte == init_byte(i, at) || i == LBR && LBR_DEPTH.contains(&at)
                })
            }
        }
    }

    /// Makes a component INIT; MXCSR stays, IA32_LBR_DEPTH too.
    pub fn set_init(&mut self, component: ComponentIndex) {
        match usize::from(component.get()) {
            0 => self.x87 = X87::INIT,
            1 => self.xmm = [[0; 16]; 16],
            i => {
                for (at, byte) in self.extended[i].iter_mut().enumerate() {
                    if i != LBR || !LBR_DEPTH.contains(&at) {
                        *byte = init_byte(i, at);
                    }
                }
            }
        }
    }

    /// The components of the bitmap `among` in which the two differ. MXCSR
    /// counts to component 1 here.
    pub fn differences(&self, other: &Self, among: u64) -> u64 {
        let mut set = 0;
        for i in 0..self.extended.len() {
            let same = match i {
                0 => self.x87 == other.x87,
                1 => self.mxcsr == other.mxcsr && self.xmm == other.xmm,
                _ => self.extended[i] == other.extended[i],
            };
            if !same {
                set |= 1 << i;
            }
        }
        set & among
    }

    pub(super) fn extended_mut(&mut self, i: usize) -> &mut Vec<u8> {
        &mut self.extended[i]
    }

    pub(super) fn extended(&self, i: usize) -> &[u8] {
        &self.extended[i]
    }
}

/// Eight bytes, little-endian; 0 beyond the end.
pub(super) fn le64(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |word| u64::from_le_bytes(*word))
}
