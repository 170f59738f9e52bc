//! The steps that need a nightly toolchain: Miri, and each fuzz target for a while.

use anyhow::Result;

use super::{Tally, cargo};
use crate::workspace::Workspace;
use crate::{fuzz, miri};

/// How long each fuzz target runs.
const FUZZ_SECONDS: u64 = 15;

/// The libraries' tests under Miri.
pub fn miri(workspace: &Workspace) -> Result<Tally> {
    match miri::smoke(workspace)? {
        Ok(text) => Ok(cargo::count(&text)),
        Err(why) => Ok(skipped(why)),
    }
}

/// Every fuzz target.
pub fn fuzz(workspace: &Workspace) -> Result<Tally> {
    match fuzz::smoke(workspace, FUZZ_SECONDS)? {
        Ok(held) => Ok(held.into_iter().fold(Tally::default(), |tally, held| {
            tally.and(if held { Tally::PASS } else { Tally::FAIL })
        })),
        Err(why) => Ok(skipped(why)),
    }
}

fn skipped(why: &str) -> Tally {
    eprintln!("       skipped: {why}");
    Tally::SKIP
}
