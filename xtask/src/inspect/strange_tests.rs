//! Strange files: what is wrong with them comes first, and nothing is made up.

use migration_abi::blob::v1;
use serde_json::Value;

use super::tests::{explained, golden, with};
use super::*;

pub(super) fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    v1::seal(&mut bytes).unwrap();
    bytes
}

pub(super) fn rules(json: &Value) -> Vec<&str> {
    let broken = json["broken"].as_array().unwrap();
    broken
        .iter()
        .map(|finding| finding["rule"].as_str().unwrap())
        .collect()
}

fn component<'a>(json: &'a Value, name: &str) -> &'a Value {
    let rows = json["image"]["components"].as_array().unwrap();
    rows.iter().find(|row| row["name"] == name).unwrap()
}

pub(super) fn options(change: impl FnOnce(&mut InspectOptions)) -> InspectOptions {
    let mut options = InspectOptions::default();
    change(&mut options);
    options
}

/// XCOMP_BV beyond the directory was no rule, and sizes were given to
/// components that nobody had described.
#[test]
fn xcomp_bv_beyond_the_directory_is_broken() {
    let mut bytes = golden("blob-v1-sse.bin");
    let image = 96 + 2 * 16;
    let xcomp_bv = 0x8000_0000_0000_02e7u64.to_le_bytes();
    bytes[80..88].copy_from_slice(&xcomp_bv);
    bytes[image + 520..image + 528].copy_from_slice(&xcomp_bv);
    let (text, json, good) = explained(&sealed(bytes));
    assert!(!good);
    assert_eq!(rules(&json), ["xcomp-bv-policy"], "{text}");
    assert_eq!(json["broken"][0]["offset"], 80);
    for name in ["avx", "opmask", "pkru"] {
        let row = component(&json, name);
        assert_eq!(
            (&row["size"], &row["image_offset"]),
            (&Value::Null, &Value::Null)
        );
    }
    assert!(text.contains("  avx           ?  user"), "{text}");
}

/// An unbelievable size led to `image-length` from numbers that were made up,
/// AVX had 256 bytes, and PKRU was "not in the image".
#[test]
fn an_unbelievable_size_is_what_is_broken() {
    let mut bytes = golden("blob-v1-avx512.bin");
    bytes[132..136].copy_from_slice(&u32::MAX.to_le_bytes());
    let (text, json, good) = explained(&sealed(bytes));
    assert!(!good);
    assert_eq!(rules(&json), ["layout-size"], "{text}");
    let first = "BROKEN  layout-size at byte 132: 4294967295 seen, allowed: 1 to 65536";
    assert_eq!(text.lines().nth(1).unwrap(), first);
    assert_eq!(component(&json, "avx")["size"], 4_294_967_295u64);
    let pkru = component(&json, "pkru");
    assert_eq!(
        (&pkru["state"], &pkru["image_offset"]),
        (&Value::from("init"), &Value::Null)
    );
    assert_eq!(text.matches("INIT, not in the image").count(), 2, "{text}"); // CET
    // What is held behind it has no place, and is not said to be anywhere.
    assert_eq!(component(&json, "opmask")["state"], "unplaced");
    let registers = "Registers  ·  not readable: avx opmask zmm_hi256 hi16_zmm; what else";
    assert!(
        text.contains(registers) && !text.contains("all 16"),
        "{text}"
    );
}

/// What a header claims of itself was not held against itself.
#[test]
fn masks_that_contradict_each_other_are_broken() {
    for (at, rule) in [
        (40, "xcr0-policy"),
        (48, "xss-policy"),
        (72, "accum-policy"),
    ] {
        let mut bytes = golden("blob-v1-avx512.bin");
        bytes[at + 1] |= 0x20;
        let (text, json, _) = explained(&sealed(bytes));
        assert_eq!(rules(&json), [rule], "{text}");
        assert_eq!(json["broken"][0]["offset"], at);
    }
}

/// The words of a version 2 header were explained by version 1's table.
#[test]
fn another_versions_header_is_not_explained() {
    let mut bytes = golden("blob-v1-sse.bin");
    bytes[8] = 2;
    let (text, json, good) = explained(&bytes);
    assert!(!good);
    assert_eq!(json["broken"][0]["rule"], "blob-version");
    let header = json["header"].as_object().unwrap();
    assert_eq!(header.len(), 2, "{text}");
    assert_eq!(header["version"], 2);
}

