//! CPUID, XSETBV, the MSRs, HLT and the cache flushes as a guest sees them.

use super::msr::number;
use super::*;
use crate::mm::addr::GuestPhys;
use crate::testing::{CODE, DATA, Guest};
use crate::virt::{Exit, Intercepted};
use vcpu_xstate::component::ComponentSet;

/// XCR0 has AVX on top of x87 and SSE.
const AVX: u64 = 7;
const GP: Option<Event> = Some(Event::GENERAL_PROTECTION);

fn cpuid(guest: &mut Guest, leaf: u64, subleaf: u64) -> [u64; 4] {
    guest.set(gpr::RAX, 0xdead_beef << 32 | leaf);
    guest.set(gpr::RCX, 0xdead_beef << 32 | subleaf);
    assert_eq!(guest.execute(&[0x0f, 0xa2], Intercepted::Cpuid), None);
    assert_eq!(guest.rip(), CODE + 2);
    [gpr::RAX, gpr::RBX, gpr::RCX, gpr::RDX].map(|r| guest.get(r))
}

fn xsetbv(guest: &mut Guest, index: u64, value: u64) -> Option<Event> {
    guest.set(gpr::RCX, index);
    guest.set(gpr::RAX, 0xdead << 32 | value & 0xffff_ffff);
    guest.set(gpr::RDX, 0xdead << 32 | value >> 32);
    guest.execute(&[0x0f, 0x01, 0xd1], Intercepted::Xsetbv)
}

fn rdmsr(guest: &mut Guest, msr: u32) -> Result<u64, Event> {
    guest.set(gpr::RCX, 0xdead << 32 | u64::from(msr));
    let before = guest.registers();
    match guest.execute(&[0x0f, 0x32], Intercepted::Rdmsr) {
        Some(event) => {
            assert_eq!((guest.rip(), guest.registers().gpr), (CODE, before.gpr));
            Err(event)
        }
        None => {
            assert_eq!(guest.rip(), CODE + 2);
            assert_eq!(guest.get(gpr::RAX) >> 32 | guest.get(gpr::RDX) >> 32, 0);
            Ok(guest.vcpu().edx_eax())
        }
    }
}

fn wrmsr(guest: &mut Guest, msr: u32, value: u64) -> Result<(), Event> {
    guest.set(gpr::RCX, u64::from(msr));
    guest.set(gpr::RAX, 0xdead << 32 | value & 0xffff_ffff);
    guest.set(gpr::RDX, 0xdead << 32 | value >> 32);
    let event = guest.execute(&[0x0f, 0x30], Intercepted::Wrmsr);
    assert_eq!(guest.rip(), CODE + if event.is_some() { 0 } else { 2 });
    event.map_or(Ok(()), Err)
}

#[test]
fn cpuid_answers_by_the_policy() {
    let mut guest = Guest::new("host:avx=0,mpx=0,pku=0");
    assert_eq!(
        cpuid(&mut guest, 0x4000_0000, 0)[1..].to_vec(),
        [*b"Xfer", *b"ryXf", *b"erry"].map(|w| u64::from(u32::from_le_bytes(w)))
    );
    assert_eq!(cpuid(&mut guest, 1, 0)[2] >> 28 & 1, 0);
    assert_eq!(cpuid(&mut guest, 0xd, 0)[0], 3);
    // A leaf of the host's that no policy has.
    assert_eq!(cpuid(&mut guest, 0x8000_000a, 0), [0; 4]);
    let mut guest = Guest::new("host");
    assert_eq!(cpuid(&mut guest, 1, 0)[2] >> 28 & 1, 1);
    assert_eq!(cpuid(&mut guest, 0xd, 0)[0], 0x21f);
    assert_eq!(cpuid(&mut guest, 0xd, 9)[..2], [8, 2688]);
}

#[test]
fn cpuid_follows_cr4_and_xcr0() {
    let mut guest = Guest::new("host");
    assert_eq!(cpuid(&mut guest, 1, 0)[2] >> 27 & 1, 0);
    assert_eq!(cpuid(&mut guest, 7, 0)[2] >> 4 & 1, 0);
    guest.change(|r| r.cr4 |= cr::CR4_OSXSAVE | cr::CR4_PKE);
    assert_eq!(cpuid(&mut guest, 1, 0)[2] >> 27 & 1, 1);
    assert_eq!(cpuid(&mut guest, 7, 0)[2] >> 4 & 1, 1);
    for (xcr0, bytes) in [(1, 576), (3, 576), (AVX, 832), (0x1f, 1088), (0x21f, 2696)] {
        assert_eq!(xsetbv(&mut guest, 0, xcr0), None);
        assert_eq!(guest.vcpu().xstate.xcr0(), xcr0);
        let [_, enabled, most, _] = cpuid(&mut guest, 0xd, 0);
        assert_eq!((enabled, most), (bytes, 2696), "{xcr0:#x}");
    }
}

