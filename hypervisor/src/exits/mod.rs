//! What an exit means: the handlers, and the pure verdicts that they apply.

pub mod cr;
pub mod decode;
pub mod fetch;
pub mod io;
pub mod msr;
pub mod uart;
pub mod walk;
