//! Sets of CPUID features, and what closes them under "needs".
//!
//! A [`FeatureSet`] is the feature words of CPUID side by side; bits that no
//! row of [`TABLE`] names are kept, so that a stranger's policy can be judged
//! by what it really asks for.

use super::features::{Feature, Rule, TABLE};
use super::place::{Location, Word};
use super::report::{Listener, Subject, Why};
use crate::component::{ComponentIndex, ComponentSet};
use crate::mutants::rule;

/// Handle of a feature's bit; look one up once, in a constant, by [`Bit::of`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bit {
    word: Word,
    bit: u8,
}

impl Bit {
    /// The bit of the feature with this name of [`TABLE`].
    ///
    /// # Panics
    /// There is none: meant for constants, where that is a compile error.
    pub const fn of(name: &str) -> Self {
        match position(name) {
            Some(i) => TABLE[i].bit(),
            None => panic!("no feature of this name"),
        }
    }

    /// The bit at this place of a word; `bit` is 0 to 31.
    pub(super) const fn at(word: Word, bit: u8) -> Self {
        Self {
            word,
            bit: bit & 31,
        }
    }

    /// Where CPUID reports it.
    pub const fn location(self) -> Location {
        let (leaf, subleaf, register) = self.word.place();
        Location {
            leaf,
            subleaf,
            register,
            bit: self.bit,
        }
    }
}

/// The row of [`TABLE`] with this name.
const fn position(name: &str) -> Option<usize> {
    let name = name.as_bytes();
    let mut i = 0;
    while i < TABLE.len() {
        let row = TABLE[i].name.as_bytes();
        let mut at = 0;
        while row.len() == name.len() && at < row.len() && row[at] == name[at] {
            at += 1;
        }
        if row.len() == name.len() && at == row.len() {
            return Some(i);
        }
        i += 1;
    }
    None
}

/// The feature with this name (Xen's `cpuid=` names).
pub fn by_name(name: &str) -> Option<&'static Feature> {
    TABLE.iter().find(|feature| feature.name == name)
}

/// The feature at this bit, where [`TABLE`] names it.
pub fn by_bit(bit: Bit) -> Option<&'static Feature> {
    TABLE.iter().find(|feature| feature.bit() == bit)
}

/// What each row needs, as a set: resolved when this crate is compiled, so
/// that a name mistyped in the table is a compile error.
static NEEDS: [FeatureSet; TABLE.len()] = {
    let mut needs = [FeatureSet::EMPTY; TABLE.len()];
    let mut row = 0;
    while row < TABLE.len() {
        let mut i = 0;
        while i < TABLE[row].needs.len() {
            needs[row] = needs[row].with(Bit::of(TABLE[row].needs[i]));
            i += 1;
        }
        row += 1;
    }
    needs
};

/// Feature bits of CPUID, in the order of [`Word::ALL`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FeatureSet([u32; Word::COUNT]);

impl FeatureSet {
    /// No feature.
    pub const EMPTY: Self = Self([0; Word::COUNT]);

    /// Whether the bit is set.
    pub const fn has(&self, bit: Bit) -> bool {
        self.0[bit.word as usize] & 1 << bit.bit != 0
    }

    /// The set with this bit too.
    #[must_use]
    pub const fn with(mut self, bit: Bit) -> Self {
        self.0[bit.word as usize] |= 1 << bit.bit;
        self
    }

    /// The set without this bit.
    #[must_use]
    pub const fn without(mut self, bit: Bit) -> Self {
        self.0[bit.word as usize] &= !(1 << bit.bit);
        self
    }

    /// One word of it, as CPUID returns it.
    pub const fn word(&self, word: Word) -> u32 {
        self.0[word as usize]
    }

    /// The bits that are set, by word and number.
    pub fn iter(&self) -> impl Iterator<Item = Bit> + use<> {
        let words = self.0;
        Word::ALL.into_iter().flat_map(move |word| {
            let value = words[word as usize];
            (0..32)
                .filter(move |bit| value & 1 << bit != 0)
                .map(move |bit| Bit::at(word, bit))
        })
    }

