//! Where the guest starts.
#![allow(unsafe_code)] // static memory, control registers

use crate::hostile;
use crate::machine::Machine;
use crate::options::Options;
use crate::run::{Memory, Run};
use guest_rt::hypercall::{self, Instruction};
use guest_rt::{BootInfo, console, power, println};

guest_rt::entry!(start);

static mut MEMORY: Memory = Memory::NEW;

fn start(boot: &'static BootInfo) -> ! {
    // Both vendors' instructions must do, on any machine.
    hypercall::use_instruction(Instruction::Alternate);
    if let Some(deed) = boot.option("hostile") {
        hostile::act(deed);
    }
    let options = match Options::parse(boot.cmdline()) {
        Ok(options) => options,
        Err(unknown) => {
            println!(
                "torture does not understand {:?} on its command line",
                unknown.0
            );
            power::crash()
        }
    };
    if options.uart {
        console::use_uart();
    }
    if !hypercall::available() {
        println!("torture note: no hypervisor: no timer events, time is the TSC's");
    }
    // SAFETY: this runs once, and nothing relies on CR4 or XCR0 yet.
    let machine = unsafe { Machine::enable() };
    let memory = &raw mut MEMORY;
    // SAFETY: this runs once.
    let memory = unsafe { &mut *memory };
    let passed = Run::new(options, machine, memory).run();
    println!("torture done: {}", if passed { "ok" } else { "FAILED" });
    power::off()
}
