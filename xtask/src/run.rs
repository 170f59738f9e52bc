//! `cargo xtask run`: the toolstack's shell in the person's own terminal.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::qemu::{self, EXIT_POWEROFF, MachineSpec};

/// Where COM2, the link to another machine, leads.
#[derive(Clone, Debug)]
pub enum Link {
    /// Nowhere.
    None,
    /// To whoever connects to this socket.
    Listen(PathBuf),
    /// To the machine that listens on this socket.
    Connect(PathBuf),
}

/// Boots `image` with COM1 on standard input and output.
pub fn run(spec: &MachineSpec, image: &Path, link: &Link) -> Result<()> {
    eprintln!("Starting {spec}. The shell's `help` lists its commands; Ctrl-A X ends the machine.");
    let mut command = qemu::command();
    command.args(qemu::common_arguments(spec, image));
    command.args(["-serial", "mon:stdio", "-chardev"]);
    command.arg(match link {
        Link::None => "null,id=com2".to_owned(),
        Link::Listen(path) => format!("socket,id=com2,server=on,wait=off,path={}", path.display()),
        Link::Connect(path) => format!("socket,id=com2,path={}", path.display()),
    });
    command.args(["-serial", "chardev:com2"]);
    let status = command.status().context("QEMU could not be started")?;
    match status.code() {
        Some(0 | EXIT_POWEROFF) => Ok(()),
        _ => bail!("the machine ended with {status}; its last lines are above"),
    }
}
