//! Which register contents a restore accepts: the legal values inside components.
//!
//! XRSTORS checks what WRMSR would check and faults, some parts XRSTOR too
//! (SDM Vol. 1, 13.5 XSAVE-Managed State; 13.12 Operation of XRSTORS). A rule
//! here is never wider than the processor's. Three are narrower: BNDCFGU and
//! TILECFG never fault, the processor mends what it does not like, and in
//! IA32_LBR_x_INFO it need not keep what it has no field for. But then the
//! guest would find another state than the one in the image, and no processor
//! saves such an image. Of branch records all are judged, although XRSTORS
//! looks at no more than IA32_LBR_DEPTH counts.

use crate::component::{ComponentIndex, ComponentSet};
use crate::cpuid::CpuidResult;
use crate::error::broken_rules;
use crate::mutants::rule;

mod tile;

/// What of a machine decides which contents it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bits of MXCSR that can be set without #GP (AMD's bit 17 faults on Intel).
    pub mxcsr_mask: u32,
    /// Width of linear addresses, 48 to 57 bits: what "canonical" means.
    pub linear_address_bits: u8,
    /// CPUID.(7,0):ECX.CET_SS\[7\]: IA32_U_CET has its bits 1:0, and there are
    /// shadow-stack pointers.
    pub shadow_stacks: bool,
    /// CPUID.(7,0):EDX.CET_IBT\[20\]: IA32_U_CET has its other bits. No AMD
    /// processor has them: an Intel guest's would fault there.
    pub branch_tracking: bool,
    /// What IA32_LBR_CTL takes: bit 0, and those of the modes that
    /// CPUID.1CH:EBX lists.
    pub lbr_control: u64,
    /// The fields that IA32_LER_INFO and IA32_LBR_x_INFO have: bits 39:32 with
    /// the counters that CPUID.1CH:ECX lists.
    pub lbr_info: u64,
    /// IA32_LBR_DEPTH after reset, the largest of CPUID.1CH:EAX.
    pub lbr_depth: u8,
}

impl Limits {
    /// The same with what leaf 1CH says of branch records (SDM Vol. 2, CPUID;
    /// Vol. 4, Table 2-2, IA32_LBR_CTL, IA32_LBR_DEPTH, IA32_LBR_x_INFO). A
    /// machine that lists none has the least: the enable, 32 records.
    #[must_use]
    pub(crate) fn with_leaf_1c(mut self, leaf: &CpuidResult) -> Self {
        self.lbr_control = 1;
        // CPL filtering, branch filtering, call-stack mode.
        if leaf.ebx & 1 != 0 || !rule!("lbr-control") {
            self.lbr_control |= 0x6;
        }
        if leaf.ebx & 1 << 1 != 0 || !rule!("lbr-control") {
            self.lbr_control |= 0x7f_0000;
        }
        if leaf.ebx & 1 << 2 != 0 || !rule!("lbr-control") {
            self.lbr_control |= 0x8;
        }
        // Cycles, branch type and flags; two bits for each counter that is
        // logged.
        self.lbr_info = 0xff00_0000_0000_ffff;
        let mut counter = 0;
        while counter < 4 {
            if leaf.ecx & 1 << (16 + counter) != 0 && rule!("lbr-counters") {
                self.lbr_info |= 0x3 << (32 + 2 * counter);
            }
            counter += 1;
        }
        self.lbr_depth = match leaf.eax & 0xff {
            0 => 32,
            depths => 8 * (32 - depths.leading_zeros() as u8),
        };
        self
    }

    /// Whether IA32_U_CET takes `value`: canonical (the upper bits are the
    /// legacy bitmap's address), no bit of a feature that is not there, and
    /// not both TRACKER and SUPPRESS (SDM Vol. 1, 17.2.4).
    pub(crate) fn user_cet(&self, value: u64) -> Result<(), BadValue> {
        let stacks = if self.shadow_stacks { 0x3 } else { 0 };
        let tracking = if self.branch_tracking { !0x3c3 } else { 0 };
        canonical(value, self.linear_address_bits)?;
        only(value, stacks | tracking)?;
        if rule!("cet-tracker") && value & 0xc00 == 0xc00 {
            return Err(BadValue::CetTracker(value, value & !0x400));
        }
        Ok(())
    }

    /// Whether a shadow-stack pointer is one: a canonical multiple of 4.
    pub(crate) fn shadow_stack_pointer(&self, value: u64) -> Result<(), BadValue> {
        canonical(value, self.linear_address_bits)?;
        only(value, if self.shadow_stacks { !0x3 } else { 0 })
    }
}

/// What is wrong with the contents of a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadValue {
    /// MXCSR has bits that this processor faults on: the value, what may be set.
    Mxcsr(u64, u64),
    /// A linear address that is not canonical: the address, its legal low half.
    Address(u64, u64),
    /// Reserved bits of a register are set: the value, what may be set.
    Reserved(u64, u64),
    /// IA32_U_CET has both TRACKER and SUPPRESS: the value, what may be set.
    CetTracker(u64, u64),
    /// A depth of the branch records that no processor has: depth, largest.
    LbrDepth(u64, u64),
    /// AMX tile configuration that LDTILECFG would refuse: value, largest.
    TileConfig(u64, u64),
}

