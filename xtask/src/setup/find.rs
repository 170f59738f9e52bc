//! Finds out which of the needed parts this machine has.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Missing, OLDEST_QEMU};
use crate::workspace::{BARE_TARGET, Workspace};

/// Everything that is missing, in the order in which it is reported.
pub fn missing(workspace: &Workspace, lints: bool) -> Vec<Missing> {
    let mut missing = Vec::new();
    if !rust_target(workspace) {
        missing.push(Missing::RustTarget);
    }
    if lints {
        for (component, subcommand) in [("rustfmt", "fmt"), ("clippy", "clippy")] {
            if !rust_component(workspace, subcommand) {
                missing.push(Missing::RustComponent(component));
            }
        }
        if !in_path("cc") {
            missing.push(Missing::Cc);
        }
    }
    match qemu_version() {
        Some(version) if version >= OLDEST_QEMU => {}
        found => missing.push(Missing::Qemu(found)),
    }
    if grub_mkrescue().is_none() || grub_modules().is_none() {
        missing.push(Missing::Grub);
    }
    if !in_path("xorriso") {
        missing.push(Missing::Xorriso);
    }
    if !in_path("mformat") || !in_path("mcopy") {
        missing.push(Missing::Mtools);
    }
    missing
}

/// Whether the toolchain of this repository can compile for bare metal.
pub fn rust_target(workspace: &Workspace) -> bool {
    // The library directory is looked at, not rustup asked: a distribution's
    // Rust has no rustup and may well have the target.
    Command::new("rustc")
        .args(["--print", "target-libdir", "--target", BARE_TARGET])
        .current_dir(workspace.root())
        .output()
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .and_then(|dir| std::fs::read_dir(dir.trim()).ok())
        .is_some_and(|entries| {
            entries
                .flatten()
                .any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
        })
}

/// Whether `cargo SUBCOMMAND` works with the toolchain of this repository.
pub fn rust_component(workspace: &Workspace, subcommand: &str) -> bool {
    succeeds(workspace.cargo().args([subcommand, "--version"]))
}

/// GRUB's image tool under the name that it has here.
pub fn grub_mkrescue() -> Option<&'static str> {
    ["grub-mkrescue", "grub2-mkrescue"]
        .into_iter()
        .find(|name| in_path(name))
}

/// The directory of GRUB's modules for BIOS machines.
pub fn grub_modules() -> Option<PathBuf> {
    [
        "/usr/lib/grub/i386-pc",
        "/usr/share/grub/i386-pc",
        "/usr/lib/grub2/i386-pc",
        "/usr/share/grub2/i386-pc",
    ]
    .into_iter()
    .map(PathBuf::from)
    .find(|dir| dir.join("multiboot2.mod").is_file())
}

fn qemu_version() -> Option<u32> {
    let output = Command::new("qemu-system-x86_64")
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .ok()?;
    parse_qemu_version(&String::from_utf8_lossy(&output.stdout))
}

/// The major version in what `qemu-system-x86_64 --version` prints.
fn parse_qemu_version(text: &str) -> Option<u32> {
    let rest = text.split("version ").nth(1)?;
    rest.split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

/// Whether a program of this name can be started.
pub fn in_path(name: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|dir| Path::new(&dir).join(name).is_file())
    })
}

fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qemu_versions_of_distributions() {
        for (text, major) in [
            (
                "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright",
                Some(10),
            ),
            (
                "QEMU emulator version 7.2.19 (Debian 1:7.2+dfsg-7)",
                Some(7),
            ),
            ("QEMU emulator version 11.1.0", Some(11)),
            ("bash: no such command", None),
            ("QEMU emulator version ", None),
        ] {
            assert_eq!(parse_qemu_version(text), major, "{text}");
        }
    }
}
