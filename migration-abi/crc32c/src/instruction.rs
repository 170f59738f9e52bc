//! The checksum by SSE4.2's CRC32, three streams at a time.
//!
//! CRC32 answers after three cycles and takes a new operand in each, so one
//! stream leaves the unit idle for two cycles of three. A block is therefore
//! cut into three parts of [`STREAM`] bytes, whose registers advance side by
//! side. The register is linear over GF(2): that of `a ‖ b` is that of `a`
//! after as many zero bytes as `b` has, XOR that of `b` begun at zero. [`ZEROS`]
//! holds the first, for [`STREAM`] zero bytes.
#![allow(unsafe_code)] // executes an instruction that Rust has no safe name for on targets without SSE

use core::arch::asm;
use core::sync::atomic::{AtomicU8, Ordering};

use crate::table::zero_byte;

/// Bytes of each of the three streams of a block.
const STREAM: usize = 512;

/// `ZEROS[n][b]`: a register whose byte `n` is `b`, others zero, after
/// [`STREAM`] zero bytes.
static ZEROS: [[u32; 256]; 4] = zeros();

const fn zeros() -> [[u32; 256]; 4] {
    // Each bit by itself; a byte is the sum of its bits.
    let mut bits = [0u32; 32];
    let mut bit = 0;
    while bit < 32 {
        let mut crc = 1 << bit;
        let mut byte = 0;
        while byte < STREAM {
            crc = zero_byte(crc);
            byte += 1;
        }
        bits[bit] = crc;
        bit += 1;
    }
    let mut table = [[0u32; 256]; 4];
    let mut row = 0;
    while row < 4 {
        let mut byte = 1;
        while byte < 256 {
            let lowest = (byte as u32).trailing_zeros() as usize;
            table[row][byte] = table[row][byte & (byte - 1)] ^ bits[8 * row + lowest];
            byte += 1;
        }
        row += 1;
    }
    table
}

/// A register after [`STREAM`] zero bytes.
fn after_zeros(crc: u32) -> u32 {
    let [a, b, c, d] = crc.to_le_bytes();
    ZEROS[0][usize::from(a)]
        ^ ZEROS[1][usize::from(b)]
        ^ ZEROS[2][usize::from(c)]
        ^ ZEROS[3][usize::from(d)]
}

/// The proof that this processor has the instruction.
#[derive(Clone, Copy)]
pub(crate) struct Crc32(());

/// What CPUID said: nothing yet, no, yes.
static ANSWER: AtomicU8 = AtomicU8::new(UNASKED);
const UNASKED: u8 = 0;
const ABSENT: u8 = 1;
const PRESENT: u8 = 2;

impl Crc32 {
    /// The instruction, where CPUID has it. CPUID is executed once; two
    /// processors that ask at the same time find the same.
    #[inline]
    pub fn of_this_processor() -> Option<Self> {
        let answer = match ANSWER.load(Ordering::Relaxed) {
            UNASKED => ask(),
            answer => answer,
        };
        (answer == PRESENT).then_some(Self(()))
    }

    /// The register `crc` after `bytes`.
    pub fn extend(self, mut crc: u32, bytes: &[u8]) -> u32 {
        let (blocks, rest) = bytes.as_chunks::<{ 3 * STREAM }>();
        for block in blocks {
            crc = self.block(crc, block);
        }
        let (words, rest) = rest.as_chunks::<8>();
        for word in words {
            crc = self.word(crc, word);
        }
        for byte in rest {
            crc = self.byte(crc, *byte);
        }
        crc
    }

    /// Three streams side by side, then one register of them.
    fn block(self, crc: u32, block: &[u8; 3 * STREAM]) -> u32 {
        let (words, _) = block.as_chunks::<8>();
        let (first, rest) = words.split_at(STREAM / 8);
        let (second, third) = rest.split_at(STREAM / 8);
        let (mut a, mut b, mut c) = (crc, 0, 0);
        for ((x, y), z) in first.iter().zip(second).zip(third) {
            a = self.word(a, x);
            b = self.word(b, y);
            c = self.word(c, z);
        }
        after_zeros(after_zeros(a) ^ b) ^ c
    }

    #[inline(always)]
    fn word(self, crc: u32, bytes: &[u8; 8]) -> u32 {
        let mut register = u64::from(crc);
        // SAFETY: `self` proves that the processor has CRC32; it reads its two
        // operands and writes the first, and touches neither memory nor flags.
        unsafe {
            asm!("crc32 {register}, {word}", register = inout(reg) register,
                word = in(reg) u64::from_le_bytes(*bytes), options(pure, nomem, nostack, preserves_flags));
        }
        // The upper half is zero (SDM Vol. 2, CRC32).
        register as u32
    }

    #[inline(always)]
    fn byte(self, mut crc: u32, byte: u8) -> u32 {
        // SAFETY: as in `word`.
        unsafe {
            asm!("crc32 {register:e}, {byte}", register = inout(reg) crc,
                byte = in(reg_byte) byte, options(pure, nomem, nostack, preserves_flags));
        }
        crc
    }
}

/// CPUID.1:ECX.SSE4_2 (SDM Vol. 1, 12.12.3 Checking for SSE4.2 Support: CRC32
/// needs this bit and nothing of the operating system, for it has no vector operand).
#[cold]
fn ask() -> u8 {
    let present = core::arch::x86_64::__cpuid(1).ecx & 1 << 20 != 0;
    let answer = if present { PRESENT } else { ABSENT };
    ANSWER.store(answer, Ordering::Relaxed);
    answer
}
