//! The table that the shell's `xstate` prints.

/// One row of `xstate`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    /// Its name.
    pub name: String,
    /// Whether it is in use (or else INIT).
    pub in_use: bool,
}

/// What `xstate` says of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Xstate {
    /// Bytes of the vCPU's area.
    pub area_bytes: u64,
    /// The components of its policy.
    pub components: Vec<Component>,
}

impl Xstate {
    /// Reads the lines of one vCPU; `None` where they are not such a table.
    pub fn parse(lines: &[String]) -> Option<Self> {
        let area_bytes = lines.iter().find_map(|line| {
            let mut words = line.split_whitespace();
            (words.next()? == "area").then(|| words.next()?.parse().ok())?
        })?;
        let components = lines
            .iter()
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                let name = words.next()?.to_owned();
                let rest: Vec<&str> = words.collect();
                let in_use = rest.join(" ").contains("in use");
                (in_use || rest.contains(&"INIT")).then_some(Component { name, in_use })
            })
            .collect();
        Some(Self {
            area_bytes,
            components,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_components() {
        let lines = [
            "component owner size state",
            "x87 cpu0 160 in use",
            "avx memory 256 INIT",
            "area 968 bytes",
        ];
        let parsed = Xstate::parse(&lines.map(str::to_owned)).unwrap();
        assert_eq!(parsed.area_bytes, 968);
        assert_eq!(
            parsed.components,
            [("x87", true), ("avx", false)].map(|(name, in_use)| Component {
                name: name.into(),
                in_use
            })
        );
        assert_eq!(Xstate::parse(&["x87 cpu0 160 in use".to_owned()]), None);
    }
}
