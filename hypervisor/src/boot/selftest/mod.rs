//! `selftest=` on the command line: the machine proves what it was set up to do,
//! then stops.
//!
//! `machine` checks what must work and ends as a machine does that is done. The
//! others do on purpose what the page tables forbid: they end in a register
//! dump and a failed exit, and to come back from one is the error.

mod faults;
mod machine;

use super::info::BootInfo;
use crate::cpu::power;
use log::{error, info};

/// What must not come back, by name.
const FAULTS: [(&str, fn()); 5] = [
    ("null", faults::read_null),
    ("write-text", faults::write_text),
    ("write-rodata", faults::write_rodata),
    ("execute-data", faults::execute_data),
    ("guard", faults::overflow_stack),
];

/// Does what `selftest=` names: nothing, if it is not there.
pub fn run(boot: &BootInfo) {
    let Some(name) = boot.option("selftest") else {
        return;
    };
    info!("selftest={name}");
    if name == "machine" {
        match machine::check() {
            Ok(()) => power::stop_done(),
            Err(failure) => error!("selftest={name}: {failure}"),
        }
    } else if let Some((_, provoke)) = FAULTS.iter().find(|(known, _)| *known == name) {
        provoke();
        error!("selftest={name} came back: the page tables allow what they must not");
    } else {
        error!("selftest={name}: there is no such test");
    }
    power::stop_failed()
}
