//! What each command does, and what it prints.

use crate::build::{Plan, build, name_text};
use crate::error::{Code, Error};
use crate::hypervisor::Hypervisor;
use crate::ids::Ids;
use crate::link::{Link, SECOND_NS, Wire};
use crate::migrate::{Patience, receiver, settle, source};
use crate::report::{self, Output};
use crate::say;
use crate::shell::{Command, help_lines};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use migration_abi::stream::MigrationId;
use xferry_abi::info::state;
use xferry_abi::{DomainId, Errno, RightAction};

/// Bytes of a blob on one line.
const HEX_LINE_BYTES: usize = 32;
/// A line that is longer is shown in pieces.
const CONSOLE_LINE_BYTES: usize = 4096;

/// How long `send` waits for somebody to answer, unless it is told.
const SEND_HELLO_S: u64 = 5;
/// How long `receive` waits for somebody to send.
const RECEIVE_HELLO_S: u64 = 20;

/// A boot module that can be made a domain of.
#[derive(Clone, Copy, Debug)]
pub struct ImageFile<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its content.
    pub data: &'a [u8],
}

/// All that commands work with.
pub struct Tools<'a> {
    /// Control calls.
    pub hypervisor: &'a mut dyn Hypervisor,
    /// The way to the other host.
    pub link: &'a mut dyn Link,
    /// Boot modules.
    pub images: &'a [ImageFile<'a>],
    /// This boot's number.
    pub boot_nonce: u64,
    /// Draws names.
    pub ids: Ids,
    /// Per domain, output that was read and is no whole line yet.
    pub unshown: BTreeMap<u32, Vec<u8>>,
}

/// What becomes of the shell after a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// The next one.
    Next,
    /// The machine is switched off.
    PowerOff,
}

