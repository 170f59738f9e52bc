//! Comparing what registers hold with what they must hold, and the hash over
//! what was seen.

use crate::groups::GROUPS;
use crate::machine::Machine;
use crate::registers::{Component, ComponentSet, Registers};
use crate::verdict::{Failure, Verdict};
use zerocopy::IntoBytes;

/// x87 pointers that differ, by their place in [`Machine::keeps_pointers`]:
/// whose fault it is is found out later, see `run.rs`.
pub type Pointers = [bool; 3];

/// Compares the registers of `which` and reports every byte that differs.
/// Pointers that the machine keeps and that differ are returned instead.
pub fn compare(
    expected: &Registers,
    seen: &Registers,
    which: ComponentSet,
    machine: &Machine,
    verdict: &mut Verdict,
    (count, via): (u64, &str),
) -> Pointers {
    let mut pointers = [false; 3];
    let mut next_pointer = 0;
    for group in GROUPS
        .iter()
        .filter(|g| g.is_of(which & machine.components))
    {
        for index in 0..group.count {
            let place = group.place(index);
            let (Some(want), Some(have)) = (
                expected.as_bytes().get(place.clone()),
                seen.as_bytes().get(place),
            ) else {
                continue;
            };
            if group.pointer {
                let kept = machine.keeps_pointers.get(next_pointer) == Some(&true);
                if let Some(pointer) = pointers.get_mut(next_pointer) {
                    *pointer = kept && want != have;
                }
                next_pointer += 1;
                continue;
            }
            for (byte, (&expected, &seen)) in want.iter().zip(have).enumerate() {
                if expected != seen {
                    verdict.fail(&Failure {
                        component: group.component.name(),
                        register: &group.register(index),
                        byte,
                        expected: expected.into(),
                        seen: seen.into(),
                        count,
                        via,
                    });
                }
            }
        }
    }
    pointers
}

/// Adds all registers that were checked to a hash. x87 pointers and control
/// registers stay out, since they depend on the machine and not on the seed
/// alone.
#[must_use]
pub fn chain(hash: u64, seen: &Registers, machine: &Machine) -> u64 {
    let checked = GROUPS
        .iter()
        .filter(|g| g.is_of(machine.components) && !g.pointer && g.component != Component::Control);
    let mut hash = hash;
    for group in checked {
        for index in 0..group.count {
            for chunk in seen
                .as_bytes()
                .get(group.place(index))
                .unwrap_or_default()
                .chunks(8)
            {
                let mut word = [0; 8];
                word.iter_mut()
                    .zip(chunk)
                    .for_each(|(to, &from)| *to = from);
                hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                hash ^= hash >> 29;
            }
        }
    }
    hash
}
