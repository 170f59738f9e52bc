//! The one error of all readers: which rule, where, what was seen, what was allowed.

use core::fmt;

/// What a rule would have allowed in place of what was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowed {
    /// This value alone.
    Exactly(u64),
    /// This value or less.
    AtMost(u64),
    /// This value or more.
    AtLeast(u64),
    /// From the first to the second, both included.
    Between(u64, u64),
    /// Any of these bits and no other.
    Bits(u64),
    /// Said in words, because no single number says it.
    Words(&'static str),
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(value) => write!(f, "{value:#x}"),
            Self::AtMost(value) => write!(f, "at most {value:#x}"),
            Self::AtLeast(value) => write!(f, "at least {value:#x}"),
            Self::Between(low, high) => write!(f, "{low:#x} to {high:#x}"),
            Self::Bits(mask) => write!(f, "no bits but {mask:#x}"),
            Self::Words(words) => f.write_str(words),
        }
    }
}

/// A reader (or a writer that was given too little room) stopped here.
///
/// `offset` counts bytes from the start of what that reader was given;
/// [`ParseError::within`] moves it when that was a part of something larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseError {
    /// The rule that was broken.
    pub rule: Rule,
    /// Where the offending field begins, in bytes.
    pub offset: usize,
    /// The value found there (a length, where the rule is about a length).
    pub seen: u64,
    /// What the rule allows.
    pub allowed: Allowed,
}

impl ParseError {
    /// Shorthand for the readers.
    pub(crate) const fn new(rule: Rule, offset: usize, seen: u64, allowed: Allowed) -> Self {
        Self {
            rule,
            offset,
            seen,
            allowed,
        }
    }

    /// The rule's name, kebab-case and stable: what a log or a test greps for.
    #[must_use]
    pub const fn rule(&self) -> &'static str {
        self.rule.name()
    }

    /// The rule's number, stable for ever: what a hypercall returns as its reason.
    #[must_use]
    pub const fn code(&self) -> u32 {
        self.rule.code()
    }

    /// The same stop, seen from something that holds these bytes at `base`.
    #[must_use]
    pub const fn within(self, base: usize) -> Self {
        Self {
            offset: self.offset.saturating_add(base),
            ..self
        }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} (at byte {}: {:#x} seen, allowed: {})",
            self.rule.name(),
            self.rule.text(),
            self.offset,
            self.seen,
            self.allowed
        )
    }
}

impl core::error::Error for ParseError {}

/// Declares every rule once: variant, number, name and sentence cannot drift apart.
macro_rules! rules {
    ($($(#[$section:meta])* $variant:ident = $code:literal, $name:literal, $text:literal;)*) => {
        /// Every rule that a reader of this crate enforces.
        ///
        /// Numbers are grouped by format (`0x01xx` registers, `0x02xx` blob,
        /// `0x03xx` frames, `0x04xx` records, `0x05xx` order of records,
        /// `0x06xx` handover messages, `0x07xx` the right to run) and are never re-used.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Rule { $($(#[$section])* #[doc = $text] $variant = $code,)* }

        impl Rule {
            /// All rules, by number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Kebab-case name, stable.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The rule in a sentence.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// Number, stable and never re-used.
            #[must_use]
            pub const fn code(self) -> u32 {
                self as u32
            }

            /// The rule with this number, as a toolstack names what a hypercall returned.
            #[must_use]
            pub const fn from_code(code: u32) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

rules! {
    RegistersLength = 0x0101, "registers-length", "a register record has exactly its version's length";
    RegistersReserved = 0x0102, "registers-reserved", "reserved fields of a register record are zero";
    SegmentAttributes = 0x0103, "segment-attributes", "segment attributes hold only the descriptor's bits and the unusable bit";
    TableLimit = 0x0104, "table-limit", "the limits of GDTR and IDTR have 16 bits";
    TaskPriority = 0x0105, "task-priority", "CR8 has four bits";
    EventKind = 0x0106, "event-kind", "the pending event is of a known kind";
    EventVector = 0x0107, "event-vector", "the pending event's vector is one that its kind can have";
    EventError = 0x0108, "event-error", "an error code goes with an exception that pushes one, and the flag is 0 or 1";
    EventLength = 0x0109, "event-length", "only software events carry an instruction length, of 1 to 15 bytes";
    EventResidue = 0x010a, "event-residue", "where no event is pending its fields are zero";
    InterruptShadow = 0x010b, "interrupt-shadow", "the interrupt shadow is none, STI's or MOV SS's";
    NmiBlocked = 0x010c, "nmi-blocked", "the NMI-blocking flag is 0 or 1";
    Activity = 0x010d, "activity", "the activity state is running, halted, shutdown or wait-for-SIPI";
    ParavirtualVector = 0x010e, "paravirtual-vector", "a paravirtual event's vector is 0 (none) or 32 to 255";
    ParavirtualPending = 0x010f, "paravirtual-pending", "only the eight paravirtual events can be pending";
}
