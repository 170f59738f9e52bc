//! The linked hypervisor touches no vector or x87 register.
//!
//! While it runs, these registers hold a guest's state: an exit that returns to
//! the same vCPU saves nothing. Compiling for `x86_64-unknown-none` should see
//! to that; this looks at what the linker really put together.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result};
use iced_x86::{
    CpuidFeature, Decoder, DecoderOptions, Instruction, InstructionInfoFactory, Mnemonic, Register,
};
use object::{Object, ObjectSection, ObjectSymbol, SectionFlags, SymbolKind};

use super::Finding;

/// Instructions that move a guest's whole state or prepare for it.
const STATE_INSTRUCTIONS: &[Mnemonic] = &[
    Mnemonic::Xsave,
    Mnemonic::Xsave64,
    Mnemonic::Xsaveopt,
    Mnemonic::Xsaveopt64,
    Mnemonic::Xsavec,
    Mnemonic::Xsavec64,
    Mnemonic::Xsaves,
    Mnemonic::Xsaves64,
    Mnemonic::Xrstor,
    Mnemonic::Xrstor64,
    Mnemonic::Xrstors,
    Mnemonic::Xrstors64,
    Mnemonic::Fxsave,
    Mnemonic::Fxsave64,
    Mnemonic::Fxrstor,
    Mnemonic::Fxrstor64,
    Mnemonic::Fninit,
    Mnemonic::Fnclex,
    Mnemonic::Fnstsw,
    Mnemonic::Ffree,
    Mnemonic::Fild,
    Mnemonic::Ldmxcsr,
    Mnemonic::Stmxcsr,
];

/// The functions that may hold them, by a part of the symbol's mangled name: those
/// of the module `hw`, and of its trait for the real processor.
const STATE_FUNCTIONS: &[&str] = &[
    "11vcpu_xstate2hw",
    "vcpu_xstate..hw..silicon..Silicon",
    // The bench's bare pair of XSAVEC and XRSTOR.
    "xstate_bench_pair_once",
];

/// The one that reads MXCSR_MASK, which only FXSAVE gives, before there is a
/// guest whose state could be seen.
const MASK_FUNCTION: &str = "6xferry7bringup6xstate8bring_up";

/// Where the boot loader enters, in 32-bit protected mode; long mode begins at
/// the label behind it.
const ENTRY_32: &str = "_start";

/// Checks every executable section of the program at `path`.
pub fn check(path: &Path) -> Result<Vec<Finding>> {
    let data = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let file = object::File::parse(&*data).with_context(|| format!("{} as ELF", path.display()))?;
    let symbols = Symbols::read(&file);

    let mut findings = Vec::new();
    let mut executable = 0;
    for section in file.sections() {
        let SectionFlags::Elf { sh_flags, .. } = section.flags() else {
            continue;
        };
        if sh_flags.0 & object::elf::SHF_EXECINSTR.0 == 0 {
            continue;
        }
        executable += 1;
        let code = section.data()?;
        let start = section.address();
        let end = start + code.len() as u64;
        // Decoding starts anew at each symbol: padding or data before it cannot
        // put it out of step.
        let mut starts = vec![start];
        starts.extend(symbols.addresses(start..end));
        for (index, &from) in starts.iter().enumerate() {
            let to = starts.get(index + 1).copied().unwrap_or(end);
            let body = usize::try_from(from - start)
                .ok()
                .zip(usize::try_from(to - start).ok())
                .and_then(|(from, to)| code.get(from..to))
                .unwrap_or_default();
            let name = symbols.name(from).unwrap_or(section.name().unwrap_or("?"));
            findings.extend(check_function(name, body, from));
        }
    }
    if executable == 0 {
        findings.push(Finding::new(
            path.display().to_string(),
            "has no executable section",
        ));
    }
    Ok(findings)
}

/// The program's symbols, by address.
struct Symbols<'a>(Vec<Symbol<'a>>);

struct Symbol<'a> {
    address: u64,
    /// 0 for a label, which may well stand within a function.
    size: u64,
    name: &'a str,
}

impl<'a> Symbols<'a> {
    fn read(file: &'a object::File<'a>) -> Self {
        let kinds = [SymbolKind::Text, SymbolKind::Label, SymbolKind::Unknown];
        let mut symbols: Vec<Symbol<'a>> = file
            .symbols()
            .filter(|symbol| kinds.contains(&symbol.kind()) && symbol.address() != 0)
            .filter_map(|symbol| {
                let (address, size, name) = (symbol.address(), symbol.size(), symbol.name().ok()?);
                (!name.is_empty()).then_some(Symbol {
                    address,
                    size,
                    name,
                })
            })
            .collect();
        symbols.sort_by_key(|symbol| symbol.address);
        Self(symbols)
    }

    /// Where something begins in `range`, ascending.
    fn addresses(&self, range: Range<u64>) -> Vec<u64> {
        let mut addresses: Vec<u64> = self.0.iter().map(|symbol| symbol.address).collect();
        addresses.retain(|address| range.contains(address));
        addresses.dedup();
        addresses
    }

    /// The function around `address`, or else the label there.
    fn name(&self, address: u64) -> Option<&'a str> {
        let around = |symbol: &&Symbol<'_>| {
            (symbol.address..symbol.address.saturating_add(symbol.size)).contains(&address)
        };
        let label = |symbol: &&Symbol<'_>| symbol.address == address;
        self.0
            .iter()
            .find(around)
            .or_else(|| self.0.iter().find(label))
            .map(|symbol| symbol.name)
    }
}