impl Tools<'_> {
    /// Does what a command asks for.
    ///
    /// # Errors
    /// Why it was not done; nothing was changed unless the text says so.
    pub fn run(&mut self, command: &Command<'_>, out: &mut dyn Output) -> Result<After, Error> {
        match *command {
            Command::Nothing => {}
            Command::PowerOff => return Ok(After::PowerOff),
            Command::Help => help_lines().iter().for_each(|line| say!(out, "{line}")),
            Command::Host => report::host(out, &self.hypervisor.physical_info()?),
            Command::List => report::domains(out, &self.hypervisor.domains()?),
            Command::Create { .. } => self.create(command, out)?,
            Command::Destroy(id) => {
                self.hypervisor.destroy(id)?;
                self.unshown.remove(&id.0);
            }
            Command::Pause(id) => self.hypervisor.pause(id)?,
            Command::Unpause(id) => self.hypervisor.unpause(id)?,
            Command::ShowPolicy(id) => {
                let policy = self.hypervisor.policy(id)?;
                report::policy(out, &policy, policy.read()?.xstate().mask);
            }
            Command::SetPolicy { domain, spec, drop } => {
                self.set_policy(domain, spec, drop, out)?;
            }
            Command::Xstate(id) => self.xstate(id, out)?,
            Command::Reclaim(id) => {
                let bytes = self.hypervisor.reclaim(id)?;
                say!(out, "reclaimed {bytes} bytes");
            }
            Command::Limit(id, bytes) => self.hypervisor.set_xstate_limit(id, bytes)?,
            Command::Send { domain, timeout_s } => self.send(domain, timeout_s, out)?,
            Command::Receive { timeout_s } => self.receive(timeout_s, out)?,
            Command::Reconnect { timeout_s } => {
                let limit_ns = timeout_s.saturating_mul(SECOND_NS);
                let mut wire = Wire::new(self.link);
                settle::reconnect(self.hypervisor, &mut wire, out, self.boot_nonce, limit_ns)?;
            }
            Command::Decide(id, action) => self.decide(id, action, out)?,
            Command::Console(id, input) => self.console(id, input, out)?,
            Command::Blob(id) => self.blob(id, out)?,
        }
        Ok(After::Next)
    }

    fn create(&mut self, command: &Command<'_>, out: &mut dyn Output) -> Result<(), Error> {
        let Command::Create {
            image,
            name,
            memory_bytes,
            policy,
            paused,
            cmdline,
        } = *command
        else {
            return Ok(());
        };
        let Some(file) = self.images.iter().find(|file| file.name == image) else {
            let names: Vec<&str> = self.images.iter().map(|file| file.name).collect();
            let allowed = alloc::format!("a boot module: {}", names.join(", "));
            return Err(Error {
                code: Errno::ENOENT.into(),
                ..Error::rule("image-name", format_args!("{image:?}"), allowed)
            });
        };
        let plan = Plan {
            image: file.data,
            name,
            uuid: self.ids.draw(self.link.now_ns()),
            memory_bytes,
            policy,
            cmdline,
        };
        let id = build(self.hypervisor, &plan)?;
        if !paused {
            self.hypervisor.unpause(id)?;
        }
        say!(
            out,
            "domain {} ({name}), {}",
            id.0,
            if paused { "paused" } else { "running" }
        );
        Ok(())
    }

    /// Sets a policy; a domain that runs is paused for it.
    fn set_policy(
        &mut self,
        id: DomainId,
        spec: &str,
        drop: u64,
        out: &mut dyn Output,
    ) -> Result<(), Error> {
        let policy = self.hypervisor.policy(DomainId::HOST)?.configured(spec)?;
        let before = self.hypervisor.domain_info(id)?;
        let runs = before.state == state::RUNNING;
        if runs {
            self.hypervisor.pause(id)?;
        }
        let set = self.hypervisor.set_policy(id, drop, &policy);
        if runs {
            self.hypervisor.unpause(id)?;
        }
        set?;
        let after = self.hypervisor.domain_info(id)?;
        say!(out, "components {}", policy.read()?.xstate().mask);
        let (from, to) = (before.xstate_bytes, after.xstate_bytes);
        say!(
            out,
            "areas of all vCPUs: {from} bytes before, {to} bytes now"
        );
        Ok(())
    }

    fn xstate(&mut self, id: DomainId, out: &mut dyn Output) -> Result<(), Error> {
        let info = self.hypervisor.domain_info(id)?;
        for vcpu in 0..info.vcpus {
            let status = self.hypervisor.xstate_status(id, vcpu)?;
            report::xstate(out, vcpu, info.vcpus, &status);
        }
        let (used, limit) = (info.xstate_bytes, info.xstate_limit_bytes);
        say!(out, "domain {used} bytes of at most {limit}");
        Ok(())
    }

    fn send(
        &mut self,
        domain: DomainId,
        timeout_s: Option<u64>,
        out: &mut dyn Output,
    ) -> Result<(), Error> {
        let info = self.hypervisor.domain_info(domain)?;
        let id = MigrationId::new(self.ids.draw(self.link.now_ns()))
            .ok_or_else(|| Error::new(Code::EPROTO, "migration-id", "an id of zero was drawn"))?;
        let unshown = self.unshown.get(&domain.0).cloned().unwrap_or_default();
        let plan = source::Plan {
            domain,
            id,
            boot_nonce: self.boot_nonce,
            patience: Patience::new(timeout_s, SEND_HELLO_S),
            unshown: &unshown,
        };
        let mut wire = Wire::new(self.link);
        let sent = source::send(self.hypervisor, &mut wire, &plan)?;
        self.unshown.remove(&domain.0);
        let name = name_text(&info.name);
        let does = if info.state == state::PAUSED {
            "is on the other host, paused"
        } else {
            "runs on the other host"
        };
        say!(out, "domain {} ({name}) {does}; migration {id}", domain.0);
        let (data, zero) = (sent.data_pages, sent.zero_pages);
        say!(
            out,
            "stream  {} bytes: {data} pages with data, {zero} zero",
            sent.stream_bytes
        );
        say!(out, "blob    {} bytes", sent.blob_bytes);
        let tenths = sent.pause_ns / 100_000;
        say!(out, "paused  {}.{} ms", tenths / 10, tenths % 10);
        Ok(())
    }

    /// What an operator says of a move whose other side is dead for ever.
    fn decide(
        &mut self,
        domain: DomainId,
        action: RightAction,
        out: &mut dyn Output,
    ) -> Result<(), Error> {
        let info = self.hypervisor.domain_info(domain)?;
        if info.migration == 0 {
            let seen = "a domain that is part of no move";
            return Err(Error::rule("domain-not-moving", seen, "one that is"));
        }
        self.hypervisor
            .right(domain, action, 0, &info.migration_id)?;
        let what = match action {
            RightAction::ReceiverDiscard => "dropped",
            _ => "may run here",
        };
        say!(
            out,
            "domain {} ({}): {what}",
            domain.0,
            name_text(&info.name)
        );
        Ok(())
    }

    fn receive(&mut self, timeout_s: Option<u64>, out: &mut dyn Output) -> Result<(), Error> {
        let patience = Patience::new(timeout_s, RECEIVE_HELLO_S);
        let mut wire = Wire::new(self.link);
        let came = receiver::receive(self.hypervisor, &mut wire, out, self.boot_nonce, patience)?;
        let does = if came.paused {
            "is here, paused"
        } else {
            "runs here"
        };
        let (id, name) = (came.domain.0, &came.name);
        say!(out, "domain {id} ({name}) {does}; migration {}", came.id);
        say!(out, "stream  {} bytes", came.stream_bytes);
        say!(out, "blob    {} bytes", came.blob_bytes);
        if !came.confirmed {
            say!(
                out,
                "the source has not confirmed yet and keeps a stopped copy; `reconnect` on both sides ends that"
            );
        }
        Ok(())
    }

    /// Shows whole lines; half a line is kept until its end comes, or until
    /// nothing more did when it was asked for again.
    fn console(
        &mut self,
        id: DomainId,
        input: Option<&str>,
        out: &mut dyn Output,
    ) -> Result<(), Error> {
        if let Some(text) = input {
            let line = alloc::format!("{text}\n");
            let taken = self.hypervisor.console_write(id, line.as_bytes())?;
            if taken < line.len() {
                let seen = alloc::format!("room for {taken} bytes");
                return Err(Error::rule(
                    "console-room",
                    seen,
                    alloc::format!("{} needed", line.len()),
                ));
            }
        }
        let mut held = self.unshown.remove(&id.0).unwrap_or_default();
        let before = held.len();
        let mut chunk = [0; 1024];
        loop {
            let count = self.hypervisor.console_read(id, &mut chunk)?;
            held.extend_from_slice(chunk.get(..count).unwrap_or_default());
            if count == 0 {
                break;
            }
        }
        let nothing_new = held.len() == before;
        let whole = held
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        let rest = held.split_off(whole);
        for line in held.split_inclusive(|byte| *byte == b'\n') {
            say!(out, "{}", printable(line));
        }
        if !rest.is_empty() && (nothing_new || rest.len() > CONSOLE_LINE_BYTES) {
            say!(out, "{}", printable(&rest));
        } else if !rest.is_empty() {
            self.unshown.insert(id.0, rest);
        }
        Ok(())
    }

    fn blob(&mut self, id: DomainId, out: &mut dyn Output) -> Result<(), Error> {
        let info = self.hypervisor.domain_info(id)?;
        for vcpu in 0..info.vcpus {
            let blob = source::with_checksum(&self.hypervisor.xstate(id, vcpu)?)?;
            for piece in blob.chunks(HEX_LINE_BYTES) {
                let hex: String = piece
                    .iter()
                    .map(|byte| alloc::format!("{byte:02x}"))
                    .collect();
                say!(out, "{hex}");
            }
        }
        Ok(())
    }
}

/// A guest's line on our console: it may not move the cursor or forge a line.
fn printable(line: &[u8]) -> String {
    String::from_utf8_lossy(line)
        .trim_end_matches(['\n', '\r'])
        .chars()
        .map(|c| if c.is_control() && c != '\t' { '.' } else { c })
        .collect()
}
