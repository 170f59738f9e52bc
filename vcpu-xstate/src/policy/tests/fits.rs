//! What a receiving host says to a policy.

use super::super::Misfit;
use super::*;

fn refusal(there: &Machine, config: &str, here: &Machine) -> String {
    let policy = there.policy().with_config(config).unwrap();
    policy.fits(&here.policy()).unwrap_err().to_string()
}

#[test]
fn the_first_thing_that_the_host_lacks_is_named() {
    let mut no_pku = skylake();
    no_pku.word(Word::L7Ecx, 0);
    assert_eq!(
        refusal(&skylake(), "host", &no_pku),
        "pkru (CPUID 0xD.9) not offered here"
    );
    assert_eq!(
        refusal(&qemu_max(), "host:mpx=0,pku=0", &epyc_rome()),
        "umip (CPUID 7.0:ECX[2]) missing here"
    );
    assert_eq!(
        refusal(&skylake(), "host", &apx()),
        "bndregs (CPUID 0xD.3) not offered here"
    );
}

/// 0x207 has three standard layouts in the field.
#[test]
fn one_xcr0_three_layouts() {
    let with_pkru = |row| {
        let mut m = machine(INTEL, 0x5_0654, 0x207, 0xf, &[AVX, row]);
        m.word(Word::L7Ecx, 8);
        m
    };
    let intel = with_pkru(PKRU);
    let amd = with_pkru((9, 8, 2432, 0));
    let rome = with_pkru((9, 64, 832, 0));
    for (there, here, text) in [
        (&intel, &amd, "pkru at 2688 there, 2432 here (CPUID 0xD.9)"),
        (&amd, &intel, "pkru at 2432 there, 2688 here (CPUID 0xD.9)"),
        (
            &intel,
            &rome,
            "pkru 8 bytes there, 64 bytes here (CPUID 0xD.9)",
        ),
    ] {
        assert_eq!(there.policy().xstate().mask.bits(), 0x207);
        assert_eq!(refusal(there, "host", here), text);
        let without = there.policy().with_config("host:pku=0").unwrap();
        assert_eq!(without.fits(&here.policy()), Ok(()));
        let level = there.policy().level(&here.policy());
        assert_eq!(level.xstate().mask.bits(), 0x7);
    }
}

#[test]
fn opmask_elsewhere() {
    let mut moved = sapphire_rapids();
    moved.put(0xd, 5, [64, 832, 0, 0]);
    let error = moved
        .policy()
        .fits(&sapphire_rapids().policy())
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "opmask at 832 there, 1088 here (CPUID 0xD.5)"
    );
    let broken = error.broken();
    assert_eq!(
        (broken.rule, broken.seen, broken.allowed),
        ("fits-layout", 832, 1088)
    );
}

/// Vendors may differ where features and layouts do not.
#[test]
fn across_vendors() {
    let amd = qemu_max().policy();
    let intel = skylake().policy();
    let level = amd.level(&intel);
    assert_eq!(level.xstate().mask.bits(), 0x21f);
    assert_eq!(level.fits(&amd), Ok(()));
    assert_eq!(level.fits(&intel), Ok(()));
    // The guest goes on seeing the processor that it booted on.
    assert_eq!(level.raw(0, 0).ebx, AMD[0]);
    let other_way = intel.level(&amd);
    assert_eq!(other_way.raw(0, 0).ebx, INTEL[0]);
    assert_eq!(other_way.xstate(), level.xstate());
}

