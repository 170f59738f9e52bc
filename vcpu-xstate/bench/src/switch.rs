//! The switch between two vCPUs on this processor: its time and its instructions, beside the bare XSAVEC + XRSTOR pair.
#![allow(unsafe_code)] // calls of foreign functions

use std::ffi::c_void;
use std::fmt;
use std::ptr::NonNull;

use crate::kernel;
use crate::measure::{Effort, Times, in_turns};
use crate::steps;

unsafe extern "C" {
    fn xstate_bench_switch_scene(in_use: u64) -> *mut c_void;
    fn xstate_bench_switch_mask(scene: *const c_void) -> u64;
    fn xstate_bench_address(of: u64) -> usize;
    fn xstate_bench_switch(scene: *mut c_void, how: u64) -> usize;
    fn xstate_bench_pair(scene: *mut c_void) -> usize;
}

/// How many instructions a switch may take beyond the pair.
pub const MOST_BEYOND_THE_PAIR: u64 = 40;

/// A processor with two vCPUs, in ring 3.
pub struct Scene(NonNull<c_void>);

impl Scene {
    /// Two vCPUs that have `in_use` of this processor's components; `None`
    /// where it has no XSAVEC, or the system has not enabled XSAVE.
    #[must_use]
    pub fn new(in_use: u64) -> Option<Self> {
        let _guard = kernel::one_at_a_time();
        // SAFETY: takes any number; gives a scene that nobody else has, or null.
        NonNull::new(unsafe { xstate_bench_switch_scene(in_use) }).map(Self)
    }

    /// The components that are switched.
    #[must_use]
    pub fn mask(&self) -> u64 {
        // SAFETY: a live scene: they live for ever.
        unsafe { xstate_bench_switch_mask(self.0.as_ptr()) }
    }

    /// There and back; by a switch each, or by a save and a load each.
    fn switch(&mut self, how: How) -> usize {
        // SAFETY: a live scene, ours alone by `&mut`.
        unsafe { xstate_bench_switch(self.0.as_ptr(), how as u64) }
    }

    /// There and back by the bare pair.
    fn pair(&mut self) -> usize {
        // SAFETY: as for `switch`.
        unsafe { xstate_bench_pair(self.0.as_ptr()) }
    }

    /// One switch, and one bare pair, in nanoseconds.
    pub fn measure(&mut self, effort: Effort) -> Option<Times> {
        let there_and_back = in_turns(self, effort, |s| s.switch(How::Switch), Self::pair)?;
        Some(Times {
            ns: there_and_back.ns / 2.0,
            limit_ns: there_and_back.limit_ns / 2.0,
        })
    }

    /// The instructions of a switch.
    ///
    /// # Errors
    /// Why they cannot be counted here.
    pub fn count(&mut self) -> Result<Counted, String> {
        // SAFETY: takes any number.
        let address = |of| unsafe { xstate_bench_address(of) };
        let switch = steps::count(address(0), || _ = self.switch(How::Switch))?;
        let save = steps::count(address(1), || _ = self.switch(How::SaveAndLoad))?;
        let load = steps::count(address(2), || _ = self.switch(How::SaveAndLoad))?;
        let pair = steps::count(address(3), || _ = self.pair())?;
        Ok(Counted {
            switch,
            save,
            load,
            pair,
        })
    }
}

#[derive(Clone, Copy)]
#[repr(u64)]
enum How {
    Switch = 0,
    SaveAndLoad = 1,
}

/// Instructions, from the first of a function to its return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// `PcpuXstate::switch`.
    pub switch: u64,
    /// `PcpuXstate::save`.
    pub save: u64,
    /// `PcpuXstate::load`.
    pub load: u64,
    /// The bare pair as a function: its two instructions, those that make their
    /// operands, and the return.
    pub pair: u64,
}

impl Counted {
    /// Instructions of a switch that are neither XSAVEC nor XRSTOR.
    #[must_use]
    pub const fn beyond_the_pair(&self) -> u64 {
        self.switch - 2
    }

    /// Whether it is what is asked.
    #[must_use]
    pub const fn met(&self) -> bool {
        self.beyond_the_pair() <= MOST_BEYOND_THE_PAIR
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "switch: {} instructions beyond XSAVEC and XRSTOR (asked {MOST_BEYOND_THE_PAIR}); \
             save {} and load {} apart; the bare pair as a function {}",
            self.beyond_the_pair(),
            self.save,
            self.load,
            self.pair
        )
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// Counted on this processor, in code as the hypervisor links it.
    #[test]
    fn a_switch_takes_few_instructions_beyond_the_pair() {
        let mut out = std::io::stdout().lock();
        let Some(mut scene) = Scene::new(0x7) else {
            writeln!(out, "skipped: no XSAVEC here").unwrap();
            return;
        };
        match scene.count() {
            Ok(counted) => {
                writeln!(out, "{counted}").unwrap();
                assert!(counted.met(), "{counted}");
                // The two instructions, an operand each at least, the return.
                assert!((5..10).contains(&counted.pair), "{counted}");
                assert!(counted.switch > counted.pair, "{counted}");
            }
            Err(why) => writeln!(out, "skipped: {why}").unwrap(),
        }
    }

    #[test]
    fn both_ways_of_switching_work_here() {
        let Some(mut scene) = Scene::new(u64::MAX) else {
            println!("skipped: no XSAVEC here");
            return;
        };
        assert_eq!(scene.mask() & 3, 3);
        for _ in 0..100 {
            assert_eq!(scene.switch(How::Switch), 1);
            assert_eq!(scene.switch(How::SaveAndLoad), 1);
            assert_eq!(scene.pair(), 1);
        }
    }
}
