//! Machines by name: what their CPUID says, from a table, from facts in this program, or from the machine it runs on.
//!
//! A table is a file of lines `cpu,vendor,model,leaf,subleaf,eax,ebx,ecx,edx`.
//! Dumps of the field are incomplete and odd; what a machine lists and its
//! dump does not describe is told by [`Machine::undescribed`].

mod builtin;
pub mod list;
mod table;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use vcpu_xstate::policy::CpuPolicy;
use vcpu_xstate::withheld::Withheld;
use vcpu_xstate::{ComponentIndex, ComponentSet, CpuidResult, HostXstate};

/// The variable that names the table where no option does.
pub const TABLE_VARIABLE: &str = "XFERRY_CPUID_CSV";

/// The name of the machine that this program runs on.
pub const THIS: &str = "this";

/// What stands for all machines in a list of names.
pub const ALL: &str = "all";

/// Candidates that an ambiguous name lists.
const CANDIDATES: usize = 12;

/// Where a machine's answers come from.
#[derive(Clone, Debug)]
enum Answers {
    /// By leaf and subleaf; zeros elsewhere.
    Leaves(BTreeMap<(u32, u32), CpuidResult>),
    /// The processor that runs this.
    Live,
}

/// A machine, by its CPUID.
#[derive(Clone, Debug)]
pub struct Machine {
    name: String,
    model: String,
    answers: Answers,
}

impl Machine {
    /// Its name in the table.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it calls itself, or is called.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// CPUID with EAX = `leaf` and ECX = `subleaf`.
    pub fn cpuid(&self, leaf: u32, subleaf: u32) -> CpuidResult {
        match &self.answers {
            Answers::Live => core::arch::x86_64::__cpuid_count(leaf, subleaf).into(),
            Answers::Leaves(leaves) => match leaves.get(&(leaf, subleaf)) {
                Some(answer) => *answer,
                // Tables lack it; what is the highest follows from the rest.
                None if leaf == 0x8000_0000 => CpuidResult {
                    eax: leaves.keys().next_back().map_or(0, |(leaf, _)| *leaf),
                    ..CpuidResult::default()
                },
                None => CpuidResult::default(),
            },
        }
    }

    /// MXCSR_MASK, which CPUID does not tell: this machine's own, or its
    /// vendor's custom (AMD and Hygon have bit 17, misaligned SSE).
    pub fn mxcsr_mask(&self) -> u32 {
        match self.answers {
            Answers::Live => vcpu_xstate::hw::mxcsr_mask(),
            Answers::Leaves(_) => match self.cpuid(0, 0).ebx {
                0x6874_7541 | 0x6f67_7948 => 0x2_ffff,
                _ => 0xffff,
            },
        }
    }

    /// What it has of extended state. `mxcsr_mask` is mostly
    /// [`mxcsr_mask`](Self::mxcsr_mask).
    pub fn host(&self, mxcsr_mask: u32) -> Result<HostXstate> {
        HostXstate::read(&|leaf, subleaf| self.cpuid(leaf, subleaf), mxcsr_mask)
            .with_context(|| format!("{} cannot hold extended state by XSAVE", self.name))
    }

    /// Whether it has XSAVE, and a leaf 0xD that makes sense.
    pub fn has_xsave(&self) -> bool {
        self.host(self.mxcsr_mask()).is_ok()
    }

    /// The most that a domain may have on it.
    pub fn policy(&self, host: &HostXstate) -> CpuPolicy {
        CpuPolicy::host_default(&|leaf, subleaf| self.cpuid(leaf, subleaf), host)
    }

    /// The components that it lists for XCR0 and for IA32_XSS.
    pub fn masks(&self) -> [ComponentSet; 2] {
        if self.cpuid(0, 0).eax < 0xd {
            return [ComponentSet::EMPTY; 2];
        }
        let (user, supervisor) = (self.cpuid(0xd, 0), self.cpuid(0xd, 1));
        let join = |low: u32, high: u32| {
            let bits = u64::from(high) << 32 | u64::from(low);
            ComponentSet::from_bits_retain(bits).intersection(ComponentSet::ALL)
        };
        [
            join(user.eax, user.edx),
            join(supervisor.ecx, supervisor.edx),
        ]
    }

    /// The components that it lists, for either.
    pub fn listed(&self) -> ComponentSet {
        let [user, supervisor] = self.masks();
        user.union(supervisor)
    }

    /// The components that it lists and of which its dump lacks the subleaf.
    pub fn undescribed(&self) -> ComponentSet {
        let described = |component: ComponentIndex| {
            ComponentSet::LEGACY.has(component)
                || self.cpuid(0xd, component.get().into()) != CpuidResult::default()
        };
        self.listed()
            .iter()
            .filter(|component| !described(*component))
            .fold(ComponentSet::EMPTY, |all, component| {
                all.union(ComponentSet::only(component))
            })
    }
}

