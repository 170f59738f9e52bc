//! What an exit means: the handlers, and the pure verdicts that they apply.

pub mod control;
pub mod cr;
pub mod decode;
pub mod fetch;
pub mod handle;
pub mod hypercalls;
pub mod instructions;
pub mod io;
pub mod msr;
pub mod ports;
pub mod uart;
pub mod walk;

pub use handle::{Handled, Next, Running, handle};
