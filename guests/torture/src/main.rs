//! Test guest: keeps patterns in every register of its extended state and
//! checks every bit.
//!
//! ```text
//! fill ──> spin 2–20 ms ──> check registers ──> own XSAVE ──> INIT ──> next
//!          (only copy)      (pattern computed    (leaf 0xD)
//!          timer events      anew from the seed)
//! ```
//!
//! A switch, a preemption or a move that loses a bit while it spins is found by
//! the check, which comes before anything that would load the register again.
#![cfg_attr(target_os = "none", no_std, no_main)]
// On the host only the tests use what is here.
#![cfg_attr(not(target_os = "none"), allow(dead_code))]

mod check;
mod direct;
mod groups;
#[cfg(target_os = "none")]
mod guest;
#[cfg(target_os = "none")]
mod hostile;
mod image;
mod machine;
mod options;
mod pattern;
#[cfg(target_os = "none")]
mod probe;
mod registers;
#[cfg(target_os = "none")]
mod run;
mod spin;
#[cfg(target_os = "none")]
mod system;
#[cfg(test)]
mod tests;
#[cfg(target_os = "none")]
mod time;
mod verdict;

#[cfg(not(target_os = "none"))]
fn main() {
    println!("torture is a guest: build it with --target x86_64-unknown-none");
}
