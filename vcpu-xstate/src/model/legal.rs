//! Which values XRSTOR and XRSTORS refuse to load, register by register.
//!
//! SDM Vol. 1, 13.5: a restore of supervisor state faults where WRMSR of the
//! same register would. User state is loaded whatever it is; of BNDCFGU and
//! TILECFG other values than those in the area ([`bound_configuration`],
//! [`tile_configuration`]).
//! What PT and HWP allow depends on further CPUID leaves; the model takes any
//! value of them but reserved bits that no processor has.

use crate::component::ComponentIndex;

use super::fault::Reason;
use super::machine::Machine;
use super::registers::le64;

/// What a register takes.
#[derive(Clone, Copy)]
enum Takes {
    /// These bits, any combination.
    Bits(u64),
    /// A canonical address, with these low bits clear or not as they like and
    /// those in the second mask clear.
    Address(u64),
    /// IA32_U_CET: an address of the legacy bitmap, flags, not both TRACKER
    /// and SUPPRESS.
    CetControl,
    /// A shadow-stack pointer.
    ShadowStack,
    /// IA32_LBR_CTL: the enable, and what leaf 1CH lists.
    LbrControl,
    /// IA32_LBR_DEPTH: a multiple of 8 up to 64.
    LbrDepth,
    /// Anything.
    Any,
}

/// The registers of a component in order, 8 bytes each; what follows the last
/// one takes anything.
fn registers(component: u8) -> &'static [Takes] {
    use Takes::{Address, Any, Bits, CetControl, LbrControl, LbrDepth, ShadowStack};
    match component {
        // IA32_RTIT_CTL and eight more: bits above those of any version.
        8 => &[Bits(0x03ff_ffff_ffff_ffff)],
        // IA32_PASID: PASID and its valid bit.
        10 => &[Bits(0x8000_0000 | 0xf_ffff)],
        // IA32_U_CET, IA32_PL3_SSP.
        11 => &[CetControl, ShadowStack],
        // IA32_PL0_SSP to IA32_PL2_SSP.
        12 => &[ShadowStack, ShadowStack, ShadowStack],
        // IA32_PM_CTL1: HDC_Allow_Block.
        13 => &[Bits(1)],
        // UIHANDLER; UISTACKADJUST; UITTSZ, UINV and UIF; UPIDADDR; UIRR;
        // UITTADDR with its valid bit.
        14 => &[
            Address(0),
            Address(0b110),
            Bits(0xffff_ffff | 0xff << 32 | 1 << 63),
            Address(0x3f),
            Any,
            Address(0b1110),
        ],
        // Then LER and the 32 records, see `check`.
        15 => &[LbrControl, LbrDepth],
        _ => &[],
    }
}

/// Whether XRSTOR or XRSTORS would load these registers of a component, of LBR
/// state as many as it loads.
pub(super) fn check(
    component: ComponentIndex,
    bytes: &[u8],
    machine: &Machine,
) -> Result<(), Reason> {
    let number = component.get();
    let table = registers(number);
    for (i, takes) in table.iter().enumerate() {
        judge(component, *takes, le64(bytes, 8 * i), machine)?;
    }
    if number == 15 {
        // LER_FROM, LER_TO, LER_INFO; LBR_n_FROM, LBR_n_TO, LBR_n_INFO.
        for (i, word) in bytes.chunks_exact(8).skip(table.len()).enumerate() {
            let takes = if i % 3 < 2 {
                Takes::Address(0)
            } else {
                // Vol. 4, Table 2-2: cycle count, branch type and flags, on some
                // processors counters. What is none of them is undefined, not
                // reserved: writes of it do not fault.
                Takes::Any
            };
            judge(component, takes, le64(word, 0), machine)?;
        }
    }
    Ok(())
}

fn judge(
    component: ComponentIndex,
    takes: Takes,
    value: u64,
    machine: &Machine,
) -> Result<(), Reason> {
    let bits = machine.linear_address_bits;
    let reserved = Err(Reason::ReservedValue(component, value));
    match takes {
        Takes::Any => Ok(()),
        Takes::Bits(allowed) if value & !allowed == 0 => Ok(()),
        Takes::Bits(_) => reserved,
        Takes::Address(clear) => {
            if !canonical(value, bits) {
                Err(Reason::NonCanonical(component, value))
            } else if value & clear != 0 {
                reserved
            } else {
                Ok(())
            }
        }
        Takes::CetControl => {
            if !canonical(value, bits) {
                Err(Reason::NonCanonical(component, value))
            } else if value & !machine.cet_control() != 0 || value >> 10 & 3 == 3 {
                reserved
            } else {
                Ok(())
            }
        }
        Takes::ShadowStack if machine.shadow_stacks => {
            judge(component, Takes::Address(0b11), value, machine)
        }
        Takes::ShadowStack if value == 0 => Ok(()),
        Takes::ShadowStack => reserved,
        Takes::LbrControl => judge(component, Takes::Bits(machine.lbr_control), value, machine),
        Takes::LbrDepth if value <= 64 && value.is_multiple_of(8) => Ok(()),
        Takes::LbrDepth => reserved,
    }
}

impl Machine {
    /// Vol. 1, 17.2.4: with shadow stacks SH_STK_EN and WR_SHSTK_EN; with branch
    /// tracking ENDBR_EN, LEG_IW_EN, NO_TRACK_EN, SUPPRESS_DIS, SUPPRESS, TRACKER
    /// and the bitmap's address. Bits 9:6 are reserved.
    const fn cet_control(&self) -> u64 {
        let stacks = if self.shadow_stacks { 0b11 } else { 0 };
        let tracking = if self.branch_tracking {
            !0xfff | 0xc00 | 0b11_1100
        } else {
            0
        };
        stacks | tracking
    }
}

/// Vol. 1, 3.3.7.1: bits from the highest implemented one up are all equal.
pub(super) const fn canonical(address: u64, bits: u32) -> bool {
    let half = 1u64 << (bits - 1);
    address < half || address >= half.wrapping_neg()
}

/// What XRSTOR and XRSTORS make of a value of BNDCFGU (Vol. 1, App. E, Intel
/// MPX: configuration registers): reserved bits 11:2 are ignored, and so are the
/// address bits above the highest implemented one, which is sign-extended.
pub(super) const fn bound_configuration(value: u64, machine: &Machine) -> u64 {
    let unused = 64 - machine.linear_address_bits;
    let extended = ((value << unused) as i64 >> unused) as u64;
    extended & !0xffc
}

/// Whether a tile configuration is one that LDTILECFG takes (Vol. 2,
/// LDTILECFG): XRSTOR of another gives INIT.
pub(super) fn tile_configuration(bytes: &[u8]) -> bool {
    let byte = |i: usize| bytes.get(i).copied().unwrap_or(0);
    match byte(0) {
        0 => bytes.iter().all(|byte| *byte == 0),
        // Palette 1: eight tiles of up to 16 rows and 64 bytes each.
        1 => {
            let tile_ok = |tile: usize| {
                let row_bytes = u16::from_le_bytes([byte(16 + 2 * tile), byte(17 + 2 * tile)]);
                match (row_bytes, byte(48 + tile)) {
                    (0, 0) => true,
                    (1..=64, 1..=16) => tile < 8,
                    _ => false,
                }
            };
            (2..16).all(|i| byte(i) == 0) && (0..16).all(tile_ok)
        }
        _ => false,
    }
}
