//! Words for bits: control and status words by the names of their flags.

/// The names of the bits of `value` that have one, and the rest as a number.
pub fn names(value: u64, bits: &[(u32, &str)]) -> String {
    let mut words: Vec<String> = bits
        .iter()
        .filter(|(bit, _)| value >> bit & 1 == 1)
        .map(|(_, name)| (*name).to_owned())
        .collect();
    let known = bits.iter().fold(0, |mask, (bit, _)| mask | 1u64 << bit);
    if value & !known != 0 {
        words.push(format!("other bits {:#x}", value & !known));
    }
    words.join(" ")
}

/// Exceptions, in the order of FSW, of FCW's masks and of MXCSR.
const EXCEPTIONS: [&str; 6] = ["IM", "DM", "ZM", "OM", "UM", "PM"];
const FLAGS: [&str; 6] = ["IE", "DE", "ZE", "OE", "UE", "PE"];
const ROUNDING: [&str; 4] = ["to nearest", "down", "up", "toward zero"];

/// Six mask bits: all, none, or which are open.
fn masks(six: u32) -> String {
    let open: Vec<&str> = (0..6)
        .filter(|bit| six >> bit & 1 == 0)
        .map(|bit| EXCEPTIONS[bit])
        .collect();
    match open.len() {
        0 => "all exceptions masked".into(),
        6 => "no exception masked".into(),
        _ => format!("not masked: {}", open.join(" ")),
    }
}

/// Six flag bits that are set.
fn flags(six: u32) -> Vec<&'static str> {
    (0..6)
        .filter(|bit| six >> bit & 1 == 1)
        .map(|bit| FLAGS[bit])
        .collect()
}

/// FCW (SDM Vol. 1, 8.1.5 x87 FPU Control Word).
pub fn fcw(value: u16) -> String {
    let precision = [
        "24-bit precision",
        "reserved precision",
        "53-bit precision",
        "64-bit precision",
    ];
    let mut words = vec![
        format!("round {}", ROUNDING[usize::from(value >> 10 & 3)]),
        precision[usize::from(value >> 8 & 3)].to_owned(),
        masks(u32::from(value)),
    ];
    // Bit 6 is always 1 and bit 12 (infinity control) means nothing since the 387.
    let other = value & 0xe080;
    if other != 0 {
        words.push(format!("other bits {other:#x}"));
    }
    words.join(", ")
}

/// FSW (SDM Vol. 1, 8.1.3 x87 FPU Status Register).
pub fn fsw(value: u16) -> String {
    let mut words = vec![format!("TOP {}", value >> 11 & 7)];
    words.extend(flags(u32::from(value)).into_iter().map(str::to_owned));
    for (bit, name) in [
        (6, "SF"),
        (7, "ES"),
        (8, "C0"),
        (9, "C1"),
        (10, "C2"),
        (14, "C3"),
        (15, "B"),
    ] {
        if value >> bit & 1 == 1 {
            words.push(name.to_owned());
        }
    }
    words.join(" ")
}

/// MXCSR (SDM Vol. 1, 10.2.3 MXCSR Control and Status Register; bit 17 is AMD's MM).
pub fn mxcsr(value: u32) -> String {
    let mut words = vec![
        format!("round {}", ROUNDING[(value >> 13 & 3) as usize]),
        masks(value >> 7),
    ];
    let flags = flags(value);
    if !flags.is_empty() {
        words.push(format!("flags {}", flags.join(" ")));
    }
    for (bit, name) in [(6, "DAZ"), (15, "FTZ"), (17, "MM")] {
        if value >> bit & 1 == 1 {
            words.push(name.to_owned());
        }
    }
    if value & !0x2_ffff != 0 {
        words.push(format!("reserved bits {:#x}", value & !0x2_ffff));
    }
    words.join(", ")
}

/// PKRU: the keys of each right together (SDM Vol. 3A, 4.6.2 Protection Keys).
pub fn pkru(value: u32) -> String {
    let rights = |key: u32| match value >> (2 * key) & 3 {
        0 => "read and write",
        2 => "read only",
        _ => "no access",
    };
    let mut words = Vec::new();
    for right in ["read and write", "read only", "no access"] {
        let keys: Vec<u32> = (0..16).filter(|key| rights(*key) == right).collect();
        if !keys.is_empty() {
            words.push(format!("{right}: {}", runs(&keys)));
        }
    }
    words.join("; ")
}

/// Ascending numbers, what follows each other as first and last.
fn runs(numbers: &[u32]) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for &number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let words: Vec<String> = runs
        .iter()
        .map(|(first, last)| match last - first {
            0 => first.to_string(),
            1 => format!("{first} {last}"),
            _ => format!("{first}–{last}"),
        })
        .collect();
    words.join(" ")
}

/// IA32_U_CET and IA32_S_CET (SDM Vol. 1, 17.1.2; Vol. 4, MSR 6A0H).
pub const CET: &[(u32, &str)] = &[
    (0, "SH_STK_EN"),
    (1, "WR_SHSTK_EN"),
    (2, "ENDBR_EN"),
    (3, "LEG_IW_EN"),
    (4, "NO_TRACK_EN"),
    (5, "SUPPRESS_DIS"),
    (10, "SUPPRESS"),
    (11, "TRACKER"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_words_in_words() {
        assert_eq!(
            fcw(0x037f),
            "round to nearest, 64-bit precision, all exceptions masked"
        );
        assert_eq!(
            fcw(0x0e7b),
            "round toward zero, 53-bit precision, not masked: ZM"
        );
        assert_eq!(fsw(0x3881), "TOP 7 IE ES");
        assert_eq!(mxcsr(0x1f80), "round to nearest, all exceptions masked");
        assert_eq!(
            mxcsr(0x1fa5),
            "round to nearest, all exceptions masked, flags IE ZE PE"
        );
        assert_eq!(
            mxcsr(0xff_9fc0),
            "round to nearest, all exceptions masked, DAZ, FTZ, MM, reserved bits 0xfd0000"
        );
    }

    #[test]
    fn rights_by_key() {
        assert_eq!(pkru(0), "read and write: 0–15");
        assert_eq!(
            pkru(0x5555_5558),
            "read and write: 0; read only: 1; no access: 2–15"
        );
        // A line of 250 characters where keys alternate.
        assert_eq!(
            pkru(0x9999_9999),
            "read only: 1 3 5 7 9 11 13 15; no access: 0 2 4 6 8 10 12 14"
        );
    }

    #[test]
    fn bits_without_a_name_are_shown() {
        assert_eq!(
            names(0x8000_0003, CET),
            "SH_STK_EN WR_SHSTK_EN other bits 0x80000000"
        );
        assert_eq!(names(0, CET), "");
    }
}
