//! x87 and MMX: the first 160 bytes of the legacy region.

use serde_json::json;
use vcpu_xstate::legacy::LegacyRegion;

use super::bits;
use super::float80::Float80;
use crate::inspect::document::{Section, Table, hex, numbers, words};

/// The x87 registers; with `selectors`, FIP and FDP are offsets of 32 bits and
/// FCS and FDS stand behind them (SDM Vol. 1, 10.5.1, without REX.W).
pub fn explain(legacy: &LegacyRegion, selectors: bool) -> Section {
    let (fcw, fsw) = (legacy.fcw.get(), legacy.fsw.get());
    let mut section = Section::new("x87", "x87");
    let word = |value: u16, meaning: String| format!("{value:#06x}  {meaning}");
    section.field("fcw", "FCW", hex(fcw.into()), word(fcw, bits::fcw(fcw)));
    section.field("fsw", "FSW", hex(fsw.into()), word(fsw, bits::fsw(fsw)));
    section.field(
        "ftw",
        "FTW",
        hex(legacy.ftw.into()),
        format!("{:#04x}    {}", legacy.ftw, in_use(legacy.ftw)),
    );
    // Zero where nothing was executed, and on machines that do not tell.
    let (fop, fip, fdp) = (legacy.fop.get(), legacy.fip.get(), legacy.fdp.get());
    section.field("fop", "FOP", hex(fop.into()), opcode(fop));
    for (pointer, selector, value) in [("FIP", "FCS", fip), ("FDP", "FDS", fdp)] {
        let mut number = |name: &str, value: u64| {
            let key = name.to_lowercase();
            section.field(&key, name, hex(value), format!("{value:#x}"));
        };
        if selectors {
            number(pointer, value & u64::from(u32::MAX));
            number(selector, value >> 32 & u64::from(u16::MAX));
        } else {
            number(pointer, value);
        }
    }
    let stack = stack(legacy);
    if stack.is_empty() {
        section.value("st", json!([]));
    } else {
        section.table(stack);
    }
    section
}

/// The abridged tag word: a bit for each register that is in use, by its
/// physical number (SDM Vol. 1, 10.5.1.1 x87 State).
fn in_use(ftw: u8) -> String {
    let used: Vec<String> = (0..8)
        .filter(|register| ftw >> register & 1 == 1)
        .map(|register| format!("R{register}"))
        .collect();
    match used.len() {
        0 => "all registers empty".into(),
        8 => "all registers in use".into(),
        _ => format!("in use: {}", used.join(" ")),
    }
}

/// The last opcode: 11 bits, of which the first byte's upper five are always 11011.
fn opcode(fop: u16) -> String {
    if fop == 0 {
        return "0".into();
    }
    format!("{fop:#06x}  {:02x} {:02x}", 0xd8 | fop >> 8 & 7, fop & 0xff)
}

/// The stack from its top; registers that are empty and zero are left out.
fn stack(legacy: &LegacyRegion) -> Table {
    let top = usize::from(legacy.fsw.get() >> 11 & 7);
    let mut table = Table::new(
        "st",
        &[words(""), words(""), words(""), numbers(""), words("")],
    );
    for (number, bytes) in legacy.st.iter().enumerate() {
        let physical = (top + number) % 8;
        let used = legacy.ftw >> physical & 1 == 1;
        let value = Float80::from_bytes(bytes);
        if !used && value.is_zero_bits() {
            continue;
        }
        let mut shown = value.to_string();
        if !used {
            shown.push_str("  (empty: left from before)");
        }
        table.row(
            vec![
                format!("ST({number})"),
                format!("R{physical}"),
                format!("{:04x}", value.sign_exponent),
                format!("{:016x}", value.significand),
                shown,
            ],
            json!({
                "st": number,
                "register": physical,
                "in_use": used,
                "sign_exponent": format!("{:#06x}", value.sign_exponent),
                "significand": format!("{:#018x}", value.significand),
                "value": value.to_string(),
            }),
        );
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stack_turns_with_top() {
        let mut legacy = LegacyRegion::INIT;
        legacy.fsw.set(6 << 11);
        legacy.ftw = 0x80;
        // ST(0) is R6, empty and zero; ST(1) is R7, in use.
        legacy.st[1][..10].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0x3f]);
        let json = explain(&legacy, false).json();
        assert_eq!(json["st"].as_array().unwrap().len(), 1);
        assert_eq!(json["st"][0]["register"], 7);
        assert_eq!(json["st"][0]["value"], "1");
        assert_eq!(json["fcw"], "0x37f");
        assert_eq!(in_use(0), "all registers empty");
        assert_eq!(opcode(0x1e8), "0x01e8  d9 e8");
    }
}
