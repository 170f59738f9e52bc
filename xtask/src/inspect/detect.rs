//! What a file is, by its bytes.

use clap::ValueEnum;
use migration_abi::blob::MAGIC;
use migration_abi::registers::VcpuRegisters;

use super::blob::number;
use super::finding::{Finding, Seen};
use super::{likeness, stream};

/// A form that can be explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// An extended-state blob.
    Blob,
    /// A migration stream, one direction of it.
    Stream,
    /// KVM's buffer, as KVM_GET_XSAVE or KVM_GET_XSAVE2 fills it.
    Kvm,
    /// KVM's `kvm_xcrs`.
    KvmXcrs,
    /// Xen's CPU_XSAVE, with its save descriptor or without.
    XenHvm,
    /// Xen's X86_PV_VCPU_XSAVE, or its body alone.
    XenPv,
    /// An XSAVE image, standard or compacted.
    Raw,
    /// A register record, alone.
    Registers,
}

impl Format {
    /// Its name on the command line and for programs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Blob => "blob",
            Self::Stream => "stream",
            Self::Kvm => "kvm",
            Self::KvmXcrs => "kvm-xcrs",
            Self::XenHvm => "xen-hvm",
            Self::XenPv => "xen-pv",
            Self::Raw => "raw",
            Self::Registers => "registers",
        }
    }

    /// What it is called.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Blob => "extended-state blob",
            Self::Stream => "migration stream",
            Self::Kvm => "KVM's buffer",
            Self::KvmXcrs => "KVM's XCRs",
            Self::XenHvm => "Xen's HVM record",
            Self::XenPv => "Xen's PV record",
            Self::Raw => "XSAVE image",
            Self::Registers => "register record",
        }
    }
}

/// The bytes begin as a form with a magic does, and not the one that they are
/// said to have: whatever they are taken for, they are that.
pub fn another(named: Format, bytes: &[u8]) -> Option<Finding> {
    let what = match detect(bytes)? {
        Format::Blob if named != Format::Blob => {
            "an extended-state blob begins like this: leave --as out"
        }
        Format::Stream if named != Format::Stream => {
            "a migration stream begins like this: leave --as out"
        }
        _ => return None,
    };
    let seen = Seen::Bits(number(bytes, 0, 8).unwrap_or(0));
    let allowed = "what the named form begins with".into();
    Some(Finding::new("another-form", 0, seen, allowed, what))
}

/// A blob's magic, but for a byte or two, or as much of it as there is: no image
/// begins so, and what is a damaged blob is not to be taken for one.
fn nearly_a_blob(bytes: &[u8]) -> bool {
    let right = bytes.iter().zip(MAGIC).filter(|(seen, one)| **seen == *one);
    !bytes.is_empty() && right.count() + 2 >= bytes.len().clamp(3, MAGIC.len())
}

/// The form that the bytes have; `None` where they are none of them.
pub fn detect(bytes: &[u8]) -> Option<Format> {
    if nearly_a_blob(bytes) {
        Some(Format::Blob)
    } else if stream::looks_like_one(bytes) {
        Some(Format::Stream)
    } else {
        let registers = || VcpuRegisters::parse(bytes).ok().map(|_| Format::Registers);
        likeness::detect(bytes).or_else(registers)
    }
}
