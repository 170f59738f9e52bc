//! Links the binary at its fixed address, but only where it is a kernel: on a
//! development machine the same crate is an ordinary library with tests.

use std::env;
use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=xferry.ld");
    let on_bare_metal = env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "none");
    if on_bare_metal {
        let directory = env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
        let script = Path::new(&directory).join("xferry.ld");
        println!("cargo::rustc-link-arg-bins=-T{}", script.display());
    }
}
