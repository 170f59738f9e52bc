//! A refused control call: what its registers say, and the words for it.

use core::fmt::{self, Write};
use vcpu_xstate::error::Broken;
use xferry_abi::{Errno, Failure, Reason};

/// Bytes of the longest explanation; a longer one is cut.
pub const TEXT_BYTES: usize = 240;

/// Text of bounded length, cut at a character.
#[derive(Clone, Copy)]
pub struct Text {
    bytes: [u8; TEXT_BYTES],
    length: usize,
}

impl Text {
    /// Empty.
    pub const EMPTY: Self = Self {
        bytes: [0; TEXT_BYTES],
        length: 0,
    };

    /// Its bytes, UTF-8.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or(&[])
    }
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            let mut buffer = [0; 4];
            let encoded = character.encode_utf8(&mut buffer).as_bytes();
            let end = self.length + encoded.len();
            match self.bytes.get_mut(self.length..end) {
                Some(room) => room.copy_from_slice(encoded),
                None => return Err(fmt::Error),
            }
            self.length = end;
        }
        Ok(())
    }
}

/// Why a call was refused.
#[derive(Clone, Copy)]
pub struct Refusal {
    /// For the registers.
    pub failure: Failure,
    /// For people.
    pub text: Text,
}

impl Refusal {
    /// Rule `code` of `class` was broken.
    pub fn new(
        errno: Errno,
        class: u32,
        code: u32,
        seen: u64,
        allowed: u64,
        words: fmt::Arguments<'_>,
    ) -> Self {
        let mut text = Text::EMPTY;
        // Only the cut at the end can fail.
        let _ = text.write_fmt(words);
        Self {
            failure: Failure {
                errno,
                reason: Reason::new(class, code),
                seen,
                allowed,
            },
            text,
        }
    }

    /// A rule of `vcpu-xstate` was broken: it names itself.
    pub fn broken(errno: Errno, class: u32, broken: &Broken) -> Self {
        Self::new(
            errno,
            class,
            broken.code,
            broken.seen,
            broken.allowed,
            format_args!("{broken}"),
        )
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        let mut text = Text::EMPTY;
        let _ = write!(text, "{failure}");
        Self { failure, text }
    }
}

/// Rules of the call itself ([`Reason::CLASS_CALL`]); 1 to 15 are
/// [`xferry_abi::control`]'s.
pub mod call {
    use super::{Errno, Reason, Refusal};

    /// No call has this number.
    pub fn unknown(number: u64) -> Refusal {
        Refusal::new(
            Errno::ENOSYS,
            Reason::CLASS_CALL,
            16,
            number,
            16,
            format_args!("no hypercall has the number {number:#x}"),
        )
    }

    /// A pointer of the caller leads out of its memory.
    pub fn address(address: u64, bytes: u64) -> Refusal {
        Refusal::new(
            Errno::EFAULT,
            Reason::CLASS_CALL,
            17,
            address,
            0,
            format_args!("{bytes} bytes at guest-physical {address:#x} are not all memory"),
        )
    }

    /// An argument is none of those that the call knows.
    pub fn argument(what: &str, seen: u64, allowed: u64) -> Refusal {
        Refusal::new(
            Errno::EINVAL,
            Reason::CLASS_CALL,
            18,
            seen,
            allowed,
            format_args!("{what}: saw {seen:#x}, allowed is up to {allowed:#x}"),
        )
    }

    /// A buffer has another size than what goes into it or comes from it.
    pub fn buffer(seen: u64, needed: u64) -> Refusal {
        Refusal::new(
            Errno::ENOBUFS,
            Reason::CLASS_CALL,
            19,
            seen,
            needed,
            format_args!("the buffer has {seen} bytes, {needed} are needed"),
        )
    }

    /// The hypervisor's heap is full.
    pub fn memory(bytes: u64) -> Refusal {
        Refusal::new(
            Errno::ENOMEM,
            Reason::CLASS_CALL,
            20,
            bytes,
            0,
            format_args!("the hypervisor has no {bytes} bytes left"),
        )
    }

    /// The caller is not the toolstack, and learns nothing else.
    pub fn permission() -> Refusal {
        xferry_abi::Failure::of(Errno::EPERM).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_explanation_is_cut_at_a_character() {
        let mut text = Text::EMPTY;
        for _ in 0..200 {
            let _ = text.write_str("ä");
        }
        assert_eq!(text.as_bytes().len(), TEXT_BYTES);
        assert!(core::str::from_utf8(text.as_bytes()).is_ok());
        let mut text = Text::EMPTY;
        let _ = text.write_str("x");
        for _ in 0..200 {
            let _ = text.write_str("ä");
        }
        assert_eq!(text.as_bytes().len(), TEXT_BYTES - 1);
        assert!(core::str::from_utf8(text.as_bytes()).is_ok());
    }
}
