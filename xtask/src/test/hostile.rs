//! Guests that try what no guest may do: each ends as it should, and the machine
//! and a guest beside them notice nothing.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::Tally;
use crate::build::{self, Variant};
use crate::image;
use crate::migrate::Side;
use crate::migrate::rig::Rig;
use crate::qemu::MachineSpec;
use crate::workspace::Workspace;

/// `hostile=NAME`, and what the list then says of the guest: an exception that
/// its own handler met, nothing at all, or the hypervisor stopped it.
const DEEDS: &[(&str, &str)] = &[
    ("vmrun", EXCEPTION),
    ("vmload", EXCEPTION),
    ("vmsave", EXCEPTION),
    ("stgi", EXCEPTION),
    ("clgi", EXCEPTION),
    ("skinit", EXCEPTION),
    ("invlpga", EXCEPTION),
    ("monitor", EXCEPTION),
    ("mwait", EXCEPTION),
    ("rdpmc", EXCEPTION),
    ("ymm-without-sse", EXCEPTION),
    ("svme", EXCEPTION),
    ("hsave", EXCEPTION),
    ("apic", EXCEPTION),
    ("invd", NOTHING),
    ("wbinvd", NOTHING),
    ("ports", NOTHING),
    ("control", NOTHING),
    ("outside", "crashed (access outside its memory"),
    ("triple-fault", "crashed (triple fault"),
];

const EXCEPTION: &str = "shut down (says it crashed)";
const NOTHING: &str = "shut down (power off)";

const LIMIT: Duration = Duration::from_secs(10);
const SEED: u64 = 37;
const BYSTANDER: u64 = 41;

/// All of them on one machine, beside a guest with full registers.
pub fn play(workspace: &Workspace) -> Result<Tally> {
    let image = image::build(workspace, &build::binaries(workspace, Variant::Plain)?, "")?;
    let logs = workspace
        .logs()
        .join(format!("hostile-{}", std::process::id()));
    let machine = MachineSpec::default();
    let rig = Rig::boot([&machine, &machine], [&image, &image], &logs)?;
    let mut bystander = rig.create(Side::A, BYSTANDER, "")?;
    let mut tally = Tally::default();
    for (deed, end) in DEEDS {
        tally = tally.and(match ends(&rig, deed, end) {
            Ok(()) => Tally::PASS,
            Err(error) => {
                eprintln!("hostile={deed}: {error:#}");
                Tally::FAIL
            }
        });
    }
    rig.progress(&mut bystander, 3)?;
    tally = tally.and(Tally::PASS);
    if tally.failed == 0 {
        drop(rig);
        std::fs::remove_dir_all(&logs)?;
    } else {
        eprintln!("{}", rig.last_words(40));
        eprintln!("--- logs: {}", workspace.short(&logs));
    }
    Ok(tally)
}

fn ends(rig: &Rig, deed: &str, end: &str) -> Result<()> {
    let guest = rig.create(Side::A, SEED, &format!("hostile={deed}"))?;
    let deadline = Instant::now() + LIMIT;
    loop {
        let row = rig.row(Side::A, &guest.name)?.unwrap_or_default();
        if row.contains(end) {
            break;
        }
        ensure!(
            Instant::now() < deadline && !row.contains("crashed (") && !row.contains("shut down"),
            "it should end as \"{end}\", and the list says: {row}"
        );
    }
    rig.shell(Side::A)
        .run(&format!("destroy {}", guest.id))
        .map(drop)
}
