//! How one component differs between two machines, as values and in words.

use core::fmt;

use super::ComponentFacts;
use crate::component::ComponentIndex;

/// How one component differs between two machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayoutDifference {
    /// The component that differs.
    pub component: ComponentIndex,
    /// Its facts on the other machine, `None` where it is missing.
    pub there: Option<ComponentFacts>,
    /// Its facts on this machine.
    pub here: Option<ComponentFacts>,
}

impl LayoutDifference {
    /// The first property that differs: its name and its value there and here.
    pub fn values(&self) -> (&'static str, u64, u64) {
        let (there, here) = match (self.there, self.here) {
            (Some(there), Some(here)) => (there, here),
            (there, here) => {
                let size = |facts: Option<ComponentFacts>| {
                    facts.map_or(0, |facts| u64::from(facts.size_bytes))
                };
                return ("presence", size(there), size(here));
            }
        };
        if there.supervisor != here.supervisor {
            (
                "supervisor",
                there.supervisor.into(),
                here.supervisor.into(),
            )
        } else if there.size_bytes != here.size_bytes {
            ("size", there.size_bytes.into(), here.size_bytes.into())
        } else if there.standard_offset != here.standard_offset {
            (
                "offset",
                there.standard_offset.into(),
                here.standard_offset.into(),
            )
        } else if there.aligned64 != here.aligned64 {
            ("alignment", there.aligned64.into(), here.aligned64.into())
        } else {
            ("xfd", there.xfd.into(), here.xfd.into())
        }
    }
}

impl LayoutDifference {
    /// The difference in words, with words for the two machines in place of
    /// "there" and "here": `between("on zen4", "on skylake")` says
    /// `opmask at 832 on zen4, 1088 on skylake`.
    pub const fn between<'a>(&'a self, there: &'a str, here: &'a str) -> impl fmt::Display + 'a {
        Between {
            difference: self,
            there,
            here,
        }
    }
}

struct Between<'a> {
    difference: &'a LayoutDifference,
    there: &'a str,
    here: &'a str,
}

impl fmt::Display for Between<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            difference,
            there: on_there,
            here: on_here,
        } = self;
        let component = difference.component;
        let (what, there, here) = difference.values();
        let not = |bit: u64| if bit == 0 { "not " } else { "" };
        match what {
            "presence" if difference.here.is_none() => write!(f, "{component} missing {on_here}"),
            "presence" => write!(f, "{component} missing {on_there}"),
            "size" => write!(
                f,
                "{component} {there} bytes {on_there}, {here} bytes {on_here}"
            ),
            "offset" => write!(f, "{component} at {there} {on_there}, {here} {on_here}"),
            "supervisor" => write!(
                f,
                "{component} {}supervisor state {on_there}, {}{on_here}",
                not(there),
                not(here)
            ),
            "alignment" => write!(
                f,
                "{component} {}aligned to 64 {on_there}, {}{on_here}",
                not(there),
                not(here)
            ),
            _ => write!(
                f,
                "{component} {}under xfd {on_there}, {}{on_here}",
                not(there),
                not(here)
            ),
        }
    }
}

impl fmt::Display for LayoutDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.between("there", "here").fmt(f)
    }
}
