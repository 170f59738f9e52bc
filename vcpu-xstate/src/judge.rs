//! `judge!`: several rules at once, by one branch; which of them is broken is asked only where one is.
//!
//! Each rule is written once: whether it stands, a word that is 0 where it is
//! kept, and what is said where it is not. From that one list come both the
//! OR of all words, which is all that a legal value meets, and the walk that
//! finds the first broken one, which is never on a path that is fast.

/// `Ok(())`, or the error of the first rule of the list that is broken.
macro_rules! judge {
    ($($stands:expr, $broken:expr => $error:expr;)+) => {{
        let broken = 0_u64 $(| if $stands { $broken } else { 0 })+;
        if broken == 0 {
            Ok(())
        } else {
            // Moved: what is asked for here need not be kept in memory for it.
            $crate::judge::elsewhere(move || {
                $(if $stands && $broken != 0 {
                    return Err($error);
                })+
                unreachable!("some rule was broken")
            })
        }
    }};
}
pub(crate) use judge;

/// Does what is rare, out of the way of what is not.
#[cold]
#[inline(never)]
pub(crate) fn elsewhere<T>(rare: impl FnOnce() -> T) -> T {
    rare()
}

#[cfg(test)]
mod tests {
    fn verdict(value: u64) -> Result<(), &'static str> {
        judge! {
            true, value & 1 => "odd";
            false, value & 2 => "gone";
            true, value & 6 => "two or four";
            true, u64::from(value > 100) => "large";
        }
    }

    #[test]
    fn the_first_rule_that_stands_and_is_broken() {
        for (value, says) in [
            (0, Ok(())),
            (8, Ok(())),
            (1, Err("odd")),
            (7, Err("odd")),
            (2, Err("two or four")),
            (104, Err("large")),
            (106, Err("two or four")),
        ] {
            assert_eq!(verdict(value), says, "{value}");
        }
    }
}
