//! What is fuzzed: one function of bytes for each target, and the seeds that they start from.
//!
//! A target panics where the libraries break a promise: a reader that panics,
//! an accepted image that a processor would fault on, a conversion that loses
//! a register. It is a plain function, so the seeds run in `cargo test` on any
//! toolchain, under Miri, and in libFuzzer alike (`cargo xtask fuzz`; the
//! programs are in `libfuzzer/`).
//!
//! Bytes that mutate never get past a checksum or a length that stands twice.
//! So the first byte of an input says what is *mended* before the libraries
//! see the rest ([`mend`]): nothing, checksums, lengths, or whole layouts.

pub mod convert;
pub mod decode;
pub mod image;
pub mod import;
pub mod input;
pub mod legacy;
pub mod machines;
pub mod mend;
pub mod policy;
pub mod processor;
pub mod seeds;
pub mod stream;

/// A target: its name, what it does with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("decode", decode::run),
    ("import", import::run),
    ("convert", convert::run),
    ("legacy", legacy::run),
    ("policy", policy::run),
    ("stream", stream::run),
];
