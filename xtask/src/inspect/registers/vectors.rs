//! XMM, YMM and ZMM put together from the components that hold their parts.

use serde_json::{Value, json};
use vcpu_xstate::ComponentIndex as C;

use super::State;
use super::bits;
use crate::inspect::document::{Section, hex};

/// Bytes of each of a register's parts: XMM, the upper half of YMM, that of ZMM.
const XMM: usize = 16;
const YMM_HI: usize = 16;
const ZMM_HI: usize = 32;
const ZMM: usize = 64;

/// A register, its parts put together, lowest byte first.
struct Register {
    name: String,
    bytes: Vec<u8>,
}

/// MXCSR, the vector registers that are not zero, and the mask registers.
pub fn explain(state: &State<'_>) -> Section {
    let mut section = Section::new("vector", "vector registers");
    let mxcsr = state.mxcsr;
    section.field(
        "mxcsr",
        "MXCSR",
        hex(mxcsr.into()),
        format!("{mxcsr:#010x}  {}", bits::mxcsr(mxcsr)),
    );
    for (number, word) in words_of(state.of(C::OPMASK)).enumerate() {
        if word != 0 {
            section.field(
                &format!("k{number}"),
                &format!("k{number}"),
                hex(word),
                format!("{word:#018x}"),
            );
        }
    }
    let mut zero = 0;
    for register in registers(state) {
        match register {
            Some(register) => section.field(
                &register.name,
                &register.name,
                Value::String(format!("0x{}", digits(&register.bytes))),
                lines(&register.bytes),
            ),
            None => zero += 1,
        }
    }
    section.value("zero", json!(zero));
    let all = if state.of(C::HI16_ZMM).is_some() {
        32
    } else {
        16
    };
    let lost = super::VECTORS.iter().any(|part| state.lost.has(*part));
    match zero {
        0 => {}
        zero if lost => section.line(format!(
            "{zero} vector registers zero, as far as can be read"
        )),
        zero if zero == all => section.line(format!("all {all} vector registers zero")),
        zero => section.line(format!("the other {zero} vector registers zero")),
    }
    section
}

/// Each register by the name of the widest part of it that is not zero, or
/// `None` where all of it is.
fn registers(state: &State<'_>) -> Vec<Option<Register>> {
    let part = |component, number: usize, size: usize| -> &[u8] {
        state
            .of(component)
            .and_then(|bytes| bytes.get(number * size..(number + 1) * size))
            .unwrap_or_default()
    };
    let mut all: Vec<Option<Register>> = (0..16)
        .map(|number| {
            let parts = [
                ("xmm", part(C::SSE, number, XMM)),
                ("ymm", part(C::AVX, number, YMM_HI)),
                ("zmm", part(C::ZMM_HI256, number, ZMM_HI)),
            ];
            let widest = parts
                .iter()
                .rposition(|(_, bytes)| bytes.iter().any(|byte| *byte != 0))?;
            let mut bytes = Vec::new();
            for ((_, part), size) in parts[..=widest].iter().zip([XMM, YMM_HI, ZMM_HI]) {
                bytes.extend_from_slice(part);
                // A part that is INIT is zero.
                bytes.resize(bytes.len() + size - part.len(), 0);
            }
            Some(Register {
                name: format!("{}{number}", parts[widest].0),
                bytes,
            })
        })
        .collect();
    if state.of(C::HI16_ZMM).is_some() {
        all.extend((0..16).map(|number| {
            let bytes = part(C::HI16_ZMM, number, ZMM);
            bytes.iter().any(|byte| *byte != 0).then(|| Register {
                name: format!("zmm{}", number + 16),
                bytes: bytes.to_vec(),
            })
        }));
    }
    all
}

/// Words of eight bytes.
pub fn words_of(bytes: Option<&[u8]>) -> impl Iterator<Item = u64> {
    let (words, _) = bytes.unwrap_or_default().as_chunks::<8>();
    words.iter().map(|word| u64::from_le_bytes(*word))
}

/// All digits, the highest first.
fn digits(bytes: &[u8]) -> String {
    bytes
        .iter()
        .rev()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The same for reading: 64 bits at a time, 256 bits to a line.
fn lines(bytes: &[u8]) -> String {
    let mut words: Vec<String> = words_of(Some(bytes))
        .map(|word| format!("{word:016x}"))
        .collect();
    words.reverse();
    let lines: Vec<String> = words.chunks(4).map(|line| line.join(" ")).collect();
    lines.join("\n")
}
