//! The toolstack on the machine: control calls by hypercall, the console, and
//! the loop that waits for lines.
#![allow(unsafe_code)] // control calls pass addresses of this domain's memory

use crate::commands::{After, ImageFile, Tools};
use crate::hypervisor::{Data, Hypervisor};
use crate::ids::Ids;
use crate::link::Com2;
use crate::shell::{Answer, Editor, Key, PROMPT, parse_command, parse_line};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use guest_rt::{BootInfo, clock, console, cpu, hypercall, interrupts, power};
use xferry_abi::error::Failure;
use xferry_abi::{Buffer, Event, Request};

/// The hypervisor under this domain.
pub struct Xferry;

impl Hypervisor for Xferry {
    fn control(
        &mut self,
        request: &dyn Fn(Buffer) -> Request,
        data: Data<'_>,
    ) -> Result<u64, Failure> {
        let buffer = match data {
            Data::Null => Buffer::NULL,
            Data::In(bytes) => Buffer {
                address: bytes.as_ptr() as u64,
                bytes: bytes.len() as u64,
            },
            Data::Out(bytes) => Buffer {
                address: bytes.as_mut_ptr() as u64,
                bytes: bytes.len() as u64,
            },
        };
        // SAFETY: memory is mapped one to one, so the address is guest-physical;
        // the buffer is `data`'s, which is borrowed for the call, mutably where
        // the request has it filled in (the wrappers in `hypervisor` pair them).
        unsafe { hypercall::control(&request(buffer)) }
    }
}

/// Runs the shell on the console; ends with the machine.
pub fn shell(boot: &BootInfo) -> ! {
    let clock = clock::init();
    let console_event = interrupts::on_event(Event::Console, |_| {});
    let (mut hypervisor, mut link) = (Xferry, Com2::new());
    let images: Vec<ImageFile<'_>> = boot
        .modules()
        .map(|module| ImageFile {
            name: module
                .name
                .split_ascii_whitespace()
                .next()
                .unwrap_or_default(),
            data: module.data,
        })
        .collect();
    for (what, result) in [("clock", clock), ("console event", console_event)] {
        if let Err(failure) = result {
            write(&alloc::format!("toolstack: no {what}: {failure}\n"));
        }
    }
    let boot_nonce = match (&mut hypervisor as &mut dyn Hypervisor).physical_info() {
        Ok(info) => info.boot_nonce,
        Err(error) => {
            write(&alloc::format!(
                "toolstack: cannot control the host: {error}\n"
            ));
            power::crash()
        }
    };
    let mut ids = Ids::new(boot_nonce);
    let mut unshown = BTreeMap::new();
    let mut editor = Editor::new();
    let mut typed = Vec::new();
    write(&alloc::format!(
        "xferry toolstack: {} image{}; `help` lists the commands\n",
        images.len(),
        if images.len() == 1 { "" } else { "s" }
    ));
    write(PROMPT);
    loop {
        if typed.is_empty() {
            wait(&mut typed);
        }
        let Some(line) = take_line(&mut editor, &mut typed) else {
            continue;
        };
        let mut tools = Tools {
            hypervisor: &mut hypervisor,
            link: &mut link,
            images: &images,
            boot_nonce,
            ids,
            unshown,
        };
        let after = answer(&mut tools, &line);
        (ids, unshown) = (tools.ids, tools.unshown);
        if after == After::PowerOff {
            power::off()
        }
        typed.splice(..0, link.take_type_ahead());
        write(PROMPT);
    }
}

/// Halts until something was typed.
fn wait(typed: &mut Vec<u8>) {
    let mut chunk = [0; 256];
    loop {
        // Between the look and the halt an event must not be lost.
        cpu::disable_interrupts();
        let count = console::read(&mut chunk);
        if count != 0 {
            cpu::enable_interrupts();
            typed.extend_from_slice(chunk.get(..count).unwrap_or_default());
            return;
        }
        cpu::wait_for_interrupt();
    }
}

/// Feeds the editor, echoing in one write, until a line is complete.
fn take_line(editor: &mut Editor, typed: &mut Vec<u8>) -> Option<String> {
    let mut echo = String::new();
    let mut line = None;
    let mut used = 0;
    for byte in typed.iter() {
        used += 1;
        match editor.key(*byte) {
            Key::None => {}
            Key::Echo(text) => echo.push_str(&text),
            Key::Cancelled => {
                echo.push_str("^C\n");
                echo.push_str(PROMPT);
            }
            Key::Line(complete) => {
                echo.push('\n');
                line = Some(complete);
                break;
            }
        }
    }
    typed.drain(..used);
    write(&echo);
    line
}

/// Does what one line says and answers whoever typed it.
fn answer(tools: &mut Tools<'_>, line: &str) -> After {
    let mut print = |text: &str| write(text);
    let parsed = parse_line(line);
    let tag = parsed.as_ref().ok().and_then(|line| line.tag);
    let mut answer = Answer::new(tag, &mut print);
    let result = parsed
        .and_then(|line| parse_command(line.command))
        .and_then(|command| tools.run(&command, &mut answer));
    let after = result.as_ref().map_or(After::Next, |after| *after);
    answer.end(result.map(drop));
    after
}

fn write(text: &str) {
    console::write(text.as_bytes());
}
