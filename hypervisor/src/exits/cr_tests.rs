//! Verdicts on control registers, by the manuals' lists of #GP(0) causes.

use super::*;

const ALLOWED: Allowed = Allowed {
    cr4: CR4_TRANSLATION | CR4_OSXSAVE | 0x600,
    efer: 0x901,
    physical_bits: 40,
};

const REAL: Control = Control {
    cr0: 0x10,
    cr3: 0,
    cr4: 0,
    efer: 0,
    code_is_long: false,
};

/// Protected mode on the way to long mode.
const READY: Control = Control {
    cr0: 0x11,
    cr4: CR4_PAE,
    efer: EFER_LME,
    ..REAL
};

const LONG: Control = Control {
    cr0: 0x8001_0011,
    cr3: 0x1000,
    cr4: CR4_PAE,
    efer: EFER_LME | EFER_LMA,
    code_is_long: true,
};

const COMPATIBILITY: Control = Control {
    code_is_long: false,
    ..LONG
};

/// SDM Vol. 2B, MOV to CR0: Protected Mode Exceptions, and 64-Bit Mode's.
#[test]
fn cr0() {
    let cet = Control {
        cr4: CR4_PAE | CR4_CET,
        ..LONG
    };
    let pcids = Control {
        cr4: CR4_PAE | CR4_PCIDE,
        ..COMPATIBILITY
    };
    let no_pae = Control { cr4: 0, ..READY };
    let odd = Control {
        code_is_long: true,
        ..READY
    };
    for (now, value, error) in [
        (
            LONG,
            1 << 32 | LONG.cr0,
            CrError::Bits(1 << 32 | LONG.cr0, 0xffff_ffff),
        ),
        (REAL, CR0_PG, CrError::PagingWithoutProtection),
        (REAL, CR0_NW, CrError::NotWriteThroughWithoutCacheDisable),
        (no_pae, CR0_PG | CR0_PE, CrError::LongWithoutPae),
        (odd, CR0_PG | CR0_PE, CrError::EnterLongInLongCode),
        (LONG, CR0_PE, CrError::LeaveLongInLongCode),
        (pcids, CR0_PE, CrError::LeaveLongWithPcids),
        (cet, LONG.cr0 & !CR0_WP, CrError::CetWithoutWriteProtect),
    ] {
        assert_eq!(cr0_verdict(&now, value), Err(error));
    }
    let change = |value, efer, flush| Ok(Change { value, efer, flush });
    // Reserved bits of the lower half read as zero, ET as one.
    assert_eq!(cr0_verdict(&REAL, 0x1ff8_ffc0), change(0x10, 0, false));
    assert_eq!(
        cr0_verdict(&REAL, CR0_NW | CR0_CD),
        change(0x6000_0010, 0, false)
    );
    // Into long mode, out of it, and paging without it.
    let on = CR0_PG | CR0_PE;
    assert_eq!(
        cr0_verdict(&READY, on),
        change(on | CR0_ET, EFER_LME | EFER_LMA, true)
    );
    assert_eq!(
        cr0_verdict(&COMPATIBILITY, CR0_PE),
        change(0x11, EFER_LME, true)
    );
    assert_eq!(cr0_verdict(&REAL, on), change(on | CR0_ET, 0, true));
    // TS changes nothing else.
    assert_eq!(
        cr0_verdict(&LONG, LONG.cr0 | 8),
        change(LONG.cr0 | 8, LONG.efer, false)
    );
}

/// SDM Vol. 2A, LMSW.
#[test]
fn lmsw_sets_protection_and_never_clears_it() {
    assert_eq!(lmsw_value(0x10, 1), 0x11);
    assert_eq!(lmsw_value(0x1f, 0), 0x11);
    assert_eq!(lmsw_value(0x8000_0011, 0xfff8), 0x8000_0019);
}

