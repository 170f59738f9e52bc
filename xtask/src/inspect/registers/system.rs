//! The small components: MPX, PKRU and what IA32_XSS manages, field by field.

use vcpu_xstate::ComponentIndex as C;

use super::bits::{self, CET};
use super::vectors::words_of;
use super::{State, dump};
use crate::inspect::document::Section;

/// Names of the eight-byte words of a component, where that is all to say.
const WORDS: &[(C, &[&str])] = &[
    (C::BNDCSR, &["BNDCFGU", "BNDSTATUS"]),
    // SDM Vol. 1, 13.5.6: without the address ranges that a part lacks.
    (
        C::PT,
        &[
            "RTIT_CTL",
            "RTIT_OUTPUT_BASE",
            "RTIT_OUTPUT_MASK_PTRS",
            "RTIT_STATUS",
            "RTIT_CR3_MATCH",
            "RTIT_ADDR0_A",
            "RTIT_ADDR0_B",
            "RTIT_ADDR1_A",
            "RTIT_ADDR1_B",
        ],
    ),
    (C::CET_S, &["PL0_SSP", "PL1_SSP", "PL2_SSP"]),
    (C::HDC, &["PM_CTL1"]),
    (C::HWP, &["HWP_REQUEST"]),
    (
        C::APX,
        &[
            "r16", "r17", "r18", "r19", "r20", "r21", "r22", "r23", "r24", "r25", "r26", "r27",
            "r28", "r29", "r30", "r31",
        ],
    ),
];

/// The component's section; `None` where nothing here knows its fields.
pub fn explain(state: &State<'_>, component: C) -> Option<Section> {
    let bytes = state.of(component)?;
    let name = component.name()?;
    let words: Vec<u64> = words_of(Some(bytes)).collect();
    let word = |at: usize| words.get(at).copied().unwrap_or(0);
    let mut section = Section::new(name, name);
    match component {
        C::PKRU => {
            let value = u32::from_le_bytes(*bytes.first_chunk()?);
            section.hex("pkru", "PKRU", value.into(), &bits::pkru(value));
        }
        C::BNDREGS => {
            for bound in 0..4 {
                let (lower, upper) = (word(2 * bound), word(2 * bound + 1));
                // The upper bound is kept in one's complement (SDM Vol. 1,
                // Appendix E): INIT, both zero, is everything.
                section.hex(
                    &format!("bnd{bound}_lower"),
                    &format!("BND{bound}"),
                    lower,
                    &format!("to {:#x}", !upper),
                );
                section.value(
                    &format!("bnd{bound}_upper"),
                    crate::inspect::document::hex(!upper),
                );
            }
        }
        C::PASID => {
            let value = word(0);
            let meaning = if value >> 31 & 1 == 1 {
                "valid"
            } else {
                "not valid"
            };
            section.hex(
                "pasid",
                "PASID",
                value,
                &format!("{:#x}, {meaning}", value & 0xf_ffff),
            );
        }
        C::CET_U => {
            let (value, ssp) = (word(0), word(1));
            // The upper bits are the address of the legacy bitmap.
            section.hex("u_cet", "U_CET", value, &bits::names(value & 0xfff, CET));
            if value >> 12 != 0 {
                section.hex("legacy_bitmap", "legacy bitmap", value & !0xfff, "");
            }
            section.hex("pl3_ssp", "PL3_SSP", ssp, "");
        }
        C::UINTR => {
            section.hex("uintr_handler", "UINTR_HANDLER", word(0), "");
            section.hex(
                "uintr_stackadjust",
                "UINTR_STACKADJUST",
                word(1),
                if word(1) & 1 == 1 {
                    "load RSP"
                } else {
                    "subtract"
                },
            );
            let misc = word(2);
            section.hex(
                "uintr_misc",
                "UINTR_MISC",
                misc,
                &format!(
                    "table of {}, UINV {:#x}, UIF {}",
                    (misc & 0xffff_ffff) + 1,
                    misc >> 32 & 0xff,
                    misc >> 63
                ),
            );
            section.hex("uintr_pd", "UINTR_PD", word(3), "");
            section.hex("uintr_rr", "UINTR_RR", word(4), "");
            section.hex(
                "uintr_tt",
                "UINTR_TT",
                word(5),
                if word(5) & 1 == 1 { "SENDUIPI on" } else { "" },
            );
        }
        C::LBR => branches(&mut section, &words),
        _ => {
            let names = WORDS.iter().find(|(known, _)| *known == component)?.1;
            for (name, value) in names.iter().zip(&words) {
                if *value != 0 || names.len() <= 3 {
                    section.hex(&name.to_lowercase(), name, *value, "");
                }
            }
        }
    }
    Some(section)
}

/// Architectural last-branch records (SDM Vol. 1, 13.5.12).
fn branches(section: &mut Section, words: &[u64]) {
    let word = |at: usize| words.get(at).copied().unwrap_or(0);
    section.hex(
        "lbr_ctl",
        "LBR_CTL",
        word(0),
        if word(0) & 1 == 1 { "recording" } else { "off" },
    );
    section.field(
        "lbr_depth",
        "LBR_DEPTH",
        word(1).into(),
        word(1).to_string(),
    );
    for entry in 0..33 {
        let at = 2 + 3 * entry;
        let (from, to, info) = (word(at), word(at + 1), word(at + 2));
        if from | to | info == 0 {
            continue;
        }
        let name = if entry == 0 {
            "LER".to_owned()
        } else {
            format!("LBR_{}", entry - 1)
        };
        let text = format!("{from:#x} to {to:#x}, info {info:#x}");
        section.field(
            &name.to_lowercase(),
            &name,
            serde_json::json!([
                format!("{from:#x}"),
                format!("{to:#x}"),
                format!("{info:#x}")
            ]),
            text,
        );
    }
}

/// A component whose fields nothing here knows: its bytes.
pub fn unknown(bytes: &[u8], key: &str, full: bool) -> Section {
    /// What is shown of it unless all is asked for.
    const SHOWN: usize = 128;
    let mut section = Section::new(key, key);
    let shown = if full {
        bytes
    } else {
        bytes.get(..SHOWN).unwrap_or(bytes)
    };
    section.field(
        "bytes",
        "bytes",
        dump::hex_string(bytes),
        dump::rows(shown, 32),
    );
    if shown.len() < bytes.len() {
        section.line(format!(
            "… {} bytes more (--full)",
            bytes.len() - shown.len()
        ));
    }
    section
}
