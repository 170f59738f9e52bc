//! Long copies by REP MOVSB: a line per cycle, and no vector register.
//!
//! SDM Vol. 1, 7.3.9.3 Fast-String Operation. Anywhere but on the real
//! processor, and under an interpreter, the compiler's own copy does.

/// Copies `from` to `to`, which are as long as each other.
#[inline(always)]
pub fn long(to: &mut [u8], from: &[u8]) {
    assert_eq!(to.len(), from.len(), "a copy of another length");
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: both ranges are as long as RCX says and disjoint, since one of
    // them is borrowed for writing. The direction flag is clear by the ABI.
    unsafe {
        core::arch::asm!(
            "rep movsb",
            inout("rdi") to.as_mut_ptr() => _,
            inout("rsi") from.as_ptr() => _,
            inout("rcx") to.len() => _,
            options(nostack, preserves_flags)
        );
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    to.copy_from_slice(from);
}

/// Clears `to`.
#[inline(always)]
pub fn long_zero(to: &mut [u8]) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: the range is as long as RCX says and borrowed for writing. The
    // direction flag is clear by the ABI.
    unsafe {
        core::arch::asm!(
            "rep stosb",
            inout("rdi") to.as_mut_ptr() => _,
            inout("rcx") to.len() => _,
            in("al") 0u8,
            options(nostack, preserves_flags)
        );
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    to.fill(0);
}