fn check_function(name: &str, body: &[u8], address: u64) -> Vec<Finding> {
    let state_allowed = STATE_FUNCTIONS.iter().any(|part| name.contains(part));
    let mut info = InstructionInfoFactory::new();
    let mut findings = Vec::new();
    let bits = if name == ENTRY_32 { 32 } else { 64 };
    for instruction in &mut Decoder::with_ip(bits, body, address, DecoderOptions::NONE) {
        let what = if STATE_INSTRUCTIONS.contains(&instruction.mnemonic()) {
            let mask = instruction.mnemonic() == Mnemonic::Fxsave64 && name.contains(MASK_FUNCTION);
            if state_allowed || mask {
                continue;
            }
            "moves extended state outside the functions that may"
        } else if touches_state(&instruction, &mut info) {
            "uses a register that holds a guest's extended state"
        } else {
            continue;
        };
        let place = format!("{name} at {:#x}", instruction.ip());
        findings.push(Finding::new(
            place,
            format!("{:?} {what}", instruction.code()),
        ));
    }
    findings
}

fn touches_state(instruction: &Instruction, info: &mut InstructionInfoFactory) -> bool {
    if instruction.is_invalid() {
        return false;
    }
    let old = [
        CpuidFeature::FPU,
        CpuidFeature::FPU287,
        CpuidFeature::FPU287XL_ONLY,
        CpuidFeature::FPU387,
        CpuidFeature::FPU387SL_ONLY,
        CpuidFeature::MMX,
    ];
    instruction
        .cpuid_features()
        .iter()
        .any(|feature| old.contains(feature))
        || info
            .info(instruction)
            .used_registers()
            .iter()
            .any(|used| holds_state(used.register()))
}

fn holds_state(register: Register) -> bool {
    register.is_vector_register()
        || register.is_st()
        || register.is_mm()
        || register.is_k()
        || register.is_bnd()
        || register.is_tmm()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HW: &str = "_ZN11vcpu_xstate2hw4save17h0123456789abcdefE";

    fn findings(name: &str, body: &[u8]) -> usize {
        check_function(name, body, 0x10_0000).len()
    }

    #[test]
    fn registers_of_a_guest_are_refused_everywhere() {
        for body in [
            &[0x0f, 0x28, 0xc1][..],               // movaps xmm0, xmm1
            &[0x0f, 0x11, 0x07],                   // movups [rdi], xmm0
            &[0xc5, 0xfc, 0x77],                   // vzeroall
            &[0x62, 0xf1, 0x7c, 0x48, 0x28, 0xc1], // vmovaps zmm0, zmm1
            &[0xd9, 0xe8],                         // fld1
            &[0x0f, 0x6f, 0xc1],                   // movq mm0, mm1
            &[0x0f, 0x77],                         // emms
            &[0xc5, 0xf8, 0x90, 0xc9],             // kmovw k1, k1
        ] {
            assert_eq!(findings("main", body), 1, "{body:x?}");
            assert_eq!(findings(HW, body), 1, "{body:x?}");
        }
    }

    #[test]
    fn whole_state_instructions_stay_in_their_module() {
        for body in [
            &[0x48, 0x0f, 0xae, 0x27][..], // xsave64 [rdi]
            &[0x48, 0x0f, 0xc7, 0x1f],     // xrstors64 [rdi]
            &[0xdb, 0xe3],                 // fninit
            &[0x0f, 0xae, 0x17],           // ldmxcsr [rdi]
        ] {
            assert_eq!(findings("main", body), 1, "{body:x?}");
            assert_eq!(findings(HW, body), 0, "{body:x?}");
        }
    }

    /// A far jump in 32-bit code was taken for `fst` where the address that it
    /// goes to happened to say so.
    #[test]
    fn the_entry_is_32_bit_code() {
        let far_jump = [0xea, 0x8a, 0xd9, 0x14, 0x00, 0x08, 0x00];
        assert_eq!(findings("_start", &far_jump), 0);
        assert_eq!(findings("main", &far_jump), 1);
        assert_eq!(findings("_start", &[0xd9, 0xe8]), 1); // fld1
    }

    #[test]
    fn the_mask_is_read_in_one_place() {
        let bring_up = "_ZN6xferry7bringup6xstate8bring_up17h0123456789abcdefE";
        assert_eq!(findings(bring_up, &[0x48, 0x0f, 0xae, 0x07]), 0); // fxsave64 [rdi]
        assert_eq!(findings(bring_up, &[0x48, 0x0f, 0xae, 0x0f]), 1); // fxrstor64 [rdi]
        assert_eq!(findings("main", &[0x48, 0x0f, 0xae, 0x07]), 1);
    }

    #[test]
    fn a_label_belongs_to_the_function_around_it() {
        let symbol = |address, size, name| Symbol {
            address,
            size,
            name,
        };
        let symbols = Symbols(vec![
            symbol(0x100, 0x20, "f"),
            symbol(0x108, 0, "label"),
            symbol(0x120, 0, "start"),
        ]);
        assert_eq!(symbols.addresses(0x100..0x200), [0x100, 0x108, 0x120]);
        assert_eq!(symbols.name(0x108), Some("f"));
        assert_eq!(symbols.name(0x120), Some("start"));
        assert_eq!(symbols.name(0x130), None);
    }

    #[test]
    fn ordinary_code_passes() {
        // push rbp; mov rbp, rsp; xsetbv; rdtsc; vmrun rax; sfence; mfence; pause; ret
        let body = [
            0x55, 0x48, 0x89, 0xe5, 0x0f, 0x01, 0xd1, 0x0f, 0x31, 0x0f, 0x01, 0xd8, 0x0f, 0xae,
            0xf8, 0x0f, 0xae, 0xf0, 0xf3, 0x90, 0xc3,
        ];
        assert_eq!(findings("main", &body), 0);
    }
}
