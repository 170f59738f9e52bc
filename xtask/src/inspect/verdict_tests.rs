//! Verdicts of machines: what is broken or a guess is taken by none, and each says why by one rule.

use super::strange_tests::{options, rules, sealed};
use super::tests::{explained, golden, with};
use super::*;

/// "no" of a machine was exit status 0 here and 1 of `policy check`; `all` was no machine.
#[test]
fn a_machine_that_refuses_is_no_success() {
    let bytes = golden("blob-v1-sapphire-rapids.bin");
    let against = |name: &str| options(|options| options.against = vec![name.into()]);
    assert!(with(&bytes, &against("sapphire-rapids")).2);
    let (text, json, good) = with(&bytes, &against("zen4"));
    assert!(!good && json["broken"] == serde_json::json!([]), "{text}");
    // The rule once, under its own key.
    let why = &json["against"][0];
    assert_eq!(why["rule"], "xstate-mask-host");
    assert_eq!(why["why"], "tilecfg tiledata not offered here");
    assert!(
        text.contains("zen4     no        xstate-mask-host: tilecfg"),
        "{text}"
    );
    let (_, json, good) = with(&bytes, &against("all"));
    assert!(!good && json["against"].as_array().unwrap().len() >= 15);
}

/// Without --against, `--permit nosuch` was not even read.
#[test]
fn an_offer_is_checked_and_wants_a_machine() {
    let machines = Machines::built_in();
    let bytes = golden("blob-v1-sse.bin");
    for (permit, words) in [
        ("nosuch", "is no component"),
        ("10", "is the number of pasid"),
        ("pasid", "--against names it"),
    ] {
        let options = options(|options| options.offer.permit = vec![permit.into()]);
        let error = explain("file", &bytes, &options, &machines).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}

/// A machine with AMX has KVM_GET_XSAVE2 give 11008 bytes, no multiple of 4096:
/// they were taken for an image whose length its XCR0 makes, and refused.
#[test]
fn an_xsave2_buffer_ends_where_the_largest_image_does() {
    let mut bytes = golden("legacy-raw-standard.bin");
    bytes.resize(11_008, 0);
    let against = options(|options| options.against = vec!["sapphire-rapids".into()]);
    let (text, json, good) = with(&bytes, &against);
    assert_eq!(json["format"], "kvm", "{text}");
    assert!(good, "{text}");
}

/// XCR0 was assumed from what a standard image holds, and its length refused by it;
/// then any length was taken.
#[test]
fn the_component_that_ends_an_image_is_in_its_xcr0() {
    let mut bytes = golden("legacy-raw-standard.bin")[..576].to_vec();
    bytes[512] = 3;
    bytes[513..520].fill(0);
    bytes.resize(2696, 0);
    let against = |xcr0: Option<u64>| {
        options(|options| {
            options.against = vec!["skylake-sp".into()];
            options.xcr0 = xcr0.map(ComponentSet::from_bits_retain);
        })
    };
    let (text, json, good) = with(&bytes, &against(None));
    assert!(good && json["format"] == "raw", "{text}");
    let refused = |bytes: &[u8], options: &InspectOptions| {
        let (text, json, good) = with(bytes, options);
        assert!(!good, "{text}");
        assert_eq!(json["against"][0]["rule"], "image-length", "{text}");
    };
    refused(&bytes, &against(Some(3)));
    // Nothing ends there: a cut image, or one with something behind it.
    refused(&bytes[..2000], &against(None));
    bytes.resize(2796, 0);
    refused(&bytes, &against(None));
}

/// A compacted image with bytes behind it was broken, and taken.
#[test]
fn what_is_broken_is_not_taken() {
    let mut bytes = golden("legacy-raw-compacted.bin");
    bytes.resize(bytes.len() + 64, 0);
    let zen4 = options(|options| options.against = vec!["zen4".into()]);
    let (text, json, _) = with(&bytes, &zen4);
    assert_eq!(rules(&json), ["image-length"], "{text}");
    assert_eq!(json["against"][0]["rule"], "image-length", "{text}");
}

/// One damaged byte of the magic made an image of a blob, which machines took.
#[test]
fn a_blob_with_a_damaged_magic_is_no_image() {
    let whole = golden("blob-v1-sse.bin");
    for at in 0..8 {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        let zen4 = options(|options| options.against = vec!["zen4".into()]);
        let (text, json, good) = with(&bytes, &zen4);
        assert!(!good);
        assert_eq!(json["format"], "blob", "{text}");
        assert_eq!(json["against"][0]["rule"], "blob-magic", "{text}");
    }
    // As much as there is of it.
    assert_eq!(explained(&whole[..5]).1["format"], "blob");
    for other in ["legacy-kvm-xsave.bin", "stream-v1.bin"] {
        assert_ne!(explained(&golden(other)).1["format"], "blob");
    }
}

/// A directory that no machine can have was refused by whatever rule came next.
#[test]
fn a_directory_of_no_machine_is_refused_by_its_own_rule() {
    let mut bytes = golden("blob-v1-avx512.bin");
    bytes[96 + 3 * 16 + 12 + 3] |= 1;
    let bytes = sealed(bytes);
    let zen4 = options(|options| options.against = vec!["zen4".into()]);
    let (text, json, good) = with(&bytes, &zen4);
    assert!(!good);
    assert_eq!(rules(&json), ["layout-end"], "{text}");
    assert_eq!(json["against"][0]["rule"], "layout-end", "{text}");
    let machines = Machines::built_in();
    let zen4 = zen4.offer.receivers(&[machines.find("zen4").unwrap()]);
    let (checked, taken) = crate::policy::check::run(&bytes, &zen4.unwrap(), false).unwrap();
    let why = json["against"][0]["why"].as_str().unwrap();
    assert_eq!(
        (checked, taken),
        (format!("zen4: no, layout-end: {why}\n"), false)
    );
}

/// `broken` began with another rule than a receiver's.
#[test]
fn what_is_broken_comes_in_a_receivers_order() {
    let mut bytes = golden("blob-v1-sse.bin");
    bytes[96 + 32 + 512] |= 4;
    let spr = options(|options| options.against = vec!["sapphire-rapids".into()]);
    let (text, json, _) = with(&sealed(bytes), &spr);
    assert_eq!(
        rules(&json),
        ["xstate-bv-xcomp-bv", "xstate-bv-accum"],
        "{text}"
    );
    assert_eq!(json["against"][0]["rule"], "xstate-bv-xcomp-bv", "{text}");
}

/// Machines were asked, nothing was judged, and that was success.
#[test]
fn nothing_to_judge_is_no_answer() {
    let machines = Machines::built_in();
    let zen4 = options(|options| options.against = vec!["zen4".into()]);
    for name in [
        "registers-v1.bin",
        "legacy-kvm-xcrs.bin",
        "legacy-xen-pv-empty.bin",
    ] {
        let taken = |options| {
            explain("file", &golden(name), options, &machines)
                .unwrap()
                .1
        };
        assert_eq!(taken(&zen4), None, "{name}");
        assert_eq!(taken(&InspectOptions::default()), Some(true), "{name}");
    }
}

/// No machine had a verdict on a blob of another version.
#[test]
fn every_machine_refuses_another_version() {
    let mut bytes = golden("blob-v1-sse.bin");
    bytes[8] = 2;
    let zen4 = options(|options| options.against = vec!["zen4".into()]);
    let (text, json, good) = with(&bytes, &zen4);
    assert!(!good);
    assert_eq!(json["against"][0]["rule"], "blob-version", "{text}");
    assert_eq!(json["warnings"], serde_json::json!([]), "{text}");
}