#[test]
fn xsetbv_that_the_manual_or_the_policy_forbids_changes_nothing() {
    let mut guest = Guest::new("host:mpx=0");
    assert_eq!(xsetbv(&mut guest, 0, 3), None);
    assert_eq!(guest.rip(), CODE + 3);
    for (index, value) in [
        (1, AVX),     // no such register
        (0, 0),       // x87 is always there
        (0, 5),       // AVX needs SSE
        (0, 0x1f),    // outside the policy
        (0, 0xf),     // half of MPX
        (0, 1 << 63), // no component
        (0, 3 | 1 << 32),
    ] {
        assert_eq!(xsetbv(&mut guest, index, value), GP, "{index} {value:#x}");
        assert_eq!((guest.rip(), guest.vcpu().xstate.xcr0()), (CODE, 3));
    }
    guest.set_cpl(3);
    assert_eq!(xsetbv(&mut guest, 0, AVX), GP);
    guest.set_cpl(0);
    // ECX's upper half is not looked at.
    assert_eq!(xsetbv(&mut guest, 1 << 32, AVX), None);
    assert_eq!(guest.vcpu().xstate.xcr0(), AVX);
}

#[test]
fn enabling_a_deferred_component_grows_the_area_first() {
    let mut guest = Guest::new("host:mpx=0,pku=0,defer-avx=1");
    assert_eq!(guest.vcpu().xstate.area_size_bytes(), 576);
    let used = guest.domain.xstate_memory.lock().used_bytes();
    assert_eq!(xsetbv(&mut guest, 0, 3), None);
    assert_eq!(guest.vcpu().xstate.area_size_bytes(), 576);
    assert_eq!(xsetbv(&mut guest, 0, AVX), None);
    let vcpu = guest.vcpu();
    assert_eq!(vcpu.xstate.area_size_bytes(), 832);
    assert_eq!(vcpu.xstate.accum(), ComponentSet::from_bits_retain(AVX));
    assert_eq!(vcpu.xstate.xcr0(), AVX);
    let grown = guest.domain.xstate_memory.lock().used_bytes();
    assert_eq!(grown - used, 256);
}

#[test]
fn growth_without_memory_loses_nothing_and_goes_on_when_there_is() {
    let mut guest = Guest::new("host:mpx=0,pku=0,defer-avx=1");
    let domain = alloc::sync::Arc::clone(&guest.domain);
    let used = domain.xstate_memory.lock().used_bytes();
    domain.xstate_memory.lock().set_limit_bytes(used);
    assert_eq!(xsetbv(&mut guest, 0, 3), None);
    guest.at(&[0x0f, 0x01, 0xd1]);
    guest.set(gpr::RAX, AVX);
    let before = guest.registers();
    let exit = Exit::Instruction(Intercepted::Xsetbv);
    let Next::Stop(stop) = guest.exit(exit) else {
        panic!("it went on")
    };
    assert_eq!((stop.state, stop.cause), (state::NEEDS_MEMORY, 0));
    assert_eq!(guest.registers(), before);
    assert_eq!(guest.rip(), CODE);
    {
        let vcpu = guest.vcpu();
        assert_eq!((vcpu.xstate.xcr0(), vcpu.xstate.accum().bits()), (3, 3));
        assert_eq!(vcpu.xstate.area_size_bytes(), 576);
    }
    assert_eq!(domain.xstate_memory.lock().used_bytes(), used);
    // So much more is enough, and one byte less than a block of it is not.
    let enough = used + stop.detail;
    domain.xstate_memory.lock().set_limit_bytes(enough - 1);
    assert!(matches!(guest.exit(exit), Next::Stop(_)));
    domain.xstate_memory.lock().set_limit_bytes(enough);
    assert_eq!(guest.exit(exit), Next::Resume);
    assert_eq!((guest.rip(), guest.vcpu().xstate.xcr0()), (CODE + 3, AVX));
}

#[test]
fn msrs_that_nobody_names_do_not_exist() {
    let mut guest = Guest::new("host");
    let before = guest.registers();
    // APIC_BASE, FEATURE_CONTROL, DEBUGCTL, VM_HSAVE_PA; IA32_XSS and XFD,
    // which this host has not.
    for msr in [0x1b, 0x3a, 0x1d9, 0xc001_0117, number::XSS, number::XFD] {
        assert_eq!(rdmsr(&mut guest, msr), Err(Event::GENERAL_PROTECTION));
        let written = wrmsr(&mut guest, msr, 0);
        assert_eq!(written, Err(Event::GENERAL_PROTECTION), "{msr:#x}");
    }
    let mut after = guest.registers();
    (after.gpr, after.rip) = (before.gpr, before.rip);
    assert_eq!(after, before);
}

