//! `cargo xtask setup`: what building and booting need, and getting it.
//!
//! Missing parts are found first, all of them; then they are installed, where
//! that can be done and was not forbidden, or named so that a person can.

mod apt;
mod find;
mod sources;

use anyhow::{Result, bail};
use xshell::{Shell, cmd};

pub use find::{grub_mkrescue, grub_modules, in_path};

use crate::workspace::{BARE_TARGET, Workspace};

/// The oldest QEMU whose SVM emulation is usable: before, the XSETBV intercept
/// does not fire, and a guest's XCR0 would be the host's.
pub const OLDEST_QEMU: u32 = 10;

/// What is missing on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The standard library for [`BARE_TARGET`].
    RustTarget,
    /// A component of the Rust toolchain, by rustup's name.
    RustComponent(&'static str),
    /// QEMU, or one that is new enough; the major version found.
    Qemu(Option<u32>),
    /// GRUB's image tool or its modules for BIOS machines.
    Grub,
    /// The tool that writes ISO images.
    Xorriso,
    /// The tools for FAT images that GRUB's image tool calls.
    Mtools,
    /// A C compiler, for the header and the examples in C.
    Cc,
}

impl Missing {
    /// Debian's packages for it.
    fn packages(self) -> &'static [&'static str] {
        match self {
            Self::RustTarget | Self::RustComponent(_) => &[],
            Self::Qemu(_) => &[apt::QEMU],
            Self::Grub => &["grub-common", "grub-pc-bin"],
            Self::Xorriso => &["xorriso"],
            Self::Mtools => &["mtools"],
            Self::Cc => &["gcc", "libc6-dev"],
        }
    }
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::RustTarget => write!(
                f,
                "Rust target {BARE_TARGET} (rustup target add {BARE_TARGET})"
            ),
            Self::RustComponent(name) => {
                write!(f, "Rust component {name} (rustup component add {name})")
            }
            Self::Qemu(None) => write!(f, "QEMU {OLDEST_QEMU} or newer: qemu-system-x86_64"),
            Self::Qemu(Some(found)) => write!(
                f,
                "QEMU {OLDEST_QEMU} or newer: qemu-system-x86_64 is version {found}, \
                 whose XSETBV intercept does not fire"
            ),
            Self::Grub => write!(
                f,
                "GRUB's grub-mkrescue (or grub2-mkrescue) with its i386-pc modules"
            ),
            Self::Xorriso => write!(f, "xorriso"),
            Self::Mtools => write!(f, "mtools (mformat, mcopy)"),
            Self::Cc => write!(f, "a C compiler: cc"),
        }
    }
}

/// How much `setup` may look for and do.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Whether what is missing may be installed.
    pub install: bool,
    /// Whether what only tests need is wanted too: rustfmt, clippy, a C compiler.
    pub lints: bool,
}

/// Makes sure that everything needed is here, installing it if allowed.
pub fn ensure(workspace: &Workspace, options: Options) -> Result<()> {
    let missing = find::missing(workspace, options.lints);
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing
        .iter()
        .map(|part| format!("  {part}"))
        .collect::<Vec<_>>()
        .join("\n");
    if !options.install {
        bail!("missing, and --no-install forbids installing it:\n{list}");
    }
    eprintln!("Missing on this machine:\n{list}");
    install(workspace, &missing, &list)?;

    let still = find::missing(workspace, options.lints);
    if !still.is_empty() {
        let names: Vec<String> = still.iter().map(ToString::to_string).collect();
        bail!("installed, but still missing: {}", names.join("; "));
    }
    Ok(())
}

fn install(workspace: &Workspace, missing: &[Missing], list: &str) -> Result<()> {
    let shell = Shell::new()?;
    shell.change_dir(workspace.root());

    let rust = missing
        .iter()
        .any(|part| matches!(part, Missing::RustTarget | Missing::RustComponent(_)));
    if rust
        && cmd!(shell, "rustup --version")
            .quiet()
            .ignore_stderr()
            .read()
            .is_err()
    {
        bail!(
            "this Rust was not installed by rustup, so its parts cannot be added here; \
             install with your package manager:\n{list}"
        );
    }
    for part in missing {
        match part {
            Missing::RustTarget => cmd!(shell, "rustup target add {BARE_TARGET}").run()?,
            Missing::RustComponent(name) => cmd!(shell, "rustup component add {name}").run()?,
            _ => {}
        }
    }

    let mut packages: Vec<&str> = missing
        .iter()
        .flat_map(|part| part.packages())
        .copied()
        .collect();
    packages.sort_unstable();
    if packages.is_empty() {
        return Ok(());
    }
    let new_qemu = missing.iter().any(|part| matches!(part, Missing::Qemu(_)));
    apt::install(&shell, &packages, new_qemu).map_err(|error| {
        anyhow::anyhow!("{error:#}\nInstall these by hand, then run the command again:\n{list}")
    })
}
