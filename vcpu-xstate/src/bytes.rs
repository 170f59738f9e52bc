//! Copying, clearing and scanning without vector registers, as fast as they can be without.
//!
//! The compiler's own memcpy for a target without vector registers is REP
//! MOVSQ, which takes some ten nanoseconds before it moves the first byte. So
//! short runs are moved word by word here, and long ones by REP MOVSB, which
//! moves a line per cycle once it has begun. The loops work on lines of eight
//! words at once, a shape that compilers do not turn back into calls of memcpy.

use crate::hw;

/// Bytes from which REP MOVSB and REP STOSB are worth their start (measured:
/// they take as long as words do for about 700 bytes).
pub(crate) const LONG_BYTES: usize = 1280;

const LINE: usize = 64;
const WORD: usize = 8;

/// Copies `from` to `to`, which are as long as each other.
///
/// Panics where they are not: every caller cuts both to one length.
#[inline(always)]
pub(crate) fn copy(to: &mut [u8], from: &[u8]) {
    assert_eq!(to.len(), from.len(), "a copy of another length");
    if from.len() >= LONG_BYTES {
        hw::copy::long(to, from);
    } else {
        copy_words(to, from);
    }
}

/// The same by words, for those who know that it is short.
#[inline(always)]
pub(crate) fn copy_words(to: &mut [u8], from: &[u8]) {
    let (to_lines, to) = to.as_chunks_mut::<LINE>();
    let (from_lines, from) = from.as_chunks::<LINE>();
    for (to, from) in to_lines.iter_mut().zip(from_lines) {
        store(to, load(from));
    }
    if !from.is_empty() {
        copy_rest(to, from);
    }
}

/// Copies less than a line: by halves, so that there is no loop that could be
/// taken for a memcpy.
#[inline]
fn copy_rest(to: &mut [u8], from: &[u8]) {
    let (to, from) = copy_part::<32>(to, from);
    let (to, from) = copy_part::<16>(to, from);
    let (to, from) = copy_part::<8>(to, from);
    let (to, from) = copy_part::<4>(to, from);
    let (to, from) = copy_part::<2>(to, from);
    copy_part::<1>(to, from);
}

/// Copies `N` bytes, if there are as many; gives the rest.
#[inline]
fn copy_part<'t, 'f, const N: usize>(to: &'t mut [u8], from: &'f [u8]) -> (&'t mut [u8], &'f [u8]) {
    match from.split_first_chunk::<N>() {
        Some((part, from)) => match to.split_at_mut_checked(N) {
            Some((there, to)) => {
                there.copy_from_slice(part);
                (to, from)
            }
            None => (&mut [], from),
        },
        None => (to, from),
    }
}

/// Clears `to`.
#[inline(always)]
pub(crate) fn zero(to: &mut [u8]) {
    if to.len() >= LONG_BYTES {
        hw::copy::long_zero(to);
    } else {
        zero_words(to);
    }
}

#[inline(always)]
fn zero_words(to: &mut [u8]) {
    let (lines, to) = to.as_chunks_mut::<LINE>();
    if !lines.is_empty() {
        // A zero that the compiler does not know: or it would see a memset.
        let zero = core::hint::black_box(0);
        for line in lines {
            store(line, [zero; 8]);
        }
    }
    if !to.is_empty() {
        zero_rest(to);
    }
}

/// Clears less than a line, by halves, as `copy_rest` copies.
fn zero_rest(to: &mut [u8]) {
    let to = zero_part::<32>(to);
    let to = zero_part::<16>(to);
    let to = zero_part::<8>(to);
    let to = zero_part::<4>(to);
    let to = zero_part::<2>(to);
    zero_part::<1>(to);
}

#[inline]
fn zero_part<const N: usize>(to: &mut [u8]) -> &mut [u8] {
    if to.len() < N {
        return to;
    }
    let (part, to) = to.split_at_mut(N);
    part.fill(0);
    to
}

/// Whether all bytes are zero. Stops at the first line that has one that is
/// not; within a line there is no branch, since this runs over tiles of 8 KiB.
#[inline(always)]
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let (lines, rest) = bytes.as_chunks::<LINE>();
    let (words, rest) = rest.as_chunks::<WORD>();
    lines
        .iter()
        .all(|line| load(line).iter().fold(0, |all, word| all | word) == 0)
        && words.iter().all(|word| *word == [0; WORD])
        && rest.iter().all(|byte| *byte == 0)
}

#[inline]
fn load(line: &[u8; LINE]) -> [u64; 8] {
    let (words, _) = line.as_chunks::<WORD>();
    core::array::from_fn(|i| u64::from_ne_bytes(words[i]))
}

#[inline]
fn store(line: &mut [u8; LINE], words: [u64; 8]) {
    let (to, _) = line.as_chunks_mut::<WORD>();
    for (to, word) in to.iter_mut().zip(words) {
        *to = word.to_ne_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Around every boundary: a word, a line, the length from which REP is used.
    fn lengths() -> impl Iterator<Item = usize> {
        // Miri takes a millisecond for a byte.
        let (step, longest) = if cfg!(miri) { (13, 200) } else { (1, 8192) };
        (0..140)
            .chain(LONG_BYTES - 9..LONG_BYTES + 9)
            .step_by(step)
            .chain([longest])
    }

    #[test]
    fn every_byte_is_copied_and_none_beside() {
        for len in lengths() {
            let from: Vec<u8> = (0..len).map(|i| (i % 251) as u8 + 1).collect();
            let mut to = vec![0xcc; len + 2];
            copy(&mut to[1..=len], &from);
            assert_eq!(to[1..=len], from, "{len} bytes");
            assert_eq!((to[0], to[len + 1]), (0xcc, 0xcc), "{len} bytes");
            zero(&mut to[1..=len]);
            assert!(to[1..=len].iter().all(|byte| *byte == 0), "{len} bytes");
            assert_eq!((to[0], to[len + 1]), (0xcc, 0xcc), "{len} bytes");
        }
    }

    #[test]
    fn one_byte_anywhere_is_found() {
        for len in lengths() {
            let mut bytes = vec![0; len];
            assert!(is_zero(&bytes), "{len} bytes");
            let step = if cfg!(miri) { 7 } else { 1 };
            let ends = (0..len).rev().take(80).chain((0..len).take(80));
            for at in ends.step_by(step) {
                bytes[at] = 0x80;
                assert!(!is_zero(&bytes), "byte {at} of {len}");
                bytes[at] = 0;
            }
        }
    }
}
