//! Views: each value goes through its bytes unchanged, and constructors refuse what no machine takes.

use super::*;
use crate::update::UpdateError;

const LIMITS: Limits = Limits {
    mxcsr_mask: 0xffbf,
    linear_address_bits: 48,
    shadow_stacks: true,
    branch_tracking: true,
    lbr_control: 0x7f_000f,
    lbr_info: 0xff00_0000_0000_ffff,
    lbr_depth: 32,
};

/// Written to bytes of garbage, read again: the same; beyond it, the garbage.
fn round_trip<V: View + PartialEq + core::fmt::Debug>(value: V, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xa5; len + 8];
    value.write(&mut bytes);
    assert_eq!(V::read(&bytes), value);
    assert_eq!(bytes[len..], [0xa5; 8]);
    // Too short: no panic, and nothing written beyond.
    value.write(&mut []);
    V::read(&[]);
    bytes
}

#[test]
fn rights_of_each_protection_key() {
    let key = |n| ProtectionKey::new(n).unwrap();
    assert_eq!(ProtectionKey::new(16), None);
    // Linux' default: key 0 is free, all others are closed.
    let mut pkru = Pkru(0x5555_5554);
    assert_eq!(pkru.get(key(0)), Access::ReadWrite);
    for n in 1..16 {
        assert_eq!(pkru.get(key(n)), Access::None);
    }
    pkru.set(key(1), Access::ReadOnly);
    pkru.set(key(15), Access::ReadWrite);
    assert_eq!(pkru, Pkru(0x1555_5558));
    assert_eq!(pkru.get(key(1)), Access::ReadOnly);
    assert_eq!(
        Pkru(3).get(key(0)),
        Access::None,
        "AD closes whatever WD says"
    );
    round_trip(pkru, 4);
}

#[test]
fn cet_values() {
    let stack = |address| ShadowStackPointer::new(address, &LIMITS);
    assert_eq!(stack(0x7fff_f000).map(|s| s.address()), Ok(0x7fff_f000));
    assert!(matches!(stack(0x7fff_f002), Err(BadValue::Reserved(..))));
    assert!(matches!(stack(1 << 47), Err(BadValue::Address(..))));
    let both = UserCet::SHADOW_STACKS | UserCet::BRANCH_TRACKING | UserCet::WRITE_SHADOW_STACKS;
    let control = UserCet::new(both, &LIMITS).unwrap();
    assert_eq!(control.bits(), 7);
    assert!(UserCet::new(0xc00, &LIMITS).is_err());
    let stack = stack(0x1000).unwrap();
    let bytes = round_trip(CetUser { control, stack }, 16);
    assert_eq!((bytes[0], bytes[9]), (7, 0x10));
    let stacks = [ShadowStackPointer::default(), stack, stack];
    round_trip(CetSupervisor { stacks }, 24);
}

#[test]
fn pasid_values() {
    assert_eq!(Pasid::new(1 << 20), None);
    let pasid = Pasid::new(0xf_ffff).unwrap();
    assert_eq!((pasid.id(), Pasid::NONE.id()), (Some(0xf_ffff), None));
    let bytes = round_trip(pasid, 8);
    assert_eq!(bytes[..8], 0x800f_ffff_u64.to_le_bytes());
}

/// AMD's bit 17 faults on Intel.
#[test]
fn mxcsr_values() {
    let error = Mxcsr::new(0x2_1f80, &LIMITS).unwrap_err();
    assert_eq!(
        UpdateError::Value(ComponentIndex::SSE, error).rule(),
        "mxcsr"
    );
    let mut sse = [0x11; 260];
    Mxcsr::new(0x9fc0 & !0x40, &LIMITS).unwrap().write(&mut sse);
    assert_eq!(Mxcsr::read(&sse).bits(), 0x9f80);
    let mut xmm = Xmm::read(&sse);
    assert_eq!(xmm.0, [[0x11; 16]; 16], "MXCSR left XMM alone");
    xmm.0[15][15] = 1;
    xmm.write(&mut sse);
    assert_eq!(
        (sse[255], Mxcsr::read(&sse).bits()),
        (1, 0x9f80),
        "and XMM MXCSR"
    );
}

#[test]
fn x87_values() {
    let mut x87 = X87::INIT;
    assert_eq!(round_trip(x87, 160)[..4], [0x7f, 0x03, 0, 0]);
    x87.fip = 0xffff_8000_1234_5678;
    x87.st[7] = [0xc3; 10];
    let bytes = round_trip(x87, 160);
    assert_eq!(bytes[144..160], [[0xc3; 10].as_slice(), &[0; 6]].concat());
    assert_eq!(bytes[24..32], [0; 8], "MXCSR is no part of it");
}
