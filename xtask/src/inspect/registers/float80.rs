//! Extended precision: the 80 bits of an x87 register as a decimal number.

use std::fmt;

/// Significant digits that tell any two values apart: ⌈1 + 64·log₁₀2⌉.
const DIGITS: usize = 21;
/// Bias of the exponent, and the bits of the significand behind the point.
const BIAS: i32 = 16383;
const FRACTION_BITS: i32 = 63;

/// An x87 register: sign, 15 bits of exponent, 64 of significand with an
/// explicit integer bit (SDM Vol. 1, 4.2.2 Floating-Point Data Types).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Float80 {
    /// Sign and exponent.
    pub sign_exponent: u16,
    /// Significand. MMX registers are these bits.
    pub significand: u64,
}

impl Float80 {
    /// The register in its ten bytes.
    pub fn from_bytes(bytes: &[u8; 16]) -> Self {
        let (significand, rest) = bytes.split_at(8);
        Self {
            sign_exponent: u16::from_le_bytes([rest[0], rest[1]]),
            significand: significand
                .iter()
                .rev()
                .fold(0, |value, byte| value << 8 | u64::from(*byte)),
        }
    }

    /// Whether all 80 bits are zero.
    pub const fn is_zero_bits(self) -> bool {
        self.sign_exponent == 0 && self.significand == 0
    }
}

/// The value in words or decimal digits (SDM Vol. 1, Table 4-3).
impl fmt::Display for Float80 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let negative = self.sign_exponent >> 15 == 1;
        let exponent = i32::from(self.sign_exponent & 0x7fff);
        let (integer, fraction) = (self.significand >> 63, self.significand << 1);
        let sign = if negative { "-" } else { "" };
        match (exponent, integer, fraction) {
            (0, 0, 0) => write!(f, "{sign}0"),
            (0x7fff, 1, 0) => write!(f, "{sign}infinity"),
            (0x7fff, 1, _) if negative && fraction == 1 << 63 => {
                f.write_str("indefinite (quiet NaN)")
            }
            (0x7fff, 1, _) if fraction >> 63 == 1 => write!(f, "{sign}quiet NaN"),
            (0x7fff, 1, _) => write!(f, "{sign}signalling NaN"),
            (0x7fff, ..) => f.write_str("unsupported (pseudo-NaN or pseudo-infinity)"),
            (1.., 0, _) => f.write_str("unsupported (unnormal)"),
            // A denormal's exponent is that of the smallest normal.
            (_, integer, _) => {
                let power = exponent.max(1) - BIAS - FRACTION_BITS;
                write!(f, "{sign}{}", decimal(self.significand, power))?;
                match (exponent, integer) {
                    (0, 0) => f.write_str(" (denormal)"),
                    (0, _) => f.write_str(" (pseudo-denormal)"),
                    _ => Ok(()),
                }
            }
        }
    }
}

/// `significand × 2^power`, rounded to [`DIGITS`] digits without trailing zeros.
fn decimal(significand: u64, power: i32) -> String {
    // Without its trailing zeros, m · 2^p; for p < 0 that is m · 5^-p / 10^-p.
    let shift = significand.trailing_zeros();
    let (mut number, power) = (Natural::from(significand >> shift), power + shift as i32);
    let mut point = 0;
    if power >= 0 {
        (0..power).for_each(|_| number.multiply(2));
    } else {
        (0..-power).for_each(|_| number.multiply(5));
        point = power;
    }
    let mut digits = number.into_digits();
    point += round(&mut digits);
    // The first digit stands before the point: d.ddd · 10^exponent.
    let exponent = digits.len() as i32 - 1 + point;
    let text: String = digits
        .iter()
        .map(|digit| char::from(b'0' + digit))
        .collect();
    let (first, rest) = text.split_at(1);
    match exponent {
        0.. if exponent < DIGITS as i32 => {
            let whole = exponent as usize + 1;
            if text.len() <= whole {
                format!("{text:0<whole$}")
            } else {
                format!("{}.{}", &text[..whole], &text[whole..])
            }
        }
        -5..0 => format!("0.{}{text}", "0".repeat((-exponent - 1) as usize)),
        _ if rest.is_empty() => format!("{first}e{exponent}"),
        _ => format!("{first}.{rest}e{exponent}"),
    }
}