    /// The bits of either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self(core::array::from_fn(|i| self.0[i] | other.0[i]))
    }

    pub(super) const fn set_word(&mut self, word: Word, value: u32) {
        self.0[word as usize] = value;
    }

    /// The bits of both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        Self(core::array::from_fn(|i| self.0[i] & other.0[i]))
    }

    /// The bits of this one that the other lacks.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        Self(core::array::from_fn(|i| self.0[i] & !other.0[i]))
    }

    /// Those that count the other way round: set, they take something away.
    pub(super) fn inverse(&self) -> Self {
        TABLE
            .iter()
            .filter(|feature| feature.rule == Rule::Inverse && self.has(feature.bit()))
            .fold(Self::EMPTY, |set, feature| set.with(feature.bit()))
    }

    /// The lowest bit, by word and number, that is set here and not in `other`.
    pub fn first_beyond(&self, other: &Self) -> Option<Bit> {
        Word::ALL.into_iter().find_map(|word| {
            let beyond = self.word(word) & !other.word(word);
            // At most 31, for `beyond` is not 0.
            (beyond != 0).then(|| Bit::at(word, beyond.trailing_zeros() as u8))
        })
    }

    /// The features of [`TABLE`] in the set.
    pub fn named(&self) -> impl Iterator<Item = &'static Feature> {
        TABLE.iter().filter(|feature| self.has(feature.bit()))
    }

    /// The first of what `feature` needs that is not in the set, looking
    /// through what is needed by what it needs: the root of its absence.
    pub fn root_gap(&self, feature: &'static Feature) -> Option<&'static Feature> {
        feature
            .needs
            .iter()
            .filter_map(|name| by_name(name))
            .find_map(|need| {
                self.root_gap(need)
                    .or((!self.has(need.bit())).then_some(need))
            })
    }
}

/// The components that may stand beside these features: x87 and SSE, those for
/// which a feature stands, and those without a name where the guest has the
/// instructions that move them.
fn claimed(features: &FeatureSet, supervisor: ComponentSet) -> ComponentSet {
    let mut all = features
        .named()
        .fold(ComponentSet::LEGACY, |all, f| all.union(f.components));
    let nameless = ComponentSet::ALL.difference(ComponentSet::NAMED);
    if features.has(const { Bit::of("xsave") }) {
        all.insert(nameless.difference(supervisor));
    }
    if features.has(const { Bit::of("xsaves") }) {
        all.insert(nameless.intersection(supervisor));
    }
    all
}

/// Takes a feature away, and says so.
pub(super) fn remove(features: &mut FeatureSet, bit: Bit, why: Why, listener: &mut impl Listener) {
    *features = features.without(bit);
    listener.gone(Subject::of(bit), why);
}

/// Takes away what cannot stand: features whose needs or whose components are
/// gone, components that no feature stands for, parts of groups; until nothing
/// more goes. Never adds. `supervisor` are the components of IA32_XSS.
pub(super) fn settle(
    features: &mut FeatureSet,
    mask: &mut ComponentSet,
    supervisor: ComponentSet,
    listener: &mut impl Listener,
) {
    loop {
        let before = (*features, *mask);
        for (feature, needs) in TABLE.iter().zip(&NEEDS) {
            if !features.has(feature.bit()) {
                continue;
            }
            let why = if let Some(need) = needs.first_beyond(features)
                && rule!("settle-needs")
            {
                by_bit(need).map(Why::Needs)
            } else {
                let lost = feature.components.difference(*mask);
                lost.iter().next().map(Why::WithoutState)
            };
            if let Some(why) = why {
                remove(features, feature.bit(), why, listener);
            }
        }
        let stands = if rule!("settle-claimed") {
            mask.intersection(claimed(features, supervisor))
        } else {
            *mask
        };
        for component in mask.difference(stands) {
            listener.gone(Subject::Component(component), Why::WithoutFeature);
        }
        *mask = stands.whole_groups();
        for component in stands.difference(*mask) {
            let why = Why::Group(crate::withheld::company(component));
            listener.gone(Subject::Component(component), why);
        }
        if before == (*features, *mask) {
            return;
        }
    }
}

/// The first reason for which [`settle`] would take something away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gap {
    /// A feature, and one that it needs and that is missing.
    Needs(&'static Feature, &'static Feature),
    /// A feature, and its component that is missing.
    Component(&'static Feature, ComponentIndex),
    /// A component that no feature stands for.
    Unclaimed(ComponentIndex),
    /// The mask, and what of it are whole groups.
    Group(ComponentSet, ComponentSet),
}

/// Finds a [`Gap`]; `None` if [`settle`] would change nothing.
pub(super) fn first_gap(
    features: &FeatureSet,
    mask: ComponentSet,
    supervisor: ComponentSet,
) -> Option<Gap> {
    if mask != mask.whole_groups() {
        return Some(Gap::Group(mask, mask.whole_groups()));
    }
    for (feature, needs) in TABLE.iter().zip(&NEEDS) {
        if !features.has(feature.bit()) {
            continue;
        }
        if needs.first_beyond(features).is_some() {
            // Of several needs that are missing, the one at the bottom.
            let need = features.root_gap(feature).unwrap_or(feature);
            return Some(Gap::Needs(feature, need));
        }
        if let Some(missing) = feature.components.difference(mask).iter().next() {
            return Some(Gap::Component(feature, missing));
        }
    }
    let unclaimed = mask
        .difference(claimed(features, supervisor))
        .iter()
        .next()?;
    Some(Gap::Unclaimed(unclaimed))
}
