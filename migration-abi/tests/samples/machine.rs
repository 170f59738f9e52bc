//! Machines, as their CPUID tells them.

use vcpu_xstate::{ComponentSet, CpuidResult, HostXstate, XstatePolicy};

use super::legacy::INTEL;

/// Zen 2's places: no AVX-512, and 64 bytes of PKRU in the place of LWP.
pub const AMD: [(usize, usize, usize); 2] = [(2, 256, 576), (9, 64, 832)];

/// What a processor with these user components answers, XSAVES and all.
pub fn cpuid(facts: &[(usize, usize, usize)]) -> impl Fn(u32, u32) -> CpuidResult + '_ {
    move |leaf, subleaf| {
        let mask = facts.iter().fold(3_u32, |mask, (i, ..)| mask | 1 << i);
        let mut answer = CpuidResult::default();
        match (leaf, subleaf) {
            (0, _) => answer.eax = 0xd,
            (1, _) => answer.ecx = 1 << 26,
            (7, 0) => answer.ecx = 1 << 3,
            (0xd, 0) => answer.eax = mask,
            (0xd, 1) => answer.eax = 0x1f,
            (0xd, index) => {
                if let Some((index, size, offset)) =
                    facts.iter().find(|(i, ..)| *i == index as usize)
                {
                    (answer.eax, answer.ebx) = (*size as u32, *offset as u32);
                    answer.ecx = u32::from(*index >= 17) << 1 | u32::from(*index == 18) << 2;
                }
            }
            _ => {}
        }
        answer
    }
}

/// A host that has the components of [`INTEL`].
pub fn intel() -> HostXstate {
    HostXstate::read(&cpuid(&INTEL), 0xffff).expect("it has XSAVE")
}

/// A policy of these components.
pub fn policy(mask: u64) -> XstatePolicy {
    XstatePolicy::new(ComponentSet::from_bits_retain(mask), ComponentSet::EMPTY)
}
