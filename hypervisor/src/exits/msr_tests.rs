//! Which MSRs there are, and every rule about what is written to them.

use super::super::cr::{CR4_PAE, EFER_LMA, EFER_LME};
use super::*;

const ALL: Offered = Offered {
    sysenter: true,
    long_mode: true,
    tsc_aux: true,
    pat: true,
    xsaves: true,
    xfd: true,
    linear_bits: 48,
};

const NONE: Offered = Offered {
    sysenter: false,
    long_mode: false,
    tsc_aux: false,
    pat: false,
    xsaves: false,
    xfd: false,
    linear_bits: 48,
};

const NOW: Control = Control {
    cr0: 0x8001_0011,
    cr3: 0x1000,
    cr4: CR4_PAE,
    efer: EFER_LME | EFER_LMA,
    code_is_long: true,
};

const ALLOWED: Allowed = Allowed {
    cr4: CR4_PAE,
    efer: 0x901,
    physical_bits: 40,
};

fn write(msr: u32, value: u64) -> WriteVerdict {
    write_verdict(&ALL, &NOW, &ALLOWED, msr, value)
}

/// Each register that there is, and the part of a policy that offers it.
#[test]
fn what_is_there_follows_the_policy() {
    use MsrRegister as R;
    for (msr, register, offered) in [
        (0x10, R::Tsc, NONE),
        (0xc000_0080, R::Efer, NONE),
        (
            0x174,
            R::SysenterCs,
            Offered {
                sysenter: true,
                ..NONE
            },
        ),
        (
            0x175,
            R::SysenterEsp,
            Offered {
                sysenter: true,
                ..NONE
            },
        ),
        (
            0x176,
            R::SysenterEip,
            Offered {
                sysenter: true,
                ..NONE
            },
        ),
        (0x1c4, R::Xfd, Offered { xfd: true, ..NONE }),
        (0x1c5, R::XfdErr, Offered { xfd: true, ..NONE }),
        (0x277, R::Pat, Offered { pat: true, ..NONE }),
        (
            0xda0,
            R::Xss,
            Offered {
                xsaves: true,
                ..NONE
            },
        ),
        (
            0xc000_0081,
            R::Star,
            Offered {
                long_mode: true,
                ..NONE
            },
        ),
        (
            0xc000_0082,
            R::Lstar,
            Offered {
                long_mode: true,
                ..NONE
            },
        ),
        (
            0xc000_0083,
            R::Cstar,
            Offered {
                long_mode: true,
                ..NONE
            },
        ),
        (
            0xc000_0084,
            R::Sfmask,
            Offered {
                long_mode: true,
                ..NONE
            },
        ),
        (
            0xc000_0100,
            R::FsBase,
            Offered {
                long_mode: true,
                ..NONE
            },
        ),
        (
            0xc000_0101,
            R::GsBase,
            Offered {
                long_mode: true,
                ..NONE
            },
        ),
        (
            0xc000_0102,
            R::KernelGsBase,
            Offered {
                long_mode: true,
                ..NONE
            },
        ),
        (
            0xc000_0103,
            R::TscAux,
            Offered {
                tsc_aux: true,
                ..NONE
            },
        ),
    ] {
        assert_eq!(read_verdict(&offered, msr), ReadVerdict::Register(register));
        assert_ne!(
            write_verdict(&offered, &NOW, &ALLOWED, msr, NOW.efer),
            WriteVerdict::Fault
        );
        if offered != NONE {
            assert_eq!(read_verdict(&NONE, msr), ReadVerdict::Fault, "{msr:#x}");
            let refused = write_verdict(&NONE, &NOW, &ALLOWED, msr, 0);
            assert_eq!(refused, WriteVerdict::Fault, "{msr:#x}");
        }
    }
}

/// APIC_BASE, FEATURE_CONTROL, TSC_ADJUST, microcode, MTRRs, MISC_ENABLE,
/// DEBUGCTL, machine check, x2APIC, SYSCFG, HWCR, VM_CR, VM_HSAVE_PA.
#[test]
fn what_is_not_there_faults() {
    for msr in [
        0x1b,
        0x3a,
        0x3b,
        0x79,
        0x8b,
        0xfe,
        0x1a0,
        0x1d9,
        0x200,
        0x2ff,
        0x179,
        0x400,
        0x480,
        0x802,
        0xc001_0010,
        0xc001_0015,
        0xc001_0114,
        0xc001_0117,
        0x4000_0000,
        0,
        u32::MAX,
    ] {
        assert_eq!(read_verdict(&ALL, msr), ReadVerdict::Fault, "{msr:#x}");
        assert_eq!(write(msr, 0), WriteVerdict::Fault, "{msr:#x}");
    }
}

/// SDM Vol. 2D, WRMSR: "#GP(0) If the source register contains a non-canonical
/// address and ECX specifies one of the following MSRs …".
#[test]
fn addresses_are_canonical() {
    for msr in [
        0x175,
        0x176,
        0xc000_0082,
        0xc000_0083,
        0xc000_0100,
        0xc000_0101,
        0xc000_0102,
    ] {
        for value in [0, 0x7fff_ffff_ffff, 0xffff_8000_0000_0000, u64::MAX] {
            assert!(matches!(write(msr, value), WriteVerdict::Register(_, v) if v == value));
        }
        for value in [0x8000_0000_0000, 0xffff_7fff_ffff_ffff, 1 << 63] {
            assert_eq!(
                write(msr, value),
                WriteVerdict::Fault,
                "{msr:#x} {value:#x}"
            );
        }
        let wide = Offered {
            linear_bits: 57,
            ..ALL
        };
        let verdict = write_verdict(&wide, &NOW, &ALLOWED, msr, 0x8000_0000_0000);
        assert_ne!(verdict, WriteVerdict::Fault);
    }
    // Selectors, not an address.
    assert_ne!(write(0xc000_0081, 1 << 63), WriteVerdict::Fault);
}

#[test]
fn registers_of_thirty_two_bits() {
    for msr in [0xc000_0084, 0xc000_0103] {
        assert_ne!(write(msr, 0xffff_ffff), WriteVerdict::Fault);
        assert_eq!(write(msr, 1 << 32), WriteVerdict::Fault);
    }
    let kept = WriteVerdict::Register(MsrRegister::SysenterCs, 0x9abc_def0);
    assert_eq!(write(0x174, 0x1234_5678_9abc_def0), kept);
}

/// SDM Vol. 3A, 12.12.2: 2, 3 and everything above 7 are reserved, in each byte.
#[test]
fn memory_types_of_pat() {
    assert!(pat_is_legal(0x0007_0406_0007_0406));
    for byte in 0..8 {
        for kind in 0..=255_u64 {
            let legal = [0, 1, 4, 5, 6, 7].contains(&kind);
            let value = 0x0606_0606_0606_0606 & !(0xff << (8 * byte)) | kind << (8 * byte);
            assert_eq!(pat_is_legal(value), legal);
            assert_eq!(write(0x277, value) != WriteVerdict::Fault, legal);
        }
    }
}

#[test]
fn efer_is_judged_as_a_control_register() {
    let change = Change {
        value: 0xd01,
        efer: 0xd01,
        flush: true,
    };
    assert_eq!(write(0xc000_0080, 0xd01), WriteVerdict::Efer(change));
    assert_eq!(write(0xc000_0080, 0), WriteVerdict::Fault);
    assert_eq!(write(0xc000_0080, 0x1500), WriteVerdict::Fault);
}
