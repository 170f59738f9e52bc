//! The 8254 timer: the one clock whose rate every PC knows, and therefore what
//! the others are measured against.
#![allow(unsafe_code)] // port input and output

use core::fmt;
use x86::io::{inb, outb};

/// The rate of the timer's input, in Hz.
pub const PIT_HZ: u64 = 1_193_182;

/// How long one measurement takes, in PIT ticks: about 10 ms.
const MEASURE_TICKS: u16 = 11_932;

const CHANNEL_2: u16 = 0x42;
const COMMAND: u16 = 0x43;
/// Bit 0: gate of channel 2; bit 1: speaker; bit 5: output of channel 2.
const GATE: u16 = 0x61;
const GATE_ON: u8 = 1;
const SPEAKER: u8 = 2;
const OUTPUT: u8 = 0x20;
/// Channel 2, low then high byte, mode 0 (output rises when the count ends).
const ONE_SHOT: u8 = 0xb0;

/// Polls before the timer counts as absent: a poll takes more than 100 ns on
/// any machine, so this is more than a second.
const PATIENCE: u32 = 20_000_000;

/// Measurements of which the middle one is taken: an emulator's host may stop
/// it at any time, which makes single ones too long or too short.
const MEASUREMENTS: usize = 5;

/// The timer never reached the end of its count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoPit;

impl fmt::Display for NoPit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the 8254 timer does not count")
    }
}

/// The rates of two counters, in kHz.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rates {
    /// Of the counter that counts up.
    pub up_khz: u64,
    /// Of the counter that counts down.
    pub down_khz: u64,
}

/// Measures a counter that counts up and one that counts down.
pub fn measure(up: impl Fn() -> u64, down: impl Fn() -> u32) -> Result<Rates, NoPit> {
    let mut ups = [0; MEASUREMENTS];
    let mut downs = [0; MEASUREMENTS];
    for (up_ticks, down_ticks) in ups.iter_mut().zip(downs.iter_mut()) {
        start();
        let (up_before, down_before) = (up(), down());
        wait()?;
        *up_ticks = up().wrapping_sub(up_before);
        *down_ticks = u64::from(down_before.wrapping_sub(down()));
    }
    Ok(Rates {
        up_khz: rate_khz(middle(ups)),
        down_khz: rate_khz(middle(downs)),
    })
}

fn start() {
    // SAFETY: at CPL 0; channel 2 drives the speaker alone, which is off.
    unsafe {
        let gate = inb(GATE) & !(SPEAKER | GATE_ON);
        outb(GATE, gate);
        outb(COMMAND, ONE_SHOT);
        let [low, high] = MEASURE_TICKS.to_le_bytes();
        outb(CHANNEL_2, low);
        outb(CHANNEL_2, high);
        outb(GATE, gate | GATE_ON);
    }
}

fn wait() -> Result<(), NoPit> {
    for _ in 0..PATIENCE {
        // SAFETY: at CPL 0; reading this port changes nothing.
        if unsafe { inb(GATE) } & OUTPUT != 0 {
            return Ok(());
        }
    }
    Err(NoPit)
}

/// `ticks` in one measurement to kHz, rounded.
const fn rate_khz(ticks: u64) -> u64 {
    let per_second = ticks as u128 * PIT_HZ as u128 / MEASURE_TICKS as u128;
    ((per_second + 500) / 1000) as u64
}

fn middle(mut values: [u64; MEASUREMENTS]) -> u64 {
    values.sort_unstable();
    values[MEASUREMENTS / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundredth_of_a_second_of_ticks_is_a_rate() {
        // 11932 / 1193182 s = 10.000151 ms.
        assert_eq!(rate_khz(10_000_151), 1_000_000);
        assert_eq!(rate_khz(30_000_453), 3_000_000);
        assert_eq!(rate_khz(0), 0);
        assert!(rate_khz(u64::MAX / 1000) > 0);
    }

    #[test]
    fn one_measurement_gone_wrong_changes_nothing() {
        assert_eq!(middle([10, 11, 9, 10, 4_000_000]), 10);
        assert_eq!(middle([10, 0, 9, 10, 11]), 10);
    }
}
