//! The examples, run: what they say is what a stranger reads first.
#![allow(dead_code)] // `main` of each is the example's own

#[path = "../examples/can_this_host_take_it.rs"]
mod can_this_host_take_it;
#[path = "../examples/update_pkru.rs"]
mod update_pkru;

fn said(run: impl FnOnce(&mut Vec<u8>) -> Result<(), Box<dyn std::error::Error>>) -> String {
    let mut out = Vec::new();
    run(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn can_this_host_take_it() {
    assert_eq!(
        said(can_this_host_take_it::run),
        "\
all of Ice Lake: x87 sse avx opmask zmm_hi256 hi16_zmm pkru
  Ice Lake   takes it
  Alder Lake opmask (CPUID 0xD.5) not offered here
  Zen 3      opmask (CPUID 0xD.5) not offered here
without AVX-512: x87 sse avx pkru
  Ice Lake   takes it
  Alder Lake takes it
  Zen 3      pkru 8 bytes there, 64 bytes here (CPUID 0xD.9)
levelled: x87 sse avx
  Ice Lake   takes it
  Alder Lake takes it
  Zen 3      takes it
"
    );
}

#[test]
fn update_pkru() {
    assert_eq!(
        said(update_pkru::run),
        "\
vCPU: key 3 has ReadWrite
vCPU: key 3 has ReadOnly
KVM: XSTATE_BV [00, 02], PKRU [40, 00, 00, 00]
KVM: mxcsr: seen 0x11f80, allowed 0xffff
"
    );
}
