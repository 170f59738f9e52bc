//! Golden files explained, every register of a full image, and broken files as far as they go.

use clap::ValueEnum;
use migration_abi::blob::{DirectoryEntry, Fields, v1};
use serde_json::Value;

use super::*;
use crate::receiver::Receiver;

pub(super) fn golden(name: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../migration-abi/tests/golden")
        .join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(super) fn with(bytes: &[u8], options: &InspectOptions) -> (String, Value, bool) {
    let machines = Machines::load(None).unwrap();
    let (section, whole) = explain("file", bytes, options, &machines).unwrap();
    (render::text(&section), section.json(), whole == Some(true))
}

pub(super) fn explained(bytes: &[u8]) -> (String, Value, bool) {
    with(bytes, &InspectOptions::default())
}

/// The book shows what is printed, word for word.
#[test]
fn the_book_shows_what_is_printed() {
    let book = include_str!("../../../docs/src/reading-a-blob.md");
    let machines = Machines::load(None).unwrap();
    let shown = |name: &str, bytes: &[u8]| {
        let (section, whole) = explain(name, bytes, &InspectOptions::default(), &machines).unwrap();
        (render::text(&section), section.json(), whole == Some(true))
    };
    let mut bytes = golden("blob-v1-sse.bin");
    let (text, json, whole) = shown("migration-abi/tests/golden/blob-v1-sse.bin", &bytes);
    assert!(whole && book.contains(&text), "{text}");
    assert_eq!(json["format"], "blob");
    assert_eq!(json["header"]["xcomp_bv"], "0x8000000000000003");
    assert_eq!(json["broken"], serde_json::json!([]));

    bytes[300] ^= 1;
    let (text, _, whole) = shown("damaged.bin", &bytes);
    let first: Vec<&str> = text.lines().take(4).collect();
    assert!(!whole && book.contains(&first.join("\n")), "{text}");
}

#[test]
fn parts_of_vector_registers_are_put_together() {
    let (_, json, whole) = explained(&golden("blob-v1-avx512.bin"));
    assert!(whole);
    let registers = &json["registers"]["vector"];
    // XMM is INIT; AVX's bytes count up from 0 and ZMM_HI256's from 64, in
    // the image's tail that begins with AVX (256) and opmask (64).
    assert_eq!(
        registers["zmm0"],
        "0x5f5e5d5c5b5a595857565554535251504f4e4d4c4b4a49484746454443424140\
         0f0e0d0c0b0a0908070605040302010000000000000000000000000000000000"
    );
    assert_eq!(registers["k1"], "0xf0e0d0c0b0a0908");
    assert_eq!(registers["zero"], 0);
    let states: Vec<&str> = json["image"]["components"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["state"].as_str().unwrap())
        .collect();
    let (init, used) = ("init", "in_use");
    assert_eq!(
        states,
        [init, init, used, used, used, used, init, init, init]
    );
}

#[test]
fn a_stream_with_its_vcpus() {
    let (text, json, whole) = explained(&golden("stream-v1.bin"));
    // Its policy is two leaves of no processor.
    assert_eq!(json["broken"].as_array().unwrap().len(), 1, "{text}");
    assert!(!whole && json["broken"][0]["rule"] == "policy-feature-required");
    assert_eq!(json["frames_total"], 12);
    assert_eq!(json["domain"]["name"], "torture");
    assert_eq!(json["vcpus"][1]["vcpu"], 1);
    assert_eq!(json["vcpus"][1]["xstate"]["header"]["xcr0"], "0x2e7");
    assert_eq!(json["vcpus"][0]["registers"]["rsp"], "0xffff800000001000");
    assert!(text.contains("exception, vector 14, error code 0x6, interrupted in delivery"));
    assert!(text.contains("ZERO_PAGES         16  guest frames 0x2 to 0x44"));
}

/// Index, size, flags and standard offset of what the full blob has.
const ROWS: [(u32, u32, u32, u32); 13] = [
    (0, 160, 0, 0),
    (1, 256, 0, 160),
    (2, 256, 0, 576),
    (3, 64, 0, 960),
    (4, 64, 0, 1024),
    (9, 8, 0, 2688),
    (10, 8, 1, 0),
    (11, 16, 1, 0),
    (14, 48, 1, 0),
    (15, 808, 1, 0),
    (17, 64, 2, 2752),
    (18, 8192, 6, 2816),
    (40, 32, 0, 12_000),
];

/// A blob with something in each of `ROWS`, and where each lies in its image.
fn full_blob() -> Vec<u8> {
    let directory = ROWS.map(|(index, size, flags, standard_offset)| DirectoryEntry {
        index,
        size,
        flags,
        standard_offset,
    });
    let mask = ROWS.iter().fold(0, |mask, row| mask | 1u64 << row.0);
    let mut image = vec![0; 576];
    // FCW, FSW with TOP 7, FTW, FOP, FIP, FDP, MXCSR, ST(0) = π, XMM3 = 1.
    image[..8].copy_from_slice(&[0x7f, 0x03, 0x00, 0x38, 0x80, 0, 0xe8, 0x01]);
    image[8..16].copy_from_slice(&0x40_1000u64.to_le_bytes());
    image[24..28].copy_from_slice(&0x1fa5u32.to_le_bytes());
    image[32..42].copy_from_slice(&[0x35, 0xc2, 0x68, 0x21, 0xa2, 0xda, 0x0f, 0xc9, 0x00, 0x40]);
    image[208] = 1;
    image[512..520].copy_from_slice(&mask.to_le_bytes());
    image[520..528].copy_from_slice(&(mask | 1 << 63).to_le_bytes());
    for (index, size, flags, _) in &ROWS[2..] {
        if flags & 2 != 0 {
            image.resize(image.len().next_multiple_of(64), 0);
        }
        let at = image.len();
        image.resize(at + *size as usize, 0);
        let words: &[(usize, u64)] = match index {
            2 => &[(5 * 16, 0x22)],
            3 => &[(0, 0x1000), (8, !0x1fff)],
            9 => &[(0, 0x5555_5558)],
            10 => &[(0, 1 << 31 | 0x77)],
            11 => &[(0, 0x7000_0803), (8, 0x7fff_0000)],
            14 => &[(16, 1 << 63 | 0xec << 32 | 7)],
            15 => &[(0, 1), (8, 8), (40, 0x1111), (48, 0x2222)],
            17 => &[(0, 1), (16, 64 | 32 << 16), (48, 16 | 4 << 8)],
            18 => &[(0, 0x0102_0304), (1024 + 64, 5)],
            40 => &[(8, 0xdead)],
            _ => &[(0, 3)],
        };
        for (offset, word) in words {
            image[at + offset..at + offset + 8].copy_from_slice(&word.to_le_bytes());
        }
    }
    let fields = Fields {
        xstate_mask: mask,
        xcr0: mask,
        accum: mask,
        xcomp_bv: mask | 1 << 63,
        crc: true,
        ..Fields::default()
    };
    let mut out = vec![0; v1::encoded_len(mask, image.len(), true).unwrap()];
    v1::encode(&mut out, &fields, directory, &image).unwrap();
    out
}

#[test]
fn every_register_by_name_and_value() {
    let (text, json, whole) = explained(&full_blob());
    assert!(whole, "{text}");
    let registers = &json["registers"];
    for (pointer, value) in [
        ("/x87/st/0/value", "3.14159265358979323851"),
        ("/x87/fop", "0x1e8"),
        ("/vector/mxcsr", "0x1fa5"),
        ("/vector/xmm3", "0x00000000000000000000000000000001"),
        (
            "/vector/ymm5",
            "0x0000000000000000000000000000002200000000000000000000000000000000",
        ),
        ("/bndregs/bnd0_upper", "0x1fff"),
        ("/bndcsr/bndcfgu", "0x3"),
        ("/pkru/pkru", "0x55555558"),
        ("/cet_u/pl3_ssp", "0x7fff0000"),
        ("/lbr/lbr_0/0", "0x1111"),
        ("/uintr/uintr_misc", "0x800000ec00000007"),
    ] {
        assert_eq!(
            registers.pointer(pointer),
            Some(&Value::from(value)),
            "{pointer} in {registers:#}"
        );
    }
    assert_eq!(registers["amx"]["tiles"][0]["rows"], 16);
    assert_eq!(registers["amx"]["tiles"][0]["nonzero_bytes"], 4);
    assert_eq!(registers["amx"]["tiles"][1]["row_bytes"], 32);
    for words in [
        "ST(0)  R7  4000  c90fdaa22168c235  3.14159265358979323851",
        "round to nearest, all exceptions masked, flags IE ZE PE",
        "read and write: 0; read only: 1; no access: 2–15",
        "SH_STK_EN WR_SHSTK_EN TRACKER",
        "0x77, valid",
        "table of 8, UINV 0xec, UIF 1",
        "component 40",
        "the other 14 vector registers zero",
    ] {
        assert!(text.contains(words), "{words:?} is not in\n{text}");
    }
    // Nothing is a wall: only --full shows tiles byte by byte.
    assert!(text.lines().count() < 110, "{text}");
    let full = InspectOptions {
        full: true,
        ..InspectOptions::default()
    };
    assert!(
        with(&full_blob(), &full)
            .0
            .contains("0000  0403020100000000")
    );
}

#[test]
fn machines_say_why_they_refuse() {
    let options = InspectOptions {
        against: vec!["skylake-sp".into(), "zen3".into(), "zen4".into()],
        ..InspectOptions::default()
    };
    let (text, json, _) = with(&golden("blob-v1-avx512.bin"), &options);
    let against = &json["against"];
    assert_eq!(against[0]["rule"], "xstate-mask-host");
    assert_eq!(against[0]["takes"], false);
    assert!(
        text.contains("zen3        no        xstate-mask-host: opmask"),
        "{text}"
    );
    let (_, json, _) = with(&golden("blob-v1-sse.bin"), &options);
    assert_eq!(json["against"][1]["takes"], true);
}

/// `inspect --against` said "takes it" where `policy check` said "no".
#[test]
fn inspect_and_policy_check_give_one_answer() {
    let machines = Machines::load(None).unwrap();
    for grant in [vec![], vec!["cet-ss".to_owned()]] {
        let options = InspectOptions {
            against: vec!["sapphire-rapids".into(), "zen4".into(), "zen3".into()],
            offer: Offer {
                grant,
                permit: Vec::new(),
            },
            ..InspectOptions::default()
        };
        let receiver = |name: &String| options.offer.receiver(machines.find(name)?);
        let hosts: Result<Vec<Receiver<'_>>> = options.against.iter().map(receiver).collect();
        let hosts = hosts.unwrap();
        for name in [
            "blob-v1-avx512.bin",
            "blob-v1-sse.bin",
            "blob-v1-no-xsave.bin",
        ] {
            let bytes = golden(name);
            let (inspected, json, _) = with(&bytes, &options);
            let (checked, _) = crate::policy::check::run(&bytes, &hosts, true).unwrap();
            let checked: Value = serde_json::from_str(&checked).unwrap();
            for (at, host) in hosts.iter().enumerate() {
                let said = &json["against"][at];
                for key in ["machine", "takes", "rule", "why", "ways"] {
                    assert_eq!(said[key], checked[at][key], "{name}: {inspected}");
                }
                assert_eq!(said["machine"], host.machine.name());
            }
        }
    }
    // A blob that no reader reads is taken by nobody.
    let mut bytes = golden("blob-v1-sse.bin");
    bytes[300] ^= 1;
    let options = InspectOptions {
        against: vec!["zen4".into()],
        ..InspectOptions::default()
    };
    let (_, json, _) = with(&bytes, &options);
    assert_eq!(json["against"][0]["rule"], "blob-crc");
}

#[test]
fn a_broken_blob_says_rule_offset_and_values_and_is_read_as_far_as_it_goes() {
    let mut bytes = golden("blob-v1-avx512.bin");
    bytes[96 + 9 * 16 + 576] ^= 0xff;
    let (text, json, whole) = explained(&bytes);
    assert!(!whole);
    assert_eq!(json["broken"][0]["rule"], "blob-crc");
    assert_eq!(json["broken"][0]["offset"], 2680);
    assert!(
        text.contains("BROKEN  blob-crc at byte 2680: 0x6a679c1b seen, allowed: 0x"),
        "{text}"
    );
    assert!(
        text.contains("CRC-32C                      0x6a679c1b          wrong, 0x"),
        "{text}"
    );
    assert_eq!(json["registers"]["vector"]["k1"], "0xf0e0d0c0b0a0908");

    let cut = &golden("blob-v1-avx512.bin")[..1100];
    let (text, json, _) = explained(cut);
    assert_eq!(json["broken"][0]["rule"], "blob-length");
    assert_eq!(json["header"]["xcr0"], "0x2e7");
    assert!(
        text.contains("cut off: the image ends before it does"),
        "{text}"
    );

    // An image that breaks a rule in a blob that breaks none.
    let mut bytes = golden("blob-v1-avx512.bin");
    let image = 96 + 9 * 16;
    bytes[image + 513] |= 8;
    v1::seal(&mut bytes).unwrap();
    let (_, json, whole) = explained(&bytes);
    assert!(!whole);
    assert_eq!(json["broken"][0]["rule"], "xstate-bv-xcomp-bv");
    assert_eq!(json["broken"][0]["offset"], image + 512);
}

#[test]
fn a_damaged_stream_is_read_on_behind_the_damage() {
    let mut bytes = golden("stream-v1.bin");
    bytes[272 + 16 + 100] ^= 1;
    let (text, json, whole) = explained(&bytes);
    assert!(!whole);
    // Behind the DOMAIN record, whose policy is none.
    assert_eq!(json["broken"][1]["rule"], "frame-crc");
    assert_eq!(json["broken"][1]["offset"], 272 + 12);
    assert_eq!(json["frames_total"], 12);
    assert_eq!(json["vcpus"].as_array().unwrap().len(), 2, "{text}");

    let (_, json, _) = explained(&golden("stream-v1.bin")[..13_000]);
    assert_eq!(json["broken"][1]["rule"], "frame-short");
    assert_eq!(json["frames_total"], 7);
}

/// The standard image of a machine whose AVX-512 follows AVX.
#[test]
fn a_standard_image_is_read_by_the_usual_layout_or_a_named_one() {
    let mut bytes = vec![0; 2440];
    bytes[24..28].copy_from_slice(&0x1fa5u32.to_le_bytes());
    bytes[512..516].copy_from_slice(&0x224u32.to_le_bytes());
    bytes[832] = 1;
    bytes[2432] = 4;
    let (text, json, whole) = explained(&bytes);
    assert!(whole, "{text}");
    assert_eq!(json["format"], "raw");
    assert!(text.contains("AMD's usual layout, assumed"), "{text}");
    assert_eq!(json["registers"]["vector"]["k0"], "0x1");
    assert_eq!(json["registers"]["pkru"]["pkru"], "0x4");
    // XSTATE_BV has no SSE; a standard restore takes MXCSR all the same.
    assert_eq!(json["registers"]["vector"]["mxcsr"], "0x1fa5");
    let options = InspectOptions {
        layout: Some("zen4".into()),
        ..InspectOptions::default()
    };
    assert_eq!(with(&bytes, &options).1["image"]["layout"], "zen4");
}

/// Every stored record is known for what it is, read without a complaint, and
/// taken by the machine whose layout it has.
#[test]
fn records_of_other_hypervisors() {
    let options = InspectOptions {
        against: vec!["sapphire-rapids".into(), "zen4".into()],
        ..InspectOptions::default()
    };
    for (name, format, takes) in [
        ("legacy-kvm-xsave.bin", "kvm", Some([true, false])),
        ("legacy-kvm-xsave2.bin", "kvm", Some([true, false])),
        ("legacy-raw-compacted.bin", "raw", Some([true, true])),
        ("legacy-raw-standard.bin", "raw", Some([true, false])),
        ("legacy-xen-hvm.bin", "xen-hvm", Some([true, true])),
        ("legacy-xen-hvm-long.bin", "xen-hvm", Some([true, true])),
        ("legacy-xen-pv.bin", "xen-pv", Some([true, true])),
        ("legacy-xen-pv-stream.bin", "xen-pv", Some([true, false])),
        ("legacy-xen-pv-empty.bin", "xen-pv", None),
        ("legacy-kvm-xcrs.bin", "kvm-xcrs", None),
        ("registers-v1.bin", "registers", None),
    ] {
        let (text, json, good) = with(&golden(name), &options);
        assert_eq!(json["broken"], serde_json::json!([]), "{name}: {text}");
        // Where there is no state, nothing can be said of machines.
        let warnings = json["warnings"].as_array().unwrap().len();
        assert_eq!(warnings, usize::from(takes.is_none()), "{name}: {text}");
        assert_eq!(good, takes == Some([true, true]), "{name}");
        assert_eq!(json["format"], format, "{name}");
        let against = &json["against"];
        if let Some(takes) = takes {
            let said = [0, 1].map(|machine| against[machine]["takes"] == true);
            assert_eq!(said, takes, "{name}: {against}");
            // What all of them hold: peers lose it on the way.
            assert_eq!(json["registers"]["vector"]["mxcsr"], "0x1fa5", "{name}");
        }
    }
    let (_, json, _) = explained(&golden("legacy-xen-hvm.bin"));
    assert_eq!(json["record"]["xcr0_accum"], "0x7");
    assert_eq!(json["record"]["vcpu"], 1);
    let (_, json, _) = explained(&golden("legacy-kvm-xcrs.bin"));
    assert!(json["xcrs"]["xcr0"].is_string(), "{json}");

    // A record that breaks a rule of its form, and a buffer that was cut off.
    let mut bytes = golden("legacy-xen-pv.bin");
    bytes[16 + 520 + 7] = 0x80;
    let forced = InspectOptions {
        format: Some(Format::XenPv),
        ..InspectOptions::default()
    };
    let (_, json, _) = with(&bytes, &forced);
    assert_eq!(json["broken"][0]["rule"], "legacy-image-form");
    assert_eq!(json["broken"][0]["offset"], 16 + 520);
    let (text, _, whole) = explained(&golden("legacy-kvm-xsave2.bin")[..4096]);
    assert!(
        !whole && text.contains("tiledata") && text.contains("cut off"),
        "{text}"
    );
}

/// `inspect --as xen-hvm BLOB` explained a blob's header as XCR0 and found nothing wrong.
#[test]
fn a_blob_is_not_believed_to_be_xens_record() {
    for name in ["blob-v1-sse.bin", "blob-v1-avx512.bin", "stream-v1.bin"] {
        for format in [Format::XenHvm, Format::XenPv, Format::Raw] {
            let options = InspectOptions {
                format: Some(format),
                ..InspectOptions::default()
            };
            let (text, json, whole) = with(&golden(name), &options);
            let rules: Vec<_> = json["broken"].as_array().unwrap().iter().collect();
            let another = |finding: &&Value| finding["rule"] == "another-form";
            assert!(
                !whole && rules.iter().copied().any(|f| another(&f)),
                "{text}"
            );
        }
    }
    // Nothing with a magic, and a record that no processor wrote.
    let mut bytes = golden("legacy-xen-hvm.bin");
    let xcr0_at = 8 + 8;
    bytes[xcr0_at] &= !1;
    bytes[xcr0_at + 5] |= 0x10;
    let options = InspectOptions {
        format: Some(Format::XenHvm),
        ..InspectOptions::default()
    };
    let (_, json, whole) = with(&bytes, &options);
    assert!(!whole);
    let broken = json["broken"].as_array().unwrap();
    for rule in ["xcr0-x87", "xcr0-unknown"] {
        let found = broken.iter().find(|finding| finding["rule"] == rule);
        assert_eq!(found.unwrap()["offset"], xcr0_at, "{json}");
    }
}

#[test]
fn what_is_nothing_is_said_to_be_nothing() {
    let machines = Machines::load(None).unwrap();
    let error = explain("file", b"hello", &InspectOptions::default(), &machines).unwrap_err();
    assert!(error.to_string().contains("--as"), "{error}");
}

/// No bytes whatever stop the explanation with a panic.
#[test]
fn any_truncation_and_any_damage_is_explained() {
    let machines = Machines::load(None).unwrap();
    for name in ["blob-v1-avx512.bin", "stream-v1.bin", "legacy-xen-hvm.bin"] {
        let bytes = golden(name);
        let step = bytes.len() / 12 + 1;
        for at in (0..bytes.len()).step_by(step) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0xff;
            for format in Format::value_variants().iter().copied() {
                let options = InspectOptions {
                    format: Some(format),
                    against: vec!["zen4".into()],
                    full: at % 2 == 0,
                    ..InspectOptions::default()
                };
                for bytes in [&bytes[..at], &damaged[..], &bytes[at..]] {
                    let (section, _) = explain(name, bytes, &options, &machines).unwrap();
                    assert!(render::text(&section).starts_with(name));
                    assert_eq!(section.json()["format"], format.name());
                }
            }
        }
    }
}
