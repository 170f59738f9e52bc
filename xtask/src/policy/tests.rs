//! Tests of the commands' words on machines that are known without a table.

use std::path::Path;

use super::*;

fn read(path: &Path) -> Result<Vec<u8>> {
    input::read(path, looks_like_a_stream)
}

fn common(grant: &[&str], permit: &[&str]) -> Common {
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    Common {
        table: None,
        offer: Offer {
            grant: owned(grant),
            permit: owned(permit),
        },
        json: false,
    }
}

fn levelled(machines: &[&str], json: bool) -> String {
    let table = Table::load(None).unwrap();
    let names: Vec<String> = machines.iter().map(|name| (*name).to_owned()).collect();
    let hosts = common(&[], &[]).hosts(&table, &names).unwrap();
    level::run(&hosts, json).unwrap()
}

#[track_caller]
fn says(text: &str, line: &str) {
    assert!(
        text.lines().any(|l| l.trim() == line),
        "{line:?} not in\n{text}"
    );
}

#[test]
fn a_level_names_both_sides() {
    let text = levelled(&["skylake-sp", "zen4"], false);
    says(&text, "Machines: skylake-sp, zen4");
    says(&text, "XCR0         0x7  x87 sse avx");
    says(&text, "image        832 bytes standard, 832 compacted");
    says(&text, "opmask at 832 on zen4, 1088 on skylake-sp");
    says(&text, "pkru at 2432 on zen4, 2688 on skylake-sp");
    says(&text, "not offered by zen4:");
    says(&text, "bndregs bndcsr");
    says(&text, "avx512f: needs the component opmask");
    let text = levelled(&["zen4", "zen5"], false);
    says(
        &text,
        "XCR0         0x2e7  x87 sse avx opmask zmm_hi256 hi16_zmm pkru",
    );
    let text = levelled(&["zen3"], false);
    says(&text, "Nothing that any of them offers is left out.");
}

#[test]
fn many_machines_are_counted() {
    let text = levelled(&["core2", "haswell", "zen1", "zen2", "zen3", "zen4"], false);
    says(&text, "XCR0         0x3  x87 sse");
    says(&text, "avx: not offered by core2");
    let line = "not offered by 5 of 6: core2, haswell, zen1, …";
    assert!(text.contains(line), "{text}");
}

#[test]
fn a_level_in_json() {
    let value: serde_json::Value =
        serde_json::from_str(&levelled(&["skylake-sp", "zen3"], true)).unwrap();
    // As numbers they would lose bits in programs whose numbers end at 2⁵³.
    assert_eq!(value["xstate_mask"], "0x7");
    assert_eq!(value["machines"], serde_json::json!(["skylake-sp", "zen3"]));
    let out = value["left_out"].as_array().unwrap();
    let pkru = out.iter().find(|entry| entry["name"] == "pkru").unwrap();
    assert_eq!(pkru["reason"], "layout");
    assert_eq!(pkru["machine"], "zen3");
    assert_eq!(pkru["why"], "pkru at 2432 on zen3, 2688 on skylake-sp");
    let leaves = value["cpuid"].as_array().unwrap();
    let d0 = leaves
        .iter()
        .find(|row| row["leaf"] == "0xd" && row["subleaf"] == 0)
        .unwrap();
    assert_eq!(
        (d0["eax"].as_str(), d0["ebx"].as_str()),
        (Some("0x7"), Some("0x340"))
    );
}

#[test]
fn one_machine_explained() {
    let table = Table::load(None).unwrap();
    let rapids = table.find("sapphire-rapids").unwrap();
    let config = "host:avx512f=0,amx-tile=0";
    let text = show::run(&common(&["cet-ss"], &[]), rapids, config).unwrap();
    says(&text, "XCR0         0x207  x87 sse avx pkru");
    says(&text, "IA32_XSS     0x1800  cet_u cet_s");
    says(&text, "needs amx-tile (CPUID 7.0:EDX[24]):");
    assert!(text.contains("=0 by configuration"), "{text}");
    says(&text, "not permitted on this host:");
    says(&text, "pasid uintr lbr");
    let error = show::run(&common(&[], &[]), rapids, "host:ymm=0").unwrap_err();
    assert!(error.to_string().contains("no feature \"ymm\""), "{error}");
    assert!(common(&["ymm"], &[]).offer.granted().is_err());
    assert_eq!(
        common(&[], &["pasid", "23"])
            .offer
            .permitted()
            .unwrap()
            .bits(),
        1 << 10 | 1 << 23
    );
    assert!(common(&[], &["63"]).offer.permitted().is_err());
}

