//! Policies from words: what each setting takes along, and every refusal.

use super::super::config::Problem;
use super::super::set::{Bit, by_name};
use super::*;
use proptest::prelude::*;

fn has(policy: &CpuPolicy, name: &str) -> bool {
    policy.has(by_name(name).unwrap().bit())
}

#[test]
fn removing_takes_dependants_along() {
    // (setting, mask left, gone, kept), from Sapphire Rapids' 0x602e7.
    let table: [(&str, u64, &[&str], &[&str]); 6] = [
        (
            "host:avx=0",
            0x6_0203,
            &[
                "avx2",
                "fma",
                "f16c",
                "vaes",
                "vpclmulqdq",
                "avx512f",
                "avx512bw",
                "avx-vnni",
            ],
            &["aesni", "pclmulqdq", "sse4-2", "bmi2", "xsave", "gfni"],
        ),
        (
            "host:avx512f=0",
            0x6_0207,
            &["avx512vl", "avx512-bf16", "avx512-fp16"],
            &["avx2", "vaes", "amx-bf16"],
        ),
        ("host:pku=0", 0x6_00e7, &["pku"], &["avx512f", "amx-tile"]),
        (
            "host:amx-tile=0",
            0x2e7,
            &["amx-bf16", "amx-int8", "xfd"],
            &["pku"],
        ),
        (
            "host:xsave=0",
            0x3,
            &[
                "avx", "pku", "amx-tile", "xsaveopt", "xsavec", "xgetbv1", "xsaves", "xfd",
            ],
            &["sse2", "lm", "aesni"],
        ),
        ("host", 0x6_02e7, &[], &["avx512f", "amx-int8", "pku"]),
    ];
    let host = sapphire_rapids().policy();
    for (config, mask, gone, kept) in table {
        let policy = host.with_config(config).unwrap();
        assert_eq!(policy.xstate().mask.bits(), mask, "{config}");
        for name in gone {
            assert!(!has(&policy, name), "{config} left {name}");
        }
        for name in kept {
            assert!(has(&policy, name), "{config} took {name}");
        }
        assert_closed(&policy);
        assert_eq!(policy.fits(&host), Ok(()), "{config}");
    }
    let mpx = skylake().policy().with_config("host:mpx=0").unwrap();
    assert_eq!(mpx.xstate().mask.bits(), 0x2e7);
    let no_xsave = host.with_config("host:xsave=0").unwrap();
    assert_eq!(*no_xsave.xstate(), crate::XstatePolicy::without_xsave());
    assert_eq!(
        no_xsave
            .leaves()
            .iter()
            .filter(|row| row.leaf == 0xd)
            .count(),
        0
    );
}

#[test]
fn deferral() {
    let host = skylake().policy();
    assert_eq!(host.deferred().bits(), 0xe0);
    let policy = host.with_config("host:defer-avx=1,defer-mpx=1").unwrap();
    assert_eq!(policy.deferred().bits(), 0xfc);
    assert_eq!(policy.xstate().mask, host.xstate().mask);
    assert_eq!(policy.leaves(), host.leaves());
    assert_closed(&policy);
    let undone = policy.with_config("host:defer-avx=0").unwrap();
    assert_eq!(undone.deferred().bits(), 0xf8);
}

