//! Bytes per nanosecond, by this processor's way and by table, at the sizes that blobs and frames have.
//!
//! Fails where the processor has the instruction and a frame of pages goes
//! slower than is asked. `--test` runs everything once and asks nothing.

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use xferry_crc32c::{by_instruction, crc32c, table};

/// Rounds, the two ways in turns. The best of each counts: what else a machine
/// does can only make it slower.
const ROUNDS: usize = 101;
/// How long one round of one way takes, about.
const ROUND: Duration = Duration::from_micros(300);
/// A small blob, one with AVX-512, a page, 16 pages, 64 pages with their heads.
const LENGTHS: [usize; 6] = [64, 704, 2684, 4112, FRAME, 262_160];
/// The length at which a rate is asked for, in bytes, and the rate.
const FRAME: usize = 65_552;
const ASKED: f64 = 8.0;

fn main() -> ExitCode {
    let smoke = std::env::args().any(|argument| argument == "--test");
    let rounds = if smoke { 1 } else { ROUNDS };
    let way = if by_instruction() {
        "instruction"
    } else {
        "no CRC32"
    };
    println!(
        "{:<14}{:>8}{way:>13}{:>9}  bytes/ns",
        "crc32c", "bytes", "table"
    );
    let mut met = true;
    for length in LENGTHS {
        let bytes: Vec<u8> = (0..length).map(|index| (index * 31) as u8).collect();
        let (mut fast, mut slow) = (0.0, 0.0);
        for _ in 0..rounds {
            fast = f64::max(fast, rate(&bytes, crc32c));
            slow = f64::max(slow, rate(&bytes, |bytes| table::extend(u32::MAX, bytes)));
        }
        let misses = length == FRAME && by_instruction() && fast < ASKED && !smoke;
        met &= !misses;
        let mark = if misses { "  misses 8" } else { "" };
        println!("{length:>22}{fast:>13.2}{slow:>9.2}{mark}");
    }
    if met {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Bytes per nanosecond of one round.
fn rate(bytes: &[u8], checksum: impl Fn(&[u8]) -> u32) -> f64 {
    let start = Instant::now();
    let mut count = 0_usize;
    while start.elapsed() < ROUND {
        for _ in 0..8 {
            black_box(checksum(black_box(bytes)));
        }
        count += 8;
    }
    (count * bytes.len()) as f64 / start.elapsed().as_nanos() as f64
}
