//! What changes in a processor's registers between two vCPUs, as pure data.
//!
//! A [`plan`] says which instructions move state and which control registers
//! are written around them; [`PcpuXstate`](crate::PcpuXstate) carries it out
//! and decides nothing. The rules:
//!
//! - **Eager.** Whoever ran is saved before another is restored.
//! - **Under the host's values.** State moves while XCR0 and IA32_XSS are all
//!   that is offered and IA32_XFD is 0; the guest's values are written just
//!   before its entry ([`writes`]).
//! - **No restore where none is needed**: the registers still hold this very
//!   version of the state. Never after XSAVES, which changes live state.
//! - **One setter.** A control register is written where it differs from what
//!   is known to be in it, and where nothing is known.

use core::num::NonZeroU64;

use crate::cpuid::{HostXstate, SaveInstruction};
use crate::error::broken_rules;
use crate::hw::{Controls, Exchange, RestoreInstruction};
use crate::mutants::rule;
use crate::percpu::CpuId;

/// A vCPU's name on this machine, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag(NonZeroU64);

impl Tag {
    /// The tag with this number, which is not `u64::MAX`.
    pub const fn new(number: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(number))
    }

    /// Its number.
    pub const fn number(self) -> u64 {
        self.0.get() - 1
    }

    /// A tag, or that there is none, as one word.
    #[inline(always)]
    pub const fn word(tag: Option<Self>) -> u64 {
        match tag {
            Some(tag) => tag.0.get(),
            None => 0,
        }
    }

    /// The other way round.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Option<Self> {
        match NonZeroU64::new(word) {
            Some(word) => Some(Self(word)),
            None => None,
        }
    }
}

/// Which version of which vCPU's state: the proof that a restore can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// The vCPU.
    pub tag: Tag,
    /// Counted up by every load and every edit.
    pub generation: u64,
}

/// Where a vCPU's state is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// In its area.
    Memory,
    /// In the registers of this processor.
    Registers(CpuId),
}

/// What of a machine decides; the same at every switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// How state is saved.
    pub save: SaveInstruction,
    /// The host's own XCR0: every user component offered.
    pub xcr0: u64,
    /// The host's own IA32_XSS: every supervisor component offered.
    pub xss: u64,
    /// There is IA32_XSS.
    pub has_xss: bool,
    /// There are IA32_XFD and IA32_XFD_ERR.
    pub has_xfd: bool,
    /// A restore leaves the last owner's FIP, FDP and FOP (XSA-52).
    pub leaks_fp_pointers: bool,
}

impl Machine {
    /// What a switch has to know of `host`.
    pub const fn of(host: &HostXstate) -> Self {
        let has = host.instructions();
        Self {
            save: host.save_instruction(),
            xcr0: host.user().bits(),
            xss: host.supervisor().bits(),
            has_xss: has.xsaves,
            has_xfd: has.xfd,
            leaks_fp_pointers: host.leaks_fp_pointers(),
        }
    }

    /// How state is restored.
    pub const fn restore(&self) -> RestoreInstruction {
        RestoreInstruction::of(self.save)
    }

    /// What is live while state moves. IA32_XFD_ERR does not matter to that.
    pub const fn controls(&self, xfd_err: u64) -> Controls {
        Controls {
            xcr0: self.xcr0,
            xss: self.xss,
            xfd: 0,
            xfd_err,
        }
    }
}

/// What a processor's registers hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    /// The processor.
    pub cpu: CpuId,
    /// The vCPU whose state they own: it is nowhere else.
    pub owner: Option<Tag>,
    /// What they were last loaded with, and, where nobody owns them, are still
    /// a copy of.
    pub copy: Option<Version>,
    /// The control registers.
    pub controls: LiveControls,
}

/// What is known to be in the control registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LiveControls {
    /// Nothing: another system, or this one before a suspend, may have left
    /// anything there.
    Unknown,
    /// The host's own values: state can move.
    Host {
        /// IA32_XFD_ERR, which does not matter to that.
        xfd_err: u64,
    },
    /// These, of which something differs from the host's own.
    Guest(Controls),
}

