//! A bit is flipped in the blob on its way, and both checksums are made right
//! again: the receiver refuses it by the name of the rule that it breaks, and
//! the guest runs on where it was.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use migration_abi::stream::RecordType;

use crate::migrate::relay::{Fate, Side};
use crate::migrate::rig::Rig;
use crate::migrate::tamper::{self, Field};

/// What is flipped, and what the refusal must name.
struct Case {
    what: &'static str,
    field: Field,
    bit: usize,
    rule: &'static str,
}

const CASES: &[Case] = &[
    Case {
        what: "reserved field of the blob's header",
        field: Field::Header(92),
        bit: 0,
        rule: "blob-reserved",
    },
    Case {
        what: "an incompatible flag",
        field: Field::Header(20),
        bit: 31,
        rule: "blob-incompatible",
    },
    Case {
        what: "XCR0's x87 bit",
        field: Field::Header(40),
        bit: 0,
        rule: "xcr0",
    },
    Case {
        what: "a component without a policy in XCR0",
        field: Field::Header(40),
        bit: 17,
        rule: "xcr0",
    },
    Case {
        what: "a component without a policy in accum",
        field: Field::Header(72),
        bit: 7,
        rule: "accum",
    },
    Case {
        what: "XCOMP_BV's format bit, header's copy",
        field: Field::Header(80),
        bit: 63,
        rule: "xcomp-bv",
    },
    Case {
        what: "a flag of a directory entry",
        field: Field::Directory(8),
        bit: 7,
        rule: "blob-entry-flags",
    },
    Case {
        what: "a standard offset",
        field: Field::Directory(2 * 16 + 12),
        bit: 6,
        rule: "layout",
    },
    Case {
        what: "MXCSR bit 31",
        field: Field::Image(24),
        bit: 31,
        rule: "mxcsr",
    },
    Case {
        what: "MXCSR bit 16",
        field: Field::Image(24),
        bit: 16,
        rule: "mxcsr",
    },
    Case {
        what: "XSTATE_BV of a component that is not in the image",
        field: Field::Image(512),
        bit: 7,
        rule: "xstate-bv",
    },
    Case {
        what: "reserved byte 16 of the XSAVE header",
        field: Field::Image(512 + 16),
        bit: 0,
        rule: "reserved",
    },
    Case {
        what: "reserved byte 63 of the XSAVE header",
        field: Field::Image(512 + 63),
        bit: 7,
        rule: "reserved",
    },
];

pub fn play(rig: &mut Rig) -> Result<String> {
    let mut guest = rig.create(Side::A, 19, "")?;
    rig.progress(&mut guest, 2)?;
    for case in CASES {
        let done = Arc::new(Mutex::new(None));
        let report = Arc::clone(&done);
        let (field, bit) = (case.field, case.bit);
        rig.relay.arm(Box::new(move |_, kind, frame| {
            if kind == RecordType::VcpuXstate {
                *report.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some(tamper::flip(frame, field, bit));
            }
            Fate::Pass
        }));
        let refused = rig.send_refused(&mut guest);
        rig.relay.mend();
        let flipped = done.lock().unwrap_or_else(PoisonError::into_inner).take();
        let refusal = refused.with_context(|| format!("{} was flipped", case.what))?;
        flipped.with_context(|| format!("{}: no blob was sent", case.what))??;
        ensure!(
            refusal.names(case.rule),
            "{} was flipped, and the refusal does not name {}: {refusal}",
            case.what,
            case.rule
        );
    }
    // And untouched it goes.
    rig.send(&mut guest)?;
    rig.progress(&mut guest, 2)?;
    Ok(format!(
        "{} bits refused by name, then moved untouched",
        CASES.len()
    ))
}
