//! A policy from words: `host:avx=0,pku=0,defer-mpx=1`.
//!
//! ```text
//! policy  = "host" [ ":" setting *( "," setting ) ]
//! setting = feature "=" ( "0" / "1" )           ; Xen's cpuid= names
//!         / "defer-" component "=" ( "0" / "1" ) ; avx, mpx, avx512, amx
//!         / "carry-" number "=" ( "0" / "1" )    ; 20 to 61
//! ```
//!
//! `=0` removes a feature and everything that is built on it; `=1` removes
//! nothing and insists that the feature is there in the end. `defer-avx=1`
//! gives the component room when the guest first enables it. `carry-23` is
//! component 23, which has no name here and no feature to remove it by: it is
//! there where the host was told to carry it. The order of the settings does
//! not matter, and nothing may be said twice.

use core::fmt;

use alloc::vec::Vec;

use super::CpuPolicy;
use super::features::{Feature, Rule};
use super::report::{LeftOut, Listener, Subject as Thing, Why};
use super::set::{self, FeatureSet, by_name};
use crate::component::{ComponentIndex, ComponentSet};
use crate::error::Broken;
use crate::mutants::rule;

/// A setting that cannot be had: which, where it stands, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigError<'a> {
    /// The setting as written.
    pub token: &'a str,
    /// Its first byte's offset in the string.
    pub position_bytes: usize,
    /// What is wrong with it.
    pub problem: Problem<'a>,
}