#[test]
fn refusals_name_token_position_seen_and_allowed() {
    // (config, position, rule, part of the message)
    let table = [
        ("", 0, "config-base", "\"host\""),
        ("guest:avx=0", 0, "config-base", "\"host\""),
        ("hostess", 0, "config-base", "\"host\""),
        ("host:", 5, "config-empty", "empty"),
        ("host:avx=0,", 11, "config-empty", "empty"),
        ("host:avx=0,,pku=0", 11, "config-empty", "empty"),
        ("host:avx", 5, "config-no-value", "NAME=0 or NAME=1"),
        (
            "host:pku=0,avx=2",
            11,
            "config-value",
            "value \"2\"; 0 or 1",
        ),
        ("host:avx=", 5, "config-value", "value \"\""),
        ("host: avx=0", 5, "config-unknown-feature", "\" avx\""),
        (
            "host:ymm=0",
            5,
            "config-unknown-feature",
            "no feature \"ymm\"",
        ),
        ("host:AVX=0", 5, "config-unknown-feature", "\"AVX\""),
        ("host:avx=0,avx=0", 11, "config-twice", "once"),
        ("host:sse=0", 5, "config-always", "sse (CPUID 1:EDX[25])"),
        ("host:no-fpu-sel=0", 5, "config-always", "CPUID 7.0:EBX[13]"),
        (
            "host:x2apic=1",
            5,
            "config-never-offered",
            "x2apic (CPUID 1:ECX[21])",
        ),
        ("host:osxsave=1", 5, "config-live", "CR4"),
        (
            "host:pku=1",
            5,
            "config-host-lacks",
            "lacks pku (CPUID 7.0:ECX[3])",
        ),
        (
            "host:avx512bw=1",
            5,
            "config-host-lacks",
            "lacks avx512f (CPUID 7.0:EBX[16])",
        ),
        (
            "host:avx2=1,avx=0",
            5,
            "config-removed",
            "removes avx (CPUID 1:ECX[28])",
        ),
        ("host:defer-pku=1", 5, "config-defer-usable-unasked", "XCR0"),
        (
            "host:defer-sse=1",
            5,
            "config-unknown-deferral",
            "avx, mpx, avx512 and amx",
        ),
        (
            "host:defer-avx512=0",
            5,
            "config-defer-always",
            "1 is allowed",
        ),
        (
            "host:defer-mpx=1",
            5,
            "config-defer-nothing",
            "does not have",
        ),
        (
            "host:defer-avx=1,avx=0",
            5,
            "config-defer-nothing",
            "does not have",
        ),
    ];
    let host = epyc_rome().policy();
    for (config, position, rule, part) in table {
        let error = host.with_config(config).unwrap_err();
        assert_eq!(error.broken().rule, rule, "{config}");
        assert_eq!(error.position_bytes, position, "{config}");
        assert!(config[position..].starts_with(error.token), "{config}");
        let text = error.to_string();
        assert!(text.contains(part), "{config}: {text}");
        assert!(text.contains(&format!("at byte {position}")), "{text}");
    }
    let error = host.with_config("host:avx=0,avx=0").unwrap_err();
    assert_eq!(error.problem, Problem::Twice);
}

#[test]
fn asserting_and_absent_removal_change_nothing() {
    let host = epyc_rome().policy();
    for config in [
        "host",
        "host:avx=1",
        "host:pku=0",
        "host:x2apic=0",
        "host:sse=1,avx2=1",
    ] {
        assert_eq!(host.with_config(config).as_ref(), Ok(&host), "{config}");
    }
}

/// A name or something near one, with or without a value.
fn token() -> impl Strategy<Value = String> {
    let names: Vec<&str> = super::super::features::TABLE
        .iter()
        .map(|f| f.name)
        .collect();
    let name = prop_oneof![
        8 => proptest::sample::select(names).prop_map(str::to_owned),
        1 => proptest::sample::select(vec!["defer-avx", "defer-mpx", "defer-pku", "defer-"])
            .prop_map(str::to_owned),
        1 => "\\PC{0,6}",
    ];
    (
        name,
        prop_oneof![9 => Just("=0"), 2 => Just("=1"), 1 => Just("")],
    )
        .prop_map(|(name, value)| name + value)
}

proptest! {
    #[test]
    fn the_parser_panics_on_no_string(config in "\\PC*") {
        let host = skylake().policy();
        if let Err(error) = host.with_config(&config) {
            prop_assert!(config[error.position_bytes..].starts_with(error.token));
        }
        if let Err(error) = host.with_config(&format!("host:{config}")) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn what_it_accepts_is_closed_and_fits(
        tokens in proptest::collection::vec(token(), 0..6),
        pick in 0usize..9,
    ) {
        let host = machines()[pick].1.policy();
        let config = format!("host:{}", tokens.join(","));
        match host.with_config(&config) {
            Ok(policy) => {
                assert_closed(&policy);
                prop_assert_eq!(policy.fits(&host), Ok(()));
                for token in &tokens {
                    if let Some((name, value)) = token.split_once('=')
                        && let Some(feature) = by_name(name)
                    {
                        prop_assert_eq!(policy.has(feature.bit()), value == "1");
                    }
                }
            }
            Err(error) => {
                prop_assert!(config[error.position_bytes..].starts_with(error.token));
            }
        }
    }
}

#[test]
fn constants_find_their_bits() {
    const AVX2: Bit = Bit::of("avx2");
    assert!(epyc_rome().policy().has(AVX2));
}
