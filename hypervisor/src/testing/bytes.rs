//! Policies and extended state as control calls carry them.

use super::host;
use alloc::vec::Vec;
use migration_abi::blob::{DirectoryEntry, latest};
use vcpu_xstate::policy::CpuPolicy;
use xferry_abi::policy::PolicyHeader;
use zerocopy::IntoBytes;

/// A policy as control calls carry it.
pub fn policy_bytes(policy: &CpuPolicy) -> Vec<u8> {
    let header = PolicyHeader {
        deferred: policy.deferred().bits(),
        leaves: u32::try_from(policy.leaves().len()).unwrap(),
        reserved: 0,
    };
    let mut bytes = header.as_bytes().to_vec();
    for leaf in policy.leaves() {
        let words = [
            leaf.leaf,
            leaf.subleaf,
            leaf.eax,
            leaf.ebx,
            leaf.ecx,
            leaf.edx,
        ];
        words
            .iter()
            .for_each(|word| bytes.extend(word.to_le_bytes()));
    }
    bytes
}

/// What [`blob`] holds besides x87 in INIT.
#[derive(Clone, Copy)]
pub struct Content {
    pub xcr0: u64,
    /// What is in use by now, besides what is from the start.
    pub accum: u64,
    /// AVX holds this byte throughout.
    pub avx: Option<u8>,
}

/// A canonical blob of this policy's.
pub fn blob(policy: &str, content: Content) -> Vec<u8> {
    let policy = host().policy.with_config(policy).unwrap();
    let (mask, geometry) = (policy.xstate().mask, host().xstate.geometry());
    let in_use = if content.avx.is_some() { 4_u64 } else { 0 };
    let fields = latest::Fields {
        xstate_mask: mask.bits(),
        xcr0: content.xcr0,
        xss: 0,
        xfd: 0,
        xfd_err: 0,
        accum: policy.xstate().initial_accum(geometry.supervisor()).bits() | content.accum,
        xcomp_bv: 1 << 63 | in_use,
        no_xsave: false,
        crc: false,
    };
    let mut image = alloc::vec![0; 576];
    image[..2].copy_from_slice(&[0x7f, 0x03]);
    image[24..28].copy_from_slice(&[0x80, 0x1f, 0, 0]);
    image[512..520].copy_from_slice(&in_use.to_le_bytes());
    image[520..528].copy_from_slice(&fields.xcomp_bv.to_le_bytes());
    image.extend(content.avx.into_iter().flat_map(|byte| [byte; 256]));
    let entries = mask.iter().map(|component| {
        let facts = geometry.get(component);
        let (standard_offset, size) = match (component.get(), facts) {
            (0, _) => (0, 160),
            (1, _) => (160, 256),
            (_, facts) => facts
                .map(|facts| (facts.standard_offset, facts.size_bytes))
                .unwrap(),
        };
        DirectoryEntry {
            index: component.get().into(),
            size,
            flags: 0,
            standard_offset,
        }
    });
    let length = latest::encoded_len(mask.bits(), image.len(), false).unwrap();
    let mut blob = alloc::vec![0; length];
    latest::encode(&mut blob, &fields, entries, &image).unwrap();
    blob
}
