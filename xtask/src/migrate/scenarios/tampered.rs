//! Bits are flipped in the blob on its way, and both checksums are made right
//! again: the receiver refuses it by the name of the rule that it breaks, and
//! the guest runs on where it was.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use migration_abi::stream::RecordType;

use crate::migrate::relay::{Fate, Side};
use crate::migrate::rig::Rig;
use crate::migrate::tamper::{self, Field};

/// A field of the blob, the bits that are flipped, and the rule that breaks.
struct Case {
    what: &'static str,
    flips: &'static [(Field, usize)],
    rule: &'static str,
}

const fn case(what: &'static str, flips: &'static [(Field, usize)], rule: &'static str) -> Case {
    Case { what, flips, rule }
}

/// Offsets in the header of the blob.
mod header {
    use super::Field;

    pub const INCOMPATIBLE: Field = Field::Header(20);
    pub const XCR0: Field = Field::Header(40);
    pub const ACCUM: Field = Field::Header(72);
    pub const XCOMP_BV: Field = Field::Header(80);
    pub const RESERVED: Field = Field::Header(92);
}

/// Offsets in the image.
mod image {
    use super::Field;

    pub const MXCSR: Field = Field::Image(24);
    pub const XSTATE_BV: Field = Field::Image(512);
    pub const XCOMP_BV: Field = Field::Image(520);
    pub const RESERVED: Field = Field::Image(528);
}

/// Flags of the first directory entry; standard offset of the third, which is
/// AVX's wherever there is AVX.
const FLAGS: Field = Field::Directory(8);
const AVX_OFFSET: Field = Field::Directory(2 * 16 + 12);

/// One of each kind: each costs a whole stream. The rules one by one are tested
/// where they are written.
const CASES: &[Case] = &[
    case(
        "reserved field of the header",
        &[(header::RESERVED, 0)],
        "blob-reserved",
    ),
    case(
        "unknown incompatible flag",
        &[(header::INCOMPATIBLE, 31)],
        "blob-incompatible",
    ),
    case(
        "flags of a directory entry",
        &[(FLAGS, 7)],
        "blob-entry-flags",
    ),
    case(
        "standard offset of AVX",
        &[(AVX_OFFSET, 7)],
        "component-layout",
    ),
    case(
        "XCR0, outside the policy",
        &[(header::XCR0, 17)],
        "xcr0-policy",
    ),
    case(
        "accum without what is enabled",
        &[(header::ACCUM, 2)],
        "accum-enabled",
    ),
    case(
        "XCOMP_BV, in the header alone",
        &[(header::XCOMP_BV, 63)],
        "blob-xcomp-bv",
    ),
    case(
        "XCOMP_BV, both",
        &[(header::XCOMP_BV, 63), (image::XCOMP_BV, 63)],
        "xcomp-bv-bit-63",
    ),
    case(
        "XSTATE_BV, not in the image",
        &[(image::XSTATE_BV, 7)],
        "xstate-bv-xcomp-bv",
    ),
    case("MXCSR, bit 16", &[(image::MXCSR, 16)], "mxcsr"),
    case(
        "XSAVE header, first reserved bit",
        &[(image::RESERVED, 0)],
        "header-reserved",
    ),
    case(
        "XSAVE header, last reserved bit",
        &[(image::RESERVED, 48 * 8 - 1)],
        "header-reserved",
    ),
];

pub fn play(rig: &mut Rig) -> Result<String> {
    let mut guest = rig.create(Side::A, 19, "")?;
    rig.progress(&mut guest, 2)?;
    for case in CASES {
        let done = Arc::new(Mutex::new(None));
        let report = Arc::clone(&done);
        let flips = case.flips;
        rig.relay.arm(Box::new(move |_, kind, frame| {
            if kind == RecordType::VcpuXstate {
                *report.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some(tamper::flip(frame, flips));
            }
            Fate::Pass
        }));
        // Every field counts at such a moment: of a component in its initial
        // configuration no byte is read.
        rig.stop_with_all_in_use(&mut guest)?;
        let refused = rig.try_refused(&guest);
        rig.relay.mend();
        rig.unpause(&guest)?;
        rig.stayed(&mut guest)?;
        let flipped = done.lock().unwrap_or_else(PoisonError::into_inner).take();
        let refusal = refused.with_context(|| format!("{} was flipped", case.what))?;
        flipped.with_context(|| format!("{}: no blob was sent", case.what))??;
        ensure!(
            refusal.reason == case.rule,
            "{} was flipped, and the refusal does not name {}: {refusal}",
            case.what,
            case.rule
        );
    }
    // And untouched it goes.
    rig.send(&mut guest)?;
    rig.progress(&mut guest, 2)?;
    Ok(format!(
        "{} changes refused by name, then moved untouched",
        CASES.len()
    ))
}
