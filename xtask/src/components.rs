//! Components as they are typed: names with commas between, or masks in hexadecimal; one reading for all commands.

use std::num::IntErrorKind;

use anyhow::{Context, Result, anyhow, bail, ensure};
use vcpu_xstate::{ComponentIndex, ComponentSet};

/// The components of `text`: `avx,pkru`, `0x204`, or both together. A number
/// alone could be either a mask or a component, and is refused.
pub fn parse(text: &str) -> Result<ComponentSet> {
    ensure!(!text.is_empty(), "no component is named");
    text.split(',').try_fold(ComponentSet::EMPTY, |all, word| {
        Ok(all.union(word_of(word.trim())?))
    })
}

fn word_of(word: &str) -> Result<ComponentSet> {
    if let Some(digits) = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")) {
        let bits = u64::from_str_radix(digits, 16).map_err(|why| match why.kind() {
            IntErrorKind::PosOverflow => anyhow!("mask {word:?}: more than 64 bits"),
            _ => anyhow!("mask {word:?}: no hexadecimal number"),
        })?;
        ensure!(bits != 0, "mask {word:?}: no component is named");
        let mask = ComponentSet::from_bits(bits);
        return mask.with_context(|| format!("mask {word:?}: bit 63 is no component"));
    }
    if let Some(component) = ComponentIndex::from_name(&word.to_lowercase()) {
        return Ok(ComponentSet::only(component));
    }
    let Ok(number) = word.parse::<u64>() else {
        let names = ComponentSet::NAMED.iter().filter_map(ComponentIndex::name);
        let names: Vec<&str> = names.collect();
        bail!(
            "no component {word:?}: a mask (0x204), or names with commas between, of {}",
            names.join(" ")
        );
    };
    let index = u8::try_from(number).ok().and_then(ComponentIndex::new);
    match index {
        Some(index) => {
            let name = index
                .name()
                .map_or(String::new(), |name| format!("{name}, "));
            bail!(
                "{number}: 0x{word} is a mask, {number} would be a component ({name}mask {:#x}); \
                 write the one that is meant",
                index.bit()
            )
        }
        None => bail!("{number}: a mask begins with 0x"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `layout --mask 7` was component 7, `inspect --xcr0 7` the mask 7, and
    /// `--xcr0 avx` an "invalid digit".
    #[test]
    fn a_mask_is_read_the_same_everywhere() {
        for (text, bits) in [
            ("0x602e7", 0x6_02e7),
            ("avx,pkru", 0x204),
            ("AVX, 0x1", 0x5),
            ("lwp", 1 << 62),
        ] {
            assert_eq!(parse(text).unwrap().bits(), bits, "{text}");
        }
        let said = |text: &str| parse(text).unwrap_err().to_string();
        assert!(said("0x10000000000000000").ends_with("more than 64 bits"));
        assert!(said("0x0").ends_with("no component is named"));
        assert!(said("cet").contains(" cet_u cet_s "));
        for bad in ["", "0x", "0x8000000000000000", "ymm", "avx,", "-1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_bare_number_is_refused_with_both_readings() {
        let said = |text: &str| parse(text).unwrap_err().to_string();
        let seven = "7: 0x7 is a mask, 7 would be a component (hi16_zmm, mask 0x80); \
                     write the one that is meant";
        assert_eq!(said("7"), seven);
        assert!(said("avx,23").contains("component (mask 0x800000)"));
        assert_eq!(said("743"), "743: a mask begins with 0x");
    }
}