#[test]
fn msrs_are_the_kernels() {
    let mut guest = Guest::new("host");
    guest.set_cpl(3);
    let gp = Event::GENERAL_PROTECTION;
    assert_eq!(rdmsr(&mut guest, number::PAT), Err(gp));
    let pat = guest.read(Register::Pat);
    assert_eq!(wrmsr(&mut guest, number::PAT, 0), Err(gp));
    assert_eq!(guest.read(Register::Pat), pat);
}

#[test]
fn what_is_written_is_read_again() {
    let mut guest = Guest::new("host");
    for (msr, value) in [
        (number::PAT, 0x0007_0406_0007_0401),
        (number::FS_BASE, 0xffff_9234_5678_9000),
        (number::GS_BASE, 0x1234_5000),
        (number::KERNEL_GS_BASE, 0xffff_8000_0000_0008),
        (number::STAR, 0x0023_0010_0000_0000),
        (number::LSTAR, 0xffff_ffff_8000_0000),
        (number::CSTAR, 0x8000),
        (number::SFMASK, 0x4_7700),
        (number::SYSENTER_CS, 0x10),
        (number::SYSENTER_ESP, 0x1_0000_9000),
        (number::SYSENTER_EIP, 0x1_0000_8000),
        (number::TSC_AUX, 0x1234_5678),
        (number::EFER, 0xd01),
    ] {
        assert_eq!(wrmsr(&mut guest, msr, value), Ok(()), "{msr:#x}");
        assert_eq!(rdmsr(&mut guest, msr), Ok(value), "{msr:#x}");
    }
    let r = guest.registers();
    assert_eq!((r.fs.base, r.gs.base), (0xffff_9234_5678_9000, 0x1234_5000));
    assert_eq!((r.tsc_aux, r.lstar), (0x1234_5678, 0xffff_ffff_8000_0000));
}

#[test]
fn illegal_values_change_no_msr() {
    let mut guest = Guest::new("host");
    for (msr, value) in [
        (number::EFER, 0x500 | 1 << 12), // SVME
        (number::EFER, 0),               // LME stays with paging on
        (number::PAT, 0x0007_0406_0007_0402),
        (number::FS_BASE, 1 << 60),
        (number::GS_BASE, 1 << 47),
        (number::KERNEL_GS_BASE, 1 << 63),
        (number::LSTAR, 1 << 58),
        (number::SYSENTER_EIP, 1 << 57),
        (number::SFMASK, 1 << 32),
        (number::TSC_AUX, 1 << 32),
    ] {
        let before = rdmsr(&mut guest, msr);
        let written = wrmsr(&mut guest, msr, value);
        assert_eq!(written, Err(Event::GENERAL_PROTECTION), "{msr:#x}");
        assert_eq!(rdmsr(&mut guest, msr), before, "{msr:#x}");
    }
}

#[test]
fn a_written_tsc_goes_on_from_there_and_the_clock_page_says_so() {
    let mut guest = Guest::new("host");
    assert_eq!(guest.hypercall(2, [DATA, 0, 0]), Next::Resume);
    assert_eq!(guest.result(), Ok(0));
    let version = |guest: &Guest| u32::from_le_bytes(guest.take(DATA, 4).try_into().unwrap());
    let timestamp = |guest: &Guest| u64::from_le_bytes(guest.take(DATA + 8, 8).try_into().unwrap());
    assert_eq!(version(&guest), 2);
    let first = 1 << 40;
    assert_eq!(wrmsr(&mut guest, number::TSC, first), Ok(()));
    let read = rdmsr(&mut guest, number::TSC).unwrap();
    assert!(read >= first && read < first << 1, "{read:#x}");
    assert_eq!(version(&guest), 4);
    // The page's line is over the TSC that the guest now reads.
    assert!(timestamp(&guest) <= read);
    let offset = guest.vcpu().tsc_offset;
    let host_timestamp = timestamp(&guest).wrapping_sub(offset);
    assert!(host_timestamp <= tsc::now());
    assert_eq!(guest.registers().tsc, offset);
}

#[test]
fn hlt_waits_behind_itself() {
    let mut guest = Guest::new("host");
    assert_eq!(guest.execute(&[0xf4], Intercepted::Hlt), None);
    assert_eq!(guest.rip(), CODE + 1);
    assert_eq!(guest.vcpu().activity, Activity::Halted);
}

#[test]
fn cache_flushes_are_done_and_move_nothing() {
    let mut guest = Guest::new("host");
    guest
        .domain
        .memory
        .write(GuestPhys::new(DATA), b"kept")
        .unwrap();
    for (code, what) in [
        ([0x0f, 0x08], Intercepted::Invd),
        ([0x0f, 0x09], Intercepted::Wbinvd),
    ] {
        assert_eq!(guest.execute(&code, what), None);
        assert_eq!(guest.rip(), CODE + 2);
        assert_eq!(guest.vcpu().activity, Activity::Running);
    }
    assert_eq!(guest.take(DATA, 4), b"kept");
}