/// Rounds to [`DIGITS`] digits, half to even, and drops trailing zeros; gives
/// how many digits went.
fn round(digits: &mut Vec<u8>) -> i32 {
    let mut gone = 0;
    if digits.len() > DIGITS {
        let cut = digits.split_off(DIGITS);
        gone = cut.len() as i32;
        let odd = digits.last().is_some_and(|digit| digit % 2 == 1);
        let tail = cut[1..].iter().any(|digit| *digit != 0);
        if cut[0] > 5 || cut[0] == 5 && (tail || odd) {
            // Nines carry on, and leave zeros, which go below.
            match digits.iter().rposition(|digit| *digit != 9) {
                Some(at) => {
                    digits[at] += 1;
                    digits[at + 1..].fill(0);
                }
                None => {
                    digits.fill(0);
                    digits[0] = 1;
                    digits.push(0);
                }
            }
        }
    }
    while digits.len() > 1 && digits.last() == Some(&0) {
        digits.pop();
        gone += 1;
    }
    gone
}

/// A natural number of any size, in base 10⁹, the lowest place first.
struct Natural(Vec<u32>);

const BASE: u64 = 1_000_000_000;

impl Natural {
    fn from(mut value: u64) -> Self {
        let mut places = Vec::new();
        while value != 0 {
            places.push((value % BASE) as u32);
            value /= BASE;
        }
        Self(places)
    }

    fn multiply(&mut self, factor: u32) {
        let mut carry = 0;
        for place in &mut self.0 {
            let product = u64::from(*place) * u64::from(factor) + carry;
            *place = (product % BASE) as u32;
            carry = product / BASE;
        }
        if carry != 0 {
            self.0.push(carry as u32);
        }
    }

    /// Its decimal digits, the first one first; none for zero.
    fn into_digits(self) -> Vec<u8> {
        let text: String = self
            .0
            .iter()
            .rev()
            .map(|place| format!("{place:09}"))
            .collect();
        text.trim_start_matches('0')
            .bytes()
            .map(|byte| byte - b'0')
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(sign_exponent: u16, significand: u64) -> String {
        Float80 {
            sign_exponent,
            significand,
        }
        .to_string()
    }

    /// The constants that FLD1, FLDPI, FLDL2T, FLDL2E, FLDLG2 and FLDLN2 load
    /// (SDM Vol. 1, Table 8-2's registers), and simple numbers.
    #[test]
    fn numbers() {
        for (sign_exponent, significand, text) in [
            (0x3fff, 1 << 63, "1"),
            (0xbfff, 1 << 63, "-1"),
            (0x4002, 0xa << 60, "10"),
            (0x3ffd, 1 << 63, "0.25"),
            (0x4000, 0xc90f_daa2_2168_c235, "3.14159265358979323851"),
            (0x4000, 0xd49a_784b_cd1b_8afe, "3.32192809488736234781"),
            (0x3fff, 0xb8aa_3b29_5c17_f0bc, "1.44269504088896340739"),
            (0x3ffd, 0x9a20_9a84_fbcf_f799, "0.301029995663981195226"),
            (0x3ffe, 0xb172_17f7_d1cf_79ac, "0.693147180559945309429"),
            (0x403e, u64::MAX, "18446744073709551615"),
            (0x7ffe, u64::MAX, "1.18973149535723176502e4932"),
            (0x0001, 1 << 63, "3.36210314311209350626e-4932"),
            (0x0000, 1, "3.64519953188247460253e-4951 (denormal)"),
            (
                0x0000,
                1 << 63,
                "3.36210314311209350626e-4932 (pseudo-denormal)",
            ),
        ] {
            assert_eq!(
                shown(sign_exponent, significand),
                text,
                "{sign_exponent:#x} {significand:#x}"
            );
        }
    }

    #[test]
    fn what_is_no_number() {
        for (sign_exponent, significand, text) in [
            (0, 0, "0"),
            (0x8000, 0, "-0"),
            (0x7fff, 1 << 63, "infinity"),
            (0xffff, 1 << 63, "-infinity"),
            (0xffff, 0xc000_0000_0000_0000, "indefinite (quiet NaN)"),
            (0x7fff, 0xc000_0000_0000_0000, "quiet NaN"),
            (0x7fff, 0x8000_0000_0000_0001, "signalling NaN"),
            (
                0x7fff,
                0x1234,
                "unsupported (pseudo-NaN or pseudo-infinity)",
            ),
            (0x3fff, 0x1234, "unsupported (unnormal)"),
        ] {
            assert_eq!(shown(sign_exponent, significand), text);
        }
    }

    /// Doubles are extended numbers too, and the standard library prints those.
    #[test]
    fn doubles_read_back() {
        let mut bits = 0x0123_4567_89ab_cdef_u64;
        for _ in 0..2000 {
            bits = bits.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            let double = f64::from_bits(bits);
            if !double.is_normal() {
                continue;
            }
            let exponent = (bits >> 52 & 0x7ff) as u16 + 16383 - 1023;
            let sign = (bits >> 63) as u16;
            let text = shown(sign << 15 | exponent, 1 << 63 | bits << 11);
            assert_eq!(text.parse::<f64>().unwrap(), double, "{text}");
        }
    }
}
