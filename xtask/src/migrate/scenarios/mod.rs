//! The scenarios of `migrate-test`, in the order in which they are played.

mod canonical;
mod growth;
mod link_cut;
mod many_moves;
mod policies;
mod resize;
mod tampered;

use anyhow::Result;

use super::rig::Rig;
use crate::qemu::MachineSpec;

/// A machine without MPX and protection keys.
const LESSER: &str = "EPYC-Rome";

/// Something that is played on two freshly booted machines.
pub struct Scenario {
    /// Its name for `--scenario`.
    pub name: &'static str,
    /// Whether machine B has to be a lesser one than A.
    lesser_to: bool,
    /// Plays it; gives what was shown, in a few words.
    pub play: fn(&mut Rig) -> Result<String>,
}

impl Scenario {
    /// The machines to play it on, where the person asked for these.
    pub fn machines(
        &self,
        from: &MachineSpec,
        to: Option<&MachineSpec>,
    ) -> (MachineSpec, MachineSpec) {
        let to = match to {
            Some(to) if !self.lesser_to || to != from => to.clone(),
            _ if self.lesser_to => MachineSpec::qemu(LESSER),
            _ => from.clone(),
        };
        (from.clone(), to)
    }
}

/// All of them; those on the same machines stand together.
pub fn all() -> &'static [Scenario] {
    &[
        Scenario {
            name: "many-moves",
            lesser_to: false,
            play: many_moves::play,
        },
        Scenario {
            name: "canonical",
            lesser_to: false,
            play: canonical::play,
        },
        Scenario {
            name: "policy-resize",
            lesser_to: false,
            play: resize::play,
        },
        Scenario {
            name: "growth",
            lesser_to: false,
            play: growth::play,
        },
        Scenario {
            name: "tampered",
            lesser_to: false,
            play: tampered::play,
        },
        Scenario {
            name: "link-cut",
            lesser_to: false,
            play: link_cut::play,
        },
        Scenario {
            name: "sse-only",
            lesser_to: true,
            play: policies::sse_only,
        },
        Scenario {
            name: "lacks-component",
            lesser_to: true,
            play: policies::lacks_component,
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_follow_the_person_where_they_can() {
        let scenario = |name: &str| all().iter().find(|scenario| scenario.name == name).unwrap();
        let (max, rome, milan) = (
            MachineSpec::default(),
            MachineSpec::qemu(LESSER),
            MachineSpec::qemu("EPYC-Milan"),
        );
        let (moves, lacks) = (scenario("many-moves"), scenario("lacks-component"));
        assert_eq!(moves.machines(&max, None), (max.clone(), max.clone()));
        assert_eq!(moves.machines(&rome, None), (rome.clone(), rome.clone()));
        assert_eq!(
            moves.machines(&max, Some(&milan)),
            (max.clone(), milan.clone())
        );
        assert_eq!(lacks.machines(&max, None), (max.clone(), rome.clone()));
        assert_eq!(lacks.machines(&max, Some(&max)), (max.clone(), rome));
        assert_eq!(lacks.machines(&max, Some(&milan)), (max, milan));
    }

    #[test]
    fn names_are_distinct() {
        let mut names: Vec<&str> = all().iter().map(|scenario| scenario.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all().len());
    }
}
