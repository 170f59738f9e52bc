//! What every refusal of this crate has: a rule's name, a stable code, and the values seen and allowed.
//!
//! A hypercall returns the three numbers in registers and a log line prints
//! all four, so that whoever was refused can tell which rule was broken
//! without a debugger. Codes are never re-used: each error type has a range
//! of 0x100, and a new variant takes the next free number of its range.

use core::fmt;

/// A broken rule in its vendor-neutral form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Name of the rule, in kebab case, the same for ever.
    pub rule: &'static str,
    /// Number of the rule, the same for ever.
    pub code: u32,
    /// What was there (a mask, a length in bytes, a register's value).
    pub seen: u64,
    /// What may be there; in the same unit as `seen`.
    pub allowed: u64,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: seen {:#x}, allowed {:#x}",
            self.rule, self.seen, self.allowed
        )
    }
}

/// Gives an error enum its four accessors from one table: `(rule, code, seen,
/// allowed)` for each variant. `Display` and `Error` are left to the type.
macro_rules! broken_accessors {
    ($type:ty, $($pattern:pat => ($rule:expr, $code:expr, $seen:expr, $allowed:expr),)+) => {
        impl $type {
            /// The rule that was broken, with the values seen and allowed.
            pub fn broken(&self) -> $crate::error::Broken {
                let (rule, code, seen, allowed) = match *self {
                    $($pattern => ($rule, $code, $seen, $allowed),)+
                };
                $crate::error::Broken { rule, code, seen, allowed }
            }

            /// Name of the broken rule, in kebab case.
            pub fn rule(&self) -> &'static str {
                self.broken().rule
            }

            /// Stable number of the broken rule.
            pub fn code(&self) -> u32 {
                self.broken().code
            }

            /// The value that broke it.
            pub fn seen(&self) -> u64 {
                self.broken().seen
            }

            /// The value, mask or limit that the rule allows.
            pub fn allowed(&self) -> u64 {
                self.broken().allowed
            }
        }
    };
}
pub(crate) use broken_accessors;

/// The accessors, and `Display` and `Error` that say the four values.
macro_rules! broken_rules {
    ($type:ty, $($table:tt)+) => {
        $crate::error::broken_accessors!($type, $($table)+);

        impl core::fmt::Display for $type {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                self.broken().fmt(f)
            }
        }

        impl core::error::Error for $type {}
    };
}
pub(crate) use broken_rules;
