//! MXCSR_MASK of this processor, which CPUID does not tell.

use crate::area::Block;
use zerocopy::IntoBytes;

/// Where FXSAVE puts it (SDM Vol. 1, 10.5.1.2 SSE State).
const OFFSET: usize = 28;

/// The bits of MXCSR that this processor takes, as FXSAVE stores them; 0 means
/// 0xffbf (SDM Vol. 1, 11.6.6 Guidelines for Writing to the MXCSR Register).
///
/// At CPL 0, CR4.OSFXSR is set, CR0.TS and CR0.EM are clear.
#[must_use]
pub fn mxcsr_mask() -> u32 {
    let mut image = [Block::ZERO; 8];
    // SAFETY: every x86-64 processor has FXSAVE; it writes the 512 bytes of
    // `image`, which are aligned, and changes no register.
    unsafe {
        core::arch::asm!(
            "fxsave64 [{}]",
            in(reg) image.as_mut_ptr(),
            options(nostack, preserves_flags)
        );
    }
    let bytes = image.as_bytes();
    bytes
        .get(OFFSET..)
        .and_then(|tail| tail.first_chunk::<4>())
        .map_or(0, |bytes| u32::from_le_bytes(*bytes))
}