/// What is wrong with a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem<'a> {
    /// The string does not begin with `host` or `host:`.
    Base,
    /// Nothing between two commas, or after the last.
    Empty,
    /// No `=`.
    NoValue,
    /// A value other than 0 and 1.
    Value(&'a str),
    /// Not a feature's name.
    UnknownFeature(&'a str),
    /// Not a component that can be deferred by name.
    UnknownDeferral(&'a str),
    /// Said before in the same string.
    Twice,
    /// In every policy; cannot be removed.
    Always(&'static Feature),
    /// Never offered; cannot be insisted on.
    Never(&'static Feature),
    /// Follows the guest's CR4; cannot be set.
    Live(&'static Feature),
    /// The host lacks the feature, or the first thing on which it is built.
    HostLacks(&'static Feature),
    /// Another setting removed the feature, or the first thing on which it is built.
    Removed(&'static Feature),
    /// PKRU works whatever XCR0 says, so there is no first enabling to wait for.
    UsableUnasked,
    /// AVX-512 and AMX are always deferred.
    AlwaysDeferred,
    /// The policy does not have the component.
    NothingToDefer,
    /// Not the number of a component without a name.
    UnknownCarriage(&'a str),
    /// The host does not carry the component, or the instructions that move it
    /// are not there.
    NotCarried(ComponentIndex),
}

impl ConfigError<'_> {
    /// The rule that was broken; `seen` is the setting's position in bytes.
    pub fn broken(&self) -> Broken {
        let (rule, code) = match self.problem {
            Problem::Base => ("config-base", 0xf01),
            Problem::Empty => ("config-empty", 0xf02),
            Problem::NoValue => ("config-no-value", 0xf03),
            Problem::Value(_) => ("config-value", 0xf04),
            Problem::UnknownFeature(_) => ("config-unknown-feature", 0xf05),
            Problem::UnknownDeferral(_) => ("config-unknown-deferral", 0xf06),
            Problem::Twice => ("config-twice", 0xf07),
            Problem::Always(_) => ("config-always", 0xf08),
            Problem::Never(_) => ("config-never-offered", 0xf09),
            Problem::Live(_) => ("config-live", 0xf0a),
            Problem::HostLacks(_) => ("config-host-lacks", 0xf0b),
            Problem::Removed(_) => ("config-removed", 0xf0c),
            Problem::UsableUnasked => ("config-defer-usable-unasked", 0xf0d),
            Problem::AlwaysDeferred => ("config-defer-always", 0xf0e),
            Problem::NothingToDefer => ("config-defer-nothing", 0xf0f),
            Problem::UnknownCarriage(_) => ("config-unknown-carriage", 0xf10),
            Problem::NotCarried(_) => ("config-not-carried", 0xf11),
        };
        Broken {
            rule,
            code,
            seen: self.position_bytes as u64,
            allowed: 0,
        }
    }
}

impl fmt::Display for ConfigError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at byte {}: ", self.token, self.position_bytes)?;
        match self.problem {
            Problem::Base => f.write_str("a policy begins with \"host\" or \"host:\""),
            Problem::Empty => f.write_str("empty; NAME=0 or NAME=1 is allowed"),
            Problem::NoValue => f.write_str("no value; NAME=0 or NAME=1 is allowed"),
            Problem::Value(value) => write!(f, "value {value:?}; 0 or 1 is allowed"),
            Problem::UnknownFeature(name) => {
                write!(f, "no feature {name:?}; Xen's cpuid= names are allowed")
            }
            Problem::UnknownDeferral(name) => write!(
                f,
                "{name:?} cannot be deferred; avx, mpx, avx512 and amx can"
            ),
            Problem::Twice => f.write_str("said before; once is allowed"),
            Problem::Always(feature) => write!(f, "{feature} is in every policy; 1 is allowed"),
            Problem::Never(feature) => write!(f, "{feature} is never offered; 0 is allowed"),
            Problem::Live(feature) => write!(f, "{feature} follows the guest's CR4"),
            Problem::HostLacks(feature) => write!(f, "this host lacks {feature}"),
            Problem::Removed(feature) => {
                write!(f, "another setting of the same policy removes {feature}")
            }
            Problem::UsableUnasked => f.write_str(
                "pkru can be used without being enabled in XCR0, so it needs room from the start",
            ),
            Problem::AlwaysDeferred => f.write_str("always deferred; 1 is allowed"),
            Problem::NothingToDefer => f.write_str("this policy does not have the component"),
            Problem::UnknownCarriage(number) => {
                write!(f, "{number:?} is no component without a name; 20 to 61 are")
            }
            Problem::NotCarried(component) => {
                write!(f, "this host does not carry {component}")
            }
        }
    }
}

impl core::error::Error for ConfigError<'_> {}

/// One setting, taken apart.
#[derive(Clone, Copy)]
struct Setting<'a> {
    token: &'a str,
    position_bytes: usize,
}

enum Subject {
    Feature(&'static Feature),
    Defer(ComponentSet),
    Carry(ComponentIndex),
}

impl<'a> Setting<'a> {
    const fn error(self, problem: Problem<'a>) -> ConfigError<'a> {
        ConfigError {
            token: self.token,
            position_bytes: self.position_bytes,
            problem,
        }
    }

    /// What it is about, and whether it says 1.
    fn parse(self) -> Result<(Subject, bool), ConfigError<'a>> {
        if rule!("config-empty") && self.token.is_empty() {
            return Err(self.error(Problem::Empty));
        }
        let Some((name, value)) = self.token.split_once('=') else {
            return Err(self.error(Problem::NoValue));
        };
        let value = match value {
            "0" => false,
            "1" => true,
            _ if !rule!("config-value") => true,
            _ => return Err(self.error(Problem::Value(value))),
        };
        let subject = if let Some(component) = name.strip_prefix("defer-") {
            Subject::Defer(match component {
                "avx" => ComponentSet::only(ComponentIndex::AVX),
                "mpx" => ComponentSet::MPX,
                "avx512" => ComponentSet::AVX512,
                "amx" => ComponentSet::AMX,
                "pku" if !rule!("config-defer-usable-unasked") => {
                    ComponentSet::only(ComponentIndex::PKRU)
                }
                "pku" => return Err(self.error(Problem::UsableUnasked)),
                _ if !rule!("config-unknown-deferral") => ComponentSet::EMPTY,
                _ => return Err(self.error(Problem::UnknownDeferral(component))),
            })
        } else if let Some(number) = name.strip_prefix("carry-") {
            let component = number.parse().ok().and_then(ComponentIndex::new);
            match component.filter(|index| !ComponentSet::NAMED.has(*index)) {
                // One spelling of each number.
                Some(index) if !number.starts_with(['0', '+']) => Subject::Carry(index),
                _ => return Err(self.error(Problem::UnknownCarriage(number))),
            }
        } else {
            let Some(feature) = by_name(name) else {
                return Err(self.error(Problem::UnknownFeature(name)));
            };
            match (feature.rule, value) {
                (Rule::Live, _) if rule!("config-live") => {
                    return Err(self.error(Problem::Live(feature)));
                }
                (Rule::Never, true) if rule!("config-never-offered") => {
                    return Err(self.error(Problem::Never(feature)));
                }
                (Rule::Required | Rule::Inverse, false) if rule!("config-always") => {
                    return Err(self.error(Problem::Always(feature)));
                }
                _ => Subject::Feature(feature),
            }
        };
        Ok((subject, value))
    }
}

/// The settings of a policy string.
fn settings(config: &str) -> Result<impl Iterator<Item = Setting<'_>> + Clone, ConfigError<'_>> {
    let whole = Setting {
        token: config,
        position_bytes: 0,
    };
    let Some(rest) = config.strip_prefix("host") else {
        return Err(whole.error(Problem::Base));
    };
    let list = match rest.strip_prefix(':') {
        Some(list) => Some(list),
        None if rest.is_empty() || !rule!("config-base") => None,
        None => return Err(whole.error(Problem::Base)),
    };
    let mut next_bytes = "host:".len();
    Ok(list
        .into_iter()
        .flat_map(|list| list.split(','))
        .map(move |token| {
            let position_bytes = next_bytes;
            // No longer than the string itself, and its comma.
            next_bytes += token.len() + 1;
            Setting {
                token,
                position_bytes,
            }
        }))
}

impl CpuPolicy {
    /// This policy, which is a host's default, changed by `config`.
    ///
    /// # Errors
    /// The first setting that cannot be had. Mistakes of form come before
    /// features that are missing.
    pub fn with_config<'a>(&self, config: &'a str) -> Result<Self, ConfigError<'a>> {
        self.configured(config, &mut ())
    }

    /// What [`with_config`](Self::with_config) leaves out of this policy: what
    /// `config` removes, and what is built on that.
    ///
    /// # Errors
    /// As [`with_config`](Self::with_config).
    pub fn explain_config<'a>(&self, config: &'a str) -> Result<Vec<LeftOut>, ConfigError<'a>> {
        let mut report = Vec::new();
        self.configured(config, &mut report).map(|_| report)
    }

    fn configured<'a>(
        &self,
        config: &'a str,
        listener: &mut impl Listener,
    ) -> Result<Self, ConfigError<'a>> {
        let settings = settings(config)?;
        let mut features = self.features;
        let mut mask = self.xstate.mask;
        let mut deferred = self.xstate.deferred;
        let mut said = FeatureSet::EMPTY;
        // Deferral of what has a name, carriage of what has none.
        let mut said_of = ComponentSet::EMPTY;
        for setting in settings.clone() {
            let (subject, value) = setting.parse()?;
            let components = match subject {
                Subject::Feature(_) => ComponentSet::EMPTY,
                Subject::Defer(components) => components,
                Subject::Carry(component) => ComponentSet::only(component),
            };
            let bit = match subject {
                Subject::Feature(feature) => Some(feature.bit()),
                _ => None,
            };
            if rule!("config-twice")
                && (said_of.intersects(components) || bit.is_some_and(|bit| said.has(bit)))
            {
                return Err(setting.error(Problem::Twice));
            }
            said_of.insert(components);
            match (subject, value) {
                (Subject::Feature(feature), _) => {
                    said = said.with(feature.bit());
                    if !value && features.has(feature.bit()) {
                        set::remove(&mut features, feature.bit(), Why::Configuration, listener);
                    }
                }
                (Subject::Defer(components), true) => deferred.insert(components),
                (Subject::Defer(components), false) => {
                    let always = ComponentSet::AVX512.union(ComponentSet::AMX);
                    if rule!("config-defer-always") && always.intersects(components) {
                        return Err(setting.error(Problem::AlwaysDeferred));
                    }
                    deferred.remove(components);
                }
                (Subject::Carry(component), false) if mask.has(component) => {
                    mask.remove(components);
                    listener.gone(Thing::Component(component), Why::Configuration);
                }
                (Subject::Carry(_), _) => {}
            }
        }

        let policy = self.reduced(features, mask, deferred, listener);
        for setting in settings {
            match setting.parse()? {
                (Subject::Feature(feature), true)
                    if !policy.has(feature.bit())
                        && rule!(if self.has(feature.bit()) {
                            "config-removed"
                        } else {
                            "config-host-lacks"
                        }) =>
                {
                    return Err(setting.error(self.why_missing(feature, &policy)));
                }
                (Subject::Defer(components), true)
                    if rule!("config-defer-nothing")
                        && !policy.xstate.mask.contains(components) =>
                {
                    return Err(setting.error(Problem::NothingToDefer));
                }
                (Subject::Carry(component), true)
                    if rule!("config-not-carried") && !policy.xstate.mask.has(component) =>
                {
                    return Err(setting.error(Problem::NotCarried(component)));
                }
                _ => {}
            }
        }
        Ok(policy)
    }

    /// Why `feature`, which was insisted on, is not in `result`.
    fn why_missing(&self, feature: &'static Feature, result: &Self) -> Problem<'static> {
        if self.has(feature.bit()) {
            Problem::Removed(result.features.root_gap(feature).unwrap_or(feature))
        } else {
            Problem::HostLacks(self.features.root_gap(feature).unwrap_or(feature))
        }
    }
}
