//! The examples, run: what they say is what a stranger reads first.
#![allow(dead_code)] // `main` of each is the example's own

mod samples;

#[path = "../examples/can_this_host_take_it.rs"]
mod can_this_host_take_it;
#[path = "../examples/send_less.rs"]
mod send_less;
#[path = "../examples/update_pkru.rs"]
mod update_pkru;

fn said<T>(run: impl FnOnce(&mut Vec<u8>) -> Result<T, Box<dyn std::error::Error>>) -> String {
    let mut out = Vec::new();
    run(&mut out).expect("an example runs");
    String::from_utf8(out).expect("text")
}

#[test]
fn send_less() {
    assert_eq!(
        said(send_less::run),
        "\
in use         KVM buffer    blob    given back
SSE                 11008     820    the same, XCR0 0x602e7
AVX                 11008    1076    the same, XCR0 0x602e7
AVX-512             11008    2676    the same, XCR0 0x602e7
all of AMX          11008   10932    the same, XCR0 0x602e7
"
    );
}

#[test]
fn can_this_host_take_it() {
    use can_this_host_take_it::judge;
    use vcpu_xstate::HostXstate;

    let blob = samples::golden("blob-v1-avx512.bin", &[]);
    let intel = samples::machine::intel();
    let text = said(|out| judge(&blob, &intel, out));
    assert!(
        text.ends_with("refused by xstate-mask-host: cet_u cet_s not offered here\n"),
        "{text}"
    );

    let blob = samples::golden("blob-v1-sse.bin", &[]);
    let plain = HostXstate::read(&samples::machine::cpuid(&[]), 0).expect("XSAVE");
    assert_eq!(
        said(|out| judge(&blob, &plain, out)),
        "\
708 bytes; the guest may use: x87 sse
  in the image: x87, 160 bytes
  in the image: sse, 256 bytes
this host takes it; in use: none
"
    );
}

#[test]
fn update_pkru() {
    let host = samples::machine::intel();
    let whole = samples::golden("blob-v1-sapphire-rapids.bin", &[]);
    let mut edited = whole.clone();
    assert_eq!(
        said(|out| update_pkru::update(&mut edited, &host, out)),
        "\
key 1 had ReadOnly
sealed; key 1 has ReadWrite
"
    );
    // One bit of it, and the checksum.
    let changed = whole.iter().zip(&edited).filter(|(a, b)| a != b).count();
    assert!(changed <= 5, "{changed} bytes");
    // A blob whose guest never touched PKRU has no room for it.
    let mut plain = samples::golden("blob-v1-sse.bin", &[]);
    let refused = update_pkru::update(&mut plain, &host, &mut Vec::new());
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .starts_with("update-policy")
    );
}
