//! Bytes per nanosecond, by this processor's way and by table, at the sizes that blobs and frames have.

use std::hint::black_box;
use std::time::{Duration, Instant};

use xferry_crc32c::{by_instruction, crc32c, table};

/// Rounds, interleaved: the median is what is printed.
const ROUNDS: usize = 31;
/// How long one round of one way takes, about.
const ROUND: Duration = Duration::from_millis(2);

fn main() {
    let way = if by_instruction() {
        "instruction"
    } else {
        "table (no CRC32 here)"
    };
    println!("{:>8}  {:>11}  {:>11}   bytes/ns", "bytes", way, "table");
    for length in [64, 704, 2684, 4112, 65_552, 262_160] {
        let bytes: Vec<u8> = (0..length).map(|index| (index * 31) as u8).collect();
        let (mut fast, mut slow) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            fast.push(rate(&bytes, crc32c));
            slow.push(rate(&bytes, |bytes| table::extend(u32::MAX, bytes)));
        }
        println!(
            "{length:>8}  {:>11.2}  {:>11.2}",
            median(fast),
            median(slow)
        );
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

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}
