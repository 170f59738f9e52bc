//! Has the toolstack linked by the runtime's linker script, where it is a
//! guest: on the host the same package is built for its tests.

fn main() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../rt/guest.ld");
    println!("cargo::rerun-if-changed={script}");
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        println!("cargo::rustc-link-arg-bins=-T{script}");
    }
}
