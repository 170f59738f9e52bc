//! Each exception of the manual, by its condition, and that it changes nothing.

use std::collections::BTreeSet;

use super::*;

const C: u64 = 1 << 63;

/// Where the manual has it, what is done, what it raises.
type Row = (&'static str, fn(&mut Cpu) -> Result<(), Fault>, Reason);

fn restored(cpu: &mut Cpu, xstate_bv: u64, xcomp_bv: u64) -> Result<(), Fault> {
    cpu.xrstor(AT, &area(xstate_bv, xcomp_bv), u64::MAX)
}

fn restored_all(cpu: &mut Cpu, xstate_bv: u64, xcomp_bv: u64) -> Result<(), Fault> {
    cpu.xrstors(AT, &area(xstate_bv, xcomp_bv), u64::MAX)
}

/// XRSTORS of one component alone, with this word in it.
fn value(cpu: &mut Cpu, index: u8, at: usize, value: u64) -> Result<(), Fault> {
    let bit = 1 << index;
    let mut area = area(bit, C | bit);
    put(&mut area, 576 + at, &value.to_le_bytes());
    cpu.xrstors(AT, &area, u64::MAX)
}

/// The same of LBR state, with the depth that the register has.
fn lbr_value(cpu: &mut Cpu, at: usize, value: u64) -> Result<(), Fault> {
    let bit = 1 << 15;
    let mut area = area(bit, C | bit);
    put(&mut area, 576 + 8, &32_u64.to_le_bytes());
    put(&mut area, 576 + at, &value.to_le_bytes());
    cpu.xrstors(AT, &area, u64::MAX)
}

fn saved(cpu: &mut Cpu, address: u64) -> Result<(), Fault> {
    cpu.xsave(address, &mut area(0, 0), u64::MAX)
}

const HOLE: u64 = 1 << 47;

/// What any processor with everything enabled raises.
#[rustfmt::skip]
fn table() -> Vec<Row> {
    vec![
        ("Vol. 2 XSAVE #UD: CR4.OSXSAVE", |p| { p.mode.osxsave = false; saved(p, AT) }, Reason::OsxsaveClear),
        ("Vol. 2 XSAVEOPT #UD: CR4.OSXSAVE", |p| { p.mode.osxsave = false; p.xsaveopt(AT, &mut area(0, 0), 1) }, Reason::OsxsaveClear),
        ("Vol. 2 XSAVEC #UD: CR4.OSXSAVE", |p| { p.mode.osxsave = false; p.xsavec(AT, &mut area(0, 0), 1) }, Reason::OsxsaveClear),
        ("Vol. 2 XSAVES #UD: CR4.OSXSAVE", |p| { p.mode.osxsave = false; p.xsaves(AT, &mut area(0, 0), 1) }, Reason::OsxsaveClear),
        ("Vol. 2 XRSTOR #UD: CR4.OSXSAVE", |p| { p.mode.osxsave = false; restored(p, 0, 0) }, Reason::OsxsaveClear),
        ("Vol. 2 XRSTORS #UD: CR4.OSXSAVE", |p| { p.mode.osxsave = false; restored_all(p, 0, C) }, Reason::OsxsaveClear),
        ("Vol. 2 XSETBV #UD: CR4.OSXSAVE", |p| { p.mode.osxsave = false; p.xsetbv(0, 1) }, Reason::OsxsaveClear),
        ("Vol. 2 XGETBV #UD: CR4.OSXSAVE", |p| { p.mode.osxsave = false; p.xgetbv(0).map(drop) }, Reason::OsxsaveClear),
        ("Vol. 1 13.7 #NM: CR0.TS", |p| { p.mode.ts = true; saved(p, AT) }, Reason::TaskSwitched),
        ("Vol. 1 13.8 #NM: CR0.TS", |p| { p.mode.ts = true; restored(p, 0, 0) }, Reason::TaskSwitched),
        ("Vol. 1 13.12 #NM: CR0.TS", |p| { p.mode.ts = true; restored_all(p, 0, C) }, Reason::TaskSwitched),
        ("Vol. 1 13.11 #GP: CPL", |p| { p.mode.cpl = 3; p.xsaves(AT, &mut area(0, 0), 1) }, Reason::Cpl(3)),
        ("Vol. 1 13.12 #GP: CPL", |p| { p.mode.cpl = 1; restored_all(p, 0, C) }, Reason::Cpl(1)),
        ("Vol. 2 XSETBV #GP: CPL", |p| { p.mode.cpl = 3; p.xsetbv(0, 1) }, Reason::Cpl(3)),
        ("Vol. 2 WRMSR #GP: CPL", |p| { p.mode.cpl = 3; p.wrmsr(0xda0, 0) }, Reason::Cpl(3)),
        ("Vol. 2 RDMSR #GP: CPL", |p| { p.mode.cpl = 3; p.rdmsr(0x1c4).map(drop) }, Reason::Cpl(3)),
        ("Vol. 1 13.7 #GP: alignment", |p| saved(p, AT + 32), Reason::Misaligned(AT + 32)),
        ("Vol. 1 13.8 #GP: alignment", |p| p.xrstor(AT + 1, &area(0, 0), 1), Reason::Misaligned(AT + 1)),
        ("Vol. 1 13.12 #GP: alignment", |p| p.xrstors(AT + 8, &area(0, C), 1), Reason::Misaligned(AT + 8)),
        ("Vol. 2 XSAVE #GP: non-canonical", |p| saved(p, HOLE), Reason::AreaNonCanonical(HOLE)),
        ("Vol. 2 XSAVEC #GP: non-canonical", |p| p.xsavec(1 << 63, &mut area(0, 0), 1), Reason::AreaNonCanonical(1 << 63)),
        ("Vol. 2 XRSTOR #GP: non-canonical", |p| p.xrstor(HOLE, &area(0, 0), 1), Reason::AreaNonCanonical(HOLE)),
        ("Vol. 2 XRSTORS #GP: non-canonical", |p| p.xrstors(HOLE, &area(0, C), 1), Reason::AreaNonCanonical(HOLE)),
        ("Vol. 2 XSAVE #GP: non-canonical end", |p| p.xsave(HOLE - 576, &mut area(0, 0), 4), Reason::AreaNonCanonical(HOLE + 255)),
        ("Vol. 2 XRSTOR #GP: non-canonical header", |p| p.xrstor(HOLE - 512, &area(0, 0), 1), Reason::AreaNonCanonical(HOLE + 63)),
        ("Vol. 2 XRSTOR #GP: non-canonical end", |p| p.xrstor(HOLE - 576, &area(4, 0), 4), Reason::AreaNonCanonical(HOLE + 255)),
        ("Vol. 2 XSETBV #GP: ECX", |p| p.xsetbv(1, 1), Reason::XcrIndex(1)),
        ("Vol. 2 XGETBV #GP: ECX", |p| p.xgetbv(2).map(drop), Reason::XcrIndex(2)),
        ("Vol. 1 13.3 XCR0[0]", |p| p.xsetbv(0, 6), Reason::Xcr0X87(6)),
        ("Vol. 1 13.3 reserved bits", |p| p.xsetbv(0, 0x101), Reason::Xcr0Reserved(0x101)),
        ("Vol. 1 13.3 bit 63", |p| p.xsetbv(0, C | 7), Reason::Xcr0Reserved(C | 7)),
        ("Vol. 1 13.3 XCR0[2:1]", |p| p.xsetbv(0, 5), Reason::Xcr0AvxWithoutSse(5)),
        ("Vol. 1 13.3 XCR0[4:3] = 01b", |p| p.xsetbv(0, 0xf), Reason::Xcr0Mpx(0xf)),
        ("Vol. 1 13.3 XCR0[4:3] = 10b", |p| p.xsetbv(0, 0x17), Reason::Xcr0Mpx(0x17)),
        ("Vol. 1 13.3 XCR0[7:5] in part", |p| p.xsetbv(0, 0x67), Reason::Xcr0Avx512(0x67)),
        ("Vol. 1 13.3 XCR0[7:5] without AVX", |p| p.xsetbv(0, 0xe3), Reason::Xcr0Avx512(0xe3)),
        ("Vol. 1 13.3 XCR0[18:17] = 01b", |p| p.xsetbv(0, 0x2_0007), Reason::Xcr0Amx(0x2_0007)),
        ("Vol. 1 13.3 XCR0[18:17] = 10b", |p| p.xsetbv(0, 0x4_0007), Reason::Xcr0Amx(0x4_0007)),
        ("APX 3.1.4.2 XCR0.APX_F with MPX", |p| p.xsetbv(0, 0x8_001f), Reason::Xcr0ApxWithMpx(0x8_001f)),
        ("Vol. 2 WRMSR #GP: no such MSR", |p| p.wrmsr(0xda1, 0), Reason::NoMsr(0xda1)),
        ("Vol. 4 IA32_XSS reserved bits", |p| p.wrmsr(0xda0, 4), Reason::XssReserved(4)),
        ("Vol. 1 13.14 IA32_XFD reserved bits", |p| p.wrmsr(0x1c4, 1 << 17), Reason::XfdReserved(1 << 17)),
        ("Vol. 1 13.14 IA32_XFD_ERR reserved bits", |p| p.wrmsr(0x1c5, 1), Reason::XfdReserved(1)),
        ("Vol. 2 WRPKRU #UD: CR4.PKE", |p| { p.mode.pke = false; p.wrpkru(0, 0, 1) }, Reason::PkeClear),
        ("Vol. 2 RDPKRU #UD: CR4.PKE", |p| { p.mode.pke = false; p.rdpkru(0).map(drop) }, Reason::PkeClear),
        ("Vol. 2 WRPKRU #GP: ECX", |p| p.wrpkru(1, 0, 1), Reason::PkruOperand),
        ("Vol. 2 WRPKRU #GP: EDX", |p| p.wrpkru(0, 1, 1), Reason::PkruOperand),
        ("Vol. 2 RDPKRU #GP: ECX", |p| p.rdpkru(1).map(drop), Reason::PkruOperand),
        ("Vol. 2 LDMXCSR #UD: CR0.EM", |p| { p.mode.em = true; p.ldmxcsr(0x1f80) }, Reason::Emulation),
        ("Vol. 2 STMXCSR #UD: CR4.OSFXSR", |p| { p.mode.osfxsr = false; p.stmxcsr().map(drop) }, Reason::OsfxsrClear),
        ("Vol. 2 LDMXCSR #NM: CR0.TS", |p| { p.mode.ts = true; p.ldmxcsr(0x1f80) }, Reason::TaskSwitched),
        ("Vol. 2 LDMXCSR #GP: reserved bits", |p| p.ldmxcsr(0x1_0000), Reason::Mxcsr(0x1_0000)),
        ("Vol. 3 2.5 x87 #NM: CR0.EM", |p| { p.mode.em = true; p.use_component(component(0)) }, Reason::X87Emulation),
        ("Vol. 1 13.3 #UD: AVX not in XCR0", |p| { p.xsetbv(0, 3)?; p.use_component(component(2)) }, Reason::Disabled(component(2))),
        ("Vol. 1 13.3 #UD: no such feature", |p| p.use_component(component(50)), Reason::NotSupported),
        ("Vol. 1 13.14 #NM of a use", |p| { p.wrmsr(0x1c4, 1 << 18)?; p.use_component(component(18)) }, Reason::XfdUse(1 << 18)),
        ("Vol. 1 13.14 #NM of XRSTOR", |p| { p.wrmsr(0x1c4, 1 << 18)?; restored(p, 1 << 18, 0) }, Reason::XfdRestore(1 << 18)),
        ("Vol. 1 13.14 #NM of XRSTORS", |p| { p.wrmsr(0x1c4, 1 << 18)?; restored_all(p, 1 << 18, C | 1 << 18) }, Reason::XfdRestore(1 << 18)),
        ("Vol. 1 13.12 no standard form", |p| restored_all(p, 0, 0), Reason::NotCompacted(0)),
        ("Vol. 1 13.8.1 XSTATE_BV beyond XCR0", |p| { p.xsetbv(0, 3)?; restored(p, 7, 0) }, Reason::XstateBvXcr0(7)),
        ("Vol. 1 13.8.1 XSTATE_BV of a supervisor component", |p| restored(p, 1 << 11, 0), Reason::XstateBvXcr0(1 << 11)),
        ("Vol. 1 13.8.1 XSTATE_BV[63]", |p| restored(p, C, 0), Reason::XstateBvXcr0(C)),
        ("Vol. 1 13.8.1 bytes 15:8", |p| restored(p, 0, 7), Reason::StandardHeader),
        ("Vol. 1 13.8.1 bytes 23:16", |p| { let mut a = area(0, 0); a[535] = 1; p.xrstor(AT, &a, 1) }, Reason::StandardHeader),
        ("Vol. 1 13.8.2 XCOMP_BV beyond XCR0", |p| { p.xsetbv(0, 3)?; restored(p, 0, C | 7) }, Reason::XcompBvEnabled(C | 7)),
        ("Vol. 1 13.8.2 XCOMP_BV of a supervisor component", |p| restored(p, 0, C | 1 << 11), Reason::XcompBvEnabled(C | 1 << 11)),
        ("Vol. 1 13.12 XCOMP_BV beyond XCR0 | IA32_XSS", |p| { p.wrmsr(0xda0, 0)?; restored_all(p, 0, C | 1 << 11) }, Reason::XcompBvEnabled(C | 1 << 11)),
        ("Vol. 1 13.8.2 XSTATE_BV beyond XCOMP_BV", |p| restored(p, 7, C | 3), Reason::XstateBvXcompBv(7)),
        ("Vol. 1 13.8.2 XSTATE_BV[1] without XCOMP_BV[1]", |p| restored(p, 2, C), Reason::XstateBvXcompBv(2)),
        ("Vol. 1 13.12 XSTATE_BV beyond XCOMP_BV", |p| restored_all(p, 1 << 11, C | 3), Reason::XstateBvXcompBv(1 << 11)),
        ("Vol. 1 13.12 XSTATE_BV[63]", |p| restored_all(p, C, C), Reason::XstateBvXcompBv(C)),
        ("Vol. 1 13.8.2 bytes 63:16, first", |p| { let mut a = area(0, C); a[528] = 1; p.xrstor(AT, &a, 1) }, Reason::HeaderReserved),
        ("Vol. 1 13.12 bytes 63:16, last", |p| { let mut a = area(0, C); a[575] = 1; p.xrstors(AT, &a, 1) }, Reason::HeaderReserved),
        ("Vol. 1 13.8.1 MXCSR whatever XSTATE_BV says", |p| { let mut a = area(0, 0); a[26] = 1; p.xrstor(AT, &a, 4) }, Reason::Mxcsr(0x1_1f80)),
        ("Vol. 1 13.8.2 MXCSR", |p| { let mut a = area(2, C | 2); a[27] = 1; p.xrstor(AT, &a, 2) }, Reason::Mxcsr(0x100_1f80)),
        ("Vol. 1 13.12 MXCSR", |p| { let mut a = area(2, C | 2); a[26] = 2; p.xrstors(AT, &a, 2) }, Reason::Mxcsr(0x2_1f80)),
        ("Vol. 1 13.5.6 PT", |p| value(p, 8, 0, 1 << 63), Reason::ReservedValue(component(8), 1 << 63)),
        ("Vol. 1 13.5.6 PT loaded under TraceEn", |p| { p.put(component(8), &[1]); value(p, 8, 0, 0) }, Reason::TraceEnabled),
        ("Vol. 1 13.5.6 PT made INIT under TraceEn", |p| { p.put(component(8), &[1]); restored_all(p, 0, C) }, Reason::TraceEnabled),
        ("Vol. 1 13.12 reserved portion of PT, first", |p| value(p, 8, 72, 1), Reason::ReservedPortion(component(8))),
        ("Vol. 1 13.12 reserved portion of PT, last", |p| value(p, 8, 120, 1 << 63), Reason::ReservedPortion(component(8))),
        ("Vol. 1 13.5.8 IA32_PASID", |p| value(p, 10, 0, 1 << 20), Reason::ReservedValue(component(10), 1 << 20)),
        ("Vol. 1 13.5.9 IA32_U_CET reserved", |p| value(p, 11, 0, 1 << 6), Reason::ReservedValue(component(11), 1 << 6)),
        ("Vol. 1 13.5.9 IA32_U_CET TRACKER and SUPPRESS", |p| value(p, 11, 0, 0xc00), Reason::ReservedValue(component(11), 0xc00)),
        ("Vol. 1 13.5.9 IA32_U_CET legacy bitmap", |p| value(p, 11, 0, HOLE), Reason::NonCanonical(component(11), HOLE)),
        ("Vol. 1 13.5.9 IA32_PL3_SSP", |p| value(p, 11, 8, 2), Reason::ReservedValue(component(11), 2)),
        ("Vol. 1 13.5.9 IA32_PL2_SSP", |p| value(p, 12, 16, HOLE), Reason::NonCanonical(component(12), HOLE)),
        ("Vol. 2 WRMSR of IA32_PL0_SSP", |p| p.wrmsr(0x6a4, HOLE), Reason::NonCanonical(component(12), HOLE)),
        ("Vol. 1 13.5.10 HDC", |p| value(p, 13, 0, 2), Reason::ReservedValue(component(13), 2)),
        ("Vol. 1 13.5.11 UIHANDLER", |p| value(p, 14, 0, HOLE), Reason::NonCanonical(component(14), HOLE)),
        ("Vol. 1 13.5.11 UISTACKADJUST", |p| value(p, 14, 8, 2), Reason::ReservedValue(component(14), 2)),
        ("Vol. 1 13.5.11 UINTR_MISC", |p| value(p, 14, 16, 1 << 40), Reason::ReservedValue(component(14), 1 << 40)),
        ("Vol. 1 13.5.11 UPIDADDR", |p| value(p, 14, 24, 0x20), Reason::ReservedValue(component(14), 0x20)),
        ("Vol. 1 13.5.11 UITTADDR", |p| value(p, 14, 40, 8), Reason::ReservedValue(component(14), 8)),
        ("Vol. 1 13.12 UINV is live", |p| { p.put(component(14), &[&[0; 20][..], &[0xec]].concat()); value(p, 14, 0, 0) }, Reason::UinvLive(0xec)),
        ("Vol. 3 LBR: IA32_LBR_CTL", |p| value(p, 15, 0, 1 << 4), Reason::ReservedValue(component(15), 1 << 4)),
        ("Vol. 3 LBR: IA32_LBR_DEPTH", |p| value(p, 15, 8, 12), Reason::ReservedValue(component(15), 12)),
        ("Vol. 3 LBR: IA32_LER_FROM_IP", |p| value(p, 15, 16, HOLE), Reason::NonCanonical(component(15), HOLE)),
        ("Vol. 3 LBR: IA32_LBR_31_TO_IP", |p| lbr_value(p, 792, HOLE), Reason::NonCanonical(component(15), HOLE)),
        ("Vol. 1 13.13 header of XSAVE", |p| p.xsave(AT, &mut [0; 519], 0), Reason::Outside(519)),
        ("Vol. 1 13.13 header of XSAVEC", |p| p.xsavec(AT, &mut [0; 520], 0), Reason::Outside(520)),
        ("Vol. 1 13.13 component of XSAVE", |p| p.xsave(AT, &mut [0; 831], 4), Reason::Outside(831)),
        ("Vol. 1 13.13 component of XSAVEC", |p| { p.put_pattern(component(2), 1); p.xsavec(AT, &mut [0; 831], 4) }, Reason::Outside(831)),
        ("Vol. 1 13.13 nothing at all", |p| p.xrstor(AT, &[], 0), Reason::Outside(512)),
        ("Vol. 1 13.13 header of XRSTOR", |p| p.xrstor(AT, &[0; 520], 0), Reason::Outside(520)),
        ("Vol. 1 13.13 component of XRSTOR", |p| p.xrstor(AT, &area(4, 0)[..700], 4), Reason::Outside(700)),
        ("Vol. 1 13.13 component of XRSTORS", |p| p.xrstors(AT, &area(4, C | 4)[..831], 4), Reason::Outside(831)),
    ]
}

/// The processor's state that a fault may not change.
fn state(cpu: &Cpu) -> (Registers, u64, u64, u64) {
    (cpu.registers().clone(), cpu.xcr0, cpu.xss, cpu.xfd)
}

#[test]
fn each_condition_of_the_manual_raises_its_exception() {
    let mut reached = BTreeSet::new();
    for (manual, action, reason) in table() {
        let mut cpu = cpu();
        let fault = action(&mut cpu).expect_err(manual);
        assert_eq!(
            (fault.exception, fault.reason),
            (reason.exception(), reason),
            "{manual}"
        );
        // The same action again from where it left off raises it again, and
        // in between nothing has changed.
        let between = state(&cpu);
        assert_eq!(action(&mut cpu), Err(fault), "{manual}, again");
        assert!(state(&cpu) == between, "{manual} changed something");
        if let Reason::XfdUse(bits) | Reason::XfdRestore(bits) = reason {
            assert_eq!(cpu.xfd_err(), bits, "{manual}");
        } else {
            assert_eq!(cpu.xfd_err(), 0, "{manual}");
        }
        reached.insert(format!("{reason:?}").split('(').next().unwrap().to_owned());
    }
    // `NoCompaction` needs another machine, below.
    assert_eq!(reached.len(), 38, "{reached:?}");
}

/// Vol. 2: #UD where CPUID does not list the instruction or feature.
#[test]
fn what_cpuid_does_not_list_is_not_there() {
    let lacks = |bit: u32| {
        cpu_without(move |leaf, subleaf, r| {
            if (leaf, subleaf) == (0xd, 1) {
                r.eax &= !(1 << bit);
            }
        })
    };
    let missing = Err(Fault::from(Reason::NotSupported));
    let a = &mut area(0, 0);
    assert_eq!(lacks(0).xsaveopt(AT, a, 1), missing);
    assert_eq!(lacks(1).xsavec(AT, a, 1), missing);
    assert_eq!(lacks(3).xsaves(AT, a, 1), missing);
    assert_eq!(lacks(3).xrstors(AT, a, 1), missing);
    assert_eq!(lacks(2).xgetbv(1), Err(Reason::XcrIndex(1).into()));
    assert_eq!(lacks(3).wrmsr(0xda0, 0), Err(Reason::NoMsr(0xda0).into()));
    assert_eq!(lacks(4).rdmsr(0x1c4), Err(Reason::NoMsr(0x1c4).into()));
    let mut none = cpu_without(|leaf, _, r| r.ecx &= if leaf == 1 { !(1 << 26) } else { !0 });
    assert_eq!(none.xsave(AT, a, 1), missing);
    assert_eq!(none.xrstor(AT, a, 1), missing);
    assert_eq!(none.xsetbv(0, 1), missing);
    assert_eq!(none.machine().user(), 0);
    let mut none = cpu_without(|leaf, _, r| r.ecx &= if leaf == 7 { !(1 << 3) } else { !0 });
    assert_eq!(none.wrpkru(0, 0, 0), missing);
}

/// Vol. 1, 13.8: XCOMP_BV\[63\] without the compaction extensions.
#[test]
fn a_compacted_area_on_a_machine_without_compaction() {
    let mut cpu = cpu_without(|leaf, subleaf, r| {
        if (leaf, subleaf) == (0xd, 1) {
            r.eax = 1;
        }
    });
    let refused = cpu.xrstor(AT, &area(0, C), 1);
    assert_eq!(refused, Err(Reason::NoCompaction(C).into()));
    cpu.xrstor(AT, &area(0, 0), 1).unwrap();
}

/// Vol. 1, 17.2.4: the bits of IA32_U_CET and the shadow-stack pointers exist
/// with their features (AMD has shadow stacks without branch tracking).
#[test]
fn cet_bits_of_a_feature_that_the_processor_lacks() {
    let machine = |stacks: bool, tracking: bool| {
        let mut cpu = cpu_without(move |leaf, _, r| {
            if leaf == 7 {
                r.ecx = u32::from(stacks) << 7;
                r.edx = u32::from(tracking) << 20;
            }
        });
        cpu.wrmsr(0xda0, 0x1800).unwrap();
        cpu
    };
    for (index, at, bits, with_stacks, with_tracking) in [
        (11, 0, 3, true, false),
        (11, 0, 4, false, true),
        (11, 0, 0x7000, false, true),
        (11, 8, 0x7000, true, false),
        (12, 0, 0x7000, true, false),
        (12, 8, 0, true, true),
    ] {
        let takes = |stacks, tracking| value(&mut machine(stacks, tracking), index, at, bits);
        assert_eq!(takes(true, false).is_ok(), with_stacks, "{index} {bits:#x}");
        assert_eq!(
            takes(false, true).is_ok(),
            with_tracking,
            "{index} {bits:#x}"
        );
        assert!(takes(true, true).is_ok(), "{index} {bits:#x}");
    }
}

/// Vol. 2, CPUID, leaf 1CH: what of IA32_LBR_CTL there is follows from EBX\[2:0\].
#[test]
fn lbr_ctl_by_leaf_1c() {
    for ebx in 0..8u32 {
        let mut cpu = cpu_without(move |leaf, _, r| {
            if leaf == 0x1c {
                r.ebx = ebx;
            }
        });
        cpu.wrmsr(0xda0, 1 << 15).unwrap();
        for (bit, needs) in [(0, 0), (1, 1), (2, 1), (3, 4), (16, 2), (22, 2)] {
            let control = 1 << bit;
            let expected = if ebx & needs == needs {
                Ok(())
            } else {
                Err(Reason::ReservedValue(component(15), control).into())
            };
            assert_eq!(value(&mut cpu, 15, 0, control), expected, "{ebx} {bit}");
            assert_eq!(cpu.wrmsr(0x14ce, control), expected, "{ebx} {bit}");
        }
        for bit in [4, 15, 23, 63] {
            assert!(cpu.wrmsr(0x14ce, 1 << bit).is_err(), "{ebx} {bit}");
        }
    }
}

/// Vol. 4, Table 2-2, IA32_LBR_x_INFO: what is no field, and where there are
/// no counters theirs too, is undefined: writes do not fault.
#[test]
fn no_bit_of_lbr_info_faults() {
    for at in [32, 56, 800] {
        let mut cpu = cpu();
        assert_eq!(lbr_value(&mut cpu, at, u64::MAX), Ok(()));
        let lbr = cpu.registers().component(component(15));
        assert_eq!(word(lbr, at), u64::MAX);
    }
}

/// 13.12: a bit in any reserved portion of a supervisor component faults, where
/// a machine gives it more than its registers; of a user component none does.
#[test]
fn reserved_portions_of_supervisor_components_fault() {
    let mut cpu = cpu_without(|leaf, subleaf, r| {
        if (leaf, subleaf) == (0xd, 11) {
            r.eax = 32;
        }
    });
    cpu.xsetbv(0, 0x207).unwrap();
    cpu.wrmsr(0xda0, 1 << 11).unwrap();
    for at in 16..32 {
        let mut area = area(1 << 11, C | 1 << 11);
        area[576 + 8] = 0x10;
        area[576 + at] = 0x80;
        let refused = Err(Reason::ReservedPortion(component(11)).into());
        assert_eq!(cpu.xrstors(AT, &area, u64::MAX), refused, "byte {at}");
        // Not asked for, not looked at.
        cpu.xrstors(AT, &area, 7).unwrap();
        area[576 + at] = 0;
        cpu.xrstors(AT, &area, u64::MAX).unwrap();
        assert_eq!(cpu.registers().component(component(11))[8], 0x10);
    }
    // PKRU: 4 bytes of 8.
    let mut area = area(1 << 9, C | 1 << 9);
    area[576 + 4] = 0xff;
    cpu.xrstors(AT, &area, u64::MAX).unwrap();
}

/// What the table calls illegal has legal neighbours.
#[test]
fn legal_values_are_loaded() {
    for (index, at, legal) in [
        (4, 0, 0xffff_8000_0000_1003),
        (10, 0, 0x800f_ffff),
        (11, 0, 0xffff_8000_0000_183f & !0x400),
        (11, 8, 0x7fff_ffff_fffc),
        (12, 16, 0xffff_8000_0000_0004),
        (13, 0, 0),
        (14, 8, 0x1001),
        (14, 16, 0x8000_00ff_ffff_ffff),
        (14, 32, u64::MAX),
        (15, 0, 0x007f_000f),
        (15, 8, 64),
        (15, 32, u64::MAX),
        (16, 0, u64::MAX),
        (40, 16, u64::MAX),
    ] {
        let mut cpu = cpu();
        assert_eq!(
            value(&mut cpu, index, at, legal),
            Ok(()),
            "{index} {legal:#x}"
        );
        if (index, at) != (15, 8) {
            let bytes = cpu.registers().component(component(index));
            assert_eq!(word(bytes, at), legal, "{index}");
        }
    }
}
