//! Installing on Debian and Ubuntu, with the release's backports where its own
//! QEMU is too old.
//!
//! No archive is named here: where packages come from is read from the
//! machine's own sources, so mirrors and keyrings stay what they are.

use std::path::Path;

use anyhow::{Context, Result, bail};
use xshell::{Cmd, Shell, cmd};

use super::find::in_path;
use super::sources;

/// Debian's package of the emulator.
pub const QEMU: &str = "qemu-system-x86";

const SOURCES: &str = "/etc/apt";

/// Installs `packages`; `new_qemu` says that QEMU's version matters.
pub fn install(shell: &Shell, packages: &[&str], new_qemu: bool) -> Result<()> {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let Some(release) = Release::parse(&release) else {
        bail!("this is neither Debian nor Ubuntu, so nothing is installed here");
    };
    if !in_path("apt-get") {
        bail!("there is no apt-get here");
    }
    let root = Privilege::find(shell)?;

    eprintln!("Installing with apt-get: {}", packages.join(" "));
    root.run(shell, &["apt-get", "update", "-q"])?;
    // Only what needs it comes from backports.
    let (from_backports, from_release): (Vec<&str>, Vec<&str>) = if new_qemu && !new_enough(shell)?
    {
        packages.iter().partition(|package| **package == QEMU)
    } else {
        (Vec::new(), packages.to_vec())
    };
    let suite = if from_backports.is_empty() {
        None
    } else {
        let suite = release.backports().with_context(|| {
            format!(
                "{} has no QEMU {} or newer among its packages",
                release.name,
                super::OLDEST_QEMU
            )
        })?;
        add_backports(shell, &root, &release.codename, &suite)?;
        root.run(shell, &["apt-get", "update", "-q"])?;
        Some(suite)
    };
    get(shell, &root, None, &from_release)?;
    get(shell, &root, suite.as_deref(), &from_backports)
}

/// `apt-get install` without questions.
fn get(shell: &Shell, root: &Privilege, suite: Option<&str>, packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let mut command = vec![
        "env",
        "DEBIAN_FRONTEND=noninteractive",
        "apt-get",
        "install",
        "-y",
        "-q",
    ];
    command.push("--no-install-recommends");
    // Backports have a low priority of their own: without -t the old one stays.
    if let Some(suite) = suite {
        command.extend(["-t", suite]);
    }
    command.extend(packages);
    root.run(shell, &command)
}

fn add_backports(shell: &Shell, root: &Privilege, codename: &str, suite: &str) -> Result<()> {
    let known = sources::read_all(Path::new(SOURCES));
    if known.iter().any(|source| source.has_suite(suite)) {
        return Ok(());
    }
    let stanza = sources::backports(&known, codename, suite).with_context(|| {
        format!("no source below {SOURCES} carries {codename}, so none can be derived for {suite}")
    })?;
    let path = format!("{SOURCES}/sources.list.d/{suite}.sources");
    eprintln!("Adding {path}, which says:\n{stanza}");
    let mut tee = root.command(shell, &["tee", &path])?;
    tee = tee.stdin(&stanza).ignore_stdout();
    tee.run()?;
    Ok(())
}

/// Whether the QEMU that apt would install is one to use.
fn new_enough(shell: &Shell) -> Result<bool> {
    let policy = cmd!(shell, "apt-cache policy {QEMU}")
        .env("LC_ALL", "C")
        .quiet()
        .read()?;
    Ok(parse_candidate(&policy).is_some_and(|version| version >= super::OLDEST_QEMU))
}

fn parse_candidate(policy: &str) -> Option<u32> {
    let version = policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate:"))?
        .trim();
    let upstream = version.split_once(':').map_or(version, |(_, rest)| rest);
    upstream
        .split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

/// The parts of os-release that matter here.
#[derive(Debug, PartialEq, Eq)]
struct Release {
    name: String,
    codename: String,
    debian: bool,
}

impl Release {
    fn parse(text: &str) -> Option<Self> {
        let field = |key: &str| {
            text.lines().find_map(|line| {
                let (name, value) = line.split_once('=')?;
                (name == key).then(|| value.trim_matches('"').to_owned())
            })
        };
        let id = field("ID")?;
        if id != "debian" && id != "ubuntu" {
            return None;
        }
        Some(Self {
            name: field("PRETTY_NAME").unwrap_or_else(|| id.clone()),
            codename: field("VERSION_CODENAME").unwrap_or_default(),
            debian: id == "debian",
        })
    }

    /// The suite in which a newer QEMU is to be had. Ubuntu's backports carry
    /// none.
    fn backports(&self) -> Option<String> {
        (self.debian && !self.codename.is_empty()).then(|| format!("{}-backports", self.codename))
    }
}

/// How commands are run that change the machine.
enum Privilege {
    Root,
    Sudo { ask: bool },
}

impl Privilege {
    fn find(shell: &Shell) -> Result<Self> {
        if cmd!(shell, "id -u").quiet().read()? == "0" {
            return Ok(Self::Root);
        }
        if !in_path("sudo") {
            bail!("installing needs root, and there is no sudo here");
        }
        // A password can be asked for only where somebody can answer.
        let ask = std::io::IsTerminal::is_terminal(&std::io::stdin());
        if !ask
            && cmd!(shell, "sudo -n true")
                .quiet()
                .ignore_stderr()
                .run()
                .is_err()
        {
            bail!("installing needs root, and sudo wants a password that nobody can give here");
        }
        Ok(Self::Sudo { ask })
    }

    fn command<'a>(&self, shell: &'a Shell, words: &[&str]) -> Result<Cmd<'a>> {
        let mut line: Vec<&str> = match self {
            Self::Root => vec![],
            Self::Sudo { ask: true } => vec!["sudo"],
            Self::Sudo { ask: false } => vec!["sudo", "-n"],
        };
        line.extend(words);
        let (program, arguments) = line.split_first().context("no command was given")?;
        // Standard output may be a program's input (`--json`), so apt's goes
        // where messages go.
        Ok(cmd!(
            shell,
            "sh -c 'exec \"$0\" \"$@\" >&2' {program} {arguments...}"
        ))
    }

    fn run(&self, shell: &Shell, words: &[&str]) -> Result<()> {
        Ok(self.command(shell, words)?.run()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidate_versions() {
        let policy = |candidate: &str| {
            format!(
                "qemu-system-x86:\n  Installed: (none)\n  Candidate: {candidate}\n  Version table:\n"
            )
        };
        assert_eq!(parse_candidate(&policy("1:7.2+dfsg-7+deb12u13")), Some(7));
        assert_eq!(parse_candidate(&policy("1:10.0.2+ds-2~bpo12+1")), Some(10));
        assert_eq!(parse_candidate(&policy("(none)")), None);
        assert_eq!(parse_candidate(""), None);
    }

    #[test]
    fn releases() {
        let debian = Release::parse(
            "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_CODENAME=bookworm\nID=debian\n",
        )
        .unwrap();
        assert_eq!(debian.backports().as_deref(), Some("bookworm-backports"));
        let ubuntu = Release::parse("ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=noble\n").unwrap();
        assert_eq!(ubuntu.backports(), None);
        let sid = Release::parse("ID=debian\n").unwrap();
        assert_eq!(sid.backports(), None);
        assert_eq!(Release::parse("ID=fedora\n"), None);
        assert_eq!(Release::parse(""), None);
    }
}