/// The stored blobs: an SSE state, an AVX-512 one with Intel's places.
#[test]
fn stored_blobs_against_machines() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migration-abi/tests/golden");
    let table = Table::load(None).unwrap();
    let check = |file: &str, machine: &str, grant: &[&str]| {
        let bytes = read(&golden.join(file)).unwrap();
        let hosts = common(grant, &[]).hosts(&table, &[machine.to_owned()]);
        check::run(&bytes, &hosts.unwrap(), false).unwrap()
    };
    let file = "blob-v1-avx512.bin";
    for (machine, grant, line) in [
        (
            "sapphire-rapids",
            &[][..],
            "no, xstate-mask-host: cet_u cet_s not offered here\n  \
             cet_u: the machine has it, no feature that is granted stands for it; --grant cet-ss or cet-ibt would\n  \
             cet_s: the machine has it, no feature that is granted stands for it; --grant cet-ss or cet-ibt would",
        ),
        // The machine that wrote it was made up.
        (
            "sapphire-rapids",
            &["cet-ss"],
            "no, component-layout: hi16_zmm aligned to 64 there, not here",
        ),
        (
            "zen4",
            &["cet-ss"],
            "no, component-layout: opmask at 1088 there, 832 here",
        ),
        (
            "zen3",
            &["cet-ss"],
            "no, xstate-mask-host: opmask zmm_hi256 hi16_zmm not offered here",
        ),
    ] {
        let expected = format!("{machine}: {line}\n");
        assert_eq!(check(file, machine, grant), (expected, false));
    }
    let yes = ("zen4: yes\n".to_owned(), true);
    assert_eq!(check("blob-v1-sse.bin", "zen4", &[]), yes);
    assert!(check("blob-v1-no-xsave.bin", "core2", &[]).1);
    let hosts = common(&[], &[])
        .hosts(&table, &["zen3".to_owned()])
        .unwrap();
    let error = check::run(b"neither", &hosts, false)
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("neither a blob nor a stream (7 bytes); `inspect --against`"),
        "{error}"
    );
    let blob = read(&golden.join("blob-v1-sse.bin")).unwrap();
    let error = check::run(&blob[..50], &hosts, false).unwrap_err();
    let words = "(at byte 0: 50 seen, allowed: at least 96)";
    assert!(error.to_string().ends_with(words), "{error}");
    let kvm = read(&golden.join("legacy-kvm-xsave.bin")).unwrap();
    let error = check::run(&kvm, &hosts, false).unwrap_err().to_string();
    assert!(
        error.starts_with("neither a blob nor a stream (4096 bytes)"),
        "{error}"
    );
}

/// `--grant avx`, `--permit avx` were taken and meant nothing; the help lacked names.
#[test]
fn what_needs_no_grant_or_permission_is_refused() {
    let grant = |name: &str| {
        common(&[name], &[])
            .offer
            .granted()
            .unwrap_err()
            .to_string()
    };
    let all = "there are cet-ss, enqcmd, uintr, cet-ibt, uiret-uif, cet-sss, apx-f";
    assert_eq!(
        grant("avx"),
        format!("--grant avx: \"avx\" needs no grant; {all}")
    );
    assert_eq!(
        grant("mce"),
        format!("--grant mce: \"mce\" is never offered; {all}")
    );
    assert_eq!(
        grant("ymm"),
        format!("--grant ymm: \"ymm\" is no feature; {all}")
    );
    let permit = |name: &str| common(&[], &[name]).offer.permitted();
    let error = permit("avx").unwrap_err().to_string();
    assert!(error.starts_with("--permit avx: \"avx\" needs no permission; there are pasid"));
    assert_eq!(permit("lbr").unwrap().bits(), 1 << 15);
    let command = <Args as clap::Args>::augment_args(clap::Command::new("policy"));
    let check = command.find_subcommand("check").unwrap();
    let help = check.clone().render_long_help().to_string();
    for name in all
        .trim_start_matches("there are ")
        .split(", ")
        .chain(["pasid", "lbr"])
    {
        assert!(help.contains(name), "{name} is not in\n{help}");
    }
}

/// `--permit 23` meant nothing on machines that have no component 23.
#[test]
fn what_is_permitted_in_vain_is_said() {
    let table = Table::built_in();
    let machines = ["zen4", "sapphire-rapids"].map(|name| table.find(name).unwrap());
    let vain = |permit: &[&str], machines: &[&crate::machines::Machine]| {
        common(&[], permit)
            .offer
            .permitted_in_vain(machines)
            .unwrap()
    };
    assert_eq!(vain(&["pasid"], &machines), None);
    let said = vain(&["pasid"], &machines[..1]).unwrap();
    assert_eq!(said, "--permit pasid: zen4 does not have it");
    let said = vain(&["23", "uintr"], &machines).unwrap();
    assert_eq!(said, "--permit component 23: none of these machines has it");
}

/// `policy-feature-required: seen 0x0, allowed 0x100000300` said nothing, and nothing was judged.
#[test]
fn a_streams_broken_policy_is_said_in_words_and_its_state_judged() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migration-abi/tests/golden");
    let table = Table::load(None).unwrap();
    let hosts = common(&["cet-ss"], &[])
        .hosts(&table, &["zen4".to_owned()])
        .unwrap();
    let bytes = read(&golden.join("stream-v1.bin")).unwrap();
    let (text, taken) = check::run(&bytes, &hosts, false).unwrap();
    assert!(!taken, "{text}");
    says(
        &text,
        "no receiver takes this stream's policy: policy-feature-required: \
         it lacks CPUID 1:EDX[0], which every policy has",
    );
    assert!(text.contains("\nzen4: "), "{text}");
    // What is cut off is said to be that, whatever else is wrong.
    let error = check::run(&bytes[..13_000], &hosts, false)
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("the stream is cut off"), "{error}");
}