/// SDM Vol. 2B, MOV to CR4; SDM Vol. 3A, 2.5.
#[test]
fn cr4() {
    let pcid = Control {
        cr3: 0x1005,
        ..LONG
    };
    let no_wp = Control {
        cr0: LONG.cr0 & !CR0_WP,
        ..LONG
    };
    let five = Control {
        cr4: CR4_PAE | CR4_LA57,
        ..LONG
    };
    for (now, value, error) in [
        (
            LONG,
            CR4_PAE | 1 << 13,
            CrError::Bits(CR4_PAE | 1 << 13, ALLOWED.cr4),
        ),
        (
            LONG,
            CR4_PAE | 1 << 63,
            CrError::Bits(CR4_PAE | 1 << 63, ALLOWED.cr4),
        ),
        (LONG, 0, CrError::NoPaeInLong),
        (COMPATIBILITY, 0, CrError::NoPaeInLong),
        (LONG, CR4_PAE | CR4_LA57, CrError::La57InLong),
        (five, CR4_PAE, CrError::La57InLong),
        (READY, CR4_PAE | CR4_PCIDE, CrError::Pcide),
        (pcid, CR4_PAE | CR4_PCIDE, CrError::Pcide),
        (no_wp, CR4_PAE | CR4_CET, CrError::CetWithoutWriteProtect),
    ] {
        assert_eq!(cr4_verdict(&now, &ALLOWED, value), Err(error), "{value:#x}");
    }
    let flush = |now: Control, value| cr4_verdict(&now, &ALLOWED, value).unwrap().flush;
    assert!(!flush(LONG, CR4_PAE | CR4_OSXSAVE));
    assert!(!flush(LONG, CR4_PAE | 0x600));
    for bit in [
        CR4_PGE, CR4_PCIDE, CR4_SMEP, CR4_SMAP, CR4_PKE, CR4_PSE, CR4_CET,
    ] {
        assert!(flush(LONG, CR4_PAE | bit), "{bit:#x}");
    }
    assert!(flush(READY, 0));
    // A PCID that is there already does not stop another write.
    let with = Control {
        cr4: CR4_PAE | CR4_PCIDE,
        ..pcid
    };
    assert!(cr4_verdict(&with, &ALLOWED, CR4_PAE | CR4_PCIDE | CR4_PGE).is_ok());
}

/// SDM Vol. 2B, MOV to CR3; SDM Vol. 3A, 4.10.4.1.
#[test]
fn cr3() {
    let pcids = Control {
        cr4: CR4_PAE | CR4_PCIDE,
        ..LONG
    };
    let verdict = |now: &Control, value| cr3_verdict(now, &ALLOWED, value);
    assert!(verdict(&LONG, 0xff_ffff_ffff).unwrap().flush);
    for bit in [40, 51, 52, 61, 62, 63] {
        assert_eq!(
            verdict(&LONG, 1 << bit),
            Err(CrError::Bits(1 << bit, 0xff_ffff_ffff))
        );
    }
    let kept = verdict(&pcids, 1 << 63 | 0x2001).unwrap();
    assert_eq!((kept.value, kept.flush), (0x2001, false));
    assert!(verdict(&pcids, 0x2001).unwrap().flush);
    assert!(verdict(&pcids, 1 << 62).is_err());
}

#[test]
fn cr8() {
    assert_eq!(cr8_verdict(15), Ok(15));
    assert_eq!(cr8_verdict(16), Err(CrError::Bits(16, 15)));
}

/// SDM Vol. 4, IA32_EFER; APM Vol. 2, 14.6.1.
#[test]
fn efer() {
    let verdict = |now: &Control, value| efer_verdict(now, &ALLOWED, value);
    let svme = 1 << 12;
    assert_eq!(verdict(&REAL, svme), Err(CrError::Bits(svme, 0x901)));
    assert_eq!(verdict(&LONG, 0), Err(CrError::LmeWithPaging));
    let paged = Control {
        cr0: 0x8000_0011,
        ..REAL
    };
    assert_eq!(verdict(&paged, EFER_LME), Err(CrError::LmeWithPaging));
    assert_eq!(verdict(&READY, 0).unwrap().efer, 0);
    // LMA is what it is, whatever is written.
    assert_eq!(verdict(&READY, EFER_LME | EFER_LMA).unwrap().efer, EFER_LME);
    assert_eq!(
        verdict(&LONG, EFER_LME | 0x801).unwrap().efer,
        LONG.efer | 0x801
    );
    assert!(verdict(&LONG, EFER_LME | 0x800).unwrap().flush);
    assert!(!verdict(&LONG, EFER_LME).unwrap().flush);
}

/// What a record from elsewhere may hold.
#[test]
fn legal_values_of_cr0() {
    for value in [0x10, 0x6000_0010, 0x8005_003b] {
        assert!(cr0_is_legal(value), "{value:#x}");
    }
    for value in [0x8000_0010, 0x2000_0010, 0x50, 1 << 32 | 0x10] {
        assert!(!cr0_is_legal(value), "{value:#x}");
    }
}
