//! The guest's command line.

use crate::registers::Component;

/// What the command line asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// `seed=N`: what the patterns are made from.
    pub seed: u64,
    /// `stop=N`: power off after pattern N instead of running for ever.
    pub stop: Option<u64>,
    /// `break=COMPONENT`: flip one bit there once, to see it found.
    pub broken: Option<Component>,
    /// `console=uart` reports by the 16550 instead of by hypercall.
    pub uart: bool,
    /// `system=off` leaves debug registers and MSRs alone.
    pub system: bool,
    /// `cpuid=follows-policy`: the guest's policy is changed while it runs, so
    /// only the layout of what it has enabled must stay. Otherwise
    /// (`cpuid=fixed`) all that CPUID says must.
    pub cpuid_follows_policy: bool,
}

/// A word of the command line that is not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unknown<'a>(pub &'a str);

impl Options {
    /// Reads the command line. Words without `=` are names that loaders put
    /// there and mean nothing.
    ///
    /// # Errors
    /// The first word that has a `=` and is not understood.
    pub fn parse(cmdline: &str) -> Result<Self, Unknown<'_>> {
        let mut options = Self {
            seed: 1,
            stop: None,
            broken: None,
            uart: false,
            system: true,
            cpuid_follows_policy: false,
        };
        for word in cmdline.split_ascii_whitespace() {
            let Some((key, value)) = word.split_once('=') else {
                continue;
            };
            let unknown = Unknown(word);
            match key {
                "seed" => options.seed = value.parse().map_err(|_| unknown)?,
                "stop" => options.stop = Some(value.parse().map_err(|_| unknown)?),
                "break" => options.broken = Some(Component::from_name(value).ok_or(unknown)?),
                "system" => {
                    options.system = match value {
                        "on" => true,
                        "off" => false,
                        _ => return Err(unknown),
                    };
                }
                "cpuid" => {
                    options.cpuid_follows_policy = match value {
                        "follows-policy" => true,
                        "fixed" => false,
                        _ => return Err(unknown),
                    };
                }
                "console" => {
                    options.uart = match value {
                        "uart" => true,
                        "hypercall" => false,
                        _ => return Err(unknown),
                    };
                }
                _ => return Err(unknown),
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_understood_or_named() {
        let all = Options::parse(
            "torture seed=7 stop=3 break=zmm_hi256 console=uart system=off cpuid=follows-policy",
        );
        let expected = Options {
            seed: 7,
            stop: Some(3),
            broken: Some(Component::ZmmHi256),
            uart: true,
            system: false,
            cpuid_follows_policy: true,
        };
        assert_eq!(all, Ok(expected));
        assert_eq!(Options::parse("").map(|o| o.seed), Ok(1));
        for bad in [
            "seed=x",
            "break=nothing",
            "speed=3",
            "system=perhaps",
            "console=tv",
            "cpuid=never",
        ] {
            assert_eq!(Options::parse(bad), Err(Unknown(bad)));
        }
    }
}
