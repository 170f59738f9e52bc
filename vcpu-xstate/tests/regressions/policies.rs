//! What a guest may enable, and what CPUID tells it.

use vcpu_xstate::owner::XsetbvError;
use vcpu_xstate::policy::{CpuPolicy, Dynamic};
use vcpu_xstate::{ComponentIndex as C, xcr0::Xcr0Error};

use crate::world::{AMX, HALF_AMX, INTEL, Memory, vcpu};

fn policy(facts: &crate::world::Facts) -> CpuPolicy {
    CpuPolicy::host_default(&|leaf, subleaf| facts.cpuid(leaf, subleaf), &facts.host())
}

/// XSA-54: YMM without SSE reached XSETBV in the host.
#[test]
fn xsa_54_unchecked_xsetbv() {
    let mut cpu = INTEL.processor(0);
    let mut guest = vcpu(1, 0x207, cpu.host());
    let refused = guest.set_xcr0(5, 0, &mut cpu, &mut Memory);
    assert_eq!(refused, Err(XsetbvError::Fault(Xcr0Error::AvxNeedsSse(5))));
    assert_eq!(guest.xcr0(), 1);
    // What the rules allow, the processor takes; what they refuse, it faults on.
    for value in 0..0x400u64 {
        let mut hardware = INTEL.processor(1);
        let taken = hardware.hardware_mut().cpu.xsetbv(0, value).is_ok();
        let allowed = guest.set_xcr0(value, 0, &mut cpu, &mut Memory).is_ok();
        assert_eq!(allowed, taken, "{value:#x}");
    }
}

/// Firecracker offered TILECFG without TILEDATA, and its guests' XSETBV took #GP.
#[test]
fn firecracker_tilecfg_without_tiledata() {
    let half = policy(&HALF_AMX);
    assert!(!half.xstate().mask.has(C::TILECFG));
    assert_eq!(half.cpuid(0xd, 17, &Dynamic::default()).eax, 0);
    let without = policy(&AMX).with_config("host:amx-tile=0").expect("legal");
    assert!(!without.xstate().mask.has(C::TILECFG));
    assert!(!without.xstate().mask.has(C::TILEDATA));
}

/// Xen c3bd0b83ea: CPUID.(0xD,1):EBX was 0 with XSAVEC but without XSAVES, which
/// Linux from 5.19 on warns of.
#[test]
fn xen_c3bd0b83ea_size_with_xsavec_alone() {
    let guest = policy(&INTEL);
    for (xcr0, bytes) in [(1, 576), (7, 832), (0x207, 840)] {
        let vcpu = Dynamic {
            xcr0,
            ..Dynamic::default()
        };
        assert_eq!(guest.cpuid(0xd, 1, &vcpu).ebx, bytes, "{xcr0:#x}");
    }
    let without = policy(&AMX).with_config("host:xsaves=0").expect("legal");
    let vcpu = Dynamic {
        xcr0: 7,
        ..Dynamic::default()
    };
    assert_eq!(without.cpuid(0xd, 1, &vcpu).ebx, 832);
}
