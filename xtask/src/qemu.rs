//! One emulated machine: a QEMU process, its two serial ports and its logs.

use std::fs::{self, File};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::console::Console;
use crate::setup::in_path;

/// Exit code of QEMU after the toolstack powered the machine off: the device
/// isa-debug-exit gives `value << 1 | 1`, and the value was 0.
pub const EXIT_POWEROFF: i32 = 1;

/// Exit code of QEMU after the hypervisor stopped because of a failure, which
/// writes 0x10.
pub const EXIT_FAILED: i32 = 33;

const PROGRAM: &str = "qemu-system-x86_64";

/// Which machine to emulate, as `--from` and `--to` name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MachineSpec {
    model: String,
}

impl MachineSpec {
    /// QEMU with the CPU `model`.
    pub fn qemu(model: &str) -> Self {
        Self {
            model: model.to_owned(),
        }
    }

    /// What `-cpu` is given. QEMU's models of real processors leave the x2APIC
    /// to whoever runs them; a machine here always has one.
    fn cpu(&self) -> String {
        if self.model.split(',').any(|part| part.ends_with("x2apic")) || self.model == "max" {
            self.model.clone()
        } else {
            format!("{},+x2apic", self.model)
        }
    }
}

impl Default for MachineSpec {
    fn default() -> Self {
        Self::qemu("max")
    }
}

impl FromStr for MachineSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (emulator, model) = text.split_once(':').unwrap_or((text, "max"));
        if emulator != "qemu" {
            return Err(format!(
                "{emulator:?} is no machine known here; allowed: qemu, qemu:CPUMODEL"
            ));
        }
        if model.is_empty() {
            return Err("qemu: is followed by a CPU model, as in qemu:EPYC-Rome".into());
        }
        Ok(Self::qemu(model))
    }
}

impl std::fmt::Display for MachineSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.model.as_str() {
            "max" => write!(f, "qemu"),
            model => write!(f, "qemu:{model}"),
        }
    }
}

/// The arguments that every machine has, whatever its serial ports lead to.
pub fn common_arguments(spec: &MachineSpec, image: &Path) -> Vec<String> {
    [
        "-machine",
        "pc",
        "-accel",
        "tcg",
        "-cpu",
        &spec.cpu(),
        "-m",
        "512",
        "-display",
        "none",
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        "-boot",
        "order=d",
        "-cdrom",
        &image.display().to_string(),
        "-device",
        "isa-debug-exit,iobase=0xf4,iosize=4",
    ]
    .map(str::to_owned)
    .into()
}

/// A command that starts QEMU such that it cannot outlive this process.
pub fn command() -> Command {
    // Dropping an `Instance` ends its process; this is for an xtask that is
    // killed and drops nothing.
    if in_path("setpriv") {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", PROGRAM]);
        command
    } else {
        Command::new(PROGRAM)
    }
}

/// A running machine. Dropping it ends the process.
pub struct Instance {
    name: String,
    child: Child,
    console: Console,
    link: Option<UnixStream>,
    log: PathBuf,
}

impl Instance {
    /// Boots `image` on `spec`; the machine is called `name` in messages, and
    /// its logs are `NAME-console.log` and `NAME-qemu.log` in `logs`.
    pub fn boot(name: &str, spec: &MachineSpec, image: &Path, logs: &Path) -> Result<Self> {
        fs::create_dir_all(logs)?;
        let sockets = SocketDir::new(name)?;
        // QEMU connects to sockets that listen already: so no byte is written
        // before somebody reads.
        let com1 = sockets.listen("com1")?;
        let com2 = sockets.listen("com2")?;
        let log = logs.join(format!("{name}-qemu.log"));
        let messages = File::create(&log)?;

        let mut command = command();
        command.args(common_arguments(spec, image));
        for port in ["com1", "com2"] {
            let path = sockets.path(port);
            command.arg("-chardev");
            command.arg(format!("socket,id={port},path={}", path.display()));
            command.args(["-serial", &format!("chardev:{port}")]);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(messages.try_clone()?)
            .stderr(messages)
            .spawn()
            .with_context(|| format!("{PROGRAM} could not be started"))?;

        let connected =
            accept(&com1, &mut child).and_then(|com1| Ok((com1, accept(&com2, &mut child)?)));
        let (com1, com2) = match connected {
            Ok(streams) => streams,
            Err(error) => {
                end(&mut child);
                let said = fs::read_to_string(&log).unwrap_or_default();
                return Err(error.context(format!("machine {name} ({spec}): {}", said.trim())));
            }
        };
        let console = Console::start(com1, &logs.join(format!("{name}-console.log")))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            console,
            link: Some(com2),
            log,
        })
    }

    /// What it is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// COM1.
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// COM2; it can be taken once.
    pub fn take_link(&mut self) -> Result<UnixStream> {
        self.link
            .take()
            .context("the machine's link was taken before")
    }

    /// Waits for the process to end by itself and gives its exit code.
    pub fn wait_for_exit(&mut self, limit: Duration) -> Result<i32> {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return status
                    .code()
                    .with_context(|| format!("machine {} ended by {status}", self.name));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("machine {} did not end within {limit:?}", self.name)
    }

    /// What the emulator itself had to say.
    pub fn messages(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn end(child: &mut Child) {
    // Errors mean that it has ended already.
    let _ = child.kill();
    let _ = child.wait();
}

fn accept(listener: &UnixListener, child: &mut Child) -> Result<UnixStream> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(status) = child.try_wait()? {
            bail!("{PROGRAM} ended at once: {status}");
        }
        if Instant::now() > deadline {
            bail!("{PROGRAM} did not open its serial ports");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A directory for sockets. Their paths may be 107 bytes long at most, which a
/// target directory can easily exceed.
struct SocketDir(PathBuf);

impl SocketDir {
    fn new(name: &str) -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir =
            std::env::temp_dir().join(format!("xferry-{}-{number}-{name}", std::process::id()));
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&dir)
            .with_context(|| format!("creating {}", dir.display()))?;
        Ok(Self(dir))
    }

    fn path(&self, port: &str) -> PathBuf {
        self.0.join(port)
    }

    fn listen(&self, port: &str) -> Result<UnixListener> {
        let listener = UnixListener::bind(self.path(port))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }
}

impl Drop for SocketDir {
    fn drop(&mut self) {
        // Both ends are connected (or never will be): the names are not needed.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_by_name() {
        assert_eq!("qemu".parse(), Ok(MachineSpec::qemu("max")));
        assert_eq!("qemu:EPYC-Rome".parse(), Ok(MachineSpec::qemu("EPYC-Rome")));
        assert_eq!(
            "qemu:EPYC-Rome".parse::<MachineSpec>().unwrap().to_string(),
            "qemu:EPYC-Rome"
        );
        assert_eq!(MachineSpec::default().to_string(), "qemu");
        for bad in ["", "bochs", "qemu:", "xen:max"] {
            assert!(bad.parse::<MachineSpec>().is_err(), "{bad}");
        }
    }

    #[test]
    fn every_machine_has_an_x2apic() {
        assert_eq!(MachineSpec::qemu("max").cpu(), "max");
        assert_eq!(MachineSpec::qemu("EPYC-Rome").cpu(), "EPYC-Rome,+x2apic");
        assert_eq!(
            MachineSpec::qemu("EPYC-Rome,-x2apic").cpu(),
            "EPYC-Rome,-x2apic"
        );
    }
}
