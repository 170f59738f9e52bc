//! Sets of CPUID features: where a bit is found, and what is closed under "needs".
//!
//! A [`FeatureSet`] is the feature words of CPUID side by side; bits that no
//! row of [`TABLE`] names are kept, so that a stranger's policy can be judged
//! by what it really asks for.

use core::fmt;

use super::features::{Feature, TABLE};
use crate::component::{ComponentIndex, ComponentSet};

/// One of the registers that CPUID returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Register {
    /// EAX.
    Eax,
    /// EBX.
    Ebx,
    /// ECX.
    Ecx,
    /// EDX.
    Edx,
}

/// A register of CPUID that holds feature bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    missing_docs,
    reason = "the name is the place: leaf, subleaf, register"
)]
pub enum Word {
    L1Edx,
    L1Ecx,
    L7Ebx,
    L7Ecx,
    L7Edx,
    L71Eax,
    L71Edx,
    LD1Eax,
    E1Ecx,
    E1Edx,
    E7Edx,
    E8Ebx,
    E21Eax,
}

/// Number of feature words.
pub const WORDS: usize = 13;

impl Word {
    /// All of them, in the order of a [`FeatureSet`].
    pub const ALL: [Self; WORDS] = [
        Self::L1Edx,
        Self::L1Ecx,
        Self::L7Ebx,
        Self::L7Ecx,
        Self::L7Edx,
        Self::L71Eax,
        Self::L71Edx,
        Self::LD1Eax,
        Self::E1Ecx,
        Self::E1Edx,
        Self::E7Edx,
        Self::E8Ebx,
        Self::E21Eax,
    ];

    /// Leaf, subleaf and register.
    pub const fn place(self) -> (u32, u32, Register) {
        match self {
            Self::L1Edx => (1, 0, Register::Edx),
            Self::L1Ecx => (1, 0, Register::Ecx),
            Self::L7Ebx => (7, 0, Register::Ebx),
            Self::L7Ecx => (7, 0, Register::Ecx),
            Self::L7Edx => (7, 0, Register::Edx),
            Self::L71Eax => (7, 1, Register::Eax),
            Self::L71Edx => (7, 1, Register::Edx),
            Self::LD1Eax => (0xd, 1, Register::Eax),
            Self::E1Ecx => (0x8000_0001, 0, Register::Ecx),
            Self::E1Edx => (0x8000_0001, 0, Register::Edx),
            Self::E7Edx => (0x8000_0007, 0, Register::Edx),
            Self::E8Ebx => (0x8000_0008, 0, Register::Ebx),
            Self::E21Eax => (0x8000_0021, 0, Register::Eax),
        }
    }
}

/// Where a feature bit is: "CPUID 7.0:ECX[3]".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    /// EAX of the query.
    pub leaf: u32,
    /// ECX of the query.
    pub subleaf: u32,
    /// The register of the answer.
    pub register: Register,
    /// The bit, 0 to 31.
    pub bit: u8,
}

impl Location {
    /// Leaf in bits 63:32, subleaf in 31:16, register (0 to 3) in 15:8, bit in
    /// 7:0: how a refusal carries it in one number.
    pub const fn packed(self) -> u64 {
        (self.leaf as u64) << 32
            | ((self.subleaf & 0xffff) as u64) << 16
            | (self.register as u64) << 8
            | self.bit as u64
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CPUID ")?;
        match self.leaf {
            leaf @ ..10 => write!(f, "{leaf}")?,
            leaf => write!(f, "{leaf:#X}")?,
        }
        if super::leaves::has_subleaves(self.leaf) {
            write!(f, ".{}", self.subleaf)?;
        }
        let register = match self.register {
            Register::Eax => "EAX",
            Register::Ebx => "EBX",
            Register::Ecx => "ECX",
            Register::Edx => "EDX",
        };
        write!(f, ":{register}[{}]", self.bit)
    }
}

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
pub struct FeatureSet([u32; WORDS]);

impl FeatureSet {
    /// No feature.
    pub const EMPTY: Self = Self([0; WORDS]);

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

    pub(super) const fn set_word(&mut self, word: Word, value: u32) {
        self.0[word as usize] = value;
    }

    /// The bits of both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        Self(core::array::from_fn(|i| self.0[i] & other.0[i]))
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

/// The components that some feature of the set stands for, and x87 and SSE.
fn claimed(features: &FeatureSet) -> ComponentSet {
    features
        .named()
        .fold(ComponentSet::LEGACY, |all, f| all.union(f.components))
}

/// Takes away what cannot stand: features whose needs or whose components are
/// gone, components that no feature stands for, parts of groups; until nothing
/// more goes. Never adds.
pub fn settle(features: &mut FeatureSet, mask: &mut ComponentSet) {
    loop {
        let before = (*features, *mask);
        for (feature, needs) in TABLE.iter().zip(&NEEDS) {
            let stands =
                needs.first_beyond(features).is_none() && mask.contains(feature.components);
            if !stands {
                *features = features.without(feature.bit());
            }
        }
        *mask = mask.intersection(claimed(features)).whole_groups();
        if before == (*features, *mask) {
            return;
        }
    }
}

/// The first reason for which [`settle`] would take something away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gap {
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
pub fn first_gap(features: &FeatureSet, mask: ComponentSet) -> Option<Gap> {
    if mask != mask.whole_groups() {
        return Some(Gap::Group(mask, mask.whole_groups()));
    }
    for feature in features.named() {
        if let Some(need) = features.root_gap(feature) {
            return Some(Gap::Needs(feature, need));
        }
        if let Some(missing) = feature.components.difference(mask).iter().next() {
            return Some(Gap::Component(feature, missing));
        }
    }
    let unclaimed = mask.difference(claimed(features)).iter().next()?;
    Some(Gap::Unclaimed(unclaimed))
}