broken_rules!(BadValue,
    Self::Mxcsr(seen, allowed) => ("mxcsr", 0x313, seen, allowed),
    Self::Address(seen, allowed) => ("component-address", 0x314, seen, allowed),
    Self::Reserved(seen, allowed) => ("component-reserved", 0x315, seen, allowed),
    Self::CetTracker(seen, allowed) => ("cet-tracker", 0x316, seen, allowed),
    Self::LbrDepth(seen, largest) => ("lbr-depth", 0x317, seen, largest),
    Self::TileConfig(seen, largest) => ("tile-config", 0x318, seen, largest),
);

/// The components that [`check`] has a rule for.
pub(crate) const RULED: ComponentSet = ComponentSet::only(ComponentIndex::BNDCSR)
    .union(ComponentSet::only(ComponentIndex::PASID))
    .union(ComponentSet::CET)
    .union(ComponentSet::only(ComponentIndex::UINTR))
    .union(ComponentSet::only(ComponentIndex::LBR))
    .union(ComponentSet::only(ComponentIndex::TILECFG));

/// Judges a value of MXCSR.
///
/// # Errors
/// It has bits that fault.
#[inline(always)]
pub fn check_mxcsr(mxcsr: u32, limits: &Limits) -> Result<(), BadValue> {
    if !rule!("mxcsr") || mxcsr & !limits.mxcsr_mask == 0 {
        Ok(())
    } else {
        Err(BadValue::Mxcsr(mxcsr as u64, limits.mxcsr_mask as u64))
    }
}

/// Judges the defined bytes of a component for a machine with these limits.
/// Components without a rule here take any bytes.
///
/// # Errors
/// The first rule that is broken.
pub fn check(component: ComponentIndex, bytes: &[u8], limits: &Limits) -> Result<(), BadValue> {
    let at = |offset| word(bytes, offset);
    let address = |offset, reserved: u64| {
        let value = at(offset);
        canonical(value, limits.linear_address_bits)?;
        only(value, !reserved)
    };
    match component {
        // BNDCFGU: base of the directory, BNDPRESERVE, EN. BNDSTATUS is free. A
        // restore does not fault on the rest, it ignores it: our rule.
        ComponentIndex::BNDCSR => address(0, 0xffc),
        // PASID and a valid bit.
        ComponentIndex::PASID => only(at(0), 0x800f_ffff),
        // IA32_U_CET and IA32_PL3_SSP.
        ComponentIndex::CET_U => {
            limits.user_cet(at(0))?;
            limits.shadow_stack_pointer(at(8))
        }
        // IA32_PL0_SSP to IA32_PL2_SSP.
        ComponentIndex::CET_S => (0..3).try_for_each(|i| limits.shadow_stack_pointer(at(8 * i))),
        // UIHANDLER, UISTACKADJUST, UINTR_MISC (size of the table, UINV, UIF),
        // UPIDADDR, UIRR, UITTADDR (SDM Vol. 1, 13.5.11).
        ComponentIndex::UINTR => {
            address(0, 0)?;
            address(8, 0x6)?;
            only(at(16), 0x8000_00ff_ffff_ffff)?;
            address(24, 0x3f)?;
            address(40, 0xe)
        }
        // LBR_CTL, LBR_DEPTH, LER_FROM/TO/INFO, then 32 of FROM/TO/INFO.
        ComponentIndex::LBR => {
            only(at(0), limits.lbr_control)?;
            let depth = at(8);
            if rule!("lbr-depth") && (depth > 64 || depth % 8 != 0) {
                return Err(BadValue::LbrDepth(depth, 64));
            }
            (0..33).try_for_each(|i| {
                address(16 + 24 * i, 0)?;
                address(24 + 24 * i, 0)?;
                only(at(32 + 24 * i), limits.lbr_info)
            })
        }
        // A bad configuration does not fault: the processor makes it INIT. But
        // then the guest would find another state than it left.
        ComponentIndex::TILECFG if tile::usual(bytes) => Ok(()),
        ComponentIndex::TILECFG => tile::check(bytes),
        // `RULED` has all of the above.
        _ => Ok(()),
    }
}

fn word(bytes: &[u8], offset: usize) -> u64 {
    bytes
        .get(offset..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |word| u64::from_le_bytes(*word))
}

fn only(value: u64, allowed: u64) -> Result<(), BadValue> {
    if !rule!("component-reserved") || value & !allowed == 0 {
        Ok(())
    } else {
        Err(BadValue::Reserved(value, allowed))
    }
}

fn canonical(value: u64, linear_address_bits: u8) -> Result<(), BadValue> {
    // Sign-extended from the top implemented bit; the width is 48 to 57.
    let shift = match linear_address_bits {
        0..48 => 16,
        bits @ 48..=57 => 64 - bits as u32,
        58.. => 7,
    };
    if !rule!("component-address") || ((value << shift) as i64 >> shift) as u64 == value {
        Ok(())
    } else {
        Err(BadValue::Address(value, u64::MAX >> (shift + 1)))
    }
}

#[cfg(test)]
#[path = "values_tests.rs"]
mod tests;
