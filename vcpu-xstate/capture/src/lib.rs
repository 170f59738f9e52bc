//! What a processor really does with its extended state: images taken in ring 3, and the file that holds them.
//!
//! A *corpus* is pairs of images of the same registers, one by XSAVE and one
//! by XSAVEC, each with a checksum of what the processor restores from it
//! ([`corpus`]). [`restored`] says in plain code what that must be.
//! [`machine`] reads CPUID, [`player`] executes XSAVE, XSAVEC and XRSTOR
//! without a compiler's register in between, [`states`] makes register
//! contents, and [`mod@take`] puts them together. The program of the same name
//! does so on whatever machine it is started.
//!
//! The crate knows nothing of `vcpu-xstate`, which is tested with it.

pub mod corpus;
pub mod restored;
pub mod states;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub mod machine;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub mod player;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub mod take;
