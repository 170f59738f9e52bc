//! `policy`: any words and any leaves as a policy. What is accepted is closed, and the host's own.

use vcpu_xstate::component::ComponentSet;
use vcpu_xstate::policy::features::TABLE;
use vcpu_xstate::policy::{CpuPolicy, CpuidLeaf, Dynamic};

use crate::input::Input;
use crate::machines::machine;

/// How an input is read, by its first byte.
const WORDS: u8 = 0;
const SETTINGS: u8 = 1;
const LEAVES: u8 = 2;

/// One input: how it is read, the machine, then words, settings or edits of leaves.
///
/// # Panics
/// Where something accepted is not what it must be.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (kind, number) = (input.u8() % 3, input.u8());
    let host = &machine(number).policy;
    match kind {
        WORDS => {
            if let Ok(words) = core::str::from_utf8(input.rest()) {
                configure(host, words);
            }
        }
        SETTINGS => configure(host, &settings(&mut input)),
        LEAVES.. => leaves(host, &machine(input.u8()).policy, &mut input),
    }
}

/// Settings that name real features, two bytes each, so that few are refused
/// for their spelling.
fn settings(input: &mut Input<'_>) -> String {
    let mut words = String::from("host");
    let mut separator = ':';
    while !input.is_empty() && words.len() < 2000 {
        let (which, value) = (usize::from(input.u8()), input.u8());
        words.push(separator);
        separator = ',';
        let deferrals = ["defer-avx", "defer-mpx", "defer-avx512", "defer-pkru"];
        words += match value >> 6 {
            3 => deferrals[which % deferrals.len()],
            half => TABLE[(which | usize::from(half) << 8) % TABLE.len()].name,
        };
        words += if value & 1 == 0 { "=0" } else { "=1" };
    }
    words
}

fn configure(host: &CpuPolicy, words: &str) {
    match host.with_config(words) {
        Ok(policy) => {
            sound(&policy);
            assert_eq!(policy.fits(host), Ok(()), "{words}");
            // Said again, it changes nothing but what was deferred.
            let again = policy.with_config(words);
            assert!(again.is_err() || again == Ok(policy), "{words}");
        }
        Err(error) => {
            let at = error.position_bytes;
            let token = words.get(at..at + error.token.len());
            assert_eq!(token, Some(error.token), "{words}: {error}");
            assert_eq!(error.broken().seen, at as u64);
        }
    }
}

/// What is always so of a policy.
fn sound(policy: &CpuPolicy) {
    let mask = policy.xstate().mask;
    assert!(mask.contains(policy.deferred()));
    assert_eq!(
        CpuPolicy::from_leaves(policy.leaves(), policy.deferred()).as_ref(),
        Ok(policy),
        "its own leaves are refused"
    );
    assert_eq!(policy.fits(policy), Ok(()));
    // The sizes that the guest sees follow its registers, up to the most.
    let most = policy.cpuid(0xd, 0, &Dynamic::default()).ecx;
    let all = Dynamic {
        xcr0: mask.bits(),
        ..Dynamic::default()
    };
    assert_eq!(policy.cpuid(0xd, 0, &all).ebx, most);
}

/// A policy's leaves, edited: refused, or canonical.
fn leaves(host: &CpuPolicy, other: &CpuPolicy, input: &mut Input<'_>) {
    let mut rows = host.leaves().to_vec();
    let deferred = ComponentSet::from_bits_retain(input.u64() & host.deferred().bits());
    while !input.is_empty() && !rows.is_empty() {
        let (edit, which, value) = (input.u8(), usize::from(input.u8()), input.u32());
        let at = which % rows.len();
        match edit % 6 {
            0 => drop(rows.remove(at)),
            1 => rows.insert(at, CpuidLeaf::new(value, edit.into(), rows[at].answer())),
            2 => rows[at] = other.leaves()[which % other.leaves().len()],
            _ => {
                let mut answer = rows[at].answer();
                let register = match edit >> 6 {
                    0 => &mut answer.eax,
                    1 => &mut answer.ebx,
                    2 => &mut answer.ecx,
                    _ => &mut answer.edx,
                };
                *register ^= 1 << (value & 31);
                rows[at] = CpuidLeaf::new(rows[at].leaf, rows[at].subleaf, answer);
            }
        }
    }
    if let Ok(policy) = CpuPolicy::from_leaves(&rows, deferred) {
        assert_eq!(policy.leaves(), rows, "accepted, but not canonical");
        sound(&policy);
        let level = policy.level(host);
        sound(&level);
        assert_eq!(level.fits(host), Ok(()));
        assert_eq!(level.fits(&policy), Ok(()));
        if policy.fits(host).is_ok() {
            assert_eq!(level.xstate().mask, policy.xstate().mask);
        }
    }
}