impl LiveControls {
    /// After `controls` were written.
    pub const fn after(machine: &Machine, controls: Controls) -> Self {
        let host = machine.controls(controls.xfd_err);
        if controls.xcr0 == host.xcr0 && controls.xss == host.xss && controls.xfd == host.xfd {
            Self::Host {
                xfd_err: controls.xfd_err,
            }
        } else {
            Self::Guest(controls)
        }
    }

    /// The values, where they are known.
    pub const fn values(&self, machine: &Machine) -> Option<Controls> {
        match *self {
            Self::Unknown => None,
            Self::Host { xfd_err } => Some(machine.controls(xfd_err)),
            Self::Guest(controls) => Some(controls),
        }
    }
}

/// One vCPU's side of a switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Side {
    /// Its state, by name.
    pub version: Version,
    /// Where that is.
    pub home: Home,
}

/// Control registers to write; `None` where the register stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Writes {
    /// XSETBV of XCR0.
    pub xcr0: Option<u64>,
    /// WRMSR of IA32_XSS.
    pub xss: Option<u64>,
    /// WRMSR of IA32_XFD.
    pub xfd: Option<u64>,
    /// WRMSR of IA32_XFD_ERR.
    pub xfd_err: Option<u64>,
}

/// A switch, in the order in which it is carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Switch {
    /// The host's own control registers, before state moves; `None` where none
    /// moves, or they are live.
    pub host: Option<Writes>,
    /// Save the one that ran, into its area.
    pub save: Option<SaveInstruction>,
    /// Before the restore: set FIP, FDP and FOP to values of the host.
    pub clear_fp_pointers: bool,
    /// Restore the one that is to run, from its area.
    pub restore: Option<RestoreInstruction>,
    /// The registers become the home of the one that is to run.
    pub adopt: bool,
}

/// A broken invariant of the host: a switch that cannot be planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// The state is in another processor, which must save it: there, here.
    Elsewhere(CpuId, CpuId),
    /// The vCPU is said to be in these registers, and is not: who is (its
    /// number), who should be.
    NotTheOwner(Option<Tag>, Tag),
    /// Another vCPU, with this tag, has not been saved.
    NotSaved(Tag),
}

broken_rules!(Mistake,
    Self::Elsewhere(there, here) => ("switch-elsewhere", 0xc01, there.0 as u64, here.0 as u64),
    Self::NotTheOwner(owner, tag) => (
        "switch-owner", 0xc02, match owner { Some(tag) => tag.number(), None => u64::MAX }, tag.number()
    ),
    Self::NotSaved(tag) => ("switch-not-saved", 0xc03, tag.number(), 0),
);

/// What changes where `from` ran and `to` is to run. Either may be missing:
/// a save alone, a load alone.
#[inline(always)]
pub fn plan(
    machine: &Machine,
    live: &Live,
    from: Option<&Side>,
    to: Option<&Side>,
) -> Result<Switch, Mistake> {
    let mut plan = Switch {
        host: None,
        save: None,
        clear_fp_pointers: false,
        restore: None,
        adopt: false,
    };
    let (mut owner, mut copy) = (live.owner, live.copy);

    // Who ran is saved, if the registers have it.
    if let Some(from) = from
        && let Home::Registers(cpu) = from.home
    {
        owned_here(live, from.version.tag, cpu)?;
        plan.save = Some(machine.save);
        owner = None;
        if rule!("xsaves-ends-the-copy") && matches!(machine.save, SaveInstruction::Xsaves) {
            copy = None;
        }
    }

    // Who is to run is restored, unless the registers hold its state anyway.
    if let Some(to) = to {
        match to.home {
            Home::Registers(cpu) => {
                owned_here(live, to.version.tag, cpu)?;
            }
            Home::Memory => {
                if let Some(other) = owner
                    && rule!("switch-not-saved")
                {
                    return Err(Mistake::NotSaved(other));
                }
                plan.adopt = true;
                if rule!("cve-2018-3665-restored-before-it-runs") && !is(copy, to.version) {
                    plan.restore = Some(machine.restore());
                    plan.clear_fp_pointers =
                        rule!("xsa-52-fip-fdp-leak") && machine.leaks_fp_pointers;
                }
            }
        }
    }

    // State moves under the host's own values.
    let moves = plan.save.is_some() || plan.restore.is_some();
    if rule!("linux-1811d979c7-guest-xcr0-live")
        && moves
        && !matches!(live.controls, LiveControls::Host { .. })
    {
        plan.host = Some(host_writes(machine, &live.controls));
    }
    Ok(plan)
}

