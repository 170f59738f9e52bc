//! The link to another host: bytes that arrive in order, or do not arrive.

mod uart;
mod wire;

pub use uart::Com2;
pub use wire::Wire;

use crate::error::Error;

/// A byte stream to the other toolstack, and the time while one waits for it.
pub trait Link {
    /// Sends all of `bytes`.
    ///
    /// # Errors
    /// There is no link, or the other side takes nothing any more.
    fn write(&mut self, bytes: &[u8]) -> Result<(), Error>;

    /// Takes what waits; 0 where nothing does.
    ///
    /// # Errors
    /// There is no link.
    fn read(&mut self, to: &mut [u8]) -> Result<usize, Error>;

    /// Time that only goes forward, ns.
    fn now_ns(&self) -> u64;

    /// Called between two looks that found nothing.
    ///
    /// # Errors
    /// The user wants no more of it.
    fn idle(&mut self) -> Result<(), Error>;
}

/// A second in the unit of [`Link::now_ns`].
pub const SECOND_NS: u64 = 1_000_000_000;
/// A millisecond in the unit of [`Link::now_ns`].
pub const MILLISECOND_NS: u64 = 1_000_000;
