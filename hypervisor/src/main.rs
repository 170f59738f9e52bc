//! The binary: the library, and what only a binary can have.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    xferry::panic(info)
}

#[cfg(target_os = "none")]
use xferry as _;

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!(
        "Xferry runs on bare metal: `cargo xtask run` builds it for x86_64-unknown-none and boots it."
    );
    std::process::exit(2);
}