/// Lengths were hexadecimal in what is broken, and decimal everywhere else.
#[test]
fn lengths_are_decimal() {
    let (text, json, _) = explained(&golden("blob-v1-avx512.bin")[..2600]);
    let first = "BROKEN  blob-length at byte 0: 2600 seen, allowed: 2684";
    assert_eq!(text.lines().nth(1).unwrap(), first);
    assert_eq!(json["broken"][0]["seen"], 2600);
    let mut bytes = golden("blob-v1-sse.bin");
    bytes[10] = 88;
    let (text, _, _) = explained(&bytes);
    assert!(
        text.contains(": 88 seen, allowed: 96 to 128, a multiple of 8"),
        "{text}"
    );
}

/// A held component without a place in the named layout was no error.
#[test]
fn what_is_held_and_has_no_place_is_broken() {
    let bytes = golden("legacy-kvm-xsave2.bin");
    for cpu in ["core2", "zen4"] {
        let options = options(|options| options.layout = Some(cpu.into()));
        let (text, json, good) = with(&bytes, &options);
        assert!(!good);
        assert!(rules(&json).contains(&"foreign-unplaced"), "{text}");
        assert!(text.contains(&format!("none in {cpu}")), "{text}");
    }
}

/// AMD's image in KVM's 4096 bytes is read as Intel's, and nothing said so.
#[test]
fn bytes_that_no_component_accounts_for_are_a_warning() {
    let mut bytes = vec![0; 4096];
    bytes[..2].copy_from_slice(&[0x7f, 3]);
    bytes[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
    bytes[512..514].copy_from_slice(&[3, 2]);
    bytes[2432..2436].copy_from_slice(&0x5555_5554u32.to_le_bytes());
    let (text, json, good) = explained(&bytes);
    assert!(good, "{text}");
    let warning = "WARNING 4 bytes between 2432 and 2435 are not zero, where nothing that is held \
                   lies by Intel's usual layout: if the image is another machine's, --layout names it";
    assert_eq!(text.lines().nth(1).unwrap(), warning);
    assert_eq!(json["warnings"].as_array().unwrap().len(), 1);
    let zen3 = options(|options| options.layout = Some("zen3".into()));
    let (text, json, _) = with(&bytes, &zen3);
    assert_eq!(json["warnings"], serde_json::json!([]), "{text}");
    assert_eq!(json["registers"]["pkru"]["pkru"], "0x55555554");
}

/// A cut buffer was `image-length … at least 0x2b00`, without the component or the cause.
#[test]
fn a_cut_kvm_buffer_says_what_was_cut_and_who_cuts() {
    let (text, json, good) = explained(&golden("legacy-kvm-xsave2.bin")[..4096]);
    assert!(!good);
    assert_eq!(rules(&json), ["foreign-truncated"]);
    let words = "tiledata ends at 11008, the bytes at 4096: KVM_GET_XSAVE gives no more, \
                 KVM_GET_XSAVE2 does";
    assert!(text.contains(words), "{text}");
}

/// 5 GiB of zeros were "KVM's buffer".
#[test]
fn what_is_longer_than_any_image_is_no_kvm_buffer() {
    assert_eq!(detect::detect(&[0; 4096]), Some(Format::Kvm));
    let long = vec![0; (1 << 20) + 4096];
    assert_eq!(detect::detect(&long), None);
    let forced = options(|options| options.format = Some(Format::Kvm));
    assert_eq!(rules(&with(&long, &forced).1), ["kvm-length"]);
}

/// In standard images a component that is INIT had no place.
#[test]
fn places_of_a_standard_image_are_shown_whether_used_or_not() {
    let mut bytes = golden("legacy-xen-hvm.bin");
    bytes[32 + 512] &= !4;
    let (text, json, _) = explained(&bytes);
    let avx = component(&json, "avx");
    assert_eq!(
        (&avx["state"], &avx["image_offset"]),
        (&"init".into(), &576.into())
    );
    assert!(text.contains("576   576  INIT"), "{text}");
}

/// A stream whose policy no receiver takes was whole.
#[test]
fn a_streams_policy_that_is_none_is_broken() {
    let (text, json, good) = explained(&golden("stream-v1.bin"));
    assert!(!good);
    assert_eq!(rules(&json), ["policy-feature-required"]);
    let words = "no receiver takes this policy: it lacks CPUID 1:EDX[0], which every policy has";
    assert!(text.contains(words), "{text}");
    assert_eq!(json["vcpus"][0]["xstate"]["against"], serde_json::json!([]));
}

/// Options that say nothing of a form were passed over without a word.
#[test]
fn options_that_are_not_used_are_named() {
    let both = options(|options| {
        options.layout = Some("zen4".into());
        options.xcr0 = Some(ComponentSet::from_bits_retain(0x207));
    });
    for (name, unused) in [
        ("blob-v1-sse.bin", 2),
        ("stream-v1.bin", 2),
        ("legacy-xen-hvm.bin", 1),
        ("legacy-kvm-xsave.bin", 0),
    ] {
        let (text, json, _) = with(&golden(name), &both);
        let warnings = json["warnings"].as_array().unwrap().iter();
        let said = warnings.filter(|said| said.as_str().unwrap().contains("is not used"));
        assert_eq!(said.count(), unused, "{text}");
    }
}

/// A record that was cut or padded was "neither", with its descriptor intact.
#[test]
fn a_xen_record_of_another_length_is_still_one() {
    let whole = golden("legacy-xen-hvm.bin");
    let mut long = whole.clone();
    long.resize(whole.len() + 8, 0);
    for (bytes, whole) in [(&whole[..whole.len() - 8], false), (&long, true)] {
        let (text, json, good) = explained(bytes);
        assert!(good == whole && json["format"] == "xen-hvm", "{text}");
    }
}

/// Xen's FIP with FCS behind it was shown as one address, and only --against said more.
#[test]
fn selectors_of_xens_are_shown_and_warned_of() {
    let image = 32;
    let mut bytes = golden("legacy-xen-hvm.bin");
    bytes[image + 8..image + 16].copy_from_slice(&0x0033_0040_1000u64.to_le_bytes());
    bytes[image + 16..image + 24].copy_from_slice(&0x002b_7fff_0000u64.to_le_bytes());
    bytes[image + 511] = 4;
    bytes[image + 512] |= 1;
    let (text, json, _) = explained(&bytes);
    let x87 = &json["registers"]["x87"];
    let shown = ["fip", "fcs", "fdp", "fds"].map(|key| &x87[key]);
    assert_eq!(shown, ["0x401000", "0x33", "0x7fff0000", "0x2b"], "{text}");
    let warning = json["warnings"][0].as_str().unwrap();
    assert!(warning.contains("foreign-fp-selectors"), "{text}");
    // In an image that is not Xen's, byte 511 is nobody's.
    let raw = options(|options| options.format = Some(Format::Raw));
    let (text, json, _) = with(&bytes[image..], &raw);
    assert_eq!(json["registers"]["x87"]["fip"], "0x3300401000", "{text}");
    assert_eq!(json["warnings"], serde_json::json!([]), "{text}");
}

/// Without bit 63 of XCOMP_BV the image was read as a standard one: two rules
/// with one name said different things, and a component was said to be cut off.
#[test]
fn a_blob_that_is_not_compacted_is_broken_once() {
    let mut bytes = golden("blob-v1-avx512.bin");
    bytes[87] = 0;
    bytes[240 + 527] = 0;
    let (text, json, good) = explained(&sealed(bytes));
    assert!(!good);
    assert_eq!(rules(&json), ["xcomp-bv-bit-63"], "{text}");
    assert_eq!(json["broken"][0]["offset"], 80);
}

/// A buffer that nobody filled was explained without a word.
#[test]
fn nothing_is_said_to_be_nothing() {
    let (text, _, _) = explained(&[0; 4096]);
    assert!(text.contains("WARNING every byte is zero"), "{text}");
    let machines = Machines::built_in();
    let error = explain("file", &[], &InspectOptions::default(), &machines).unwrap_err();
    assert_eq!(error.to_string(), "file: empty, 0 bytes");
}

/// `another-form` was said of images alone.
#[test]
fn a_blob_is_none_of_the_other_forms() {
    let bytes = golden("blob-v1-sse.bin");
    for format in [Format::Stream, Format::KvmXcrs, Format::Registers] {
        let (text, json, good) = with(&bytes, &options(|o| o.format = Some(format)));
        assert!(!good);
        assert_eq!(json["broken"][0]["rule"], "another-form", "{text}");
    }
    let stream = golden("stream-v1.bin");
    let (text, json, _) = with(&stream, &options(|o| o.format = Some(Format::Blob)));
    assert_eq!(json["broken"][0]["rule"], "another-form", "{text}");
}