#[test]
fn numbers() {
    let mut narrow = skylake();
    narrow.put(0x8000_0008, 0, [0x3024, 0, 0, 0]);
    assert_eq!(narrow.policy().physical_address_bits(), 36);
    assert_eq!(narrow.policy().fits(&skylake().policy()), Ok(()));
    assert_eq!(
        refusal(&skylake(), "host", &narrow),
        "physical address bits 39 there, 36 here (CPUID 0x80000008:EAX[0])"
    );
    // A guest that flushes in steps of 64 bytes would skip lines of 32.
    let mut lines = skylake();
    lines.put(1, 0, [0x5_0654, 0x0400, 0x7ffe_fbff, 0xbfeb_fbff]);
    assert_eq!(lines.policy().fits(&skylake().policy()), Ok(()));
    assert_eq!(
        refusal(&skylake(), "host", &lines),
        "clflush line bytes 64 there, 32 here (CPUID 1:EBX[8])"
    );
    let mut tiles = sapphire_rapids();
    tiles.put(0x1d, 1, [0x0400_2000, 0x0008_0040, 0x20, 0]);
    assert_eq!(
        refusal(&sapphire_rapids(), "host", &tiles),
        "tile rows 16 there, 32 here (CPUID 0x1D.1:ECX[0])"
    );
    let without = sapphire_rapids()
        .policy()
        .with_config("host:amx-tile=0")
        .unwrap();
    assert_eq!(without.fits(&tiles.policy()), Ok(()));
}

/// FDP_EXCPTN_ONLY and ZERO_FCS_FDS take something away: a guest that was told
/// that they are clear relies on what a host with them does not do.
#[test]
fn inverse_features_count_the_other_way_round() {
    let mut machine = skylake();
    machine.word(Word::L7Ebx, u32::MAX);
    let host = machine.policy();
    for word in [0, u32::MAX] {
        let mut machine = skylake();
        machine.word(Word::L7Ebx, word);
        let bits = machine.policy().features().word(Word::L7Ebx);
        assert_eq!(bits & (1 << 6 | 1 << 13), 1 << 6 | 1 << 13);
    }
    let mut leaves = host.leaves().to_vec();
    let row = leaves.iter_mut().find(|row| row.leaf == 7).unwrap();
    row.ebx &= !(1 << 13);
    let promised = CpuPolicy::from_leaves(&leaves, host.deferred()).unwrap();
    let error = promised.fits(&host).unwrap_err();
    assert!(matches!(error, Misfit::Inverse(f) if f.name == "no-fpu-sel"));
    assert_eq!(host.fits(&promised), Ok(()));
}

/// The bits were in every host's default, and that was what a guest was held
/// against: one that was promised better was refused by machines that are.
#[test]
fn a_host_without_inverse_bits_takes_a_policy_without_them() {
    let inverse = 1 << 6 | 1 << 13;
    let hosts = [0, 1 << 6, 1 << 13, inverse].map(|bits| {
        let mut machine = skylake();
        machine.word(Word::L7Ebx, !inverse | bits);
        (bits, machine.policy())
    });
    for (promised, default) in &hosts {
        // A guest that is told just what its machine has.
        let mut leaves = default.leaves().to_vec();
        let row = leaves.iter_mut().find(|row| row.leaf == 7).unwrap();
        row.ebx = row.ebx & !inverse | promised;
        let policy = CpuPolicy::from_leaves(&leaves, default.deferred()).unwrap();
        for (bits, host) in &hosts {
            let fits = policy.fits(host);
            assert_eq!(
                fits.is_ok(),
                bits & !promised == 0,
                "{promised:#x} on {bits:#x}: {fits:?}"
            );
            // Whoever was told the worst goes anywhere.
            assert_eq!(default.fits(host), Ok(()));
        }
        let level = policy.level(&hosts[3].1);
        assert_eq!(level.features().word(Word::L7Ebx) & inverse, inverse);
    }
}

#[test]
fn a_feature_without_a_name_is_refused_by_its_place() {
    let host = skylake().policy();
    let mut leaves = host.leaves().to_vec();
    let row = leaves.iter_mut().find(|row| row.leaf == 7).unwrap();
    row.edx |= 1 << 7;
    let policy = CpuPolicy::from_leaves(&leaves, host.deferred()).unwrap();
    assert_eq!(
        policy.fits(&host).unwrap_err().to_string(),
        "unknown feature (CPUID 7.0:EDX[7]) missing here"
    );
}
