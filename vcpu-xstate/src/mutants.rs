//! `rule!("name")`: whether a rule stands. It does; a test build can remove one by name.
//!
//! Each rule and each mended bug has such a mark where its code is. In what is
//! shipped the mark is the constant `true`. With the feature `mutants` the rule
//! that the environment's `XFERRY_MUTANT` names is gone, so that `cargo xtask
//! mutants` can see which test notices.

/// Whether the rule stands.
#[cfg(not(feature = "mutants"))]
macro_rules! rule {
    ($name:expr) => {
        true
    };
}

/// Whether the rule stands.
#[cfg(feature = "mutants")]
macro_rules! rule {
    ($name:expr) => {
        $crate::mutants::stands($name)
    };
}

pub(crate) use rule;

/// Whether `name` is not the rule that this process does without.
#[cfg(feature = "mutants")]
pub(crate) fn stands(name: &str) -> bool {
    extern crate std;
    use std::ffi::{OsStr, OsString};
    use std::sync::LazyLock;

    static GONE: LazyLock<Option<OsString>> = LazyLock::new(|| std::env::var_os("XFERRY_MUTANT"));
    GONE.as_deref() != Some(OsStr::new(name))
}