fn owned_here(live: &Live, tag: Tag, cpu: CpuId) -> Result<(), Mistake> {
    if rule!("switch-elsewhere") && cpu.0 != live.cpu.0 {
        return Err(Mistake::Elsewhere(cpu, live.cpu));
    }
    match live.owner {
        Some(owner) if owner.0.get() == tag.0.get() => Ok(()),
        other if rule!("switch-owner") => Err(Mistake::NotTheOwner(other, tag)),
        _ => Ok(()),
    }
}

fn is(copy: Option<Version>, version: Version) -> bool {
    match copy {
        Some(copy) => {
            let vcpu = !rule!("copy-of-this-vcpu") || copy.tag == version.tag;
            let generation =
                !rule!("copy-of-this-generation") || copy.generation == version.generation;
            vcpu && generation
        }
        None => false,
    }
}

/// Whether a switch is the one that nearly all are: these registers have the
/// state of `from`, that of `to` is in memory. Where state can move at once
/// too, the plan is a save and a restore, and needs not be made. `owner` and
/// `from` are [`Tag::word`]s.
#[inline(always)]
pub const fn is_straight(owner: u64, from: u64, to: Home) -> bool {
    owner == from && matches!(to, Home::Memory)
}

/// How state moves at once, where it can: by a compacted save and its restore,
/// with the host's own values live and nothing to clear.
pub fn at_once(machine: &Machine, live: &LiveControls) -> Option<Exchange> {
    match (machine.save, live) {
        _ if rule!("xsa-52-not-at-once") && machine.leaks_fp_pointers => None,
        (SaveInstruction::Xsavec, LiveControls::Host { .. }) => Some(Exchange::User),
        (SaveInstruction::Xsaves, LiveControls::Host { .. }) => Some(Exchange::All),
        _ => None,
    }
}

/// What makes the host's own values live.
pub const fn host_writes(machine: &Machine, live: &LiveControls) -> Writes {
    let xfd_err = match live.values(machine) {
        Some(live) => live.xfd_err,
        None => 0,
    };
    writes(machine, live, &machine.controls(xfd_err))
}

/// What makes `wanted` live: before an entry, the guest's own values.
pub const fn writes(machine: &Machine, live: &LiveControls, wanted: &Controls) -> Writes {
    let Some(live) = live.values(machine) else {
        return Writes {
            xcr0: Some(wanted.xcr0),
            xss: if machine.has_xss {
                Some(wanted.xss)
            } else {
                None
            },
            xfd: if machine.has_xfd {
                Some(wanted.xfd)
            } else {
                None
            },
            xfd_err: if machine.has_xfd {
                Some(wanted.xfd_err)
            } else {
                None
            },
        };
    };
    Writes {
        xcr0: changed(true, live.xcr0, wanted.xcr0),
        xss: changed(machine.has_xss, live.xss, wanted.xss),
        xfd: changed(machine.has_xfd, live.xfd, wanted.xfd),
        xfd_err: changed(machine.has_xfd, live.xfd_err, wanted.xfd_err),
    }
}

const fn changed(exists: bool, live: u64, wanted: u64) -> Option<u64> {
    if exists && live != wanted {
        Some(wanted)
    } else {
        None
    }
}

#[cfg(test)]
#[path = "switch_tests.rs"]
mod tests;
