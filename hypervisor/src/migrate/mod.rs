//! Order of operations on a stopped vCPU that leaves or arrives. Bytes are
//! `migration-abi`'s, their meaning `vcpu-xstate`'s; nothing is changed before
//! both agree.

pub mod console;
#[cfg(feature = "import-fault")]
pub mod fault;
pub mod registry;
pub mod xstate;
