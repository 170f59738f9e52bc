//! Where a call's data lies in the caller's memory.

/// A buffer in the caller's guest-physical memory. Address 0 with length 0
/// asks for the size that is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Guest-physical address.
    pub address: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Buffer {
    /// Asks for the size.
    pub const NULL: Self = Self {
        address: 0,
        bytes: 0,
    };

    /// Whether this asks for the size.
    #[must_use]
    pub const fn is_null(self) -> bool {
        self.address == 0 && self.bytes == 0
    }
}
