//! What this crate believes of the instructions, tried on the processor that runs the tests (ring 3).
//!
//! Random register states under every RFBM: what XSAVE, XSAVEC and XRSTOR do
//! is compared with the conversions ([`saved`]), with the CPU in software,
//! byte for byte ([`modelled`], [`modified`]), and what the processor refuses with what is
//! refused here ([`refused`]). What it lacks is said and counted.
#![cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]

mod bench;
mod modelled;
mod modified;
mod refused;
mod saved;

use std::io::Write;

use bench::{Bench, Tally};

#[test]
fn silicon() {
    let mut tally = Tally::default();
    let bench = match Bench::here() {
        Ok(bench) => bench,
        Err(why) => {
            tally.skipped.push(why);
            return tally.print();
        }
    };
    tally.skipped.extend(bench.lacks());
    saved::check(&bench, &mut tally);
    modelled::check(&bench, &mut tally);
    modified::check(&bench, &mut tally);
    refused::check(&bench, &mut tally);
    tally.print();
    assert!(tally.states > 0 && tally.images > 0 && tally.refused > 0);
}

impl Tally {
    /// The closing lines, past the harness, which would keep them.
    fn print(&self) {
        let mut out = std::io::stdout().lock();
        let mut say = |line: String| writeln!(out, "{line}").expect("standard output");
        for (what, times) in &self.notes {
            say(format!("{what}: {times}"));
        }
        let Self {
            states,
            masks,
            images,
            refused,
            skipped,
            ..
        } = self;
        let skipped = match skipped.len() {
            0 => "nothing".into(),
            count => format!("{count} ({})", skipped.join(", ")),
        };
        say(format!(
            "silicon: {states} states, {masks} masks, {images} images compared, \
             {refused} refused alike; skipped: {skipped}"
        ));
    }
}
