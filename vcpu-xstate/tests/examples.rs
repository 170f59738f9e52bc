//! The examples, run: what they say is what a stranger reads first.
#![allow(dead_code)] // `main` of each is the example's own

#[path = "../examples/send_less.rs"]
mod send_less;
#[path = "../examples/update_pkru.rs"]
mod update_pkru;
#[path = "../examples/which_host_can_take_it.rs"]
mod which_host_can_take_it;

fn said(run: impl FnOnce(&mut Vec<u8>) -> Result<(), Box<dyn std::error::Error>>) -> String {
    let mut out = Vec::new();
    run(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn which_host_can_take_it() {
    assert_eq!(
        said(which_host_can_take_it::run),
        "\
all of Ice Lake: x87 sse avx opmask zmm_hi256 hi16_zmm pkru
  Ice Lake   takes it
  Alder Lake opmask (CPUID 0xD.5) not offered here
  Zen 3      opmask (CPUID 0xD.5) not offered here
without AVX-512: x87 sse avx pkru
  Ice Lake   takes it
  Alder Lake takes it
  Zen 3      pkru at 2688 there, 2432 here (CPUID 0xD.9)
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
KVM: mxcsr: MXCSR 0x11f80, of which 0x10000 cannot be set here
"
    );
}

#[test]
fn send_less() {
    assert_eq!(
        said(send_less::run),
        "\
SSE       4096 bytes from KVM, 576 to send, the same registers
AVX       4096 bytes from KVM, 832 to send, the same registers
AVX-512   4096 bytes from KVM, 2432 to send, the same registers
PKRU too  4096 bytes from KVM, 2440 to send, the same registers
"
    );
}
