//! Colours of the drawing, and what its legend calls them.

use vcpu_xstate::ComponentIndex;

use super::pieces::Kind;

/// What the legend calls it: components of a group share a colour's name.
pub fn group(kind: Kind) -> String {
    use ComponentIndex as C;
    let name = match kind {
        Kind::Legacy => "legacy region: x87, SSE",
        Kind::Header => "header",
        Kind::Hole => "hole",
        Kind::Component(C::BNDREGS | C::BNDCSR, _) => "MPX",
        Kind::Component(C::OPMASK | C::ZMM_HI256 | C::HI16_ZMM, _) => "AVX-512",
        Kind::Component(C::CET_U | C::CET_S, _) => "CET",
        Kind::Component(C::TILECFG | C::TILEDATA, _) => "AMX",
        Kind::Component(component, _) => match component.name() {
            Some(name) => return name.to_uppercase(),
            None => "without a name",
        },
    };
    name.to_owned()
}

/// What it is filled with: a colour, or the pattern of holes.
pub const fn colour(kind: Kind) -> &'static str {
    use ComponentIndex as C;
    match kind {
        Kind::Legacy => "#c3ccd6",
        Kind::Header => "#8b98a7",
        Kind::Hole => "url(#hole)",
        Kind::Component(component, _) => match component {
            C::AVX => "#6aa5dc",
            C::BNDREGS | C::BNDCSR => "#c9a27c",
            C::OPMASK => "#ffd37a",
            C::ZMM_HI256 => "#ffb84d",
            C::HI16_ZMM => "#ff9a3c",
            C::PKRU => "#3da35d",
            C::TILECFG => "#f28b9b",
            C::TILEDATA => "#e8657a",
            C::APX => "#35bdb2",
            C::LWP => "#b58bd9",
            C::PT => "#9aa35a",
            C::PASID => "#5f7fbf",
            C::CET_U | C::CET_S => "#a06cc4",
            C::UINTR => "#d1589b",
            C::LBR => "#58a6a6",
            C::HDC | C::HWP => "#8d7b68",
            _ => "#e0e04a",
        },
    }
}
