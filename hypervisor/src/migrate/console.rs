//! A domain's console as it moves: the 16550's registers and the output that
//! nobody has read, as the stream's CONSOLE record has them.

use crate::exits::uart::{Uart, UartState};
use alloc::vec::Vec;
use migration_abi::stream::StreamError;
use migration_abi::stream::{Console, Uart as Registers};

/// The record's payload; `None` where there is no memory for it.
#[must_use]
pub fn export(uart: &Uart) -> Option<Vec<u8>> {
    let mut output = Vec::new();
    output.try_reserve_exact(uart.output_len()).ok()?;
    output.extend(uart.output());
    let s = uart.export();
    let console = Console {
        uart: Registers {
            ier: s.ier,
            lcr: s.lcr,
            mcr: s.mcr,
            scr: s.scr,
            dll: s.dll,
            dlm: s.dlm,
            fcr: s.fcr,
        },
        output: &output,
    };
    let mut payload = Vec::new();
    payload.try_reserve_exact(console.payload_len()).ok()?;
    payload.resize(console.payload_len(), 0);
    console.write_payload(&mut payload).then_some(payload)
}

/// Makes the payload the console's state. Output that is there already is
/// replaced, and input that waits is dropped: the domain has not run here.
///
/// # Errors
/// It is no such payload; nothing was changed.
pub fn import(uart: &mut Uart, payload: &[u8]) -> Result<(), StreamError> {
    let console = Console::parse(payload)?;
    let s = console.uart;
    *uart = Uart::import(UartState {
        ier: s.ier,
        lcr: s.lcr,
        mcr: s.mcr,
        scr: s.scr,
        dll: s.dll,
        dlm: s.dlm,
        fcr: s.fcr,
    });
    console
        .output
        .iter()
        .for_each(|byte| uart.push_output(*byte));
    Ok(())
}
