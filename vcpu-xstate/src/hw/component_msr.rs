//! The MSRs that a component is made of, for those that need no save to be read or written.

use crate::component::ComponentIndex;

/// An MSR whose value is eight bytes of a supervisor component.
///
/// SDM Vol. 1, 13.5.8 (PASID) and 13.5.9 (CET): XSAVES stores exactly the
/// MSRs' values, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum ComponentMsr {
    /// IA32_U_CET.
    UCet = 0x6a0,
    /// IA32_PL0_SSP.
    Pl0Ssp = 0x6a4,
    /// IA32_PL1_SSP.
    Pl1Ssp = 0x6a5,
    /// IA32_PL2_SSP.
    Pl2Ssp = 0x6a6,
    /// IA32_PL3_SSP.
    Pl3Ssp = 0x6a7,
    /// IA32_PASID.
    Pasid = 0xd93,
}

impl ComponentMsr {
    /// Its number in ECX.
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// The MSRs of a component, in the order of its bytes; none where only a
    /// save of the whole state shows it (branch records and user interrupts
    /// among them, whose MSRs are many or change when saved).
    pub const fn of(component: ComponentIndex) -> &'static [Self] {
        match component {
            ComponentIndex::PASID => &[Self::Pasid],
            ComponentIndex::CET_U => &[Self::UCet, Self::Pl3Ssp],
            ComponentIndex::CET_S => &[Self::Pl0Ssp, Self::Pl1Ssp, Self::Pl2Ssp],
            _ => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ComponentSet;

    #[test]
    fn the_registers_make_up_the_component() {
        for component in ComponentSet::ALL {
            let registers = ComponentMsr::of(component);
            assert!(registers.is_empty() || component.payload_bytes() == Some(8 * registers.len()));
        }
        let numbers = |c| ComponentMsr::of(c).iter().map(|msr| msr.number());
        assert!(numbers(ComponentIndex::CET_U).eq([0x6a0, 0x6a7]));
        assert!(numbers(ComponentIndex::CET_S).eq([0x6a4, 0x6a5, 0x6a6]));
        assert!(numbers(ComponentIndex::PASID).eq([0xd93]));
    }
}
