//! Builds the measured code for bare metal and makes one object of it, whose only visible names are its entry points.
//!
//! What is linked in here brings its own memcpy and memset: the linker joins
//! everything that the entry points reach (`ld -r --gc-sections`), and objcopy
//! hides all names but theirs, so none can be mixed up with libc's.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Target of everything that runs without an operating system.
const TARGET: &str = "x86_64-unknown-none";

/// What stays visible.
const ENTRIES: &[&str] = &[
    "xstate_bench_scene",
    "xstate_bench_export",
    "xstate_bench_import",
    "xstate_bench_compact",
    "xstate_bench_expand",
    "xstate_bench_expand_zeroed",
    "xstate_bench_relayout",
    "xstate_bench_limit",
    "xstate_bench_limit_zeroed",
    "xstate_bench_switch_scene",
    "xstate_bench_switch_mask",
    "xstate_bench_address",
    "xstate_bench_switch",
    "xstate_bench_pair",
];

fn main() {
    let here = PathBuf::from(var("CARGO_MANIFEST_DIR"));
    let out = PathBuf::from(var("OUT_DIR"));
    for sources in [
        "kernel",
        "../src",
        "../../migration-abi",
        "../../Cargo.toml",
    ] {
        println!("cargo::rerun-if-changed={}", here.join(sources).display());
    }

    let archive = compile(&here, &out.join("kernel"));
    let joined = out.join("joined.o");
    let undefined = ENTRIES.iter().map(|entry| format!("--undefined={entry}"));
    let mut ld = Command::new("ld");
    ld.args(["-r", "--gc-sections", "-o"]).arg(&joined);
    run(ld.args(undefined).arg(&archive));

    let object = out.join("xstate_bench_kernel.o");
    let kept = ENTRIES
        .iter()
        .map(|entry| format!("--keep-global-symbol={entry}"));
    run(Command::new("objcopy").args(kept).arg(&joined).arg(&object));

    // The same code as a program, for those who want to see its instructions.
    let linked = out.join("kernel.elf");
    let undefined = ENTRIES.iter().map(|entry| format!("--undefined={entry}"));
    let mut ld = Command::new("ld");
    ld.args(["--gc-sections", "--entry=xstate_bench_scene", "-o"])
        .arg(&linked);
    run(ld.args(undefined).arg(&archive));

    // Compiled for a fixed address, as the hypervisor is: so is the program
    // that it is linked into.
    println!("cargo::rustc-link-arg={}", object.display());
    println!("cargo::rustc-link-arg=-no-pie");
    println!("cargo::rustc-env=XSTATE_BENCH_KERNEL={}", linked.display());
}

/// Compiles the kernel in a target directory of its own; gives the archive.
fn compile(here: &Path, target: &Path) -> PathBuf {
    let mut cargo = Command::new(var("CARGO"));
    cargo
        .current_dir(here)
        .args(["build", "--release", "--package", "xstate-bench-kernel"])
        .args(["--target", TARGET, "--target-dir"])
        .arg(target);
    // What this build was given is for this machine, and clippy's wrapper does
    // not compile.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let ours = ["CARGO_HOME", "CARGO_NET_OFFLINE"].contains(&&*text);
        let theirs =
            text.starts_with("CARGO_") || text.starts_with("RUSTC_") || text == "RUSTFLAGS";
        if theirs && !ours {
            cargo.env_remove(&name);
        }
    }
    run(&mut cargo);
    target
        .join(TARGET)
        .join("release")
        .join("libxstate_bench_kernel.a")
}

fn run(command: &mut Command) {
    let program = command.get_program().to_os_string();
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("{} ended with {status}", name(&program)),
        Err(error) => panic!("{} could not be started: {error}", name(&program)),
    }
}

fn name(program: &OsStr) -> String {
    program.to_string_lossy().into_owned()
}

fn var(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}