/// The components that are listed and described as no machine can have them, and why.
pub fn unbelieved(listed: ComponentSet, host: &HostXstate) -> Vec<(ComponentIndex, Withheld)> {
    let unplaced = listed.difference(host.geometry().known());
    let why = |component| Some((component, host.withheld(component)?));
    let said = unplaced.iter().filter_map(why);
    said.filter(|(_, why)| *why != Withheld::Undescribed)
        .collect()
}

/// The same for programs.
pub fn unbelieved_json(components: &[(ComponentIndex, Withheld)]) -> Value {
    let entry = |(component, why): &(ComponentIndex, Withheld)| json!({"name": component.to_string(), "why": why.to_string()});
    components.iter().map(entry).collect()
}

/// All machines that have a name here.
#[derive(Clone, Debug)]
pub struct Table {
    machines: Vec<Machine>,
}

impl Table {
    /// The machines of `file`, or else of the file that [`TABLE_VARIABLE`]
    /// names if it is set; the handful that this program knows; and this one. A
    /// machine of the file takes the place of one of the same name.
    pub fn load(file: Option<&Path>) -> Result<Self> {
        let named = std::env::var_os(TABLE_VARIABLE).filter(|path| !path.is_empty());
        let named = named.as_deref().map(Path::new);
        let mut machines = builtin::machines();
        machines.push(this());
        if let Some(path) = file.or(named) {
            let whence = match file {
                Some(_) => String::new(),
                None => format!(" (which {TABLE_VARIABLE} names)"),
            };
            let place = || format!("the table of machines, {}{whence}", path.display());
            let text = std::fs::read_to_string(path).with_context(place)?;
            let rows = table::parse(&text).with_context(place)?;
            put(&mut machines, rows);
        }
        Ok(Self { machines })
    }

    /// The machines that this program knows, alone: the same for every test,
    /// whatever table there is.
    #[cfg(test)]
    pub fn built_in() -> Self {
        Self {
            machines: builtin::machines(),
        }
    }

    /// All of them: those that this program knows first.
    pub fn machines(&self) -> &[Machine] {
        &self.machines
    }

    /// The machines with these names; `all` stands for every one that has XSAVE.
    pub fn chosen(&self, names: &[String]) -> Result<Vec<&Machine>> {
        let mut chosen = Vec::new();
        for name in names {
            if name == ALL {
                let all = self.machines.iter();
                chosen.extend(all.filter(|machine| machine.has_xsave()));
            } else {
                chosen.push(self.find(name)?);
            }
        }
        if chosen.is_empty() {
            bail!("no machine of the table has XSAVE");
        }
        // Who is named twice counts once.
        let mut names = BTreeSet::new();
        chosen.retain(|machine| names.insert(machine.name()));
        Ok(chosen)
    }

    /// The machine with this name, or else the only one whose name contains
    /// it; capitals do not matter.
    pub fn find(&self, name: &str) -> Result<&Machine> {
        ensure!(!name.is_empty(), "no machine is named");
        let wanted = name.to_lowercase();
        let lower = |machine: &Machine| machine.name.to_lowercase();
        if let Some(machine) = self.machines.iter().find(|m| lower(m) == wanted) {
            return Ok(machine);
        }
        let found: Vec<&Machine> = self
            .machines
            .iter()
            .filter(|machine| lower(machine).contains(&wanted))
            .collect();
        match found[..] {
            [machine] => Ok(machine),
            [] => bail!("no machine {name:?}; `cargo xtask machines` lists those there are"),
            _ => {
                let names = found.iter().map(|machine| machine.name.as_str());
                let mut names: Vec<&str> = names.take(CANDIDATES).collect();
                if found.len() > CANDIDATES {
                    names.push("…");
                }
                let names = names.join("\n  ");
                bail!(
                    "{} machines have {name:?} in their name:\n  {names}",
                    found.len()
                )
            }
        }
    }
}

/// Adds a table's machines, each in the place of a known one of its name, or
/// behind them.
fn put(machines: &mut Vec<Machine>, table: Vec<Machine>) {
    for machine in table {
        let name = machine.name.to_lowercase();
        match machines.iter_mut().find(|m| m.name.to_lowercase() == name) {
            Some(known) => *known = machine,
            None => machines.push(machine),
        }
    }
}

/// The machine that runs this.
fn this() -> Machine {
    let mut machine = Machine {
        name: THIS.to_owned(),
        model: String::new(),
        answers: Answers::Live,
    };
    let brand: Vec<u8> = (0x8000_0002..=0x8000_0004)
        .flat_map(|leaf| {
            let r = machine.cpuid(leaf, 0);
            [r.eax, r.ebx, r.ecx, r.edx]
        })
        .flat_map(u32::to_le_bytes)
        .filter(|byte| *byte != 0)
        .collect();
    let brand = String::from_utf8_lossy(&brand).trim().to_owned();
    machine.model = format!("{brand} (the machine that runs this)");
    machine
}
